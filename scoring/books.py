"""The books as of a moment: what the KPIs, the flags and the pace are all read from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from data.events import Events, rank_within, stays_known
from data.history import LOST, OPEN, WON, History, Snapshot
from data.pipeline import FiscalCalendar, Period, PeriodKind
from data.timelines import DAY, NEVER
from scoring.bundles import DealBundle
from scoring.money import in_cents, rounded

__all__ = [
    "LOST_HERE",
    "ON",
    "WON_HERE",
    "Books",
    "Closed",
    "Stays",
    "Window",
    "bounds_of",
    "crm_chances",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

ON, WON_HERE, LOST_HERE = -1, -2, -3  # how a stay in a stage ends, where no stage follows


def bounds_of(period: Period) -> tuple[int, int]:
    """Start and end of a period, int64 microseconds."""
    start, end = np.array([period.start, period.end], "datetime64[us]").astype(np.int64).tolist()
    return start, end


def crm_chances(deals: Snapshot) -> FloatArray:
    """The CRM's own win probability of each deal: its own as known then, else its stage's."""
    stage = deals.history.tables["stage"]
    shipped = dict(
        zip(stage["stage_id"].astype(str), stage["default_probability"].tolist(), strict=True)
    )
    by_stage = [shipped.get(str(level), np.nan) for level in deals.ledger.stage_levels]
    own = deals.value("probability").numbers()
    return np.where(np.isnan(own), np.array([*by_stage, np.nan])[deals.stage], own)


@dataclass(frozen=True)
class Window:
    """A stretch of time that a KPI looks at: [start, stop], int64 microseconds."""

    name: str
    start: int
    stop: int

    def holds(self, at: IntArray) -> BoolArray:
        """Which moments lie in it."""
        return np.asarray((at >= self.start) & (at <= self.stop))

    @property
    def days(self) -> float:
        """Its length."""
        return (self.stop - self.start) / DAY


@dataclass(frozen=True)
class Closed:
    """Deals that are won or lost, and neither deleted nor merged; arrays of shape (c,).

    Attributes
    ----------
    deals : Snapshot
        As known now.
    at : int64 microseconds
        When each closed.
    won : bool
    cents : int64
        What was won, or the amount that was lost, at the rate of the day it closed.
    priced : bool
        Whether an amount is known.
    """

    deals: Snapshot
    at: IntArray
    won: BoolArray
    cents: IntArray
    priced: BoolArray


@dataclass(frozen=True)
class Stays:
    """Stays of open deals in stages, watched from `observed_from` on; arrays of shape (s,).

    Attributes
    ----------
    row, stage : int64
        The deal, and the stage by code into `stage_levels`.
    begin, end : int64 microseconds
        When it was entered, and left; the end is now for one that lasts.
    to : int64
        The stage moved to; ON where it lasts or the deal left, WON_HERE, LOST_HERE.
    """

    row: IntArray
    stage: IntArray
    begin: IntArray
    end: IntArray
    to: IntArray


@dataclass(frozen=True)
class Books:
    """What is known at a moment, of a period.

    Attributes
    ----------
    kind, period : PeriodKind, Period
        A week, month or quarter: in progress, or over.
    bundle : DealBundle or None
        The model that may answer for the moment, if there is one.
    """

    history: History
    calendar: FiscalCalendar
    as_of: np.datetime64
    kind: PeriodKind
    period: Period
    bundle: DealBundle | None

    @cached_property
    def now(self) -> int:
        """The moment, int64 microseconds."""
        return int(self.as_of.astype("datetime64[us]").astype(np.int64))

    @cached_property
    def to_date(self) -> Window:
        """The period, up to now."""
        start, end = bounds_of(self.period)
        return Window(self.period.name, start, min(self.now, end - 1))

    @cached_property
    def year(self) -> Window:
        """The last 365 days."""
        return Window("365 days", self.now - 365 * DAY, self.now)

    @cached_property
    def open(self) -> Snapshot:
        """The open deals."""
        return self.history.as_of("deal", self.as_of)

    @cached_property
    def open_cents(self) -> IntArray:
        """Their amounts at today's rate; 0 for none."""
        return rounded(self.open.amount)

    @cached_property
    def expected(self) -> FloatArray:
        """Their expected close dates, days since 1970; NaN for none."""
        return self.open.value("expected_close_date").numbers()

    def day(self, moment: np.datetime64) -> float:
        """The organisation's day that holds a moment, days since 1970."""
        return float(np.datetime64(self.calendar.day_of(moment), "D").astype(np.int64))

    @cached_property
    def revenue(self) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """Deal, moment it counts, moment it was known and cents of what was won and taken back.

        All that is known now, of deals that are still there.
        """
        row, at, known, value = self.history.wins
        here = (known <= self.now) & (at <= self.now)
        here &= self.history.deals.gone_at[row] > self.now
        return row[here], at[here], known[here], rounded(value[here])

    def won_in(self, window: Window) -> int:
        """Cents won in a window, less what reopenings took back."""
        _, at, _, cents = self.revenue
        return int(cents[window.holds(at)].sum())

    @cached_property
    def closed(self) -> Closed:
        """The deals that are closed now."""
        ledger = self.history.deals
        rows = np.flatnonzero((ledger.known_from <= self.now) & (ledger.gone_at > self.now))
        found = self.history.landmarks("deal", rows, np.full(len(rows), self.now))
        found = found.take(found.outcome != OPEN)
        events = ledger.outcomes
        at = events.at[events.latest(*found.seen(events))] if len(events.at) else found.at
        won = found.outcome == WON
        own, currency = found.value("amount").numbers(), found.value("currency").texts()
        then = self.history.landmarks("deal", found.rows, at)
        cents = in_cents(self.history, then, own, currency, ~won)
        gained = np.zeros(len(ledger), dtype=np.int64)
        row, _, _, value = self.revenue
        np.add.at(gained, row, value)
        closing = found.value("closed_amount").numbers()
        priced = ~np.isnan(own) | (won & ~np.isnan(closing))
        return Closed(found, at, won, np.where(won, gained[found.rows], cents), priced)

    @cached_property
    def stays(self) -> Stays:
        """All stays in stages, as known now."""
        ledger = self.history.deals
        row, begin, leaves, stage = stays_known(ledger.stages, self.now)
        closings, was_open = _first_closing(ledger.outcomes, self.now, row, begin)
        at, outcome = closings
        gone = np.minimum(ledger.gone_at[row], self.now)
        end = np.minimum(np.minimum(leaves, at), gone)
        following = np.append(stage[1:], -1)[: len(stage)]
        to = np.where(at <= leaves, np.where(outcome == WON, WON_HERE, LOST_HERE), following)
        to = np.where(gone < np.minimum(at, leaves), ON, to)
        seen = was_open & (end >= begin) & (end >= self.history.observed_from)
        return Stays(row[seen], stage[seen], begin[seen], end[seen], to[seen])


def _first_closing(
    outcomes: Events, until: int, rows: IntArray, since: IntArray
) -> tuple[tuple[IntArray, IntArray], BoolArray]:
    """First closing at or after each moment (NEVER: none) with its outcome; whether open before."""
    known = np.flatnonzero((outcomes.known_at <= until) & (outcomes.at <= until))
    known = known[np.lexsort((known, outcomes.at[known], outcomes.row[known]))]
    row, at, value = outcomes.row[known], outcomes.at[known], outcomes.value[known]
    lo, hi = np.searchsorted(row, rows), np.searchsorted(row, rows, side="right")
    before = rank_within(at, lo, hi, since, "left")
    was_open = (before == lo) | (np.append(value, OPEN)[before - 1] == OPEN)
    closing = value != OPEN
    close_row, close_at = row[closing], np.append(at[closing], NEVER)
    close_value = np.append(value[closing], LOST)
    lo, hi = np.searchsorted(close_row, rows), np.searchsorted(close_row, rows, side="right")
    first = rank_within(close_at, lo, hi, since, "left")
    first = np.where(first < hi, first, len(close_row))
    return (close_at[first], close_value[first]), was_open
