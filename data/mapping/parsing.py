"""Columns of text -> columns of a kind, with the cells that would not go and why.

Each distinct text of a column is converted once, whatever the number of rows. Nothing is
guessed: a column that allows two readings raises `Ambiguous`, a cell that fits none is `bad`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.mapping.moments import Ambiguous, MomentReader, looks_like_time
from data.mapping.numerals import NumberReader, looks_like_number
from data.mapping.sections import shorten

__all__ = ["Ambiguous", "Cells", "Parsed", "Reading", "as_attribute", "detect_kind", "parse_cells"]

_TRUE = frozenset({"true", "yes", "y", "t", "1"})
_FALSE = frozenset({"false", "no", "n", "f", "0"})
_CLEARLY_BOOLEAN = frozenset({"true", "false", "yes", "no"})
_UTC = ZoneInfo("UTC")


@dataclass(frozen=True)
class Cells:
    """A column before conversion.

    Attributes
    ----------
    text : ndarray of object, shape (n,)
        str or None.
    native : ndarray of bool, shape (n,), or None
        Cells written as plain text (`1234.5`, ISO 8601) from typed values.
    """

    text: npt.NDArray[np.object_]
    native: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Reading:
    """How a column is to be read, where its values cannot tell."""

    zone: ZoneInfo = _UTC
    decimal: str | None = None
    date_order: str | None = None
    time_format: str | None = None
    separator: str = ";"
    share: bool = False


@dataclass(frozen=True)
class Parsed:
    """A converted column.

    Attributes
    ----------
    values : ndarray, shape (n,)
        By kind: object for text and list, float64 for number and boolean (NaN = missing),
        datetime64[us] UTC for time, datetime64[D] for date (NaT = missing).
    bad : dict of int to str
        By row, why its cell could not be converted; `values` is missing there.
    notes : tuple of str
        What was decided about the column.
    bare : ndarray of bool, shape (n,), or None
        Times that were given as a date only, hence 00:00.
    """

    values: npt.NDArray[Any]
    bad: dict[int, str]
    notes: tuple[str, ...] = ()
    bare: npt.NDArray[np.bool_] | None = None


# A converter says, for one text, the value, and whether it was a bare date; None: not one.
_Converter = Callable[[str], tuple[Any, bool] | None]

_EMPTY: dict[str, tuple[Any, str, str]] = {
    "text": (None, "object", "text"),
    "list": (None, "object", "a list"),
    "number": (np.nan, "float64", "a number"),
    "boolean": (np.nan, "float64", "true or false (or yes, no, 1, 0)"),
    "time": (np.datetime64("NaT"), "datetime64[us]", "a time"),
    "date": (np.datetime64("NaT"), "datetime64[D]", "a date"),
}


def parse_cells(cells: Cells, kind: str, reading: Reading) -> Parsed:
    """Convert a column to a kind: text, list, number, boolean, time or date.

    Raises
    ------
    Ambiguous
        If the column's values allow two readings.
    """
    native = cells.native if cells.native is not None else np.zeros(len(cells.text), dtype=bool)
    empty, dtype, word = _EMPTY[kind]
    values = np.full(len(cells.text), empty, dtype=dtype)
    bare = np.zeros(len(cells.text), dtype=bool)
    bad: dict[int, str] = {}
    notes: list[str] = []
    for typed in (False, True):
        here = np.flatnonzero(native == typed)
        codes, distinct = pd.factorize(cells.text[here])
        if len(distinct) == 0:
            continue
        convert, note = _converter(list(distinct), kind, reading, typed)
        found = [convert(text) for text in distinct]
        table = np.full(len(distinct) + 1, empty, dtype=dtype)  # the last one is for missing
        for i, one in enumerate(found):
            if one is not None:
                table[i] = one[0]
        values[here] = table[codes]
        bare[here] = np.array([one is not None and one[1] for one in found] + [False])[codes]
        wrong = np.array([one is None for one in found] + [False])
        for place in np.flatnonzero(wrong[codes]):
            text = distinct[codes[place]]
            bad[int(here[place])] = f"{shorten(str(text))} is not {word}"
        notes += [note] if note else []
    return Parsed(values, bad, tuple(notes), bare if kind == "time" else None)


def _converter(
    texts: Sequence[str], kind: str, reading: Reading, typed: bool
) -> tuple[_Converter, str]:
    match kind:
        case "text":
            return (lambda text: (text, False)), ""
        case "list":
            return (lambda text: (_split(text, reading.separator), False)), ""
        case "boolean":
            return _boolean, ""
        case "number":
            numbers = NumberReader(texts, "." if typed else reading.decimal, reading.share)
            return _wrap(numbers.read), numbers.note
    return _moment_converter(texts, kind, reading, typed)


def _wrap(read: Callable[[str], Any]) -> _Converter:
    def convert(text: str) -> tuple[Any, bool] | None:
        value = read(text)
        return None if value is None else (value, False)

    return convert


def _boolean(text: str) -> tuple[float, bool] | None:
    word = text.lower()
    return (1.0, False) if word in _TRUE else (0.0, False) if word in _FALSE else None


def _split(text: str, separator: str) -> list[str]:
    return [part.strip() for part in text.split(separator) if part.strip()]


def _moment_converter(
    texts: Sequence[str], kind: str, reading: Reading, typed: bool
) -> tuple[_Converter, str]:
    iso = typed and looks_like_time(texts[0])  # a typed time; a typed number may be an epoch
    pattern = None if iso else reading.time_format
    reader = MomentReader(texts, reading.zone, "ymd" if typed else reading.date_order, pattern)
    if kind == "time":
        return reader.read, reader.note

    def to_date(text: str) -> tuple[dt.date, bool] | None:
        found = reader.read(text)
        if found is None:
            return None
        return found[0].replace(tzinfo=dt.UTC).astimezone(reading.zone).date(), found[1]

    return to_date, reader.note


def detect_kind(cells: Cells, reading: Reading) -> tuple[str, str]:
    """The kind of a column that nobody declared, and a note where it is worth a word.

    Returns
    -------
    kind : {"text", "number", "boolean", "time", "date"}
        The narrowest kind that all its values have; "text" for a column without values.
    note : str
        Filled when a few odd values made text of a column of numbers or dates.
    """
    distinct = [str(t) for t in pd.unique(cells.text) if t is not None]
    if not distinct:
        return "text", ""
    if all(t.lower() in _CLEARLY_BOOLEAN for t in distinct):
        return "boolean", ""
    for kind, fits in (("number", looks_like_number), ("time", looks_like_time)):
        odd = [t for t in distinct if not fits(t)]
        if not odd and kind == "number":
            return "number", ""
        if not odd:
            reader = MomentReader(distinct, reading.zone, reading.date_order)
            found = [reader.read(t) for t in distinct]
            if all(found):
                return ("date" if all(f[1] for f in found if f) else "time"), ""
        if odd and len(odd) <= 3 and len(distinct) >= 10 * len(odd):
            shown = ", ".join(shorten(t) for t in odd)
            return "text", (
                f'kept as text because of {shown}; if it is a {kind}, declare as = "{kind}" '
                f"and put {shown} into missing"
            )
    return "text", ""


def as_attribute(parsed: Parsed, kind: str) -> npt.NDArray[np.object_]:
    """A converted column as an attribute: text, float, bool, list of text, or None.

    A date becomes its ISO 8601 text, a time its ISO 8601 text in UTC.
    """
    values = parsed.values
    if kind in ("text", "list"):
        return values
    if kind == "number":
        return _objects(None if v != v else v for v in values.tolist())
    if kind == "boolean":
        return _objects(None if v != v else bool(v) for v in values.tolist())
    texts = np.datetime_as_string(values, unit="D" if kind == "date" else "us")
    ending = "" if kind == "date" else "Z"
    shown = (t.removesuffix(".000000") + ending for t in texts.tolist())
    return _objects(
        None if missing else t for t, missing in zip(shown, np.isnat(values), strict=True)
    )


def _objects(values: Iterable[Any]) -> npt.NDArray[np.object_]:
    listed = list(values)
    array = np.empty(len(listed), dtype=object)
    array[:] = listed
    return array
