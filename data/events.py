"""Events grouped by record, in the order they became known, and what they amount to at each point.

An event has two times: when it happened and when it was known, which is never earlier. Nearly all
records have their events known in the order they happened, and are handled by array operations;
the few where one was recorded late are walked through one by one. What such an event changes, it
changes from the moment it was known: "current" and "how many" are those of the events known by
then, put in the order they happened.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data.columns import NEVER, BoolArray, FloatArray, IntArray

__all__ = [
    "Events",
    "Runs",
    "group_events",
    "last_of_moments",
    "prefixes",
    "rank_within",
    "run_starts",
    "runs_of",
    "spread",
    "stays_known",
]


def rank_within(
    values: npt.NDArray[Any],
    lo: IntArray,
    hi: IntArray,
    query: npt.NDArray[Any],
    side: Literal["left", "right"] = "right",
) -> IntArray:
    """`searchsorted` inside many segments at once.

    Parameters
    ----------
    values : shape (n,)
        Ascending inside each segment.
    lo, hi : int64, shape (m,)
        Segment [lo, hi) of each query.
    query : shape (m,)

    Returns
    -------
    int64, shape (m,)
        Positions in `values`, between lo and hi.
    """
    lo, hi = lo.copy(), hi.copy()
    active = lo < hi
    while active.any():
        middle = (lo + hi) >> 1
        probe = values[np.where(active, middle, 0)]
        right = active & ((probe <= query) if side == "right" else (probe < query))
        lo = np.where(right, middle + 1, lo)
        hi = np.where(active & ~right, middle, hi)
        active = lo < hi
    return lo


@dataclass(frozen=True)
class Events:
    """Events grouped by record and, inside a record, in the order they became known.

    Attributes
    ----------
    start : int64, shape (n_records + 1,)
        The events of record r are [start[r], start[r + 1]).
    row, at, known_at, value : int64, shape (n_events,)
        The record, when it happened, when it was known, what it was.
    newest, oldest : int64, shape (n_events,)
        Among the events of the record up to this one, the position of the one that happened
        last (of the same moment, the one known last), and first.
    in_order : bool, shape (n_records,)
        Whether the record's events became known in the order they happened.
    """

    start: IntArray
    row: IntArray
    at: IntArray
    known_at: IntArray
    value: IntArray
    newest: IntArray
    oldest: IntArray
    in_order: BoolArray

    def known(self, rows: IntArray, at: IntArray) -> tuple[IntArray, IntArray]:
        """Bounds [lo, hi) of the events of each row that were known at its moment."""
        lo = self.start[rows]
        return lo, rank_within(self.known_at, lo, self.start[rows + 1], at)

    def latest(self, lo: IntArray, hi: IntArray) -> IntArray:
        """Position of the event that happened last among [lo, hi); -1 where there is none."""
        return _at_end(self.newest, lo, hi)

    def earliest(self, lo: IntArray, hi: IntArray) -> IntArray:
        """Position of the event that happened first among [lo, hi); -1 where there is none."""
        return _at_end(self.oldest, lo, hi)

    def pick(self, position: IntArray, absent: int) -> IntArray:
        """Values at positions, `absent` where the position is -1."""
        if len(self.value) == 0:
            return np.full(len(position), absent, dtype=np.int64)
        return np.where(position >= 0, self.value[position], absent)

    def only(self, value: int) -> Events:
        """The events with this value, the records as they are."""
        return self.where(self.value == value)

    def where(self, keep: BoolArray) -> Events:
        """The events of a mask, the records as they are."""
        n = len(self.in_order)
        return _ordered(n, self.row[keep], self.at[keep], self.known_at[keep], self.value[keep])

    def count_since(self, rows: IntArray, lo: IntArray, hi: IntArray, since: IntArray) -> IntArray:
        """How many of [lo, hi) happened at or after `since`, shape (m,).

        Two searches for most; records whose events became known out of order are counted.
        """
        count = hi - rank_within(self.at, lo, hi, since, "left")
        rest = np.flatnonzero(~self.in_order[rows] & (hi > lo))
        if len(rest):
            which, position = spread(lo[rest], hi[rest])
            late = self.at[position] >= since[rest][which]
            count[rest] = np.bincount(which[late], minlength=len(rest))
        return count

    def without_repeats(self, first: int | IntArray | None = None) -> Events:
        """Drop the events that `repeats` finds."""
        return self.where(~self.repeats(first))

    def repeats(self, first: int | IntArray | None = None) -> BoolArray:
        """Whether an event repeats the value before it, whatever of the others was known.

        Parameters
        ----------
        first : int or int64, shape (n_records,), optional
            The value before any event, if there is one.
        """
        if len(self.row) == 0:
            return np.zeros(0, dtype=bool)
        new_record = np.r_[True, self.row[1:] != self.row[:-1]]
        repeat = ~new_record & (self.value == np.r_[self.value[:1], self.value[:-1]])
        before = None if first is None else np.broadcast_to(first, len(self.in_order))
        if before is not None:
            repeat |= new_record & (self.value == before[self.row])
        for record in np.flatnonzero(~self.in_order):
            repeat[self.start[record] : self.start[record + 1]] = True
            repeat[self._told(int(record), None if before is None else int(before[record]))] = False
        return np.asarray(repeat)

    def _told(self, record: int, first: int | None) -> list[int]:
        """Events of one record that say something new at some point, in any order."""
        told = set()
        for position, line in prefixes(self, record):
            place = line.index(position)
            for i in (place, place + 1):  # the event itself, and the one it came before
                if i < len(line):
                    previous = first if i == 0 else int(self.value[line[i - 1]])
                    if previous is None or self.value[line[i]] != previous:
                        told.add(line[i])
        return sorted(told)


def _at_end(per_event: IntArray, lo: IntArray, hi: IntArray) -> IntArray:
    if len(per_event) == 0:
        return np.full(len(lo), -1, dtype=np.int64)
    return np.where(hi > lo, per_event[np.maximum(hi - 1, 0)], -1)


def spread(lo: IntArray, hi: IntArray) -> tuple[IntArray, IntArray]:
    """All positions of segments [lo, hi), and the number of the segment each belongs to."""
    size = hi - lo
    which = np.repeat(np.arange(len(lo)), size)
    return which, np.arange(size.sum()) + np.repeat(lo - (np.cumsum(size) - size), size)


def group_events(
    n: int, row: IntArray, at: IntArray, known_at: IntArray, sequence: FloatArray, value: IntArray
) -> tuple[Events, IntArray]:
    """Sort events by record and time known; returns them and the order taken.

    Events known at one moment are in the order they happened, then of `sequence` (NaN counts as
    0), then as given.
    """
    order = np.lexsort((np.nan_to_num(sequence), at, known_at, row))
    return _ordered(n, row[order], at[order], known_at[order], value[order]), order


def _ordered(n: int, row: IntArray, at: IntArray, known_at: IntArray, value: IntArray) -> Events:
    """Events that are sorted already."""
    start = np.searchsorted(row, np.arange(n + 1)).astype(np.int64)
    here = np.arange(len(row), dtype=np.int64)
    in_order = np.ones(n, dtype=bool)
    in_order[row[1:][(row[1:] == row[:-1]) & (at[1:] < at[:-1])]] = False
    newest, oldest = here.copy(), start[row]
    if not in_order.all():
        newest, oldest = _extremes(row, at)
    return Events(start, row, at, known_at, value, newest, oldest, in_order)


def _extremes(row: IntArray, at: IntArray) -> tuple[IntArray, IntArray]:
    """Running positions of the event that happened last, and first, inside each record."""
    n = len(row)
    by_time = np.argsort(at, kind="stable")
    rank = np.empty(n, dtype=np.int64)
    rank[by_time] = np.arange(n)
    # Records ascend, so a running maximum of (record, rank) starts anew at each record.
    newest = by_time[np.maximum.accumulate(row * n + rank) - row * n]
    oldest = by_time[n - 1 - (np.maximum.accumulate(row * n + (n - 1 - rank)) - row * n)]
    return newest, oldest


def prefixes(events: Events, record: int) -> Iterator[tuple[int, list[int]]]:
    """Go through a record's events as they become known.

    Yields the position of each, and the positions known by then, in the order they happened.
    The list is one and the same, growing.
    """
    line: list[int] = []
    for position in range(events.start[record], events.start[record + 1]):
        insort(line, position, key=lambda p: (events.at[p], p))
        yield position, line


@dataclass(frozen=True)
class Runs:
    """Spells of one value in events without repeats, as known at each of them.

    Attributes
    ----------
    began : int64, shape (n_events,)
        Position of the event that began the current spell, once everything up to here is known.
    count : int64, shape (n_events,)
        How many spells there were by then; one before any event (a `first` value) not included.
    """

    began: IntArray
    count: IntArray


def runs_of(events: Events, first: IntArray | None = None) -> Runs:
    """Spells of one value; `first`, shape (n_records,), is the value before any event."""
    began = np.arange(len(events.row), dtype=np.int64)
    count = began - events.start[events.row] + 1
    for record in np.flatnonzero(~events.in_order):
        before = None if first is None else int(first[record])
        for position, line in prefixes(events, int(record)):
            starts = run_starts(events.value, line, before)
            began[position] = starts[-1] if starts else line[0]
            count[position] = len(starts)
    return Runs(began, count)


def last_of_moments(at: IntArray, line: list[int]) -> list[int]:
    """Of the positions in `line` (in the order they happened), the last one of each moment."""
    return [p for i, p in enumerate(line) if i + 1 == len(line) or at[line[i + 1]] != at[p]]


def run_starts(value: IntArray, line: list[int], first: int | None) -> list[int]:
    """Positions in `line` whose value differs from the one before."""
    starts = []
    for position in line:
        if first is None or value[position] != first:
            starts.append(position)
        first = int(value[position])
    return starts


def stays_known(moves: Events, until: int) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Record, entry, exit (or never) and stage of each stay known by `until`, in order."""
    known = np.flatnonzero(moves.known_at <= until)
    known = known[np.lexsort((moves.at[known], moves.row[known]))]
    row, value = moves.row[known], moves.value[known]
    turn = np.r_[True, (row[1:] != row[:-1]) | (value[1:] != value[:-1])][: len(row)]
    row, at, value = row[turn], moves.at[known[turn]], value[turn]
    last = np.append(row[1:] != row[:-1], True)[: len(row)]
    leaves = np.where(last, NEVER, np.append(at[1:], NEVER)[: len(at)])
    return row, at, leaves, value
