"""What a spreadsheet would say."""

import numpy as np
import pytest

from models.baseline import (
    conversion_ratio,
    growth_ratio,
    past_mean,
    point,
    seasonal_naive,
    series_totals,
    shrunken_rate,
    weighted_pipeline,
)

N = 40_000


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_rate_goes_from_its_prior_to_what_was_seen() -> None:
    none = shrunken_rate(0, 0, prior=0.3)
    assert none["rate"] == pytest.approx(0.3) and none["prior"] == 1.0 and none["n"] == 0
    some = shrunken_rate(3, 4, prior=0.3, strength=20)
    assert some["rate"] == pytest.approx(0.375)
    many = shrunken_rate(7500, 10_000, prior=0.3)
    assert many["rate"] == pytest.approx(0.75, abs=0.002) and many["prior"] < 0.01
    for found in (none, some, many):
        assert 0 <= found["low"] < found["rate"] < found["high"] <= 1
    assert many["high"] - many["low"] < some["high"] - some["low"]


def test_a_rate_of_an_extreme_prior_is_still_a_rate() -> None:
    for prior in (0.0, 1.0):
        found = shrunken_rate(0, 0, prior=prior)
        assert found["rate"] == prior and 0 <= found["low"] <= found["high"] <= 1


def test_the_weighted_pipeline_is_a_sum_of_coins() -> None:
    amount, rate = np.array([100.0, 200.0, np.nan]), np.array([0.5, 0.1, 0.9])
    draws = weighted_pipeline(np.r_[np.tile(amount, 60)], np.tile(rate, 60), N, rng())
    assert draws.mean() == pytest.approx(60 * 70, rel=0.01)
    sd = np.sqrt(60 * (100**2 * 0.25 + 200**2 * 0.09))
    assert draws.std() == pytest.approx(sd, rel=0.03)
    assert weighted_pipeline(np.zeros(0), np.zeros(0), 5, rng()).tolist() == [0] * 5


def test_the_past_mean_knows_how_little_it_knows() -> None:
    totals = np.array([90.0, 110.0, 100.0, 104.0])
    draws = past_mean(totals, N, rng())
    assert draws.mean() == pytest.approx(101.0, rel=0.01)
    assert draws.std() == pytest.approx(totals.std(ddof=1) * np.sqrt(1.25), rel=0.03)
    assert past_mean(np.zeros(0), 3, rng()).tolist() == [0, 0, 0]
    one = past_mean(np.array([100.0]), N, rng())
    assert one.std() > 50 and one.min() >= 0


def test_the_conversion_ratio_scales_with_the_pipeline() -> None:
    ratios = np.array([0.2, 0.22, 0.18])
    draws = conversion_ratio(ratios, 5000.0, N, rng())
    assert draws.mean() == pytest.approx(1000.0, rel=0.01)
    assert conversion_ratio(ratios, 0.0, 4, rng()).tolist() == [0] * 4


def test_growth_never_ends_below_what_is_won() -> None:
    ratios = np.array([1.9, 2.0, 2.1])
    draws = growth_ratio(ratios, 100.0, N, rng())
    assert draws.mean() == pytest.approx(200.0, rel=0.01)
    wild = growth_ratio(np.array([1.0, 3.0]), 100.0, N, rng())
    assert wild.min() == 100.0 < wild.mean()


def test_seasons_differ_as_they_did() -> None:
    differences = np.array([30.0, -10.0, 20.0])
    draws = seasonal_naive(1000.0, differences, N, rng())
    assert draws.mean() == pytest.approx(1000.0, rel=0.01)
    # Not about their own mean: a naive method learns no trend from them.
    assert draws.std() == pytest.approx(np.sqrt(np.mean(differences**2)), rel=0.03)
    assert seasonal_naive(0.0, differences, N, rng()).min() == 0.0


def test_parts_of_steps_count_by_their_share() -> None:
    paths = np.array([[10.0, 20.0], [30.0, -90.0], [50.0, 60.0]])
    assert series_totals(paths, np.array([1.0, 0.5, 0.0])).tolist() == [25.0, 0.0]


def test_a_number_has_no_spread() -> None:
    assert point(7.0, 3).tolist() == [7.0, 7.0, 7.0]
