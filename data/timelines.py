"""Values through time: what was known of a field at any moment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from data.columns import (
    DAY,
    NEVER,
    BoolArray,
    Column,
    FloatArray,
    IntArray,
    ObjectArray,
    dictionary,
    micros,
    number_of,
    to_column,
)
from data.events import Events, Runs, group_events, rank_within, runs_of

__all__ = [
    "DAY",
    "NEVER",
    "BoolArray",
    "Changes",
    "Column",
    "FloatArray",
    "IntArray",
    "Timeline",
    "micros",
    "rank_within",
    "to_column",
]


@dataclass(frozen=True)
class Changes:
    """Kept changes of one field, as rows; arrays of shape (c,).

    `old` and `new` are the texts that a field_change holds, or None.
    """

    row: IntArray
    at: IntArray
    known_at: IntArray
    sequence: FloatArray
    old: ObjectArray
    new: ObjectArray


@dataclass(frozen=True)
class Timeline:
    """One field of every record through time.

    Attributes
    ----------
    base : Column, shape (n,)
        The value before any change.
    base_at : int64 microseconds, shape (n,)
        Since when it counts.
    changes : Events or None
        The later changes, those that change nothing left out; `value` is a position in `values`.
    values : Column or None
        The values changed to; a text has the same levels as `base`.
    """

    base: Column
    base_at: IntArray
    changes: Events | None
    values: Column | None

    @classmethod
    def nothing(cls, n: int) -> Timeline:
        """A field nobody has ever seen."""
        return cls.constant(Column.missing(n), np.full(n, NEVER, dtype=np.int64))

    @classmethod
    def constant(cls, values: Column, since: IntArray) -> Timeline:
        """A field without changes."""
        return cls(values, since, None, None)

    @classmethod
    def with_changes(cls, now: Column, base_at: IntArray, changes: Changes) -> Timeline:
        """A field with kept changes: before the first one that was told, its old value held."""
        n = len(base_at)
        events, order = group_events(
            n, changes.row, changes.at, changes.known_at, changes.sequence,
            np.zeros(len(changes.row), dtype=np.int64),
        )  # fmt: skip
        moved = np.flatnonzero(np.diff(events.start))
        first = events.start[moved]
        base, values = _in_one(now, moved, changes.old[order][first], changes.new[order])
        found, code = np.unique(np.r_[base.values, values.values], return_inverse=True)
        base_at = base_at.copy()  # the first change tells the value before it at the latest
        base_at[moved] = np.minimum(base_at[moved], events.known_at[first])
        events = replace(events, value=code[n:]).without_repeats(code[:n])
        return cls(base, base_at, events, replace(base, values=found))

    def at(self, rows: IntArray, at: IntArray) -> Column:
        """The value known at each row's moment."""
        return self._moved(self.base.take(rows, self.base_at[rows] <= at), rows, at)

    def believed(self, rows: IntArray, at: IntArray) -> Column:
        """The same, the value before any change taken to hold from the beginning."""
        return self._moved(self.base.take(rows, np.ones(len(rows), dtype=bool)), rows, at)

    def _moved(self, before: Column, rows: IntArray, at: IntArray) -> Column:
        if self.changes is None or self.values is None:
            return before
        last = self.changes.latest(*self.changes.known(rows, at))
        changed = self.values.values[self.changes.pick(last, 0)]
        return replace(before, values=np.where(last >= 0, changed, before.values))

    def count(self, rows: IntArray, at: IntArray) -> IntArray:
        """How often the value had changed by each row's moment."""
        if self.changes is None:
            return np.zeros(len(rows), dtype=np.int64)
        lo, hi = self.changes.known(rows, at)
        if len(self.changes.row) == 0:
            return hi - lo
        return np.where(hi > lo, self._runs.count[np.maximum(hi - 1, 0)], 0)

    @cached_property
    def _runs(self) -> Runs:
        assert self.changes is not None
        code = np.zeros(len(self.base_at), dtype=np.int64)
        assert self.values is not None
        if len(self.values.values):
            code = np.searchsorted(self.values.values, self.base.values)
        return runs_of(self.changes, code)


def _in_one(
    now: Column, moved: IntArray, old: ObjectArray, new: ObjectArray
) -> tuple[Column, Column]:
    """The base, and the values changed to: numbers, or texts with the same levels.

    `old` is the base of the records `moved`; the others have what they have `now`.
    """
    if now.kind == "number":
        base = now.values.copy()
        base[moved] = _numbers(old)
        return Column("number", base, now.levels), to_column(_numbers(new))
    texts = now.texts()
    texts[moved] = old
    codes, levels = dictionary(np.concatenate([texts, new]))
    figures = None
    if now.figures is not None:
        known = dict(zip(now.levels.tolist(), now.figures.tolist(), strict=True))
        figures = np.array([known.get(t, number_of(t)) for t in levels.tolist()], dtype=np.float64)
    before = Column("text", codes[: len(texts)], levels, figures)
    return before, replace(before, values=codes[len(texts) :])


def _numbers(texts: ObjectArray) -> FloatArray:
    codes, levels = dictionary(texts)
    return np.array([*(number_of(t) for t in levels), np.nan])[codes]
