"""Targets: what a planner could promise before the first deal was drawn."""

from __future__ import annotations

import math

import numpy as np

from data.records import Table
from data.synthetic.drawing import effects, profile, qualification_rate
from data.synthetic.hazards import Calendar, Chain, Floats, business_days, quarter
from data.synthetic.tables import Drawn
from data.synthetic.world import World

__all__ = ["target_table"]


def target_table(drawn: Drawn, n_deals: int, shocks: bool) -> Table:
    """Targets by quarter, from the first to the one after the end.

    For the whole, each team and each rep: near the median of what the group could expect when
    its target was set.
    """
    world, reps = drawn.world, drawn.reps
    end = drawn.start + drawn.days
    total = int((quarter(np.array([end]), 2)[0] - drawn.start).astype(np.int64))
    revenue, spread = _plan(drawn, n_deals, total)
    period = quarter(drawn.start + np.arange(total))
    groups = [("all", "all", np.ones(len(reps.ids), dtype=bool))]
    groups += [("team", team, reps.team == team) for team in world.teams]
    groups += [("owner", rep, reps.ids == rep) for rep in reps.ids]
    shared = 1 / world.arrival_shape / 13  # arrivals' weekly factor, over a quarter of 13 weeks
    if shocks:
        shared += world.shock_quarter_sd**2 + world.shock_week_sd**2 / 13
    first = np.unique(period)
    start = np.repeat(first, len(groups))
    amount = [
        _median(revenue[who][:, period == day].sum(), spread[who][:, period == day].sum(), shared)
        for day in first
        for _, _, who in groups
    ]
    columns = {
        "scope": [scope for scope, _, _ in groups] * len(first),
        "scope_id": [scope_id for _, scope_id, _ in groups] * len(first),
        "period_start": start,
        "period_end": quarter(start, 1),
        "amount": [max(round(a, -2), 100.0) for a in amount],
        "currency": np.full(len(start), "EUR"),
        "kind": np.full(len(start), "revenue"),
    }
    return drawn.table("target", columns, np.clip(start - 14, drawn.start, end - 1))


def _median(mean: float, spread: float, shared: float) -> float:
    """Median of the lognormal with the mean and variance of a compound Poisson sum.

    `shared` is the variance of the factor that the whole sum shares.
    """
    return mean / math.sqrt(1 + spread / mean**2 + shared) if mean > 0 else 0.0


def _plan(drawn: Drawn, n_deals: int, total: int) -> tuple[Floats, Floats]:
    """Expected won revenue and its Poisson variance, by rep and day, shapes (reps, total).

    The same hazards, with a flow of deals of average effect: what a planner could know before
    the first deal. No drawn deal or lead enters.
    """
    world, reps = drawn.world, len(drawn.reps.ids)
    calendar = Calendar.of(world, drawn.start, total)
    drift = np.exp(world.amount_drift * np.arange(total) / 365.25)
    average = sum(
        float(np.average(effects(levels, "win"), weights=effects(levels, "share")))
        for levels in (world.sources, world.industries)
    )
    mean, square = np.zeros((reps, total)), np.zeros((reps, total))
    flows = _flows(drawn, calendar, n_deals, total)
    for pipeline, flow in zip(world.pipelines, flows, strict=True):
        chain = Chain.of(world, pipeline)
        own = chain.factors(drawn.reps.win + average)
        first, second = _amount_moments(world, pipeline.pipeline_id)
        entry = np.array([s.entry for s in pipeline.stages])
        mass = np.zeros((reps, chain.stages * chain.ages))
        for day in range(total):
            mass, closed = chain.step(mass, own * calendar.factors(day))
            mass[:, :: chain.ages] += flow[day] * entry / entry.sum()
            mean[:, day] += closed[:, 0] * first * drift[day]
            square[:, day] += closed[:, 0] * second * drift[day] ** 2
    return mean, square


def _flows(drawn: Drawn, calendar: Calendar, n_deals: int, total: int) -> tuple[Floats, Floats]:
    """New deals expected by a rep on each day, shape (total,): new business, renewals."""
    world = drawn.world
    inflow = n_deals / drawn.days * profile(world, calendar, drawn.days)
    inflow = inflow * business_days(drawn.start, total) / len(drawn.reps.ids)
    delay = round(world.qualify_median * 7 / 5)
    from_leads = world.leads_per_deal * qualification_rate(world)
    arriving = np.concatenate([np.zeros(delay), inflow[: total - delay]]) * from_leads
    return inflow * world.direct_per_deal + arriving, inflow * world.renewals_per_deal


def _amount_moments(world: World, pipeline_id: str) -> tuple[float, float]:
    """Mean and mean square of a won deal's closed amount at the start, as a planner sees it."""
    mine = [p for p in world.products if p.pipeline_id == pipeline_id]
    share = np.array([p.share for p in mine]) / sum(p.share for p in mine)
    median = np.array([p.median for p in mine])
    variance = np.array([p.sigma for p in mine]) ** 2
    variance = variance + (world.size_on_amount * world.size_sigma) ** 2
    first = float(share @ (median * np.exp(variance / 2))) * world.kept
    second = float(share @ (median**2 * np.exp(2 * variance))) * world.kept**2
    return first, second
