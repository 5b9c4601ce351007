"""Targets (quotas): found by exactly their period and group, never summed."""

from __future__ import annotations

import numpy as np

from data.history import History, HistoryError
from data.pipeline import FiscalCalendar, Period

__all__ = ["WHOLE", "target_of"]

WHOLE = "all"  # the group that holds everything

# Kinds of target that count something else than money.
_COUNTS = ("quantity", "count", "deals", "activities", "meetings", "calls")


def target_of(
    history: History,
    calendar: FiscalCalendar,
    as_of: np.datetime64,
    period: Period,
    by: str | None = None,
    group: str = WHOLE,
) -> float | None:
    """The revenue target of exactly this period and group, in the base currency; None for none.

    Raises
    ------
    HistoryError
        If it is in a currency without a rate by `as_of`.
    """
    targets = history.tables["target"]
    scope = "all" if group == WHOLE else by
    here = (
        (targets["scope"] == scope)
        & ((targets["scope_id"] == group) | (scope == "all"))
        & (targets["period_start"] == np.datetime64(calendar.day_of(period.start), "D"))
        & (targets["period_end"] == np.datetime64(calendar.day_of(period.end), "D"))
    )
    kinds = targets["kind"]
    found = [i for i in np.flatnonzero(here) if str(kinds[i]).casefold() not in _COUNTS]
    if not found:
        return None
    rate = _rate(history, targets["currency"][found[-1]], as_of)
    return float(targets["amount"][found[-1]]) * rate


def _rate(history: History, code: str | None, as_of: np.datetime64) -> float:
    """Units of the base currency for one of a target's, by the latest rate known."""
    if code is None or code == history.currency:
        return 1.0
    table = history.tables["exchange_rate"]
    found = np.flatnonzero(
        (table["from_currency"] == code)
        & (table["to_currency"] == history.currency)
        & (table["date"] <= as_of)
    )
    if not len(found):
        raise HistoryError(
            f"a target is in {code}, and there is no rate from {code} to {history.currency} on or "
            f"before {as_of.astype('datetime64[D]')}; import exchange rates"
        )
    return float(table["rate"][found[np.argmax(table["date"][found])]])
