"""Draws of what the pipeline will bring: open deals and deals still to come, shocks shared.

Nothing here knows a deal by name: arrays in, draws out. All draws of one call share the same
shocks, so that weeks, months, teams and the whole add up draw by draw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed

from models.arrivals import ArrivalModel
from models.shocks import ShockModel

__all__ = ["Draws", "OpenDeals", "Shocks", "levelled", "simulate_new", "simulate_open"]

FloatArray = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_BLOCK = 4_096  # deals that share a stream of luck and, where there are more, a thread
_CHUNK = 100_000  # deals x draws held at once: what fits a processor's cache
_NEWTON_STEPS = 4
_TINY = 1e-12
_LEAST_STAYING = 1e-6


@dataclass(frozen=True)
class Shocks:
    """One draw of the shocks for each simulated future.

    Attributes
    ----------
    weekly : float64, shape (draws, weeks)
        Log factor on the odds of winning in each week after as_of, around its expected level; the
        last column serves all later weeks.
    level : float64, shape (weeks,)
        That expected level, a factor.
    growth : float64, shape (draws,)
        Factor on the arrivals still to come.
    """

    weekly: FloatArray
    level: FloatArray
    growth: FloatArray

    @classmethod
    def draw(
        cls, model: ShockModel, spread: float, draws: int, weeks: int, rng: np.random.Generator,
        *, age: float = 0.0,
    ) -> Shocks:  # fmt: skip
        """Draw shocks, in antithetic pairs; more weeks leave the first ones as they were.

        `spread` is the relative variance of the arrivals' level, `age` the days since the model
        last learnt.
        """
        growth = rng.gamma(1.0 / spread, spread, draws) if spread > 0 else np.ones(draws)
        weeks = max(weeks, 1)
        return cls(model.draw(draws, weeks, rng, age), model.level(weeks, age), growth)

    def over(self, begin: FloatArray, end: FloatArray) -> FloatArray:
        """Mean shock of each draw between days after as_of: (draws, len(begin))."""
        return _over(self.weekly, begin, end)

    def level_over(self, begin: FloatArray, end: FloatArray) -> FloatArray:
        """Mean of the expected level between days after as_of, shape (len(begin),)."""
        return _over(self.level[None, :], begin, end).ravel()


def _over(weekly: FloatArray, begin: FloatArray, end: FloatArray) -> FloatArray:
    """Means of weekly values, (n, weeks), between days: (n, len(begin))."""
    total = np.cumsum(np.pad(weekly, ((0, 0), (1, 0))), axis=1) * 7.0

    def until(days: FloatArray) -> FloatArray:
        week = np.minimum((days // 7).astype(np.int64), weekly.shape[1] - 1)
        return np.asarray(total[:, week] + weekly[:, week] * (days - 7.0 * week))

    length = np.maximum(end - begin, _TINY)
    return np.asarray((until(end) - until(begin)) / length, dtype=np.float64)


def levelled(hazards: FloatArray, level: FloatArray) -> FloatArray:
    """Hazards of (won, lost), (n, k, 2), with the odds of winning times `level`: (k,) or (n, 1).

    Losses keep their share of what is not won.
    """
    won, lost = hazards[:, :, 0], hazards[:, :, 1]
    odds = won * level
    total = odds + 1.0 - won
    return np.stack([odds / total, lost / total], axis=2)


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
    deals: OpenDeals, edges: FloatArray, groups: int, shocks: Shocks, rng: np.random.Generator,
    *, usual: OpenDeals | None = None, threads: int = 1,
) -> Draws:  # fmt: skip
    """Simulate the deals that are open now.

    A deal's fate in a draw hangs on two uniforms of its own, whatever periods and groups are
    asked for, and however many threads: the same future, cut in other ways, gives the same sums.

    Parameters
    ----------
    edges : shape (p + 1,)
        Period bounds in days after as_of, ascending. What is won before the first or after the
        last is not counted.
    usual : OpenDeals, optional
        The deals whose expected wins the shocks leave as they were; `deals` themselves if left
        out. With the same ones two calls draw the same luck for the deals that both hold.
    threads : int
        How many threads share the blocks of deals.
    """
    draws, periods = len(shocks.weekly), len(edges) - 1
    used = np.flatnonzero((deals.begin < edges[-1]) & (deals.end > deals.begin))
    over = shocks.over(deals.begin[used], deals.end[used])
    tilt = _mean_preserving(usual or deals, used, over).astype(np.float32)
    firsts = range(0, len(deals.hazards), _BLOCK)
    # A stream for each block: deals that come after all others leave the luck of those as it was.
    streams = rng.spawn(len(firsts))

    def block(first: int, luck: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        chosen = np.arange(first, min(first + _BLOCK, len(deals.hazards)))
        return _block(deals, chosen, used, tilt, edges, groups, luck)

    value = np.zeros((groups, periods, draws))
    wins = np.zeros_like(value)
    # Blocks are added in their order, so that sums do not hang on which thread was faster.
    for one in Parallel(n_jobs=threads, prefer="threads", return_as="generator")(
        delayed(block)(*of) for of in zip(firsts, streams, strict=True)
    ):
        value += one[0]
        wins += one[1]
    return Draws(np.moveaxis(value, 2, 0), np.moveaxis(wins, 2, 0))


def _block(
    deals: OpenDeals, chosen: IntArray, used: IntArray, tilt: Floats, edges: FloatArray,
    groups: int, luck: np.random.Generator,
) -> tuple[FloatArray, FloatArray]:  # fmt: skip
    """Value and number of the wins of some deals: (groups, periods, draws)."""
    draws, periods = tilt.shape[1], len(edges) - 1
    value, wins = np.zeros((2, groups * periods * draws))
    fates, kinds = luck.spawn(2)
    size = max(_CHUNK // draws, 1)
    for first in range(0, len(chosen), size):
        some = chosen[first : first + size]
        kind, fate = (part.random((len(some), draws), dtype=np.float32) for part in (kinds, fates))
        row, draw, day = _won(deals, some, used, tilt, fate)
        period = np.searchsorted(edges, day, side="right") - 1
        inside = np.flatnonzero((period >= 0) & (period < periods))
        row, draw, deal = row[inside], draw[inside], some[row[inside]]
        cell = (deals.group[deal] * periods + period[inside]) * draws + draw
        np.add.at(value, cell, deals.amount(deal, kind[row, draw].astype(np.float64)))
        np.add.at(wins, cell, 1.0)
    shape = (groups, periods, draws)
    return value.reshape(shape), wins.reshape(shape)


def _won(
    deals: OpenDeals, chosen: IntArray, used: IntArray, tilt: Floats, fate: Floats
) -> tuple[IntArray, IntArray, FloatArray]:
    """Which of the chosen deals are won in which draws, and on which day after as_of.

    A deal is won where the rising chance to have been won passes its `fate`. How far inside its
    interval that is, is uniform too, and tells the moment. What is lost needs no luck: it counts
    as nothing. Single precision halves the time, and is off by a millionth of a chance.
    """
    p_won, p_lost = np.moveaxis(deals.hazards[chosen][:, used], 2, 0)
    stays = np.maximum(1.0 - p_won - p_lost, _LEAST_STAYING)
    win_odds = (p_won / stays).astype(np.float32)[:, :, None]
    others = ((1.0 - p_won) / stays).astype(np.float32)[:, :, None]
    still, ever = np.ones_like(fate), np.zeros_like(fate)
    won, total, passed = np.empty_like(fate), np.empty_like(fate), np.empty(fate.shape, dtype=bool)
    flat_fate, flat_ever, flat_won = fate.ravel(), ever.ravel(), won.ravel()  # views
    places, days = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    for j, k in enumerate(used):
        # Odds against staying: of winning, tilted, and of what else may happen, staying itself.
        np.multiply(win_odds[:, j], tilt[j], out=won)
        np.add(won, others[:, j], out=total)
        np.divide(still, total, out=still)
        np.multiply(won, still, out=won)
        np.add(ever, won, out=ever)
        np.less(fate, ever, out=passed)
        at = np.flatnonzero(passed)
        part = 1.0 - (flat_ever[at] - flat_fate[at]).astype(np.float64) / flat_won[at]
        flat_fate[at] = 2.0  # above any chance: no deal is won twice
        places.append(at)
        days.append(deals.begin[k] + np.clip(part, 0.0, 1.0) * (deals.end[k] - deals.begin[k]))
    row, draw = np.divmod(np.concatenate(places), fate.shape[1])
    return row, draw, np.concatenate(days)


def _mean_preserving(deals: OpenDeals, used: IntArray, shock: FloatArray) -> FloatArray:
    """Factors on the odds of winning, (k, draws), that leave the expected wins as they were.

    A symmetric shock on the log-odds moves the mean, and a lasting one uses up the deals early:
    one intercept per interval, solved on a sample of the deals and draws, takes that back.
    """
    if len(deals.hazards) == 0 or len(used) == 0:
        return np.exp(shock).T
    deal = np.linspace(0, len(deals.hazards) - 1, min(len(deals.hazards), 48)).astype(np.int64)
    # Antithetic pairs lie half the draws apart: an even stride over the first half, and twins.
    half = max(len(shock) // 2, 1)
    some = np.linspace(0, half - 1, min(half, 256)).astype(np.int64)
    sample = np.exp(np.concatenate([shock[some], shock[np.minimum(some + half, len(shock) - 1)]]))
    before, still = np.ones(len(deal)), np.ones((len(sample), len(deal)))
    factors = np.ones(len(used))
    for j, k in enumerate(used):
        p_won, p_lost = deals.hazards[deal, k, 0], deals.hazards[deal, k, 1]
        due = float(before @ p_won) * len(sample)
        if due > 0:
            factors[j] = _intercept(p_won, sample[:, j, None], still, due)
        odds = p_won * sample[:, j, None] * factors[j]
        still *= (1.0 - p_won - p_lost) / (odds + 1.0 - p_won)
        before *= 1.0 - p_won - p_lost
    return np.exp(shock).T * factors[:, None]


def _intercept(p_won: FloatArray, tilt: FloatArray, still: FloatArray, due: float) -> float:
    """The factor on the odds at which the expected wins of an interval are `due`."""
    factor = 1.0
    for _ in range(_NEWTON_STEPS):
        odds = p_won * tilt * factor
        total = odds + 1.0 - p_won
        wins = still * odds / total
        # d wins / d log(factor); the step is taken on the log, so that the factor stays positive.
        slope = float((wins * (1.0 - p_won) / total).sum())
        step = (due - float(wins.sum())) / max(slope, _TINY)
        factor *= float(np.exp(np.clip(step, -1.0, 1.0)))
    return factor


def simulate_new(
    arrivals: ArrivalModel, now: float, edges: FloatArray, shares: FloatArray, shocks: Shocks,
    rng: np.random.Generator, *, factor: float = 1.0,
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
    factor : float
        Of what comes, so many times as much: below 1 some of the same deals stay away, above 1
        others come besides.
    """
    expected = shocks.growth[:, None] * _expected_new(arrivals, now, edges, shocks)
    usual, besides = rng.spawn(2)
    found = _new_wins(arrivals, expected, shares, usual, besides if factor < 1.0 else None, factor)
    if factor > 1.0:
        found = found + _new_wins(arrivals, expected * (factor - 1.0), shares, besides)
    return found


def _new_wins(
    arrivals: ArrivalModel, expected: FloatArray, shares: FloatArray, rng: np.random.Generator,
    leaving: np.random.Generator | None = None, stay: float = 1.0,
) -> Draws:  # fmt: skip
    """Wins of new business around their expectation, (draws, periods); a share of them `stay`."""
    (draws, periods), groups = expected.shape, len(shares)
    # One stream each, period by period: a longer horizon leaves the first periods as they were.
    counting, placing, paying = rng.spawn(3)
    count = counting.poisson(expected.T)
    total = int(count.sum())
    period, draw = np.divmod(np.repeat(np.arange(draws * periods), count.ravel()), draws)
    group = np.minimum(np.searchsorted(np.cumsum(shares), placing.random(total)), groups - 1)
    worth = np.zeros(total)
    if len(arrivals.amounts):
        worth = arrivals.amounts[paying.integers(0, len(arrivals.amounts), total)]
    cell = (draw * groups + group) * periods + period
    here = np.ones(total)
    if leaving is not None:
        here = (leaving.random(total) < stay).astype(np.float64)
    size, shape = draws * groups * periods, (draws, groups, periods)
    value, wins = (
        np.asarray(np.bincount(cell, weight, size), dtype=np.float64).reshape(shape)
        for weight in (worth * here, here)
    )
    return Draws(value, wins)


def _expected_new(
    arrivals: ArrivalModel, now: float, edges: FloatArray, shocks: Shocks
) -> FloatArray:
    """Wins expected from deals still to come under each draw's shocks: (draws, periods).

    They follow the same weekly shocks as open deals; their chances are small, so log-odds and
    logs coincide. Periods are cut at the weeks: a quarter is the sum of its weeks.
    """
    ahead = np.maximum(edges, 0.0)
    fine = np.union1d(ahead, np.arange(0.0, ahead[-1], 7.0))
    begin, end = fine[:-1], fine[1:]
    factor = np.exp(shocks.over(begin, end))
    factor *= arrivals.wins_expected(now, fine) / factor.mean(0, keepdims=True)
    inside = (begin[:, None] >= ahead[:-1]) & (end[:, None] <= ahead[1:])
    return np.asarray(factor @ inside.astype(np.float64), dtype=np.float64)
