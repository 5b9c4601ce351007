"""Rows on their way into SQL and back: a `Table`'s columns as tuples of plain values.

A row is a tuple in the order of the SQL table's columns (`data.store.tables`): the entity's
fields, the bookkeeping, `attributes`, `row_hash`. Going in, every value is checked against what
the canonical record promises, so that both databases hold the same thing or refuse it in the same
words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from data.records import Entity, Field, RecordError, Table

__all__ = [
    "Layout",
    "Row",
    "content_hash",
    "decode",
    "encode",
    "micros",
    "moment",
    "moment_text",
    "value_text",
]

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Layout:
    """Where each column of an entity stands in a row."""

    entity: Entity

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All SQL columns, in order."""
        return (*(f.name for f in self.entity.columns), "attributes", "row_hash")

    @cached_property
    def at(self) -> dict[str, int]:
        """Position by column."""
        return {name: i for i, name in enumerate(self.names)}

    @cached_property
    def key(self) -> itemgetter[Any]:
        """Gives a row's key: the value itself where one column is the key, else a tuple."""
        return itemgetter(*(self.at[name] for name in self.entity.key))

    @cached_property
    def content(self) -> itemgetter[Any]:
        """Gives what a row says, as a tuple.

        When a row was written, seen and stored is never part of it. An event is its own fields
        alone: the same fact from another export is the same event.
        """
        declared = [self.at[f.name] for f in self.entity.fields]
        if not self.entity.event:
            declared += [self.at[n] for n in ("sequence", "source", "raw")]
        return itemgetter(*declared, self.at["attributes"])

    def key_tuple(self, key: Any) -> Row:
        """A key as a tuple, however many columns it has."""
        return key if len(self.entity.key) > 1 else (key,)

    def hashed(self, row: Row) -> Row:
        """The row with `row_hash` made anew."""
        return (*row[:-1], content_hash(self.content(row)))


def content_hash(content: Row) -> int:
    """64 bits over plain values, as a signed integer."""
    text = msgspec.json.encode(content, enc_hook=_numpy_scalar)
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def encode(table: Table) -> list[Row]:
    """Rows of a table, in the order of `Layout.names`.

    Raises
    ------
    RecordError
        If a key or required field is missing, or a value is not what its field accepts.
    """
    entity = table.entity
    layout = Layout(entity)
    columns: list[Sequence[Any]] = []
    for field in entity.columns:
        _check_present(entity, field, table[field.name])
        columns.append(_plain(field, table[field.name]))
    columns.append(_encode_attributes(table))
    declared = list(zip(*columns, strict=True))
    return [(*row, content_hash(layout.content(row))) for row in declared]


def _check_present(entity: Entity, field: Field, values: npt.NDArray[Any]) -> None:
    if field.name not in (*entity.key, *entity.required):
        return
    if values.dtype == object:
        missing = np.fromiter((v is None or v == "" for v in values), bool, len(values))
    else:
        missing = np.isnan(values)
    if missing.any():
        where = f"{entity.name}.{field.name} of row {int(np.argmax(missing))}"
        raise RecordError(where, None, field.allowed + " (required)")


def _plain(field: Field, values: npt.NDArray[Any]) -> list[Any]:
    """A column as values that both drivers take: None for missing, no numpy types."""
    match field.kind:
        case "number":
            _check(field, values, ~np.isinf(values))
            return _nullable(values, np.isnan(values))
        case "boolean":
            _check(field, values, np.isnan(values) | (values == 0) | (values == 1))
            return _nullable(values == 1, np.isnan(values))
        case "time" | "date":
            return _nullable(values.astype(np.int64), np.isnat(values))
        case "json":
            return [None if v is None else _json(field.name, v) for v in values]
        case "id" | "text" | "choice":
            return _plain_text(field, values)


def _nullable(values: npt.NDArray[Any], missing: npt.NDArray[np.bool_]) -> list[Any]:
    if not missing.any():
        return values.tolist()  # type: ignore[no-any-return]  # numpy types it as Any
    out = values.astype(object)
    out[missing] = None
    return out.tolist()  # type: ignore[no-any-return]


def _check(field: Field, values: npt.NDArray[Any], good: npt.NDArray[np.bool_]) -> None:
    if not good.all():
        raise RecordError(field.name, values[np.argmin(good)].item(), field.allowed)


def _plain_text(field: Field, values: npt.NDArray[Any]) -> list[Any]:
    out = values.tolist()
    try:
        # One pass in C over the whole column; a NUL or half a surrogate pair fits no database.
        good = b"\0" not in "".join(v for v in out if v is not None).encode()
    except (TypeError, UnicodeEncodeError):
        good = False
    if not good:
        bad = next(v for v in out if v is not None and not _is_storable(v))
        raise RecordError(field.name, bad, field.allowed + ", valid Unicode without NUL")
    return out  # type: ignore[no-any-return]


def _is_storable(value: object) -> bool:
    try:
        return isinstance(value, str) and b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


def _json(name: str, value: object) -> str:
    try:
        return msgspec.json.encode(value, enc_hook=_numpy_scalar, order="deterministic").decode()
    except (TypeError, ValueError) as error:
        raise RecordError(name, value, "plain JSON values in valid Unicode") from error


def _numpy_scalar(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _encode_attributes(table: Table) -> list[str | None]:
    names = sorted(table.attributes)
    if not names:
        return [None] * len(table)
    out: list[str | None] = []
    for values in zip(*(table.attributes[n].tolist() for n in names), strict=True):
        # `v == v` is false for NaN alone: a missing number.
        present = {n: v for n, v in zip(names, values, strict=True) if v is not None and v == v}
        out.append(_json("attributes", present) if present else None)
    return out


def decode(entity: Entity, rows: Iterable[Sequence[Any]]) -> Table:
    """A table from rows of the entity's columns and `attributes`, in the order of `Layout`."""
    columns = list(zip(*rows, strict=True))
    if not columns:
        return Table.empty(entity)
    return Table(
        entity,
        {f.name: _array(f, columns[i]) for i, f in enumerate(entity.columns)},
        _decode_attributes(columns[len(entity.columns)]),
    )


def _array(field: Field, values: Sequence[Any]) -> npt.NDArray[Any]:
    match field.kind:
        case "number" | "boolean":
            return np.array(values, dtype=np.float64)  # None becomes NaN
        case "time":
            return np.array(values, dtype="datetime64[us]")  # None becomes NaT
        case "date":
            return np.array(values, dtype="datetime64[D]")
        case "json":
            decoded = [None if v is None else msgspec.json.decode(v) for v in values]
            return _objects(decoded)
        case "id" | "text" | "choice":
            return _objects(values)


def _objects(values: Sequence[Any]) -> npt.NDArray[np.object_]:
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out


def _decode_attributes(values: Sequence[str | None]) -> dict[str, npt.NDArray[Any]]:
    out: dict[str, npt.NDArray[Any]] = {}
    decode_one = msgspec.json.Decoder(dict[str, Any]).decode
    for i, text in enumerate(values):
        if text is None:
            continue
        for name, value in decode_one(text).items():
            column = out.get(name)
            if column is None:
                column = out[name] = np.full(len(values), None, dtype=object)
            column[i] = value
    return out


def micros(time: np.datetime64) -> int | None:
    """Microseconds since 1970 UTC; None for NaT."""
    return None if np.isnat(time) else int(time.astype("datetime64[us]").astype(np.int64))


def moment(value: int | None) -> np.datetime64:
    """The datetime64[us] of microseconds since 1970 UTC; NaT for None."""
    return np.datetime64("NaT", "us") if value is None else np.datetime64(value, "us")


def moment_text(value: int) -> str:
    """ISO 8601 in UTC, of microseconds since 1970: fractions only where there are any.

    >>> moment_text(0), moment_text(-1)
    ('1970-01-01T00:00:00Z', '1969-12-31T23:59:59.999999Z')
    """
    return str(moment(value)).removesuffix(".000000") + "Z"


def value_text(value: Any, kind: str = "") -> str | None:
    """One plain value as the text that a field_change holds.

    >>> value_text(1200.0), value_text(0.5), value_text(True), value_text(["a", "b"])
    ('1200', '0.5', 'true', 'a;b')
    >>> value_text(0, "time"), value_text(0, "date")
    ('1970-01-01T00:00:00Z', '1970-01-01')
    """
    if value is None or isinstance(value, str):
        return value
    if kind == "time":
        return moment_text(value)
    if kind == "date":
        return str(np.datetime64(value, "D"))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ";".join(value)
    return repr(value).removesuffix(".0")
