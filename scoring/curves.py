"""The curve of a deal: chances to be won and lost by each future day, and what is read off it.

Days are the organisation's own: a deal scored at noon has half of today left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data.history import Snapshot
from models.grid import Cells
from models.hazard_table import incidence, read_curve
from scoring.bundles import DealBundle

__all__ = ["QUANTILES", "CurvePoint", "Curves", "Range"]

FloatArray = npt.NDArray[np.float64]

QUANTILES = (0.1, 0.5, 0.9)
_NEVER_WON = 1e-9  # below this chance there is no date of winning to speak of


@dataclass(frozen=True, slots=True)
class Range:
    """10, 50 and 90 % points; dates as datetime64[D], money in the base currency."""

    p10: Any
    p50: Any
    p90: Any


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Chance to have been won, and lost, by the end of a day."""

    date: np.datetime64
    won: float
    lost: float


@dataclass(frozen=True)
class Curves:
    """Incidences of open deals from their moments on.

    Attributes
    ----------
    local : float64, shape (m,)
        Moments on the organisation's clock, days since 1970.
    cells : Cells
        Future intervals, (m, k).
    incidence : float64, shape (m, k, 2)
        Chance to have been (won, lost) by the end of each interval.
    """

    local: FloatArray
    cells: Cells
    incidence: FloatArray

    @classmethod
    def of(cls, snapshot: Snapshot, bundle: DealBundle, columns: Mapping[str, Any]) -> Curves:
        """The curves of a snapshot of open deals with its features."""
        local = bundle.calendar.local_days(snapshot.at)
        cells = bundle.model.grid.cells(local, bundle.calendar.marks)
        return cls(local, cells, incidence(bundle.model.hazards(columns, cells)))

    def won_within(self, days: FloatArray) -> FloatArray:
        """Chance of each deal to be won within its own number of days: (m,)."""
        return read_curve(self.incidence[:, :, 0], self.cells, days[:, None])[:, 0]

    def points(self, i: int) -> tuple[CurvePoint, ...]:
        """The curve of one deal at the end of every day in which an interval ends."""
        ends = self.local[i] + self.cells.end[i][self.cells.end[i] > self.cells.begin[i]]
        day = np.unique(np.ceil(np.round(ends, 6))) - 1
        ahead = (day + 1 - self.local[i])[None, :]
        row = self.cells.take(np.array([i]))
        won, lost = (read_curve(self.incidence[i : i + 1, :, c], row, ahead)[0] for c in (0, 1))
        return tuple(
            CurvePoint(_date(d), float(w), float(x)) for d, w, x in zip(day, won, lost, strict=True)
        )

    def close_dates(self) -> list[Range | None]:
        """Dates by which 10, 50 and 90 % of the chance of winning has passed."""
        won = self.incidence[:, :, 0]
        row = np.arange(len(won))
        days = []
        for q in QUANTILES:
            goal = q * won[:, -1]
            k = np.minimum((won < goal[:, None]).sum(axis=1), won.shape[1] - 1)
            before = np.where(k > 0, won[row, np.maximum(k - 1, 0)], 0.0)
            step = won[row, k] - before
            part = np.where(step > 0, (goal - before) / np.where(step > 0, step, 1.0), 0.0)
            begin = self.cells.begin[row, k]
            days.append(self.local + begin + part * (self.cells.end[row, k] - begin))
        return [
            Range(*(_date(d[i]) for d in days)) if won[i, -1] > _NEVER_WON else None for i in row
        ]

    def slip(self, expected_day: FloatArray) -> list[float | None]:
        """Chance to be open still when the expected close date (days since 1970) is over."""
        ahead = expected_day + 1.0 - self.local
        soon = np.nan_to_num(np.maximum(ahead, 0.0))
        closed = read_curve(self.incidence.sum(axis=2), self.cells, soon[:, None])[:, 0]
        return [
            None if np.isnan(d) else 1.0 if d <= 0 else float(1.0 - c)
            for d, c in zip(ahead, closed, strict=True)
        ]


def _date(days: float) -> np.datetime64:
    return np.datetime64(int(np.floor(days)), "D")
