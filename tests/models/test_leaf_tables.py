"""Leaf tables: shares that add up to the raw score, and are the Shapley values of the ways."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import combinations, pairwise
from math import factorial

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pytest

from models.leaf_tables import Forest

FloatArray = npt.NDArray[np.float64]


def rows(n: int, seed: int) -> FloatArray:
    """Two numbers, one of them with gaps, a category and a column that never varies."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.normal(size=(n, 2)), rng.integers(0, 9, n), np.ones(n)])
    x[rng.random(n) < 0.2, 1] = np.nan
    return x


@cache
def booster(classes: int = 1, leaves: int = 15, rounds: int = 20, seed: int = 0) -> lgb.Booster:
    x = rows(1500, seed)
    score = x[:, 0] * (1 + (x[:, 2] > 4)) + np.nan_to_num(x[:, 1], nan=1.5)
    score += np.random.default_rng(seed).normal(size=len(x))
    edges = np.quantile(score, np.arange(1, max(classes, 2)) / max(classes, 2))
    params = {
        "objective": "binary" if classes == 1 else "multiclass",
        "num_class": classes, "num_leaves": leaves, "min_data_in_leaf": 5, "verbosity": -1,
        "num_threads": 1, "deterministic": True,
    }  # fmt: skip
    data = lgb.Dataset(x, np.searchsorted(edges, score), categorical_feature=[2])
    return lgb.train(params, data, num_boost_round=rounds)


def raw(model: lgb.Booster, x: FloatArray) -> FloatArray:
    return np.asarray(model.predict(x, raw_score=True, num_threads=1)).reshape(len(x), -1)


def shap(model: lgb.Booster, x: FloatArray) -> FloatArray:
    return np.asarray(model.predict(x, pred_contrib=True, num_threads=1))[:, :-1]


def test_the_shares_of_one_class_add_up_to_its_raw_score() -> None:
    x = rows(300, 9)
    for model in (booster(), booster(leaves=2), booster(leaves=60), booster(rounds=1)):
        table = Forest.of([model]).table(4)
        parts = table.sums(x)
        np.testing.assert_allclose(table.start + parts.sum(1), raw(model, x)[:, 0], atol=1e-12)
        assert (parts[:, 3] == 0).all() and np.abs(parts[:, :3]).mean() > 0
        assert table.sums(x[:0]).shape == (0, 4)


def test_rows_belong_to_owners_and_classes_have_weights() -> None:
    x, rng = rows(120, 8), np.random.default_rng(1)
    boosters = [booster(3), booster(3, seed=1)]  # bagged: the mean of their scores
    forest = Forest.of(boosters, scale=0.5)
    table, leaves = forest.table(4), forest.leaves(x)
    total = (raw(boosters[0], x) + raw(boosters[1], x)) / 2
    np.testing.assert_allclose(forest.scores(leaves), total, atol=1e-12)
    weight, ends = rng.normal(size=(120, 3)), np.array([0, 7, 7, 40, 119, 120])
    parts = table.weighted(leaves, weight, ends)
    expected = (weight * (total - table.start)).sum(1)
    for i, (a, b) in enumerate(pairwise(ends.tolist())):
        assert parts[i].sum() == pytest.approx(expected[a:b].sum(), abs=1e-12)
        alone = table.weighted(leaves[a:b], weight[a:b], np.array([0, b - a]))
        assert alone[0].tobytes() == parts[i].tobytes()


def test_one_row_and_a_batch_give_the_same_bits() -> None:
    x, table = rows(50, 3), Forest.of([booster()]).table(4)
    batch = table.sums(x)
    for i in range(50):
        assert table.sums(x[i : i + 1])[0].tobytes() == batch[i].tobytes()


def test_shares_are_the_shapley_values_of_the_way_to_the_leaf() -> None:
    forest = Forest.of([booster(leaves=12, rounds=3)])
    cover = np.random.default_rng(4).uniform(0.1, 1, len(forest.value))
    shares = forest.table(4, cover).shares.toarray()
    for leaf in range(len(forest.value)):
        np.testing.assert_allclose(shares[leaf], shapley(game(forest, leaf, cover)), atol=1e-12)


def game(forest: Forest, leaf: int, cover: FloatArray) -> Callable[[frozenset[int]], float]:
    """What is expected on the way to a leaf when only some columns are known."""
    way = [v for v in forest.way[leaf].tolist() if v >= 0]

    def below(vertex: int) -> npt.NDArray[np.intp]:
        return np.flatnonzero((forest.way == vertex).any(axis=1))

    def mean(vertex: int) -> float:
        found = below(vertex)
        return float(np.average(forest.value[found], weights=cover[found]))

    def expected(known: frozenset[int], step: int = 0) -> float:
        if step == len(way) - 1:
            return float(forest.value[leaf])
        there = expected(known, step + 1)
        if int(forest.column[way[step]]) in known:
            return there
        part = cover[below(way[step + 1])].sum() / cover[below(way[step])].sum()
        return float(part * there + (1 - part) * mean(int(forest.sibling[way[step + 1]])))

    return expected


def shapley(value: Callable[[frozenset[int]], float], players: int = 4) -> FloatArray:
    out = np.zeros(players)
    for p in range(players):
        others = [q for q in range(players) if q != p]
        for size in range(players):
            weight = factorial(size) * factorial(players - size - 1) / factorial(players)
            for known in combinations(others, size):
                before = frozenset(known)
                out[p] += weight * (value(before | {p}) - value(before))
    return out


def test_trees_of_one_split_have_the_shares_of_treeshap() -> None:
    model, x = booster(leaves=2, rounds=60), rows(200, 5)
    np.testing.assert_allclose(Forest.of([model]).table(4).sums(x), shap(model, x), atol=1e-9)


def test_deeper_trees_come_near_to_treeshap() -> None:
    x = rows(500, 6)
    mine, theirs = Forest.of([booster()]).table(4).sums(x), shap(booster(), x)
    assert np.corrcoef(mine.ravel(), theirs.ravel())[0, 1] > 0.97
    assert (np.abs(mine).argmax(1) == np.abs(theirs).argmax(1)).mean() > 0.85


def test_shares_count_from_the_expectation_of_who_reaches_the_leaves() -> None:
    forest, x = Forest.of([booster()]), rows(80, 7)
    x[:, 2] = 6.0  # all alike in the category: it tells nothing about one of them
    cover = np.bincount(forest.leaves(x).ravel(), minlength=len(forest.value)) / 80.0
    table = forest.table(4, cover + 1e-9 * forest.fitted_cover)
    assert table.start[0] == pytest.approx(raw(booster(), x).mean(), abs=1e-6)
    parts = table.sums(x)
    assert np.abs(parts[:, 2]).max() < 1e-6 < np.abs(parts[:, 0]).max()
    assert np.abs(parts.sum(1).mean()) < 1e-6


def test_a_forest_without_a_split_has_nothing_to_share() -> None:
    x = rows(60, 2)
    data = lgb.Dataset(x, np.arange(60) % 2)
    params = {"objective": "binary", "min_data_in_leaf": 100, "verbosity": -1, "num_threads": 1}
    model = lgb.train(params, data, num_boost_round=3)
    table = Forest.of([model]).table(4)
    assert (table.sums(x) == 0).all()
    np.testing.assert_allclose(table.start, raw(model, x)[0], atol=1e-12)
