"""Bulk writes of canonical records: each one checked, then all or none of them stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.records import Entity, ParsedRow, RecordError, Table, parse_row
from data.store import ConflictError, Store, Written
from serving.intake import check_currency, check_text

__all__ = ["Rejected", "RejectedError", "Stored", "write_records"]


@dataclass(frozen=True)
class Rejected:
    """A record that got an error in place of an answer: its place in the call, its id, why."""

    index: int
    id: str | None
    error: Exception


class RejectedError(ValueError):
    """Records of a write that are not valid; nothing was stored."""

    def __init__(self, rejected: Sequence[Rejected], total: int) -> None:
        self.rejected = tuple(rejected)
        super().__init__(
            f"{len(rejected)} of {total} records are not valid, and nothing was stored; correct "
            "them, or store the valid ones alone with partial=true"
        )


@dataclass(frozen=True)
class Stored:
    """What became of the records of a write; the numbers and `rejected` add up to all of them."""

    written: Written
    rejected: tuple[Rejected, ...] = ()


def write_records(
    store: Store,
    entity: Entity,
    records: Sequence[Mapping[str, Any]],
    *,
    at: np.datetime64,
    currency: str | None = None,
    partial: bool = False,
) -> Stored:
    """Store records of one entity; durable on return.

    Parameters
    ----------
    at : datetime64
        The time of receipt, UTC.
    currency : str or None
        The currency of amounts that name none, where one is declared.
    partial : bool
        Store the good ones, and tell of the others, instead of storing none.

    Raises
    ------
    RejectedError
        If some are not valid, and not `partial`.
    ConflictError
        If an event is stored with other content, and not `partial`.
    StoreError
    """
    good: list[tuple[int, ParsedRow]] = []
    rejected: list[Rejected] = []
    for i, record in enumerate(records):
        try:
            check_text(record)
            row = parse_row(entity, record)
            if entity.name == "deal":
                check_currency(row, currency)
            good.append((i, row))
        except RecordError as error:
            rejected.append(Rejected(i, _key_text(entity, record), error))
    if rejected and not partial:
        raise RejectedError(rejected, len(records))
    if not partial:
        return Stored(_write(store, entity, good, at))
    written, conflicts = _write_what_fits(store, entity, good, at)
    found = [*rejected, *(Rejected(i, _key_text(entity, records[i]), e) for i, e in conflicts)]
    return Stored(written, tuple(sorted(found, key=lambda r: r.index)))


def _write(
    store: Store, entity: Entity, rows: Sequence[tuple[int, ParsedRow]], at: np.datetime64
) -> Written:
    if not rows:
        return Written()
    table = Table.from_parsed(entity, [row for _, row in rows])
    return store.write([table], at=at)[entity.name]


def _write_what_fits(
    store: Store, entity: Entity, rows: Sequence[tuple[int, ParsedRow]], at: np.datetime64
) -> tuple[Written, list[tuple[int, ConflictError]]]:
    """All rows but those in conflict, which are found by halving: few conflicts, few writes."""
    try:
        return _write(store, entity, rows, at), []
    except ConflictError as error:
        if len(rows) == 1:
            return Written(), [(rows[0][0], error)]
    half = len(rows) // 2
    first, early = _write_what_fits(store, entity, rows[:half], at)
    second, late = _write_what_fits(store, entity, rows[half:], at)
    return first + second, early + late


def _key_text(entity: Entity, record: Mapping[str, Any]) -> str | None:
    """The id of a record that may not even have one."""
    given = record.get(entity.key[0]) if len(entity.key) == 1 else None
    return str(given) if isinstance(given, str | int) else None
