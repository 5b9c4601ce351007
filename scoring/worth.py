"""What a won deal counts for: its amount, its recurring amount, or one.

The amount is what the bundle learnt; the others are derived from it and from the records, so
that no model of its own is needed for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from data.history import History, Snapshot
from models.arrivals import ArrivalModel

__all__ = ["TARGET_KINDS", "Final", "arrivals_worth", "final_worth", "recurring_now"]

FloatArray = npt.NDArray[np.float64]
# (open deals, uniform levels) -> what each counts for if it is won.
Final = Callable[[npt.NDArray[np.int64], FloatArray], FloatArray]

# Kinds of target, in small letters, that are about something else than the amount.
TARGET_KINDS: dict[str, tuple[str, ...]] = {
    "recurring": ("recurring", "arr", "acv", "mrr"),
    "count": ("quantity", "count", "deals"),
}
_RECENT = 2000  # won deals whose recurring amounts new business draws from


def recurring_now(snapshot: Snapshot) -> FloatArray:
    """Recurring amount a year, in the base currency at the rate of the moment; 0 where none."""
    recurring = snapshot.value("recurring_amount").numbers().copy()
    priced = np.flatnonzero(~np.isnan(recurring) & (recurring != 0))
    recurring[priced] *= snapshot.history.rate(snapshot.take(priced))
    return np.nan_to_num(recurring)


def final_worth(measure: str, snapshot: Snapshot, final: Final) -> Final:
    """What open deals count for when they are won, at a quantile level of their final amount.

    The recurring part moves with the amount: a deal that closes 10 % lower brings 10 % less a
    year. Where no amount is known it stays as it is.
    """
    if measure == "amount":
        return final
    if measure == "count":
        return lambda deal, level: np.ones(len(deal))
    recurring, amount = recurring_now(snapshot), snapshot.amount
    moves = amount > 0

    def worth(deal: npt.NDArray[np.int64], level: FloatArray) -> FloatArray:
        known = moves[deal]
        ratio = final(deal, level) / np.where(known, amount[deal], 1.0)
        return np.asarray(recurring[deal] * np.where(known, ratio, 1.0))

    return worth


def arrivals_worth(
    measure: str, history: History, arrivals: ArrivalModel, as_of: np.datetime64
) -> ArrivalModel:
    """The arrivals, each worth what recently won deals counted for, as known at a moment."""
    if measure == "amount":
        return arrivals
    if measure == "count":
        return replace(arrivals, amounts=np.ones(1))
    now = int(as_of.astype("datetime64[us]").astype(np.int64))
    _, at, known, value = history.won_events(measure)
    seen = np.flatnonzero((known <= now) & (value >= 0))
    seen = seen[np.argsort(at[seen], kind="stable")][-_RECENT:]
    return replace(arrivals, amounts=value[seen])
