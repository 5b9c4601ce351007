"""The books of small histories, for tests of what is read from them."""

from __future__ import annotations

import numpy as np

from data.history import History
from data.pipeline import FiscalCalendar
from scoring.books import Books
from scoring.bundles import DealBundle
from tests.small_crm import moment

CALENDAR = FiscalCalendar()


def books_of(
    crm: History,
    at: str | np.datetime64,
    period: str = "month",
    bundle: DealBundle | None = None,
    calendar: FiscalCalendar = CALENDAR,
) -> Books:
    """The books at a moment, of the period that holds it or of a named one."""
    when = moment(at) if isinstance(at, str) else at
    kind, found = calendar.named(period, when)
    return Books(crm, calendar, when, kind, found, bundle)
