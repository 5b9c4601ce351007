"""Exponential smoothing: finds level, trend and rhythm, and says when it cannot."""

from __future__ import annotations

import numpy as np
import pytest

from models.series import LEAST_STEPS, fit_series


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def noisy(
    level: float, n: int, spread: float = 0.1
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return level * np.exp(spread * rng().standard_normal(n))


def test_a_level_goes_on_with_the_spread_it_had() -> None:
    model = fit_series(noisy(1e6, 60))
    assert model is not None and model.name == "A,N,N"
    paths = model.paths(4, 4000, rng())
    assert paths.shape == (4, 4000)
    assert paths.mean() == pytest.approx(1e6, rel=0.05)
    assert paths[0].std() == pytest.approx(1e5, rel=0.3)


def test_money_of_any_size_is_fitted_alike() -> None:
    small, large = fit_series(noisy(1.0, 40)), fit_series(noisy(1e9, 40))
    assert small is not None and large is not None and small.name == large.name
    ratio = large.paths(3, 500, rng()) / small.paths(3, 500, rng())
    assert np.allclose(ratio, 1e9, rtol=1e-6)


def test_a_rhythm_that_was_seen_three_times_comes_again() -> None:
    series = noisy(100.0, 4 * 13, 0.05)
    series[12::13] *= 3
    model = fit_series(series)
    assert model is not None and model.name.endswith(",A")
    ahead = model.paths(13, 2000, rng()).mean(axis=1)
    assert ahead.argmax() == 12 and ahead[12] > 2 * ahead[:12].mean()
    short = fit_series(series[-30:])
    assert short is not None and short.name.endswith(",N")


def test_a_trend_is_followed_for_a_while() -> None:
    model = fit_series(np.arange(1.0, 41.0) + 0.3 * rng().standard_normal(40))
    assert model is not None and model.name == "A,Ad,N"
    assert model.paths(3, 2000, rng()).mean(axis=1)[2] > 40.5


def test_time_before_the_first_win_does_not_count() -> None:
    begun = noisy(100.0, 12)
    late = fit_series(np.r_[np.zeros(30), begun])
    alone = fit_series(begun)
    assert late is not None and alone is not None and late.aicc == alone.aicc


def test_too_little_to_go_by_is_said() -> None:
    assert fit_series(noisy(1.0, LEAST_STEPS - 1)) is None
    assert fit_series(np.r_[np.zeros(50), noisy(1.0, 3)]) is None
    assert fit_series(np.zeros(LEAST_STEPS - 1)) is None
    assert fit_series(np.r_[np.ones(20), np.nan]) is None


def test_nothing_won_for_long_stays_nothing() -> None:
    model = fit_series(np.zeros(LEAST_STEPS))
    assert model is not None and not model.paths(3, 5, rng()).any()


def test_a_seed_gives_the_same_paths() -> None:
    model = fit_series(noisy(5.0, 20))
    assert model is not None
    assert np.array_equal(model.paths(2, 50, rng(3)), model.paths(2, 50, rng(3)))
