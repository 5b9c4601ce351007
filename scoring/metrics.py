"""The sales KPIs: one function each, as of a moment, from the books alone.

`docs/kpis.md` defines them. A KPI that the records cannot tell says why; it is never 0 instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.chronicle import known_times
from data.columns import codes_in, dictionary, micros, places
from data.history import OPEN, WON, Snapshot
from data.timelines import DAY, NEVER
from models.arrivals import aalen_johansen
from scoring.accuracy import accuracies
from scoring.attention import Attention, Flagged, attention, flagged
from scoring.books import Books, Closed, Window, crm_chances
from scoring.grouping import group_of
from scoring.kpi import Kpi, Part, money, untold
from scoring.pacing import Pace, pacing
from scoring.targets import target_of

__all__ = [
    "Metrics",
    "at_risk_deals",
    "churn",
    "closed_value",
    "deal_size",
    "kpis",
    "lead_conversion",
    "lead_response_time",
    "mean_sales_cycle",
    "median_deal_size",
    "median_sales_cycle",
    "meetings",
    "metrics",
    "open_pipeline",
    "pipeline_coverage",
    "pipeline_coverage_expected",
    "pipeline_velocity",
    "reps_at_target",
    "retention",
    "slipped_deals",
    "stalled_deals",
    "target_attainment",
    "total",
    "weighted",
    "weighted_pipeline",
    "weighted_pipeline_crm",
    "win_rate",
    "win_rate_by_value",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_HOUR = DAY / 24
_NO_MODEL = "there is no model that may answer for this moment; train one"


# --- the two sums of the sales manuals


def weighted(amounts: FloatArray, probabilities: FloatArray) -> float:
    """Sum of amount x probability; a missing amount counts as nothing.

    Ten open deals of 100,000 at 60 %:

    >>> weighted(np.full(10, 100_000.0), np.full(10, 0.60))
    600000.0
    """
    return math.fsum(np.nan_to_num(amounts * probabilities).tolist())


def total(amounts: FloatArray) -> float:
    """Sum of amounts; a missing one counts as nothing.

    Five deals won at 100,000:

    >>> total(np.full(5, 100_000.0))
    500000.0
    """
    return math.fsum(np.nan_to_num(amounts).tolist())


# --- of deals that closed in a window


def win_rate(books: Books, window: Window) -> Kpi:
    """Deals won, of those won or lost in the window."""
    here = window.holds(books.closed.at)
    n = int(here.sum())
    if not n:
        return untold("win_rate", window.name, "share", _none_closed(window))
    return Kpi("win_rate", window.name, float(books.closed.won[here].mean()), "share", n)


def win_rate_by_value(books: Books, window: Window) -> Kpi:
    """Amount won, of the amounts won or lost in the window."""
    name, closed = "win_rate_by_value", books.closed
    here = window.holds(closed.at) & closed.priced
    value = int(closed.cents[here].sum())
    if not here.any():
        return untold(name, window.name, "share", f"{_none_closed(window)} with an amount")
    if value <= 0:
        return untold(name, window.name, "share", "the amounts of closed deals come to nothing")
    won = int(closed.cents[here & closed.won].sum())
    return Kpi(name, window.name, won / value, "share", int(here.sum()))


def mean_sales_cycle(books: Books, window: Window) -> Kpi:
    """Mean days from creation to the win."""
    return _of_wins("mean_sales_cycle", books, window, "days", _cycles, np.mean)


def median_sales_cycle(books: Books, window: Window) -> Kpi:
    """Median days from creation to the win."""
    return _of_wins("median_sales_cycle", books, window, "days", _cycles, np.median)


def deal_size(books: Books, window: Window) -> Kpi:
    """Mean amount of a won deal."""
    return _of_wins("deal_size", books, window, "money", _sizes, np.mean)


def median_deal_size(books: Books, window: Window) -> Kpi:
    """Median amount of a won deal."""
    return _of_wins("median_deal_size", books, window, "money", _sizes, np.median)


def closed_value(books: Books, window: Window) -> Kpi:
    """Amount won in the window, less what reopenings took back in it."""
    won = window.holds(books.closed.at) & books.closed.won
    if not len(books.closed.at):
        reason = "no deal has ever closed"
        return untold("closed_value", window.name, "money", reason)
    _, at, _, cents = books.revenue
    value = total(money(cents[window.holds(at)]))
    unpriced = int((won & ~books.closed.priced).sum())
    reason = f"{unpriced} of the won deals carry no amount" if unpriced else ""
    return Kpi("closed_value", window.name, value, "money", int(won.sum()), reason)


def _of_wins(
    name: str,
    books: Books,
    window: Window,
    unit: str,
    read: Callable[[Closed, BoolArray], FloatArray],
    summary: Callable[[FloatArray], np.floating],
) -> Kpi:
    """A summary of some value of the deals won in a window."""
    values = read(books.closed, window.holds(books.closed.at) & books.closed.won)
    if not len(values):
        what = "with an amount" if unit == "money" else "with a creation date"
        return untold(name, window.name, unit, f"no deal {what} was won in {window.name}")
    return Kpi(name, window.name, float(summary(values)), unit, len(values))


def _cycles(closed: Closed, here: BoolArray) -> FloatArray:
    created = closed.deals.ledger.created_at[closed.deals.rows]
    dated = here & (created != NEVER)
    return np.asarray((closed.at[dated] - created[dated]) / DAY)


def _sizes(closed: Closed, here: BoolArray) -> FloatArray:
    return money(closed.cents[here & closed.priced])


def _none_closed(window: Window) -> str:
    return f"no deal was won or lost in {window.name}"


# --- of the pipeline as it stands


def open_pipeline(books: Books) -> Kpi:
    """Amount of the open deals."""
    n = len(books.open)
    unpriced = int(np.isnan(books.open.amount).sum())
    if n and unpriced == n:
        return untold("open_pipeline", "now", "money", f"none of {n} open deals carries an amount")
    reason = f"{unpriced} of them carry no amount" if unpriced else ""
    return Kpi("open_pipeline", "now", total(books.open.amount), "money", n, reason)


def weighted_pipeline(books: Books) -> Kpi:
    """Sum of amount x the learnt win probability of the deal's stage."""
    if books.bundle is None:
        return untold("weighted_pipeline", "now", "money", _NO_MODEL)
    rates = books.bundle.stage_rates
    levels = books.open.ledger.stage_levels
    by_level = [rates.get(str(level), {}).get("rate", np.nan) for level in levels]
    return _weighted("weighted_pipeline", books, np.array([*by_level, np.nan])[books.open.stage])


def weighted_pipeline_crm(books: Books) -> Kpi:
    """Sum of amount x the CRM's own probability: the deal's, else the stage's."""
    return _weighted("weighted_pipeline_crm", books, crm_chances(books.open))


def _weighted(name: str, books: Books, chance: FloatArray) -> Kpi:
    amount = books.open.amount
    known = ~np.isnan(chance) & ~np.isnan(amount)
    n = len(books.open)
    if n and not known.any():
        what = "a probability" if np.isnan(chance).all() else "an amount and a probability"
        return untold(name, "now", "money", f"none of {n} open deals has {what}")
    left_out = n - int(known.sum())
    reason = f"{left_out} more lack an amount or a probability" if left_out else ""
    value = weighted(amount[known], chance[known])
    return Kpi(name, "now", value, "money", int(known.sum()), reason)


def pipeline_velocity(books: Books, window: Window) -> Kpi:
    """Open deals x win rate x deal size / cycle length: money a day."""
    name, unit = "pipeline_velocity", "money a day"
    rate, size = win_rate(books, window), deal_size(books, window)
    cycle = mean_sales_cycle(books, window)
    for part in (rate, size, cycle):
        if part.value is None:
            return untold(name, window.name, unit, f"{part.name} is not known: {part.reason}")
    assert rate.value is not None and size.value is not None and cycle.value is not None
    if cycle.value <= 0:
        return untold(name, window.name, unit, "deals are won at the moment they are created")
    value = len(books.open) * rate.value * size.value / cycle.value
    return Kpi(name, window.name, value, unit, len(books.open))


def slipped_deals(books: Books, found: Attention) -> Kpi:
    """Amount of open deals whose expected close date passed, or left the period."""
    if len(books.open) and np.isnan(books.expected).all():
        return untold("slipped_deals", "now", "money", "no open deal has an expected close date")
    return _flags(
        "slipped_deals",
        books,
        found.slipped,
        {"close date passed": found.overdue, f"pushed out of {books.period.name}": found.pushed},
    )


def stalled_deals(books: Books, found: Attention) -> Kpi:
    """Amount of open deals that linger longer than won ones do."""
    no_limit = np.isnan(found.limit_days) & np.isnan(found.limit_idle)
    if len(books.open) and no_limit.all():
        reason = "too few won deals to learn from, and no stage declares rotten_after_days"
        return untold("stalled_deals", "now", "money", reason)
    return _flags(
        "stalled_deals",
        books,
        found.stalled,
        {"long in stage": found.long, "without activity": found.idle},
    )


def at_risk_deals(books: Books, found: Attention) -> Kpi:
    """Amount of deals expected by the end of the period that will hardly be won in it."""
    if books.period.end <= books.as_of:
        return untold("at_risk_deals", "now", "money", f"{books.period.name} is over")
    if len(books.open) and np.isnan(books.expected).all():
        return untold("at_risk_deals", "now", "money", "no open deal has an expected close date")
    counted = int(found.counted_on.sum())
    how = "slipped or stalled" if books.bundle is None else "by the model's chance"
    reason = f"of {counted} deals expected by the end of {books.period.name}; {how}"
    return _flags("at_risk_deals", books, found.at_risk, {}, reason)


def _flags(
    name: str, books: Books, which: BoolArray, parts: dict[str, BoolArray], reason: str = ""
) -> Kpi:
    def value(mask: BoolArray) -> float:
        return money(int(books.open_cents[mask].sum()))

    told = tuple(Part(label, value(mask), int(mask.sum())) for label, mask in parts.items())
    return Kpi(name, "now", value(which), "money", int(which.sum()), reason, told)


# --- against the target


def target_attainment(books: Books) -> Kpi:
    """Won to date / target of exactly this period."""
    target = _target(books)
    if isinstance(target, str):
        return untold("target_attainment", books.period.name, "share", target)
    won = money(books.won_in(books.to_date))
    n = int((books.to_date.holds(books.closed.at) & books.closed.won).sum())
    return Kpi(
        "target_attainment", books.period.name, won / target, "share", n,
        parts=(Part("won", won, 1), Part("target", target, 1)),
    )  # fmt: skip


def pipeline_coverage(books: Books) -> Kpi:
    """Open pipeline / what is left of the target."""
    return _coverage("pipeline_coverage", books, np.ones(len(books.open), dtype=bool))


def pipeline_coverage_expected(books: Books) -> Kpi:
    """The open pipeline expected to close by the end of the period / what is left of the target."""
    after = books.day(books.period.end)
    return _coverage("pipeline_coverage_expected", books, books.expected < after)


def _coverage(name: str, books: Books, counted: BoolArray) -> Kpi:
    window, target = books.period.name, _target(books)
    if isinstance(target, str):
        return untold(name, window, "ratio", target)
    left = target - money(books.won_in(books.to_date))
    if left <= 0:
        return untold(name, window, "ratio", "the target is reached: nothing is left to cover")
    value = money(int(books.open_cents[counted].sum()))
    parts = (Part("open", value, int(counted.sum())), Part("left of the target", left, 1))
    return Kpi(name, window, value / left, "ratio", int(counted.sum()), parts=parts)


def _target(books: Books) -> float | str:
    """The target of the whole, or why there is none to measure by."""
    found = target_of(books.history, books.calendar, books.as_of, books.period)
    if found is None:
        return f"there is no target of all for exactly {books.period.name}"
    return found if found > 0 else f"the target of {books.period.name} is not above 0"


def reps_at_target(books: Books) -> Kpi:
    """Share of the owners with a target in the period who have reached it."""
    name, window = "reps_at_target", books.period.name
    row, at, _, cents = books.revenue
    here = books.to_date.holds(at)
    owners = group_of(books.history.landmarks("deal", row[here], at[here]), "owner")
    codes, levels = dictionary(owners)
    won = np.zeros(len(levels), dtype=np.int64)
    np.add.at(won, codes, cents[here])
    place = {str(level): i for i, level in enumerate(levels)}
    targets = books.history.tables["target"]
    reps = sorted({str(s) for s in targets["scope_id"][targets["scope"] == "owner"]})
    parts = []
    for rep in reps:
        target = target_of(books.history, books.calendar, books.as_of, books.period, "owner", rep)
        if target is not None and target > 0:
            own = money(int(won[place[rep]])) if rep in place else 0.0
            parts.append(Part(rep, own / target, 1))
    if not parts:
        return untold(name, window, "share", f"no owner has a target for exactly {window}")
    reached = sum(p.value is not None and p.value >= 1.0 for p in parts)
    return Kpi(name, window, reached / len(parts), "share", len(parts), parts=tuple(parts))


# --- leads and work


def lead_response_time(books: Books, window: Window) -> Kpi:
    """Median hours from a lead's creation to the first activity that is not inbound.

    Leads without one count as waiting until now.
    """
    name, leads = "lead_response_time", books.history.leads
    here = _leads_here(books) & window.holds(leads.created_at)
    if not here.any():
        return untold(name, window.name, "hours", f"no lead was created in {window.name}")
    table = books.history.tables["activity"]
    row, at = places(leads.ids, table["lead_id"]), micros(table["occurred_at"])
    done = (row >= 0) & (at <= books.now) & (known_times(table) <= books.now)
    if not done.any():
        return untold(name, window.name, "hours", "no activity of a lead is recorded")
    answer = done & (at >= leads.created_at[row]) & (table["direction"] != "inbound")
    first = np.full(len(leads), NEVER, dtype=np.int64)
    np.minimum.at(first, row[answer], at[answer])
    answered = first[here] != NEVER
    waited = (np.minimum(first[here], books.now) - leads.created_at[here]) / _HOUR
    ages, curve = aalen_johansen(np.zeros(len(waited)), waited, answered.astype(np.int64))
    told = len(ages) > 0 and curve[-1, 0] >= 0.5
    share = f"{int(answered.sum())} of {len(answered)} were answered so far"
    if not told:
        return untold(name, window.name, "hours", f"fewer than half were answered: {share}")
    median = float(ages[np.searchsorted(curve[:, 0], 0.5)])
    return Kpi(name, window.name, median, "hours", len(waited), share)


def lead_conversion(books: Books, window: Window) -> Kpi:
    """Leads qualified, of those qualified or disqualified in the window; and by source."""
    name, leads = "lead_conversion", books.history.leads
    rows = np.flatnonzero(_leads_here(books))
    found = books.history.landmarks("lead", rows, np.full(len(rows), books.now))
    found = found.take(found.outcome != OPEN)
    if not len(found):
        return untold(name, window.name, "share", "no lead has been qualified or disqualified")
    at = leads.outcomes.at[leads.outcomes.latest(*found.seen(leads.outcomes))]
    found = found.take(window.holds(at))
    if not len(found):
        reason = f"no lead was qualified or disqualified in {window.name}"
        return untold(name, window.name, "share", reason)
    won = found.outcome == WON
    sources = found.value("lead_source").as_text()
    parts = []
    for code, level in [*enumerate(sources.levels.tolist()), (-1, "unknown")]:
        mine = sources.values == code
        if mine.any():
            parts.append(Part(str(level), float(won[mine].mean()), int(mine.sum())))
    parts.sort(key=lambda p: -p.n)
    return Kpi(name, window.name, float(won.mean()), "share", len(won), parts=tuple(parts))


def _leads_here(books: Books) -> BoolArray:
    leads = books.history.leads
    return np.asarray((leads.known_from <= books.now) & (leads.gone_at > books.now))


def meetings(books: Books, window: Window) -> Kpi:
    """Activities of the type meeting that took place in the window."""
    table = books.history.tables["activity"]
    at = micros(table["occurred_at"])
    known = (at <= books.now) & (known_times(table) <= books.now)
    codes, levels = dictionary(table["type"])
    kinds = {str(level) for level in levels[np.unique(codes[known & (codes >= 0)])]}
    wanted = {kind for kind in kinds if "meeting" in kind.casefold()}
    if not wanted:
        seen = f"; types seen: {', '.join(sorted(kinds)[:8])}" if kinds else ""
        reason = f"no activity of the type meeting is recorded{seen}"
        return untold("meetings", window.name, "count", reason)
    count = int((known & window.holds(at) & codes_in(levels, codes, wanted)).sum())
    return Kpi("meetings", window.name, float(count), "count", count)


# --- renewals


def retention(books: Books, window: Window) -> Kpi:
    """Renewals won, of those won or lost in the window; and by value."""
    return _renewals("retention", books, window, of_won=True)


def churn(books: Books, window: Window) -> Kpi:
    """Renewals lost, of those won or lost in the window; and by value."""
    return _renewals("churn", books, window, of_won=False)


def _renewals(name: str, books: Books, window: Window, *, of_won: bool) -> Kpi:
    closed = books.closed
    renewal = _is_renewal(closed.deals)
    if not renewal.any():
        reason = "no closed deal has the type, or is in a pipeline, called renewal"
        return untold(name, window.name, "share", reason)
    here = renewal & window.holds(closed.at)
    n = int(here.sum())
    if not n:
        return untold(name, window.name, "share", f"no renewal was won or lost in {window.name}")
    counted = here & (closed.won if of_won else ~closed.won)
    value = int(closed.cents[here].sum())
    by_value = int(closed.cents[counted].sum()) / value if value > 0 else None
    share = float(counted.sum()) / n
    return Kpi(name, window.name, share, "share", n, parts=(Part("by value", by_value, n),))


def _is_renewal(deals: Snapshot) -> BoolArray:
    """Deals whose type or pipeline is called a renewal."""
    found = np.zeros(len(deals), dtype=bool)
    for field in ("deal_type", "pipeline_id"):
        column = deals.value(field).as_text()
        named = {str(level) for level in column.levels if "renewal" in str(level).casefold()}
        found |= codes_in(column.levels, column.values, named)
    return found


# --- all of them


_BY_WINDOW: tuple[Callable[[Books, Window], Kpi], ...] = (
    closed_value,
    win_rate,
    win_rate_by_value,
    deal_size,
    median_deal_size,
    mean_sales_cycle,
    median_sales_cycle,
    retention,
    churn,
    lead_conversion,
    lead_response_time,
    meetings,
)
_OF_PERIOD: tuple[Callable[[Books], Kpi], ...] = (
    target_attainment,
    reps_at_target,
    pipeline_coverage,
    pipeline_coverage_expected,
)
_STANDING: tuple[Callable[[Books], Kpi], ...] = (
    open_pipeline,
    weighted_pipeline,
    weighted_pipeline_crm,
)
_OF_FLAGS: tuple[Callable[[Books, Attention], Kpi], ...] = (
    slipped_deals,
    stalled_deals,
    at_risk_deals,
)


def kpis(books: Books, found: Attention) -> tuple[Kpi, ...]:
    """Every KPI: of the pipeline now, of the period to date, of the last 365 days."""
    return (
        *(kpi(books) for kpi in _STANDING),
        *(kpi(books, found) for kpi in _OF_FLAGS),
        *(kpi(books) for kpi in _OF_PERIOD),
        *(kpi(books, window) for kpi in _BY_WINDOW for window in (books.to_date, books.year)),
        pipeline_velocity(books, books.year),
        *accuracies(books),
    )


@dataclass(frozen=True)
class Metrics:
    """All that `dealcast metrics` tells.

    Attributes
    ----------
    flagged : tuple of Flagged
        Deals that want a look, the largest first; `flagged_in_all` counts those left off too.
    """

    books: Books
    kpis: tuple[Kpi, ...]
    pace: Pace
    flagged: tuple[Flagged, ...]
    flagged_in_all: int


def metrics(books: Books, most: int = 20) -> Metrics:
    """The KPIs, the pace, and up to `most` open deals that want a look."""
    found = attention(books)
    in_all = int((found.slipped | found.stalled | found.at_risk).sum())
    return Metrics(books, kpis(books, found), pacing(books), flagged(books, found, most), in_all)
