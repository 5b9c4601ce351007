"""Grids of trees: the same bits as LightGBM gives, whatever the columns hold."""

from __future__ import annotations

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pytest

from models.forest_grid import ForestGrid

FloatArray = npt.NDArray[np.float64]

P, Q = 4, 2  # record: two numbers with holes, two categories; interval: two numbers; one difference


def rows(n: int, seed: int) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Records, intervals, and both parts of the difference."""
    rng = np.random.default_rng(seed)
    record = np.column_stack(
        [
            np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n)),
            rng.integers(-1, 4, n) * rng.random(n).round(1),
            np.where(rng.random(n) < 0.1, np.nan, rng.integers(0, 40, n)),
            rng.integers(0, 3, n),
        ]
    )
    interval = np.column_stack([np.arange(7.0), rng.random(7)])
    close = np.where(rng.random(n) < 0.3, np.nan, rng.integers(-20, 60, n) + 0.5)
    return record, interval, close, interval[:, 0] * 5 + 0.5


def design(
    record: FloatArray, interval: FloatArray, close: FloatArray, middle: FloatArray
) -> FloatArray:
    n, k = len(record), len(interval)
    apart = (close[:, None] - middle).reshape(-1, 1)
    return np.hstack([np.repeat(record, k, axis=0), np.tile(interval, (n, 1)), apart])


def fitted(leaves: int = 15, classes: int = 3, *, zero_as_missing: bool = False) -> lgb.Booster:
    record, interval, close, middle = rows(900, 0)
    x = design(record, interval, close, middle)
    rng = np.random.default_rng(1)
    raw = np.nan_to_num(x[:, 0]) + np.sin(x[:, 4]) + 0.05 * np.nan_to_num(x[:, 6])
    raw += np.isin(x[:, 2], [3, 7, 33]) + rng.normal(size=len(x))
    label = np.searchsorted(np.quantile(raw, [0.4, 0.8]), raw)
    parameters = {
        "objective": "multiclass", "num_class": classes, "num_leaves": leaves, "verbosity": -1,
        "max_bin": 63, "min_data_in_leaf": 20, "zero_as_missing": zero_as_missing, "seed": 3,
        "feature_fraction": 0.7, "deterministic": True, "num_threads": 1, "max_cat_to_onehot": 4,
    }  # fmt: skip
    data = lgb.Dataset(x, label=label, categorical_feature=[2, 3])
    return lgb.train(parameters, data, num_boost_round=40)


@pytest.mark.parametrize("zero_as_missing", [False, True])
def test_scores_are_those_of_lightgbm_to_the_bit(zero_as_missing: bool) -> None:
    booster = fitted(zero_as_missing=zero_as_missing)
    forest = ForestGrid.of(booster)
    assert forest is not None
    for seed, n in ((0, 300), (5, 40), (6, 1)):
        record, interval, close, middle = rows(n, seed)
        if seed == 5:  # values that no fit has seen
            record[:5, 2], record[5:9, 2], record[9:12, 3] = 99.0, -3.0, 7.0
            record[12:15, 0], record[15:18, 0] = np.inf, -np.inf
            record[18:21, 1] = np.nan
        x = design(record, interval, close, middle)
        expected = np.asarray(booster.predict(x, raw_score=True, num_threads=1))
        found = forest.scores(record, interval, (close, middle))
        assert found.shape == (n, 7, 3)
        np.testing.assert_array_equal(found.reshape(-1, 3), expected)


def test_a_grid_without_a_difference() -> None:
    record, interval, close, middle = rows(500, 2)
    x = design(record, interval, close, middle)[:, :-1]
    label = (np.nan_to_num(x[:, 0]) + x[:, 4] > 3).astype(int)
    booster = lgb.train(
        {"objective": "binary", "num_leaves": 8, "verbosity": -1, "num_threads": 1},
        lgb.Dataset(x, label=label, categorical_feature=[2, 3]), num_boost_round=10,
    )  # fmt: skip
    forest = ForestGrid.of(booster)
    assert forest is not None and forest.width == 1
    expected = np.asarray(booster.predict(x, raw_score=True, num_threads=1))
    np.testing.assert_array_equal(forest.scores(record, interval, None).ravel(), expected)


def test_trees_that_split_on_the_difference_refuse_to_do_without() -> None:
    forest = ForestGrid.of(fitted())
    assert forest is not None
    record, interval, *_ = rows(5, 2)
    with pytest.raises(ValueError, match="split on column 6, the difference: give it"):
        forest.scores(record, interval, None)


def test_trees_without_a_split_and_trees_too_large() -> None:
    record, interval, close, middle = rows(30, 3)
    x = design(record, interval, close, middle)
    stump = lgb.train(
        {"objective": "regression", "min_data_in_leaf": 1000, "verbosity": -1},
        lgb.Dataset(x, label=np.arange(len(x)) % 5), num_boost_round=3,
    )  # fmt: skip
    forest = ForestGrid.of(stump)
    assert forest is not None
    expected = np.asarray(stump.predict(x, raw_score=True))
    np.testing.assert_array_equal(
        forest.scores(record, interval, (close, middle)).ravel(), expected
    )
    assert ForestGrid.of(fitted(leaves=40)) is None
