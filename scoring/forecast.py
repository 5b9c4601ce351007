"""Revenue forecast: won to date + open deals + deals not yet in the pipeline, as distributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from data.history import History, Snapshot
from data.pipeline import Period, open_stages
from data.revenue import MEASURES
from data.timelines import DAY
from models.grid import Cells
from models.hazard_table import incidence, read_curve
from scoring.bundles import DealBundle
from scoring.grouping import UNASSIGNED, WHOLE, band_of, group_of, in_order
from scoring.simulation import Draws, OpenDeals, Shocks, levelled, simulate_new, simulate_open
from scoring.stand_ins import deal_columns
from scoring.targets import target_of
from scoring.what_if import Book, WhatIf, WhatIfError
from scoring.worth import arrivals_worth, final_worth, recurring_now

__all__ = [
    "Cell",
    "Forecast",
    "ForecastError",
    "Simulation",
    "forecast",
    "simulate",
]

FloatArray = npt.NDArray[np.float64]

_DRIVERS = 5
_LEVEL_TOLD = 0.05  # from which on a level of late is told


class ForecastError(ValueError):
    """A forecast that cannot be made; the message says why and what is allowed."""


@dataclass(frozen=True)
class Cell:
    """The forecast of one period and group; money in the base currency.

    Attributes
    ----------
    mean : float
    quantiles : dict of str to float
        By level as text, "0.1".
    components : dict of str to float
        Means of what is won to date, comes from open deals, and from new business.
    target, probability_of_target : float or None
    coverage : list of dict
        Measured on back-tests of about this horizon: level, measured, n.
    drivers : list of dict
        Deals with the largest share of the variance.
    """

    period: Period
    group: str
    mean: float
    quantiles: dict[str, float]
    components: dict[str, float]
    target: float | None
    probability_of_target: float | None
    coverage: list[dict[str, Any]]
    drivers: list[dict[str, Any]]


@dataclass(frozen=True)
class Forecast:
    """A whole forecast: cells in order of period, then group (the whole first).

    `draws` and `seed` make the same numbers again from the same records and model.
    """

    as_of: np.datetime64
    currency: str
    by: str | None
    cells: tuple[Cell, ...]
    warnings: tuple[str, ...]
    model: dict[str, str]
    measure: str = "amount"
    draws: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Simulation:
    """Draws behind a forecast.

    Attributes
    ----------
    groups : tuple of str
    won : float64, shape (groups, periods)
        Won between each period's start and as_of.
    open, new : Draws
        From open deals, and from deals not yet in the pipeline.
    open_deals : Snapshot
    ids : ndarray of object, shape (n,)
        The open deals' ids; with a what-if, those that were added last.
    open_groups : ndarray of object, shape (n,)
        Group of each.
    chance : float64, shape (n, periods)
        Chance of each open deal to be won in each period.
    typical : float64, shape (n,)
        Median final amount of each open deal.
    """

    groups: tuple[str, ...]
    won: FloatArray
    open: Draws
    new: Draws
    open_deals: Snapshot
    ids: npt.NDArray[np.object_]
    open_groups: npt.NDArray[np.object_]
    chance: FloatArray
    typical: FloatArray

    @property
    def total(self) -> FloatArray:
        """Won revenue of each period: (draws, groups, periods)."""
        return self.won + self.open.value + self.new.value


def simulate(
    history: History,
    bundle: DealBundle,
    as_of: np.datetime64,
    periods: Sequence[Period],
    by: str | None = None,
    *,
    draws: int = 4000,
    seed: int = 0,
    measure: str = "amount",
    what_if: WhatIf | None = None,
    threads: int = 1,
) -> Simulation:
    """Draw the won revenue of consecutive periods, as known at `as_of`.

    With another `measure`, the recurring amount a year that is won, or the number of deals. With
    `what_if`, the open deals as they are supposed to be, with the luck of those that they are.
    The number of `threads` changes nothing but the time.
    """
    if measure not in MEASURES:
        raise ForecastError(f"measure is {measure!r}; allowed: {', '.join(MEASURES)}")
    if what_if is not None and measure == "recurring":
        raise WhatIfError("measure is 'recurring'; allowed with a what-if: amount, count")
    rng = np.random.default_rng([seed, int(as_of.astype("datetime64[s]").astype(np.int64))])
    snapshot = history.as_of("deal", as_of)
    now = int(as_of.astype("datetime64[us]").astype(np.int64))
    bounds = np.array([periods[0].start, *(p.end for p in periods)])
    edges = (bounds.astype("datetime64[us]").astype(np.int64) - now) / DAY
    ahead = np.maximum(edges, 0.0)

    usual = Book(
        deal_columns(snapshot, bundle), snapshot.amount, group_of(snapshot, by),
        np.ones(len(snapshot)),
    )  # fmt: skip
    book = usual
    if what_if is not None:
        book = usual.supposing(what_if, snapshot, _stages(history))
    open_groups = _groups_of(book, by)
    won_value, won_period, won_groups = _won(history, as_of, periods, by, measure)
    shares_of = bundle.arrivals.shares.get(by or "", {})
    named = {str(g) for g in open_groups} | {str(g) for g in won_groups} | set(shares_of)
    groups = (WHOLE,) if by is None else in_order(named | {UNASSIGNED}, by)
    place = {g: i for i, g in enumerate(groups)}

    won = np.zeros((len(groups), len(periods)))
    won_place = np.array([place[str(g)] for g in won_groups], dtype=np.int64)
    np.add.at(won, (won_place, won_period), won_value)

    local = bundle.calendar.local_days(np.array([now], dtype=np.int64))
    cells = bundle.model.grid.cells(local, bundle.calendar.marks)
    for_shocks, for_open, for_new = rng.spawn(3)
    weeks = int(np.ceil(max(bundle.model.grid.t_max, ahead[-1]) / 7))
    shocks = Shocks.draw(
        bundle.shocks, _level_spread(bundle), draws, weeks, for_shocks, age=_age(bundle, as_of)
    )
    begin, end = cells.begin[0], cells.end[0]
    level = shocks.level_over(begin, end)
    stage, amount = book.columns["stage"], book.amount

    def final_amount(deal: npt.NDArray[np.int64], level: FloatArray) -> FloatArray:
        return bundle.amount.final((stage[0][deal], stage[1]), amount[deal], level)

    final = final_worth(measure, snapshot, final_amount)
    arrivals = arrivals_worth(measure, history, bundle, as_of)
    hazards = _hazards(bundle, book, cells, level)
    member = np.array([place[str(g)] for g in open_groups], dtype=np.int64)
    deals = OpenDeals(hazards, begin, end, member, final)
    as_is = deals
    if what_if is not None:
        as_is = replace(deals, hazards=_hazards(bundle, usual, cells, level))
    shares = np.array([shares_of.get(g, 0.0) for g in groups])
    rest = place.get(UNASSIGNED, 0)
    shares[rest] += max(1.0 - shares.sum(), 0.0)
    curve = incidence(hazards)[:, :, 0]
    each = cells.repeated(len(hazards))
    factor = 1.0 if what_if is None else what_if.arrivals
    return Simulation(
        groups,
        won,
        simulate_open(deals, ahead, len(groups), shocks, for_open, usual=as_is, threads=threads),
        simulate_new(arrivals, float(local[0]), ahead, shares, shocks, for_new, factor=factor),
        snapshot,
        np.append(snapshot.ids, [f"added-{i + 1}" for i in range(len(hazards) - len(snapshot))]),
        open_groups,
        np.diff(read_curve(curve, each, ahead[None, :]), axis=1),
        final(np.arange(len(hazards)), np.full(len(hazards), 0.5)),
    )


def _groups_of(book: Book, by: str | None) -> npt.NDArray[np.object_]:
    if by is None:
        return np.full(len(book.group), WHOLE, dtype=object)
    if by == "amount":
        return band_of(book.amount)  # a supposed amount has a band of its own
    return np.array([UNASSIGNED if g is None else g for g in book.group], dtype=object)


def _stages(history: History) -> dict[str, float]:
    """The stages that leave a deal open, and their place in the pipeline where one is known."""
    seen = history.deals
    order = {str(s): float(o) for s, o in zip(seen.stage_levels, seen.stage_order, strict=True)}
    found = open_stages(history.tables["stage"], list(order))
    return {name: order.get(name, np.nan) for name in found.names}


def _hazards(bundle: DealBundle, book: Book, cells: Cells, level: FloatArray) -> FloatArray:
    """Hazards of a book of deals, at the level of late and with their own odds: (n, k, 2)."""
    each = cells.repeated(len(book.amount))
    hazards = levelled(bundle.model.hazards(book.columns, each), level)
    other = np.flatnonzero(book.odds != 1.0)
    hazards[other] = levelled(hazards[other], book.odds[other, None])
    return hazards


def forecast(
    history: History,
    bundle: DealBundle,
    as_of: np.datetime64,
    periods: Sequence[Period],
    by: str | None = None,
    *,
    levels: Sequence[float] = (0.5, 0.8, 0.95),
    draws: int = 4000,
    seed: int = 0,
    measure: str = "amount",
    what_if: WhatIf | None = None,
    threads: int = 1,
) -> Forecast:
    """Forecast consecutive periods, the whole and by group.

    Parameters
    ----------
    levels : sequence of float
        Levels of the central ranges, between 0 and 1: 0.8 gives the 0.1 and 0.9 quantiles.
    measure : str
        What is counted of won deals: "amount", "recurring" (amount a year) or "count".
    what_if : WhatIf, optional
        What is supposed of the open deals and of business still to come.
    threads : int
        How many simulate; the answer is the same to the bit.

    Raises
    ------
    ForecastError
        If a level or measure is not allowed, or the periods are over.
    GroupingError
        If the grouping is unknown.
    WhatIfError
        If something cannot be supposed.
    """
    if not periods or periods[-1].end <= as_of:
        raise ForecastError(f"the periods end before as_of, {as_of}; give one that lies ahead")
    points = _quantile_points(levels)
    asked = _Asked(history, bundle, as_of, periods, by, levels, points, measure)
    simulation = simulate(
        history, bundle, as_of, periods, by, draws=draws, seed=seed, measure=measure,
        what_if=what_if, threads=threads,
    )  # fmt: skip
    total = simulation.total
    rows = [(WHOLE, np.arange(len(simulation.groups)))]
    if by is not None:
        rows += [(g, np.array([i])) for i, g in enumerate(simulation.groups)]
    cells = [
        _cell(asked, simulation, total[:, members, p].sum(axis=1), p, group, members)
        for p in range(len(periods))
        for group, members in rows
    ]
    return Forecast(
        as_of, _currency(history, bundle), by, tuple(cells), _warnings(asked, simulation),
        {
            "name": bundle.manifest.name,
            "version": bundle.manifest.version,
            "trained_at": bundle.manifest.trained_at,
            "trained_through": bundle.manifest.trained_through,
        },
        measure=measure, draws=draws, seed=seed,
    )  # fmt: skip


@dataclass(frozen=True)
class _Asked:
    """A request for a forecast, its levels as quantile points."""

    history: History
    bundle: DealBundle
    as_of: np.datetime64
    periods: Sequence[Period]
    by: str | None
    levels: Sequence[float]
    points: list[float]
    measure: str

    def days_to(self, period: Period) -> float:
        """Days from as_of to the period's end."""
        return float((period.end - self.as_of) / np.timedelta64(1, "D"))


def _cell(
    asked: _Asked, simulation: Simulation, values: FloatArray, p: int, group: str,
    members: npt.NDArray[np.int64],
) -> Cell:  # fmt: skip
    """The answer for one period and group, from the draws of its revenue."""
    target = target_of(
        asked.history, asked.bundle.calendar, asked.as_of, asked.periods[p], asked.by, group,
        asked.measure,
    )  # fmt: skip
    ranges, days = asked.bundle.ranges, asked.days_to(asked.periods[p])
    quantiles = np.quantile(values, ranges.read_at(asked.points, days))
    return Cell(
        asked.periods[p],
        group,
        float(values.mean()),
        {f"{q:g}": float(v) for q, v in zip(asked.points, quantiles, strict=True)},
        {
            "won": float(simulation.won[members, p].sum()),
            "open": float(simulation.open.value[:, members, p].sum(1).mean()),
            "new": float(simulation.new.value[:, members, p].sum(1).mean()),
        },
        target,
        None if target is None else 1.0 - ranges.chance(float((values < target).mean()), days),
        _coverage(asked, asked.periods[p], group),
        _drivers(simulation, members, p, float(values.var())),
    )


def _currency(history: History, bundle: DealBundle) -> str:
    """The base currency; where no deal ever carried an amount there is none to declare."""
    deals = history.deals.table
    amounts = np.concatenate([deals["amount"], deals["closed_amount"]])
    return bundle.manifest.currency if np.isnan(amounts).all() else history.currency


def _age(bundle: DealBundle, as_of: np.datetime64) -> float:
    """Days from what the bundle knows to `as_of`."""
    through = np.datetime64(bundle.manifest.trained_through.removesuffix("Z"), "us")
    return float((as_of - through) / np.timedelta64(1, "D"))


def _level_spread(bundle: DealBundle) -> float:
    """Relative variance of the level of arrivals over a horizon.

    Half of a week's spread is taken to last; the other half, and counting noise, fade with the
    weeks that the level was averaged over.
    """
    arrivals = bundle.arrivals
    week = max(float(arrivals.per_weekday.sum()), 0.1)
    return arrivals.spread / 2 + (arrivals.spread / 2 + 1.0 / week) / max(arrivals.weeks, 1.0)


def _won(
    history: History, as_of: np.datetime64, periods: Sequence[Period], by: str | None, measure: str
) -> tuple[FloatArray, npt.NDArray[np.int64], npt.NDArray[np.object_]]:
    """Revenue already won in the periods: amount, period and group of each event.

    A reopening is a negative amount; deals that were deleted or merged are gone.
    """
    rows, at, known, value = history.won_events(measure)
    now = int(as_of.astype("datetime64[us]").astype(np.int64))
    bounds = np.array([periods[0].start, *(p.end for p in periods)]).astype("datetime64[us]")
    period = np.searchsorted(bounds.astype(np.int64), at, side="right") - 1
    here = (known <= now) & (at <= now) & (period >= 0) & (period < len(periods))
    here &= history.deals.gone_at[rows] > now
    at_closing = history.landmarks("deal", rows[here], at[here])
    return value[here], period[here], group_of(at_closing, by)


def _quantile_points(levels: Sequence[float]) -> list[float]:
    for level in levels:
        if not 0.0 < level < 1.0:
            raise ForecastError(f"level is {level}; allowed: above 0 and below 1, like 0.8")
    points = {0.5}
    for level in levels:
        points |= {round((1 - level) / 2, 6), round((1 + level) / 2, 6)}
    return sorted(points)


def _coverage(asked: _Asked, period: Period, group: str) -> list[dict[str, Any]]:
    """Coverage measured at the back-tested horizon nearest to the period's end.

    It was measured on the amount of the whole; of other ranges nothing is known yet.
    """
    days = asked.days_to(period)
    known = group == WHOLE and asked.measure == "amount"
    measured = asked.bundle.manifest.coverage if known else []
    out = []
    for level in asked.levels:
        same = [c for c in measured if abs(c["level"] - level) < 1e-9]
        best = min(same, key=lambda c: abs(c["horizon_days"] - days), default=None)
        out.append(
            {"level": level, "measured": None, "n": 0}
            if best is None
            else {"level": level, "measured": best["measured"], "n": best["n"]}
        )
    return out


def _drivers(
    simulation: Simulation, members: npt.NDArray[np.int64], period: int, variance: float
) -> list[dict[str, Any]]:
    """Open deals with the largest share of the variance of a cell.

    A deal's own variance is taken with its median amount; the shared shocks are nobody's.
    """
    if variance <= 0 or len(simulation.ids) == 0:
        return []
    p = simulation.chance[:, period]
    own = p * (1 - p) * simulation.typical**2
    if len(members) < len(simulation.groups):
        groups = np.array(simulation.groups, dtype=object)[members]
        own = np.where(np.isin(simulation.open_groups.astype(str), groups.astype(str)), own, 0.0)
    top = np.argsort(-own, kind="stable")[:_DRIVERS]
    ids = simulation.ids
    return [
        {"deal_id": str(ids[i]), "share_of_variance": float(min(own[i] / variance, 1.0))}
        for i in top
        if own[i] > 0
    ]


def _warnings(asked: _Asked, simulation: Simulation) -> tuple[str, ...]:
    found = [*_unpriced(asked, simulation.open_deals), *_level_told(asked)]
    days, longest = asked.days_to(asked.periods[-1]), asked.bundle.model.grid.t_max
    if days > longest:
        found.append(
            f"the last period ends {days:.0f} days ahead; deals open for longer than "
            f"{longest:.0f} days from now are counted as still open"
        )
    if asked.measure != "amount":
        found.append("ranges are not verified: back-tests measure those of the amount alone")
    elif not asked.bundle.manifest.coverage:
        found.append("ranges are not yet verified: too few matured periods to back-test")
    return tuple(found)


def _level_told(asked: _Asked) -> list[str]:
    """What past weeks say of the coming ones, where it is worth a word."""
    level = float(asked.bundle.shocks.level(1, _age(asked.bundle, asked.as_of))[0])
    if abs(level - 1.0) < _LEVEL_TOLD:
        return []
    way = "more" if level > 1.0 else "fewer"
    return [
        f"lately {way} deals were won than their stages and histories said: the odds of winning "
        f"are taken {level - 1.0:+.0%} in the coming week, and less and less so after it"
    ]


def _unpriced(asked: _Asked, deals: Snapshot) -> list[str]:
    """What to warn of open deals whose worth is not known."""
    if asked.measure == "recurring":
        none = int((recurring_now(deals) == 0).sum())
        told = f"{none} of {len(deals)} open deals carry no recurring amount: they count as nothing"
        return [told] if none else []
    missing = int(np.isnan(deals.amount).sum()) if asked.measure == "amount" else 0
    if not missing:
        return []
    return [
        f"{missing} open deals carry no amount; theirs is drawn from the amounts of won deals"
        if len(asked.bundle.amount.log_final)
        else f"{missing} open deals carry no amount, nor did any deal that was won: they count "
        "as nothing"
    ]
