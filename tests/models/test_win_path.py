"""From scores to log-odds and back: values, gradients, and sums along a line."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from models.calibration import logit
from models.hazard_table import incidence
from models.win_path import path_slope, won_log_odds

FloatArray = npt.NDArray[np.float64]
M, K = 5, 6
LIVE = np.ones((M, K), dtype=bool)
LIVE[:, 2] = False


def scores(seed: int, size: float = 1.0) -> FloatArray:
    rng = np.random.default_rng(seed)
    return np.asarray(rng.normal(size=(M, K, 3)) * size - np.array([0.0, 2.5, 2.5]))


def factors(most: float = 1.0) -> FloatArray:
    return np.random.default_rng(9).uniform(0.5, 1.0, (M, K, 2)) * most


@pytest.mark.parametrize("most", [1.0, 40.0])  # 40: the cap on the chances of an interval holds
def test_values_are_those_of_the_product_limit_and_gradients_their_differences(
    most: float,
) -> None:
    s, f = scores(1), factors(most)
    value, gradient = won_log_odds(s, f, LIVE)
    share = np.exp(s) / np.exp(s).sum(axis=2, keepdims=True)
    raw = share[:, :, 1:] * f * LIVE[:, :, None]
    total = raw.sum(axis=2, keepdims=True)
    assert (total > 0.999).any() == (most > 1)
    chance = raw / np.maximum(total / 0.999, 1.0)
    np.testing.assert_allclose(value, logit(incidence(chance)[:, -1, 0]), atol=1e-12)
    step = 1e-5
    for k in range(K):
        for c in range(3):
            more, less = s.copy(), s.copy()
            more[:, k, c] += step
            less[:, k, c] -= step
            change = won_log_odds(more, f, LIVE)[0] - won_log_odds(less, f, LIVE)[0]
            np.testing.assert_allclose(gradient[:, k, c], change / (2 * step), atol=1e-7)
    assert (gradient[:, 2] == 0).all()


def test_a_constant_for_all_outcomes_of_an_interval_changes_nothing() -> None:
    s, f = scores(2), factors()
    moved = s + np.arange(K)[None, :, None]
    np.testing.assert_allclose(won_log_odds(s, f, LIVE)[0], won_log_odds(moved, f, LIVE)[0])
    np.testing.assert_allclose(won_log_odds(s, f, LIVE)[1].sum(axis=2), 0.0, atol=1e-12)


@pytest.mark.parametrize(("most", "error"), [(1.0, 1e-9), (4.0, 0.05)])
def test_slopes_along_a_line_add_up_to_the_change(most: float, error: float) -> None:
    begin, own, f = scores(3), scores(4, 1.5), factors(most)
    slope, first = path_slope(begin, own, f, LIVE)
    last, _ = won_log_odds(own, f, LIVE)
    change = (slope * (own - begin)).sum(axis=(1, 2))
    np.testing.assert_allclose(first, won_log_odds(begin, f, LIVE)[0])
    np.testing.assert_allclose(first + change, last, rtol=0, atol=error)
    assert np.abs(last - first).min() > 0.01


def test_extreme_scores_stay_finite() -> None:
    for size in (60.0, 700.0):
        value, gradient = won_log_odds(scores(5, size), factors(), LIVE)
        assert np.isfinite(value).all() and np.isfinite(gradient).all()
        assert np.abs(value).max() <= logit(1.0) + 1e-9
