"""What the back-test teaches of the ranges: how far out to read them, and whether they hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.ranges import RangeMap
from scoring.grouping import WHOLE
from training.replayed import LEVELS, SERVED, Issued

__all__ = ["measured_coverage", "range_map"]

FloatArray = npt.NDArray[np.float64]

_DAY = np.timedelta64(1, "D")


def range_map(issued: Sequence[Issued]) -> RangeMap:
    """The map that the served forecasts of the whole teach; as drawn where there are none."""
    return _fit(*_served(issued))


def measured_coverage(issued: Sequence[Issued]) -> list[dict[str, Any]]:
    """Share of served ranges that held, by horizon and level, for the bundle's manifest.

    The range of each forecast is read as those taught that share no days with it: no range is
    held to what it has seen itself.
    """
    day, horizon, level = _served(issued)
    maps = [
        _fit(*(part[np.abs(day - d) >= h] for part in (day, horizon, level)))
        for d, h in zip(day, horizon, strict=True)
    ]
    found = []
    for days in np.unique(horizon):
        here = np.flatnonzero(horizon == days)
        for wanted in LEVELS:
            bounds = [maps[i].read_at([(1 - wanted) / 2, (1 + wanted) / 2], days) for i in here]
            held = [low <= level[i] <= high for i, (low, high) in zip(here, bounds, strict=True)]
            found.append(
                {
                    "horizon_days": float(days), "level": wanted,
                    "measured": float(np.mean(held)), "n": len(here),
                }
            )  # fmt: skip
    return found


def _served(issued: Sequence[Issued]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Day of the origin, days ahead, and the share of draws below what happened."""
    mine = [i for i in issued if i.method == SERVED and i.group == WHOLE]
    day = [float((i.origin - np.datetime64(0, "us")) / _DAY) for i in mine]
    return np.array(day), np.array([i.horizon for i in mine]), np.array([i.pit for i in mine])


def _fit(day: FloatArray, horizon: FloatArray, level: FloatArray) -> RangeMap:
    origins = np.unique(day)
    gap = float(np.median(np.diff(origins))) if len(origins) > 1 else np.inf
    return RangeMap.fit(horizon, level, gap)
