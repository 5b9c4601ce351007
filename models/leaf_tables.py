"""What each leaf of boosted trees owes to each column: reasons at the cost of a prediction.

A record reaches one leaf of a tree. Along the way down, every split moved the expectation of the
tree, and at the leaf the moves are shared out among the columns that were split on: by the
Shapley value of the game in which a column that is known sends the record its way, and one that
is not sends it down both sides by their cover. Only the way to the leaf matters, so the shares
are a table, made once; a record's contributions are a sum of its leaves' rows.

TreeSHAP (Lundberg et al., 2020) plays the same game, but also looks at the splits off the way,
which makes it depend on more than the leaf. Shares of a leaf always sum to its value less the
tree's expectation, so that both add up to the raw score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
from scipy import sparse

__all__ = ["Forest", "LeafArray", "LeafTable"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
LeafArray = npt.NDArray[np.int32]

_VISITS = 3_000_000  # of leaves, held at a time


@dataclass(frozen=True)
class Forest:
    """The ways from the roots to the leaves of one or more boosters, leaves numbered through.

    Attributes
    ----------
    boosters : tuple of lightgbm.Booster
    first : int64, shape (trees,)
        Number of each tree's leaf 0.
    value : float64, shape (leaves,)
        What a leaf adds to its score.
    count : float64, shape (leaves,)
        Rows in the leaf when the booster was fitted.
    way : int64, shape (leaves, depth + 1)
        Vertices from the root to the leaf, then -1. Leaves are the vertices 0 .. leaves - 1.
    sibling : int64, shape (vertices,)
        The other child of a vertex's parent; -1 for roots.
    column : int64, shape (vertices,)
        The column a vertex splits on; -1 for leaves.
    """

    boosters: tuple[lgb.Booster, ...]
    first: IntArray
    value: FloatArray
    count: FloatArray
    way: IntArray
    sibling: IntArray
    column: IntArray

    @classmethod
    def of(cls, boosters: Sequence[lgb.Booster], scale: float = 1.0) -> Forest:
        """Read the trees of boosters whose scores are added up, each times `scale`."""
        trees = [tree for booster in boosters for tree in _trees(booster)]
        leaves = np.array([len(t["leaf_value"]) for t in trees], dtype=np.int64)
        splits = np.array([len(t["split_feature"]) for t in trees], dtype=np.int64)
        first = np.cumsum(leaves) - leaves
        inner = leaves.sum() + np.cumsum(splits) - splits
        vertices = int(leaves.sum() + splits.sum())
        sibling, column = np.full(vertices, -1, dtype=np.int64), np.full(vertices, -1, np.int64)
        ways: list[list[int]] = [[] for _ in range(int(leaves.sum()))]
        for tree, leaf, split in zip(trees, first.tolist(), inner.tolist(), strict=True):
            _walk(tree, leaf, split, ways, sibling, column)
        # Room for a step also where no tree has one.
        depth = max(2, *(len(w) for w in ways))
        return cls(
            tuple(boosters),
            first,
            np.concatenate([t["leaf_value"] for t in trees]) * scale,
            np.concatenate([t["leaf_count"] for t in trees]),
            np.array([w + [-1] * (depth - len(w)) for w in ways], np.int64).reshape(-1, depth),
            sibling,
            column,
        )

    @property
    def fitted_cover(self) -> FloatArray:
        """Share of the fitted rows that reach each leaf of a tree, above 0: (leaves,)."""
        count = np.maximum(self.count, 1.0)
        return np.asarray(count / np.repeat(np.add.reduceat(count, self.first), self.sizes))

    @property
    def sizes(self) -> IntArray:
        """Number of leaves of each tree."""
        return np.diff(np.append(self.first, len(self.count)))

    @property
    def width(self) -> int:
        """Number of scores; tree i adds to score i % width."""
        return self.boosters[0].num_model_per_iteration()

    def leaves(self, design: FloatArray, threads: int = 1) -> LeafArray:
        """Number of the leaf that each row reaches in each tree: (n, trees)."""
        if not len(design):
            return np.zeros((0, len(self.first)), dtype=np.int32)
        found = [
            np.asarray(b.predict(design, pred_leaf=True, num_threads=threads), dtype=np.int32)
            for b in self.boosters
        ]
        parts = [f.reshape(len(design), -1) for f in found]
        every = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        return every + self.first.astype(np.int32)

    def scores(self, leaves: LeafArray) -> FloatArray:
        """Raw scores of rows by their leaves, (n, width)."""
        score = np.repeat(np.arange(len(self.first)) % self.width, self.sizes)
        values = np.where(score[:, None] == np.arange(self.width), self.value[:, None], 0.0)
        return np.asarray(
            _visits(leaves, np.ones(leaves.size), len(values)) @ values, dtype=np.float64
        )

    def table(self, columns: int, cover: FloatArray | None = None) -> LeafTable:
        """Share out every leaf.

        Parameters
        ----------
        columns : int
            Number of columns of the design.
        cover : float64, shape (leaves,), optional
            How often the records that one starts from reach each leaf, all above 0; the rows of
            the fit where it is left out.
        """
        weight = self.fitted_cover if cover is None else cover
        there = self.way >= 0
        size = len(self.sibling)
        spread = np.where(there, weight[:, None], 0.0)
        reach, due = (
            np.asarray(np.bincount(self.way[there], part[there], size), dtype=np.float64)
            for part in (spread, spread * self.value[:, None])
        )
        mean = due / np.maximum(reach, 1e-300)
        roots = self.way[self.first, 0]
        start = mean[roots].reshape(-1, self.width).sum(axis=0)
        return LeafTable(self, start, self._shares(reach, mean, columns))

    def _shares(self, reach: FloatArray, mean: FloatArray, columns: int) -> sparse.csr_array:
        """The Shapley value of each leaf's way, (leaves, columns).

        The game is a sum over the places where the way can be left. What each adds is the mean
        of the side that is entered then, times one factor a column: the chance that the column
        lets the record come this far and turn off here, when it is known and when it is not.
        """
        steps = self.way.shape[1] - 1
        players = np.where(self.way[:, 1:] >= 0, self.column[self.way[:, :-1]], -1)
        # The place of a column's first split on the way stands for the column.
        slot = np.argmax(players[:, :, None] == players[:, None, :], axis=2)
        known, hidden = np.ones((len(self.way), steps)), np.ones((len(self.way), steps))
        shares = np.zeros((len(self.way), steps))
        for j in range(steps):
            on = np.flatnonzero(players[:, j] >= 0)
            at, hot = self.way[on, j], self.way[on, j + 1]
            part, place = reach[hot] / reach[at], slot[on, j]
            left = hidden[on]
            left[np.arange(len(on)), place] *= 1.0 - part
            never = known[on]
            never[np.arange(len(on)), place] = 0.0
            shares[on] += mean[self.sibling[hot]][:, None] * _product_shares(never, left)
            hidden[on, place] *= part
        shares += self.value[:, None] * _product_shares(known, hidden)
        used = (players >= 0) & (slot == np.arange(steps))
        row, _ = np.nonzero(used)
        return sparse.csr_array(
            (shares[used], (row, players[used])), shape=(len(self.way), columns)
        )


def _product_shares(known: FloatArray, hidden: FloatArray) -> FloatArray:
    """Shapley values of products of one factor a player, (n, players).

    With every player in with chance t, the product's derivative by one player's chance,
    integrated over t from 0 to 1 (Owen, 1972): a polynomial, for which the nodes are exact.
    """
    nodes, weights = np.polynomial.legendre.leggauss(known.shape[1] // 2 + 1)
    total = np.zeros(known.shape)
    for t, w in zip((nodes + 1) / 2, weights / 2, strict=True):
        factor = t * known + (1.0 - t) * hidden
        total += w * (known - hidden) * (factor.prod(axis=1, keepdims=True) / factor)
    return total


@dataclass(frozen=True)
class LeafTable:
    """Shares of leaves.

    Attributes
    ----------
    forest : Forest
    start : float64, shape (width,)
        Expected raw scores, from which contributions count.
    shares : sparse array, shape (leaves, columns)
        start + the summed rows of a record's leaves, score by score, is its raw score.
    """

    forest: Forest
    start: FloatArray
    shares: sparse.csr_array

    def sums(self, design: FloatArray, threads: int = 1) -> FloatArray:
        """Contributions to the raw score of boosters of one score: (n, columns)."""
        size = max(_VISITS // len(self.forest.first), 1)
        out = np.empty((len(design), self.shares.shape[1]))
        for begin in range(0, len(design), size):
            leaves = self.forest.leaves(design[begin : begin + size], threads)
            found = _visits(leaves, np.ones(leaves.size), self.shares.shape[0]) @ self.shares
            out[begin : begin + size] = found.toarray()
        return out

    def weighted(self, leaves: LeafArray, weight: FloatArray, ends: IntArray) -> FloatArray:
        """Weighted shares of many rows, added up by whom they belong to: (owners, columns).

        Parameters
        ----------
        leaves : int32, shape (r, trees)
        weight : float64, shape (r, width)
            Of the scores of each row.
        ends : int64, shape (owners + 1,)
            Owner i has the rows from ends[i] up to ends[i + 1].
        """
        spread = np.tile(weight, (1, leaves.shape[1] // self.forest.width))
        found = _visits(leaves, spread, self.shares.shape[0], ends) @ self.shares
        return np.asarray(found.toarray(), dtype=np.float64)


def _visits(
    leaves: LeafArray, weight: FloatArray, size: int, ends: IntArray | None = None
) -> sparse.csr_array:
    """Weights of `size` leaves, a row for each row of `leaves` or for each owner of some.

    Products with it go row by row and add in order, so that neighbours change no bit.
    """
    marks = np.arange(len(leaves) + 1) if ends is None else ends
    parts = weight.ravel(), leaves.ravel(), (marks * leaves.shape[1]).astype(np.int32)
    return sparse.csr_array(parts, shape=(len(marks) - 1, size))


def _trees(booster: lgb.Booster) -> list[dict[str, FloatArray]]:
    """The arrays of each tree, from the text that bundles hold too."""
    wanted = ("split_feature", "left_child", "right_child", "leaf_value", "leaf_count")
    found = []
    for block in booster.model_to_string().split("\nTree=")[1:]:
        lines = dict(
            line.split("=", 1) for line in block.split("\n\n", 1)[0].splitlines()[1:] if "=" in line
        )
        tree = {name: np.array(lines.get(name, "").split(), dtype=np.float64) for name in wanted}
        if not len(tree["leaf_count"]):
            tree["leaf_count"] = np.ones(len(tree["leaf_value"]))
        found.append(tree)
    return found


def _walk(
    tree: dict[str, FloatArray], leaf: int, split: int, ways: list[list[int]], sibling: IntArray,
    column: IntArray,
) -> None:  # fmt: skip
    """Fill in one tree, whose leaves and splits are numbered from `leaf` and `split` on."""

    def vertex(child: float) -> int:
        return split + int(child) if child >= 0 else leaf + int(-child) - 1

    if not len(tree["split_feature"]):
        ways[leaf] = [leaf]
        return
    open_ways = [[split]]
    while open_ways:
        way = open_ways.pop()
        if way[-1] < split:
            ways[way[-1]] = way
            continue
        node = way[-1] - split
        left, right = vertex(tree["left_child"][node]), vertex(tree["right_child"][node])
        column[way[-1]] = int(tree["split_feature"][node])
        sibling[left], sibling[right] = right, left
        open_ways += [[*way, left], [*way, right]]
