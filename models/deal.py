"""The deal model: competing hazards of winning and losing, from a landmark on.

One row is (landmark, future interval): features frozen at the landmark, plus the interval's
place and calendar. Three arms say how likely winning, losing and staying open are in each
interval: the shrunken table, a ridge logistic and boosted trees. Their log-chances are averaged
(weights by the number of won deals), recalibrated on later rows, and chained by the product
limit, so that incidences rise and sum to at most one by construction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from models.deal_arms import (
    ArmInputs,
    DealRows,
    Ridge,
    calendar_columns,
    fit_ridge,
    fit_trees,
    grid_tree_scores,
    log_chances,
    ridge_scores,
    sample_intervals,
    table_chances,
    take_columns,
    tree_scores,
)
from models.encoding import Columns, TableEncoder, row_count
from models.forest_grid import ForestGrid
from models.grid import Cells, HazardGrid
from models.hazard_table import HazardTable, incidence, interval_labels
from models.stage_chain import Exits, StageChain, StagePrior

__all__ = ["MOST_CLOSING", "DealModel", "DealRows", "arm_weights"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MOST_CLOSING = 0.999
"""The most that the corrected chances to close in one interval may sum to."""

_CHUNK_ROWS = 400_000
_GRID_FROM = 64  # landmarks of one moment from which a grid of their intervals pays
_M = 15.0  # events that a recalibration cell needs to count half
_MOST_CORRECTION = 2.0  # beyond this an earlier fit was wrong in kind, which no factor cures
_HANDOVER = (60.0, 200.0, 700.0)  # won deals at which the learners have 0, 2/3, 4/5 of the say
_STEP_GROUPS = (0.0, 3.0, 8.0, 16.0)  # lower edges, in units, of the recalibrated horizons


def arm_weights(won: int) -> FloatArray:
    """Weights of (table, ridge, trees) by won deals.

    The table alone up to 60 won deals, an equal mean at 200, a fifth of the table from 700 on,
    and straight lines in log(won) between, so that nothing jumps.
    """
    learners = float(np.interp(np.log(max(won, 1)), np.log(_HANDOVER), [0.0, 2.0 / 3.0, 0.8]))
    return np.array([1.0 - learners, learners / 2.0, learners / 2.0])


@dataclass(frozen=True)
class DealModel:
    """Fitted competing hazards.

    Attributes
    ----------
    grid : HazardGrid
    table : HazardTable
    encoder : TableEncoder or None
        None where too few deals were won for anything but the table.
    ridge : (coefficients (3, q), intercepts (3,)) or None
    trees : lightgbm.Booster or None
    weights : float64, shape (3,)
        Of the table, the ridge and the trees.
    correction : float64, shape (stages + 1, groups, 2)
        Factors on the chances of winning and losing, learnt on later rows.
    calendar : tuple of str
        Calendar columns the arms may use.
    won, closed : int
        Distinct deals it learnt from.
    """

    grid: HazardGrid
    table: HazardTable
    encoder: TableEncoder | None
    ridge: Ridge | None
    trees: lgb.Booster | None
    weights: FloatArray
    correction: FloatArray
    calendar: tuple[str, ...]
    won: int
    closed: int

    @classmethod
    def fit(
        cls,
        rows: DealRows,
        grid: HazardGrid,
        *,
        chain: StageChain | None = None,
        span: float = 0.0,
        seed: int = 0,
        threads: int = 1,
    ) -> DealModel:
        """Fit on landmarks drawn uniformly: their number must not depend on a deal's future.

        `span` is how many days of history the landmarks cover. A quarter's rhythm is learnt
        once two quarters have ended in it, a year's from two years on: before that, the
        calendar would be a clock that tells the past from the future. `chain` is what the table
        leans on; without one, on what is believed of any deal.
        """
        deals = max(len(np.unique(rows.deal)), 1)
        days_in_stage = rows.columns["days_in_stage"]
        assert not isinstance(days_in_stage, tuple)
        table = HazardTable.fit(
            _stage(rows.columns), days_in_stage, rows.cells, rows.time, rows.outcome, grid.edges,
            chain=chain or StageChain.fit(StagePrior.of({}), Exits.none()),
            rows_per_deal=max(len(rows) / deals, 1.0),
        )  # fmt: skip
        won = rows.won_deals
        closed = len(np.unique(rows.deal[rows.outcome > 0]))
        weights = arm_weights(won)
        correction = np.ones((len(table.stages) + 1, len(_STEP_GROUPS), 2))
        calendar = calendar_columns(span)
        bare = cls(grid, table, None, None, None, weights, correction, calendar, won, closed)
        if weights[0] == 1.0:
            return bare
        encoder = TableEncoder.fit(rows.columns)
        rng = np.random.default_rng(seed)
        sampled = sample_intervals(rows, rng)
        inputs = ArmInputs(encoder, table, calendar)
        return replace(
            bare,
            encoder=encoder,
            ridge=fit_ridge(inputs, rows, sampled, rng),
            trees=fit_trees(inputs, rows, sampled, seed, threads),
        )

    def hazards(self, columns: Columns, cells: Cells, *, corrected: bool = True) -> FloatArray:
        """Chance of (won, lost) in each interval given open at its start.

        Returns
        -------
        float64, shape (m, k, 2)
        """
        n, width = row_count(columns), cells.begin.shape[1]
        if n == 0:
            return np.zeros((0, width, 2))
        size = max(_CHUNK_ROWS // max(width, 1), 1)
        parts = [
            self._hazards(take_columns(columns, part), cells.take(part), corrected)
            for part in np.array_split(np.arange(n), -(-n // size))
        ]
        return np.concatenate(parts)

    def incidence(self, columns: Columns, cells: Cells) -> FloatArray:
        """Chance of having been (won, lost) by the end of each interval: (m, k, 2)."""
        return incidence(self.hazards(columns, cells))

    def calibrate(self, rows: DealRows) -> DealModel:
        """Recalibrate the hazards on rows later than those it was fitted on.

        Observed over expected closings by stage and horizon, each shrunken to the level above:
        everything, then the horizon, then stage and horizon.
        """
        expected_of = self.hazards(rows.columns, rows.cells, corrected=False)
        share, label = interval_labels(rows.cells, rows.time, rows.outcome)
        stage, group = self._place(rows.columns, rows.cells)
        shape = self.correction.shape[:2]
        place = np.ravel_multi_index(
            (np.broadcast_to(stage[:, None], group.shape), group), shape
        ).ravel()
        size = int(np.prod(shape))
        # Many landmarks of one deal are one experience.
        per_deal = max(len(rows) / max(len(np.unique(rows.deal)), 1), 1.0)
        factor = np.ones_like(self.correction)
        for c in (0, 1):
            seen, due = (
                np.asarray(np.bincount(place, part.ravel(), size), np.float64).reshape(shape)
                / per_deal
                for part in (label == c + 1, share * expected_of[:, :, c])
            )
            overall = (seen.sum() + _M) / (due.sum() + _M)
            horizon = (seen.sum(0) + _M * overall) / (due.sum(0) + _M)
            factor[:, :, c] = (seen + _M * horizon) / (due + _M)
        kept = np.clip(factor, 1 / _MOST_CORRECTION, _MOST_CORRECTION)
        return replace(self, correction=kept)

    def corrected_like(self, other: DealModel) -> DealModel:
        """The model with the correction of another one, stage by stage.

        A stage that the other one did not know gets the correction of all stages.
        """
        place = {name: i for i, name in enumerate(other.table.stages)}
        rest = len(other.table.stages)
        rows = [place.get(name, rest) for name in self.table.stages] + [rest]
        return replace(self, correction=other.correction[rows])

    def to_state(self) -> dict[str, Any]:
        """Plain values, arrays and the booster, for a bundle."""
        state: dict[str, Any] = {
            "edges": list(self.grid.edges),
            "table": self.table.to_state(),
            "weights": self.weights,
            "correction": self.correction,
            "calendar": list(self.calendar),
            "won": self.won,
            "closed": self.closed,
        }
        if self.encoder is not None and self.ridge is not None:
            state["encoder"] = self.encoder.to_state()
            state["ridge"] = {"coef": self.ridge[0], "intercept": self.ridge[1]}
            state["trees"] = self.trees
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> DealModel:
        """Rebuild from `to_state`."""
        ridge = state.get("ridge")
        encoder = state.get("encoder")
        return cls(
            HazardGrid(tuple(state["edges"])),
            HazardTable.from_state(state["table"]),
            None if encoder is None else TableEncoder.from_state(encoder),
            None if ridge is None else (ridge["coef"], ridge["intercept"]),
            state.get("trees"),
            np.asarray(state["weights"]),
            np.asarray(state["correction"]),
            tuple(state["calendar"]),
            int(state["won"]),
            int(state["closed"]),
        )

    def _hazards(self, columns: Columns, cells: Cells, corrected: bool) -> FloatArray:
        arms = [log_chances(table_chances(self.table, columns, cells))]
        if self.encoder is not None and self.ridge is not None and self.trees is not None:
            inputs = ArmInputs(self.encoder, self.table, self.calendar)
            encoded = self.encoder.trees(columns)
            linear = self.encoder.linear_of(encoded)
            m, k = cells.begin.shape
            row, col = np.repeat(np.arange(m), k), np.tile(np.arange(k), m)
            arms.append(ridge_scores(inputs, self.ridge, linear, cells, arms[0], row, col))
            if m >= _GRID_FROM and self._forest is not None and cells.of_one_moment:
                args = inputs, self._forest, encoded, columns, cells, row, col
                arms.append(grid_tree_scores(*args))
            else:
                arms.append(tree_scores(inputs, self.trees, encoded, columns, cells, row, col))
            arms = [_log_softmax(a.reshape(m, k, 3)) for a in arms]
        blended = sum(w * a for w, a in zip(self.weights, arms, strict=False))
        chances = np.exp(_log_softmax(np.asarray(blended)))[:, :, 1:]
        chances[cells.end <= cells.begin] = 0.0
        if not corrected:
            return chances
        chances = chances * self.factors(columns, cells)
        total = chances.sum(axis=2, keepdims=True)
        return np.asarray(chances / np.maximum(total / MOST_CLOSING, 1.0), dtype=np.float64)

    @cached_property
    def _forest(self) -> ForestGrid | None:
        return None if self.trees is None else ForestGrid.of(self.trees)

    def factors(self, columns: Columns, cells: Cells) -> FloatArray:
        """The correction of the chances of (won, lost) in each interval: (m, k, 2)."""
        stage, group = self._place(columns, cells)
        return self.correction[stage[:, None], group]

    def _place(self, columns: Columns, cells: Cells) -> tuple[IntArray, IntArray]:
        """Row and column of each landmark's intervals in `correction`."""
        names = {s: i for i, s in enumerate(self.table.stages)}
        codes, levels = _stage(columns)
        other = len(self.table.stages)
        lookup = np.array([names.get(str(s), other) for s in levels] + [other], dtype=np.int64)
        unit = self.grid.edges[1]
        group = np.searchsorted(np.array(_STEP_GROUPS) * unit, cells.begin + 1e-9, side="right") - 1
        return lookup[codes], group.astype(np.int64)


def _stage(columns: Columns) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.object_]]:
    column = columns["stage"]
    assert isinstance(column, tuple)
    return column


def _log_softmax(scores: FloatArray) -> FloatArray:
    top = scores.max(axis=-1, keepdims=True)
    return np.asarray(scores - top - np.log(np.exp(scores - top).sum(axis=-1, keepdims=True)))
