"""Business not yet in the pipeline: how many deals will come, which are won, and when.

Counts per day follow a level with a profile of the week and the year, made uncertain by a shared
gamma; each arrival is won after a delay read from an Aalen-Johansen curve by age, the likelier
the more is won at that time of the calendar. Given the gamma, wins per period are Poisson (a
thinned Poisson process), so that no single arrival needs to be drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import fftconvolve

from models.day_profile import DayProfile
from models.grid import CALENDAR_YEAR

__all__ = ["ArrivalModel", "aalen_johansen"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_WEEKS = 26  # how far back the level of arrivals looks
_HALF_LIFE = 42.0  # days after which a day counts half
_PRIOR_SPREAD, _PRIOR_WEEKS = 0.02, 6.0  # relative variance of a week, and what it is worth
_STEP = 0.25  # days between points of the delay curve
_AMOUNTS = 2000  # recent won amounts kept to draw from


def aalen_johansen(
    entry: FloatArray, time: FloatArray, outcome: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Cumulative incidences by age, with censoring and delayed entry.

    Parameters
    ----------
    entry, time : shape (n,)
        Ages at which each record comes under observation and leaves it. One that left before
        it came was never seen and does not count.
    outcome : shape (n,)
        0 = censored at `time`, 1 = won, 2 = lost.

    Returns
    -------
    ages : shape (t,)
        Ages at which something closed, ascending.
    incidence : shape (t, 2)
        Chance to have been (won, lost) by each age.

    Notes
    -----
    Aalen and Johansen, Scandinavian Journal of Statistics 5, 1978.
    """
    seen = time >= entry
    entry, time, outcome = entry[seen], time[seen], outcome[seen]
    ages = np.unique(time[outcome > 0])
    if len(ages) == 0:
        return np.zeros(0), np.zeros((0, 2))
    # Who enters at an age is at risk at it: records may close the moment they come into sight.
    at_risk = np.searchsorted(np.sort(entry), ages, side="right") - np.searchsorted(
        np.sort(time), ages, side="left"
    )
    events = np.stack(
        [
            np.bincount(np.searchsorted(ages, time[outcome == c]), minlength=len(ages))
            for c in (1, 2)
        ],
        axis=1,
    )
    hazard = events / at_risk[:, None]
    before = np.r_[1.0, np.cumprod(1.0 - hazard.sum(1))[:-1]]
    return ages, np.cumsum(hazard * before[:, None], axis=0)


@dataclass(frozen=True)
class ArrivalModel:
    """Arrivals a day, their delay to winning, and what they are worth.

    Attributes
    ----------
    per_weekday : float64, shape (7,)
        Expected arrivals a day, Monday first.
    spread : float
        Relative variance of a week's count beyond Poisson.
    weeks : float
        Weeks of history behind the level, discounted.
    won_by : float64, shape (t,)
        Chance that an arrival is won within i / 4 days, i = 0, 1, ...
    amounts : float64, shape (a,)
        Amounts of recently won deals, to draw from.
    shares : dict of str to dict of str to float
        By grouping ("owner", "team"), each group's share of new business; the rest is
        unassigned.
    season : DayProfile
        Factors on the arrivals of a day besides its weekday.
    closings : DayProfile
        Factors on what is won on a day, against those of the time that `won_by` was learnt from.
    """

    per_weekday: FloatArray
    spread: float
    weeks: float
    won_by: FloatArray
    amounts: FloatArray
    shares: dict[str, dict[str, float]]
    season: DayProfile = field(default_factory=DayProfile.flat)
    closings: DayProfile = field(default_factory=DayProfile.flat)

    @classmethod
    def fit(
        cls,
        created: FloatArray,
        age: FloatArray,
        outcome: IntArray,
        won_amount: FloatArray,
        groups: Mapping[str, npt.NDArray[np.object_]],
        *,
        now: float,
        first: float,
        t_max: float,
        quarters: FloatArray = CALENDAR_YEAR[1],
    ) -> ArrivalModel:
        """Learn from the deals known by `now`.

        Parameters
        ----------
        created : shape (n,)
            Local time of creation, days since 1970.
        age : shape (n,)
            Days from creation to closing, or to `now`.
        outcome : shape (n,)
            0 = still open, 1 = won, 2 = lost.
        won_amount : shape (n,)
            Final amount of won deals, NaN for the others.
        groups : mapping of str to ndarray of object, shape (n,)
            Owner and team at creation.
        first : float
            Where the records begin: deals created earlier are there only because they lasted.
        t_max : float
            Longest delay considered, days.
        quarters : shape (q,)
            Days since 1970 on which fiscal quarters begin.
        """
        # The day on which records begin is partly seen, and chosen for having an arrival.
        since = max(np.floor(first) + 1.0, np.floor(now) - 7 * _WEEKS)
        days = np.arange(since, np.floor(now))
        counts = np.bincount(
            np.floor(created[(created >= since) & (created < np.floor(now))]).astype(np.int64)
            - int(since),
            minlength=max(len(days), 1),
        )[: len(days)]
        weight = 0.5 ** ((np.floor(now) - days) / _HALF_LIFE)
        every, came = _daily(created, first, now)
        profile = DayProfile.fit(every, came, np.ones(len(every)), quarters)
        season = profile.without_weekdays()
        spread, weeks = _weekly_spread(counts, weight)
        recent = created >= now - max(90.0, 2 * t_max)
        entry = np.maximum(first - created, 0.0)
        seen = recent & (age >= entry) & (age >= 0)
        ages, curve = aalen_johansen(entry[seen], age[seen], outcome[seen])
        grid = np.arange(0.0, t_max + _STEP, _STEP)
        place = np.searchsorted(ages, grid, side="right")
        won_by = np.r_[0.0, curve[:, 0]][place] if len(ages) else np.zeros(len(grid))
        won = np.flatnonzero((outcome == 1) & (won_amount > 0))
        won = won[np.argsort(created[won] + age[won], kind="stable")][-_AMOUNTS:]
        closed = created[outcome == 1] + age[outcome == 1]
        return cls(
            _weekday_profile(days, counts, weight * season.factor(days), weight),
            spread,
            weeks,
            won_by,
            won_amount[won],
            {name: _shares(values[recent], outcome[recent]) for name, values in groups.items()},
            season,
            _closings(every, came, _daily(closed, first, now)[1], won_by, quarters),
        )

    def wins_expected(self, now: float, edges: FloatArray) -> FloatArray:
        """Expected wins in each of the periods between `edges`, from deals still to come.

        Parameters
        ----------
        now : float
            Local time in days since 1970.
        edges : shape (p + 1,)
            Days after `now`, ascending, the first >= 0.
        """
        arrival = np.arange(_STEP / 2, float(edges[-1]) + _STEP / 2, _STEP)
        day = np.floor(now + arrival)
        rate = self.per_weekday[(day.astype(np.int64) + 3) % 7] * self.season.factor(day) * _STEP
        # From the middle of the step in which a deal arrives to the end of a later one.
        lag = np.minimum(np.arange(len(arrival)) + 0.5, len(self.won_by) - 1.0)
        won = np.interp(lag, np.arange(len(self.won_by)), self.won_by)
        wins = fftconvolve(rate, np.diff(won, prepend=0.0))[: len(rate)] if len(rate) else rate
        wins = np.maximum(wins, 0.0) * self.closings.factor(day)
        total = np.append(0.0, np.cumsum(wins))
        return np.asarray(np.diff(np.interp(edges / _STEP, np.arange(len(total)), total)))

    def to_state(self) -> dict[str, Any]:
        """Plain values and arrays."""
        return {
            "per_weekday": self.per_weekday,
            "spread": self.spread,
            "weeks": self.weeks,
            "won_by": self.won_by,
            "amounts": self.amounts,
            # Names as values: a key of a bundle must not begin with "$", an owner's id may.
            "shares": {
                by: {"names": list(shares), "values": list(shares.values())}
                for by, shares in self.shares.items()
            },
            "season": self.season.to_state(),
            "closings": self.closings.to_state(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> ArrivalModel:
        """Rebuild from `to_state`."""
        return cls(
            state["per_weekday"], float(state["spread"]), float(state["weeks"]), state["won_by"],
            state["amounts"],
            {
                by: dict(zip(shares["names"], shares["values"], strict=True))
                for by, shares in state["shares"].items()
            },
            DayProfile.from_state(state["season"]), DayProfile.from_state(state["closings"]),
        )  # fmt: skip


def _weekly_spread(counts: IntArray, weight: FloatArray) -> tuple[float, float]:
    """Relative variance of weekly counts beyond Poisson, shrunken; discounted weeks behind it."""
    whole = len(counts) // 7
    weeks = float(weight.sum() ** 2 / (weight**2).sum()) / 7 if len(counts) else 0.0
    if whole < 2:
        return _PRIOR_SPREAD, weeks
    totals = counts[len(counts) - 7 * whole :].reshape(whole, 7).sum(1).astype(np.float64)
    mean = max(totals.mean(), 1e-9)
    # Successive differences: a slow drift of the level is not the noise of a week.
    variance = float(np.mean(np.diff(totals) ** 2) / 2)
    own = max(variance - mean, 0.0) / mean**2
    spread = (own * whole + _PRIOR_SPREAD * _PRIOR_WEEKS) / (whole + _PRIOR_WEEKS)
    return float(spread), weeks


def _daily(moments: FloatArray, first: float, now: float) -> tuple[FloatArray, FloatArray]:
    """Whole days of the records, the first and the running one left out, and the count of each."""
    days = np.arange(np.floor(first) + 1.0, np.floor(now))
    place = np.floor(moments).astype(np.int64) - int(np.floor(first) + 1.0)
    inside = (place >= 0) & (place < len(days))
    return days, np.bincount(place[inside], minlength=len(days)).astype(np.float64)


def _closings(
    days: FloatArray, came: FloatArray, won: FloatArray, won_by: FloatArray, quarters: FloatArray
) -> DayProfile:
    """How the calendar shapes what is won, beyond when deals arrived and how long they take.

    On the scale of the days that `won_by` was learnt from, the newest ones.
    """
    whole = won_by[:: int(1 / _STEP)]
    delay = np.diff(whole, prepend=0.0)
    if len(days) <= len(delay) or whole[-1] <= 0:
        return DayProfile.flat()
    due = np.maximum(fftconvolve(came, delay)[: len(days)], 0.0)
    seen = slice(len(delay), None)  # before that, deals older than the records are missing
    found = DayProfile.fit(days[seen], won[seen], due[seen], quarters)
    recent = slice(-max(90, 2 * len(delay)), None)
    usual = np.average(found.factor(days[recent]), weights=due[recent] + 1e-9)
    return replace(found, weekday=found.weekday - np.log(usual))


def _weekday_profile(
    days: FloatArray, counts: IntArray, exposure: FloatArray, weight: FloatArray
) -> FloatArray:
    """Arrivals of each weekday, counts being due `exposure` times as many, weighed by recency."""
    if len(days) == 0:
        return np.zeros(7)
    weekday = (days.astype(np.int64) + 3) % 7
    level = float((weight * counts).sum() / exposure.sum())
    total = np.bincount(weekday, weight * counts, 7)
    # Each weekday starts with the weight of one average week.
    prior = exposure.mean()
    return np.asarray((total + prior * level) / (np.bincount(weekday, exposure, 7) + prior))


def _shares(values: npt.NDArray[np.object_], outcome: IntArray) -> dict[str, float]:
    """Share of wins by group, shrunken: half a deal stays with "unassigned" for each group."""
    names = [str(v) for v in values if v is not None]
    won: dict[str, float] = {}
    for value, result in zip(values, outcome, strict=True):
        if value is not None:
            # Deals still open tell who gets the work, wins who closes it.
            won[str(value)] = won.get(str(value), 0.0) + (1.0 if result == 1 else 0.2)
    total = sum(won.values()) + 0.5 * (len(set(names)) + 1)
    return {name: count / total for name, count in sorted(won.items())}
