"""What other deals of the same account or owner say, as known at each moment.

Counted are closings: moments at which a deal, as known, became won or lost. A deal belongs to the
account and the owner it was known to have when its closing became known, whatever they are today.
A deal's own closings are left out, or a reopened deal would be told by its own past.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.chronicle import LOST, OPEN, WON, Ledger
from data.columns import BoolArray, FloatArray, IntArray
from data.events import rank_within, spread
from data.history import Snapshot

__all__ = ["Peers", "peers_of"]


@dataclass(frozen=True)
class _Turns:
    """Moments at which the known outcome of a deal changed, sorted by a group, then by a time.

    Attributes
    ----------
    start : int64, shape (groups + 1,)
    time : int64 microseconds, shape (t,)
        What they are sorted by inside each group.
    won, lost, wins, closings : int64, shape (t + 1,)
        Running sums: deals that are won, that are lost, closings that were wins, closings.
    """

    start: IntArray
    time: IntArray
    won: IntArray
    lost: IntArray
    wins: IntArray
    closings: IntArray

    def bounds(self, group: IntArray, until: IntArray) -> tuple[IntArray, IntArray]:
        """Positions [lo, hi) of the turns of each group up to a moment; none for group -1."""
        lo = np.where(group >= 0, self.start[group], 0)
        hi = np.where(group >= 0, np.append(self.start, 0)[group + 1], 0)
        return lo, rank_within(self.time, lo, hi, until)


@dataclass(frozen=True)
class Peers:
    """Turns of all deals by account or owner.

    Attributes
    ----------
    key : str
        "account_id" or "owner_id".
    row, group, at, known_at, before, after : int64, shape (t,)
        Deal, its group then, when it turned, when that was known, and the outcomes around;
        sorted by deal, then by time known.
    row_start : int64, shape (n_deals + 1,)
    by_known, by_time : _Turns
        The same by group and time known, and by group and time.
    """

    key: str
    row: IntArray
    group: IntArray
    at: IntArray
    known_at: IntArray
    before: IntArray
    after: IntArray
    row_start: IntArray
    by_known: _Turns
    by_time: _Turns

    def won(self, s: Snapshot) -> FloatArray:
        """Other deals of each row's group that are won, as known then; NaN without a group."""
        return self._standing(s, WON)

    def lost(self, s: Snapshot) -> FloatArray:
        """Other deals of each row's group that are lost, as known then; NaN without a group."""
        return self._standing(s, LOST)

    def _standing(self, s: Snapshot, outcome: int) -> FloatArray:
        group = _group_of(s, self.key)
        lo, hi = self.by_known.bounds(group, s.at)
        total = self.by_known.won if outcome == WON else self.by_known.lost
        which, own = self._own(s, group)
        change = (self.after[own] == outcome).astype(np.int64) - (self.before[own] == outcome)
        mine = np.bincount(which, weights=change, minlength=len(s))
        return np.where(group >= 0, total[hi] - total[lo] - mine, np.nan)

    def closed_since(self, s: Snapshot, since: IntArray) -> tuple[FloatArray, FloatArray]:
        """Wins, and closings, of the group's other deals in (since, at], as known then."""
        group = _group_of(s, self.key)
        _, known = self.by_known.bounds(group, s.at)
        _, early = self.by_time.bounds(group, since)
        which, own = self._own(s, group)
        recent = self.at[own] > since[which]
        which, own = which[recent], own[recent]
        late, told = self._told_after(group, since, s.at)
        out = []
        for name, counts in (
            ("wins", self.after == WON),
            ("closings", self.after != OPEN),
        ):
            by_known, by_time = getattr(self.by_known, name), getattr(self.by_time, name)
            # Known by now, less those that happened before; of these some are not known yet.
            count = (by_known[known] - by_time[early]).astype(np.float64)
            count += np.bincount(late, weights=counts[told], minlength=len(s))
            count -= np.bincount(which, weights=counts[own], minlength=len(s))
            out.append(np.where(group >= 0, count, np.nan))
        return out[0], out[1]

    def _own(self, s: Snapshot, group: IntArray) -> tuple[IntArray, IntArray]:
        """Turns of the row itself in its present group, known by then: row of s, turn."""
        lo = self.row_start[s.rows]
        hi = rank_within(self.known_at, lo, self.row_start[s.rows + 1], s.at)
        which, own = spread(lo, hi)
        same = self.group[own] == group[which]
        return which[same], own[same]

    def _told_after(
        self, group: IntArray, since: IntArray, at: IntArray
    ) -> tuple[IntArray, IntArray]:
        """Turns up to `since` that were not even known at `at`: row, turn."""
        gap = int((at - since).min()) if len(at) else 0
        late = np.flatnonzero(self.known_at - self.at > gap)
        late = late[np.lexsort((self.at[late], self.group[late]))]
        groups = len(self.by_time.start) - 1
        start = np.searchsorted(self.group[late], np.arange(groups + 1))
        lo = np.where(group >= 0, start[group], 0)
        hi = np.where(group >= 0, np.append(start, 0)[group + 1], 0)
        which, place = spread(lo, rank_within(self.at[late], lo, hi, since))
        hidden = self.known_at[late][place] > at[which]
        return which[hidden], late[place[hidden]]


def _group_of(s: Snapshot, key: str) -> IntArray:
    return np.asarray(s.value(key).values.astype(np.int64))


def peers_of(s: Snapshot, key: str) -> Peers:
    """The turns of all deals of the snapshot's history by "account_id" or "owner_id"."""
    memory = s.ledger.memory
    if key not in memory:
        memory[key] = _build(s.ledger, key)
    found: Peers = memory[key]
    return found


def _build(ledger: Ledger, key: str) -> Peers:
    events = ledger.outcomes
    # What was known at one moment counts together: how things stood before and after it.
    more = (events.row[1:] != events.row[:-1]) | (events.known_at[1:] != events.known_at[:-1])
    told = np.flatnonzero(np.r_[more, True][: len(events.row)])
    after = events.value[events.newest[told]]
    first = np.r_[True, events.row[told][1:] != events.row[told][:-1]][: len(told)]
    before = np.where(first, OPEN, np.roll(after, 1))
    turned = np.flatnonzero(before != after)
    row, known_at = events.row[told][turned], events.known_at[told][turned]
    at = events.at[events.newest[told]][turned]
    line = ledger.timeline(key)
    group = line.at(row, known_at).values.astype(np.int64)
    n = len(line.base.levels)
    before, after = before[turned], after[turned]

    def sorted_by(time: IntArray) -> _Turns:
        order = np.lexsort((time, group))

        def running(what: BoolArray | IntArray) -> IntArray:
            return np.concatenate([[0], np.cumsum(what[order])])

        return _Turns(
            np.searchsorted(group[order], np.arange(n + 1)).astype(np.int64),
            time[order],
            running((after == WON).astype(np.int64) - (before == WON)),
            running((after == LOST).astype(np.int64) - (before == LOST)),
            running(after == WON),
            running(after != OPEN),
        )

    starts = np.searchsorted(row, np.arange(len(ledger) + 1)).astype(np.int64)
    return Peers(
        key, row, group, at, known_at, before, after, starts, sorted_by(known_at), sorted_by(at)
    )
