"""Draws of what the pipeline will bring: open deals and deals still to come, shocks shared.

Nothing here knows a deal by name: arrays in, draws out. All draws of one call share the same
shocks, so that weeks, months, teams and the whole add up draw by draw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.arrivals import ArrivalModel

__all__ = ["Draws", "OpenDeals", "ShockLaw", "Shocks", "simulate_new", "simulate_open"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_CHUNK = 4_000_000  # deals x draws held at once


@dataclass(frozen=True)
class ShockLaw:
    """Size of the shocks shared by all deals, on the log-odds of winning in an interval.

    Attributes
    ----------
    persistent, weekly : float
        SD of the part that lasts, and of the part drawn anew each week. The defaults give two
        deals a correlation of about .016 on the latent scale: the prior before a back-test.
    """

    persistent: float = 0.17
    weekly: float = 0.15


@dataclass(frozen=True)
class Shocks:
    """One draw of the shocks for each simulated future.

    Attributes
    ----------
    weekly : float64, shape (draws, weeks)
        Shock in each week after as_of; the last column serves all later weeks.
    growth : float64, shape (draws,)
        Factor on the arrivals still to come.
    """

    weekly: FloatArray
    growth: FloatArray

    @classmethod
    def draw(
        cls, law: ShockLaw, spread: float, draws: int, weeks: int, rng: np.random.Generator
    ) -> Shocks:
        """Draw shocks; antithetic pairs keep their mean at zero.

        `spread` is the relative variance of the arrivals' level.
        """
        half = -(-draws // 2)
        lasting = rng.standard_normal((half, 1)) * law.persistent
        weekly = rng.standard_normal((half, max(weeks, 1))) * law.weekly
        both = np.concatenate([lasting + weekly, -lasting - weekly])[:draws]
        if spread > 0:
            growth = rng.gamma(1.0 / spread, spread, draws)
        else:
            growth = np.ones(draws)
        return cls(both, growth)

    def at(self, days: FloatArray) -> FloatArray:
        """Shock of each draw at days after as_of: (draws, len(days))."""
        week = np.minimum((days // 7).astype(np.int64), self.weekly.shape[1] - 1)
        return self.weekly[:, week]


@dataclass(frozen=True)
class OpenDeals:
    """Open deals at one moment, ready to be simulated.

    Attributes
    ----------
    hazards : float64, shape (n, k, 2)
        Chance of (won, lost) in each interval given open at its start.
    begin, end : float64, shape (k,)
        The intervals, days after as_of; the same for all deals.
    group : int64, shape (n,)
        Group of each deal, 0 to groups - 1.
    amount : callable (deal index, uniform level) -> float64
        Final amount at a quantile level, both arguments of shape (w,).
    """

    hazards: FloatArray
    begin: FloatArray
    end: FloatArray
    group: IntArray
    amount: Callable[[IntArray, FloatArray], FloatArray]


@dataclass(frozen=True)
class Draws:
    """Simulated won revenue.

    Attributes
    ----------
    value : float64, shape (draws, groups, periods)
        In the base currency.
    wins : float64, shape (draws, groups, periods)
        Number of deals.
    """

    value: FloatArray
    wins: FloatArray

    def __add__(self, other: Draws) -> Draws:
        """The same futures, both kinds of business."""
        return Draws(self.value + other.value, self.wins + other.wins)


def simulate_open(
    deals: OpenDeals, edges: FloatArray, groups: int, shocks: Shocks, rng: np.random.Generator
) -> Draws:
    """Simulate the deals that are open now.

    Parameters
    ----------
    edges : shape (p + 1,)
        Period bounds in days after as_of, ascending. What is won before the first or after the
        last is not counted.
    """
    draws, periods = len(shocks.weekly), len(edges) - 1
    used = np.flatnonzero((deals.begin < edges[-1]) & (deals.end > deals.begin))
    tilt = _mean_preserving(deals, used, shocks.at(deals.begin[used]))
    value = np.zeros(draws * groups * periods)
    wins = np.zeros_like(value)
    size = max(_CHUNK // draws, 1)
    for first in range(0, len(deals.hazards), size):
        chosen = np.arange(first, min(first + size, len(deals.hazards)))
        deal, draw, day = _won(deals, chosen, used, tilt, rng)
        period = np.searchsorted(edges, day, side="right") - 1
        inside = (period >= 0) & (period < periods)
        deal, draw, period = deal[inside], draw[inside], period[inside]
        amount = deals.amount(deal, rng.random(len(deal)))
        cell = (draw * groups + deals.group[deal]) * periods + period
        value += np.bincount(cell, amount, len(value))
        wins += np.bincount(cell, minlength=len(value))
    shape = (draws, groups, periods)
    return Draws(value.reshape(shape), wins.reshape(shape))


def _won(
    deals: OpenDeals, chosen: IntArray, used: IntArray, tilt: FloatArray, rng: np.random.Generator
) -> tuple[IntArray, IntArray, FloatArray]:
    """Which deals are won in which draws, and on which day after as_of."""
    draws = tilt.shape[0]
    shape = (len(chosen), draws)
    still = np.ones(shape)
    # One uniform says when a deal closes: it is compared with the chance of still being open.
    fate = rng.random(shape)
    when = np.full(shape, -1, dtype=np.int16)
    is_win = np.zeros(shape, dtype=bool)
    kind = rng.random(shape)
    for j, k in enumerate(used):
        p_won, p_lost = deals.hazards[chosen, k, 0], deals.hazards[chosen, k, 1]
        odds = p_won[:, None] * tilt[:, j]
        total = odds + (1.0 - p_won)[:, None]
        after = still * ((1.0 - p_won - p_lost)[:, None] / total)
        closes = (fate >= after) & (fate < still)
        # After closing, `still` keeps falling below `fate`: no deal closes twice.
        is_win |= closes & (kind * (odds + p_lost[:, None]) < odds)
        when[closes] = k
        still = after
    row, draw = np.nonzero(is_win)
    cell = when[row, draw]
    width = deals.end - deals.begin
    day = deals.begin[cell] + rng.random(len(cell)) * width[cell]
    return chosen[row], draw.astype(np.int64), day


def _mean_preserving(deals: OpenDeals, used: IntArray, shock: FloatArray) -> FloatArray:
    """Factors on the odds of winning, (draws, k), that leave the expected wins as they were.

    A symmetric shock on the log-odds moves the mean; one intercept, solved on a sample of the
    deals and draws, takes it back.
    """
    if len(deals.hazards) == 0 or len(used) == 0:
        return np.exp(shock)
    deal = np.linspace(0, len(deals.hazards) - 1, min(len(deals.hazards), 128)).astype(np.int64)
    hazards = deals.hazards[deal][:, used]
    # Antithetic pairs lie half the draws apart: an even stride over the first half, and twins.
    half = max(len(shock) // 2, 1)
    some = np.linspace(0, half - 1, min(half, 48)).astype(np.int64)
    sample = np.concatenate([shock[some], shock[np.minimum(some + half, len(shock) - 1)]])
    target = _expected_wins(hazards, np.ones((1, len(used))))
    low, high = -1.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        if _expected_wins(hazards, np.exp(sample + middle)) > target:
            high = middle
        else:
            low = middle
    return np.exp(shock + (low + high) / 2)


def _expected_wins(hazards: FloatArray, tilt: FloatArray) -> float:
    p_won, p_lost = hazards[None, :, :, 0], hazards[None, :, :, 1]
    odds = p_won * tilt[:, None, :]
    total = odds + 1.0 - p_won
    stay = (1.0 - p_won - p_lost) / total
    before = np.cumprod(np.concatenate([np.ones_like(stay[..., :1]), stay[..., :-1]], -1), axis=-1)
    return float((odds / total * before).sum(-1).mean(0).sum())


def simulate_new(
    arrivals: ArrivalModel, now: float, edges: FloatArray, shares: FloatArray, shocks: Shocks,
    rng: np.random.Generator,
) -> Draws:  # fmt: skip
    """Simulate business that is not yet in the pipeline.

    Parameters
    ----------
    now : float
        Local time of as_of, days since 1970.
    edges : shape (p + 1,)
        Period bounds in days after as_of.
    shares : shape (groups,)
        Share of each group in new business; sums to one.
    """
    draws, periods, groups = len(shocks.weekly), len(edges) - 1, len(shares)
    expected = arrivals.wins_expected(now, np.maximum(edges, 0.0))
    middle = np.maximum((edges[:-1] + edges[1:]) / 2, 0.0)
    # Wins follow the same shocks as open deals; small chances: log-odds and logs coincide.
    shock = np.exp(shocks.at(middle))
    shock /= shock.mean(0, keepdims=True)
    rate = shocks.growth[:, None] * shock * expected
    count = rng.poisson(rate)
    total = int(count.sum())
    draw, period = np.divmod(np.repeat(np.arange(draws * periods), count.ravel()), periods)
    group = np.minimum(np.searchsorted(np.cumsum(shares), rng.random(total)), groups - 1)
    worth = (
        arrivals.amounts[rng.integers(0, len(arrivals.amounts), total)]
        if len(arrivals.amounts)
        else np.zeros(total)
    )
    cell = (draw * groups + group) * periods + period
    size, shape = draws * groups * periods, (draws, groups, periods)
    value = np.bincount(cell, worth, size).reshape(shape)
    return Draws(value, np.bincount(cell, minlength=size).reshape(shape).astype(np.float64))
