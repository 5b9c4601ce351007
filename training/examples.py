"""Labels: the only module of training that looks past a cutoff.

Landmarks stand at creation and on a regular grid while a record is open. Everything to their
left goes through `Snapshot`; what became of them is read here, and only up to `until`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.features import Feature, compute
from data.history import OPEN, WON, History, Ledger, Side, Snapshot
from data.pipeline import FiscalCalendar
from data.timelines import DAY, rank_within
from models.arrivals import aalen_johansen
from models.deal import DealRows
from models.grid import HazardGrid

__all__ = [
    "LeadRows",
    "Spells",
    "deal_rows",
    "durations",
    "landmarks",
    "lead_horizon",
    "lead_rows",
    "open_spells",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_CONTEXT_MASK = 0.15  # share of training rows whose context is hidden, as in a bare request
_HORIZONS = (7, 14, 30, 60, 90, 180)
# Closed leads, and the share of them with a trace of work, from which a lack of traces tells.
_LEAST_WORKED, _SHARE_WORKED = 50, 0.9


@dataclass(frozen=True)
class Spells:
    """Times during which records were open, as known at `until`.

    Attributes
    ----------
    row : int64, shape (s,)
        Which record.
    begin, end : int64 microseconds, shape (s,)
        The spell is [begin, end).
    outcome : int64, shape (s,)
        How it ended: OPEN (last seen open), WON or LOST.
    """

    row: IntArray
    begin: IntArray
    end: IntArray
    outcome: IntArray


def open_spells(ledger: Ledger, until: int, *, instant: bool = False) -> Spells:
    """All open spells that had begun by `until` (int64 microseconds).

    A record that had closed before it became known (a back-fill, or a clock that ran backwards)
    was never seen open and has no spell. `instant` adds spells of no length: records closed the
    moment they became known.
    """
    events = ledger.outcomes
    known = np.flatnonzero(events.known_at <= until)
    order = known[np.lexsort((events.at[known], events.row[known]))]
    order = order[_lasting(events.row[order], events.at[order])]
    order = order[_turns(events.row[order], events.value[order])]
    rows, at, value = events.row[order], events.at[order], events.value[order]
    born = np.flatnonzero(ledger.known_from <= until)
    begin_at = ledger.known_from[born]
    lo, hi = np.searchsorted(rows, born), np.searchsorted(rows, born, side="right")
    before = rank_within(at, lo, hi, begin_at, "left")
    was_open = (before == lo) | (np.append(value, OPEN)[before - 1] == OPEN)
    reopened = (value == OPEN) & (at > ledger.known_from[rows])
    row = np.concatenate([born[was_open], rows[reopened]])
    begin = np.concatenate([begin_at[was_open], at[reopened]])
    # The first closing of the same record at or after the spell began.
    closed = value != OPEN
    close_row = rows[closed]
    close_at, close_value = np.append(at[closed], until), np.append(value[closed], OPEN)
    lo, hi = np.searchsorted(close_row, row), np.searchsorted(close_row, row, side="right")
    first = rank_within(close_at, lo, hi, begin, "left")
    first = np.where(first < hi, first, len(close_row))
    end, outcome = close_at[first], close_value[first]
    gone = ledger.gone_at[row]
    outcome = np.where(gone < end, OPEN, outcome)
    end = np.minimum(end, gone)
    keep = (end > begin) | (instant & (end == begin) & (outcome != OPEN))
    return Spells(row[keep], begin[keep], end[keep], outcome[keep])


def _lasting(row: IntArray, at: IntArray) -> BoolArray:
    """Whether each event, in order, is the last one of its record and moment."""
    return np.asarray(np.r_[(row[1:] != row[:-1]) | (at[1:] != at[:-1]), True][: len(row)])


def _turns(row: IntArray, value: IntArray) -> BoolArray:
    """Whether each outcome, by record in the order they happened, differs from the one before."""
    same = np.r_[False, row[1:] == row[:-1]][: len(row)]
    before = np.where(same, np.roll(value, 1), OPEN)
    return np.asarray(value != before)


def durations(history: History, side: Side, until: int) -> tuple[FloatArray, IntArray, FloatArray]:
    """Age at the end of each first spell, its outcome, and the age it came under observation.

    Days; the arguments of `models.arrivals.aalen_johansen`, entry last.
    """
    ledger = history.ledger(side)
    spells = open_spells(ledger, until)
    first = spells.begin == ledger.known_from[spells.row]
    created = ledger.created_at[spells.row[first]]
    age = (spells.end[first] - created) / DAY
    # A record without recorded closings before `observed_from` counts from then.
    entry = np.maximum(np.maximum(spells.begin[first], history.observed_from) - created, 0) / DAY
    return age, spells.outcome[first], entry


@dataclass(frozen=True)
class _Landmarks:
    row: IntArray
    at: IntArray
    end: IntArray
    outcome: IntArray


def landmarks(
    history: History,
    side: Side,
    start: int,
    stop: int,
    until: int,
    every: int,
    *,
    limit: int | None = None,
    seed: int = 0,
    entry: bool = True,
) -> _Landmarks:
    """Landmarks in [start, stop) with what became of them by `until`; int64 microseconds.

    They stand at creation (if `entry`) and every `every` microseconds while open, as was known
    then: a reopening told late has no landmarks before it was. Above `limit` they are thinned at
    random, at a rate that does not depend on the record.
    """
    spells = open_spells(history.ledger(side), until)
    start = max(start, history.observed_from)
    lo, hi = np.maximum(spells.begin, start), np.minimum(spells.end, stop)
    first = -(-lo // every)
    count = np.maximum(-(-hi // every) - first, 0)
    which = np.repeat(np.arange(len(count)), count)
    step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    at = (first[which] + step) * every
    if entry:
        created = history.ledger(side).known_from[spells.row]
        fresh = np.flatnonzero(
            (spells.begin == created)
            & (created >= start)
            & (created < stop)
            & (created % every != 0)
        )
        which = np.concatenate([which, fresh])
        at = np.concatenate([at, created[fresh]])
    then = history.landmarks(side, spells.row[which], at)
    shown = then.exists & (then.outcome == OPEN)
    which, at = which[shown], at[shown]
    if limit is not None and len(which) > limit:
        kept = np.sort(np.random.default_rng(seed).choice(len(which), limit, replace=False))
        which, at = which[kept], at[kept]
    return _Landmarks(spells.row[which], at, spells.end[which], spells.outcome[which])


def deal_rows(
    history: History,
    features: tuple[Feature, ...],
    grid: HazardGrid,
    calendar: FiscalCalendar,
    start: int,
    stop: int,
    until: int,
    *,
    limit: int | None = None,
    seed: int = 0,
    mask: bool = False,
    entry: bool = True,
) -> tuple[DealRows, Snapshot]:
    """Deal landmarks in [start, stop) with their features and outcomes known by `until`.

    `mask` hides the context of a share of the rows, as a bare request does.
    """
    every = int(grid.edges[1]) * DAY
    marks = landmarks(
        history, "deal", start, stop, until, every, limit=limit, seed=seed, entry=entry
    )
    snapshot = history.landmarks("deal", marks.row, marks.at)
    columns = compute(snapshot, features)
    if mask:
        hidden = np.random.default_rng(seed).random(len(marks.at)) < _CONTEXT_MASK
        for feature in features:
            if feature.scope == "context":
                columns[feature.name] = _hide(columns[feature.name], hidden)
    rows = DealRows(
        columns,
        grid.cells(calendar.local_days(marks.at), calendar.marks),
        (marks.end - marks.at) / DAY,
        marks.outcome,
        marks.row,
    )
    return rows, snapshot


def _hide(
    column: FloatArray | tuple[npt.NDArray[np.int32], npt.NDArray[np.object_]], hidden: BoolArray
) -> FloatArray | tuple[npt.NDArray[np.int32], npt.NDArray[np.object_]]:
    if isinstance(column, tuple):
        return np.where(hidden, -1, column[0]).astype(np.int32), column[1]
    return np.where(hidden, np.nan, column)


@dataclass(frozen=True)
class LeadRows:
    """Leads at landmarks, with whether they were qualified within the horizon.

    `label` is 1.0 or 0.0, shape (m,); `lead` says which lead; `snapshot` where features are read.
    """

    snapshot: Snapshot
    label: FloatArray
    lead: IntArray


def lead_horizon(history: History, until: int) -> int:
    """Days within which most leads that qualify have done so; 0 for pseudo times.

    The 85th percentile of the delay from entry to qualification (censoring-aware), rounded up
    to 7, 14, 30, 60, 90 or 180 days.
    """
    if history.leads.pseudo_times:
        return 0
    from_entry, outcome, entry = durations(history, "lead", until)
    # Among leads old enough to have shown their delay: a young cohort only has its fast ones.
    ages, curve = aalen_johansen(entry, from_entry, outcome)
    if len(ages) == 0 or curve[-1, 0] == 0:
        return 30
    delay = float(ages[np.searchsorted(curve[:, 0] / curve[-1, 0], 0.85)])
    return next((h for h in _HORIZONS if h >= delay), _HORIZONS[-1])


def lead_rows(
    history: History, start: int, stop: int, until: int, horizon: int, *,
    limit: int | None = None, seed: int = 0,
) -> LeadRows:  # fmt: skip
    """Lead landmarks in [start, stop) whose label was known by `until`.

    Immature landmarks (open, and not yet `horizon` days old at `until`) are left out: they are
    unknown, not negative. So are leads that nobody ever worked (`_never_worked`).
    """
    every = max(horizon // 4, 1) * DAY
    if horizon == 0:
        marks = _entries(history, start, stop, until)
        mature = marks.outcome != OPEN
        label = (marks.outcome == WON).astype(np.float64)
    else:
        marks = landmarks(history, "lead", start, stop, until, every, limit=limit, seed=seed)
        wait = horizon * DAY
        won = (marks.outcome == WON) & (marks.end - marks.at <= wait)
        # Only time decides maturity: keeping early closings of young landmarks would favour
        # the fast ones.
        mature = (marks.at + wait <= until) & ~_never_worked(history, marks, until)
        label = won.astype(np.float64)
    snapshot = history.landmarks("lead", marks.row[mature], marks.at[mature])
    return LeadRows(snapshot, label[mature], marks.row[mature])


def _never_worked(history: History, marks: _Landmarks, until: int) -> BoolArray:
    """Landmarks of leads still open at `until` with which nobody has done anything since entry.

    They were not turned down, they were not tried. Records can only tell where work leaves
    traces: so only in histories where nine in ten of the leads that closed, and at least 50, had
    an activity, a move, an answer or a changed field before they did. Elsewhere they stay
    negative.
    """
    touched = history.leads.first_touch
    spells = open_spells(history.leads, until)
    closed = spells.outcome != OPEN
    worked = touched[spells.row[closed]] < spells.end[closed]
    if len(worked) < _LEAST_WORKED or worked.mean() < _SHARE_WORKED:
        return np.zeros(len(marks.row), dtype=bool)
    waiting = (marks.outcome == OPEN) & (marks.end == until)
    return np.asarray(waiting & (touched[marks.row] > until))


def _entries(history: History, start: int, stop: int, until: int) -> _Landmarks:
    """One landmark a lead, at its entry: all that pseudo times allow."""
    spells = open_spells(history.leads, until)
    here = (spells.begin >= start) & (spells.begin < stop)
    return _Landmarks(spells.row[here], spells.begin[here], spells.end[here], spells.outcome[here])
