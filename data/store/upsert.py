"""Writing rows into the store: what is new, what is known, what changed.

Records are merged into what is stored, and every change of a lead or deal is noted as an event of
its own; events are appended once and never change. Everything here runs inside the one
transaction, under the one write lock, that `data.store.Store.write` opens: so a key looked up is
still unknown when its row is inserted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa

from data.records import ENTITIES, Entity, SourceFacts, Table
from data.store.rows import Layout, Row, encode, value_text
from data.store.statements import insert_rows, stored_hashes, stored_rows, update_rows
from data.store.tables import ENTITY_TABLES, StoreError

__all__ = ["ConflictError", "Written", "write_tables"]

_CHUNK = 50_000
_DERIVED = "snapshot_diff"  # provenance of changes noticed here, by comparing two states


class ConflictError(StoreError):
    """An event came with the key of a stored event, but says something else."""


@dataclass(frozen=True)
class Written:
    """What became of the rows given; the four numbers add up to their count.

    Attributes
    ----------
    inserted, updated, unchanged : int
    stale : int
        Rows of records seen earlier than the state in the store: not applied, since the store
        knows newer. Import exports oldest first to have their changes noted.
    """

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    stale: int = 0

    def __add__(self, other: Written) -> Written:
        return Written(
            self.inserted + other.inserted,
            self.updated + other.updated,
            self.unchanged + other.unchanged,
            self.stale + other.stale,
        )


class _Verdict(Enum):
    UNCHANGED = "unchanged"
    STALE = "stale"


# (stored row, row given) -> the row to store, or why none.
_Settle = Callable[[Row, Row], Row | _Verdict]


def write_tables(
    connection: sa.Connection,
    tables: Sequence[Table],
    *,
    at: np.datetime64,
    facts: SourceFacts | None,
    progress: Callable[[int], None],
) -> dict[str, Written]:
    """Write all tables; the counts are of the rows given, by entity.

    Raises
    ------
    ConflictError
        If an event is known with other content.
    RecordError
        If a value is not what its field accepts.
    """
    changes = _Changes(brought=_stages_brought(tables))
    written: dict[str, Written] = {}
    # Events first: a change that the batch tells itself is not noted a second time.
    for table in sorted(tables, key=lambda t: not t.entity.event):
        entity = table.entity
        upsert = _Upsert(connection, entity, len(table))
        settle = _settle_event(entity) if entity.event else _settle_record(entity, changes)
        for chunk in _chunks(_in_order(_stamped(table, at, facts))):
            done = upsert.write(encode(chunk), settle, changes)
            written[entity.name] = written.get(entity.name, Written()) + done
            progress(len(chunk))
    for table in changes.tables():
        upsert = _Upsert(connection, table.entity, len(table))
        upsert.write(encode(_stamped(table, at, None)), _settle_derived(table.entity), changes)
    return written


def _stamped(table: Table, at: np.datetime64, facts: SourceFacts | None) -> Table:
    """The rows with the bookkeeping filled in that they came without."""
    now = np.full(len(table), at, dtype="datetime64[us]")
    recorded, assumed, source = table["recorded_at"], table["recorded_assumed"], table["source"]
    absent = np.isnat(recorded)
    if facts is None:
        written_at = now
    else:
        happened = table[table.entity.happened] if table.entity.happened else now
        written_at = np.where(np.isnat(happened), now, happened)
        source = np.array([facts.name if s is None else s for s in source], dtype=object)
    seen = np.where(np.isnat(table["seen_at"]), now, table["seen_at"])
    first = table["first_seen_at"]
    return table.with_columns(
        recorded_at=np.where(absent, written_at, recorded),
        recorded_assumed=np.where(absent, float(facts is not None), assumed),
        first_seen_at=np.where(np.isnat(first), seen, first),
        seen_at=seen,
        ingested_at=now,
        source=source,
    )


def _in_order(table: Table) -> Table:
    """States of records in the order they were seen; of the same moment, as given."""
    seen = table["seen_at"]
    if table.entity.event or (seen[1:] >= seen[:-1]).all():
        return table
    return table.take(np.argsort(seen, kind="stable"))


def _chunks(table: Table) -> Iterator[Table]:
    for start in range(0, len(table), _CHUNK):
        yield table.take(np.arange(start, min(start + _CHUNK, len(table))))


def _stages_brought(tables: Iterable[Table]) -> set[Row]:
    moves = [t for t in tables if t.entity.name == "stage_change"]
    return {
        move
        for t in moves
        for move in zip(t["entity"], t["entity_id"], t["to_stage_id"], strict=True)
    }


@dataclass
class _Upsert:
    """Rows of one entity on their way into its table; `expected` rows will come in all."""

    connection: sa.Connection
    entity: Entity
    expected: int
    known: dict[Any, int] = field(default_factory=dict)
    complete: bool = False

    def write(self, rows: list[Row], settle: _Settle, changes: _Changes) -> Written:
        """Insert, update or leave each row, in order."""
        layout, table = Layout(self.entity), ENTITY_TABLES[self.entity.name]
        keys = [layout.key(row) for row in rows]
        self._look_up(table, layout, keys)
        differing = {
            k for k, row in zip(keys, rows, strict=True) if self.known.get(k, row[-1]) != row[-1]
        }
        current = stored_rows(self.connection, table, layout, list(differing))
        new: dict[Any, Row] = {}
        changed: dict[Any, Row] = {}
        verdicts = {_Verdict.UNCHANGED: 0, _Verdict.STALE: 0}
        updated = 0
        for key, row in zip(keys, rows, strict=True):
            if key not in self.known:
                new[key], self.known[key] = row, row[-1]
                changes.appeared(self.entity, key)
                continue
            if self.known[key] == row[-1]:
                verdicts[_Verdict.UNCHANGED] += 1
                continue
            place = new if key in new else changed
            settled = settle(place.get(key) or current[key], row)
            if isinstance(settled, _Verdict):
                verdicts[settled] += 1
                continue
            place[key], self.known[key] = settled, settled[-1]
            updated += 1
        insert_rows(self.connection, table, list(new.values()))
        update_rows(self.connection, table, layout, list(changed.values()))
        return Written(len(new), updated, verdicts[_Verdict.UNCHANGED], verdicts[_Verdict.STALE])

    def _look_up(self, table: sa.Table, layout: Layout, keys: list[Any]) -> None:
        if self.complete:
            return
        found, self.complete = stored_hashes(self.connection, table, layout, keys, self.expected)
        self.known.update(found)


def _settle_event(entity: Entity) -> _Settle:
    layout = Layout(entity)
    provenance = layout.at.get("provenance")

    def settle(stored: Row, row: Row) -> Row | _Verdict:
        if layout.content(stored) == layout.content(row):
            return _Verdict.UNCHANGED
        if provenance is not None and stored[provenance] == _DERIVED != row[provenance]:
            return row  # what was noticed by comparing yields to what the source itself says
        raise ConflictError(_conflict(layout, stored, row))

    return settle


def _conflict(layout: Layout, stored: Row, row: Row) -> str:
    entity = layout.entity
    kinds = {f.name: f.kind for f in entity.fields}

    def shown(name: str, values: Row) -> str:
        return f"{value_text(values[layout.at[name]], kinds.get(name, ''))!r}"

    key = ", ".join(f"{name}={shown(name, row)}" for name in entity.key)
    others = [f.name for f in entity.fields if f.name not in entity.key] + ["attributes"]
    differing = [n for n in others if stored[layout.at[n]] != row[layout.at[n]]]
    values = "; ".join(f"{n} is {shown(n, stored)}, given {shown(n, row)}" for n in differing)
    return (
        f"{entity.name} ({key}) is stored with other content: {values}. Events never change: "
        "correct the rows given, or give the new fact a time of its own. Nothing was written"
    )


def _settle_record(entity: Entity, changes: _Changes) -> _Settle:
    layout = Layout(entity)
    at = layout.at
    seen, ingested, attributes = at["seen_at"], at["ingested_at"], at["attributes"]
    # What a record said before its first change counts from when it was first seen.
    kept = (at["recorded_at"], at["recorded_assumed"], at["first_seen_at"])
    own = (*(at[f.name] for f in entity.fields), attributes)

    def settle(stored: Row, row: Row) -> Row | _Verdict:
        merged = [old if new is None else new for old, new in zip(stored, row, strict=True)]
        merged[attributes] = _merge_json(stored[attributes], row[attributes])
        for i in kept:
            merged[i] = stored[i]
        if layout.content(merged) == layout.content(stored):
            return _Verdict.UNCHANGED
        if row[seen] < stored[seen]:
            return _Verdict.STALE
        merged[ingested] = row[ingested]
        if all(merged[i] == stored[i] for i in own):
            merged[seen] = stored[seen]  # only the source or its raw row differ: no new state
        settled = layout.hashed(tuple(merged))
        changes.note(layout, stored, settled)
        return settled

    return settle


def _merge_json(old: str | None, new: str | None) -> str | None:
    if old is None or new is None or old == new:
        return old if new is None else new
    both = {**msgspec.json.decode(old), **msgspec.json.decode(new)}
    return msgspec.json.encode(both, order="deterministic").decode()


def _settle_derived(entity: Entity) -> _Settle:
    """A change noticed at a moment for which one is stored already.

    What the source says stands. A change noticed before now leads on to the newer value: two
    states seen at one moment are one state, corrected.
    """
    layout = Layout(entity)
    provenance, new_value = layout.at["provenance"], layout.at.get("new_value")

    def settle(stored: Row, row: Row) -> Row | _Verdict:
        if new_value is None or stored[provenance] != _DERIVED:
            return _Verdict.UNCHANGED
        led_on = list(stored)
        led_on[new_value] = row[new_value]
        return layout.hashed(tuple(led_on))

    return settle


@dataclass
class _Changes:
    """What changed in leads and deals during one write, noted as events of their own.

    Attributes
    ----------
    brought : set of (entity, entity_id, to_stage_id)
        Stage changes that the same write brings itself.
    noted : dict
        (entity, id, field, seen_at) -> [old text, new text, source].
    """

    brought: set[Row]
    noted: dict[Row, list[str | None]] = field(default_factory=dict)
    first_seen: set[Row] = field(default_factory=set)

    def appeared(self, entity: Entity, key: Any) -> None:
        """A record came into the store."""
        if entity.name in ("lead", "deal"):
            self.first_seen.add((entity.name, key))

    def note(self, layout: Layout, old: Row, new: Row) -> None:
        """Note every field and attribute in which two states of a lead or deal differ."""
        entity, at = layout.entity, layout.at
        if entity.name not in ("lead", "deal"):
            return
        seen, source, key = new[at["seen_at"]], new[at["source"]], layout.key(new)
        if (entity.name, key) in self.first_seen and old[at["seen_at"]] == seen:
            return  # the same batch told of it twice: it was first seen as it is now
        for name, before, after in _differences(layout, old, new):
            kept = self.noted.setdefault((entity.name, key, name, seen), [before, after, source])
            kept[1] = after

    def tables(self) -> list[Table]:
        """The changes as field_change and stage_change rows."""
        rows = [(k, v) for k, v in self.noted.items() if v[0] != v[1]]
        moves = [
            (k, v)
            for k, v in rows
            if k[0] == "deal" and k[2] == "stage_id" and (*k[:2], v[1]) not in self.brought
        ]
        return [
            _events("field_change", rows, field=2, values=("old_value", "new_value")),
            _events("stage_change", moves, field=None, values=("from_stage_id", "to_stage_id")),
        ]


def _differences(
    layout: Layout, old: Row, new: Row
) -> Iterator[tuple[str, str | None, str | None]]:
    """(name, old text, new text) of each field and attribute that differs."""
    at = layout.at
    for declared in layout.entity.fields:
        before, after = old[at[declared.name]], new[at[declared.name]]
        if before != after and declared.name != "created_at":
            kind = declared.kind
            yield declared.name, value_text(before, kind), value_text(after, kind)
    before, after = old[at["attributes"]], new[at["attributes"]]
    if before == after:
        return
    olds = msgspec.json.decode(before) if before else {}
    for name, value in msgspec.json.decode(after).items():
        if olds.get(name) != value:
            yield name, value_text(olds.get(name)), value_text(value)


def _events(
    name: str,
    rows: Sequence[tuple[Row, list[str | None]]],
    *,
    field: int | None,
    values: tuple[str, str],
) -> Table:
    seen = np.array([k[3] for k, _ in rows], dtype="datetime64[us]")
    columns: dict[str, Any] = {
        "entity": [k[0] for k, _ in rows],
        "entity_id": [k[1] for k, _ in rows],
        "changed_at": seen,
        values[0]: [v[0] for _, v in rows],
        values[1]: [v[1] for _, v in rows],
        "provenance": [_DERIVED] * len(rows),
        "recorded_at": seen,
        "recorded_assumed": np.zeros(len(rows)),
        "first_seen_at": seen,
        "seen_at": seen,
        "source": [v[2] for _, v in rows],
    }
    if field is not None:
        columns["field"] = [k[field] for k, _ in rows]
    return Table.from_columns(ENTITIES[name], columns)
