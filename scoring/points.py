"""Probabilities at many (record, moment, horizon) points, each from what was known then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.history import History, Side
from scoring.bundles import DealBundle, LeadBundle
from scoring.scores import qualified_within, won_within

__all__ = ["Points", "PointsError", "points_of", "probabilities"]

FloatArray = npt.NDArray[np.float64]


class PointsError(ValueError):
    """A point that cannot be scored; the message names it and what is allowed."""


@dataclass(frozen=True)
class Points:
    """Points to score.

    Attributes
    ----------
    rows : int64, shape (m,)
        Positions of the records in their ledger.
    at : int64 microseconds, shape (m,)
    days : float64, shape (m,)
        Horizons.
    """

    rows: npt.NDArray[np.int64]
    at: npt.NDArray[np.int64]
    days: FloatArray


def points_of(
    history: History, side: Side, ids: Sequence[str], at: npt.NDArray[np.datetime64],
    days: FloatArray,
) -> Points:  # fmt: skip
    """Find the records, and refuse points that make no sense.

    Raises
    ------
    PointsError
        If an id is unknown, was not yet there or was gone at its moment, or a horizon is not
        above 0 days.
    """
    ledger = history.ledger(side)
    unknown = [i for i in ids if i not in ledger.row_of]
    if unknown:
        raise PointsError(
            f"{len(unknown)} ids are not {side}s of this store, the first is {unknown[0]!r}"
        )
    rows = np.array([ledger.row_of[i] for i in ids], dtype=np.int64)
    moments = at.astype("datetime64[us]").astype(np.int64)
    snapshot = history.landmarks(side, rows, moments)
    absent = np.flatnonzero(~snapshot.exists)
    if len(absent):
        first = absent[0]
        raise PointsError(
            f"{len(absent)} points lie before their {side} was known or after it was gone, the "
            f"first is {ids[first]!r} at {at[first].astype('datetime64[s]')}"
        )
    wrong = np.flatnonzero(~(days > 0))
    if len(wrong):
        raise PointsError(f"horizon is {days[wrong[0]]:g} days; allowed: above 0")
    return Points(rows, moments, days)


def probabilities(history: History, bundle: LeadBundle | DealBundle, points: Points) -> FloatArray:
    """Chance to be won, or qualified, within each point's horizon: shape (m,)."""
    if isinstance(bundle, DealBundle):
        snapshot = history.landmarks("deal", points.rows, points.at)
        return won_within(snapshot, bundle, points.days)
    snapshot = history.landmarks("lead", points.rows, points.at)
    return qualified_within(snapshot, bundle, points.days)
