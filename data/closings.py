"""When records closed and reopened: from stages that close, kept outcome changes, and the rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.chronicle import LOST, OPEN, WON, Side, known_times
from data.closing_dates import ClosingDates, changes_of
from data.columns import (
    NEVER,
    BoolArray,
    FloatArray,
    IntArray,
    codes_in,
    dictionary,
    micros,
    places,
)
from data.events import Events, group_events
from data.records import Table

__all__ = ["closing_events", "first_of_each", "stages_that_close"]

_OUTCOME_CODES = {"open": OPEN, "won": WON, "lost": LOST, "qualified": WON, "disqualified": LOST}


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

    Moves and kept changes say what happened, and when it was known; the row says how the record
    stands, where they do not, and the closing dates: see `data.closing_dates`.
    """
    n = len(table)
    dates = ClosingDates.of(side, table, changes)
    parts = [_from_moves(side, table, moves, stage), _from_flips(side, table, changes)]
    if any((part.before != OPEN).any() for part in parts):
        parts.append(_stood_before(table, dates, known_from, parts))
    row, at, known_at, sequence, value, precise = (
        np.concatenate([getattr(p, name) for p in parts])
        for name in ("row", "at", "known_at", "sequence", "value", "precise")
    )
    events, order = group_events(n, row, at, known_at, sequence, value)
    told = ~events.repeats(first=OPEN)
    events, precise = _with_rows(
        table, events.where(told), precise[order][told], dates, known_from, pseudo
    )
    return dates.applied(events, precise).without_repeats(first=OPEN)


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
    flips = changes_of(changes, "outcome")
    rows = places(_own_ids(side, table), flips["entity_id"])
    return _told(rows[rows >= 0], flips.take(rows >= 0), "new_value", "old_value", _OUTCOME_CODES)


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
    table: Table, dates: ClosingDates, known_from: IntArray, parts: list[_Told]
) -> _Told:
    """Closings that nothing tells, because the record was closed when it was first seen.

    They show in what the first change ended. The kept changes of the outcome are believed, the
    moves where there are none.
    """
    n = len(table)
    created = micros(table["created_at"])
    done = np.zeros(n, dtype=bool)
    found = []
    for part in reversed(parts):
        first = first_of_each(part.row, part.at, part.sequence)
        first = first[~done[part.row[first]]]
        done[part.row[first]] = True
        first = first[part.before[first] != OPEN]
        row = part.row[first]
        since = dates.base(row, part.before[first])
        since = np.where(since == NEVER, created[row], since)
        at = np.minimum(since, part.at[first])
        known = np.minimum(np.maximum(at, known_from[row]), part.known_at[first])
        found.append((row, at, known, part.before[first]))
    row, at, known, value = (np.concatenate(x) for x in zip(*found, strict=True))
    none = np.zeros(len(row), dtype=bool)
    return _Told(row, at, known, np.full(len(row), -1.0), value, value, none)


def _with_rows(
    table: Table,
    told: Events,
    precise: BoolArray,
    dates: ClosingDates,
    known_from: IntArray,
    pseudo: bool,
) -> tuple[Events, BoolArray]:
    """The events, and the closings that only the rows tell: flag against flag, the row's stands."""
    codes, levels = dictionary(table["outcome"])
    final = np.array([*(_OUTCOME_CODES.get(x, OPEN) for x in levels), OPEN], dtype=np.int64)[codes]
    last = told.latest(told.start[:-1], told.start[1:])
    silent = np.flatnonzero((final != OPEN) & (told.pick(last, OPEN) != final))
    final, last = final[silent], last[silent]
    at, since = dates.first(silent, final)
    contradicted = last >= 0
    if pseudo:  # times from the order of rows: the outcome comes right after the record
        made_up = (at == NEVER) & (known_from[silent] != NEVER)
        at = np.where(made_up, known_from[silent] + 1, at)
    recorded = micros(table["recorded_at"])[silent]
    assumed = (table["recorded_assumed"][silent] == 1.0) | (recorded == NEVER)
    known = np.maximum(np.where(assumed, at, np.maximum(at, recorded)), since)
    if len(told.row):
        at = np.where(contradicted, np.maximum(at, told.at[last]), at)
        known = np.where(contradicted, np.maximum(known, told.known_at[last]), known)
    dated = at != NEVER
    events, order = group_events(
        len(table),
        np.concatenate([told.row, silent[dated]]),
        np.concatenate([told.at, at[dated]]),
        np.concatenate([told.known_at, np.maximum(known, at)[dated]]),
        np.arange(len(told.row) + dated.sum(), dtype=np.float64),
        np.concatenate([told.value, final[dated]]),
    )
    return events, np.concatenate([precise, np.zeros(dated.sum(), dtype=bool)])[order]
