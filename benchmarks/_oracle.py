"""What somebody would forecast who knew how a synthetic company works, and not how it will go on.

The oracle knows each open deal's true hazards, the law of the shocks (not the shocks), how many
deals come on average in each week, how they fare and what is taken off at closing. It does not
learn from how the running quarter went. Edits of open amounts, whose mean is one, are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from data.history import History
from data.pipeline import FiscalCalendar
from data.synthetic import Synthetic, World, make_history
from scoring.simulation import OpenDeals, Shocks, simulate_open

__all__ = ["Population", "oracle_draws", "shock_paths"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_LARGE = 60_000  # deals of the company that stands for the law of arrivals
_EVEN = 1e9  # shape of weekly arrivals that do not vary
_DISCOUNT_WEIGHT = 10.0  # of the Beta law of discounts


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
    paths = shock_paths(world, at, weeks, draws, rng)
    shocks = Shocks(paths, np.ones(weeks), np.ones(draws))
    snapshot = history.as_of("deal", at)
    ends = np.arange(1, weeks + 1, dtype=np.float64) * 7.0
    curve = crm.truth.deal_incidence([str(i) for i in snapshot.ids], at, ends)
    curve = np.concatenate([np.zeros_like(curve[:, :1]), curve], axis=1)
    still = np.maximum(1.0 - curve[:, :-1].sum(2, keepdims=True), 1e-9)
    amount = snapshot.amount
    off = world.discount_mean * _DISCOUNT_WEIGHT

    def final(deal: IntArray, level: FloatArray) -> FloatArray:
        # The level says whether there is a discount; how large it is, is drawn.
        given = level < world.discount_share
        size = rng.beta(off, _DISCOUNT_WEIGHT - off, len(deal))
        return np.asarray(amount[deal] * np.where(given, 1.0 - size, 1.0))

    open_deals = OpenDeals(
        np.diff(curve, axis=1) / still, ends - 7.0, ends, np.zeros(len(amount), np.int64), final
    )
    edges = np.append(0.0, ends)
    old = simulate_open(open_deals, edges, 1, shocks, rng).value[:, 0]
    return old + _new(world, population, at, paths, deals, rng)


def _new(
    world: World, population: Population, at: np.datetime64, paths: FloatArray, deals: float,
    rng: np.random.Generator,
) -> FloatArray:  # fmt: skip
    """Won revenue from deals still to come: the population's, thinned, (draws, weeks)."""
    draws, weeks = paths.shape
    start = float(_days(np.array([at]))[0])
    here = (population.created >= start) & (population.won < start + 7 * weeks)
    came, won = (((day[here] - start) // 7).astype(np.int64)
                 for day in (population.created, population.won))  # fmt: skip
    shape = world.arrival_shape
    flow = rng.gamma(shape, 1 / shape, (draws, weeks)) * deals / population.size
    count = rng.poisson(flow[:, came] * np.exp(paths[:, won]))
    out = np.zeros((draws, weeks))
    for week in range(weeks):
        mine = won == week
        out[:, week] = count[:, mine] @ population.value[here][mine]
    return out


def _days(moments: npt.NDArray[np.datetime64]) -> FloatArray:
    local = FiscalCalendar().local_days(moments.astype("datetime64[us]").astype(np.int64))
    return np.asarray(local, dtype=np.float64)
