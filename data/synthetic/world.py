"""The world, number by number: what everything in the synthetic CRM is drawn from."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Level", "PipelineWorld", "Product", "StageWorld", "World"]


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

    @property
    def kept(self) -> float:
        """Mean share of the last amount at which a won deal closes, after discounts."""
        return 1 - self.discount_share * self.discount_mean
