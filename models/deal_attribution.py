"""What each column adds to a deal's log-odds of being won, from its stage's average on.

The log-odds of being won by the end of the grid are a smooth function F of the blended scores of
all intervals, and those are sums over columns: what the record's own values add to what is typical
of its stage. Along the straight line from the typical scores S0 to the record's own scores S, each
column gets the integral of F's gradient times its share of S - S0 (Aumann and Shapley, 1974).
The columns then add up to F(S) - F(S0), but for the error of a few Gauss-Legendre nodes.

What is typical comes from reference records, landmarks that the model was fitted on. All is
derived from them and the model in use, so that no later change of the model can disagree with its
reasons.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.arm_shares import Typical, arms_of, leaves_of, typical_of
from models.deal import DealModel
from models.deal_arms import AHEAD, take_columns
from models.encoding import Columns, row_count
from models.grid import Cells
from models.leaf_tables import Forest, LeafArray
from models.win_path import path_slope

__all__ = ["DealAttribution"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_LEAST_RECORDS = 10  # of a stage, for a base of its own
_LEAVES, _INTERVALS = 3_000_000, 100_000  # visits of leaves, and intervals, held at a time


@dataclass(frozen=True)
class _Start:
    """Where the contributions of a stage's records start.

    Attributes
    ----------
    typical : Typical
    base : float
        Mean log-odds of being won.
    centre : float64, shape (columns,)
        Mean of each column, taken off so that contributions start from `base`.
    """

    typical: Typical
    base: float
    centre: FloatArray


@dataclass(frozen=True)
class DealAttribution:
    """Contributions to what a fitted deal model says.

    Attributes
    ----------
    model : DealModel
    forest : Forest or None
        Its trees.
    names : tuple of str
        Columns of contributions: those that the model reads, then `AHEAD`, the calendar.
    stages : tuple of str
        Stages with a base of their own; others start from that of all records.
    starts : tuple
        One for each of `stages`, then that of all records.
    """

    model: DealModel
    forest: Forest | None
    names: tuple[str, ...]
    stages: tuple[str, ...]
    starts: tuple[_Start, ...]

    @classmethod
    def of(cls, model: DealModel, columns: Columns, cells: Cells) -> DealAttribution:
        """Learn what is typical from reference records, of which there must be one at least."""
        read = ("stage", "days_in_stage") if model.encoder is None else model.encoder.names
        forest = None if model.trees is None else Forest.of([model.trees])
        bare = cls(model, forest, (*read, AHEAD), (), ())
        codes, levels = _stage(columns)
        members = {str(s): np.flatnonzero(codes == c) for c, s in enumerate(levels.tolist())}
        stages = tuple(s for s, rows in members.items() if len(rows) >= _LEAST_RECORDS)
        every = np.arange(row_count(columns))
        starts = [
            bare._start(take_columns(columns, rows), cells.take(rows))
            for rows in [*(members[s] for s in stages), every]
        ]
        return replace(bare, stages=stages, starts=tuple(starts))

    def start_of(self, columns: Columns) -> IntArray:
        """Which of `stages` each record starts from, len(stages) for all records: (m,)."""
        codes, levels = _stage(columns)
        place = {name: i for i, name in enumerate(self.stages)}
        rest = len(self.stages)
        return np.array([*(place.get(str(s), rest) for s in levels), rest], dtype=np.int64)[codes]

    def contributions(self, columns: Columns, cells: Cells) -> tuple[FloatArray, FloatArray]:
        """From the stage's base to each record's log-odds of being won by the grid's end.

        Returns
        -------
        base : float64, shape (m,)
        parts : float64, shape (m, len(names))
            base + parts.sum(axis=1) is the log-odds, but for the error of the integral.
        """
        start = self.start_of(columns)
        base, parts = np.empty(len(start)), np.empty((len(start), len(self.names)))
        trees = 1 if self.forest is None else len(self.forest.first)
        batch = max(min(_LEAVES // trees, _INTERVALS) // cells.begin.shape[1], 1)
        for s in np.unique(start):
            rows, begin = np.flatnonzero(start == s), self.starts[s]
            for some in np.array_split(rows, -(-len(rows) // batch)):
                mine, ahead = take_columns(columns, some), cells.take(some)
                leaves = leaves_of(self.model, self.forest, mine, ahead)
                base[some] = begin.base
                parts[some] = self._raw(begin.typical, mine, ahead, leaves) - begin.centre
        return base, parts

    def _start(self, columns: Columns, cells: Cells) -> _Start:
        """Where records start of which these are the reference."""
        leaves = leaves_of(self.model, self.forest, columns, cells)
        typical = typical_of(self.model, self.forest, columns, leaves)
        # The mean of the log-odds, not the log-odds of the mean chance: where a few records have
        # most of the chances, a record that is typical in everything would be told why it is
        # below the average.
        centre = self._raw(typical, columns, cells, leaves).mean(axis=0)
        return _Start(typical, float(centre.sum()), centre)

    def _raw(
        self, typical: Typical, columns: Columns, cells: Cells, leaves: LeafArray | None
    ) -> FloatArray:
        """Contributions before they are centred, F(S0) with those of `AHEAD`: (m, columns)."""
        arms = arms_of(self.model, typical, columns, cells, leaves)
        begin, own = np.zeros(arms[0].begin.shape), np.zeros(arms[0].own.shape)
        for arm in arms:
            begin += arm.weight * arm.begin
            own += arm.weight * arm.own
        factors = self.model.factors(columns, cells)
        slope, first = path_slope(begin, own, factors, cells.end > cells.begin)
        place = {name: j for j, name in enumerate(self.names)}
        parts = np.zeros((len(first), len(self.names)))
        parts[:, place[AHEAD]] = first
        for arm in arms:
            found = arm.weight * arm.shares(slope)
            for j, name in enumerate(arm.sources):
                parts[:, place[name]] += found[:, j]
        return parts


def _stage(columns: Columns) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.object_]]:
    column = columns["stage"]
    assert isinstance(column, tuple)
    return column
