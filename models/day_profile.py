"""How the calendar shapes a daily count: the week, the end of a quarter, the year.

A Poisson regression of daily counts on what the calendar says of a day, shrunken towards "nothing",
the less the more the counts vary beyond chance. The year is learnt from records of two years, the
quarter once two of them have ended: before that a calendar is a clock that tells then from now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.grid import CALENDAR_YEAR

__all__ = ["DayProfile"]

FloatArray = npt.NDArray[np.float64]

_YEAR_FROM, _QUARTER_FROM = 730, 200  # days of records
_RUSHES = (5.0, 15.0)  # days over which the nearness of a quarter's end fades
_BEFORE_NEW_YEAR = 8  # the last days of December, and New Year's Day
# SD of what is believed of each factor's log: weekdays, nearness, the year, the turn of the year.
_WEEKDAY, _RUSH, _SEASON, _TURN = 0.5, 0.4, 0.2, 0.5
_FREE = 10.0  # of the level and its trend
_ROUNDS = 25
_WEEK = 7


@dataclass(frozen=True)
class DayProfile:
    """Factors on a daily rate.

    Attributes
    ----------
    weekday : float64, shape (7,)
        Log factors, Monday first.
    rush : float64, shape (2,)
        Log factors of the last moment of a quarter, fading over 5 and 15 days before it.
    season : float64, shape (4,)
        Sines and cosines of the year and of half of it.
    turn : float
        Log factor from 24 December to New Year's Day.
    quarters : float64, shape (q,)
        Days since 1970 on which fiscal quarters begin, all that may matter.
    """

    weekday: FloatArray
    rush: FloatArray
    season: FloatArray
    turn: float
    quarters: FloatArray

    @classmethod
    def flat(cls) -> DayProfile:
        """Every day like any other."""
        return cls(np.zeros(7), np.zeros(len(_RUSHES)), np.zeros(4), 0.0, CALENDAR_YEAR[1])

    @classmethod
    def fit(
        cls, days: FloatArray, count: FloatArray, expected: FloatArray,
        quarters: FloatArray = CALENDAR_YEAR[1],
    ) -> DayProfile:  # fmt: skip
        """Learn from consecutive days.

        Parameters
        ----------
        days : shape (n,)
            Days since 1970.
        quarters : shape (q,)
            Days on which fiscal quarters begin; those of calendar years if left out.
        count, expected : shape (n,)
            What came, and what would have been due were all days alike, up to a level and a trend.
        """
        told = expected > 0
        days, count, expected = days[told], count[told], expected[told]
        if len(days) < 2 * _WEEK or count.sum() == 0:
            return cls.flat()
        span = float(np.ptp(days))
        columns = _columns(days, quarters)
        believed = np.r_[
            np.full(7, _WEEKDAY),
            np.full(len(_RUSHES), _RUSH if span >= _QUARTER_FROM else 0.0),
            np.full(4, _SEASON if span >= _YEAR_FROM else 0.0),
            _TURN if span >= _YEAR_FROM else 0.0,
        ]
        used = believed > 0
        trend = (days - days.mean()) / 365.25
        design = np.column_stack([columns[:, used], np.ones(len(days)), trend])
        sd = np.r_[believed[used], _FREE, _FREE if span >= _YEAR_FROM else 1e-3]
        coefficient = _poisson(design, count, expected, sd, 1.0)
        beyond = _dispersion(count, expected * np.exp(design @ coefficient))
        coefficient = _poisson(design, count, expected, sd, beyond)
        whole = np.zeros(len(believed))
        whole[used] = coefficient[: int(used.sum())]
        weekday, rush, season, turn = np.split(whole, np.cumsum([7, len(_RUSHES), 4]))
        return cls(weekday, rush, season, float(turn[0]), quarters)

    def factor(self, days: FloatArray) -> FloatArray:
        """Factor of each day, counted since 1970; shape (n,)."""
        logs = np.r_[self.weekday, self.rush, self.season, self.turn]
        return np.asarray(np.exp(_columns(days, self.quarters) @ logs))

    def without_weekdays(self) -> DayProfile:
        """The same, every weekday like any other."""
        return DayProfile(np.zeros(7), self.rush, self.season, self.turn, self.quarters)

    def to_state(self) -> dict[str, Any]:
        """Plain values and arrays."""
        return {
            "weekday": self.weekday, "rush": self.rush, "season": self.season, "turn": self.turn,
            "quarters": self.quarters,
        }  # fmt: skip

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> DayProfile:
        """Rebuild from `to_state`."""
        return cls(
            state["weekday"], state["rush"], state["season"], float(state["turn"]),
            state["quarters"],
        )  # fmt: skip


def _columns(days: FloatArray, quarters: FloatArray) -> FloatArray:
    """What the calendar says of each day: (n, 14)."""
    whole = np.floor(days).astype(np.int64)
    date = whole.astype("datetime64[D]")
    next_quarter = np.searchsorted(quarters, whole, side="right")
    left = quarters[np.minimum(next_quarter, len(quarters) - 1)] - whole - 1.0
    year = date.astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64)
    place = (whole - year).astype(np.float64)
    new_year = (date.astype("datetime64[Y]") + 1).astype("datetime64[D]").astype(np.int64)
    turn = ((new_year - whole <= _BEFORE_NEW_YEAR) | (place == 0)).astype(np.float64)
    angle = 2.0 * np.pi * place / 365.25
    return np.column_stack(
        [
            (whole[:, None] + 3) % 7 == np.arange(7),
            *(np.exp(-left / fade) for fade in _RUSHES),
            np.sin(angle), np.cos(angle), np.sin(2 * angle), np.cos(2 * angle), turn,
        ]
    ).astype(np.float64)  # fmt: skip


def _poisson(
    design: FloatArray, count: FloatArray, expected: FloatArray, sd: FloatArray, beyond: float
) -> FloatArray:
    """Mode of the coefficients under normal priors, counts varying `beyond` as much as Poisson."""
    coefficient = np.zeros(design.shape[1])
    coefficient[-2] = np.log(count.sum() / expected.sum())
    for _ in range(_ROUNDS):
        due = expected * np.exp(np.clip(design @ coefficient, -20.0, 20.0))
        slope = design.T @ (count - due) / beyond - coefficient / sd**2
        bend = (design.T * (due / beyond)) @ design + np.diag(1.0 / sd**2)
        step = np.linalg.solve(bend, slope)
        coefficient = coefficient + np.clip(step, -1.0, 1.0)
        if np.abs(step).max() < 1e-9:
            break
    return coefficient


def _dispersion(count: FloatArray, due: FloatArray) -> float:
    """Variance of weekly counts over what Poisson would give them, at least one.

    Weeks, not days: what all days of a week share is most of what chance does not explain.
    """
    weeks = len(count) // _WEEK
    seen, expected = (
        part[len(part) - weeks * _WEEK :].reshape(weeks, _WEEK).sum(1) for part in (count, due)
    )
    return max(float(np.mean((seen - expected) ** 2 / np.maximum(expected, 1e-9))), 1.0)
