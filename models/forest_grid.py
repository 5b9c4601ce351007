"""Scores of boosted trees on a grid of records and intervals, without walking a tree a cell.

A column of the design says something of the record, of the interval, or is the record's value
less the interval's. Each split rules out the leaves of its other side; for a record, for an
interval and for a difference apart, what all of a tree's splits leave is a set of bits, and the
leaf of a cell is the one bit that the three sets share (as in QuickScorer; Lucchese et al., 2015).
Records fall into few different sets a tree, so that a small table gives the value of every cell.

The sums run over the same values in the same order as LightGBM's: the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

__all__ = ["ForestGrid"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Masks = npt.NDArray[np.uint16]

_MOST_LEAVES = 16  # of a tree; sets of so many bits index a table
_ZERO = 1e-35  # LightGBM's zero
_ALL = np.uint16(0xFFFF)


@dataclass(frozen=True)
class _Column:
    """The values of a column that no split tells apart, and one that stands for each.

    Attributes
    ----------
    edges : float64, shape (e,)
        Thresholds of all splits, ascending; codes, for a column of categories.
    codes : bool
    """

    edges: FloatArray
    codes: bool

    @property
    def standing(self) -> FloatArray:
        """One value for each place: up to each edge, above the last, missing."""
        return np.concatenate([self.edges, [np.inf, np.nan]])

    def places(self, values: FloatArray) -> IntArray:
        """The place of each value."""
        missing = np.isnan(values)
        if self.codes:
            missing |= values < 0
        found = np.searchsorted(self.edges, values)
        found[missing] = len(self.edges) + 1
        return found


@dataclass(frozen=True)
class _Tree:
    """The leaves that the splits on each column leave at each of its places, and their values."""

    left: dict[int, Masks]
    value: FloatArray

    def masks(self, places: dict[int, IntArray], n: int) -> Masks:
        """The leaves that the splits on some columns leave each of n rows."""
        found = np.full(n, _ALL)
        for column, left in self.left.items():
            if column in places:
                found &= left[places[column]]
        return found


@dataclass(frozen=True)
class ForestGrid:
    """The trees of a booster, ready for grids.

    Attributes
    ----------
    columns : dict of int to column
        Those that are split on.
    trees : tuple
        In the booster's order; tree i adds to score i % width.
    width : int
    """

    columns: dict[int, _Column]
    trees: tuple[_Tree, ...]
    width: int

    @classmethod
    def of(cls, booster: lgb.Booster) -> ForestGrid | None:
        """Read a booster; None where a tree has too many leaves."""
        blocks = [
            _lines(block) for block in booster.model_to_string().split("\nTree=")[1:]
        ]  # fmt: skip
        if any(int(lines["num_leaves"]) > _MOST_LEAVES for lines in blocks):
            return None
        splits = [_splits(lines) for lines in blocks]
        columns = {
            c: _column([s for tree in splits for s in tree if s.column == c])
            for c in {s.column for tree in splits for s in tree}
        }
        trees = []
        for lines, tree in zip(blocks, splits, strict=True):
            left: dict[int, Masks] = {}
            for split in tree:
                side = split.masks(columns[split.column].standing)
                left[split.column] = left.get(split.column, _ALL) & side
            trees.append(_Tree(left, _numbers(lines, "leaf_value")))
        return cls(columns, tuple(trees), booster.num_model_per_iteration())

    def scores(
        self, record: FloatArray, interval: FloatArray,
        difference: tuple[FloatArray, FloatArray] | None,
    ) -> FloatArray:  # fmt: skip
        """Raw scores, (n, k, width).

        Parameters
        ----------
        record : shape (n, p)
            The first columns of the design.
        interval : shape (k, q)
            Those after them.
        difference : (of records (n,), of intervals (k,)), optional
            The last column of the design is the first less the second.

        Raises
        ------
        ValueError
            If the trees ask for that difference and it is not given.
        """
        n, k, p = len(record), len(interval), record.shape[1]
        last = p + interval.shape[1]
        own = {c: column.places(record[:, c]) for c, column in self.columns.items() if c < p}
        ahead = {
            c: column.places(interval[:, c - p])
            for c, column in self.columns.items()
            if p <= c < last
        }
        both, standing = np.zeros((n, k), dtype=np.int64), 1
        if last in self.columns:
            if difference is None:
                raise ValueError(f"the trees split on column {last}, the difference: give it")
            apart = difference[0][:, None] - difference[1]
            standing = len(self.columns[last].standing)
            both = self.columns[last].places(apart) + standing * np.arange(k)
        out = np.zeros((self.width, n, k))
        for i, tree in enumerate(self.trees):
            mine, which = _few(tree.masks(own, n))
            left = mine[:, None] & tree.masks(ahead, k)
            score = out[i % self.width]
            if last in tree.left:
                table = _values(tree.value, left[:, :, None] & tree.left[last])
                score += table.ravel()[both + (which * (k * standing))[:, None]]
            else:
                score += _values(tree.value, left)[which]
        return np.moveaxis(out, 0, 2)


@dataclass(frozen=True)
class _Split:
    """One split as LightGBM decides it, and the leaves that each side leaves."""

    column: int
    threshold: float
    codes: IntArray | None  # that go left, for a column of categories
    default_left: bool
    missing: int  # 0 = none, 1 = zero, 2 = NaN
    left: np.uint16
    right: np.uint16

    def masks(self, values: FloatArray) -> Masks:
        """The leaves left to each value."""
        return np.where(self._goes_left(values), self.left, self.right)

    def _goes_left(self, values: FloatArray) -> npt.NDArray[np.bool_]:
        if self.codes is not None:
            return np.isin(values, self.codes)
        gone = np.isnan(values)
        whole = np.where(gone, 0.0, values) if self.missing != 2 else values
        if self.missing != 2:
            gone = np.abs(whole) <= _ZERO if self.missing == 1 else np.zeros_like(gone)
        return np.where(gone, self.default_left, whole <= self.threshold)


def _few(masks: Masks) -> tuple[Masks, IntArray]:
    """The different sets among many, and which each is."""
    there = np.zeros(int(_ALL) + 1, dtype=bool)
    there[masks] = True
    found = np.flatnonzero(there)
    number = np.zeros(len(there), dtype=np.int64)
    number[found] = np.arange(len(found))
    return found.astype(np.uint16), number[masks]


def _values(value: FloatArray, one: Masks) -> FloatArray:
    """The value of the leaf that is left in each set."""
    leaf = np.log2(np.maximum(one, 1)).astype(np.int64)
    return value[np.minimum(leaf, len(value) - 1)]


def _column(splits: list[_Split]) -> _Column:
    coded = [s.codes for s in splits if s.codes is not None]
    if coded:
        return _Column(np.arange(float(max(c.max(initial=0) for c in coded) + 1)), codes=True)
    asked = np.array([s.threshold for s in splits])
    return _Column(np.unique(np.concatenate([asked, [-_ZERO, 0.0, _ZERO]])), codes=False)


def _lines(block: str) -> dict[str, str]:
    lines = block.split("\n\n", 1)[0].splitlines()[1:]
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _numbers(lines: dict[str, str], name: str) -> FloatArray:
    return np.array(lines.get(name, "").split(), dtype=np.float64)


def _splits(lines: dict[str, str]) -> list[_Split]:
    column, threshold = _numbers(lines, "split_feature"), _numbers(lines, "threshold")
    decision = _numbers(lines, "decision_type").astype(np.int64)
    ends, words = (_numbers(lines, name) for name in ("cat_boundaries", "cat_threshold"))
    left, right = _numbers(lines, "left_child"), _numbers(lines, "right_child")
    leaves = int(lines["num_leaves"])
    under, every = _leaves_under(left, right, leaves), (1 << leaves) - 1
    found = []
    for i, bits in enumerate(decision.tolist()):
        codes = None
        if bits & 1:
            at = int(threshold[i])
            codes = _codes(words[int(ends[at]) : int(ends[at + 1])])
        one, other = under[int(left[i])], under[int(right[i])]
        found.append(
            _Split(
                int(column[i]), float(threshold[i]), codes, bool(bits & 2), (bits >> 2) & 3,
                np.uint16(every & ~other), np.uint16(every & ~one),
            )
        )  # fmt: skip
    return found


def _codes(words: FloatArray) -> IntArray:
    """Positions of the bits that are set, in words of 32."""
    bits = (words.astype(np.int64)[:, None] >> np.arange(32)) & 1
    return np.flatnonzero(bits.ravel()).astype(np.int64)


def _leaves_under(left: FloatArray, right: FloatArray, leaves: int) -> dict[int, int]:
    """The leaves below each split, and of each leaf itself (-1 - number): a bit each.

    A child has a higher number than its parent.
    """
    found = {-1 - i: 1 << i for i in range(leaves)}
    for split in range(len(left) - 1, -1, -1):
        found[split] = found[int(left[split])] | found[int(right[split])]
    return found
