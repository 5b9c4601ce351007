"""Drawing what enters the CRM: shocks, reps, leads, deals and accounts as they are created."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from data.synthetic.hazards import (
    CLOSES,
    DAY,
    HOUR,
    OPENS,
    Calendar,
    Dates,
    Flags,
    Floats,
    Ints,
    Objects,
    business_days,
    decision_delays,
    quarter,
    sigmoid,
    weekday,
)
from data.synthetic.world import Level, Product, World

__all__ = [
    "Accounts",
    "Deals",
    "Leads",
    "Reps",
    "draw_deals",
    "draw_leads",
    "draw_rate",
    "draw_reps",
    "draw_shocks",
    "effects",
    "profile",
    "qualification_rate",
]


# ------------------------------------------------------------------ shocks and the flow of arrivals


def draw_shocks(world: World, start: np.datetime64, days: int, rng: np.random.Generator) -> Floats:
    """Shared shocks on the log of the win hazard, by quarter and by week, shape (days,)."""
    quarters = quarter(start + np.arange(days)).astype(np.int64)
    _, position = np.unique(quarters, return_inverse=True)
    out = np.zeros(days)
    for sd, draws in (
        (world.shock_quarter_sd, rng.standard_normal(position.max() + 1)[position]),
        (world.shock_week_sd, _by_week(rng.standard_normal(days // 7 + 2), start, days)),
    ):
        out += sd * draws - sd**2 / 2  # the factor exp(.) has mean one
    return out


def draw_rate(
    world: World,
    calendar: Calendar,
    start: np.datetime64,
    days: int,
    n_deals: int,
    rng: np.random.Generator,
) -> Floats:
    """Deals asked for by day, with the weekly factor that all arrivals share, shape (days,)."""
    weekly = rng.gamma(world.arrival_shape, 1 / world.arrival_shape, days // 7 + 2)
    return n_deals / days * profile(world, calendar, days) * _by_week(weekly, start, days)


def profile(world: World, calendar: Calendar, days: int) -> Floats:
    """Season and growth of arrivals by day of the calendar, with mean one over the first days."""
    growth = np.exp(world.growth * np.arange(len(calendar.arrivals)) / 365.25)
    profile = calendar.arrivals * growth
    return np.asarray(profile / profile[:days].mean())


def _by_week(values: Floats, start: np.datetime64, days: int) -> Floats:
    """One value per calendar week (from Monday), spread over the days."""
    first = int(weekday(np.array([start]))[0])
    return values[(np.arange(days) + first) // 7]


def _arrivals(expected: Floats, opens: int, closes: int, rng: np.random.Generator) -> Ints:
    """Sorted moments of Poisson arrivals with so many expected a day, between two hours."""
    day = np.repeat(np.arange(len(expected)), rng.poisson(expected))
    return np.sort(day * DAY + rng.integers(opens, closes, len(day)))


# ------------------------------------------------------------------ reps


@dataclass(frozen=True, eq=False)
class Reps:
    """Drawn reps, arrays of shape (reps,); effects on the log scale."""

    ids: Objects
    team: Objects
    win: Floats
    diligence: Floats
    bias: Floats


def draw_reps(world: World, rng: np.random.Generator) -> Reps:
    """Reps with their teams and effects."""
    n = world.reps
    ids = np.array([f"rep-{i + 1:02d}" for i in range(n)], dtype=object)
    team = np.array([world.teams[i % len(world.teams)] for i in range(n)], dtype=object)
    win, diligence = (
        sd * rng.standard_normal(n) for sd in (world.rep_win_sd, world.rep_diligence_sd)
    )
    bias = world.rep_date_bias + world.rep_date_bias_sd * rng.standard_normal(n)
    return Reps(ids, team, win, diligence, bias)


# ------------------------------------------------------------------ leads


@dataclass(frozen=True, eq=False)
class Leads:
    """Drawn leads, arrays of shape (n,), sorted by creation.

    Times are microseconds after the start; categories are positions among the world's levels.
    """

    created: Ints
    source: Ints
    industry: Ints
    title: Ints
    country: Ints
    phone: Flags
    free_mail: Flags
    employees: Floats  # NaN: unknown
    owner: Ints
    logit: Floats
    decided: Ints
    qualified: Flags


def draw_leads(
    world: World, start: np.datetime64, rate: Floats, reps: int, rng: np.random.Generator
) -> Leads:
    """Leads that arrive at `rate` (deals asked for a day), and when they are decided."""
    weekend = weekday(start + np.arange(len(rate))) >= 5
    share = np.where(weekend, world.lead_weekend, 1.0)
    expected = world.leads_per_deal * rate * share * 7 / (5 + 2 * world.lead_weekend)
    created = _arrivals(expected, 6 * HOUR, 22 * HOUR, rng)
    n = len(created)
    source, industry, title, country = (
        _pick(levels, n, rng)
        for levels in (world.sources, world.industries, world.titles, world.countries)
    )
    phone, free = rng.random(n) < world.phone_share, rng.random(n) < world.free_mail_share
    employees = _draw_employees(world, n, rng)
    logit = _lead_logit(world, phone, free, employees, (source, industry, title))
    qualified = rng.random(n) < sigmoid(logit)
    day = (_draw_decisions(world, start + created // DAY, qualified, rng) - start).astype(np.int64)
    decided = day * DAY + rng.integers(OPENS, CLOSES, n)
    owner = rng.integers(0, reps, n)
    return Leads(
        created, source, industry, title, country, phone, free, employees, owner, logit, decided,
        qualified,
    )  # fmt: skip


def _draw_decisions(
    world: World, created: Dates, qualified: Flags, rng: np.random.Generator
) -> Dates:
    """Day of each decision: a later working day, sooner when the answer is yes."""
    u = rng.random(len(created))
    yes, no = (np.searchsorted(cdf, u) for cdf in decision_delays(world))
    delay = np.maximum(np.where(qualified, yes, no), 1)
    return np.busday_offset(created, delay, roll="backward")


def _lead_logit(
    world: World, phone: Flags, free_mail: Flags, employees: Floats, choices: tuple[Ints, ...]
) -> Floats:
    """Log-odds that leads ever qualify; `choices` are source, industry and title."""
    logit = world.lead_intercept + world.lead_phone * phone + world.lead_free_mail * free_mail
    logit = logit + world.lead_size * _log_size(employees)
    for levels, choice in zip(
        (world.sources, world.industries, world.titles), choices, strict=True
    ):
        logit = logit + effects(levels, "lead")[choice]
    return np.asarray(logit)


def qualification_rate(world: World) -> float:
    """Share of leads that qualify in the long run: the mean over a fixed sample of the world."""
    rng = np.random.default_rng(0)
    n = 4_000
    phone, free = rng.random(n) < world.phone_share, rng.random(n) < world.free_mail_share
    employees = _draw_employees(world, n, rng)
    source, industry, title = (
        _pick(levels, n, rng) for levels in (world.sources, world.industries, world.titles)
    )
    logit = _lead_logit(world, phone, free, employees, (source, industry, title))
    return float(sigmoid(logit).mean())


# ------------------------------------------------------------------ deals and accounts


@dataclass(frozen=True, eq=False)
class Deals:
    """Drawn deals at creation, arrays of shape (n,), sorted by creation.

    Times and categories as in `Leads`; lead, account and owner are positions too.
    """

    created: Ints
    lead: Ints  # -1: none
    pipeline: Ints
    account: Ints
    owner: Ints
    source: Ints
    product: Ints
    existing: Flags
    amount: Floats
    interest: Floats
    effect: Floats


@dataclass(frozen=True, eq=False)
class Accounts:
    """Drawn accounts, arrays of shape (n,): customers first, then in order of creation."""

    created: Ints
    lead: Ints  # -1: none
    industry: Ints
    country: Ints
    employees: Floats


def draw_deals(
    world: World,
    start: np.datetime64,
    rate: Floats,
    n_deals: int,
    leads: Leads,
    reps: Reps,
    rng: np.random.Generator,
) -> tuple[Deals, Accounts]:
    """Deals of qualified leads, direct deals and renewals, with the accounts that they go to."""
    created, origin, lead = _deal_arrivals(world, start, rate, leads, rng)
    n = len(created)
    pipeline = (origin == 2).astype(np.int64)
    owner, source = rng.integers(0, len(reps.ids), n), _pick(world.sources, n, rng)
    born = lead >= 0
    owner[born], source[born] = leads.owner[lead[born]], leads.source[lead[born]]
    existing = (origin == 2) | ((origin == 1) & (rng.random(n) < world.direct_to_customer))
    customers = max(1, round(n_deals * world.customers_per_deal))
    account, accounts = _draw_accounts(world, customers, created, existing, lead, leads, rng)
    sold, renewed = (_pick_product(world, p, n, rng) for p in (0, 1))
    product = np.where(pipeline == 1, renewed, sold)
    size = _log_size(accounts.employees[account])
    sigma = np.array([p.sigma for p in world.products])[product]
    median = np.array([p.median for p in world.products])[product]
    above = sigma * rng.standard_normal(n) + world.size_on_amount * size
    drift = world.amount_drift * created / DAY / 365.25
    amount = np.maximum(np.round(median * np.exp(above + drift), -1), 10.0)
    interest = world.interest_sd * rng.standard_normal(n)
    effect = (
        reps.win[owner]
        + effects(world.sources, "win")[source]
        + effects(world.industries, "win")[accounts.industry[account]]
        + world.amount_on_win * above
        + interest
    )
    deals = Deals(
        created, lead, pipeline, account, owner, source, product, existing, amount, interest, effect
    )
    return deals, accounts


def _deal_arrivals(
    world: World, start: np.datetime64, rate: Floats, leads: Leads, rng: np.random.Generator
) -> tuple[Ints, Ints, Ints]:
    """Moment, origin (0 lead, 1 direct, 2 renewal) and lead (-1: none) of the deals, sorted."""
    won = np.flatnonzero(leads.qualified & (leads.decided < len(rate) * DAY))
    expected = rate * business_days(start, len(rate))
    direct, renewals = (
        _arrivals(expected * per, OPENS, CLOSES, rng)
        for per in (world.direct_per_deal, world.renewals_per_deal)
    )
    created = np.concatenate([leads.decided[won], direct, renewals])
    origin = np.repeat([0, 1, 2], [len(won), len(direct), len(renewals)])
    lead = np.concatenate([won, np.full(len(direct) + len(renewals), -1)])
    order = np.argsort(created, kind="stable")
    return created[order], origin[order], lead[order]


def _pick_product(world: World, pipeline: int, n: int, rng: np.random.Generator) -> Ints:
    mine = [
        i
        for i, p in enumerate(world.products)
        if p.pipeline_id == world.pipelines[pipeline].pipeline_id
    ]
    return np.array(mine)[_pick([world.products[i] for i in mine], n, rng)]


def _draw_accounts(
    world: World,
    customers: int,
    created: Ints,
    existing: Flags,
    lead: Ints,
    leads: Leads,
    rng: np.random.Generator,
) -> tuple[Ints, Accounts]:
    """Account of each deal, shape (deals,), and the accounts: a new one unless `existing`."""
    new = np.flatnonzero(~existing)
    account = rng.integers(0, customers, len(created))
    account[new] = customers + np.arange(len(new))
    n = customers + len(new)
    industry, country = _pick(world.industries, n, rng), _pick(world.countries, n, rng)
    employees = _draw_employees(world, n, rng)
    born = new[lead[new] >= 0]
    at, origin = account[born], lead[born]
    industry[at], country[at] = leads.industry[origin], leads.country[origin]
    employees[at] = leads.employees[origin]
    when = np.concatenate([np.zeros(customers, dtype=np.int64), created[new]])
    from_lead = np.concatenate([np.full(customers, -1), lead[new]])
    return account, Accounts(when, from_lead, industry, country, employees)


# ------------------------------------------------------------------ levels and sizes


def effects(levels: Sequence[Level], which: Literal["share", "lead", "win"]) -> Floats:
    """One attribute of every level, shape (levels,)."""
    return np.array([getattr(level, which) for level in levels], dtype=np.float64)


def _pick(levels: Sequence[Level] | Sequence[Product], n: int, rng: np.random.Generator) -> Ints:
    shares = np.array([level.share for level in levels])
    return np.asarray(rng.choice(len(levels), n, p=shares / shares.sum()))


def _draw_employees(world: World, n: int, rng: np.random.Generator) -> Floats:
    size = world.size_median * np.exp(world.size_sigma * rng.standard_normal(n))
    size = np.maximum(np.round(size), 1.0)
    return np.where(rng.random(n) < world.unknown_size_share, np.nan, size)


def _log_size(employees: Floats) -> Floats:
    return np.nan_to_num(np.log(employees / 100.0))  # unknown: no effect
