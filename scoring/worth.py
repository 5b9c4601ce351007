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
from models.amount import AmountModel
from models.arrivals import ArrivalModel
from scoring.bundles import DealBundle

__all__ = [
    "Final",
    "arrivals_worth",
    "final_worth",
    "mean_final",
    "recurring_now",
]

FloatArray = npt.NDArray[np.float64]
# (open deals, uniform levels) -> what each counts for if it is won.
Final = Callable[[npt.NDArray[np.int64], FloatArray], FloatArray]

_LEVELS = 20  # points of the amount's quantile function behind its mean
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
    measure: str, history: History, bundle: DealBundle, as_of: np.datetime64
) -> ArrivalModel:
    """The arrivals, each worth what recently won deals counted for, as known at a moment.

    Renewals, which are no new business, do not count.
    """
    if measure == "amount":
        return bundle.arrivals
    if measure == "count":
        return replace(bundle.arrivals, amounts=np.ones(1))
    now = int(as_of.astype("datetime64[us]").astype(np.int64))
    rows, at, known, value = history.won_events(measure)
    seen = np.flatnonzero((known <= now) & (value >= 0))
    pipeline = history.landmarks("deal", rows[seen], at[seen]).value("pipeline_id").texts()
    seen = seen[~np.isin(pipeline.astype(str), bundle.renewals)]
    seen = seen[np.argsort(at[seen], kind="stable")][-_RECENT:]
    return replace(bundle.arrivals, amounts=value[seen])


def mean_final(
    amount: AmountModel, stage: tuple[npt.NDArray[np.int32], npt.NDArray[np.object_]],
    current: FloatArray,
) -> FloatArray:  # fmt: skip
    """Mean final amount of deals in a stage that carry `current`, shape (m,), if they are won.

    The mean over the amount's own distribution, read off its quantile function; added one by one,
    so that a row alone gives the same bits as in a batch.
    """
    mean = np.zeros(len(current))
    for i in range(_LEVELS):
        level = np.full(len(current), (i + 0.5) / _LEVELS)
        mean += amount.final(stage, current, level) / _LEVELS
    return mean
