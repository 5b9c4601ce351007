"""A typed table encoder: vocabularies, missing values and winsor limits, learnt once.

Learners see matrices; the rest of the house sees named columns. The encoder is the only bridge
and holds plain values, so that it travels in a bundle. Nothing in it looks at the batch: a row
encodes to the same bits alone or among a million.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "CategoricalColumn",
    "Column",
    "Columns",
    "EncodingError",
    "FloatArray",
    "IntArray",
    "NumericColumn",
    "ObjectArray",
    "TableEncoder",
    "row_count",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int32]
ObjectArray = npt.NDArray[np.object_]
Column = FloatArray | tuple[IntArray, ObjectArray]
Columns = Mapping[str, Column]

_CLIP_SD = 3.0


class EncodingError(ValueError):
    """Columns that cannot be encoded; the message names the column, what was seen and the cure."""


@dataclass(frozen=True, slots=True)
class NumericColumn:
    """What is kept of one numeric column: winsor limits, mean and SD inside them.

    `scale` is 0 where the column was constant or always missing; such a column has no linear
    value. `missing` is True where some, but not all, fitted rows were missing.
    """

    name: str
    low: float
    high: float
    mean: float
    scale: float
    missing: bool


@dataclass(frozen=True, slots=True)
class CategoricalColumn:
    """What is kept of one categorical column.

    `levels` have codes 0..K-1 and everything else has code K, "other". `rare` are the levels
    that were seen but pooled, so that a level never seen can be told from them. `dummies` are
    the codes whose indicator varied in the fitted rows.
    """

    name: str
    levels: tuple[str, ...]
    rare: tuple[str, ...]
    dummies: tuple[int, ...]
    missing: bool


@dataclass(frozen=True)
class TableEncoder:
    """Encodes named columns for trees and for linear models.

    Attributes
    ----------
    columns : tuple of NumericColumn or CategoricalColumn
        What was learnt, in the order of the fitted columns.
    names : tuple of str
        Source columns, one per column of `trees`.
    categorical : tuple of int
        Positions in `trees` that hold codes, for LightGBM.
    linear_names : tuple of str
        The source column of each column of `linear`: reasons are grouped by it.
    linear_labels : tuple of str
        What each column of `linear` says: "age", "source=web", "source other", "age missing".

    Examples
    --------
    >>> import numpy as np
    >>> columns = {"age": np.array([30.0, np.nan, 50.0])}
    >>> encoder = TableEncoder.fit(columns)
    >>> encoder.trees(columns)[:, 0]
    array([30., nan, 50.])
    >>> encoder.linear(columns).round(1)
    array([[-1.,  0.],
           [ 0.,  1.],
           [ 1.,  0.]])
    >>> encoder.linear_labels
    ('age', 'age missing')
    """

    columns: tuple[NumericColumn | CategoricalColumn, ...]
    names: tuple[str, ...] = field(init=False, repr=False, compare=False)
    categorical: tuple[int, ...] = field(init=False, repr=False, compare=False)
    linear_names: tuple[str, ...] = field(init=False, repr=False, compare=False)
    linear_labels: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _plan: _LinearPlan = field(init=False, repr=False, compare=False)
    _codes: dict[str, dict[str, int]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        plan = _LinearPlan.of(self.columns)
        derived: dict[str, Any] = {
            "names": tuple(c.name for c in self.columns),
            "categorical": tuple(
                j for j, c in enumerate(self.columns) if isinstance(c, CategoricalColumn)
            ),
            "linear_names": tuple(self.columns[j].name for j in plan.sources),
            "linear_labels": plan.labels,
            "_plan": plan,
            "_codes": {
                # Rare levels are known too, so that a level never seen can be told from them.
                c.name: dict.fromkeys(c.rare, len(c.levels))
                | {level: code for code, level in enumerate(c.levels)}
                for c in self.columns
                if isinstance(c, CategoricalColumn)
            },
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    @classmethod
    def fit(
        cls,
        columns: Columns,
        *,
        weight: FloatArray | None = None,
        min_count: int = 10,
        winsor: tuple[float, float] = (0.005, 0.995),
        max_levels: int = 255,
    ) -> TableEncoder:
        """Learn vocabularies and limits.

        Parameters
        ----------
        columns : Columns
            Fitted rows: float64 (n,) with NaN missing, or a pair of codes int32 (n,) with -1
            missing and levels (object array of str).
        weight : ndarray of shape (n,), optional
            Row weights for limits, mean and SD. Levels are counted unweighted.
        min_count : int
            A level seen in fewer rows is pooled as "other".
        winsor : (float, float)
            Quantiles to which numeric values are drawn in before they are standardised.
        max_levels : int
            The most frequent levels are kept up to this number, the rest pooled.

        Raises
        ------
        EncodingError
            If there are no rows, or columns of different lengths.
        """
        n = row_count(columns)
        if n == 0:
            raise EncodingError("0 rows to fit an encoder on; give at least one row")
        w = np.ones(n) if weight is None else np.asarray(weight, dtype=np.float64)
        if w.shape != (n,) or not np.all(w >= 0) or not w.sum() > 0:
            raise EncodingError(
                f"weight has shape {w.shape} for {n} rows, or no positive sum; "
                "give one weight >= 0 per row"
            )
        fitted: list[NumericColumn | CategoricalColumn] = []
        for name, column in columns.items():
            if isinstance(column, tuple):
                fitted.append(_fit_categorical(name, *column, min_count, max_levels))
            else:
                fitted.append(_fit_numeric(name, _as_float(column), w, winsor))
        return cls(tuple(fitted))

    def trees(self, columns: Columns) -> FloatArray:
        """Numbers as they are and categories as codes, NaN missing: float64 (n, p).

        A column absent from `columns`, or None, is all missing; so are values of the wrong kind
        (numbers in a categorical column, text in a numeric one), which `unseen` counts.
        """
        out = np.full((row_count(columns), len(self.columns)), np.nan)
        for j, fitted in enumerate(self.columns):
            column = columns.get(fitted.name)
            if column is None or isinstance(column, tuple) != (j in self.categorical):
                continue
            if isinstance(fitted, NumericColumn):
                assert not isinstance(column, tuple)
                out[:, j] = _as_float(column)
            else:
                assert isinstance(column, tuple)
                out[:, j] = _recode(*column, self._codes[fitted.name], len(fitted.levels))
        return out

    def linear(self, columns: Columns) -> FloatArray:
        """Standardised numbers, indicators of levels and of missing values: float64 (n, q).

        Numbers are winsorised, standardised and clipped at 3 SD; a missing number is 0 (the
        mean) beside its indicator. Columns that were constant when fitted are left out.
        """
        return self.linear_of(self.trees(columns))

    def linear_of(self, trees: FloatArray) -> FloatArray:
        """The linear matrix (n, q) of rows already encoded by `trees`, shape (n, p)."""
        return self._plan.apply(trees)

    def unseen(self, columns: Columns) -> dict[str, int]:
        """Rows per column whose level was never seen when fitted, or of the wrong kind.

        Only columns with such rows are listed.
        """
        counts: dict[str, int] = {}
        for fitted in self.columns:
            column = columns.get(fitted.name)
            if column is None:
                continue
            count = _unseen(column, self._codes.get(fitted.name))
            if count:
                counts[fitted.name] = count
        return counts

    def to_state(self) -> dict[str, Any]:
        """Plain JSON values from which `from_state` rebuilds an equal encoder."""
        return {"columns": [_column_state(c) for c in self.columns]}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> TableEncoder:
        """Rebuild an encoder from `to_state`."""
        return cls(tuple(_column_of(s) for s in state["columns"]))


def row_count(columns: Columns) -> int:
    """Number of rows; None columns have no say.

    Raises
    ------
    EncodingError
        If the columns have different lengths.
    """
    given: Mapping[str, Column | None] = columns
    lengths = {
        name: len(c[0]) if isinstance(c, tuple) else len(c)
        for name, c in given.items()
        if c is not None
    }
    if len(set(lengths.values())) > 1:
        raise EncodingError(f"columns of different lengths: {lengths}; give every row every column")
    return next(iter(lengths.values()), 0)


def _as_float(column: npt.ArrayLike) -> FloatArray:
    # None becomes NaN here, so that one JSON row and a float batch mean the same.
    return np.asarray(column, dtype=np.float64)


def _fit_numeric(
    name: str, values: FloatArray, weight: FloatArray, winsor: tuple[float, float]
) -> NumericColumn:
    known = np.isfinite(values) & (weight > 0)
    if not known.any():
        return NumericColumn(name, 0.0, 0.0, 0.0, 0.0, missing=False)
    x, w = values[known], weight[known]
    low, high = (float(np.quantile(x, level, weights=w, method="inverted_cdf")) for level in winsor)
    if low == high:
        # A rare flag or count: the limits would erase it, so it keeps its own range.
        low, high = float(x.min()), float(x.max())
    inside = np.clip(x, low, high)
    mean = float(np.average(inside, weights=w))
    variance = float(np.average((inside - mean) ** 2, weights=w))
    constant = low == high or variance == 0.0
    missing = bool(np.isnan(values).any() and not np.isnan(values).all())
    return NumericColumn(name, low, high, mean, 0.0 if constant else variance**0.5, missing)


def _fit_categorical(
    name: str, codes: IntArray, levels: ObjectArray, min_count: int, max_levels: int
) -> CategoricalColumn:
    known = codes[codes >= 0]
    counted = np.bincount(known, minlength=len(levels))
    counts: dict[str, int] = {}
    for level, count in zip(levels, counted, strict=True):
        if isinstance(level, str) and count:
            counts[level] = counts.get(level, 0) + int(count)
    # Ordered by frequency, then text: the codes do not depend on the order of the source.
    ranked = sorted(counts, key=lambda level: (-counts[level], level))
    kept = tuple(level for level in ranked[:max_levels] if counts[level] >= min_count)
    rare = tuple(level for level in ranked if level not in set(kept))
    n, other = len(codes), sum(counts[level] for level in rare)
    shares = [counts[level] for level in kept] + [other]
    missing = n - sum(shares)
    return CategoricalColumn(
        name,
        kept,
        rare,
        tuple(code for code, count in enumerate(shares) if 0 < count < n),
        missing=0 < missing < n,
    )


def _recode(
    codes: IntArray, levels: ObjectArray, vocabulary: Mapping[str, int], other: int
) -> FloatArray:
    """Codes of the fitted vocabulary, shape (n,), float with NaN missing.

    Only levels in use are looked up, when there are more levels than rows.
    """
    used = range(len(levels)) if len(levels) <= len(codes) else np.unique(codes[codes >= 0])
    # The last entry serves code -1.
    table = np.full(len(levels) + 1, np.nan)
    for i in used:
        level = levels[i]
        if isinstance(level, str):
            table[i] = vocabulary.get(level, other)
    return table[codes]


def _unseen(column: Column, vocabulary: Mapping[str, int] | None) -> int:
    """Rows whose level is not in the vocabulary, or whose kind is wrong (None: numbers)."""
    if not isinstance(column, tuple):
        return 0 if vocabulary is None else int(np.count_nonzero(~np.isnan(_as_float(column))))
    codes, levels = column
    counted = np.bincount(codes[codes >= 0], minlength=len(levels))
    return sum(
        int(counted[i])
        for i in np.flatnonzero(counted)
        if isinstance(levels[i], str) and (vocabulary is None or levels[i] not in vocabulary)
    )


@dataclass(frozen=True)
class _LinearPlan:
    """How the linear matrix is made from the tree matrix: numbers, then indicators, then missing.

    `sources` (q,) are positions in the tree matrix; the other arrays belong to one part each.
    """

    sources: npt.NDArray[np.intp]
    labels: tuple[str, ...]
    numbers: npt.NDArray[np.intp]
    low: FloatArray
    high: FloatArray
    mean: FloatArray
    scale: FloatArray
    dummies: npt.NDArray[np.intp]
    codes: FloatArray
    missing: npt.NDArray[np.intp]

    @classmethod
    def of(cls, columns: tuple[NumericColumn | CategoricalColumn, ...]) -> _LinearPlan:
        numbers = [
            (j, c) for j, c in enumerate(columns) if isinstance(c, NumericColumn) and c.scale > 0
        ]
        dummies = [
            (j, code, f"{c.name}={c.levels[code]}" if code < len(c.levels) else f"{c.name} other")
            for j, c in enumerate(columns)
            if isinstance(c, CategoricalColumn)
            for code in c.dummies
        ]
        missing = [j for j, c in enumerate(columns) if c.missing]
        sources = [j for j, _ in numbers] + [j for j, *_ in dummies] + missing
        return cls(
            sources=np.array(sources, dtype=np.intp),
            labels=(
                *(c.name for _, c in numbers),
                *(label for *_, label in dummies),
                *(f"{columns[j].name} missing" for j in missing),
            ),
            numbers=np.array([j for j, _ in numbers], dtype=np.intp),
            low=np.array([c.low for _, c in numbers], dtype=np.float64),
            high=np.array([c.high for _, c in numbers], dtype=np.float64),
            mean=np.array([c.mean for _, c in numbers], dtype=np.float64),
            scale=np.array([c.scale for _, c in numbers], dtype=np.float64),
            dummies=np.array([j for j, *_ in dummies], dtype=np.intp),
            codes=np.array([code for _, code, _ in dummies], dtype=np.float64),
            missing=np.array(missing, dtype=np.intp),
        )

    def apply(self, trees: FloatArray) -> FloatArray:
        first, second = len(self.numbers), len(self.numbers) + len(self.dummies)
        out = np.empty((len(trees), len(self.sources)))
        inside = np.clip(trees[:, self.numbers], self.low, self.high)
        standard = np.clip((inside - self.mean) / self.scale, -_CLIP_SD, _CLIP_SD)
        out[:, :first] = np.where(np.isnan(standard), 0.0, standard)
        out[:, first:second] = trees[:, self.dummies] == self.codes
        out[:, second:] = np.isnan(trees[:, self.missing])
        return out


def _column_state(column: NumericColumn | CategoricalColumn) -> dict[str, Any]:
    if isinstance(column, NumericColumn):
        return {
            "kind": "numeric",
            "name": column.name,
            "low": column.low,
            "high": column.high,
            "mean": column.mean,
            "scale": column.scale,
            "missing": column.missing,
        }
    return {
        "kind": "categorical",
        "name": column.name,
        "levels": list(column.levels),
        "rare": list(column.rare),
        "dummies": list(column.dummies),
        "missing": column.missing,
    }


def _column_of(state: Mapping[str, Any]) -> NumericColumn | CategoricalColumn:
    if state["kind"] == "numeric":
        low, high, mean, scale = (float(state[k]) for k in ("low", "high", "mean", "scale"))
        return NumericColumn(str(state["name"]), low, high, mean, scale, bool(state["missing"]))
    return CategoricalColumn(
        str(state["name"]),
        tuple(state["levels"]),
        tuple(state["rare"]),
        tuple(int(code) for code in state["dummies"]),
        bool(state["missing"]),
    )
