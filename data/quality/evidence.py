"""What one field alone says about outcomes: the measures behind the leak report.

`dealcast check` and training use the same ones, on two samples: values as the rows say them now,
or as they were known at a record's entry, when nobody could know how it would end. Everything is
judged among neighbours in time: a field that only tells the period (an interest rate, a month)
separates the outcomes of years, and hardly those of one week.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from data.columns import DAY, NEVER, BoolArray, Column, FloatArray, IntArray
from data.history import LOST, OPEN, WON, History, Ledger, Side
from data.quality.findings import View

__all__ = ["LEAST", "Evidence", "Levels", "Sample", "sample_as_of", "sample_today", "weigh"]

LEAST = 20  # records of each outcome before anything is said
_MOST = 200_000  # records looked at; above, they are thinned at random
_BINS = 20
_WINDOWS, _PER_WINDOW = 50, 25  # most windows of time, and records of the rarer outcome in each
_Z = 1.64  # one-sided 95 % bounds: few records prove nothing
# A level of a field is counted as certain where this share of it ended one way, and its odds are
# that many times the usual ones of its time.
_PURE, _TIMES = 2 / 3, 4.0
_LEAST_IN_LEVEL = 5
_STRETCHES, _PER_STRETCH = 20, 30
_FULL, _EMPTY = 0.1, 0.9  # share missing below and above which a stretch is filled or empty


@dataclass(frozen=True)
class Sample:
    """Records to hold fields against.

    Attributes
    ----------
    rows : int64, shape (n,)
        Positions in the ledger.
    outcome : int64, shape (n,)
        OPEN, WON or LOST, as known at the moment of judging.
    closed_at : int64 microseconds, shape (n,)
        NEVER where open, or where the time of closing is unknown.
    """

    ledger: Ledger
    rows: IntArray
    outcome: IntArray
    closed_at: IntArray

    @property
    def enough(self) -> bool:
        """Whether there are records of both outcomes to compare."""
        return bool(min((self.outcome == WON).sum(), (self.outcome == LOST).sum()) >= LEAST)

    def column(self, name: str, moment: Literal["today", "entry"]) -> Column:
        """A field's values as the rows say them now, or as known at each record's entry."""
        line, latest = self.ledger.timeline(name), np.full(len(self.rows), NEVER - 1)
        if moment == "today":  # also of records without a creation time, which nothing dates
            return line.believed(self.rows, latest)
        return line.at(self.rows, np.minimum(self.ledger.known_from[self.rows], latest))


@dataclass(frozen=True)
class Levels:
    """Values of a field whose records nearly all ended one way, chosen and judged on halves.

    Attributes
    ----------
    records : int
        Records that hold such a value.
    rate : float
        Share of them that ended this way.
    odds : float
        Lower bound of their odds against the usual ones of their time, as a ratio.
    share : float
        Part of all records that ended this way.
    """

    records: int
    rate: float
    odds: float
    share: float


@dataclass(frozen=True)
class Evidence:
    """What one field alone says about outcomes.

    Attributes
    ----------
    auc, auc_low : float
        Chance that a won record scores above a lost one of the same time, by a table of win
        rates by value learnt on the other half of the records; and its lower bound. 0.5 where
        there are too few.
    windows : int
        Stretches of time compared within.
    won, lost : Levels
        Values that are almost certain to have won, and to have lost; missing is no value.
    missing : (float, float, float)
        Share missing among won, lost and open; NaN where there are fewer than 20.
    filled_odds : float
        Lower bound of the ratio between the odds of winning of filled and empty records, or its
        inverse where that is larger; 1 where the two do not differ.
    emptied : bool
        Whether neighbours in time go from filled to empty: a process fills it, not the entry.
    counts_up : bool
        Whether it is a number that looks like a total: from zero, over many values, with a tail.
    after_entry, at_closing : float
        For dates: share of the closed records' dates at least a day after the creation, and
        within a day of the closing; NaN otherwise.
    """

    name: str
    auc: float
    auc_low: float
    windows: int
    won: Levels
    lost: Levels
    missing: tuple[float, float, float]
    filled_odds: float
    emptied: bool
    counts_up: bool
    after_entry: float
    at_closing: float

    @property
    def gap(self) -> float:
        """Difference of the share missing between won and lost; 0 where unknown."""
        won, lost, _ = self.missing
        return 0.0 if np.isnan(won) or np.isnan(lost) else abs(won - lost)

    @property
    def open_gap(self) -> float:
        """How much more often it is missing while open: filled in on closing.

        The other way round it is a young field, which is no sign.
        """
        won, lost, still = self.missing
        known = [share for share in (won, lost) if not np.isnan(share)]
        return max(still - max(known), 0.0) if known and not np.isnan(still) else 0.0


def sample_today(view: View) -> Sample:
    """All records as they stand; those gone or deleted while open are left out."""
    rows = _thinned(np.flatnonzero((view.outcome != OPEN) | view.still_open))
    return Sample(view.ledger, rows, view.outcome[rows], view.closed_at[rows])


def sample_as_of(history: History, side: Side, until: int) -> Sample:
    """The records known by `until` (int64 microseconds), with outcomes as known then."""
    ledger = history.ledger(side)
    known = (ledger.known_from <= until) & (ledger.known_from != NEVER)
    rows = _thinned(np.flatnonzero(known))
    then = history.landmarks(side, rows, np.full(len(rows), until, dtype=np.int64))
    keep = (then.outcome != OPEN) | then.exists
    then = then.take(keep)
    last = ledger.outcomes.latest(*then.seen(ledger.outcomes))
    at = np.append(ledger.outcomes.at, NEVER)[last]
    closed_at = np.where((last >= 0) & (then.outcome != OPEN), at, NEVER)
    return Sample(ledger, then.rows, then.outcome, closed_at)


def _thinned(rows: IntArray) -> IntArray:
    if len(rows) <= _MOST:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, _MOST, replace=False))


def weigh(sample: Sample, name: str, moment: Literal["today", "entry"]) -> Evidence:
    """Measure one field on a sample."""
    column, is_date = sample.column(name, moment), sample.ledger.fields[name] in ("date", "time")
    if is_date:
        column = _since_creation(column, sample)
    present = column.present()
    decided = np.flatnonzero(sample.outcome != OPEN)
    judge = _Judge.of(sample, decided) if sample.enough else None
    codes = _binned(column)[decided]
    auc, low = judge.auc(codes) if judge else (0.5, 0.5)
    here = present[decided]
    won, lost = (judge.levels(codes, here, w) if judge else _NONE for w in (True, False))
    after, closing = _dates(column, sample) if is_date else (np.nan, np.nan)
    return Evidence(
        name,
        auc,
        low,
        judge.count if judge else 0,
        won,
        lost,
        _shares_missing(present, sample.outcome),
        judge.filled_odds(here) if judge else 1.0,
        _emptied(here, sample.ledger.created_at[sample.rows[decided]]),
        _counts_up(column) if name in sample.ledger.table.attributes else False,
        after,
        closing,
    )


_NONE = Levels(0, 0.0, 0.0, 0.0)


def _since_creation(column: Column, sample: Sample) -> Column:
    """A date as days since the record's creation; as it is where times are made up."""
    created = sample.ledger.created_at[sample.rows]
    if sample.ledger.pseudo_times:
        return column
    known = created != NEVER
    days = np.where(known, np.where(known, created, 0) / DAY, np.nan)
    return Column("number", column.numbers() - days, column.levels)


def _dates(column: Column, sample: Sample) -> tuple[float, float]:
    """Share of the closed records' dates after the creation, and at the closing."""
    created = sample.ledger.created_at[sample.rows]
    days = column.numbers()
    told = (sample.closed_at != NEVER) & (created != NEVER) & ~np.isnan(days)
    if sample.ledger.pseudo_times or told.sum() < LEAST:
        return np.nan, np.nan
    closing = (sample.closed_at[told] - created[told]) / DAY
    # A date alone stands for its midnight: it may lie up to a day before the closing.
    return float((days[told] >= 1.0).mean()), float((np.abs(days[told] - closing) <= 1.0).mean())


def _shares_missing(present: BoolArray, outcome: IntArray) -> tuple[float, float, float]:
    def share(which: int) -> float:
        rows = outcome == which
        return float(1.0 - present[rows].mean()) if rows.sum() >= LEAST else float("nan")

    return share(WON), share(LOST), share(OPEN)


def _emptied(present: BoolArray, created: IntArray) -> bool:
    """Whether a filled stretch of records is followed by an empty one.

    A young field goes from empty to filled, once, and is no sign.
    """
    count = min(len(present) // _PER_STRETCH, _STRETCHES)
    if count < 2 or present.all() or not present.any():
        return False
    in_order = present[np.argsort(created, kind="stable")]
    share = 1.0 - np.array([part.mean() for part in np.array_split(in_order, count)])
    filled, empty = np.flatnonzero(share <= _FULL), np.flatnonzero(share >= _EMPTY)
    return bool(len(filled) and len(empty) and filled[0] < empty[-1])


def _counts_up(column: Column) -> bool:
    """Whether a number looks like a running total."""
    if column.kind != "number":
        return False
    values = column.values[~np.isnan(column.values)]
    positive = values[values > 0]
    if len(values) < LEAST or len(np.unique(values)) <= 10 or (values < 0).any():
        return False
    return bool(len(positive) <= 0.95 * len(values) and positive.max() >= 5 * np.median(positive))


def _binned(column: Column) -> IntArray:
    """Codes of values: levels of a text, quantile bins of a number, the last code for missing."""
    if column.kind == "text":
        return np.where(column.values >= 0, column.values, len(column.levels)).astype(np.int64)
    present = ~np.isnan(column.values)
    values = column.values[present]
    if len(values) == 0:
        return np.zeros(len(column.values), dtype=np.int64)
    found = np.unique(values)
    edges = (
        found
        if len(found) <= _BINS
        else np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[:-1]))
    )
    codes = np.full(len(column.values), len(edges) + 1, dtype=np.int64)
    codes[present] = np.searchsorted(edges, values, side="right")
    return codes


# --- judging ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Judge:
    """Decided records in windows of time, in two halves that judge each other.

    Attributes
    ----------
    won, half : bool, shape (n,)
    window : int64, shape (n,)
    count : int
        Windows.
    usual : float64, shape (n,)
        Share won in each record's window.
    """

    won: BoolArray
    half: BoolArray
    window: IntArray
    count: int
    usual: FloatArray

    @classmethod
    def of(cls, sample: Sample, decided: IntArray) -> _Judge:
        won = sample.outcome[decided] == WON
        n, rarer = len(won), int(min(won.sum(), (~won).sum()))
        count = int(np.clip(rarer // _PER_WINDOW, 1, _WINDOWS))
        window = np.empty(n, dtype=np.int64)
        order = np.argsort(sample.ledger.created_at[sample.rows[decided]], kind="stable")
        window[order] = np.arange(n) * count // n
        usual = np.bincount(window, weights=won) / np.bincount(window)
        half = np.random.default_rng(0).permutation(n) % 2 == 0
        return cls(won, half, window, count, usual[window])

    def auc(self, codes: IntArray) -> tuple[float, float]:
        """AUC of shrunken win rates by code within windows, and its lower bound."""
        size = int(codes.max()) + 1
        scores: FloatArray = np.zeros(len(codes))
        for learn in (self.half, ~self.half):
            base = self.won[learn].mean()
            n = np.bincount(codes[learn], minlength=size)
            k = np.bincount(codes[learn], weights=self.won[learn], minlength=size)
            scores[~learn] = ((k + 5.0 * base) / (n + 5.0))[codes[~learn]]
        total = weight = 0.0
        # One half of one window after the other: two halves have scores of their own.
        cell = 2 * self.window + self.half
        for rows in np.split(np.argsort(cell, kind="stable"), np.cumsum(np.bincount(cell))[:-1]):
            here = self.won[rows]
            good, bad = int(here.sum()), int((~here).sum())
            if good and bad:
                worth = good * bad / (good + bad)
                total += worth * _auc(scores[rows], here)
                weight += worth
        auc = total / weight if weight else 0.5
        rarer = min(self.won.sum(), (~self.won).sum())
        return auc, float(auc - _Z * np.sqrt(max(auc * (1 - auc), 0.0) / rarer))

    def levels(self, codes: IntArray, present: BoolArray, won: bool) -> Levels:
        """The values almost certain to end one way: found on one half, counted on the other."""
        size = int(codes.max()) + 1
        ended = self.won == won
        usual = self.usual if won else 1.0 - self.usual
        chosen = np.zeros(len(codes), dtype=bool)
        for side in (self.half, ~self.half):
            learn, judged = side & present, ~side & present
            n = np.bincount(codes[learn], minlength=size)
            k = np.bincount(codes[learn], weights=ended[learn], minlength=size)
            expected = np.bincount(codes[learn], weights=usual[learn], minlength=size)
            certain = (n >= _LEAST_IN_LEVEL) & (k >= _PURE * n) & (_ratio(k, n, expected) >= _TIMES)
            chosen[judged] = certain[codes[judged]]
        held, hits = int(chosen.sum()), int(ended[chosen].sum())
        if held == 0:
            return _NONE
        low = _odds_low(hits, held, float(usual[chosen].sum()))
        return Levels(held, hits / held, low, hits / int(ended.sum()))

    def filled_odds(self, present: BoolArray) -> float:
        """Lower bound of how far the odds of winning differ between filled and empty records."""
        n = int((~present).sum())
        if n == 0 or n == len(present):
            return 1.0
        bounds = []
        for ended, usual in ((self.won, self.usual), (~self.won, 1.0 - self.usual)):
            for rows in (present, ~present):
                k, expected = int(ended[rows].sum()), float(usual[rows].sum())
                bounds.append(_odds_low(k, int(rows.sum()), expected))
        return max(1.0, *bounds)


def _odds_low(k: int, n: int, expected: float) -> float:
    """Lower bound of the odds of k in n against those expected, as a ratio."""
    ratio = _ratio(k, n, expected)
    return float(ratio * np.exp(-_Z * np.sqrt(1 / (k + 0.5) + 1 / (n - k + 0.5))))


def _ratio(k: Any, n: Any, expected: Any) -> Any:
    """Odds of k in n against those expected, both drawn half a record towards even ones."""
    return (k + 0.5) / (n - k + 0.5) * (n - expected + 0.5) / (expected + 0.5)


def _auc(scores: FloatArray, won: BoolArray) -> float:
    """Chance that a won record scores above a lost one, ties counting half."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2
    n = int(won.sum())
    return float((rank[place][won].sum() - n * (n + 1) / 2) / (n * (len(won) - n)))
