"""When records closed and reopened: from stages that close, kept outcome changes, and the rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.chronicle import LOST, OPEN, WON, Side, known_times
from data.columns import (
    DAY,
    NEVER,
    BoolArray,
    FloatArray,
    IntArray,
    codes_in,
    dictionary,
    micros,
    number_of,
    places,
)
from data.events import Events, group_events, prefixes, run_starts
from data.records import Table

__all__ = ["closing_events", "first_of_each", "stages_that_close"]

_OUTCOME_CODES = {"open": OPEN, "won": WON, "lost": LOST, "qualified": WON, "disqualified": LOST}
_CLOSED_AT = {"deal": ("closed_at", "closed_at"), "lead": ("qualified_at", "disqualified_at")}


def stages_that_close(stage: Table) -> dict[str, int]:
    """Stages that close a record, by id, with the outcome code."""
    return {
        s: _OUTCOME_CODES[k]
        for s, k in zip(stage["stage_id"].tolist(), stage["kind"].tolist(), strict=True)
        if k in ("won", "lost")
    }


def first_of_each(rows: IntArray, at: IntArray, sequence: FloatArray) -> IntArray:
    """Position of each record's first event in time."""
    order = np.lexsort((np.nan_to_num(sequence), at, rows))
    first = np.r_[True, rows[order][1:] != rows[order][:-1]][: len(order)]
    return np.asarray(order[first])


@dataclass(frozen=True)
class _Told:
    """Outcomes that rows of events tell; arrays of shape (t,).

    `before` is the outcome that each one ended; `precise` whether its time is the source's own.
    """

    row: IntArray
    at: IntArray
    known_at: IntArray
    sequence: FloatArray
    value: IntArray
    before: IntArray
    precise: BoolArray


def closing_events(
    side: Side,
    table: Table,
    moves: Table,
    changes: Table,
    known_from: IntArray,
    stage: Table,
    pseudo: bool,
) -> Events:
    """Closings and reopenings of every record (`value` = OPEN, WON, LOST).

    The row says how a record stands and, by its closing date, since when; moves and kept
    changes say what was before, and when the closing was known. A closing that the row dates
    back counts on that date, but is known only when it was told. A date alone (00:00 of the day
    on which a precise time is told) does not move it.
    """
    n = len(table)
    parts = [_from_moves(side, table, moves, stage), _from_flips(side, table, changes)]
    if any((part.before != OPEN).any() for part in parts):
        parts.append(_stood_before(side, table, changes, known_from, parts))
    row, at, known_at, sequence, value, precise = (
        np.concatenate([getattr(p, name) for p in parts])
        for name in ("row", "at", "known_at", "sequence", "value", "precise")
    )
    events, order = group_events(n, row, at, known_at, sequence, value)
    told = ~events.repeats(first=OPEN)
    events, precise = events.where(told), precise[order][told]
    own_row, own_at, own_known, own_value = _from_rows(
        side, table, events, precise, known_from, pseudo
    )
    everything, _ = group_events(
        n,
        np.concatenate([events.row, own_row]),
        np.concatenate([events.at, own_at]),
        np.concatenate([events.known_at, own_known]),
        np.r_[np.arange(len(events.row), dtype=np.float64), np.full(len(own_row), np.inf)],
        np.concatenate([events.value, own_value]),
    )
    return everything.without_repeats(first=OPEN)


def _own_ids(side: Side, table: Table) -> npt.NDArray[np.object_]:
    return table[f"{side}_id"]


def _from_moves(side: Side, table: Table, moves: Table, stage: Table) -> _Told:
    """A move into a stage that closes is a closing, any other one finds the record open."""
    closing = stages_that_close(stage)
    rows = places(_own_ids(side, table), moves["entity_id"])
    here = np.flatnonzero(rows >= 0) if closing else np.zeros(0, dtype=np.int64)
    moves = moves.take(here)
    return _told(rows[here], moves, "to_stage_id", "from_stage_id", closing)


def _from_flips(side: Side, table: Table, changes: Table) -> _Told:
    """Kept changes of the outcome itself."""
    flips = _changes_of(changes, "outcome")
    rows = places(_own_ids(side, table), flips["entity_id"])
    return _told(rows[rows >= 0], flips.take(rows >= 0), "new_value", "old_value", _OUTCOME_CODES)


def _changes_of(changes: Table, field: str) -> Table:
    codes, levels = dictionary(changes["field"])
    return changes.take(np.flatnonzero(codes_in(levels, codes, {field})))


def _told(rows: IntArray, table: Table, new: str, old: str, meaning: dict[str, int]) -> _Told:
    def outcomes(name: str) -> IntArray:
        codes, levels = dictionary(table[name])
        means = [meaning.get(level, OPEN) for level in levels.tolist()]
        return np.array([*means, OPEN], dtype=np.int64)[codes]

    codes, levels = dictionary(table["provenance"])
    return _Told(
        rows,
        micros(table["changed_at"]),
        known_times(table),
        table["sequence"],
        outcomes(new),
        outcomes(old),
        ~codes_in(levels, codes, {"snapshot_diff"}),
    )


def _stood_before(
    side: Side, table: Table, changes: Table, known_from: IntArray, parts: list[_Told]
) -> _Told:
    """Closings that nothing tells, because the record was closed when it was first seen.

    They show in what the first change ended. The kept changes of the outcome are believed, the
    moves where there are none.
    """
    n = len(table)
    since = _first_closed_at(side, table, changes)
    done = np.zeros(n, dtype=bool)
    found = []
    for part in reversed(parts):
        first = first_of_each(part.row, part.at, part.sequence)
        first = first[~done[part.row[first]]]
        done[part.row[first]] = True
        first = first[part.before[first] != OPEN]
        row = part.row[first]
        at = np.minimum(np.where(since[row] <= part.at[first], since[row], NEVER), part.at[first])
        known = np.minimum(np.maximum(at, known_from[row]), part.known_at[first])
        found.append((row, at, known, part.before[first]))
    row, at, known, value = (np.concatenate(x) for x in zip(*found, strict=True))
    none = np.zeros(len(row), dtype=bool)
    return _Told(row, at, known, np.full(len(row), -1.0), value, value, none)


def _first_closed_at(side: Side, table: Table, changes: Table) -> IntArray:
    """The closing date that each row had first, or its creation where it never had one."""
    since = np.full(len(table), NEVER, dtype=np.int64)
    for name in _CLOSED_AT[side]:
        since = np.minimum(since, micros(table[name]))
        kept = _changes_of(changes, name)
        rows = places(_own_ids(side, table), kept["entity_id"])
        kept, rows = kept.take(rows >= 0), rows[rows >= 0]
        first = first_of_each(rows, micros(kept["changed_at"]), kept["sequence"])
        days = np.array([number_of(t) for t in kept["old_value"][first].tolist()])
        real = ~np.isnan(days)
        since[rows[first][real]] = (days[real] * DAY).round().astype(np.int64)
    return np.where(since == NEVER, micros(table["created_at"]), since)


def _from_rows(
    side: Side,
    table: Table,
    told: Events,
    precise: BoolArray,
    known_from: IntArray,
    pseudo: bool,
) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """The last closing as the rows tell it: record, time, time known, outcome."""
    codes, levels = dictionary(table["outcome"])
    final = np.array([*(_OUTCOME_CODES.get(x, OPEN) for x in levels), OPEN], dtype=np.int64)[codes]
    won_at, lost_at = (micros(table[name]) for name in _CLOSED_AT[side])
    at = np.where(final == WON, won_at, lost_at)
    if pseudo:  # times from the order of rows: the outcome comes right after the record
        at = np.where((at == NEVER) & (known_from != NEVER), known_from + 1, at)
    recorded = micros(table["recorded_at"])
    assumed = (table["recorded_assumed"] == 1.0) | (recorded == NEVER)
    known = np.where(assumed, at, np.maximum(at, recorded))
    last, before = _last_two(told)
    if len(told.row):
        value, when, since = told.value[last], told.at[last], told.known_at[last]
        same = (last >= 0) & (value == final)
        # A reopening that was told cannot lie after the closing that followed it.
        earlier = np.where(same, before, last)
        at = np.where(earlier >= 0, np.maximum(at, told.at[earlier]), at)
        known = np.where(same, np.maximum(at, since), np.maximum(at, known))
        known = np.where((last >= 0) & ~same, np.maximum(known, since), known)
        alone = same & precise[last] & (when >= at) & (when - at < DAY)
        final = np.where(alone, OPEN, final)
    here = np.flatnonzero((final != OPEN) & (at != NEVER))
    return here, at[here], known[here], final[here]


def _last_two(events: Events) -> tuple[IntArray, IntArray]:
    """Of each record, the events that began its last spell and the one before; -1 for none."""
    begin, end = events.start[:-1], events.start[1:]
    last = np.where(end > begin, end - 1, -1)
    before = np.where(end - begin > 1, end - 2, -1)
    for record in np.flatnonzero(~events.in_order):
        *_, (_, line) = prefixes(events, int(record))
        starts = [-1, -1, *run_starts(events.value, line, OPEN)]
        before[record], last[record] = starts[-2:]
    return last, before
