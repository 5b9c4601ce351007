"""The ledger of the leads, or the deals: records, their events, and their values through time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data.columns import (
    NEVER,
    BoolArray,
    Column,
    FloatArray,
    IntArray,
    codes_in,
    dates_in,
    dictionary,
    micros,
    places,
    to_column,
)
from data.events import Events, Runs, prefixes, run_starts, runs_of
from data.records import SourceFacts, Table
from data.timelines import Changes, Timeline

__all__ = [
    "LOST",
    "OPEN",
    "WON",
    "Ledger",
    "Plans",
    "Side",
    "StagePath",
    "first_shown",
    "known_times",
]

Side = Literal["lead", "deal"]

OPEN, WON, LOST = 0, 1, 2  # outcome codes; a qualified lead is WON, a disqualified one LOST
_FULL_HISTORY = {"native", "field_history", "audit"}
# Fields that the ledger itself turns into events or moments of their own.
_HANDLED = {
    "deal": {"deal_id", "created_at", "stage_id", "outcome", "closed_at", "deleted_at"},
    "lead": {"lead_id", "created_at", "outcome", "qualified_at", "disqualified_at", "deleted_at"},
}


def known_times(table: Table) -> IntArray:
    """When each event was known: the later of happening and being recorded."""
    happened = micros(table[table.entity.happened])
    recorded = micros(table["recorded_at"])
    return np.where(recorded == NEVER, happened, np.maximum(happened, recorded))


def first_shown(table: Table, otherwise: IntArray) -> IntArray:
    """Since when a source has shown each record; `otherwise` where no source says."""
    first, seen = micros(table["first_seen_at"]), micros(table["seen_at"])
    first = np.where(first == NEVER, seen, first)
    return np.where(first == NEVER, otherwise, first)


@dataclass(frozen=True)
class Plans:
    """Planned activities by record, in order of their due times.

    Attributes
    ----------
    start : int64, shape (n_records + 1,)
        The plans of record r are [start[r], start[r + 1]).
    due, known_at, done_at : int64 microseconds, shape (p,)
        When it is planned for, since when that is known, when it took place (NEVER: not).
    """

    start: IntArray
    due: IntArray
    known_at: IntArray
    done_at: IntArray


@dataclass(frozen=True)
class StagePath:
    """The way through the stages, as known at each stage event; arrays of shape (n_events,).

    Attributes
    ----------
    since : int64 microseconds
        When the current stage was entered.
    moves, visits : int64
        Moves between stages, and times that the current one was entered.
    backward, skipped : float64
        Moves to an earlier stage, and stages jumped over.
    """

    since: IntArray
    moves: IntArray
    visits: IntArray
    backward: FloatArray
    skipped: FloatArray


@dataclass(frozen=True)
class Ledger:
    """All that is known about the leads, or the deals, as columns.

    Attributes
    ----------
    ids : ndarray of object, shape (n,)
    created_at, known_from, gone_at : int64 microseconds, shape (n,)
        When the record came into being, since when it is known, since when it is known to have
        left (deleted or merged). `known_from` is NEVER for a record without a creation time: it
        stays outside timing.
    outcomes : Events
        Changes of outcome (`value` = OPEN, WON, LOST), the first opening not included.
    stages : Events
        Stages entered (`value` = code into `stage_levels`).
    stage_order : float64, shape (levels,)
        Place of each stage level in its pipeline, from 1; NaN where the stages do not say.
    activities : Events
        Activities that took place (`value` = code into `activity_levels`, -1 for no type).
    plans : Plans
        Activities that are planned for a moment.
    qualifications : Events
        Answers (`value` = row of `qualification_table`).
    stakeholders : Events
        People involved, by the time that this was recorded.
    table : Table
        The rows as stored now; read a value from it only through `Snapshot.value`.
    changes : Table
        The kept changes of fields.
    memory : dict
        Results that several features share, by name.
    """

    side: Side
    ids: npt.NDArray[np.object_]
    created_at: IntArray
    known_from: IntArray
    gone_at: IntArray
    outcomes: Events
    stages: Events
    stage_levels: npt.NDArray[np.object_]
    stage_order: FloatArray
    activities: Events
    activity_levels: npt.NDArray[np.object_]
    plans: Plans
    qualifications: Events
    qualification_table: Table
    stakeholders: Events
    table: Table
    changes: Table
    facts: tuple[SourceFacts, ...]
    pseudo_times: bool
    memory: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    _timelines: dict[str, Timeline] = field(default_factory=dict, compare=False, repr=False)
    _answers: dict[str, Column] = field(default_factory=dict, compare=False, repr=False)
    _by_type: dict[str, Events] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Position of each id."""
        return {str(i): n for n, i in enumerate(self.ids.tolist())}

    def timeline(self, name: str) -> Timeline:
        """The known values of a field or attribute through time."""
        if name not in self._timelines:
            self._timelines[name] = self._build_timeline(name)
        return self._timelines[name]

    def answer(self, name: str) -> Column:
        """One field of the qualification answers, by row of `qualification_table`."""
        if name not in self._answers:
            values = self.qualification_table[name]
            kind: Literal["text"] | None = "text" if values.dtype == object else None
            self._answers[name] = to_column(values, kind)
        return self._answers[name]

    def activities_of(self, kind: str) -> Events:
        """The activities of one type."""
        if kind not in self._by_type:
            code = {str(level): i for i, level in enumerate(self.activity_levels)}.get(kind, -2)
            self._by_type[kind] = self.activities.only(code)
        return self._by_type[kind]

    @cached_property
    def fields(self) -> dict[str, str]:
        """Names that have a value anywhere, with their kind; attributes included."""
        table = self.table
        declared = {
            f.name: f.kind
            for f in table.entity.fields
            if f.kind != "json" and f.name not in _HANDLED[self.side]
        }
        found = {n: str(k) for n, k in declared.items() if not _all_missing(table[n])}
        for name, values in table.attributes.items():
            if not _all_missing(values):
                found[name] = "date" if dates_in(values) is not None else to_column(values).kind
        return found

    def excluded(self, name: str) -> bool:
        """Whether any source forbids `name` as a feature."""
        return any(name in f.excluded.get(self.side, ()) for f in self.facts)

    @cached_property
    def seen_at(self) -> IntArray:
        """Since when a source has shown the record, int64 microseconds."""
        return first_shown(self.table, self.known_from)

    @cached_property
    def stage_runs(self) -> Runs:
        """Spells in one stage, as known at each stage event."""
        return runs_of(self.stages)

    @cached_property
    def stage_path(self) -> StagePath:
        """The way through the stages, as known at each stage event."""
        return _stage_path(self.stages, self.stage_runs, self.stage_order)

    @cached_property
    def first_touch(self) -> IntArray:
        """When somebody first did something with each record, as known; int64 microseconds, (n,).

        An activity, a move to a stage, an answer or a changed field after the record was known;
        what came with the record does not count. NEVER where nothing is recorded.
        """
        found = np.full(len(self), NEVER, dtype=np.int64)
        for events in (self.activities, self.stages, self.qualifications):
            later = events.at > self.known_from[events.row]
            np.minimum.at(found, events.row[later], events.known_at[later])
        row, at = self._change_rows, micros(self.changes["changed_at"])
        later = (row >= 0) & (at > self.known_from[row]) if len(self) else np.zeros(0, dtype=bool)
        np.minimum.at(found, row[later], known_times(self.changes)[later])
        return found

    def _from_source(self, sources: set[str]) -> BoolArray:
        """Rows that one of some sources brought; "" stands for no source."""
        if not sources:
            return np.zeros(len(self), dtype=bool)
        codes, levels = self._source
        none = "" in sources
        return np.asarray(codes_in(levels, codes, sources) | (none & (codes < 0)))

    @cached_property
    def _source(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.object_]]:
        return dictionary(self.table["source"])

    def _build_timeline(self, name: str) -> Timeline:
        now = self._now(name)
        if now is None:
            return Timeline.nothing(len(self))
        picked = self._changes_by_field.get(name, np.zeros(0, dtype=np.int64))
        static = self._from_source({f.name for f in self.facts if self._is_static(f, name)})
        static |= self._from_source(self._keepers(picked))
        declared = self.table.entity.by_name.get(name)
        if declared is not None and declared.static:
            static[:] = True
        # Without history or the word that it never changes, a value counts from when it was shown.
        base_at = np.where(static, self.known_from, np.maximum(self.seen_at, self.known_from))
        if len(picked) == 0:
            return Timeline.constant(now, base_at)
        changes = self.changes.take(picked)
        listed = isinstance(next(_given(self.table.attributes.get(name)), None), list)
        return Timeline.with_changes(
            now,
            base_at,
            Changes(
                row=self._change_rows[picked],
                at=micros(changes["changed_at"]),
                known_at=known_times(changes),
                sequence=changes["sequence"],
                old=_sorted_parts(changes["old_value"]) if listed else changes["old_value"],
                new=_sorted_parts(changes["new_value"]) if listed else changes["new_value"],
            ),
        )

    def _now(self, name: str) -> Column | None:
        """The values as the rows say them now; None for a name they do not know."""
        if name in self.table.columns:
            values = self.table[name]
            return to_column(values, "text" if values.dtype == object else None)
        if name in self.table.attributes:
            days = dates_in(self.table.attributes[name])
            return to_column(self.table.attributes[name] if days is None else days)
        return None

    def _is_static(self, facts: SourceFacts, name: str) -> bool:
        return name in facts.static.get(self.side, ())

    def _keepers(self, picked: IntArray) -> set[str]:
        """Sources that keep the history of a field, told by its changes, from the start.

        That a source keeps it is taken as a fact about the source, like `static`: it does not
        matter when the first change happened.
        """
        codes, levels = self._change_provenance
        full = picked[codes_in(levels, codes[picked], _FULL_HISTORY)]
        return {"" if s is None else str(s) for s in set(self.changes["source"][full].tolist())}

    @cached_property
    def _change_provenance(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.object_]]:
        return dictionary(self.changes["provenance"])

    @cached_property
    def _change_rows(self) -> IntArray:
        return places(self.ids, self.changes["entity_id"])

    @cached_property
    def _changes_by_field(self) -> dict[str, IntArray]:
        """Positions in `changes`, of records that exist, by field."""
        codes, levels = dictionary(self.changes["field"])
        codes = np.where(self._change_rows >= 0, codes, -1)
        order = np.argsort(codes, kind="stable")
        start = np.searchsorted(codes[order], np.arange(len(levels) + 1))
        return {
            str(level): order[start[i] : start[i + 1]]
            for i, level in enumerate(levels)
            if start[i + 1] > start[i]
        }


def _given(values: npt.NDArray[np.object_] | None) -> Iterator[Any]:
    return (v for v in ([] if values is None else values.tolist()) if v is not None)


def _sorted_parts(texts: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    """Texts of lists, "b;a", in the order in which lists are told."""
    out = np.empty(len(texts), dtype=object)
    out[:] = [None if t is None else ";".join(sorted(t.split(";"))) for t in texts.tolist()]
    return out


def _all_missing(values: npt.NDArray[Any]) -> bool:
    if values.dtype == object:
        return all(v is None for v in values.tolist())
    return bool(np.isnan(values).all() if values.dtype.kind == "f" else np.isnat(values).all())


def _stage_path(stages: Events, runs: Runs, order: FloatArray) -> StagePath:
    """Array operations for events known in the order they happened, a walk for the others."""
    n = len(stages.row)
    place = np.append(order, np.nan)[stages.value] if n else np.zeros(0)
    first = np.arange(n) == stages.start[stages.row]
    step = _steps(place)
    step[first] = 0.0
    backward = _running(step < 0, stages.start, stages.row)
    skipped = _running(np.maximum(step - 1.0, 0.0), stages.start, stages.row)
    visits = _visits(stages)
    for record in np.flatnonzero(~stages.in_order):
        for position, line in prefixes(stages, int(record)):
            starts = run_starts(stages.value, line, None)
            walked = _steps(place[starts])[1:]
            backward[position] = float((walked < 0).sum())
            skipped[position] = float(np.maximum(walked - 1.0, 0.0).sum())
            current = stages.value[starts[-1]]
            visits[position] = int((stages.value[starts] == current).sum())
    return StagePath(stages.at[runs.began], runs.count - 1, visits, backward, skipped)


def _steps(place: FloatArray) -> FloatArray:
    """How far each event moved; 0 where either place is unknown."""
    return np.asarray(np.nan_to_num(np.diff(place, prepend=np.nan)))


def _running(amount: npt.NDArray[Any], start: IntArray, row: IntArray) -> FloatArray:
    """Running sums inside each record."""
    total = np.r_[0.0, np.cumsum(amount)]
    return np.asarray(total[1:] - total[start[row]])


def _visits(stages: Events) -> IntArray:
    """How often the stage of each event had been entered by then."""
    n = len(stages.row)
    order = np.lexsort((stages.value, stages.row))
    row, value = stages.row[order], stages.value[order]
    new = np.r_[True, (row[1:] != row[:-1]) | (value[1:] != value[:-1])][:n]
    group = np.maximum.accumulate(np.where(new, np.arange(n), 0))
    visits = np.empty(n, dtype=np.int64)
    visits[order] = np.arange(n) - group + 1
    return visits
