"""Targets (quotas): found by exactly their period and group, never summed."""

from __future__ import annotations

import numpy as np

from data.history import History, HistoryError
from data.pipeline import FiscalCalendar, Period
from scoring.grouping import WHOLE

__all__ = ["target_of"]

# Kinds of target, in small letters, that are about something else than the amount: the measure
# that they are about (`data.revenue.MEASURES`), "" for what no deal brings.
_KINDS = {
    **dict.fromkeys(("recurring", "arr", "acv", "mrr"), "recurring"),
    **dict.fromkeys(("quantity", "count", "deals"), "count"),
    **dict.fromkeys(("activities", "meetings", "calls"), ""),
}


def target_of(
    history: History,
    calendar: FiscalCalendar,
    as_of: np.datetime64,
    period: Period,
    by: str | None = None,
    group: str = WHOLE,
    measure: str = "amount",
) -> float | None:
    """The target of exactly this measure, period and group; None for none.

    Money is in the base currency.

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
    found = [
        i for i in np.flatnonzero(here) if _KINDS.get(str(kinds[i]).casefold(), "amount") == measure
    ]
    if not found:
        return None
    if measure == "count":
        return float(targets["amount"][found[-1]])
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
