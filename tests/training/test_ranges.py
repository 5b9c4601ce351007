"""Ranges of the back-test: read as the others taught, counted by horizon and level."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from scoring.grouping import WHOLE
from training.ranges import measured_coverage, range_map
from training.replayed import SERVED, Issued

FIRST = np.datetime64("2024-01-01", "us")


def forecasts(levels: list[float], days: float, every: int, method: str = SERVED) -> list[Issued]:
    """One forecast an origin, that saw what happened at a level of its draws."""
    return [
        Issued(
            FIRST + np.timedelta64(every * i, "D"), days, WHOLE, method, 1.0, {}, 0.0, 1.0, {},
            f"{days:g} days", pit=level,
        )
        for i, level in enumerate(levels)
    ]  # fmt: skip


def test_narrow_ranges_are_widened_and_then_hold() -> None:
    rng = np.random.default_rng(0)
    drawn = ndtr(1.6 * rng.standard_normal(60)).tolist()
    found = forecasts(drawn, 28.0, 28)
    assert 1.3 < range_map(found).at(28.0) < 1.8
    raw = np.mean([0.1 <= p <= 0.9 for p in drawn])
    told = {c["level"]: c for c in measured_coverage(found)}
    assert raw < 0.68 < told[0.8]["measured"] and told[0.8]["n"] == 60
    assert told[0.5]["measured"] < told[0.8]["measured"] <= told[0.95]["measured"]


def test_a_range_is_not_held_to_what_it_saw_itself() -> None:
    """One forecast far off, of two that share no days: the other one taught nothing of it."""
    found = forecasts([0.999, 0.5], 28.0, 28)
    told = {c["level"]: c["measured"] for c in measured_coverage(found)}
    assert told[0.95] == 0.5
    near = forecasts([0.96, 0.96, 0.96, 0.5], 28.0, 7)  # all of them share days
    assert {c["level"]: c["measured"] for c in measured_coverage(near)}[0.8] == 0.25


def test_only_the_served_forecasts_of_the_whole_count() -> None:
    served = forecasts([0.5, 0.4, 0.6], 7.0, 7)
    rest = forecasts([0.0001] * 9, 7.0, 7, method="past mean")
    assert range_map(served + rest).stretch.tolist() == range_map(served).stretch.tolist()
    assert [c["n"] for c in measured_coverage(served + rest)] == [3, 3, 3]
    assert measured_coverage([]) == [] and range_map([]).at(30.0) == 1.0
    assert range_map(forecasts([0.5], 7.0, 7)).at(7.0) == pytest.approx(0.96, abs=0.02)
