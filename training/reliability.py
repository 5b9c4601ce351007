"""Does 30 % mean 30 % everywhere: by stage, by segment and by score band.

A model can be right on the whole and wrong in every part. Each part is shown with the range of
what happened, many landmarks of one record counted as the one experience that they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models import measures
from models.encoding import Columns, IntArray, ObjectArray
from models.measures import ReliabilityBin
from scoring.scores import GRADES

__all__ = ["Part", "Split", "grade_split", "level_split", "segments"]

FloatArray = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Categories = tuple[IntArray, ObjectArray]

_RECORDS_A_BAND, _MOST_BANDS = 40, 6
_MOST_PARTS, _LEAST_RECORDS = 12, 10
OTHERS, UNKNOWN = "all others", "not known"

# What managers ask for first; then whatever else says who or what a record is, as declared.
_FIRST = ("field[team_id]", "field[lead_source]")
_LAST = ("last_activity",)
_NEVER = ("stage",)
_MOST_SEGMENTS = 2
_LEAST_SHARE = 0.02  # of the rows, for a level to count
_LEAST_KNOWN = 0.5


@dataclass(frozen=True)
class Part:
    """One stage, segment or score band: what was said on average, and what happened.

    `n` landmarks of `records` records; `band_low` and `band_high` hold the 90 % range of
    `observed`; `bands` are finer, by predicted probability, where there are records enough.
    """

    name: str
    n: int
    records: int
    predicted: float
    observed: float
    band_low: float
    band_high: float
    bands: tuple[ReliabilityBin, ...] = ()


@dataclass(frozen=True)
class Split:
    """All landmarks, parted by something: "stage", "score band", "team"."""

    by: str
    parts: tuple[Part, ...]


def level_split(
    by: str,
    column: Categories,
    p: FloatArray,
    y: FloatArray,
    record: Rows,
    order: Sequence[str] | None = None,
) -> Split:
    """Part the landmarks by a category: in `order`, else the largest first.

    Without an order, levels of fewer than ten records and those beyond the twelfth are told
    together; with one, those not in it.
    """
    codes, levels = column
    place: dict[str, npt.NDArray[np.intp]] = {
        str(level): np.flatnonzero(codes == code)
        for code, level in enumerate(levels)
        if (codes == code).any()
    }
    if order is None:
        ranked = sorted(place, key=lambda name: -len(place[name]))
        enough = [n for n in ranked if len(np.unique(record[place[n]])) >= _LEAST_RECORDS]
        shown = enough[:_MOST_PARTS]
    else:
        shown = [name for name in order if name in place]
    rest = [rows for name, rows in place.items() if name not in shown]
    groups = [(name, place[name]) for name in shown]
    groups += [(OTHERS, np.concatenate(rest))] if rest else []
    groups += [(UNKNOWN, np.flatnonzero(codes < 0))]
    return Split(by, tuple(_part(n, rows, p, y, record) for n, rows in groups if len(rows)))


def grade_split(p: FloatArray, y: FloatArray, record: Rows) -> Split:
    """Part the landmarks by the grade that their probability gets, the best first."""
    edges = sorted(least for _, least in GRADES)[1:]
    table = measures.reliability_table(p, y, groups=record, edges=edges)
    at = np.searchsorted(edges, [band.predicted for band in table], "right")
    names = [_grade_name(i) for i in range(len(GRADES))][::-1]
    parts = [_of(names[int(i)], band) for i, band in zip(at, table, strict=True)]
    return Split("grade", tuple(parts[::-1]))


def segments(columns: Columns) -> dict[str, Categories]:
    """The fields worth a look of their own, at most two: categories of few, well filled levels.

    The owner's team and the lead source where there are any; else those known most often.
    """
    fit: dict[str, Categories] = {
        name: column
        for name, column in columns.items()
        if isinstance(column, tuple) and _is_segment(name, column)
    }
    place = {name: i for i, name in enumerate(_FIRST)}

    def rank(name: str) -> tuple[int, bool, float]:
        return place.get(name, len(place)), name in _LAST, -float(np.mean(fit[name][0] >= 0))

    return {_label(name): fit[name] for name in sorted(fit, key=rank)[:_MOST_SEGMENTS]}


def _is_segment(name: str, column: Categories) -> bool:
    codes, levels = column
    if name in _NEVER or not len(codes) or np.mean(codes >= 0) < _LEAST_KNOWN:
        return False
    share = np.bincount(codes[codes >= 0], minlength=len(levels)) / len(codes)
    return 2 <= int((share >= _LEAST_SHARE).sum()) <= _MOST_PARTS


def _label(name: str) -> str:
    """`field[lead_source]` as people say it.

    Examples
    --------
    >>> _label("field[lead_source]"), _label("account[industry]"), _label("field[team_id]")
    ('lead source', 'account industry', 'team')
    """
    told = name.removeprefix("field[").replace("[", " ").removesuffix("]").removesuffix("_id")
    return told.replace("_", " ")


def _grade_name(i: int) -> str:
    """Grade with its limits, the best first: "A: from 60 %", "D: below 10 %"."""
    grade, least = GRADES[i]
    if i == 0:
        return f"{grade}: from {100 * least:g} %"
    top = 100 * GRADES[i - 1][1]
    return f"{grade}: below {top:g} %" if least == 0 else f"{grade}: {100 * least:g} to {top:g} %"


def _part(
    name: str, rows: npt.NDArray[np.intp], p: FloatArray, y: FloatArray, record: Rows
) -> Part:
    said, happened, own = p[rows], y[rows], record[rows]
    (whole,) = measures.reliability_table(said, happened, 1, groups=own)
    bins = min(whole.records // _RECORDS_A_BAND, _MOST_BANDS)
    finer = measures.reliability_table(said, happened, bins, groups=own) if bins > 1 else ()
    return _of(name, whole, finer)


def _of(name: str, whole: ReliabilityBin, finer: tuple[ReliabilityBin, ...] = ()) -> Part:
    return Part(
        name, whole.n, whole.records, whole.predicted, whole.observed, whole.band_low,
        whole.band_high, finer,
    )  # fmt: skip
