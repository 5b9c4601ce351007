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
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from models.encoding import Columns, TableEncoder, row_count
from models.grid import CALENDAR_COLUMNS, Cells, HazardGrid
from models.hazard_table import HazardTable, incidence, interval_labels

__all__ = ["DealModel", "DealRows", "arm_weights"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_KEEP_OPEN = 0.2  # share of still-open rows kept, with weight 1 / share
_MAX_RIDGE_ROWS = 50_000
_MAX_TREE_ROWS = 600_000
_CHUNK_ROWS = 400_000
_M = 15.0  # events that a recalibration cell needs to count half
_MOST_CORRECTION = 2.0  # beyond this an earlier fit was wrong in kind, which no factor cures
_STEP_GROUPS = (0.0, 3.0, 8.0, 16.0)  # lower edges, in units, of the recalibrated horizons


@dataclass(frozen=True)
class DealRows:
    """Landmarks of deals with what became of them.

    Attributes
    ----------
    columns : Columns
        Features at the landmark, shape (m,) each; `stage` and `days_in_stage` among them.
    cells : Cells
        Future intervals, (m, k).
    time : float64, shape (m,)
        Days to closing, or to the last moment the deal was seen open.
    outcome : int64, shape (m,)
        0 = last seen open, 1 = won, 2 = lost.
    deal : int64, shape (m,)
        Which deal, for counting and clustering.
    """

    columns: Columns
    cells: Cells
    time: FloatArray
    outcome: IntArray
    deal: IntArray

    def __len__(self) -> int:
        return len(self.time)

    def take(self, rows: npt.NDArray[Any]) -> DealRows:
        """Some of the landmarks."""
        return DealRows(
            take_columns(self.columns, rows), self.cells.take(rows), self.time[rows],
            self.outcome[rows], self.deal[rows],
        )  # fmt: skip

    @property
    def won_deals(self) -> int:
        """Distinct deals that were won."""
        return len(np.unique(self.deal[self.outcome == 1]))


def calendar_columns(span: float) -> tuple[str, ...]:
    """Calendar columns that `span` days of history can teach."""
    known = {"weekday_share": 0.0, "season_sin": 730.0, "season_cos": 730.0}
    return tuple(c for c in CALENDAR_COLUMNS if span >= known.get(c, 200.0))


def take_columns(columns: Columns, rows: npt.NDArray[Any]) -> Columns:
    """Rows of named columns."""
    return {k: (v[0][rows], v[1]) if isinstance(v, tuple) else v[rows] for k, v in columns.items()}


def arm_weights(won: int) -> FloatArray:
    """Weights of (table, ridge, trees) by won deals: the table alone below about 60, an equal
    mean above about 200, and a straight line in log(won) between, so that nothing jumps."""
    if won <= 0:
        return np.array([1.0, 0.0, 0.0])
    t = float(np.clip(np.log(won / 60.0) / np.log(200.0 / 60.0), 0.0, 1.0))
    return np.array([1.0 - 2.0 * t / 3.0, t / 3.0, t / 3.0])


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
    ridge: tuple[FloatArray, FloatArray] | None
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
        stage_prior: Mapping[str, float] | None = None,
        span: float = 0.0,
        seed: int = 0,
        threads: int = 1,
    ) -> DealModel:
        """Fit on landmarks drawn uniformly: their number must not depend on a deal's future.

        `span` is how many days of history the landmarks cover. A quarter's rhythm is learnt
        once two quarters have ended in it, a year's from two years on: before that, the
        calendar would be a clock that tells the past from the future.
        """
        deals = max(len(np.unique(rows.deal)), 1)
        table = HazardTable.fit(
            _stage(rows.columns), _days_in_stage(rows.columns), rows.cells, rows.time,
            rows.outcome, grid.edges, stage_prior=stage_prior or {},
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
        sampled = _sample_intervals(rows, rng)
        bare = replace(bare, encoder=encoder)
        return replace(
            bare,
            ridge=_fit_ridge(bare, rows, sampled, rng),
            trees=_fit_trees(bare, rows, sampled, seed, threads),
        )

    def hazards(self, columns: Columns, cells: Cells, *, corrected: bool = True) -> FloatArray:
        """Chance of (won, lost) in each interval given open at its start.

        Returns
        -------
        float64, shape (m, k, 2)
        """
        size = max(_CHUNK_ROWS // max(cells.begin.shape[1], 1), 1)
        n = row_count(columns)
        parts = [
            self._hazards(take_columns(columns, part), cells.take(part), corrected)
            for part in np.array_split(np.arange(n), max(-(-n // size), 1))
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
            seen = np.bincount(place, (label == c + 1).ravel(), size).reshape(shape) / per_deal
            due = np.bincount(place, (share * expected_of[:, :, c]).ravel(), size)
            due = due.reshape(shape) / per_deal
            overall = (seen.sum() + _M) / (due.sum() + _M)
            horizon = (seen.sum(0) + _M * overall) / (due.sum(0) + _M)
            factor[:, :, c] = np.clip((seen + _M * horizon) / (due + _M), 1 / _MOST_CORRECTION, _MOST_CORRECTION)
        return replace(self, correction=factor)

    def corrected_like(self, other: DealModel) -> DealModel:
        """This model with the correction of another one, stage by stage.

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
        arms = [_log_chances(self._table_chances(columns, cells))]
        if self.encoder is not None and self.ridge is not None and self.trees is not None:
            encoded = self.encoder.trees(columns)
            linear = self.encoder.linear_of(encoded)
            m, k = cells.begin.shape
            row, col = np.repeat(np.arange(m), k), np.tile(np.arange(k), m)
            arms.append(_ridge_scores(self, linear, cells, arms[0], row, col))
            arms.append(_tree_scores(self, encoded, columns, cells, row, col))
            arms = [_log_softmax(a.reshape(m, k, 3)) for a in arms]
        blended = sum(w * a for w, a in zip(self.weights, arms, strict=False))
        chances = np.exp(_log_softmax(np.asarray(blended)))[:, :, 1:]
        chances[cells.end <= cells.begin] = 0.0
        if not corrected:
            return chances
        stage, group = self._place(columns, cells)
        chances = chances * self.correction[stage[:, None], group]
        total = chances.sum(axis=2, keepdims=True)
        return chances / np.maximum(total / 0.999, 1.0)

    def _table_chances(self, columns: Columns, cells: Cells) -> FloatArray:
        return self.table.chances(_stage(columns), _days_in_stage(columns), cells)

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


def _days_in_stage(columns: Columns) -> FloatArray:
    column = columns["days_in_stage"]
    assert not isinstance(column, tuple)
    return column


@dataclass(frozen=True)
class _Sample:
    """Intervals used for fitting: landmark, interval, label, weight, share at risk."""

    row: IntArray
    col: IntArray
    label: IntArray
    weight: FloatArray
    share: FloatArray


def _sample_intervals(rows: DealRows, rng: np.random.Generator) -> _Sample:
    share, label = interval_labels(rows.cells, rows.time, rows.outcome)
    # Of the intervals that stay open, a fifth with weight five: the same fit in a third of the
    # time. The chance to be kept must not depend on anything.
    keep = (share > 0) & ((label > 0) | (rng.random(share.shape) < _KEEP_OPEN))
    row, col = np.nonzero(keep)
    if len(row) > _MAX_TREE_ROWS:
        picked = np.sort(rng.choice(len(row), _MAX_TREE_ROWS, replace=False))
        row, col = row[picked], col[picked]
    found = label[row, col]
    weight = np.where(found > 0, 1.0, 1.0 / _KEEP_OPEN)
    return _Sample(row, col, found, weight, share[row, col])


def _truncated(cells: Cells, sample: _Sample) -> Cells:
    """The sampled intervals, cut where a record was last seen, one landmark a row: (n, 1)."""
    row, col = sample.row, sample.col
    begin = cells.begin[row, col]
    end = begin + (cells.end[row, col] - begin) * sample.share
    return Cells(
        begin[:, None], end[:, None], cells.step[row, col][:, None],
        {k: v[row, col][:, None] for k, v in cells.calendar.items()},
    )  # fmt: skip


def _log_chances(chances: FloatArray) -> FloatArray:
    """(won, lost) chances (m, k, 2) -> logs of (open, won, lost), (m, k, 3)."""
    stay = np.maximum(1.0 - chances.sum(axis=2, keepdims=True), 1e-9)
    return np.log(np.maximum(np.concatenate([stay, chances], axis=2), 1e-12))


def _log_softmax(scores: FloatArray) -> FloatArray:
    top = scores.max(axis=-1, keepdims=True)
    return np.asarray(scores - top - np.log(np.exp(scores - top).sum(axis=-1, keepdims=True)))


def _interval_columns(
    model: DealModel, columns: Columns, cells: Cells, row: IntArray, col: IntArray
) -> FloatArray:
    """What the trees see of an interval: place, length, calendar, the rep's close date."""
    begin, end = cells.begin[row, col], cells.end[row, col]
    parts = [begin, end - begin]
    parts += [cells.calendar[name][row, col] for name in model.calendar]
    close = columns.get("days_to_expected_close")
    if close is not None and not isinstance(close, tuple):
        parts.append(close[row] - (begin + end) / 2)
    return np.column_stack(parts)


def _ridge_design(
    model: DealModel, linear: FloatArray, cells: Cells, table: FloatArray, row: IntArray,
    col: IntArray,
) -> FloatArray:  # fmt: skip
    """What the ridge sees: the landmark, the interval's calendar, and the table's log-odds."""
    logs = table[row, col]
    odds = logs[:, 1:] - logs[:, :1]
    scale = {"days_to_quarter_end": 92.0}
    calendar = [cells.calendar[c][row, col] / scale.get(c, 1.0) for c in model.calendar]
    return np.column_stack([linear[row], *calendar, np.log1p(cells.begin[row, col]) / 3.0, odds])


def _fit_ridge(
    model: DealModel, rows: DealRows, sample: _Sample, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    assert model.encoder is not None
    picked = np.arange(len(sample.row))
    if len(picked) > _MAX_RIDGE_ROWS:
        picked = np.sort(rng.choice(len(picked), _MAX_RIDGE_ROWS, replace=False))
    part = _Sample(
        *(getattr(sample, f)[picked] for f in ("row", "col", "label", "weight", "share"))
    )
    cells = _truncated(rows.cells, part)
    columns = take_columns(rows.columns, part.row)
    table = _log_chances(model._table_chances(columns, cells))
    linear = model.encoder.linear(columns)
    index, zero = np.arange(len(part.row)), np.zeros(len(part.row), dtype=np.int64)
    design = _ridge_design(model, linear, cells, table, index, zero)
    fitted = LogisticRegression(C=0.1, solver="newton-cholesky", tol=1e-4)
    fitted.fit(design, part.label, sample_weight=part.weight)
    # A class that never occurred gets an intercept no other arm can be talked into.
    coef, intercept = np.zeros((3, design.shape[1])), np.full(3, -12.0)
    scores, offsets = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:
        scores, offsets = np.vstack([-scores, scores]) / 2, np.r_[-offsets, offsets] / 2
    coef[fitted.classes_], intercept[fitted.classes_] = scores, offsets
    return coef, intercept


def _ridge_scores(
    model: DealModel, linear: FloatArray, cells: Cells, table: FloatArray, row: IntArray,
    col: IntArray,
) -> FloatArray:  # fmt: skip
    assert model.ridge is not None
    design = _ridge_design(model, linear, cells, table, row, col)
    coef, intercept = model.ridge
    # einsum without optimisation adds in one order whatever the batch: one row, the same bits.
    return np.einsum("ij,cj->ic", design, coef, optimize=False) + intercept


def _tree_offsets(model: DealModel, cells: Cells, row: IntArray, col: IntArray) -> FloatArray:
    """Where boosting starts: log-odds of the whole table at the step, for the interval's part."""
    whole = model.table.chance[-1, 0][cells.step[row, col]]
    part = (cells.end - cells.begin)[row, col] / model.table.steps[cells.step[row, col]]
    chances = whole * np.maximum(part, 1e-6)[:, None]
    scores = np.zeros((len(row), 3))
    scores[:, 1:] = np.log(np.maximum(chances, 1e-9))
    return scores


def _fit_trees(
    model: DealModel, rows: DealRows, sample: _Sample, seed: int, threads: int
) -> lgb.Booster:
    assert model.encoder is not None
    cells = _truncated(rows.cells, sample)
    columns = take_columns(rows.columns, sample.row)
    index, zero = np.arange(len(sample.row)), np.zeros(len(sample.row), dtype=np.int64)
    design = np.column_stack(
        [model.encoder.trees(columns), _interval_columns(model, columns, cells, index, zero)]
    )
    offsets = _tree_offsets(model, cells, index, zero)
    data = lgb.Dataset(
        design,
        label=sample.label,
        weight=sample.weight,
        init_score=offsets.ravel(order="F"),
        categorical_feature=list(model.encoder.categorical),
        free_raw_data=True,
    )
    parameters = {
        "objective": "multiclass",
        "num_class": 3,
        "learning_rate": 0.06,
        "num_leaves": 15,
        "min_data_in_leaf": int(np.clip(len(sample.row) / 300, 20, 150)),
        "lambda_l2": 5.0,
        "feature_fraction": 0.8,
        "max_bin": 63,
        "cat_smooth": 20.0,
        "max_cat_to_onehot": 4,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": threads,
        "seed": seed,
        "verbosity": -1,
    }
    return lgb.train(parameters, data, num_boost_round=150)


def _tree_scores(
    model: DealModel, encoded: FloatArray, columns: Columns, cells: Cells, row: IntArray,
    col: IntArray,
) -> FloatArray:  # fmt: skip
    assert model.trees is not None
    design = np.column_stack([encoded[row], _interval_columns(model, columns, cells, row, col)])
    raw = np.asarray(model.trees.predict(design, raw_score=True, num_threads=1), dtype=np.float64)
    return raw + _tree_offsets(model, cells, row, col)
