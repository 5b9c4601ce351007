"""A back-test's measures with their uncertainty, and the methods held against each other.

Everything is paired and drawn by origin: what an origin forecast, for all windows and groups that
are pooled, is drawn together with its neighbours of one horizon (`models.resampling`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from models.resampling import Interval, block_weights, ratio_interval, share_interval
from scoring.grouping import WHOLE
from training.backtest import selected, summary
from training.replayed import LEVELS, SERVED, Issued

__all__ = ["PIT_BINS", "compare", "pit_histogram"]

FloatArray = npt.NDArray[np.float64]

PIT_BINS = 10
_REPEATS = 2000
_DAY = np.timedelta64(1, "D")


def compare(
    issued: Sequence[Issued], group: str = WHOLE, *, together: bool = False,
    repeats: int = _REPEATS, seed: int = 0,
) -> list[dict[str, Any]]:  # fmt: skip
    """The rows of `summary` with 95 % intervals, each method beside the served forecast.

    Parameters
    ----------
    together : bool
        Only over all windows.

    Returns
    -------
    list of dict
        Besides what `summary` gives: `blocks` (about how many independent stretches of time the
        figures rest on), `interval` (of crps, bias, wape and coverage: low and high, NaN but for
        coverage where there are not two blocks), `against`
        (by which share the served CRPS is above this method's on the forecasts that both made:
        value, low, high, n; below 0 the served one is better; None for the served) and `pit`
        (its histogram). Numbers without a range have no coverage and count in no histogram.
    """
    rows = selected(issued, group)
    served = {_key(i): i for i in rows if i.method == SERVED}
    table = []
    for row in summary(issued, group):
        if together and row["window"] is not None:
            continue
        part = [
            i
            for i in rows
            if i.method == row["method"] and row["window"] in (None, i.window)
        ]  # fmt: skip
        drawn = _Resampled(part, repeats, seed)
        row["blocks"] = drawn.blocks
        row["interval"] = _intervals(drawn)
        row["against"] = None if row["method"] == SERVED else _against(part, served, repeats, seed)
        row["pit"] = pit_histogram(part)
        table.append(row)
    return table


def pit_histogram(part: Sequence[Issued]) -> list[int]:
    """How many forecasts saw what happened in each tenth of their distribution, lowest first."""
    found, _ = np.histogram([i.pit for i in part if i.ranged], bins=PIT_BINS, range=(0.0, 1.0))
    return [int(n) for n in found]


@lru_cache(maxsize=32)
def _weights(n: int, block: int, repeats: int, seed: int) -> FloatArray:
    """The same for all methods and groups: they are drawn together."""
    return block_weights(n, block, repeats, np.random.default_rng(seed))


class _Resampled:
    """Forecasts summed by origin, with bootstrap weights of the origins."""

    def __init__(self, part: Sequence[Issued], repeats: int, seed: int) -> None:
        self.part = part
        origins, self._place = np.unique([i.origin for i in part], return_inverse=True)
        self._n = len(origins)
        span = float((origins[-1] - origins[0]) / _DAY)
        gap = span / (self._n - 1) if self._n > 1 else 1.0
        longest = max(i.horizon for i in part)
        self.block = min(int(np.ceil(longest / gap - 1e-9)), self._n)
        self.weights = _weights(self._n, self.block, repeats, seed)

    @property
    def blocks(self) -> float:
        """Stretches of one horizon that the origins cover."""
        return self._n / max(self.block, 1)

    def by_origin(self, value: Callable[[Issued], float]) -> FloatArray:
        """Sums by origin, shape (origins,)."""
        values = [value(i) for i in self.part]
        return np.bincount(self._place, values, self._n).astype(np.float64)


def _intervals(drawn: _Resampled) -> dict[str, Any]:
    actual = drawn.by_origin(lambda i: i.actual)
    size = drawn.by_origin(lambda i: abs(i.actual))
    tops: dict[str, tuple[FloatArray, FloatArray]] = {
        "crps": (drawn.by_origin(lambda i: i.crps), np.abs(actual)),
        "bias": (drawn.by_origin(lambda i: i.mean - i.actual), np.abs(actual)),
        "wape": (drawn.by_origin(lambda i: abs(i.mean - i.actual)), size),
    }
    found: dict[str, Any] = {
        name: _bounds(ratio_interval(*parts, drawn.weights, drawn.block))
        for name, parts in tops.items()
    }
    ranged = drawn.by_origin(lambda i: float(i.ranged))
    held = {f"{level:g}": _bounds(_held(drawn, ranged, level)) for level in LEVELS}
    found["coverage"] = held if ranged.any() else None
    return found


def _held(drawn: _Resampled, count: FloatArray, level: float) -> Interval:
    hits = drawn.by_origin(lambda i: float(i.ranged and i.holds(level)))
    return share_interval(hits, count, drawn.weights, drawn.block)


def _bounds(interval: Interval) -> dict[str, float]:
    return {"low": interval.low, "high": interval.high}


def _against(
    part: Sequence[Issued], served: dict[tuple[Any, ...], Issued], repeats: int, seed: int
) -> dict[str, float] | None:
    """The served CRPS over this method's, less one, on the forecasts that both made."""
    both = [i for i in part if _key(i) in served]
    if not both:
        return None
    drawn = _Resampled(both, repeats, seed)
    ours = drawn.by_origin(lambda i: served[_key(i)].crps)
    ratio = ratio_interval(
        ours, drawn.by_origin(lambda i: i.crps), drawn.weights, drawn.block
    )  # fmt: skip
    value, low, high = (float(v) - 1.0 for v in ratio)
    return {"value": value, "low": low, "high": high, "n": len(both)}


def _key(i: Issued) -> tuple[Any, ...]:
    return (i.origin, i.window, i.group)
