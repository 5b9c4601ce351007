"""Intervals of figures from overlapping forecasts."""

from __future__ import annotations

import numpy as np
import pytest

from models.measures import wilson_interval
from models.resampling import block_weights, ratio_interval, share_interval


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def moving_sums(n: int, length: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """What n overlapping windows have in common: sums of `length` independent steps."""
    steps = np.random.default_rng(seed).standard_normal(n + length - 1)
    return np.convolve(steps, np.ones(length), "valid")


def test_every_origin_is_drawn_equally_often() -> None:
    weights = block_weights(10, 4, 20_000, rng())
    assert (weights.sum(axis=1) == 10).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(10), abs=0.03)


def test_neighbours_are_drawn_together() -> None:
    weights = block_weights(12, 4, 20_000, rng())
    together = np.atleast_2d(np.corrcoef(weights.T))
    assert together[3, 4] > 0.5 > 0.1 > together[0, 6]
    apart = np.atleast_2d(np.corrcoef(block_weights(12, 1, 20_000, rng()).T))
    assert abs(apart[3, 4]) < 0.15
    assert (block_weights(5, 99, 3, rng()) == 1).all()  # one block: the whole, always


def test_a_ratio_of_sums_is_inside_its_interval() -> None:
    top, bottom = np.array([1.0, 2.0, 3.0, 2.0]), np.array([2.0, 4.0, 5.0, 5.0])
    found = ratio_interval(top, bottom, block_weights(4, 1, 5000, rng()), 1)
    assert found.value == 0.5 and found.low < 0.5 < found.high
    assert found.high <= 0.6 and found.low >= 0.4


def test_fewer_than_two_blocks_tell_no_interval() -> None:
    for n, block in ((1, 1), (5, 5), (5, 3)):
        found = ratio_interval(
            np.arange(1, n + 1, dtype=np.float64),
            np.full(n, 4.0),
            block_weights(n, block, 10, rng()),
            block,
        )
        assert found.value == (n + 1) / 8 and np.isnan(found.low) and np.isnan(found.high)
    nothing = ratio_interval(np.ones(2), np.zeros(2), block_weights(2, 1, 10, rng()), 1)
    assert np.isnan(nothing.value)


def test_one_block_tells_of_a_share_as_much_as_one_forecast() -> None:
    hits, n = np.array([1.0, 0.0, 1.0, 0.0, 0.0, 1.0]), 6
    found = share_interval(hits, np.ones(n), block_weights(n, n, 500, rng()), n)
    assert found == (0.5, *wilson_interval(0.5, 1))


def test_blocks_as_long_as_the_overlap_hold_what_single_origins_do_not() -> None:
    n, length = 120, 12
    held = {1: 0, length: 0}
    for seed in range(150):
        series = 10 + moving_sums(n, length, seed)
        for block in held:
            weights = block_weights(n, block, 300, np.random.default_rng(seed))
            found = ratio_interval(series, np.ones(n), weights, block)
            held[block] += found.low <= 10 <= found.high
    assert held[1] < 0.7 * 150 < 0.8 * 150 < held[length]


def test_a_share_of_all_is_not_certain() -> None:
    ones = np.ones(20)
    weights = block_weights(20, 5, 500, rng())
    found = share_interval(ones, ones, weights, 5)
    # No resample differs: as sure as four forecasts that do not overlap.
    assert found == (1.0, *wilson_interval(4, 4))


def test_independent_hits_are_worth_their_number() -> None:
    hits = (np.random.default_rng(1).random(400) < 0.8).astype(np.float64)
    found = share_interval(hits, np.ones(400), block_weights(400, 1, 2000, rng()), 1)
    low, high = wilson_interval(hits.sum(), 400)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.005)


def test_hits_in_runs_are_worth_fewer() -> None:
    hits = np.repeat([1.0, 1.0, 1.0, 0.0, 1.0], 8)
    runs = share_interval(hits, np.ones(40), block_weights(40, 8, 2000, rng()), 8)
    alone = share_interval(hits, np.ones(40), block_weights(40, 1, 2000, rng()), 1)
    assert runs.value == alone.value == 0.8
    assert runs.high - runs.low > 1.5 * (alone.high - alone.low)


def test_no_forecasts_tell_nothing() -> None:
    found = share_interval(np.zeros(3), np.zeros(3), block_weights(3, 1, 10, rng()), 1)
    assert np.isnan(found.value) and (found.low, found.high) == (0.0, 1.0)
