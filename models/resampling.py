"""How uncertain a figure is that was measured on forecasts which overlap in time.

Forecasts made week by week for a quarter ahead share most of what happens to them: 26 of them are
worth two or three. Intervals come from a bootstrap of whole blocks of origins as long as the
horizon, so that what hangs together is drawn together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.measures import wilson_interval

__all__ = ["Interval", "block_weights", "ratio_interval", "share_interval"]

FloatArray = npt.NDArray[np.float64]

_TINY = 1e-12  # what rounding leaves of no variance


class Interval(NamedTuple):
    """A figure with its 95 % interval; NaN where fewer than two blocks tell nothing of it."""

    value: float
    low: float
    high: float


def block_weights(n: int, block: int, repeats: int, rng: np.random.Generator) -> FloatArray:
    """How often each of n origins in order is drawn, shape (repeats, n).

    Circular block bootstrap: blocks of `block` origins in a row, the last followed by the first,
    are drawn until n are together (Politis and Romano, 1992).

    Examples
    --------
    >>> block_weights(6, 3, 2, np.random.default_rng(0)).sum(axis=1)
    array([6., 6.])
    """
    block = min(max(block, 1), n)
    count = -(-n // block)
    starts = rng.integers(0, n, (repeats, count))
    drawn = (starts[:, :, None] + np.arange(block)).reshape(repeats, -1)[:, :n] % n
    weights = np.zeros((repeats, n))
    np.add.at(weights, (np.arange(repeats)[:, None], drawn), 1.0)
    return weights


def ratio_interval(
    top: FloatArray, bottom: FloatArray, weights: FloatArray, block: int
) -> Interval:
    """Sum of `top` over the sum of `bottom`, both by origin (n,), and its interval.

    NaN where nothing is below the line; resamples in which that happens are left out. A single
    block is drawn whole every time, which would look like certainty: without two there is no
    interval.
    """
    below = float(bottom.sum())
    if below == 0:
        return Interval(np.nan, np.nan, np.nan)
    value = float(top.sum()) / below
    under = weights @ bottom
    found = (weights @ top)[under != 0] / under[under != 0]
    if len(top) < 2 * block or len(found) == 0:
        return Interval(value, np.nan, np.nan)
    low, high = np.quantile(found, (0.025, 0.975))
    return Interval(value, float(low), float(high))


def share_interval(
    hits: FloatArray, count: FloatArray, weights: FloatArray, block: int
) -> Interval:
    """Share of `count` forecasts that hit, both by origin (n,), and its interval.

    A share close to 0 or 1, or one of few blocks, has a bootstrap that is far too sure of itself
    (all hits: no spread at all). The resamples therefore only say how many independent forecasts
    there are, from their variance, at most all and at least one for each block; Wilson's interval
    of so many follows.
    """
    n = float(count.sum())
    if n == 0:
        return Interval(np.nan, 0.0, 1.0)
    share = float(hits.sum()) / n
    least = min(max(float(np.count_nonzero(count)) / max(block, 1), 1.0), n)
    drawn = weights @ count
    variance = float(np.var((weights @ hits)[drawn > 0] / drawn[drawn > 0]))
    varies = len(count) >= 2 * block and variance > _TINY
    worth = share * (1 - share) / variance if varies else least
    worth = min(max(worth, least), n)
    return Interval(share, *wilson_interval(share * worth, worth))
