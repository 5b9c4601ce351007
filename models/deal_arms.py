"""The two learners beside the table of the deal model: a ridge logistic and boosted trees.

Both see a landmark (its features, frozen) and one future interval (its place, length and calendar)
and say how likely the deal stays open, is won or is lost in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from models.encoding import Columns, TableEncoder
from models.grid import CALENDAR_COLUMNS, Cells
from models.hazard_table import HazardTable, interval_labels

__all__ = [
    "AHEAD",
    "ArmInputs",
    "DealRows",
    "Ridge",
    "Sample",
    "calendar_columns",
    "fit_ridge",
    "fit_trees",
    "interval_columns",
    "interval_sources",
    "log_chances",
    "ridge_design",
    "ridge_scores",
    "ridge_sources",
    "sample_intervals",
    "table_chances",
    "take_columns",
    "tree_offsets",
    "tree_scores",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Ridge = tuple[FloatArray, FloatArray]

AHEAD = "ahead"
"""What inputs belong to that say of an interval only when it is and how long."""

_KEEP_OPEN = 0.2  # share of still-open rows kept, with weight 1 / share
_RIDGE_C = 0.01  # inverse of the penalty, against rows that weigh one a deal
_MAX_RIDGE_ROWS = 50_000
_MAX_TREE_ROWS = 600_000


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
    known = {"weekday_share": 0.0, "season_sin": 730.0, "season_cos": 730.0, "turn_of_year": 730.0}
    return tuple(c for c in CALENDAR_COLUMNS if span >= known.get(c, 200.0))


def take_columns(columns: Columns, rows: npt.NDArray[Any]) -> Columns:
    """Rows of named columns."""
    return {k: (v[0][rows], v[1]) if isinstance(v, tuple) else v[rows] for k, v in columns.items()}


@dataclass(frozen=True)
class ArmInputs:
    """What turns landmarks and intervals into the inputs of the two learners.

    Attributes
    ----------
    encoder : TableEncoder
    table : HazardTable
        Its log-odds are inputs of the ridge; its average is where boosting starts.
    calendar : tuple of str
        Calendar columns the learners may use.
    """

    encoder: TableEncoder
    table: HazardTable
    calendar: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """Intervals used for fitting: landmark, interval, label, weight, share at risk."""

    row: IntArray
    col: IntArray
    label: IntArray
    weight: FloatArray
    share: FloatArray


def table_chances(table: HazardTable, columns: Columns, cells: Cells) -> FloatArray:
    """What the table says of (won, lost) in each interval: (m, k, 2)."""
    stage, days = columns["stage"], columns["days_in_stage"]
    assert isinstance(stage, tuple) and not isinstance(days, tuple)
    return table.chances(stage, days, cells)


def sample_intervals(rows: DealRows, rng: np.random.Generator) -> Sample:
    """The intervals to learn from: all that saw a closing, and a share of those that saw none."""
    share, label = interval_labels(rows.cells, rows.time, rows.outcome)
    # Of the intervals that stay open, a fifth with weight five: the same fit in a third of the
    # time. The chance to be kept must not depend on anything.
    keep = (share > 0) & ((label > 0) | (rng.random(share.shape) < _KEEP_OPEN))
    row, col = np.nonzero(keep)
    if len(row) > _MAX_TREE_ROWS:
        picked = np.sort(rng.choice(len(row), _MAX_TREE_ROWS, replace=False))
        row, col = row[picked], col[picked]
    found = label[row, col]
    # Many landmarks of one deal are one experience: what holds the learners back counts deals.
    per_deal = max(len(rows) / max(len(np.unique(rows.deal)), 1), 1.0)
    weight = np.where(found > 0, 1.0, 1.0 / _KEEP_OPEN) / per_deal
    return Sample(row, col, found, weight, share[row, col])


def _truncated(cells: Cells, sample: Sample) -> Cells:
    """The sampled intervals, cut where a record was last seen, one landmark a row: (n, 1)."""
    row, col = sample.row, sample.col
    begin = cells.begin[row, col]
    end = begin + (cells.end[row, col] - begin) * sample.share
    return Cells(
        begin[:, None], end[:, None], cells.step[row, col][:, None],
        {k: v[row, col][:, None] for k, v in cells.calendar.items()},
    )  # fmt: skip


def log_chances(chances: FloatArray) -> FloatArray:
    """(won, lost) chances (m, k, 2) -> logs of (open, won, lost), (m, k, 3)."""
    stay = np.maximum(1.0 - chances.sum(axis=2, keepdims=True), 1e-9)
    every = np.concatenate([stay, chances], axis=2)
    return np.asarray(np.log(np.maximum(every, 1e-12)), dtype=np.float64)


def interval_columns(
    inputs: ArmInputs, columns: Columns, cells: Cells, row: IntArray, col: IntArray
) -> FloatArray:
    """What the trees see of an interval: place, length, calendar, the rep's close date."""
    begin, end = cells.begin[row, col], cells.end[row, col]
    parts = [begin, end - begin]
    parts += [cells.calendar[name][row, col] for name in inputs.calendar]
    close = columns.get("days_to_expected_close")
    if close is not None and not isinstance(close, tuple):
        parts.append(close[row] - (begin + end) / 2)
    return np.column_stack(parts)


def interval_sources(inputs: ArmInputs, columns: Columns) -> tuple[str, ...]:
    """The feature that each of `interval_columns` says something of, or `AHEAD`."""
    close = columns.get("days_to_expected_close")
    known = close is not None and not isinstance(close, tuple)
    last = ("days_to_expected_close",) if known else ()
    return (AHEAD,) * (2 + len(inputs.calendar)) + last


def ridge_design(
    inputs: ArmInputs, linear: FloatArray, cells: Cells, table: FloatArray, row: IntArray,
    col: IntArray,
) -> FloatArray:  # fmt: skip
    """What the ridge sees: the landmark, the interval's calendar, and the table's log-odds."""
    logs = table[row, col]
    odds = logs[:, 1:] - logs[:, :1]
    scale = {"days_to_quarter_end": 92.0}
    calendar = [cells.calendar[c][row, col] / scale.get(c, 1.0) for c in inputs.calendar]
    return np.column_stack([linear[row], *calendar, np.log1p(cells.begin[row, col]) / 3.0, odds])


def ridge_sources(inputs: ArmInputs) -> tuple[str, ...]:
    """The feature that each column of `ridge_design` says something of, or `AHEAD`.

    The table's log-odds speak of the time in the stage: of the stage too, but that is the same
    for all whom a deal is compared with.
    """
    ahead = (AHEAD,) * (len(inputs.calendar) + 1)
    return (*inputs.encoder.linear_names, *ahead, "days_in_stage", "days_in_stage")


def fit_ridge(inputs: ArmInputs, rows: DealRows, sample: Sample, rng: np.random.Generator) -> Ridge:
    """Multinomial ridge logistic: coefficients (3, q) and intercepts (3,)."""
    picked = np.arange(len(sample.row))
    if len(picked) > _MAX_RIDGE_ROWS:
        picked = np.sort(rng.choice(len(picked), _MAX_RIDGE_ROWS, replace=False))
    part = Sample(*(getattr(sample, f)[picked] for f in ("row", "col", "label", "weight", "share")))
    cells = _truncated(rows.cells, part)
    columns = take_columns(rows.columns, part.row)
    table = log_chances(table_chances(inputs.table, columns, cells))
    linear = inputs.encoder.linear(columns)
    index, zero = np.arange(len(part.row)), np.zeros(len(part.row), dtype=np.int64)
    design = ridge_design(inputs, linear, cells, table, index, zero)
    fitted = LogisticRegression(C=_RIDGE_C, solver="newton-cholesky", tol=1e-4)
    # Matrix products on as many threads as there are cores stall when a neighbour holds one:
    # 11.6 s instead of .9 s measured. One thread gives the same bits wherever it runs.
    with threadpool_limits(limits=1, user_api="blas"):
        fitted.fit(design, part.label, sample_weight=part.weight)
    # A class that never occurred gets an intercept no other arm can be talked into.
    coef, intercept = np.zeros((3, design.shape[1])), np.full(3, -12.0)
    scores, offsets = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:
        scores, offsets = np.vstack([-scores, scores]) / 2, np.r_[-offsets, offsets] / 2
    coef[fitted.classes_], intercept[fitted.classes_] = scores, offsets
    return coef, intercept


def ridge_scores(
    inputs: ArmInputs, ridge: Ridge, linear: FloatArray, cells: Cells, table: FloatArray,
    row: IntArray, col: IntArray,
) -> FloatArray:  # fmt: skip
    """Scores of (open, won, lost) on the log scale, for the intervals [row, col]: (n, 3)."""
    design = ridge_design(inputs, linear, cells, table, row, col)
    coef, intercept = ridge
    # einsum without optimisation adds in one order whatever the batch: one row, the same bits.
    scores = np.einsum("ij,cj->ic", design, coef, optimize=False)
    return np.asarray(scores + intercept, dtype=np.float64)


def tree_offsets(inputs: ArmInputs, cells: Cells, row: IntArray, col: IntArray) -> FloatArray:
    """Where boosting starts: log-odds of the whole table at the step, for the interval's part."""
    whole = inputs.table.chance[-1, 0][cells.step[row, col]]
    part = (cells.end - cells.begin)[row, col] / inputs.table.steps[cells.step[row, col]]
    chances = whole * np.maximum(part, 1e-6)[:, None]
    scores = np.zeros((len(row), 3))
    scores[:, 1:] = np.log(np.maximum(chances, 1e-9))
    return scores


def fit_trees(
    inputs: ArmInputs, rows: DealRows, sample: Sample, seed: int, threads: int
) -> lgb.Booster:
    """Boosted trees of three classes that start from the table's average."""
    cells = _truncated(rows.cells, sample)
    columns = take_columns(rows.columns, sample.row)
    index, zero = np.arange(len(sample.row)), np.zeros(len(sample.row), dtype=np.int64)
    design = np.column_stack(
        [inputs.encoder.trees(columns), interval_columns(inputs, columns, cells, index, zero)]
    )
    offsets = tree_offsets(inputs, cells, index, zero)
    data = lgb.Dataset(
        design,
        label=sample.label,
        weight=sample.weight,
        init_score=offsets.ravel(order="F"),
        categorical_feature=list(inputs.encoder.categorical),
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


def tree_scores(
    inputs: ArmInputs, trees: lgb.Booster, encoded: FloatArray, columns: Columns, cells: Cells,
    row: IntArray, col: IntArray,
) -> FloatArray:  # fmt: skip
    """Scores of (open, won, lost) on the log scale, for the intervals [row, col]: (n, 3)."""
    design = np.column_stack([encoded[row], interval_columns(inputs, columns, cells, row, col)])
    raw = np.asarray(trees.predict(design, raw_score=True, num_threads=1), dtype=np.float64)
    return raw + tree_offsets(inputs, cells, row, col)
