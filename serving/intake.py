"""Records of a request: checked one by one, then laid out as a history of their own.

A request and the store must lead to the same features to the bit, and a record must not be
touched by its neighbours in the batch. Three things see to it: what is nested comes in the order
the store keeps it in, each record goes by its place in the batch instead of its id, and a ghost
record shows every attribute with the type the model learnt it with, so that the type of a column
does not depend on who else is in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from data.features import Feature
from data.history import History, Side, Snapshot
from data.records import ENTITIES, Entity, ParsedRow, RecordError, SourceFacts, Table, parse_row
from data.timelines import IntArray

__all__ = [
    "NESTED",
    "Submitted",
    "check_currency",
    "check_record",
    "check_text",
    "snapshot_of",
    "stored_snapshot",
]

# What a record may carry, and what it is; "qualification" may be one answer or a list of them.
NESTED: dict[str, str] = {
    "stage_changes": "stage_change",
    "field_changes": "field_change",
    "activities": "activity",
    "qualification": "qualification",
    "qualifications": "qualification",
    "contact_roles": "contact_role",
}
_GHOST = "ghost"  # real records go by numbers, or by ids of the store, which follow it
_CLOSED_AT = {
    "won": "closed_at",
    "lost": "closed_at",
    "qualified": "qualified_at",
    "disqualified": "disqualified_at",
}


@dataclass(frozen=True)
class Submitted:
    """A record of a request, checked.

    Attributes
    ----------
    id : str
        The caller's own.
    row : ParsedRow
        The record itself.
    nested : dict of str to list of ParsedRow
        What it carries, by entity, without ids of the record it belongs to.
    context : dict
        Values of context features, by name, that hold for this record alone.
    """

    id: str
    row: ParsedRow
    nested: dict[str, list[ParsedRow]]
    context: dict[str, Any]

    @property
    def created_at(self) -> np.datetime64 | None:
        """When it was created, if it says so."""
        found: np.datetime64 | None = self.row.values.get("created_at")
        return found


def check_text(record: Mapping[str, Any]) -> None:
    """Make sure that every text of a record can be stored and sent back.

    Raises
    ------
    RecordError
        If one holds half a surrogate pair or a NUL.
    """
    try:
        if b"\\u0000" not in msgspec.json.encode(record):
            return
        found = [(name, value) for name, value in record.items() if "\0" in _texts(value)]
    except UnicodeEncodeError:
        found = [(name, value) for name, value in record.items() if not _is_unicode(value)]
        found = found or [("record", None)]
    if found:
        raise RecordError(str(found[0][0]), found[0][1], "valid Unicode without NUL")


def _texts(value: Any) -> str:
    if isinstance(value, Mapping):
        return "".join(_texts(k) + _texts(v) for k, v in value.items())
    if isinstance(value, list):
        return "".join(_texts(v) for v in value)
    return value if isinstance(value, str) else ""


def _is_unicode(value: Any) -> bool:
    try:
        _texts(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def check_record(side: Side, record: Mapping[str, Any], currency: str | None = None) -> Submitted:
    """Check one record of a request and all it carries.

    Parameters
    ----------
    currency : str or None
        The currency of amounts that name none, where one is declared.

    Raises
    ------
    RecordError
        On the first value that its field does not accept; nested ones are named by their path,
        like ``activities.3.occurred_at``.
    """
    check_text(record)
    own = {k: v for k, v in record.items() if k not in NESTED and k != "context"}
    row = parse_row(ENTITIES[side], own)
    record_id = str(row.values[f"{side}_id"])
    context = record.get("context") or {}
    if not isinstance(context, Mapping):
        raise RecordError("context", context, "an object of feature names and values")
    if side == "deal":
        check_currency(row, currency)
        if currency is not None:
            row.values.setdefault("currency", currency)
    nested: dict[str, list[ParsedRow]] = {}
    for name, value in record.items():
        if name in NESTED and value is not None:
            nested.setdefault(NESTED[name], []).extend(_check_nested(side, record_id, name, value))
    if record.get("stage_changes") == [] and side == "deal" and "stage_id" in row.values:
        nested["stage_change"] = _never_moved(row)
    return Submitted(record_id, row, nested, dict(context))


def check_currency(deal: ParsedRow, default: str | None) -> None:
    """Make sure that an amount has a currency: its own, or the one declared for all.

    Raises
    ------
    RecordError
        If it has none.
    """
    if "amount" in deal.values and "currency" not in deal.values and default is None:
        raise RecordError(
            "currency", None, "an ISO 4217 code beside an amount: no default is declared"
        )


def _never_moved(row: ParsedRow) -> list[ParsedRow]:
    """An empty list of moves: the deal is where it began."""
    created = row.values.get("created_at")
    if created is None:
        return []
    entered = {
        "entity": "deal",
        "entity_id": row.values["deal_id"],
        "changed_at": created,
        "to_stage_id": row.values["stage_id"],
    }
    return [ParsedRow(entered, {})]


def _check_nested(side: Side, record_id: str, name: str, value: Any) -> list[ParsedRow]:
    entity = ENTITIES[NESTED[name]]
    if name == "qualification" and isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        raise RecordError(name, value, "a list of objects")
    if entity.name == "contact_role" and side != "deal":
        raise RecordError(name, value, "nothing: only deals have contact roles")
    found: dict[Any, ParsedRow] = {}
    for i, item in enumerate(value):
        path = f"{name}.{i}"
        if not isinstance(item, Mapping):
            raise RecordError(path, item, "an object")
        try:
            row = parse_row(entity, _with_owner(side, record_id, entity, item, i))
        except RecordError as error:
            raise RecordError(f"{path}.{error.field}", error.value, error.allowed) from error
        key = tuple(row.values[k] for k in entity.key)
        known = found.get(key)
        if known is not None and entity.event and known != row:
            raise RecordError(path, dict(item), "one event only at one time: see the one before")
        # As in the store: a record told again is merged, an event told again is the same event.
        found[key] = row if known is None or entity.event else _merged(known, row)
    if entity.event:
        return list(found.values())
    return [found[key] for key in sorted(found)]  # the order in which the store returns them


def _with_owner(
    side: Side, record_id: str, entity: Entity, item: Mapping[str, Any], i: int
) -> dict[str, Any]:
    """The nested row with the id of the record it belongs to."""
    links = {"entity": side, "entity_id": record_id}
    if "entity" not in entity.by_name:
        links = {f"{side}_id": record_id}
    for name, expected in links.items():
        given = item.get(name)
        if given is not None and str(given) != expected:
            raise RecordError(name, given, f"{expected}, or left out")
    spare = {"activity_id": f"\U0010ffff{i:09d}"} if entity.name == "activity" else {}
    return {**spare, **{k: v for k, v in item.items() if v is not None}, **links}


def _merged(known: ParsedRow, row: ParsedRow) -> ParsedRow:
    return ParsedRow(known.values | row.values, known.attributes | row.attributes)


def snapshot_of(
    side: Side,
    records: Sequence[Submitted],
    at: IntArray,
    features: Sequence[Feature],
    tables: Mapping[str, Table],
    currency: str | None,
) -> Snapshot:
    """The records of a request, each as known at its moment, in order.

    Parameters
    ----------
    at : int64 microseconds, shape (m,)
    features : sequence of Feature
        Of the model that will look at them.
    tables : mapping of str to Table
        Stages and exchange rates of the organisation.
    currency : str or None
        Base currency.
    """
    rows = [
        ParsedRow(r.row.values | {f"{side}_id": str(i)}, r.row.attributes)
        for i, r in enumerate(records)
    ]
    moments = at.astype("datetime64[us]")
    own = _completed(side, Table.from_parsed(ENTITIES[side], rows), moments, moments)
    own = own.with_columns(
        recorded_at=np.where(np.isnat(own["recorded_at"]), own["created_at"], own["recorded_at"]),
        seen_at=np.where(np.isnat(own["seen_at"]), moments, own["seen_at"]),
    )
    nested = {e: _nested_table(side, e, records, moments) for e in set(NESTED.values())}
    return _lone(side, {**tables, **nested, side: own}, features, (), currency, at)


def _nested_table(
    side: Side, name: str, records: Sequence[Submitted], moments: np.ndarray[Any, Any]
) -> Table:
    entity = ENTITIES[name]
    link = "entity_id" if "entity" in entity.by_name else f"{side}_id"
    found = []
    for i, record in enumerate(records):
        for row in record.nested.get(name, ()):
            values = row.values | {link: str(i)}
            if not entity.happened:  # people of a deal: known as long as the record itself shows
                values.setdefault("recorded_at", moments[i])
            found.append(ParsedRow(values, row.attributes))
    return Table.from_parsed(entity, found)


def stored_snapshot(
    side: Side,
    tables: Mapping[str, Table],
    features: Sequence[Feature],
    facts: Iterable[SourceFacts],
    currency: str | None,
    at: np.datetime64,
) -> Snapshot:
    """Records of the store without the rest of the organisation, all at one moment.

    What `Store.read_records` gave goes through the same lines as a request.
    """
    table = tables[side]
    own = _completed(side, table, _first_shown(table), table["seen_at"])
    moments = np.full(len(own), at.astype("datetime64[us]")).astype(np.int64)
    return _lone(side, {**tables, side: own}, features, facts, currency, moments)


def _lone(
    side: Side,
    tables: Mapping[str, Table],
    features: Sequence[Feature],
    facts: Iterable[SourceFacts],
    currency: str | None,
    at: IntArray,
) -> Snapshot:
    table = tables[side]
    typed = Table.concat([_typed(side, table, features), _ghost(side, features)])
    history = History({**tables, side: typed}, facts, currency)
    return history.landmarks(side, np.arange(len(table)), at)


def _first_shown(table: Table) -> np.ndarray[Any, Any]:
    first = np.where(np.isnat(table["first_seen_at"]), table["seen_at"], table["first_seen_at"])
    return np.where(np.isnat(first), table["recorded_at"], first)


def _completed(
    side: Side, table: Table, created: np.ndarray[Any, Any], closed: np.ndarray[Any, Any]
) -> Table:
    """The records with the times they lack: created when first seen, closed when seen closed."""
    columns = {"created_at": np.where(np.isnat(table["created_at"]), created, table["created_at"])}
    for outcome, name in _CLOSED_AT.items():
        if name in table.columns:
            times = columns.get(name, table[name])
            lacks = np.isnat(times) & (table["outcome"] == outcome)
            columns[name] = np.where(lacks, closed, times)
    return table.with_columns(**columns)


def _own_attributes(side: Side, features: Iterable[Feature]) -> dict[str, str]:
    """Attributes that the model reads, with the type it learnt them with."""
    declared = ENTITIES[side].by_name
    found: dict[str, str] = {}
    for feature in features:
        kernel, _, rest = feature.name.partition("[")
        name = rest.removesuffix("]")
        if kernel == "field" and name not in declared:
            found[name] = feature.dtype
    return found


def _ghost(side: Side, features: Iterable[Feature]) -> Table:
    """A record that is never scored: it shows each attribute with its type."""
    shown = {
        name: np.array([0.0 if dtype == "number" else _GHOST], dtype=object)
        for name, dtype in _own_attributes(side, features).items()
    }
    return Table.from_columns(ENTITIES[side], {f"{side}_id": [_GHOST]}, shown)


def _typed(side: Side, table: Table, features: Iterable[Feature]) -> Table:
    """Texts in attributes that the model knows as numbers become missing, as for a whole column."""
    attributes = dict(table.attributes)
    for name, dtype in _own_attributes(side, features).items():
        if dtype == "number" and name in attributes:
            values = [v if isinstance(v, bool | int | float) else None for v in attributes[name]]
            attributes[name] = np.array(values, dtype=object)
    return Table(table.entity, table.columns, attributes)
