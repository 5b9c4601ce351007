"""What somebody would forecast who knew how a synthetic company works, and not how it will go on.

The oracle knows each open deal's true hazards, the law of the shocks (not the shocks), how many
deals come on average in each week, how they fare and what is taken off at closing. It does not
learn from how the running quarter went. Edits of open amounts, whose mean is one, are left out.

For each drawn course of the shocks the chances of all deals are worked out anew: what a bad week
does not win waits in its stage, and most of it is won later. To move the chances alone would make
the ranges of a quarter half as wide again as what comes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from data.history import History
from data.pipeline import FiscalCalendar
from data.synthetic import Synthetic, Truth, World, make_history
from data.synthetic.hazards import Calendar, Chain

__all__ = ["Population", "oracle_draws", "shock_paths"]

FloatArray = npt.NDArray[np.float64]

_LARGE = 60_000  # deals of the company that stands for the law of arrivals
_EVEN = 1e9  # shape of weekly arrivals that do not vary
_DISCOUNT_WEIGHT = 10.0  # of the Beta law of discounts
_COURSES = 64  # of the shocks
_CLASSES = 9  # of the effects of deals still to come


@dataclass(frozen=True)
class Population:
    """Won deals of a company like another one, larger and without shocks: the law of arrivals.

    Attributes
    ----------
    created, won : float64, shape (n,)
        Days since 1970.
    value : float64, shape (n,)
    size : float
        Deals asked for.
    """

    created: FloatArray
    won: FloatArray
    value: FloatArray
    size: float

    @classmethod
    def of(cls, world: World, end: np.datetime64, days: int, seed: int) -> Population:
        """Play it: the same seed gives it the same reps."""
        even = replace(world, arrival_shape=_EVEN)
        deals = make_history(
            _LARGE, seed, end=end, days=days, world=even, shocks=False
        ).tables["deal"]  # fmt: skip
        won = deals["outcome"] == "won"
        created, closed = (_days(deals[name][won]) for name in ("created_at", "closed_at"))
        return cls(created, closed, np.asarray(deals["closed_amount"][won]), float(_LARGE))


def shock_paths(
    world: World, at: np.datetime64, weeks: int, draws: int, rng: np.random.Generator
) -> FloatArray:
    """Log factors of the coming weeks: one part a calendar quarter, one a week, (draws, weeks)."""
    middle = at.astype("datetime64[D]") + np.arange(weeks) * 7 + 3
    quarter = middle.astype("datetime64[M]").astype(np.int64) // 3
    _, place = np.unique(quarter, return_inverse=True)
    long, short = world.shock_quarter_sd, world.shock_week_sd
    lasting = long * rng.standard_normal((draws, place.max() + 1)) - long**2 / 2
    weekly = short * rng.standard_normal((draws, weeks)) - short**2 / 2
    return np.asarray(lasting[:, place] + weekly)


def oracle_draws(
    crm: Synthetic, history: History, population: Population, at: np.datetime64, weeks: int,
    draws: int, seed: int, deals: float,
) -> FloatArray:  # fmt: skip
    """Won revenue of the coming weeks as the oracle draws it: (draws, weeks)."""
    rng = np.random.default_rng(seed)
    world = crm.truth.world
    each = -(-draws // min(_COURSES, draws))
    # In antithetic pairs, so that few courses stand for all.
    half = shock_paths(world, at, weeks, -(-draws // each // 2), rng)
    middle = -(world.shock_quarter_sd**2 + world.shock_week_sd**2) / 2
    paths = np.concatenate([half, 2.0 * middle - half])
    snapshot = history.as_of("deal", at)
    usual = _newcomers(crm.truth, at, np.zeros(weeks))
    drawn = []
    for path in paths:
        old = _open(crm.truth, snapshot.ids, snapshot.amount, at, path, each, rng)
        moved = _newcomers(crm.truth, at, path) / np.maximum(usual, 1e-12)
        drawn.append(old + _new(population, world, at, moved, each, deals, rng))
    return np.concatenate(drawn)[:draws]


def _open(
    truth: Truth, ids: npt.NDArray[np.object_], amount: FloatArray, at: np.datetime64,
    path: FloatArray, draws: int, rng: np.random.Generator,
) -> FloatArray:  # fmt: skip
    """Won revenue from open deals on one course of the shocks: (draws, weeks)."""
    weeks, world = len(path), truth.world
    ends = np.arange(1, weeks + 1) * 7
    names = [str(i) for i in ids]
    curve = truth.deal_incidence(names, at, ends, log_shock=np.repeat(path, 7))[:, :, 0]
    off = world.discount_mean * _DISCOUNT_WEIGHT
    out = np.zeros((draws, weeks + 1))
    for deal, chance in enumerate(curve):
        week = np.searchsorted(chance, rng.random(draws), side="right")
        given = rng.random(draws) < world.discount_share
        kept = np.where(given, 1.0 - rng.beta(off, _DISCOUNT_WEIGHT - off, draws), 1.0)
        out[np.arange(draws), week] += amount[deal] * kept
    return out[:, :weeks]


def _newcomers(truth: Truth, at: np.datetime64, path: FloatArray) -> FloatArray:
    """Wins by the week of creation and the week of winning, on one course: (weeks, weeks).

    Up to how many deals come: cohorts of each pipeline, their effects in nine classes.
    """
    world, weeks = truth.world, len(path)
    first = at.astype("datetime64[D]")
    calendar = Calendar.of(world, first, 7 * weeks)
    won = np.zeros((weeks, weeks))
    for p, line in enumerate(world.pipelines):
        chain = Chain.of(world, line)
        mine = truth.deal_effect[truth.deal_pipeline == p]
        if not len(mine):
            continue
        effects = np.quantile(mine, (np.arange(_CLASSES) + 0.5) / _CLASSES)
        own = np.tile(chain.factors(effects), (weeks, 1))
        entering = np.zeros((chain.stages, chain.ages))
        entering[:, 0] = [stage.entry for stage in line.stages]
        mass = np.zeros((weeks * _CLASSES, chain.stages * chain.ages))
        for day in range(7 * weeks):
            week = day // 7
            mass, closed = chain.step(mass, own * calendar.factors(day, path[week]))
            won[:, week] += closed[:, 0].reshape(weeks, _CLASSES).sum(1) * len(mine)
            mass[week * _CLASSES : (week + 1) * _CLASSES] += (
                calendar.arrivals[day] * calendar.work[day] * entering.ravel()
            )
    return won


def _new(
    population: Population, world: World, at: np.datetime64, moved: FloatArray, draws: int,
    deals: float, rng: np.random.Generator,
) -> FloatArray:  # fmt: skip
    """Won revenue from deals still to come: the population's, thinned, (draws, weeks).

    `moved` says how many more are won than usual, by the weeks of coming and winning.
    """
    weeks = len(moved)
    start = float(_days(np.array([at]))[0])
    here = (population.created >= start) & (population.won < start + 7 * weeks)
    came, won = (((day[here] - start) // 7).astype(np.int64)
                 for day in (population.created, population.won))  # fmt: skip
    shape = world.arrival_shape
    flow = rng.gamma(shape, 1 / shape, (draws, weeks)) * deals / population.size
    count = rng.poisson(flow[:, came] * moved[came, won])
    out = np.zeros((draws, weeks))
    for week in range(weeks):
        mine = won == week
        out[:, week] = count[:, mine] @ population.value[here][mine]
    return out


def _days(moments: npt.NDArray[np.datetime64]) -> FloatArray:
    local = FiscalCalendar().local_days(moments.astype("datetime64[us]").astype(np.int64))
    return np.asarray(local, dtype=np.float64)
