"""Event tables grouped by record, and values through time: the arrays behind `History`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = [
    "DAY",
    "NEVER",
    "BoolArray",
    "Column",
    "Events",
    "FloatArray",
    "IntArray",
    "Timeline",
    "dates_in",
    "dictionary",
    "group_events",
    "micros",
    "rank_within",
    "to_column",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
ObjectArray = npt.NDArray[np.object_]

DAY = 86_400_000_000  # microseconds
NEVER = int(np.iinfo(np.int64).max)
_NAT = np.iinfo(np.int64).min
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d+)?)?Z?)?")


def micros(times: npt.NDArray[Any]) -> IntArray:
    """datetime64 of any unit -> int64 microseconds since 1970; NaT becomes NEVER."""
    values = times.astype("datetime64[us]").astype(np.int64)
    return np.where(values == _NAT, NEVER, values)


def dictionary(values: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int32], ObjectArray]:
    """Texts -> (codes, levels in order of first appearance); None gets -1."""
    places: dict[Any, int] = {}
    codes = np.fromiter(
        (-1 if v is None else places.setdefault(v, len(places)) for v in values),
        dtype=np.int32,
        count=len(values),
    )
    levels = np.empty(len(places), dtype=object)
    levels[:] = [str(v) for v in places]
    return codes, levels


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
class Column:
    """Values of one field for some rows: numbers, or dictionary-encoded texts.

    `values` is float64 with NaN for missing (kind "number"), or `codes` int32 with -1 for
    missing into `levels` (kind "text").
    """

    kind: Literal["number", "text"]
    values: npt.NDArray[Any]
    levels: ObjectArray

    def take(self, rows: IntArray, present: BoolArray) -> Column:
        """The values at rows, missing where not present."""
        picked = self.values[rows]
        absent = np.nan if self.kind == "number" else -1
        return Column(self.kind, np.where(present, picked, absent), self.levels)

    def numbers(self) -> FloatArray:
        """The values as float64; a text column is all missing."""
        if self.kind == "number":
            return self.values
        return np.full(len(self.values), np.nan)

    def texts(self) -> ObjectArray:
        """The values as text or None; numbers as people write them."""
        if self.kind == "text":
            with_none = np.append(self.levels, None)
            return with_none[self.values]
        out = np.empty(len(self.values), dtype=object)
        out[:] = [None if math.isnan(v) else f"{v:g}" for v in self.values]
        return out


_NO_LEVELS: ObjectArray = np.zeros(0, dtype=object)


def to_column(values: npt.NDArray[Any], kind: Literal["number", "text"] | None = None) -> Column:
    """Stored values -> a column. Times and dates become days since 1970.

    Without `kind`, objects that are all numbers, booleans or missing become numbers.
    """
    if values.dtype.kind == "f":
        return Column("number", values, _NO_LEVELS)
    if values.dtype.kind == "M":
        whole = values.astype("datetime64[us]").astype(np.int64)
        return Column("number", np.where(whole == _NAT, np.nan, whole / DAY), _NO_LEVELS)
    if kind != "text" and all(v is None or isinstance(v, bool | int | float) for v in values):
        numbers = np.fromiter(
            (math.nan if v is None else float(v) for v in values), np.float64, len(values)
        )
        return Column("number", numbers, _NO_LEVELS)
    codes, levels = dictionary(np.array([_as_text(v) for v in values] + [None], object)[:-1])
    return Column("text", codes, levels)


def dates_in(values: npt.NDArray[Any]) -> FloatArray | None:
    """Days since 1970 where every text is an ISO 8601 date or time; None where one is not."""
    texts = [v for v in values if v is not None]
    if not texts or not all(isinstance(v, str) and _ISO_DATE.fullmatch(v) for v in texts):
        return None
    try:
        days = [
            math.nan
            if v is None
            else np.datetime64(v.removesuffix("Z"), "us").astype(np.int64) / DAY
            for v in values
        ]
    except ValueError:  # the shape of a date, but not one: 2024-02-30
        return None
    return np.array(days, dtype=np.float64)


def _as_text(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, list):
        return ";".join(sorted(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Events:
    """Events grouped by record and, inside a record, in the order they became known.

    Attributes
    ----------
    start : int64, shape (n_records + 1,)
        The events of record r are [start[r], start[r + 1]).
    row, at, known_at, value : int64, shape (n_events,)
        The record, when it happened, when it was known, what it was.
    newest : int64, shape (n_events,)
        Among the events of the record up to this one, the position of the one that happened
        last: what "current" means once everything up to here is known.
    in_order : bool, shape (n_records,)
        Whether the record's events became known in the order they happened.
    """

    start: IntArray
    row: IntArray
    at: IntArray
    known_at: IntArray
    value: IntArray
    newest: IntArray
    in_order: BoolArray

    def known(self, rows: IntArray, at: IntArray) -> tuple[IntArray, IntArray]:
        """Bounds [lo, hi) of the events of each row that were known at its moment."""
        lo = self.start[rows]
        return lo, rank_within(self.known_at, lo, self.start[rows + 1], at)

    def latest(self, lo: IntArray, hi: IntArray) -> IntArray:
        """Position of the event that happened last among [lo, hi); -1 where there is none."""
        if len(self.newest) == 0:
            return np.full(len(lo), -1, dtype=np.int64)
        return np.where(hi > lo, self.newest[np.maximum(hi - 1, 0)], -1)

    def pick(self, position: IntArray, absent: int) -> IntArray:
        """Values at positions, `absent` where the position is -1."""
        if len(self.value) == 0:
            return np.full(len(position), absent, dtype=np.int64)
        return np.where(position >= 0, self.value[position], absent)

    def count_since(
        self, rows: IntArray, lo: IntArray, hi: IntArray, since: IntArray, value: int | None = None
    ) -> IntArray:
        """How many of [lo, hi) happened at or after `since` (and equal `value`).

        Shape (m,). Records whose events became known out of order, and counts by value, go
        through every event; the others need two searches.
        """
        if value is None:
            ordered = self.in_order[rows]
            count = np.where(ordered, hi - rank_within(self.at, lo, hi, since, "left"), 0)
            rest = np.flatnonzero(~ordered)
        else:
            count = np.zeros(len(rows), dtype=np.int64)
            rest = np.flatnonzero(hi > lo)
        if len(rest):
            size = hi[rest] - lo[rest]
            which = np.repeat(np.arange(len(rest)), size)
            position = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
            position += np.repeat(lo[rest], size)
            counts = self.at[position] >= since[rest][which]
            if value is not None:
                counts &= self.value[position] == value
            count[rest] = np.bincount(which, weights=counts, minlength=len(rest)).astype(np.int64)
        return count

    def without_repeats(self, first: int | None = None) -> Events:
        """Drop events that repeat the value before them, in the order they happened.

        `first` is the value before any event, if there is one. Out-of-order records keep all
        their events: which one repeats depends on what was known.
        """
        if len(self.row) == 0:
            return self
        new_record = np.r_[True, self.row[1:] != self.row[:-1]]
        before = np.r_[self.value[:1], self.value[:-1]]
        repeat = ~new_record & (self.value == before)
        if first is not None:
            repeat |= new_record & (self.value == first)
        keep = ~repeat | ~self.in_order[self.row]
        events, _ = group_events(
            len(self.start) - 1,
            self.row[keep],
            self.at[keep],
            self.known_at[keep],
            np.arange(keep.sum(), dtype=np.float64),
            self.value[keep],
        )
        return events


def group_events(
    n: int, row: IntArray, at: IntArray, known_at: IntArray, sequence: FloatArray, value: IntArray
) -> tuple[Events, IntArray]:
    """Sort events by record and time known; returns them and the order taken."""
    order = np.lexsort((np.nan_to_num(sequence), at, known_at, row))
    row, at, known_at, value = row[order], at[order], known_at[order], value[order]
    start = np.searchsorted(row, np.arange(n + 1)).astype(np.int64)
    newest = np.arange(len(row), dtype=np.int64)
    in_order = np.ones(n, dtype=bool)
    backwards = np.flatnonzero((row[1:] == row[:-1]) & (at[1:] < at[:-1]))
    for record in np.unique(row[backwards]):
        in_order[record] = False
        best = start[record]
        for position in range(start[record], start[record + 1]):
            if at[position] >= at[best]:
                best = position
            newest[position] = best
    return Events(start, row, at, known_at, value, newest, in_order), order


@dataclass(frozen=True)
class Timeline:
    """One field of every record through time.

    `base` is the value before any change, counted from `base_at`; `changes` the later ones
    (`value` = position in `changed`).
    """

    base: Column
    base_at: IntArray
    changes: Events | None
    changed: Column | None

    @classmethod
    def nothing(cls, n: int) -> Timeline:
        """A field nobody has ever seen."""
        return cls.constant(
            Column("number", np.full(n, np.nan), _NO_LEVELS), np.full(n, NEVER, dtype=np.int64)
        )

    @classmethod
    def constant(cls, values: Column, since: IntArray) -> Timeline:
        """A field without changes."""
        return cls(values, since, None, None)

    @classmethod
    def with_changes(
        cls,
        now: Column,
        base_at: IntArray,
        *,
        row: IntArray,
        at: IntArray,
        known_at: IntArray,
        sequence: FloatArray,
        old: ObjectArray,
        new: ObjectArray,
    ) -> Timeline:
        """A field with kept changes: before the first one, its old value held."""
        events, _ = group_events(len(base_at), row, at, known_at, sequence, np.arange(len(row)))
        first = events.start[:-1][events.start[1:] > events.start[:-1]]
        base = now.texts() if now.kind == "text" else now.values.copy()
        olds = _parse_changed(old[events.value[first]], now)
        base[events.row[first]] = olds
        news = _parse_changed(new[events.value], now)
        return cls(to_column(base, now.kind), base_at, events, to_column(news, now.kind))

    def at(self, rows: IntArray, at: IntArray) -> Column:
        """The value known at each row's moment."""
        base = self.base.take(rows, self.base_at[rows] <= at)
        if self.changes is None or self.changed is None:
            return base
        last = self.changes.latest(*self.changes.known(rows, at))
        moved = last >= 0
        if not moved.any():
            return base
        changed = self.changed.take(np.maximum(last, 0), moved)
        if base.kind == "number":
            return Column("number", np.where(moved, changed.values, base.values), _NO_LEVELS)
        return to_column(np.where(moved, changed.texts(), base.texts()))

    def count(self, rows: IntArray, at: IntArray) -> IntArray:
        """How many changes were known at each row's moment."""
        if self.changes is None:
            return np.zeros(len(rows), dtype=np.int64)
        lo, hi = self.changes.known(rows, at)
        return hi - lo


def _parse_changed(values: ObjectArray, like: Column) -> npt.NDArray[Any]:
    """Texts of a change -> numbers where the field is a number, texts otherwise."""
    if like.kind == "text":
        return values
    return np.array([_to_number(v) for v in values], dtype=np.float64)


def _to_number(value: object) -> float:
    if value is None:
        return math.nan
    text = str(value)
    if text in ("true", "false"):
        return float(text == "true")
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return float(np.datetime64(text.removesuffix("Z"), "us").astype(np.int64) / DAY)
    except ValueError:
        return math.nan
