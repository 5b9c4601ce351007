"""A synthetic company and bundles fitted on it, made once for all tests of a process."""

from __future__ import annotations

from functools import cache

import numpy as np

from data.history import History
from data.pipeline import FiscalCalendar
from data.synthetic import make_history
from data.timelines import DAY
from scoring.bundles import DealBundle, LeadBundle
from training.fitting import Recipe, fit_deals, fit_leads

CALENDAR = FiscalCalendar()
RECIPE = Recipe(CALENDAR, landmarks=2500)


@cache
def company() -> History:
    """A year of about 400 deals and 800 leads."""
    made = make_history(400, seed=1, days=365)
    return History(made.tables, [made.facts])


def cut() -> int:
    """A midnight, sixty days before the records end; int64 microseconds."""
    end = company().observed_until - 60 * DAY
    return end - end % DAY


def cut_time() -> np.datetime64:
    """The same as a datetime64."""
    return np.datetime64(cut(), "us")


@cache
def deals() -> DealBundle:
    """Fitted on what was known at the cut; table, ridge and trees all have a say."""
    return fit_deals(company(), cut(), RECIPE, "2026-01-01T00:00:00Z")


@cache
def leads() -> LeadBundle:
    """Fitted on what was known at the cut."""
    return fit_leads(company(), cut(), 30, RECIPE, "2026-01-01T00:00:00Z")
