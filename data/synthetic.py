"""A CRM whose true hazards are known: for the demo, the docs and tests of truth.

`make_history` plays two years of a company that introduces a CRM on day one: leads arrive, some
qualify, deals move through their stages until they are won or lost. Everything is drawn from the
`World`, whose every number is documented, so `Truth` can say what the right answer was: the exact
probability that a deal open at a moment is won or lost by any later day.

One rule keeps the tables honest: what is drawn for day d depends on the state at the start of
day d only. `docs/synthetic.md` tells the recipe.

>>> synthetic = make_history(200, seed=1, days=365)
>>> sorted(synthetic.tables)[:4]
['account', 'activity', 'deal', 'field_change']
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data.records import ENTITIES, SourceFacts, Table

__all__ = [
    "Level",
    "PipelineWorld",
    "Product",
    "StageWorld",
    "Synthetic",
    "Truth",
    "World",
    "make_history",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Objects = npt.NDArray[np.object_]
Dates = npt.NDArray[np.datetime64]

_DAY = 86_400_000_000  # microseconds
_HOUR = _DAY // 24
_OPENS, _CLOSES = 8 * _HOUR, 18 * _HOUR  # business hours, UTC
_DEFAULT_END = np.datetime64("2026-02-16", "us")
_WIN, _LOSE, _ADVANCE, _SKIP, _BACK = range(5)
_SOURCE = "synthetic"


# ------------------------------------------------------------------ the world, number by number


@dataclass(frozen=True)
class Level:
    """One value of a categorical field.

    Attributes
    ----------
    name : str
        The value in the tables; "" leaves the field missing.
    share : float
        Share of the records that have it.
    lead : float
        Added to the log-odds that a lead qualifies.
    win : float
        Added to the deal's effect (log scale, see `World.effect_on_moves`).
    """

    name: str
    share: float
    lead: float = 0.0
    win: float = 0.0


@dataclass(frozen=True)
class Product:
    """A product family: amounts are lognormal around `median` (EUR) with log-SD `sigma`."""

    name: str
    pipeline_id: str
    share: float
    median: float
    sigma: float


@dataclass(frozen=True)
class StageWorld:
    """An open stage.

    Attributes
    ----------
    stage_id, name : str
        As in the stage table.
    default_probability : float
        What this CRM's administrator believes: plausible, and wrong.
    entry : float
        Share of the pipeline's deals created in this stage.
    advance, skip, back, lose, win : float
        Hazards on an average working day: one stage on, two stages on, one stage back, lost,
        won.
    activity : float
        Activities on an average working day.
    remaining_days : float
        How long reps believe a deal still takes from here, days: plausible, and wrong.
    """

    stage_id: str
    name: str
    default_probability: float
    entry: float
    advance: float
    skip: float
    back: float
    lose: float
    win: float
    activity: float
    remaining_days: float


@dataclass(frozen=True)
class PipelineWorld:
    """A sales pipeline: its open stages in order; a won and a lost stage follow by themselves."""

    pipeline_id: str
    stages: tuple[StageWorld, ...]


# Columns: default probability, entry | advance, skip, back, lose, win | activity, believed days.
_NEW = PipelineWorld(
    "new-business",
    (
        StageWorld("qualification", "Qualification",
                   0.10, 0.85, 0.110, 0.012, 0.000, 0.048, 0.001, 0.10, 75.0),
        StageWorld("needs-analysis", "Needs analysis",
                   0.25, 0.12, 0.100, 0.010, 0.006, 0.032, 0.002, 0.13, 60.0),
        StageWorld("proposal", "Proposal",
                   0.50, 0.03, 0.090, 0.008, 0.008, 0.030, 0.006, 0.15, 42.0),
        StageWorld("negotiation", "Negotiation",
                   0.75, 0.00, 0.085, 0.000, 0.010, 0.026, 0.020, 0.18, 25.0),
        StageWorld("contract", "Contract sent",
                   0.90, 0.00, 0.000, 0.000, 0.012, 0.014, 0.100, 0.10, 12.0),
    ),
)  # fmt: skip
_RENEWALS = PipelineWorld(
    "renewals",
    (
        StageWorld("renewal-upcoming", "Upcoming",
                   0.60, 1.00, 0.080, 0.000, 0.000, 0.004, 0.006, 0.05, 45.0),
        StageWorld("renewal-talks", "In talks",
                   0.75, 0.00, 0.090, 0.000, 0.004, 0.008, 0.030, 0.12, 25.0),
        StageWorld("renewal-offer", "Offer sent",
                   0.95, 0.00, 0.000, 0.000, 0.010, 0.009, 0.110, 0.08, 10.0),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """Everything that drives the synthetic CRM. Rates are per average working day.

    Attributes
    ----------
    pipelines : tuple of PipelineWorld
        The first is new business, the second renewals.
    products, sources, industries, titles, countries : tuple
        Values with their shares and effects. Deals not born from a lead draw their source too.
    teams : tuple of str, reps : int
        Reps are dealt to the teams in turn.
    rep_win_sd, rep_diligence_sd : float
        SD of the reps' effects on their deals, and on the log of their activity.
    rep_date_bias, rep_date_bias_sd : float
        Mean and SD of the reps' error in the log of remaining days (negative: too early).
    interest_sd : float
        SD of each deal's own hidden effect, constant over its life. No column shows it, but
        activities and close-date guesses hint at it. 0 leaves nothing hidden.
    interest_on_activity, interest_on_inbound, interest_on_date : float
        What interest adds to the log of activity, to the log-odds that an activity is inbound,
        and takes from the log of the guessed remaining days.
    amount_on_win : float
        Effect of one log unit of first amount above the product's median.
    effect_on_moves, effect_on_loss : float
        A deal's effect x multiplies its win hazard by exp(x), its hazards to advance and skip
        by exp(effect_on_moves x) and its loss hazard by exp(effect_on_loss x).
    ramp_days, patience_days, stall_days, stall_floor : float
        Duration effect on win, advance and skip: min(1, age / ramp) x max(floor,
        exp(-(age - patience)+ / stall)), with age in days since the stage began.
    loss_first, loss_rise, loss_days : float
        Duration effect on loss: first + rise x (1 - exp(-age / days)).
    age_cap : int
        Age in stage beyond which the duration effect stays constant, days.
    weekdays : tuple of float
        Calendar factor Monday to Sunday on all hazards; 0 = nothing happens.
    year_end : float
        Factor on all hazards from 24 December to 1 January.
    yearly, yearly_peak : float
        Amplitude and peak (day of the year) of the cosine season of wins and arrivals.
    rush, rush_days : float
        Quarter-end rush: wins x (1 + rush x exp(-days left in the calendar quarter / rush_days)).
    shock_quarter_sd, shock_week_sd : float
        SD of the log of the shared shocks on all win hazards (mean of the factor: 1).
    leads_per_deal, direct_per_deal, renewals_per_deal : float
        Expected leads, direct new deals and renewals per deal asked for.
    arrival_shape : float
        Shape of the weekly gamma factor (mean 1) shared by all arrivals: negative binomial.
    growth : float
        Growth of arrivals a year, log scale.
    lead_weekend : float
        Arrivals of leads on a weekend day, relative to a weekday.
    lead_intercept, lead_phone, lead_free_mail, lead_size : float
        Log-odds that a lead qualifies: intercept, has_phone, free-mail domain, and one log unit
        of employees over 100 (0 where unknown); sources, industries and titles add theirs.
    phone_share, free_mail_share, unknown_size_share : float
        Shares of the leads.
    size_median, size_sigma : float
        Employees: lognormal.
    qualify_median, qualify_sigma, disqualify_median, disqualify_sigma : float
        Delay of the decision in working days after creation: lognormal, rounded up.
    delay_cap : int
        Longest delay, working days.
    lead_horizon_days : float
        Horizon of `Truth.lead_probability` unless asked otherwise.
    lead_activity : float
        Activities on an open lead; exp(lead_activity_insight x centred log-odds) times more.
    lead_activity_insight : float
        See `lead_activity`.
    customers_per_deal, direct_to_customer : float
        Customers from before the CRM per deal asked for; share of direct deals that go to them.
    size_on_amount, amount_drift : float
        Effect of one log unit of employees on the log amount; drift of log amounts a year.
    edit_rate, edit_sd : float
        Edits of an open amount; each multiplies it by a lognormal of mean 1 with this log-SD.
    discount_share, discount_mean : float
        Share of won deals closed with a discount; its mean (Beta with 10 as its total weight).
    push_rate : float
        Chance that a passed expected close date is moved, on each working morning.
    reguess : float
        Chance that a stage change makes the rep guess the close date anew.
    date_noise, month_end : float
        SD of a guess's log remaining days; share of guesses put on the end of their month.
    """

    pipelines: tuple[PipelineWorld, PipelineWorld] = (_NEW, _RENEWALS)
    products: tuple[Product, ...] = (
        Product("Starter", "new-business", 0.45, 6_000.0, 0.50),
        Product("Professional", "new-business", 0.40, 18_000.0, 0.60),
        Product("Enterprise", "new-business", 0.15, 60_000.0, 0.70),
        Product("Starter", "renewals", 0.40, 5_500.0, 0.40),
        Product("Professional", "renewals", 0.45, 16_000.0, 0.45),
        Product("Enterprise", "renewals", 0.15, 50_000.0, 0.50),
    )
    sources: tuple[Level, ...] = (
        Level("website", 0.38, -0.1, -0.05),
        Level("advertising", 0.22, -0.7, -0.35),
        Level("event", 0.16, 0.1, 0.00),
        Level("partner", 0.12, 0.6, 0.20),
        Level("referral", 0.12, 1.0, 0.45),
    )
    industries: tuple[Level, ...] = (
        Level("manufacturing", 0.28, 0.2, 0.10),
        Level("retail", 0.22, -0.2, -0.15),
        Level("software", 0.20, 0.3, 0.15),
        Level("finance", 0.16, 0.0, 0.00),
        Level("public sector", 0.14, -0.4, -0.25),
    )
    titles: tuple[Level, ...] = (
        Level("Director", 0.22, 0.5),
        Level("Manager", 0.36, 0.2),
        Level("Specialist", 0.24, -0.3),
        Level("Student", 0.06, -1.6),
        Level("", 0.12, -0.3),
    )
    countries: tuple[Level, ...] = (
        Level("DE", 0.40),
        Level("FR", 0.20),
        Level("NL", 0.15),
        Level("IT", 0.15),
        Level("AT", 0.10),
    )
    teams: tuple[str, ...] = ("team-north", "team-south", "team-west")
    reps: int = 12
    rep_win_sd: float = 0.30
    rep_diligence_sd: float = 0.25
    rep_date_bias: float = -0.20
    rep_date_bias_sd: float = 0.25
    interest_sd: float = 0.40
    interest_on_activity: float = 0.50
    interest_on_inbound: float = 0.80
    interest_on_date: float = 0.30
    amount_on_win: float = -0.15
    effect_on_moves: float = 0.50
    effect_on_loss: float = -0.50
    ramp_days: float = 4.0
    patience_days: float = 21.0
    stall_days: float = 30.0
    stall_floor: float = 0.30
    loss_first: float = 0.70
    loss_rise: float = 0.90
    loss_days: float = 30.0
    age_cap: int = 60
    weekdays: tuple[float, ...] = (0.85, 1.10, 1.15, 1.05, 0.85, 0.0, 0.0)
    year_end: float = 0.25
    yearly: float = 0.15
    yearly_peak: float = 135.0
    rush: float = 1.0
    rush_days: float = 7.0
    shock_quarter_sd: float = 0.25
    shock_week_sd: float = 0.15
    leads_per_deal: float = 2.0
    direct_per_deal: float = 0.30
    renewals_per_deal: float = 0.20
    arrival_shape: float = 25.0
    growth: float = 0.10
    lead_weekend: float = 0.30
    lead_intercept: float = -1.15
    lead_phone: float = 0.5
    lead_free_mail: float = -0.8
    lead_size: float = 0.15
    phone_share: float = 0.55
    free_mail_share: float = 0.30
    unknown_size_share: float = 0.10
    size_median: float = 100.0
    size_sigma: float = 1.2
    qualify_median: float = 5.0
    qualify_sigma: float = 0.8
    disqualify_median: float = 9.0
    disqualify_sigma: float = 0.9
    delay_cap: int = 60
    lead_horizon_days: float = 30.0
    lead_activity: float = 0.15
    lead_activity_insight: float = 0.30
    customers_per_deal: float = 0.15
    direct_to_customer: float = 0.30
    size_on_amount: float = 0.25
    amount_drift: float = 0.06
    edit_rate: float = 0.02
    edit_sd: float = 0.20
    discount_share: float = 0.60
    discount_mean: float = 0.10
    push_rate: float = 0.40
    reguess: float = 0.35
    date_noise: float = 0.35
    month_end: float = 0.35


# ------------------------------------------------------------------ hazards and their exact sums


class _Calendar(NamedTuple):
    """Factors by day, shape (days,): on all hazards, on wins besides, on arrivals."""

    work: Floats
    win: Floats
    arrivals: Floats


def _calendar(world: World, dates: Dates) -> _Calendar:
    year_day = (dates - dates.astype("datetime64[Y]")).astype(np.int64)
    angle = 2 * np.pi * (year_day - world.yearly_peak) / 365.25
    yearly = 1 + world.yearly * np.cos(angle)
    work = np.asarray(world.weekdays)[_weekday(dates)]
    month_day = (dates - dates.astype("datetime64[M]")).astype(np.int64)
    month = dates.astype("datetime64[M]").astype(np.int64) % 12
    holiday = ((month == 11) & (month_day >= 23)) | ((month == 0) & (month_day == 0))
    work = np.where(holiday, work * world.year_end, work)
    left = (_quarter(dates, 1) - dates).astype(np.int64) - 1
    return _Calendar(work, yearly * (1 + world.rush * np.exp(-left / world.rush_days)), yearly)


def _weekday(dates: Dates) -> Ints:
    return (dates.astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0


def _quarter(dates: Dates, ahead: int = 0) -> Dates:
    """First day of each date's calendar quarter, or of the quarter `ahead` of it."""
    months = (dates.astype("datetime64[M]").astype(np.int64) // 3 + ahead) * 3
    return months.astype("datetime64[M]").astype("datetime64[D]")


@dataclass(frozen=True)
class _Chain:
    """The hazards of one pipeline with S open stages and A ages in stage.

    Attributes
    ----------
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
    def of(cls, world: World, pipeline: PipelineWorld) -> _Chain:
        stages, ages = len(pipeline.stages), world.age_cap
        rates = np.array([[s.win, s.lose, s.advance, s.skip, s.back] for s in pipeline.stages])
        shift = np.array([0, 0, 1, 2, -1])
        target = np.arange(stages)[:, None] + shift
        if (rates < 0).any() or (rates[(target < 0) | (target >= stages)] > 0).any():
            raise ValueError(
                f"hazards of pipeline {pipeline.pipeline_id} are {rates.tolist()} (win, lose, "
                "advance, skip, back); allowed: not negative, and 0 where the move would leave "
                "the open stages; set those to 0"
            )
        base = rates.T[:, :, None] * _duration(world)[:, None, :]
        flow = np.zeros((stages, ages, 2 + 2 * stages))
        flow[:, :, 0], flow[:, :, 1] = base[_WIN], base[_LOSE]
        for move, column in ((_ADVANCE, 2), (_SKIP, 2), (_BACK, 2 + stages)):
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
        older[:, :, 0] = forward * factors[:, [_ADVANCE]] + back * factors[:, [_BACK]]
        return older.reshape(n, s * self.ages), moved[:, :2] * factors[:, :2]


def _duration(world: World) -> Floats:
    """Duration effects on the five hazards at ages 1..cap, shape (5, A)."""
    age = np.arange(1, world.age_cap + 1)
    late = np.maximum(age - world.patience_days, 0) / world.stall_days
    forward = np.minimum(age / world.ramp_days, 1) * np.maximum(np.exp(-late), world.stall_floor)
    lose = world.loss_first + world.loss_rise * -np.expm1(-age / world.loss_days)
    return np.stack([forward, lose, forward, forward, np.ones(len(age))])


def _day_factors(calendar: _Calendar, day: int, log_shock: float = 0.0) -> Floats:
    """Calendar and shock factors of the five hazards on one day, shape (5,)."""
    factors = np.full(5, calendar.work[day])
    factors[_WIN] *= calendar.win[day] * np.exp(log_shock)
    return factors


def _delays(median: float, sigma: float, cap: int) -> Floats:
    """Chance of a decision by working day 0..cap after creation: a lognormal rounded up."""
    logs = (np.log(np.arange(1, cap + 1)) - math.log(median)) / sigma
    cdf = np.array([0.0, *(0.5 * (1 + math.erf(x / math.sqrt(2))) for x in logs)])
    return np.asarray(cdf / cdf[-1])


# ------------------------------------------------------------------ the truth


@dataclass(frozen=True, eq=False)
class Truth:
    """What really drives the records: the oracle that a model is held against.

    Attributes
    ----------
    world : World
        The parameters.
    start : datetime64[D]
        The first day.
    owner_effect : dict of str to float
        Each rep's effect on the deals (log scale).
    deal_effect : ndarray of shape (deals,)
        Each deal's whole effect: owner, source, industry, amount and interest.
    log_shock : ndarray of shape (days,)
        The realised shared shocks on the log of the win hazard; zeros without shocks.
    lead_logit : ndarray of shape (leads,)
        Log-odds that the lead is ever qualified.
    """

    world: World
    start: np.datetime64
    owner_effect: dict[str, float]
    deal_effect: Floats
    log_shock: Floats
    lead_logit: Floats
    deal_pipeline: Ints = field(repr=False)
    deal_closed: Ints = field(repr=False)  # microseconds after start; beyond the end: open
    changes: tuple[Ints, Ints, Ints] = field(repr=False)  # deal, microseconds, stage entered
    amounts: tuple[Ints, Ints, Floats] = field(repr=False)  # deal, microseconds, value from then
    lead_created: Ints = field(repr=False)
    lead_decided: Ints = field(repr=False)

    def deal_incidence(
        self,
        deal_ids: Sequence[str] | Objects,
        as_of: np.datetime64,
        days: npt.ArrayLike,
        *,
        log_shock: npt.ArrayLike | None = None,
    ) -> Floats:
        """Exact P(won) and P(lost) within so many days, for deals open at `as_of`.

        Computed by moving the distribution over (stage, days in stage) forward day by day: no
        simulation. In a world with shocks the default answer holds their factor at its mean, one.

        Parameters
        ----------
        deal_ids : sequence of str, length n
        as_of : datetime64
            A midnight.
        days : array_like of shape (k,)
            Whole days after `as_of`.
        log_shock : array_like of shape (max(days),), optional
            Shocks on the log of the win hazard for each day after `as_of`; `Truth.log_shock`
            holds the realised ones.

        Returns
        -------
        ndarray of shape (n, k, 2)
            Won, lost.

        Raises
        ------
        ValueError
            If a deal is unknown or not open, `as_of` is not a midnight, or days are not whole.
        """
        rows = _positions(deal_ids, "D", len(self.deal_effect))
        day = _midnight(as_of, self.start)
        wanted = np.asarray(days)
        if wanted.ndim != 1 or not len(wanted) or (wanted < 0).any() or (wanted % 1 != 0).any():
            raise ValueError(f"days is {wanted}; allowed: a list of whole days, 0 or more")
        wanted = wanted.astype(np.int64)
        shocks = np.zeros(wanted.max()) if log_shock is None else np.asarray(log_shock, float)
        if len(shocks) < wanted.max():
            raise ValueError(f"log_shock has {len(shocks)} days; needed: {wanted.max()}")
        stage, entered = self._state(rows, day * _DAY)
        calendar = _calendar(self.world, self.start + day + np.arange(max(wanted.max(), 1)))
        out = np.zeros((len(rows), len(wanted), 2))
        for p, pipeline in enumerate(self.world.pipelines):
            chain = _Chain.of(self.world, pipeline)
            mine = np.flatnonzero(self.deal_pipeline[rows] == p)
            for part in np.array_split(mine, len(mine) // 2_000 + 1):
                age = np.minimum(day - entered[part] // _DAY, chain.ages)
                mass = np.zeros((len(part), chain.stages * chain.ages))
                mass[np.arange(len(part)), stage[part] * chain.ages + age - 1] = 1.0
                own = chain.factors(self.deal_effect[rows[part]])
                out[part] = _incidence(chain, mass, own, calendar, shocks, wanted)
        return out

    def expected_won(
        self, deal_ids: Sequence[str] | Objects, as_of: np.datetime64, days: npt.ArrayLike
    ) -> Floats:
        """Expected closed amount within so many days, EUR, shape (n, k).

        Edits keep the mean, and discounts and edits are independent of the outcome: so this is
        P(won) x current amount x (1 - mean discount), up to the rounding of amounts to 10 EUR.
        Parameters and errors as in `deal_incidence`.
        """
        won = self.deal_incidence(deal_ids, as_of, days)[:, :, 0]
        rows = _positions(deal_ids, "D", len(self.deal_effect))
        deal, since, value = self.amounts
        amount = value[_latest(deal, since, rows, _midnight(as_of, self.start) * _DAY)]
        kept = 1 - self.world.discount_share * self.world.discount_mean
        return np.asarray(won * amount[:, None] * kept)

    def lead_probability(
        self,
        lead_ids: Sequence[str] | Objects,
        days: float | None = None,
        *,
        as_of: np.datetime64 | None = None,
    ) -> Floats:
        """Exact P(qualified within `days`), for leads open at `as_of`.

        Parameters
        ----------
        lead_ids : sequence of str, length n
        days : float, optional
            Horizon; `World.lead_horizon_days` when missing, infinity for ever.
        as_of : datetime64, optional
            Any moment; each lead's creation when missing.

        Returns
        -------
        ndarray of shape (n,)

        Raises
        ------
        ValueError
            If a lead is unknown or not open at `as_of`, or `days` is negative.
        """
        rows = _positions(lead_ids, "L", len(self.lead_logit))
        created = self.lead_created[rows]
        now = created if as_of is None else np.full(len(rows), _micros(as_of, self.start))
        closed = (now < created) | (now >= self.lead_decided[rows])
        if closed.any():
            _refuse_closed(lead_ids, closed, as_of)
        horizon = self.world.lead_horizon_days if days is None else days
        if not horizon >= 0:
            raise ValueError(f"days is {days}; allowed: a number of days, 0 or more")
        p = _sigmoid(self.lead_logit[rows])
        w = self.world
        yes = _delays(w.qualify_median, w.qualify_sigma, w.delay_cap)
        no = _delays(w.disqualify_median, w.disqualify_sigma, w.delay_cap)
        then = now + int(min(horizon, 10_000) * _DAY)
        yes_now, no_now = (self._decided_by(created, now, cdf) for cdf in (yes, no))
        still = p * (1 - yes_now) + (1 - p) * (1 - no_now)
        return np.asarray(p * (self._decided_by(created, then, yes) - yes_now) / still)

    def _decided_by(self, created: Ints, moment: Ints, cdf: Floats) -> Floats:
        """Chance that a decision with these delays has fallen by `moment`, shape (n,)."""
        first, today = self.start + created // _DAY + 1, self.start + moment // _DAY
        full = np.maximum(np.busday_count(first, today), 0)
        cap = len(cdf) - 1
        before = cdf[np.minimum(full, cap)]
        on_today = np.where(
            np.is_busday(today) & (today >= first), cdf[np.minimum(full + 1, cap)] - before, 0.0
        )
        passed = np.clip((moment % _DAY - _OPENS) / (_CLOSES - _OPENS), 0, 1)
        return np.asarray(before + on_today * passed)

    def _state(self, rows: Ints, moment: int) -> tuple[Ints, Ints]:
        """Stage and moment of entry of open deals, each of shape (n,)."""
        deal, since, stage = self.changes
        at = _latest(deal, since, rows, moment)
        known = at >= 0
        known[known] = deal[at[known]] == rows[known]
        closed = ~known | (self.deal_closed[rows] < moment)
        if closed.any():
            ids = _ids("D", len(self.deal_effect))[rows]
            _refuse_closed(ids, closed, self.start + np.timedelta64(moment // _DAY, "D"))
        return stage[at], since[at]


def _incidence(
    chain: _Chain, mass: Floats, own: Floats, calendar: _Calendar, shocks: Floats, wanted: Ints
) -> Floats:
    out = np.zeros((len(mass), len(wanted), 2))
    closed = np.zeros((len(mass), 2))
    for k in range(int(wanted.max())):
        mass, today = chain.step(mass, own * _day_factors(calendar, k, shocks[k]))
        closed = closed + today
        out[:, wanted == k + 1] = closed[:, None, :]
    return out


def _latest(owner: Ints, since: Ints, rows: Ints, moment: int) -> Ints:
    """Position of the last entry of each row before `moment`; entries sorted by (owner, since)."""
    before = np.flatnonzero(since < moment)
    at = np.searchsorted(owner[before], rows, side="right") - 1
    return np.asarray(np.where(at >= 0, before[at] if len(before) else -1, -1))


def _positions(ids: Sequence[str] | Objects, letter: str, n: int) -> Ints:
    rows = np.array(
        [int(i[1:]) if i[:1] == letter and i[1:].isdigit() else 0 for i in ids], dtype=np.int64
    )
    bad = (rows < 1) | (rows > n)
    if bad.any():
        first = list(ids)[int(np.argmax(bad))]
        raise ValueError(f"id is {first!r}; allowed: {letter}000001 to {letter}{n:06d}")
    return rows - 1


def _micros(moment: np.datetime64, start: np.datetime64) -> int:
    return int((moment.astype("datetime64[us]") - start.astype("datetime64[us]")).astype(np.int64))


def _midnight(moment: np.datetime64, start: np.datetime64) -> int:
    micros = _micros(moment, start)
    if micros % _DAY:
        raise ValueError(
            f"as_of is {moment}; allowed: a midnight UTC, since hazards are daily; round it"
        )
    return micros // _DAY


def _refuse_closed(ids: Any, closed: Flags, as_of: np.datetime64 | None) -> None:
    raise ValueError(
        f"{list(ids)[int(np.argmax(closed))]} is not open at {as_of}; allowed: records created "
        f"before and not decided by then; drop the {int(closed.sum())} that are not open"
    )


# ------------------------------------------------------------------ drawing the records


@dataclass(frozen=True)
class Synthetic:
    """A synthetic CRM.

    Attributes
    ----------
    tables : dict of str to Table
        By entity name (lead, deal, stage, stage_change, field_change, activity, account, owner,
        target), as `History` takes them: what an export at `end` would show.
    facts : SourceFacts
        What is true of the whole source.
    truth : Truth
        What really drives it.
    """

    tables: dict[str, Table]
    facts: SourceFacts
    truth: Truth


class _Reps(NamedTuple):
    ids: Objects
    team: Objects
    win: Floats
    diligence: Floats
    bias: Floats


@dataclass(frozen=True, eq=False)
class _Leads:
    """Drawn leads, arrays of shape (n,), sorted by creation; times in microseconds."""

    created: Ints
    source: Ints
    industry: Ints
    title: Ints
    country: Ints
    phone: Flags
    free_mail: Flags
    employees: Floats
    owner: Ints
    logit: Floats
    decided: Ints
    qualified: Flags


@dataclass(frozen=True, eq=False)
class _Accounts:
    """Drawn accounts, arrays of shape (n,): customers first, then in order of creation."""

    created: Ints
    lead: Ints  # -1: none
    industry: Ints
    country: Ints
    employees: Floats


@dataclass(frozen=True, eq=False)
class _Deals:
    """Drawn deals at creation, arrays of shape (n,), sorted by creation."""

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
class _Paths:
    """What became of the deals: stage entries (sorted by deal, moment) and date changes."""

    stage: Ints  # code of the stage at the end
    closed: Ints  # beyond the end: open
    changes: tuple[Ints, Ints, Ints, Ints]  # deal, moment, from (-1: created), to
    dates: tuple[Ints, Ints, Ints, Ints]  # deal, moment, old day, new day
    expected: Ints  # expected close day at the end


class _Stages(NamedTuple):
    """All stages under one code: open ones, pipeline by pipeline; then won, lost of each."""

    ids: Objects
    names: Objects
    pipeline: Ints
    default: Floats
    first: Ints
    open_count: int
    believed_days: Floats
    activity: Floats


def _stages(world: World) -> _Stages:
    opened = [(p, s) for p, line in enumerate(world.pipelines) for s in line.stages]
    closed = [(p, kind) for p in range(len(world.pipelines)) for kind in ("won", "lost")]
    ids = [s.stage_id for _, s in opened]
    ids += [f"{world.pipelines[p].pipeline_id}-{kind}" for p, kind in closed]
    sizes = [len(line.stages) for line in world.pipelines]
    return _Stages(
        np.array(ids, dtype=object),
        np.array([s.name for _, s in opened] + [k.title() for _, k in closed], dtype=object),
        np.array([p for p, _ in (*opened, *closed)]),
        np.array([s.default_probability for _, s in opened] + [1.0, 0.0] * len(sizes)),
        np.cumsum([0, *sizes[:-1]]),
        len(opened),
        np.array([s.remaining_days for _, s in opened]),
        np.array([s.activity for _, s in opened]),
    )


def make_history(
    n_deals: int = 4000,
    seed: int = 0,
    *,
    end: np.datetime64 = _DEFAULT_END,
    days: int = 730,
    shocks: bool = True,
    world: World | None = None,
) -> Synthetic:
    """Play a synthetic CRM from its introduction, `days` before `end`, with an empty pipeline.

    Parameters
    ----------
    n_deals : int
        Expected number of deals; the count itself is random.
    seed : int
        The same seed and arguments give the same tables.
    end : datetime64
        Moment of the export, a midnight UTC.
    days : int
        Length of the history.
    shocks : bool
        False leaves the shared shocks on the win hazards out; all else keeps its law.
    world : World, optional
        Other parameters than the documented ones.

    Returns
    -------
    Synthetic

    Raises
    ------
    ValueError
        If `n_deals` or `days` is below 1, or `end` is not a midnight.
    """
    if n_deals < 1 or days < 1:
        raise ValueError(f"n_deals is {n_deals}, days is {days}; allowed: 1 or more; raise them")
    world = World() if world is None else world
    _midnight(end, np.datetime64("1970-01-01", "D"))
    start = end.astype("datetime64[D]") - days
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(9)]
    calendar = _calendar(world, start + np.arange(days))
    log_shock = _draw_shocks(world, start, days, streams[0]) if shocks else np.zeros(days)
    reps = _draw_reps(world, streams[1])
    weekly = streams[2].gamma(world.arrival_shape, 1 / world.arrival_shape, days // 7 + 2)
    rate = n_deals / days * _profile(world, start, days, calendar) * _by_week(weekly, start, days)
    leads = _draw_leads(world, start, rate, len(reps.ids), streams[3])
    deals, accounts = _draw_deals(world, start, rate, n_deals, leads, reps, streams[4])
    paths = _walk(world, start, deals, reps, calendar, log_shock, streams[5])
    work = _Work(calendar.work)
    edits = _draw_edits(world, work, deals, paths, streams[6])
    drawn = _Drawn(world, start, days, reps, leads, accounts, deals, paths, edits)
    tables = {
        **_record_tables(drawn, streams[7]),
        **_event_tables(drawn),
        "activity": _activity_table(drawn, work, streams[8]),
        "target": _target_table(drawn, n_deals, shocks),
    }
    return Synthetic(tables, _facts(end), _truth(drawn, log_shock))


def _draw_shocks(world: World, start: np.datetime64, days: int, rng: np.random.Generator) -> Floats:
    quarters = _quarter(start + np.arange(days)).astype(np.int64)
    _, quarter = np.unique(quarters, return_inverse=True)
    out = np.zeros(days)
    for sd, draws in (
        (world.shock_quarter_sd, rng.standard_normal(quarter.max() + 1)[quarter]),
        (world.shock_week_sd, _by_week(rng.standard_normal(days // 7 + 2), start, days)),
    ):
        out += sd * draws - sd**2 / 2  # the factor exp(.) has mean one
    return out


def _by_week(values: Floats, start: np.datetime64, days: int) -> Floats:
    """One value per calendar week (from Monday), spread over the days."""
    first = int(_weekday(np.array([start]))[0])
    return values[(np.arange(days) + first) // 7]


def _profile(world: World, start: np.datetime64, days: int, calendar: _Calendar) -> Floats:
    """Season and growth of arrivals with mean one over the days."""
    profile = calendar.arrivals * np.exp(world.growth * np.arange(days) / 365.25)
    return np.asarray(profile / profile.mean())


def _draw_reps(world: World, rng: np.random.Generator) -> _Reps:
    n = world.reps
    ids = np.array([f"rep-{i + 1:02d}" for i in range(n)], dtype=object)
    team = np.array([world.teams[i % len(world.teams)] for i in range(n)], dtype=object)
    win, diligence = (
        sd * rng.standard_normal(n) for sd in (world.rep_win_sd, world.rep_diligence_sd)
    )
    bias = world.rep_date_bias + world.rep_date_bias_sd * rng.standard_normal(n)
    return _Reps(ids, team, win, diligence, bias)


def _pick(levels: Sequence[Level] | Sequence[Product], n: int, rng: np.random.Generator) -> Ints:
    shares = np.array([level.share for level in levels])
    return np.asarray(rng.choice(len(levels), n, p=shares / shares.sum()))


def _arrivals(expected: Floats, opens: int, closes: int, rng: np.random.Generator) -> Ints:
    """Sorted moments of Poisson arrivals with so many expected a day, between two hours."""
    day = np.repeat(np.arange(len(expected)), rng.poisson(expected))
    return np.sort(day * _DAY + rng.integers(opens, closes, len(day)))


def _draw_employees(world: World, n: int, rng: np.random.Generator) -> Floats:
    size = world.size_median * np.exp(world.size_sigma * rng.standard_normal(n))
    size = np.maximum(np.round(size), 1.0)
    return np.where(rng.random(n) < world.unknown_size_share, np.nan, size)


def _log_size(employees: Floats) -> Floats:
    return np.nan_to_num(np.log(employees / 100.0))  # unknown: no effect


def _effects(levels: Sequence[Level], which: str) -> Floats:
    return np.array([getattr(level, which) for level in levels], dtype=np.float64)


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)))


def _draw_leads(
    world: World, start: np.datetime64, rate: Floats, reps: int, rng: np.random.Generator
) -> _Leads:
    weekend = _weekday(start + np.arange(len(rate))) >= 5
    share = np.where(weekend, world.lead_weekend, 1.0)
    expected = world.leads_per_deal * rate * share * 7 / (5 + 2 * world.lead_weekend)
    created = _arrivals(expected, 6 * _HOUR, 22 * _HOUR, rng)
    n = len(created)
    choice = {
        name: _pick(getattr(world, name), n, rng)
        for name in ("sources", "industries", "titles", "countries")
    }
    phone, free = rng.random(n) < world.phone_share, rng.random(n) < world.free_mail_share
    employees = _draw_employees(world, n, rng)
    logit = world.lead_intercept + world.lead_phone * phone + world.lead_free_mail * free
    logit = logit + world.lead_size * _log_size(employees)
    for name in ("sources", "industries", "titles"):
        logit = logit + _effects(getattr(world, name), "lead")[choice[name]]
    qualified = rng.random(n) < _sigmoid(logit)
    u = rng.random(n)
    yes, no = (
        np.searchsorted(_delays(median, sigma, world.delay_cap), u)
        for median, sigma in (
            (world.qualify_median, world.qualify_sigma),
            (world.disqualify_median, world.disqualify_sigma),
        )
    )
    delay = np.maximum(np.where(qualified, yes, no), 1)
    day = np.busday_offset(start + created // _DAY, delay, roll="backward") - start
    decided = day.astype(np.int64) * _DAY + rng.integers(_OPENS, _CLOSES, n)
    return _Leads(
        created, choice["sources"], choice["industries"], choice["titles"], choice["countries"],
        phone, free, employees, rng.integers(0, reps, n), logit, decided, qualified,
    )  # fmt: skip


def _draw_deals(
    world: World,
    start: np.datetime64,
    rate: Floats,
    n_deals: int,
    leads: _Leads,
    reps: _Reps,
    rng: np.random.Generator,
) -> tuple[_Deals, _Accounts]:
    weekday = np.where(_weekday(start + np.arange(len(rate))) < 5, 7 / 5, 0.0)
    won = np.flatnonzero(leads.qualified & (leads.decided < len(rate) * _DAY))
    direct, renewals = (
        _arrivals(rate * weekday * per, _OPENS, _CLOSES, rng)
        for per in (world.direct_per_deal, world.renewals_per_deal)
    )
    created = np.concatenate([leads.decided[won], direct, renewals])
    origin = np.repeat([0, 1, 2], [len(won), len(direct), len(renewals)])
    lead = np.concatenate([won, np.full(len(direct) + len(renewals), -1)])
    order = np.argsort(created, kind="stable")
    created, origin, lead = created[order], origin[order], lead[order]
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
    drift = world.amount_drift * created / _DAY / 365.25
    amount = np.maximum(np.round(median * np.exp(above + drift), -1), 10.0)
    interest = world.interest_sd * rng.standard_normal(n)
    effect = (
        reps.win[owner]
        + _effects(world.sources, "win")[source]
        + _effects(world.industries, "win")[accounts.industry[account]]
        + world.amount_on_win * above
        + interest
    )
    deals = _Deals(
        created, lead, pipeline, account, owner, source, product, existing, amount, interest, effect
    )
    return deals, accounts


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
    leads: _Leads,
    rng: np.random.Generator,
) -> tuple[Ints, _Accounts]:
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
    return account, _Accounts(when, from_lead, industry, country, employees)


def _walk(
    world: World,
    start: np.datetime64,
    deals: _Deals,
    reps: _Reps,
    calendar: _Calendar,
    log_shock: Floats,
    rng: np.random.Generator,
) -> _Paths:
    """Move all deals day by day; what happens on a day depends on the state before it only."""
    days = len(log_shock)
    walk = _Walk(world, start, deals, reps, days, rng)
    arrived = np.searchsorted(deals.created // _DAY, np.arange(days))  # created before each day
    opened = np.arange(0)
    for day in range(days):
        opened = np.concatenate([opened, np.arange(arrived[max(day - 1, 0)], arrived[day])])
        if calendar.work[day] and len(opened):
            walk.push_dates(day, opened)
            walk.move(day, opened, _day_factors(calendar, day, log_shock[day]))
            opened = opened[walk.stage[opened] < walk.stages.open_count]
    return _Paths(
        walk.stage, walk.closed, _by_deal(walk.moves), _by_deal(walk.dates), walk.expected
    )


class _Walk:
    """The state of all deals, and what has happened to them so far."""

    def __init__(
        self,
        world: World,
        start: np.datetime64,
        deals: _Deals,
        reps: _Reps,
        days: int,
        rng: np.random.Generator,
    ) -> None:
        self.world, self.deals, self.rng = world, deals, rng
        self.stages = _stages(world)
        chains = [_Chain.of(world, line) for line in world.pipelines]
        self.base = np.concatenate([c.base.reshape(5, c.stages, c.ages) for c in chains], axis=1)
        self.own = chains[0].factors(deals.effect)
        everyone = np.arange(len(deals.created))
        self.stage = _entry_stages(world, self.stages, deals, rng)
        self.entered = deals.created // _DAY
        self.closed = np.full(len(everyone), (days + 1) * _DAY)
        belief = reps.bias[deals.owner] - world.interest_on_date * deals.interest
        self.guess = _Guess(world, start, self.stages.believed_days, belief)
        self.expected = self.guess.draw(everyone, self.entered, self.stage, rng)
        created = (everyone, deals.created, np.full(len(everyone), -1), self.stage.copy())
        self.moves = [created]
        self.dates: list[tuple[Ints, Ints, Ints, Ints]] = []

    def push_dates(self, day: int, opened: Ints) -> None:
        """Move passed close dates, first thing in the morning: before anything can happen."""
        passed = self.expected[opened] < day
        late = opened[passed & (self.rng.random(len(opened)) < self.world.push_rate)]
        self._guess_anew(
            day, late, day * _DAY + self.rng.integers(_OPENS - _HOUR, _OPENS, len(late))
        )

    def move(self, day: int, opened: Ints, factors: Floats) -> None:
        """Let the day's hazards act on the open deals."""
        age = np.minimum(day - self.entered[opened], self.world.age_cap) - 1
        hazards = self.base[:, self.stage[opened], age].T * self.own[opened] * factors
        hazards = np.cumsum(hazards, axis=1)
        drawn = self.rng.standard_exponential(len(opened))
        hit = np.flatnonzero(drawn < hazards[:, -1])  # P = 1 - exp(-sum of the hazards)
        who, hazards = opened[hit], hazards[hit]
        kind = (hazards < self.rng.random(len(who))[:, None] * hazards[:, -1:]).sum(axis=1)
        shut = kind <= _LOSE
        before = self.stage[who]
        ended = self.stages.open_count + 2 * self.deals.pipeline[who] + (kind == _LOSE)
        after = np.where(shut, ended, before + np.array([0, 0, 1, 2, -1])[kind])
        moment = day * _DAY + self.rng.integers(_OPENS, _CLOSES, len(who))
        self.moves.append((who, moment, before, after))
        self.stage[who], self.entered[who] = after, day
        self.closed[who[shut]] = moment[shut]
        again = ~shut & (self.rng.random(len(who)) < self.world.reguess)
        self._guess_anew(day, who[again], moment[again])

    def _guess_anew(self, day: int, deal: Ints, moment: Ints) -> None:
        today = np.full(len(deal), day)
        new = self.guess.draw(deal, today, self.stage[deal], self.rng)
        self.dates.append((deal, moment, self.expected[deal], new))
        self.expected[deal] = new


def _by_deal(parts: list[tuple[Ints, Ints, Ints, Ints]]) -> tuple[Ints, Ints, Ints, Ints]:
    """Join event columns and sort them by deal, then moment; dates that stay are dropped."""
    a, b, c, d = (
        np.concatenate([p[i] for p in parts]) if parts else np.arange(0) for i in range(4)
    )
    order = np.lexsort((b, a))
    order = order[c[order] != d[order]]
    return a[order], b[order], c[order], d[order]


def _entry_stages(world: World, stages: _Stages, deals: _Deals, rng: np.random.Generator) -> Ints:
    out = np.zeros(len(deals.created), dtype=np.int64)
    for p, line in enumerate(world.pipelines):
        mine = deals.pipeline == p
        shares = np.array([s.entry for s in line.stages])
        out[mine] = stages.first[p] + rng.choice(
            len(shares), int(mine.sum()), p=shares / shares.sum()
        )
    return out


class _Guess(NamedTuple):
    """How reps guess close dates: from the stage and their own bias, never from the real date."""

    world: World
    start: np.datetime64
    believed_days: Floats
    belief: Floats  # log scale, by deal

    def draw(self, deal: Ints, today: Ints, stage: Ints, rng: np.random.Generator) -> Ints:
        """Guessed close day of each deal, in days after the start, shape (n,)."""
        noise = self.world.date_noise * rng.standard_normal(len(deal))
        remaining = self.believed_days[stage] * np.exp(self.belief[deal] + noise)
        day = today + np.maximum(np.round(remaining), 2).astype(np.int64)
        month = (self.start + day).astype("datetime64[M]") + 1
        last = (month.astype("datetime64[D]") - self.start).astype(np.int64) - 1
        return np.where(rng.random(len(deal)) < self.world.month_end, last, day)


class _Work:
    """Poisson events on the working calendar, inside intervals of time."""

    def __init__(self, work: Floats) -> None:
        self._cumulative = np.concatenate([[0.0], np.cumsum(work)])

    def events(
        self, since: Ints, until: Ints, rate: Floats, rng: np.random.Generator
    ) -> tuple[Ints, Ints]:
        """Events of each interval: its position and the moments, sorted by both.

        Drawn for whole days and cut to [since, until): what is seen of a day says nothing
        about when the interval ends.
        """
        total = self._cumulative
        last = len(total) - 1
        first, stop = total[since // _DAY], total[np.minimum(until // _DAY + 1, last)]
        which = np.repeat(np.arange(len(since)), rng.poisson(rate * (stop - first)))
        place = first[which] + rng.random(len(which)) * (stop - first)[which]
        day = np.clip(np.searchsorted(total, place, side="right") - 1, 0, last - 1)
        moment = day * _DAY + rng.integers(_OPENS, _CLOSES, len(which))
        inside = (moment > since[which]) & (moment < until[which])
        which, moment = which[inside], moment[inside]
        order = np.lexsort((moment, which))
        return which[order], moment[order]


class _Edits(NamedTuple):
    """Amount edits sorted by deal and moment, and the amounts at the end."""

    deal: Ints
    moment: Ints
    old: Floats
    new: Floats
    final: Floats


def _draw_edits(
    world: World, work: _Work, deals: _Deals, paths: _Paths, rng: np.random.Generator
) -> _Edits:
    n = len(deals.created)
    deal, moment = work.events(deals.created, paths.closed, np.full(n, world.edit_rate), rng)
    change = world.edit_sd * rng.standard_normal(len(deal)) - world.edit_sd**2 / 2
    total = np.cumsum(change)
    first = np.searchsorted(deal, deal)  # the first edit of the same deal
    since_created = total - (total[first] - change[first])
    new = np.maximum(np.round(deals.amount[deal] * np.exp(since_created), -1), 10.0)
    old = np.where(first == np.arange(len(deal)), deals.amount[deal], np.roll(new, 1))
    final = deals.amount.copy()
    final[deal] = new  # the last assignment of a deal stays
    kept = new != old
    return _Edits(deal[kept], moment[kept], old[kept], new[kept], final)


# ------------------------------------------------------------------ the tables


@dataclass(frozen=True, eq=False)
class _Drawn:
    """All that was drawn, on its way into tables."""

    world: World
    start: np.datetime64
    days: int
    reps: _Reps
    leads: _Leads
    accounts: _Accounts
    deals: _Deals
    paths: _Paths
    edits: _Edits

    def times(self, micros: Ints) -> Dates:
        """Moments as datetime64[us]; NaT beyond the end."""
        times = self.start.astype("datetime64[us]") + micros
        return np.where(micros < self.days * _DAY, times, np.datetime64("NaT", "us"))

    def table(self, name: str, columns: dict[str, Any], recorded: Dates | None = None) -> Table:
        """A table with its bookkeeping; recorded when the CRM was introduced if nothing else."""
        entity = ENTITIES[name]
        n = len(columns[entity.key[0]])
        if recorded is None:
            recorded = np.full(n, self.start.astype("datetime64[us]"))
        shared = {
            "recorded_at": recorded,
            "recorded_assumed": np.zeros(n),
            "sequence": np.zeros(n),
            "seen_at": np.full(n, self.start.astype("datetime64[us]") + self.days * _DAY),
            "source": np.full(n, _SOURCE, dtype=object),
        }
        return Table.from_columns(entity, {**shared, **columns})


def _ids(letter: str, n: int) -> Objects:
    return np.char.mod(letter + "%06d", np.arange(1, n + 1)).astype(object)


def _names(levels: Sequence[Level]) -> Objects:
    return np.array([level.name or None for level in levels], dtype=object)


def _mask(values: Objects | npt.NDArray[Any], known: Flags) -> Objects:
    out = np.full(len(known), None, dtype=object)
    out[known] = values[known]
    return out


def _record_tables(drawn: _Drawn, rng: np.random.Generator) -> dict[str, Table]:
    return {
        "lead": _lead_table(drawn, rng),
        "deal": _deal_table(drawn, rng),
        "account": _account_table(drawn),
        "owner": _owner_table(drawn),
        "stage": _stage_table(drawn),
    }


def _lead_table(drawn: _Drawn, rng: np.random.Generator) -> Table:
    leads, world = drawn.leads, drawn.world
    n = len(leads.created)
    decided = leads.decided < drawn.days * _DAY
    qualified, refused = decided & leads.qualified, decided & ~leads.qualified
    deal = np.full(n, -1)
    from_lead = np.flatnonzero(drawn.deals.lead >= 0)
    deal[drawn.deals.lead[from_lead]] = from_lead
    account = np.full(n, -1)
    account[drawn.deals.lead[from_lead]] = drawn.deals.account[from_lead]
    reasons = np.array(["no budget", "no need", "not reached", "wrong contact"], dtype=object)
    outcome = np.where(qualified, "qualified", np.where(refused, "disqualified", "open"))
    free = np.array(["gmail.com", "outlook.com", "gmx.de"], dtype=object)
    columns = {
        "lead_id": _ids("L", n),
        "created_at": drawn.times(leads.created),
        "status": np.where(decided, np.char.title(outcome), "Open"),
        "outcome": outcome,
        "qualified_at": drawn.times(np.where(qualified, leads.decided, drawn.days * _DAY)),
        "disqualified_at": drawn.times(np.where(refused, leads.decided, drawn.days * _DAY)),
        "disqualification_reason": _mask(rng.choice(reasons, n), refused),
        "lead_source": _names(world.sources)[leads.source],
        "company_name": _ids("Company ", n),
        "industry": _names(world.industries)[leads.industry],
        "employee_count": leads.employees,
        "country": _names(world.countries)[leads.country],
        "email_domain": np.where(
            leads.free_mail, rng.choice(free, n), _ids("company-", n) + ".example"
        ),
        "has_phone": leads.phone,
        "title": _names(world.titles)[leads.title],
        "owner_id": drawn.reps.ids[leads.owner],
        "account_id": _mask(np.char.mod("A%06d", account + 1), deal >= 0),
        "converted_deal_id": _mask(np.char.mod("D%06d", deal + 1), deal >= 0),
    }
    return drawn.table("lead", columns, drawn.times(leads.created))


def _deal_table(drawn: _Drawn, rng: np.random.Generator) -> Table:
    deals, world, stages = drawn.deals, drawn.world, _stages(drawn.world)
    n, stage = len(deals.created), drawn.paths.stage
    closed = stage >= stages.open_count
    won = closed & ((stage - stages.open_count) % 2 == 0)
    weight = 10.0
    beta = rng.beta(weight * world.discount_mean, weight * (1 - world.discount_mean), n)
    discount = np.where(rng.random(n) < world.discount_share, beta, 0.0)
    probability = stages.default[stage]
    category = np.array(["pipeline", "best case", "commit"], dtype=object)
    reasons = np.array(["price", "competitor", "no decision", "features"], dtype=object)
    kind = np.where(deals.existing, "existing business", "new business")
    columns = {
        "deal_id": _ids("D", n),
        "name": _ids("Deal ", n),
        "account_id": _ids("A", len(drawn.accounts.created))[deals.account],
        "originating_lead_id": _mask(np.char.mod("L%06d", deals.lead + 1), deals.lead >= 0),
        "owner_id": drawn.reps.ids[deals.owner],
        "team_id": drawn.reps.team[deals.owner],
        "pipeline_id": _pipeline_ids(world)[deals.pipeline],
        "stage_id": stages.ids[stage],
        "outcome": np.where(won, "won", np.where(closed, "lost", "open")),
        "amount": drawn.edits.final,
        "closed_amount": np.where(won, np.round(drawn.edits.final * (1 - discount), 2), np.nan),
        "currency": np.full(n, "EUR", dtype=object),
        "created_at": drawn.times(deals.created),
        "expected_close_date": drawn.start + drawn.paths.expected,
        "closed_at": drawn.times(drawn.paths.closed),
        "probability": probability,
        "forecast_category": np.where(
            closed, "closed", category[np.digitize(probability, [0.3, 0.7])]
        ),
        "lead_source": _names(world.sources)[deals.source],
        "deal_type": np.where(deals.pipeline == 1, "renewal", kind),
        "product_family": np.array([p.name for p in world.products], dtype=object)[deals.product],
        "loss_reason": _mask(rng.choice(reasons, n), closed & ~won),
    }
    return drawn.table("deal", columns, drawn.times(deals.created))


def _pipeline_ids(world: World) -> Objects:
    return np.array([line.pipeline_id for line in world.pipelines], dtype=object)


def _account_table(drawn: _Drawn) -> Table:
    accounts, world = drawn.accounts, drawn.world
    created = drawn.times(accounts.created)
    columns = {
        "account_id": _ids("A", len(created)),
        "name": np.where(
            accounts.lead >= 0,
            np.char.mod("Company %06d", accounts.lead + 1),
            np.char.mod("Customer %06d", np.arange(1, len(created) + 1)),
        ),
        "industry": _names(world.industries)[accounts.industry],
        "employee_count": accounts.employees,
        "country": _names(world.countries)[accounts.country],
        "created_at": created,
    }
    return drawn.table("account", columns, created)


def _owner_table(drawn: _Drawn) -> Table:
    reps = drawn.reps
    columns = {
        "owner_id": reps.ids,
        "name": np.array([f"Rep {i + 1}" for i in range(len(reps.ids))], dtype=object),
        "team_id": reps.team,
        "is_active": np.ones(len(reps.ids)),
    }
    return drawn.table("owner", columns)


def _stage_table(drawn: _Drawn) -> Table:
    stages = _stages(drawn.world)
    position = np.arange(len(stages.ids), dtype=np.float64)
    opened = position < stages.open_count
    closed_kind = np.where((position - stages.open_count) % 2 == 0, "won", "lost")
    columns = {
        "pipeline_id": _pipeline_ids(drawn.world)[stages.pipeline],
        "stage_id": stages.ids,
        "name": stages.names,
        "sort_order": np.where(opened, position - stages.first[stages.pipeline], position) + 1,
        "kind": np.where(opened, "open", closed_kind),
        "default_probability": stages.default,
        "rotten_after_days": np.where(opened, 30.0, np.nan),
    }
    return drawn.table("stage", columns)


def _event_tables(drawn: _Drawn) -> dict[str, Table]:
    """Stage and field changes, each sorted by moment."""
    stages, ids = _stages(drawn.world), _ids("D", len(drawn.deals.created))
    reps = drawn.reps.ids[drawn.deals.owner]
    deal, moment, before, after = drawn.paths.changes
    when = drawn.times(moment)
    moves = {
        "entity": np.full(len(deal), "deal", dtype=object),
        "entity_id": ids[deal],
        "changed_at": when,
        "from_stage_id": _mask(stages.ids[before], before >= 0),
        "to_stage_id": stages.ids[after],
        "changed_by_id": reps[deal],
        "provenance": np.full(len(deal), "native", dtype=object),
    }
    dated, at, old, new = drawn.paths.dates
    edits = drawn.edits
    who = np.concatenate([edits.deal, dated])
    times = drawn.times(np.concatenate([edits.moment, at]))
    fields = {
        "entity": np.full(len(who), "deal", dtype=object),
        "entity_id": ids[who],
        "changed_at": times,
        "field": np.repeat(
            np.array(["amount", "expected_close_date"], dtype=object), [len(edits.deal), len(dated)]
        ),
        "old_value": np.concatenate([_numbers(edits.old), _days(drawn.start + old)]),
        "new_value": np.concatenate([_numbers(edits.new), _days(drawn.start + new)]),
        "provenance": np.full(len(who), "native", dtype=object),
        "sequence": np.ones(len(who)),  # after the stage change that made the rep think again
    }
    return {
        "stage_change": _sorted(drawn.table("stage_change", moves, when)),
        "field_change": _sorted(drawn.table("field_change", fields, times)),
    }


def _sorted(table: Table) -> Table:
    return table.take(np.argsort(table[table.entity.happened], kind="stable"))


def _numbers(values: Floats) -> Objects:
    return values.astype(np.int64).astype(str).astype(object)


def _days(dates: Dates) -> Objects:
    return np.datetime_as_string(dates).astype(object)


def _deal_activity(drawn: _Drawn, work: _Work, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Deal and moment of each activity: a rate that belongs to the stage the deal is in."""
    world, deals, stages = drawn.world, drawn.deals, _stages(drawn.world)
    deal, since, _, stage = drawn.paths.changes
    until = np.append(since[1:], 0)[: len(since)]  # each stage lasts until the deal's next entry
    spells = np.flatnonzero(stage < stages.open_count)
    final = np.append(deal[1:] != deal[:-1], True)[spells]
    deal, since, stage = deal[spells], since[spells], stage[spells]
    until = np.where(final, drawn.days * _DAY, until[spells])
    rate = stages.activity[stage] * np.exp(
        drawn.reps.diligence[deals.owner[deal]] + world.interest_on_activity * deals.interest[deal]
    )
    spell, moment = work.events(since, until, rate, rng)
    return deal[spell], moment


def _lead_activity(drawn: _Drawn, work: _Work, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Lead and moment of each activity: good leads are worked a little more."""
    world, leads = drawn.world, drawn.leads
    insight = world.lead_activity_insight * (leads.logit - world.lead_intercept)
    rate = world.lead_activity * np.exp(drawn.reps.diligence[leads.owner] + insight)
    return work.events(leads.created, leads.decided, rate, rng)


def _activity_table(drawn: _Drawn, work: _Work, rng: np.random.Generator) -> Table:
    """Activities of deals and leads, sorted by moment."""
    deals, leads = drawn.deals, drawn.leads
    on_deal, moment = _deal_activity(drawn, work, rng)
    on_lead, lead_moment = _lead_activity(drawn, work, rng)
    moments = np.concatenate([moment, lead_moment])
    order = np.argsort(moments, kind="stable")
    n = len(order)
    deal = np.concatenate([on_deal, np.full(len(on_lead), -1)])[order]
    lead = np.concatenate([np.full(len(on_deal), -1), on_lead])[order]
    owner = np.concatenate([deals.owner[on_deal], leads.owner[on_lead]])[order]
    interest = np.concatenate([deals.interest[on_deal], np.zeros(len(on_lead))])[order]
    account = np.concatenate([deals.account[on_deal], np.zeros(len(on_lead), dtype=int)])[order]
    inbound = rng.random(n) < _sigmoid(drawn.world.interest_on_inbound * interest - 0.7)
    kinds = np.array(["email", "call", "meeting", "task"], dtype=object)
    kind = rng.choice(4, n, p=[0.45, 0.30, 0.15, 0.10])
    kind[inbound & (kind == 3)] = 0  # nobody else writes into one's own task list
    minutes = np.array([np.nan, 9.0, 45.0, np.nan])[kind] * rng.lognormal(0, 0.5, n)
    columns = {
        "activity_id": _ids("X", n),
        "type": kinds[kind],
        "direction": np.where(inbound, "inbound", "outbound"),
        "occurred_at": drawn.times(moments[order]),
        "is_done": np.ones(n),
        "duration_minutes": np.round(minutes) + 1,
        "lead_id": _mask(np.char.mod("L%06d", lead + 1), lead >= 0),
        "deal_id": _mask(np.char.mod("D%06d", deal + 1), deal >= 0),
        "account_id": _mask(np.char.mod("A%06d", account + 1), deal >= 0),
        "owner_id": drawn.reps.ids[owner],
    }
    return drawn.table("activity", columns, columns["occurred_at"])


# ------------------------------------------------------------------ targets


def _target_table(drawn: _Drawn, n_deals: int, shocks: bool) -> Table:
    """Quarterly targets near the median of what each group could expect when they were set."""
    world, reps = drawn.world, drawn.reps
    end = drawn.start + drawn.days
    stop = _quarter(np.array([end]), 2)[0]
    total = int((stop - drawn.start).astype(np.int64))
    revenue, spread = _plan(drawn, n_deals, total)
    period = _quarter(drawn.start + np.arange(total))
    groups = [("all", "all", np.ones(len(reps.ids), dtype=bool))]
    groups += [("team", team, reps.team == team) for team in world.teams]
    groups += [("owner", rep, reps.ids == rep) for rep in reps.ids]
    shared = 1 / world.arrival_shape / 13  # arrivals' weekly factor, over a quarter of 13 weeks
    if shocks:
        shared += world.shock_quarter_sd**2 + world.shock_week_sd**2 / 13
    rows: list[tuple[str, str, np.datetime64, np.datetime64, float]] = []
    for first in np.unique(period):
        days = period == first
        for scope, scope_id, who in groups:
            mean = revenue[who][:, days].sum()
            # A lognormal with the mean and variance of a compound Poisson sum.
            variance = spread[who][:, days].sum() + shared * mean**2
            median = mean / math.sqrt(1 + variance / mean**2) if mean > 0 else 0.0
            stop = _quarter(np.array([first]), 1)[0]
            rows.append((scope, scope_id, first, stop, max(round(median, -2), 100.0)))
    scope_, scope_id_, first_, stop_, amount = zip(*rows, strict=True)
    starts = np.array(first_, dtype="datetime64[D]")
    columns = {
        "scope": scope_,
        "scope_id": scope_id_,
        "period_start": starts,
        "period_end": np.array(stop_, dtype="datetime64[D]"),
        "amount": amount,
        "currency": np.full(len(rows), "EUR", dtype=object),
        "kind": np.full(len(rows), "revenue", dtype=object),
    }
    return drawn.table("target", columns, np.clip(starts - 14, drawn.start, end - 1))


def _plan(drawn: _Drawn, n_deals: int, total: int) -> tuple[Floats, Floats]:
    """Expected won revenue and its Poisson variance, by rep and day, shapes (reps, total).

    The same hazards, with a flow of deals of average effect: what a planner could know before
    the first deal. No drawn deal or lead enters.
    """
    world, reps = drawn.world, drawn.reps
    calendar = _calendar(world, drawn.start + np.arange(total))
    weekday = np.where(_weekday(drawn.start + np.arange(total)) < 5, 7 / 5, 0.0)
    profile = calendar.arrivals * np.exp(world.growth * np.arange(total) / 365.25)
    inflow = n_deals / drawn.days * profile / profile[: drawn.days].mean() * weekday
    inflow = inflow / len(reps.ids)
    delay = round(world.qualify_median * 7 / 5)
    from_leads = world.leads_per_deal * _mean_qualification(world)
    arriving = np.concatenate([np.zeros(delay), inflow[: total - delay]]) * from_leads
    flows = (inflow * world.direct_per_deal + arriving, inflow * world.renewals_per_deal)
    mean, square = np.zeros((len(reps.ids), total)), np.zeros((len(reps.ids), total))
    average = sum(
        float(np.average(_effects(v, "win"), weights=_effects(v, "share")))
        for v in (world.sources, world.industries)
    )
    for p, pipeline in enumerate(world.pipelines):
        chain = _Chain.of(world, pipeline)
        own = chain.factors(reps.win + average)
        first, second = _amount_moments(world, pipeline.pipeline_id)
        drift = np.exp(world.amount_drift * np.arange(total) / 365.25)
        entry = np.array([s.entry for s in pipeline.stages])
        mass = np.zeros((len(reps.ids), chain.stages * chain.ages))
        for day in range(total):
            mass, closed = chain.step(mass, own * _day_factors(calendar, day))
            mass[:, :: chain.ages] += flows[p][day] * entry / entry.sum()
            mean[:, day] += closed[:, 0] * first * drift[day]
            square[:, day] += closed[:, 0] * second * drift[day] ** 2
    return mean, square


def _amount_moments(world: World, pipeline_id: str) -> tuple[float, float]:
    """Mean and mean square of a won deal's closed amount at the start, as a planner sees it."""
    mine = [p for p in world.products if p.pipeline_id == pipeline_id]
    share = np.array([p.share for p in mine]) / sum(p.share for p in mine)
    median = np.array([p.median for p in mine])
    variance = np.array([p.sigma for p in mine]) ** 2
    variance = variance + (world.size_on_amount * world.size_sigma) ** 2
    kept = 1 - world.discount_share * world.discount_mean
    first = float(share @ (median * np.exp(variance / 2))) * kept
    second = float(share @ (median**2 * np.exp(2 * variance))) * kept**2
    return first, second


def _mean_qualification(world: World) -> float:
    """Share of leads that qualify in the long run: the mean over a fixed sample of the world."""
    rng = np.random.default_rng(0)
    n = 4_000
    logit = world.lead_intercept + world.lead_phone * (rng.random(n) < world.phone_share)
    logit = logit + world.lead_free_mail * (rng.random(n) < world.free_mail_share)
    logit = logit + world.lead_size * _log_size(_draw_employees(world, n, rng))
    for levels in (world.sources, world.industries, world.titles):
        logit = logit + _effects(levels, "lead")[_pick(levels, n, rng)]
    return float(_sigmoid(logit).mean())


# ------------------------------------------------------------------ facts and truth


def _facts(end: np.datetime64) -> SourceFacts:
    firmographic = ("industry", "employee_count", "country")
    return SourceFacts(
        name=_SOURCE,
        currency="EUR",
        static={
            "lead": (
                "lead_source", "company_name", *firmographic, "email_domain", "has_phone", "title",
                "owner_id",
            ),
            "deal": (
                "name", "account_id", "originating_lead_id", "owner_id", "team_id", "pipeline_id",
                "currency", "lead_source", "deal_type", "product_family",
            ),
            "account": ("name", *firmographic),
        },
        observed_until=end.astype("datetime64[us]"),
    )  # fmt: skip


def _truth(drawn: _Drawn, log_shock: Floats) -> Truth:
    deals, paths, edits = drawn.deals, drawn.paths, drawn.edits
    stages = _stages(drawn.world)
    deal, moment, _, to = paths.changes
    stage_in_pipeline = np.where(
        to < stages.open_count, to - stages.first[deals.pipeline[deal]], -1
    )
    who = np.concatenate([np.arange(len(deals.created)), edits.deal])
    since = np.concatenate([deals.created, edits.moment])
    value = np.concatenate([deals.amount, edits.new])
    order = np.lexsort((since, who))
    return Truth(
        world=drawn.world,
        start=drawn.start,
        owner_effect=dict(zip(drawn.reps.ids, drawn.reps.win.tolist(), strict=True)),
        deal_effect=deals.effect,
        log_shock=log_shock,
        lead_logit=drawn.leads.logit,
        deal_pipeline=deals.pipeline,
        deal_closed=paths.closed,
        changes=(deal, moment, stage_in_pipeline),
        amounts=(who[order], since[order], value[order]),
        lead_created=drawn.leads.created,
        lead_decided=drawn.leads.decided,
    )
