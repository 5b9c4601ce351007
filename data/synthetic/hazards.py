"""Hazards and their exact sums: what may happen to a deal on each day, and how likely it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.synthetic.world import PipelineWorld, World

__all__ = [
    "ADVANCE",
    "BACK",
    "CLOSES",
    "DAY",
    "HOUR",
    "LOSE",
    "OPENS",
    "SHIFT",
    "SKIP",
    "WIN",
    "Calendar",
    "Chain",
    "Dates",
    "Flags",
    "Floats",
    "Ints",
    "Objects",
    "business_days",
    "decision_delays",
    "quarter",
    "sigmoid",
    "weekday",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Objects = npt.NDArray[np.object_]
Dates = npt.NDArray[np.datetime64]

DAY = 86_400_000_000  # microseconds
HOUR = DAY // 24
OPENS, CLOSES = 8 * HOUR, 18 * HOUR  # business hours, UTC

WIN, LOSE, ADVANCE, SKIP, BACK = range(5)  # the five hazards, in the order of every array of them
SHIFT = np.array([0, 0, 1, 2, -1])  # stages that each of them moves a deal by


# ------------------------------------------------------------------ the calendar


@dataclass(frozen=True, eq=False)
class Calendar:
    """Factors by day, shape (days,): on all hazards, on wins besides, on arrivals."""

    work: Floats
    win: Floats
    arrivals: Floats

    @classmethod
    def of(cls, world: World, start: np.datetime64, days: int) -> Calendar:
        """Calendar of so many days from `start`, a datetime64[D]."""
        dates = start + np.arange(days)
        year_day = (dates - dates.astype("datetime64[Y]")).astype(np.int64)
        angle = 2 * np.pi * (year_day - world.yearly_peak) / 365.25
        yearly = 1 + world.yearly * np.cos(angle)
        month_day = (dates - dates.astype("datetime64[M]")).astype(np.int64)
        month = dates.astype("datetime64[M]").astype(np.int64) % 12
        holiday = ((month == 11) & (month_day >= 23)) | ((month == 0) & (month_day == 0))
        work = np.asarray(world.weekdays)[weekday(dates)]
        work = np.where(holiday, work * world.year_end, work)
        left = (quarter(dates, 1) - dates).astype(np.int64) - 1
        return cls(work, yearly * (1 + world.rush * np.exp(-left / world.rush_days)), yearly)

    def factors(self, day: int, log_shock: float = 0.0) -> Floats:
        """Calendar and shock factors of the five hazards on one day, shape (5,)."""
        factors = np.full(5, self.work[day])
        factors[WIN] *= self.win[day] * np.exp(log_shock)
        return factors


def weekday(dates: Dates) -> Ints:
    """Monday is 0, Sunday 6."""
    return (dates.astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday


def business_days(start: np.datetime64, days: int) -> Floats:
    """Weight of each day for what happens from Monday to Friday only; mean one over a week."""
    return np.where(weekday(start + np.arange(days)) < 5, 7 / 5, 0.0)


def quarter(dates: Dates, ahead: int = 0) -> Dates:
    """First day of each date's calendar quarter, or of the quarter `ahead` of it."""
    months = (dates.astype("datetime64[M]").astype(np.int64) // 3 + ahead) * 3
    return months.astype("datetime64[M]").astype("datetime64[D]")


# ------------------------------------------------------------------ the hazards of deals


@dataclass(frozen=True)
class Chain:
    """The hazards of one pipeline with S open stages and A ages in stage.

    Attributes
    ----------
    stages, ages : int
        S and A; a deal stays at the last age until it moves.
    base : ndarray of shape (5, S * A)
        Daily hazards of win, lose, advance, skip, back at an effect and calendar of one.
    flow : ndarray of shape (S * A, 2 + 2 * S)
        Where the events lead: won, lost, forward into each stage, back into each stage.
    exponents : ndarray of shape (5,)
        A deal's effect x multiplies hazard j by exp(exponents[j] x).
    """

    stages: int
    ages: int
    base: Floats
    flow: Floats
    exponents: Floats

    @classmethod
    def of(cls, world: World, pipeline: PipelineWorld) -> Chain:
        """Chain of one of the world's pipelines.

        Raises
        ------
        ValueError
            If a hazard is negative, or would lead out of the open stages.
        """
        stages, ages = len(pipeline.stages), world.age_cap
        rates = np.array([[s.win, s.lose, s.advance, s.skip, s.back] for s in pipeline.stages])
        target = np.arange(stages)[:, None] + SHIFT
        if (rates < 0).any() or (rates[(target < 0) | (target >= stages)] > 0).any():
            raise ValueError(
                f"hazards of pipeline {pipeline.pipeline_id} are {rates.tolist()} (win, lose, "
                "advance, skip, back); allowed: not negative, and 0 where the move would leave "
                "the open stages; set those to 0"
            )
        base = rates.T[:, :, None] * _duration(world)[:, None, :]
        flow = np.zeros((stages, ages, 2 + 2 * stages))
        flow[:, :, 0], flow[:, :, 1] = base[WIN], base[LOSE]
        for move, column in ((ADVANCE, 2), (SKIP, 2), (BACK, 2 + stages)):
            for s in range(stages):
                if 0 <= target[s, move] < stages:
                    flow[s, :, column + target[s, move]] = base[move, s]
        exponents = np.array([1.0, world.effect_on_loss, *[world.effect_on_moves] * 2, 0.0])
        return cls(stages, ages, base.reshape(5, -1), flow.reshape(stages * ages, -1), exponents)

    def factors(self, effect: Floats) -> Floats:
        """What each deal's effect multiplies its five hazards by, shape (n, 5)."""
        return np.asarray(np.exp(effect[:, None] * self.exponents))

    def step(self, mass: Floats, factors: Floats) -> tuple[Floats, Floats]:
        """Move the distribution over (stage, age) by one day.

        Parameters
        ----------
        mass : ndarray of shape (n, S * A)
        factors : ndarray of shape (n, 5)
            Of the deal and the day; all zero on a day on which nothing happens.

        Returns
        -------
        mass : ndarray of shape (n, S * A)
        closed : ndarray of shape (n, 2)
            Mass won and lost on this day.
        """
        n, s = len(mass), self.stages
        moved = np.zeros((n, 2 + 2 * s))
        if factors.any():
            total = factors @ self.base
            happens = -np.expm1(-total)
            # Competing hazards, constant over the day: an event's kind is split by its hazard.
            moved = (mass * happens / np.where(total > 0, total, 1.0)) @ self.flow
            mass = mass * (1 - happens)
        older = np.zeros((n, s, self.ages))
        stay = mass.reshape(n, s, self.ages)
        older[:, :, 1:] = stay[:, :, :-1]
        older[:, :, -1] += stay[:, :, -1]
        forward, back = moved[:, 2 : 2 + s], moved[:, 2 + s :]
        older[:, :, 0] = forward * factors[:, [ADVANCE]] + back * factors[:, [BACK]]
        return older.reshape(n, s * self.ages), moved[:, :2] * factors[:, :2]


def _duration(world: World) -> Floats:
    """Duration effects on the five hazards at ages 1..cap, shape (5, A)."""
    age = np.arange(1, world.age_cap + 1)
    late = np.maximum(age - world.patience_days, 0) / world.stall_days
    forward = np.minimum(age / world.ramp_days, 1) * np.maximum(np.exp(-late), world.stall_floor)
    lose = world.loss_first + world.loss_rise * -np.expm1(-age / world.loss_days)
    return np.stack([forward, lose, forward, forward, np.ones(len(age))])


# ------------------------------------------------------------------ the decisions on leads


def sigmoid(x: Floats) -> Floats:
    """Probability from log-odds."""
    return np.asarray(1 / (1 + np.exp(-x)))


def decision_delays(world: World) -> tuple[Floats, Floats]:
    """Chance that a lead's yes, and its no, has fallen by working day 0..cap after creation."""
    cap = world.delay_cap
    yes = _delays(world.qualify_median, world.qualify_sigma, cap)
    return yes, _delays(world.disqualify_median, world.disqualify_sigma, cap)


def _delays(median: float, sigma: float, cap: int) -> Floats:
    """Distribution function of a lognormal rounded up to whole days and cut at the cap."""
    logs = (np.log(np.arange(1, cap + 1)) - math.log(median)) / sigma
    cdf = np.array([0.0, *(0.5 * (1 + math.erf(x / math.sqrt(2))) for x in logs)])
    return np.asarray(cdf / cdf[-1])
