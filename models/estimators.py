"""The learners in scikit-learn manners, for data scientists: pipelines, search, cross-validation.

Thin: each turns arrays or a data frame into the columns that a learner knows, and hands over. The
service uses none of them, and a pickled estimator is nothing it would read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from models import measures
from models.arrivals import aalen_johansen
from models.calibration import expit, fit_calibrator
from models.deal import DealModel, DealRows
from models.encoding import Column, Columns
from models.grid import Cells, HazardGrid
from models.hazard_table import read_curve
from models.lead import LeadModel
from models.tables import categorical_columns, place_of, table_columns

__all__ = ["CompetingHazards", "LeadClassifier", "ProbabilityCalibrator"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
AnyArray = npt.NDArray[Any]
Names = Sequence[str | int] | None

_SHORTEST, _LONGEST = 30.0, 730.0  # days at which a learnt grid may end
_SCORED_TIMES = 50


class LeadClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """Two outcomes from a table of numbers and categories, few rows or many.

    `models.lead.LeadModel`: shrunken rates, ridge logistic and boosted trees, by how many of the
    rarer outcome there are. Columns that hold text are categories; None and NaN are missing.

    Parameters
    ----------
    categorical_features : sequence of str or int, optional
        More columns to take as categories, by name or position, whatever they hold. Columns of
        dtype "category" in a data frame are so anyway.
    prior : (float, float), optional
        Rate of the second class expected beforehand, and how many rows that is worth.
    half_life : float, optional
        Days after which a row weighs half; `fit` then needs `order_time`.
    min_count : int, default=10
        Levels seen in fewer rows are pooled.
    n_jobs : int, default=1
        Threads for the trees. The model does not depend on it.
    random_state : int, RandomState or None, default=0
        For the trees.

    Attributes
    ----------
    classes_ : ndarray of shape (2,)
    model_ : LeadModel
        With `model_.evidence`: the arms in use and what they learnt from.
    categorical_ : ndarray of bool, shape (n_features_in_,)
        Which columns are categories.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([["web", 3], ["fair", None], ["web", 8], ["fair", 1]] * 10, dtype=object)
    >>> y = np.array(["lost", "lost", "won", "lost"] * 10)
    >>> found = LeadClassifier().fit(X, y)
    >>> found.classes_.tolist(), found.model_.evidence.method
    (['lost', 'won'], 'rates')
    >>> found.predict_proba(X[:2]).shape
    (2, 2)
    """

    def __init__(
        self,
        *,
        categorical_features: Names = None,
        prior: tuple[float, float] | None = None,
        half_life: float | None = None,
        min_count: int = 10,
        n_jobs: int = 1,
        random_state: Any = 0,
    ) -> None:
        self.categorical_features = categorical_features
        self.prior = prior
        self.half_life = half_life
        self.min_count = min_count
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: npt.ArrayLike,
        order_time: npt.ArrayLike | None = None,
        groups: npt.ArrayLike | None = None,
    ) -> Self:
        """Fit on rows whose outcome is known.

        Parameters
        ----------
        X : array-like or data frame of shape (n, p)
        y : array-like of shape (n,)
            Two classes; probabilities are of the second in sorted order.
        order_time : array-like of shape (n,), optional
            When each row was scored, in days. Needed with `half_life`, ignored without.
        groups : array-like of shape (n,), optional
            Rows of one group (the same lead, the same account) count as one outcome.
        """
        table, labels = validate_data(self, X, y, dtype=None, ensure_all_finite="allow-nan")
        self.classes_, outcome = _two_classes(labels)
        if self.half_life is not None and order_time is None:
            raise ValueError("half_life is given but order_time is not; give each row's time, days")
        self.categorical_ = categorical_columns(
            table, _names(self), self.categorical_features or (), X
        )
        self.model_ = LeadModel.fit(
            _columns(self, table),
            outcome,
            # Without a half-life the times are not looked at.
            order_time=np.zeros(len(outcome)) if order_time is None else order_time,
            groups=groups,
            prior=self.prior,
            half_life=self.half_life,
            min_count=self.min_count,
            num_threads=self.n_jobs,
            seed=_seed(self.random_state),
        )
        return self

    def decision_function(self, X: Any) -> FloatArray:
        """Log-odds of the second class, shape (n,)."""
        check_is_fitted(self)
        return self.model_.log_odds(_columns(self, _validated(self, X, reset=False)))

    def predict_proba(self, X: Any) -> FloatArray:
        """Probabilities of `classes_`, shape (n, 2)."""
        p = expit(self.decision_function(X))
        return np.column_stack([1.0 - p, p])

    def predict(self, X: Any) -> AnyArray:
        """The likelier class, shape (n,)."""
        second = self.decision_function(X) > 0
        return np.asarray(self.classes_[second.astype(np.intp)])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        return tags


class CompetingHazards(BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """Chances to be won, lost or still open at any later day, in the manner of `hazardous`.

    `models.deal.DealModel`: discrete competing hazards from a landmark on, by a shrunken table, a
    ridge logistic and boosted trees. One row is a record as it stood at one moment.

    Parameters
    ----------
    stage, days_in_stage : str, int or None, default="stage", "days_in_stage"
        Columns of X with the stage of a record and its days in it. None: there is none, and all
        records start alike.
    at : str, int or None
        Column with the moment of the row, local days since 1970; it places calendars and is no
        input. None: the calendar is left out.
    categorical_features : sequence of str or int, optional
        As for `LeadClassifier`.
    grid : sequence of float, optional
        Edges of the intervals, days from 0 on. None: from the durations.
    time_horizon : float, optional
        Days for `predict_proba` and `score` where the call names none.
    n_jobs : int, default=1
    random_state : int, RandomState or None, default=0

    Attributes
    ----------
    event_ids_ : ndarray of shape (3,)
        0 = still open, 1 = won, 2 = lost.
    model_ : DealModel
    time_grid_ : ndarray of shape (k,)
        Ends of the intervals, days; incidences are constant after the last.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = np.column_stack([np.repeat([0, 1], 50), rng.uniform(0, 30, 100)])
    >>> y = {"event": rng.integers(0, 3, 100), "duration": rng.exponential(20, 100)}
    >>> found = CompetingHazards(stage=0, days_in_stage=1).fit(X, y)
    >>> found.predict_cumulative_incidence(X[:4], times=[7, 30]).shape
    (4, 3, 2)
    >>> np.allclose(found.predict_proba(X, time_horizon=30).sum(axis=1), 1.0)
    True
    """

    def __init__(
        self,
        *,
        stage: str | int | None = "stage",
        days_in_stage: str | int | None = "days_in_stage",
        at: str | int | None = None,
        categorical_features: Names = None,
        grid: Sequence[float] | None = None,
        time_horizon: float | None = None,
        n_jobs: int = 1,
        random_state: Any = 0,
    ) -> None:
        self.stage = stage
        self.days_in_stage = days_in_stage
        self.at = at
        self.categorical_features = categorical_features
        self.grid = grid
        self.time_horizon = time_horizon
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X: Any, y: Any, groups: npt.ArrayLike | None = None) -> Self:
        """Fit on rows followed until they closed or were last seen open.

        Parameters
        ----------
        X : array-like or data frame of shape (n, p)
            Rows must be drawn without regard to how long their records lasted.
        y : dict, structured array or data frame with `event` and `duration`, (n,) each
            0 = last seen open, 1 = won, 2 = lost, and days from the row's moment until then.
        groups : array-like of shape (n,), optional
            Which record each row belongs to; each row its own without.
        """
        event, duration = _events(y)
        table = _validated(self, X, ensure_min_samples=2)
        check_consistent_length(table, event)
        declared = [
            *(self.categorical_features or ()),
            *([] if self.stage is None else [self.stage]),
        ]
        self.categorical_ = categorical_columns(table, _names(self), declared, X)
        grid = _grid(event, duration) if self.grid is None else HazardGrid(tuple(self.grid))
        columns, local = self._inputs(table)
        deal = (
            np.arange(len(table)) if groups is None else np.unique(groups, return_inverse=True)[1]
        )
        self.model_ = DealModel.fit(
            DealRows(columns, grid.cells(local), duration, event, deal.astype(np.int64)),
            grid,
            span=float(np.ptp(local)),
            seed=_seed(self.random_state),
            threads=self.n_jobs,
        )
        self.event_ids_ = np.arange(3)
        self.time_grid_ = np.array(grid.edges[1:])
        return self

    def predict_cumulative_incidence(
        self, X: Any, times: npt.ArrayLike | None = None
    ) -> npt.NDArray[np.float64]:
        """Chances by `event_ids_` at each of `times` (days; `time_grid_` without): (n, 3, m)."""
        check_is_fitted(self)
        columns, local = self._inputs(_validated(self, X, reset=False))
        cells = self.model_.grid.cells(local)
        days = np.asarray(self.time_grid_ if times is None else times, dtype=np.float64)
        return _chances(self.model_.incidence(columns, cells), cells, days)

    def predict_proba(self, X: Any, time_horizon: float | None = None) -> FloatArray:
        """Chances to be still open, won, lost after `time_horizon` days: (n, 3)."""
        check_is_fitted(self)
        horizon = self.time_horizon if time_horizon is None else time_horizon
        if horizon is None:
            raise ValueError("time_horizon is None; give days here or to the constructor")
        return self.predict_cumulative_incidence(X, [horizon])[:, :, 0]

    def score(self, X: Any, y: Any) -> float:
        """Minus the integrated Brier score, mean of both events, up to `time_horizon`.

        Without a horizon up to the end of the grid; never beyond the last follow-up of y.
        """
        event, duration = _events(y)
        end = self.time_grid_[-1] if self.time_horizon is None else self.time_horizon
        times = np.linspace(0.0, min(float(end), float(duration.max())), _SCORED_TIMES)
        curves = self.predict_cumulative_incidence(X, times)
        losses = [
            measures.integrated_brier(curves[:, c], times, duration, event, cause=c) for c in (1, 2)
        ]
        return -float(np.mean(losses))

    def _inputs(self, table: AnyArray) -> tuple[Columns, FloatArray]:
        """Columns with `stage` and `days_in_stage` among them, and each row's local days."""
        columns, names = dict(_columns(self, table)), _names(self)
        nowhere = np.zeros(len(table), dtype=np.int32), np.array(["all"], dtype=object)
        places: tuple[tuple[str, str | int | None, Column], ...] = (
            ("stage", self.stage, nowhere),
            ("days_in_stage", self.days_in_stage, np.zeros(len(table))),
            ("at", self.at, np.zeros(len(table))),
        )
        found = {
            name: default if where is None else columns.pop(names[place_of(names, where)])
            for name, where, default in places
        }
        local, days = found.pop("at"), found["days_in_stage"]
        if isinstance(local, tuple) or isinstance(days, tuple):
            raise ValueError(f"columns {self.days_in_stage!r} and {self.at!r} must be numbers")
        return columns | found, local

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        return tags


class ProbabilityCalibrator(RegressorMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Probabilities set right by what happened later: intercept, line or curve, by the rows.

    `models.calibration.fit_calibrator`. `score` (the mixin's R squared) is 1 - Brier score / Brier
    score of the base rate.

    Parameters
    ----------
    scale : {"probability", "log_odds"}, default="probability"
        What is given to `fit` and `predict`, and given back.
    column : str or int, optional
        The column that holds the values, where they come in a table: a CRM's own probability.
        None: one value a row.

    Attributes
    ----------
    calibrator_ : Calibrator
        With its `name`, and how many rows it learnt from.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> p = rng.uniform(0, 1, 500)
    >>> happened = rng.random(500) < p / 2
    >>> found = ProbabilityCalibrator().fit(p, happened)
    >>> found.calibrator_.name
    'platt'
    >>> bool(abs(found.predict(p).mean() - happened.mean()) < 0.02)
    True
    """

    def __init__(
        self,
        *,
        scale: Literal["probability", "log_odds"] = "probability",
        column: str | int | None = None,
    ) -> None:
        self.scale = scale
        self.column = column

    def fit(self, p: Any, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Fit on out-of-time values p and outcomes y (0 or 1), oldest first, (n,) each."""
        if self.scale not in ("probability", "log_odds"):
            raise ValueError(f"scale is {self.scale!r}; give 'probability' or 'log_odds'")
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        given = self._values(p, reset=True)
        happened = column_or_1d(y, dtype=np.float64, warn=True)
        check_consistent_length(given, happened)
        weight = _check_sample_weight(sample_weight, given, ensure_non_negative=True)
        said = given if self.scale == "probability" else expit(given)
        self.calibrator_ = fit_calibrator(said, happened, weight)
        return self

    def predict(self, p: Any) -> FloatArray:
        """Calibrated values, shape (n,)."""
        check_is_fitted(self)
        given = self._values(p, reset=False)
        if self.scale == "probability":
            return self.calibrator_.predict(given)
        return self.calibrator_.log_odds(given)

    def transform(self, p: Any) -> FloatArray:
        """The same as a table of one column, for a step of a pipeline: (n, 1)."""
        return self.predict(p)[:, None]

    def _values(self, p: Any, *, reset: bool) -> FloatArray:
        """One number a row: (n,)."""
        alone = self.column is None and np.ndim(p) == 1
        table = validate_data(
            self, np.asarray(p)[:, None] if alone else p, dtype=np.float64, reset=reset
        )
        if self.column is None and table.shape[1] != 1:
            raise ValueError(
                f"{table.shape[1]} columns; give one value a row, or name the column that holds it"
            )
        return np.ascontiguousarray(table[:, place_of(_names(self), self.column or 0)])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = self.column is None
        tags.input_tags.two_d_array = self.column is not None
        # Single outcomes are mostly chance: even true probabilities explain little of them.
        tags.regressor_tags.poor_score = True
        return tags


def _two_classes(y: Any) -> tuple[AnyArray, FloatArray]:
    """The classes in order, and 1.0 where a row has the second: (2,) and (n,)."""
    check_classification_targets(y)
    kind = type_of_target(y, input_name="y", raise_unknown=True)
    if kind != "binary":
        raise ValueError(
            f"Only binary classification is supported. The type of the target is {kind}."
        )
    classes, code = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"y holds one class only, {classes.tolist()}; give rows of both classes")
    return classes, code.astype(np.float64)


def _events(y: Any) -> tuple[IntArray, FloatArray]:
    """Events 0, 1 or 2 and durations in days, (n,) each."""
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None")
    try:
        given, lasted = y["event"], y["duration"]
    except (IndexError, KeyError, TypeError, ValueError) as missing:
        raise ValueError(
            f"y is {type(y).__name__} without event and duration; give a dict, a structured "
            "array or a data frame that has both"
        ) from missing
    event = column_or_1d(given, dtype=np.float64)
    duration = column_or_1d(lasted, dtype=np.float64)
    check_consistent_length(event, duration)
    if not np.isin(event, (0, 1, 2)).all():
        raise ValueError("event must be 0 (last seen open), 1 (won) or 2 (lost) in every row")
    if not np.all((duration >= 0) & np.isfinite(duration)):
        raise ValueError("duration holds negative values, NaN or infinity; give days of 0 or more")
    return event.astype(np.int64), duration


def _grid(event: IntArray, duration: FloatArray) -> HazardGrid:
    """Steps for the median time to closing, ending where 99 % have closed."""
    ages, curve = aalen_johansen(np.zeros(len(event)), duration, event)
    if len(ages) == 0:
        return HazardGrid.for_durations(_SHORTEST, 180.0)
    closed = curve.sum(axis=1)
    median, longest = (
        float(ages[min(int(np.searchsorted(closed, share)), len(ages) - 1)])
        for share in (0.5, 0.99)
    )
    return HazardGrid.for_durations(median, float(np.clip(longest, _SHORTEST, _LONGEST)))


def _chances(incidence: FloatArray, cells: Cells, days: FloatArray) -> FloatArray:
    """Chances of (open, won, lost) read at some days: (n, 3, m)."""
    out = np.empty((len(incidence), 3, len(days)))
    for event in (1, 2):
        out[:, event] = read_curve(incidence[:, :, event - 1], cells, days[None, :])
    out[:, 0] = 1.0 - out[:, 1] - out[:, 2]
    return out


def _seed(random_state: Any) -> int:
    if isinstance(random_state, int):
        return random_state
    return int(check_random_state(random_state).randint(2**31 - 1))


def _names(estimator: Any) -> list[str]:
    """Names of the columns: the data frame's, or x0, x1, ..."""
    given = getattr(estimator, "feature_names_in_", None)
    count = int(estimator.n_features_in_)
    return [f"x{j}" for j in range(count)] if given is None else [str(name) for name in given]


def _validated(estimator: Any, X: Any, **more: Any) -> AnyArray:
    """X as an array (n, p) of numbers, text or objects, its names and width remembered or held."""
    return np.asarray(
        validate_data(estimator, X, dtype=None, ensure_all_finite="allow-nan", **more)
    )


def _columns(estimator: Any, table: AnyArray) -> Columns:
    return table_columns(table, _names(estimator), estimator.categorical_)
