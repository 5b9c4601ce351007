"""Ranges held to past forecasts: too narrow ones are widened, right ones are left alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from models.ranges import RangeMap

HORIZONS = np.array([7.0, 28.0, 91.0])


def levels(spread: float, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    horizon = np.repeat(HORIZONS, n)
    return horizon, ndtr(spread * rng.standard_normal(len(horizon)))


def test_ranges_hold_their_level_after_it() -> None:
    for spread in (0.7, 1.0, 1.4):
        found = RangeMap.fit(*levels(spread, 400), gap=91.0)
        np.testing.assert_allclose(found.stretch, spread, rtol=0.12)
        low, high = found.read_at([0.1, 0.9], 28.0)
        _, later = levels(spread, 4000, seed=1)
        assert np.mean((low <= later) & (later <= high)) == pytest.approx(0.8, abs=0.03)


def test_few_past_forecasts_move_it_little_and_overlapping_ones_less() -> None:
    horizon, level = levels(2.0, 4)
    apart, close = (RangeMap.fit(horizon, level, gap) for gap in (91.0, 7.0))
    assert 1.0 < close.at(28.0) < apart.at(28.0) < 1.7
    assert close.independent.tolist() == pytest.approx([4.0, 1.0, 4 * 7 / 91])
    one = RangeMap.fit(np.array([28.0]), np.array([1.0]), 28.0)
    assert 1.0 < one.at(28.0) < 1.4  # one forecast off the map


def test_nothing_measured_is_as_drawn() -> None:
    for found in (RangeMap.as_drawn(), RangeMap.from_state({}),
                  RangeMap.fit(np.zeros(0), np.zeros(0), 7.0)):  # fmt: skip
        assert found.read_at([0.1, 0.5, 0.975], 30.0).tolist() == pytest.approx([0.1, 0.5, 0.975])
        assert found.chance(0.3, 30.0) == pytest.approx(0.3)


def test_chances_turn_levels_round() -> None:
    found = RangeMap.fit(*levels(1.5, 100), gap=91.0)
    for level in (0.02, 0.5, 0.9):
        assert found.chance(float(found.read_at(level, 40.0)), 40.0) == pytest.approx(level)
    assert found.chance(0.0, 40.0) == 0.0 and found.chance(1.0, 40.0) == 1.0


def test_between_horizons_it_is_straight_in_log_days() -> None:
    found = RangeMap(np.array([7.0, 28.0]), np.array([1.0, 1.4]), np.ones(2))
    assert found.at(14.0) == pytest.approx(1.2) and found.at(1.0) == 1.0 and found.at(400.0) == 1.4
    again = RangeMap.from_state(found.to_state())
    assert again.to_state() == found.to_state()
