"""Columns of values as kernels see them: numbers, texts by code, moments in microseconds."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data.records import parse_time

__all__ = [
    "DAY",
    "NEVER",
    "BoolArray",
    "Column",
    "FloatArray",
    "IntArray",
    "ObjectArray",
    "codes_in",
    "dates_in",
    "dictionary",
    "micros",
    "number_of",
    "places",
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
    if len(values) == 0:
        return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=object)
    found: dict[Any, int] = {}
    codes = np.fromiter(
        (-1 if v is None else found.setdefault(v, len(found)) for v in values.tolist()),
        dtype=np.int32,
        count=len(values),
    )
    levels = np.empty(len(found), dtype=object)
    levels[:] = [str(v) for v in found]
    return codes, levels


def places(ids: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> IntArray:
    """Position of each wanted id among `ids`, -1 where there is none."""
    if len(wanted) == 0:
        return np.zeros(0, dtype=np.int64)
    place = {i: n for n, i in enumerate(ids.tolist())}
    return np.fromiter(
        (place.get(w, -1) for w in wanted.tolist()), dtype=np.int64, count=len(wanted)
    )


def codes_in(levels: npt.NDArray[Any], codes: npt.NDArray[Any], among: set[str]) -> BoolArray:
    """Whether each code stands for one of some texts; -1 stands for none."""
    hit = np.array([*(level in among for level in levels.tolist()), False], dtype=bool)
    return np.asarray(hit[codes])


@dataclass(frozen=True)
class Column:
    """Values of one field for some rows: numbers, or dictionary-encoded texts.

    `values` is float64 with NaN for missing (kind "number"), or `codes` int32 with -1 for
    missing into `levels` (kind "text"). `figures`, where texts and numbers are mixed, holds the
    numbers among the levels: one stray text must not hide them from who asks for numbers.
    """

    kind: Literal["number", "text"]
    values: npt.NDArray[Any]
    levels: ObjectArray
    figures: FloatArray | None = None

    @classmethod
    def missing(cls, n: int) -> Column:
        """A column in which all is missing, shape (n,)."""
        return cls("number", np.full(n, np.nan), _NO_LEVELS)

    def take(self, rows: IntArray, present: BoolArray) -> Column:
        """The values at rows, missing where not present."""
        absent = np.nan if self.kind == "number" else -1
        if len(self.values) == 0:
            return replace(self, values=np.full(len(rows), absent, self.values.dtype))
        return replace(self, values=np.where(present, self.values[rows], absent))

    def present(self) -> BoolArray:
        """Whether each value is there."""
        return np.asarray(~np.isnan(self.values) if self.kind == "number" else self.values >= 0)

    def numbers(self) -> FloatArray:
        """The values as float64; texts are missing."""
        if self.kind == "number":
            return self.values
        if self.figures is None:
            return np.full(len(self.values), np.nan)
        return np.asarray(np.append(self.figures, np.nan)[self.values])

    def texts(self) -> ObjectArray:
        """The values as text or None; numbers as people write them."""
        column = self.as_text()
        texts: ObjectArray = np.array([*column.levels.tolist(), None], dtype=object)
        return np.asarray(texts[column.values])

    def as_text(self) -> Column:
        """The same values as a text column."""
        if self.kind == "text":
            return self
        found, codes = np.unique(self.values, return_inverse=True)
        real = int((~np.isnan(found)).sum())
        levels = np.empty(real, dtype=object)
        levels[:] = [_plain(v) for v in found[:real].tolist()]
        return Column("text", np.where(codes < real, codes, -1).astype(np.int32), levels)


_NO_LEVELS: ObjectArray = np.zeros(0, dtype=object)


def to_column(values: npt.NDArray[Any], kind: Literal["number", "text"] | None = None) -> Column:
    """Stored values -> a column. Times and dates become days since 1970.

    Without `kind`, objects that are all numbers, booleans or missing become numbers. With
    "text", objects must be texts or None.
    """
    if values.dtype.kind == "f":
        return Column("number", values, _NO_LEVELS)
    if values.dtype.kind == "M":
        whole = values.astype("datetime64[us]").astype(np.int64)
        return Column("number", np.where(whole == _NAT, np.nan, whole / DAY), _NO_LEVELS)
    if kind == "text":
        return Column("text", *dictionary(values))
    told = values.tolist()
    if all(v is None or _is_number(v) for v in told):
        values = np.array([math.nan if v is None else float(v) for v in told], dtype=np.float64)
        return Column("number", values, _NO_LEVELS)
    texts = np.empty(len(told), dtype=object)
    texts[:] = [_as_text(v) for v in told]
    codes, levels = dictionary(texts)
    numbers = {t: float(v) for t, v in zip(texts, told, strict=True) if _is_number(v)}
    figures = np.array([numbers.get(level, np.nan) for level in levels.tolist()])
    return Column("text", codes, levels, figures if numbers else None)


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


def number_of(text: str | None) -> float:
    """The number that the text of a change stands for: plain, true or false, or days since 1970."""
    if text is None:
        return math.nan
    if text in ("true", "false"):
        return float(text == "true")
    try:
        number = float(text)
    except ValueError:
        moment = parse_time(text)
        return math.nan if moment is None else float(moment.astype(np.int64) / DAY)
    return number if math.isfinite(number) else math.nan


def _is_number(value: object) -> bool:
    return isinstance(value, bool | int | float)


def _as_text(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, list):
        return ";".join(sorted(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return _plain(value) if isinstance(value, float) else str(value)


def _plain(number: float) -> str:
    """A number as a field_change writes it: 7, 0.5."""
    return repr(number).removesuffix(".0")
