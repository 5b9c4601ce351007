"""The hazard grid: the future cut into intervals, with the calendar of each.

Intervals are 8 unit steps (days or weeks) after the moment, then steps that grow by 1.25, cut
again wherever a fiscal month or quarter ends, so that the hazard inside one is constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Local days since 1970 on which fiscal months begin, and fiscal quarters, ascending: they reach
# beyond every landmark and its horizon. A month has at least 28 days.
Marks = tuple[FloatArray, FloatArray]

__all__ = ["CALENDAR_COLUMNS", "CALENDAR_YEAR", "Cells", "HazardGrid", "Marks"]

CALENDAR_COLUMNS = (
    "weekday_share",
    "days_to_quarter_end",
    "last_month_of_quarter",
    "season_sin",
    "season_cos",
    "turn_of_year",
)

_MONTHS = np.arange("1890-01", "2260-01", dtype="datetime64[M]").astype("datetime64[D]")
# The months and quarters of calendar years.
CALENDAR_YEAR: Marks = (_MONTHS.astype(np.float64), _MONTHS[::3].astype(np.float64))


@dataclass(frozen=True)
class Cells:
    """Future intervals of m landmarks.

    Attributes
    ----------
    begin, end : float64, shape (m, k)
        Days after the landmark. Intervals of length zero are padding.
    step : int64, shape (m, k)
        Which step of the grid the interval lies in.
    calendar : dict of str to float64, shape (m, k)
        What the calendar says of each interval (`CALENDAR_COLUMNS`).
    """

    begin: FloatArray
    end: FloatArray
    step: IntArray
    calendar: dict[str, FloatArray]

    def take(self, rows: Any) -> Cells:
        """The intervals of some landmarks."""
        return Cells(
            self.begin[rows],
            self.end[rows],
            self.step[rows],
            {k: v[rows] for k, v in self.calendar.items()},
        )

    def repeated(self, n: int) -> Cells:
        """The intervals of a single landmark for n of them, as views that take no room."""
        shape = (n, self.begin.shape[1])
        return Cells(
            np.broadcast_to(self.begin, shape),
            np.broadcast_to(self.end, shape),
            np.broadcast_to(self.step, shape),
            {k: np.broadcast_to(v, shape) for k, v in self.calendar.items()},
        )

    @property
    def of_one_moment(self) -> bool:
        """Whether all landmarks look ahead from the same moment."""
        every = (self.begin, self.end, *self.calendar.values())
        return all(bool((part == part[:1]).all()) for part in every)

    def within(self, days: float) -> Cells:
        """The intervals that begin within so many days of any landmark."""
        k = int((self.begin < days).sum(axis=1).max(initial=0))
        return Cells(
            self.begin[:, :k],
            self.end[:, :k],
            self.step[:, :k],
            {name: v[:, :k] for name, v in self.calendar.items()},
        )


@dataclass(frozen=True)
class HazardGrid:
    """Edges of the steps after a landmark.

    Attributes
    ----------
    edges : tuple of float
        Days after the landmark, from 0 to T_max, ascending.
    """

    edges: tuple[float, ...]

    @classmethod
    def for_durations(cls, median: float, longest: float) -> HazardGrid:
        """The grid for deals of a median and a 99th percentile duration, both in days."""
        unit = 1.0 if median < 45 else 7.0
        edges = [0.0, *(unit * (i + 1) for i in range(8))]
        step = unit
        while edges[-1] < longest:
            step *= 1.25
            edges.append(edges[-1] + step)
        return cls(tuple(edges))

    @property
    def t_max(self) -> float:
        """The end of the grid, days after the landmark."""
        return self.edges[-1]

    def cells(self, local: FloatArray, fiscal: Marks = CALENDAR_YEAR) -> Cells:
        """Intervals for landmarks at local times `local`, shape (m,), in days since 1970.

        `fiscal` says where the organisation's fiscal months and quarters begin.

        The organisation's clock at the landmark is used for the whole horizon: a summer-time
        change moves an edge by an hour, which no model here sees.
        """
        # Midnights made of floats miss by 1e-12 days, and a cut beside an edge instead of on it
        # would leave an interval that long, whose calendar is rounding error.
        moments, place = np.unique(np.round(local, 9), return_inverse=True)
        cuts = _month_ends(moments, self.t_max, fiscal[0])
        base = np.broadcast_to(np.array(self.edges), (len(moments), len(self.edges)))
        marks = np.sort(np.concatenate([base, np.clip(cuts, 0.0, self.t_max)], axis=1), axis=1)
        begin, end = marks[:, :-1], marks[:, 1:]
        middle = (begin + end) / 2
        step = np.searchsorted(np.array(self.edges), middle, side="right") - 1
        step = np.clip(step, 0, len(self.edges) - 2)
        columns = _calendar(moments[:, None] + begin, moments[:, None] + end, fiscal)
        return Cells(begin, end, step, columns).take(place)


def _month_ends(local: FloatArray, t_max: float, months: FloatArray) -> FloatArray:
    """Days from each local moment to the month ends after it, shape (m, k)."""
    count = int(t_max // 28) + 1
    following = np.searchsorted(months, np.floor(local), side="right")
    return np.asarray(months[following[:, None] + np.arange(count)] - local[:, None])


def _business(days: FloatArray) -> FloatArray:
    """Working days (Monday to Friday) elapsed since 1970 at local moments, fractions counted."""
    whole = np.floor(days).astype(np.int64)
    weekday = (whole + 3) % 7
    full_weeks = (whole + 3) // 7
    inside = np.where(weekday < 5, days - whole, 0.0)
    return np.asarray(full_weeks * 5.0 + np.minimum(weekday, 5) + inside, dtype=np.float64)


def _calendar(begin: FloatArray, end: FloatArray, fiscal: Marks) -> dict[str, FloatArray]:
    length = end - begin
    middle = (begin + end) / 2
    working = _business(end) - _business(begin)
    months, quarters = fiscal
    day = np.floor(middle)
    month_end = months[np.searchsorted(months, day, side="right")]
    quarter_end = quarters[np.searchsorted(quarters, day, side="right")]
    year = middle.astype("datetime64[D]").astype("datetime64[Y]").astype("datetime64[D]")
    turn = 2 * np.pi * (middle - year.astype(np.float64)) / 365.25
    return {
        "weekday_share": np.divide(working, length, out=np.zeros_like(length), where=length > 0),
        "days_to_quarter_end": quarter_end - middle,
        "last_month_of_quarter": (month_end == quarter_end).astype(np.float64),
        "season_sin": np.sin(turn),
        "season_cos": np.cos(turn),
        "turn_of_year": _turn_of_year(begin, end),
    }


def _turn_of_year(begin: FloatArray, end: FloatArray) -> FloatArray:
    """Share of each interval that lies between 24 December and New Year's Day."""
    length = end - begin
    first = begin.astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64)
    share = np.zeros_like(length)
    for year in range(int(first.min(initial=0)), int(first.max(initial=-1)) + 3):
        new_year = float(np.datetime64(year, "Y").astype("datetime64[D]").astype(np.int64))
        inside = np.minimum(end, new_year + 1.0) - np.maximum(begin, new_year - 8.0)
        share += np.clip(inside, 0.0, None)
    return np.divide(share, length, out=np.zeros_like(length), where=length > 0)
