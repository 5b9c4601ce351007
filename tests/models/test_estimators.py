"""The estimators: scikit-learn's own checks, the learners' own figures, tables of all kinds."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from sklearn.utils.estimator_checks import parametrize_with_checks

from models.calibration import expit, fit_calibrator
from models.deal import DealModel, DealRows
from models.estimators import CompetingHazards, LeadClassifier, ProbabilityCalibrator
from models.grid import HazardGrid
from models.lead import LeadModel

GUIDE = Path(__file__).parents[2] / "docs" / "estimators.md"


# --- scikit-learn's own checks -------------------------------------------------------------------


def _events(y: Any) -> Any:
    """Plain targets as events and durations: the checks have nothing else to give."""
    return None if y is None else {"event": np.arange(len(y)) % 3, "duration": np.abs(y)}


class EventsOfNumbers(CompetingHazards):
    def fit(self, X: Any, y: Any, groups: Any = None) -> Any:
        return super().fit(X, _events(y), groups)

    def score(self, X: Any, y: Any) -> float:
        return super().score(X, _events(y))


class OutcomesOfNumbers(ProbabilityCalibrator):
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        if y is not None:
            y = np.asarray(y)
            # What is not finite stays, to be refused.
            y = np.where(np.isfinite(np.abs(y).astype(float)), y > 0, y)
        return super().fit(X, y, sample_weight)


# No check is expected to fail. docs/estimators.md says what the checks cannot hand over.
@parametrize_with_checks(  # type: ignore[untyped-decorator]
    [
        LeadClassifier(),
        EventsOfNumbers(stage=None, days_in_stage=None, time_horizon=10.0),
        OutcomesOfNumbers(scale="log_odds", column=0),
    ]
)
def test_the_checks_of_scikit_learn_pass(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


def test_the_guide_works_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), flags=re.DOTALL)
    assert len(blocks) >= 5
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, GUIDE.name, "exec"), names)
    said = capsys.readouterr().out
    assert "(400,)" in said and "(500, 3, 3)" in said and "1.0" in said


# --- leads ---------------------------------------------------------------------------------------


def leads(n: int = 400, seed: int = 0) -> tuple[pd.DataFrame, npt.NDArray[np.object_]]:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "source": np.array(["web", "fair", None], dtype=object)[rng.integers(0, 3, n)],
            "size": np.where(rng.random(n) < 0.2, np.nan, rng.normal(10, 3, n)),
            "team": pd.Categorical(rng.integers(1, 4, n)),
            "visits": pd.array(rng.integers(0, 9, n), dtype="Int64"),
            "known": rng.random(n) < 0.5,
        }
    )
    frame.loc[::7, "visits"] = pd.NA
    good = rng.random(n) < np.where(frame["source"] == "fair", 0.7, 0.2)
    return frame, np.where(good, "yes", "no").astype(object)


def _lead_columns(frame: pd.DataFrame) -> dict[str, Any]:
    """The columns of `leads`, written down by hand."""

    def coded(values: list[str | None]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.object_]]:
        levels = sorted({v for v in values if v is not None})
        codes = [-1 if v is None else levels.index(v) for v in values]
        return np.array(codes, np.int32), np.array(levels, object)

    return {
        "source": coded([v if isinstance(v, str) else None for v in frame["source"]]),
        "size": frame["size"].to_numpy(),
        "team": coded([str(v) for v in frame["team"]]),
        "visits": frame["visits"].to_numpy(np.float64, na_value=np.nan),
        "known": frame["known"].to_numpy(np.float64),
    }


def test_a_frame_means_the_same_columns_as_the_learner_is_given() -> None:
    X, y = leads()
    found = LeadClassifier().fit(X, y)
    columns = _lead_columns(X)
    model = LeadModel.fit(columns, y == "yes", order_time=np.zeros(len(y)))
    assert found.categorical_.tolist() == [True, False, True, False, False]
    assert found.feature_names_in_.tolist() == list(X.columns)
    np.testing.assert_array_equal(found.decision_function(X), model.log_odds(columns))
    np.testing.assert_array_equal(found.predict_proba(X)[:, 1], model.predict(columns))
    np.testing.assert_array_equal(
        found.predict(X), np.where(model.predict(columns) > 0.5, "yes", "no")
    )


def test_one_row_of_a_frame_gives_the_bits_of_the_batch() -> None:
    X, y = leads()
    found = LeadClassifier().fit(X, y)
    batch = found.predict_proba(X)
    for i in (0, 7, 8, 21):
        np.testing.assert_array_equal(found.predict_proba(X[i : i + 1])[0], batch[i])


def test_declared_categories_are_levels_not_amounts() -> None:
    rng = np.random.default_rng(1)
    X = np.column_stack([rng.integers(0, 3, 300), rng.normal(size=300)])
    y = rng.random(300) < np.array([0.1, 0.8, 0.1])[X[:, 0].astype(int)]
    found = LeadClassifier(categorical_features=[0]).fit(X, y)
    assert found.categorical_.tolist() == [True, False]
    p = found.predict_proba(np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]))[:, 1]
    assert p[1] > 2 * max(p[0], p[2])
    # 1, 1.0 and True are one level; a level never seen is "other", not an error.
    for one in (np.array([[1, 0.0]]), np.array([[True, 0.0]], object)):
        assert found.predict_proba(one)[0, 1] == p[1]
    assert 0 < found.predict_proba([[7.0, 0.0]])[0, 1] < 1


def test_old_rows_fade_with_a_half_life() -> None:
    X = np.zeros((400, 1))
    y = np.r_[np.zeros(190), np.ones(10), np.zeros(10), np.ones(190)]
    at = np.arange(400.0)
    even = LeadClassifier().fit(X, y).predict_proba(X)[0, 1]
    recent = LeadClassifier(half_life=30.0).fit(X, y, order_time=at).predict_proba(X)[0, 1]
    assert even == pytest.approx(0.5, abs=0.01) and recent > 0.85
    with pytest.raises(ValueError, match=r"half_life is given but order_time is not"):
        LeadClassifier(half_life=30.0).fit(X, y)


def test_rows_of_one_group_are_one_outcome() -> None:
    X, y = leads(600)
    lead = np.arange(600) // 20
    alone, grouped = LeadClassifier().fit(X, y), LeadClassifier().fit(X, y, groups=lead)
    assert grouped.model_.evidence.minority <= 30 < alone.model_.evidence.minority


def test_a_search_over_parameters_works_by_time() -> None:
    X, y = leads(600)
    search = GridSearchCV(
        LeadClassifier(), {"min_count": [5, 50]}, cv=TimeSeriesSplit(3), scoring="neg_log_loss"
    )
    search.fit(X, y)
    assert search.best_score_ > -0.65
    assert clone(search.best_estimator_).get_params()["min_count"] in (5, 50)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda X: X.assign(size="big"),
            ValueError,
            "size held numbers when fitted, and now 'big'",
        ),
        (lambda X: X.assign(size=np.inf), ValueError, "infinity"),
        (lambda X: X.assign(source=[["web"]] * len(X)), TypeError, "source holds a list"),
        (lambda X: X[["size", "source", "team", "visits", "known"]], ValueError, "feature names"),
        (lambda X: X.drop(columns="size"), ValueError, "feature names"),
    ],
)
def test_a_table_that_does_not_fit_says_what_is_wrong(
    change: Callable[[pd.DataFrame], pd.DataFrame], error: type[Exception], message: str
) -> None:
    X, y = leads()
    found = LeadClassifier().fit(X, y)
    with pytest.raises(error, match=message):
        found.predict(change(X))


def test_a_column_that_is_not_there_is_named() -> None:
    X, y = leads()
    with pytest.raises(ValueError, match=r"no column 'industry'; there are source, size"):
        LeadClassifier(categorical_features=["industry"]).fit(X, y)


# --- deals ---------------------------------------------------------------------------------------


def deals(n: int = 500, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "stage": rng.choice(["new", "offer"], n),
            "days_in_stage": rng.exponential(8, n),
            "at": 19_700.0 + np.sort(rng.integers(0, 300, n)),
        }
    )
    won = 0.03 * np.exp(frame["x"]) * np.where(frame["stage"] == "offer", 2, 1)
    time = rng.exponential(1 / (won + 0.04))
    event = np.where(rng.random(n) < won / (won + 0.04), 1, 2)
    seen = rng.uniform(5, 80, n)
    y = {"event": np.where(time <= seen, event, 0), "duration": np.minimum(time, seen)}
    return frame, pd.DataFrame(y)


def test_a_table_of_deals_means_the_same_rows_as_the_learner_is_given() -> None:
    X, y = deals(900)
    edges = HazardGrid.for_durations(20.0, 60.0).edges
    found = CompetingHazards(at="at", grid=edges).fit(X, y)
    stage = np.unique(X["stage"].to_numpy(object), return_inverse=True)
    grid, at = HazardGrid(edges), X["at"].to_numpy()
    columns: dict[str, Any] = {
        "x": X["x"].to_numpy(),
        "stage": (stage[1].astype(np.int32), stage[0]),
        "days_in_stage": X["days_in_stage"].to_numpy(),
    }
    cells = grid.cells(at)
    rows = DealRows(
        columns, cells, y["duration"].to_numpy(), y["event"].to_numpy(np.int64), np.arange(900)
    )
    model = DealModel.fit(rows, grid, span=float(np.ptp(at)))
    curve = model.incidence(columns, cells)
    found_curve = found.predict_cumulative_incidence(X, [grid.t_max])
    np.testing.assert_allclose(found_curve[:, 1:, 0], curve[:, -1])
    assert found.model_.calendar == model.calendar and found.model_.trees is not None


def test_incidences_rise_and_sum_to_one() -> None:
    X, y = deals(900)
    found = CompetingHazards(time_horizon=14).fit(X.drop(columns="at"), y)
    curves = found.predict_cumulative_incidence(X.drop(columns="at"))
    assert curves.shape == (900, 3, len(found.time_grid_))
    np.testing.assert_allclose(curves.sum(axis=1), 1.0)
    assert (np.diff(curves[:, 1:], axis=2) >= 0).all() and (
        np.diff(curves[:, 0], axis=1) <= 0
    ).all()
    p = found.predict_proba(X.drop(columns="at"))
    at_14 = found.predict_cumulative_incidence(X.drop(columns="at"), [14.0])[:, :, 0]
    np.testing.assert_array_equal(p, at_14)


@pytest.mark.parametrize("form", ["dict", "structured", "frame"])
def test_events_come_in_three_forms(form: str) -> None:
    X, y = deals()
    forms: dict[str, Any] = {
        "dict": {"event": y["event"].to_list(), "duration": y["duration"].to_list()},
        "structured": y.to_records(index=False),
        "frame": y,
    }
    wanted = CompetingHazards(at="at", time_horizon=9.0).fit(X, y).predict_proba(X)
    found = CompetingHazards(at="at", time_horizon=9.0).fit(X, forms[form])
    np.testing.assert_array_equal(found.predict_proba(X), wanted)


def test_the_score_prefers_the_model_that_knows_more() -> None:
    X, y = deals(1200)
    later, truth = deals(600, seed=1)
    scores = []
    for known in (X, X.assign(x=0.0)):
        scores.append(
            CompetingHazards(at="at", time_horizon=30.0).fit(known, y).score(later, truth)
        )
    assert -0.25 < scores[1] < scores[0] - 0.002 < 0


def test_rows_of_one_deal_are_one_deal() -> None:
    X, y = deals()
    found = CompetingHazards().fit(X, y, groups=np.arange(500) // 10)
    assert found.model_.closed <= 50


def test_a_deal_without_stages_is_in_one_of_its_own() -> None:
    X, y = deals()
    found = CompetingHazards(stage=None, days_in_stage=None, time_horizon=20.0).fit(X[["x"]], y)
    assert found.model_.table.stages == ("all",)
    # With one stage and nothing to tell it in days, the table answers with one rate for all.
    assert np.ptp(found.predict_proba(X[["x"]])[:, 1]) > 0


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.ones(500), "ndarray without event and duration"),
        ({"event": np.full(500, 3), "duration": np.ones(500)}, "event must be 0"),
        ({"event": np.ones(500), "duration": np.full(500, -1.0)}, "duration holds negative"),
        ({"event": np.ones(9), "duration": np.ones(9)}, "inconsistent numbers of samples"),
    ],
)
def test_events_that_cannot_be_learnt_from_are_refused(y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CompetingHazards().fit(deals()[0], y)


def test_a_horizon_has_to_be_named_somewhere() -> None:
    X, y = deals()
    with pytest.raises(ValueError, match="time_horizon is None"):
        CompetingHazards().fit(X, y).predict_proba(X)
    with pytest.raises(ValueError, match=r"must be numbers"):
        CompetingHazards(days_in_stage="stage", stage=None).fit(X, y)


# --- calibration ---------------------------------------------------------------------------------


def test_a_calibrator_is_the_one_the_product_fits() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(-1, 1.5, 3000)
    p, y = expit(z), (rng.random(3000) < expit(0.5 * z + 0.3)).astype(float)
    wanted = fit_calibrator(p, y)
    found = ProbabilityCalibrator().fit(p, y)
    assert found.calibrator_ == wanted
    np.testing.assert_array_equal(found.predict(p), wanted.predict(p))
    np.testing.assert_array_equal(found.transform(p)[:, 0], wanted.predict(p))
    odds = ProbabilityCalibrator(scale="log_odds").fit(z, y)
    np.testing.assert_allclose(expit(odds.predict(z)), wanted.predict(p), atol=1e-9)
    table = pd.DataFrame({"amount": rng.normal(size=3000), "probability": p})
    there = ProbabilityCalibrator(column="probability").fit(table, y)
    np.testing.assert_array_equal(there.predict(table), wanted.predict(p))
    base = np.mean((y - y.mean()) ** 2)
    skill = 1 - np.mean((found.predict(p) - y) ** 2) / base
    assert found.score(p, y) == pytest.approx(skill)


def test_a_calibrator_weighs_rows() -> None:
    p, y = np.full(60, 0.5), np.repeat([0.0, 1.0], 30)
    heavy = ProbabilityCalibrator().fit(p, y, sample_weight=np.repeat([1.0, 9.0], 30))
    assert heavy.predict([0.5])[0] > 0.8


def test_a_calibrator_refuses_what_it_cannot_read() -> None:
    p, y = np.array([0.1, 0.9]), np.array([0.0, 1.0])
    with pytest.raises(ValueError, match="2 columns; give one value a row"):
        ProbabilityCalibrator().fit(np.column_stack([p, p]), y)
    with pytest.raises(ValueError, match="scale is 'odds'"):
        ProbabilityCalibrator(scale="odds").fit(p, y)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        ProbabilityCalibrator().fit(10 * p, y)
