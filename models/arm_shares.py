"""The arms of the deal model as sums over columns, from what is typical to what a record has.

Each arm knows its scores at both ends, (m, k, 3), and how the way between them is made up: given
weights of the scores it says how much of the weighted change each of its inputs brought.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.deal import DealModel
from models.deal_arms import (
    ArmInputs,
    interval_columns,
    interval_sources,
    log_chances,
    ridge_design,
    ridge_sources,
    table_chances,
    tree_offsets,
)
from models.encoding import Columns, row_count
from models.grid import Cells
from models.leaf_tables import Forest, LeafArray, LeafTable

__all__ = ["Arm", "Typical", "arms_of", "leaves_of", "typical_of"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_ALL_SHARE = 0.02  # weight of all fitted rows beside the typical records in a leaf's cover


@dataclass(frozen=True)
class Typical:
    """What the arms see of a typical record.

    Attributes
    ----------
    days : float
        Median time in the stage.
    linear : float64, shape (q,)
        Mean linear inputs; empty where the table is the whole model.
    leaves : LeafTable or None
        Shares of the leaves, counted from the expectation over the typical records.
    """

    days: float
    linear: FloatArray
    leaves: LeafTable | None


@dataclass(frozen=True)
class _Table:
    weight: float
    begin: FloatArray
    own: FloatArray
    sources: tuple[str, ...] = ("days_in_stage",)

    def shares(self, slope: FloatArray) -> FloatArray:
        return _row_sums(slope * (self.own - self.begin))[:, None]


@dataclass(frozen=True)
class _Ridge:
    """`coef` (3, q); `way` (m, k, q) is how far each input is from the typical one."""

    weight: float
    begin: FloatArray
    own: FloatArray
    sources: tuple[str, ...]
    coef: FloatArray
    way: FloatArray

    def shares(self, slope: FloatArray) -> FloatArray:
        total = np.zeros((len(self.way), self.way.shape[2]))
        for c in range(3):
            total += (slope[:, :, c, None] * self.way).sum(axis=1) * self.coef[c]
        return total


@dataclass(frozen=True)
class _Trees:
    """`leaves` (r, trees) are reached by the intervals `live` (r,), numbered through."""

    weight: float
    begin: FloatArray
    own: FloatArray
    sources: tuple[str, ...]
    table: LeafTable
    leaves: LeafArray
    live: IntArray

    def shares(self, slope: FloatArray) -> FloatArray:
        m, k = slope.shape[:2]
        weight = slope.reshape(m * k, 3)[self.live]
        ends = np.searchsorted(self.live, np.arange(m + 1) * k)
        return self.table.weighted(self.leaves, weight, ends)


Arm = _Table | _Ridge | _Trees


def arms_of(
    model: DealModel, typical: Typical, columns: Columns, cells: Cells, leaves: LeafArray | None
) -> list[Arm]:
    """The arms of a model for some records.

    Parameters
    ----------
    leaves : shape (r, trees) or None
        What `leaves_of` says; None where the table is the whole model.
    """
    days = np.full(row_count(columns), typical.days)
    begin, own = (
        log_chances(table_chances(model.table, given, cells))
        for given in (dict(columns) | {"days_in_stage": days}, columns)
    )
    table = _Table(float(model.weights[0]), begin, own)
    if leaves is None:
        return [table]
    return [
        table,
        _ridge_arm(model, typical, columns, cells, table),
        _trees_arm(model, typical, columns, cells, leaves),
    ]


def typical_of(
    model: DealModel, forest: Forest | None, columns: Columns, leaves: LeafArray | None
) -> Typical:
    """What is typical of some records whose intervals reach `leaves`."""
    days = columns["days_in_stage"]
    assert not isinstance(days, tuple)
    middle = 0.0 if np.isnan(days).all() else float(np.nanmedian(days))
    found = Typical(middle, np.zeros(0), None)
    if model.encoder is None or forest is None or leaves is None:
        return found
    inputs = _inputs(model)
    cover = np.bincount(leaves.ravel(), minlength=len(forest.value)) / len(leaves)
    width = len(model.encoder.names) + len(interval_sources(inputs, columns))
    return replace(
        found,
        linear=model.encoder.linear(columns).mean(axis=0),
        leaves=forest.table(width, cover + _ALL_SHARE * forest.fitted_cover),
    )


def leaves_of(
    model: DealModel, forest: Forest | None, columns: Columns, cells: Cells
) -> LeafArray | None:
    """The leaves that intervals of some length reach, (r, trees); None without trees."""
    if model.encoder is None or forest is None:
        return None
    row, col = np.nonzero(cells.end > cells.begin)
    encoded = model.encoder.trees(columns)
    ahead = interval_columns(_inputs(model), columns, cells, row, col)
    return forest.leaves(np.column_stack([encoded[row], ahead]))


def _ridge_arm(
    model: DealModel, typical: Typical, columns: Columns, cells: Cells, table: _Table
) -> _Ridge:
    assert model.encoder is not None and model.ridge is not None
    inputs, (m, k) = _inputs(model), cells.begin.shape
    row, col = np.repeat(np.arange(m), k), np.tile(np.arange(k), m)
    linear = model.encoder.linear(columns)
    usual = np.broadcast_to(typical.linear, linear.shape)
    start = ridge_design(inputs, usual, cells, table.begin, row, col)
    mine = ridge_design(inputs, linear, cells, table.own, row, col)
    coef, intercept = model.ridge
    begin, own = (
        (np.einsum("ij,cj->ic", design, coef, optimize=False) + intercept).reshape(m, k, 3)
        for design in (start, mine)
    )
    way = (mine - start).reshape(m, k, -1)
    return _Ridge(float(model.weights[1]), begin, own, ridge_sources(inputs), coef, way)


def _trees_arm(
    model: DealModel, typical: Typical, columns: Columns, cells: Cells, leaves: LeafArray
) -> _Trees:
    assert typical.leaves is not None
    inputs, (m, k) = _inputs(model), cells.begin.shape
    row, col = np.repeat(np.arange(m), k), np.tile(np.arange(k), m)
    begin = tree_offsets(inputs, cells, row, col) + typical.leaves.start
    live = np.flatnonzero(cells.end > cells.begin)
    own = begin.copy()
    own[live] += typical.leaves.forest.scores(leaves) - typical.leaves.start
    sources = (*inputs.encoder.names, *interval_sources(inputs, columns))
    return _Trees(
        float(model.weights[2]), begin.reshape(m, k, 3), own.reshape(m, k, 3), sources,
        typical.leaves, leaves, live,
    )  # fmt: skip


def _inputs(model: DealModel) -> ArmInputs:
    assert model.encoder is not None
    return ArmInputs(model.encoder, model.table, model.calendar)


def _row_sums(values: FloatArray) -> FloatArray:
    return np.asarray(values.reshape(len(values), -1).sum(axis=1), dtype=np.float64)
