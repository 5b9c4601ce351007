"""How the log-odds of being won follow the scores of the intervals, and the slope along a line.

The chain from scores to the answer, forwards and backwards: softmax, correction, the cap on the
chances of one interval, the product limit, the log-odds.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from models.calibration import logit
from models.deal import MOST_CLOSING

__all__ = ["path_slope", "won_log_odds"]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_NODES, _PANELS = 8, (1, 2, 16)
_TOLERANCE = 1e-9  # in log-odds; what is left is told as the rest
_EDGE = 1e-9  # as in `logit`


def won_log_odds(
    scores: FloatArray, factors: FloatArray, live: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Log-odds of being won by the end of the last interval, and their gradient.

    Parameters
    ----------
    scores : shape (m, k, 3)
        Of (open, won, lost) on the log scale; a constant added to an interval changes nothing.
    factors : shape (m, k, 2)
        Correction of the chances of (won, lost).
    live : shape (m, k)
        Intervals that have a length; in the others nothing happens.

    Returns
    -------
    log_odds : shape (m,)
    gradient : shape (m, k, 3)
        By the scores.
    """
    # Outcome by outcome: a sum over a short last axis costs more than all else.
    stay_open, wins, losses = (scores[:, :, c] for c in range(3))
    top = np.maximum(np.maximum(stay_open, wins), losses)
    weights = [np.exp(s - top) for s in (stay_open, wins, losses)]
    total = weights[0] + weights[1] + weights[2]
    shares = [w / total * live for w in weights]
    raw = [shares[c + 1] * factors[:, :, c] for c in (0, 1)]
    closing = raw[0] + raw[1]
    over = np.maximum(closing / MOST_CLOSING, 1.0)
    chance = raw[0] / over
    stay = 1.0 - (chance + raw[1] / over)
    before = np.ones_like(stay)
    np.cumprod(stay[:, :-1], axis=1, out=before[:, 1:])
    won = np.cumsum(chance * before, axis=1)
    p = won[:, -1]
    inside = np.clip(p, _EDGE, 1 - _EDGE)
    scale = 1.0 / (inside * (1.0 - inside))
    # What is still to come after an interval is lost with each chance to close in it.
    lost = (won - p[:, None]) / stay
    slopes = [before + lost, lost]
    # Under the cap only the split between won and lost is left to change.
    held = (slopes[0] * raw[0] + slopes[1] * raw[1]) / np.maximum(closing, _EDGE)
    held = np.where(over > 1.0, held, 0.0)
    slopes = [(slopes[c] - held) / over * factors[:, :, c] * scale[:, None] for c in (0, 1)]
    mean = slopes[0] * shares[1] + slopes[1] * shares[2]
    gradient = np.empty(scores.shape)
    gradient[:, :, 0] = -mean * shares[0]
    gradient[:, :, 1] = (slopes[0] - mean) * shares[1]
    gradient[:, :, 2] = (slopes[1] - mean) * shares[2]
    return logit(p), gradient


def path_slope(
    begin: FloatArray, own: FloatArray, factors: FloatArray, live: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Mean gradient along the straight line between two sets of scores.

    Parameters
    ----------
    begin, own : shape (m, k, 3)

    Returns
    -------
    slope : shape (m, k, 3)
        (slope * (own - begin)).sum((1, 2)) is what the log-odds change from `begin` to `own`,
        but for the error of the integral.
    first : shape (m,)
        Log-odds at `begin`.
    """
    first, _ = won_log_odds(begin, factors, live)
    last, _ = won_log_odds(own, factors, live)
    slope, rough = np.zeros(begin.shape), np.arange(len(begin))
    # One panel is enough for most. Where the cap sets in on the way the gradient jumps, and nodes
    # must lie close.
    for panels in _PANELS:
        some = begin[rough], own[rough], factors[rough], live[rough]
        slope[rough] = _mean_gradient(*some, panels)
        change = (slope * (own - begin)).reshape(len(slope), -1).sum(axis=1)
        rough = np.flatnonzero(np.abs(last - first - change) > _TOLERANCE)
        if not len(rough):
            break
    return slope, first


def _mean_gradient(
    begin: FloatArray, own: FloatArray, factors: FloatArray, live: BoolArray, panels: int
) -> FloatArray:
    """By Gauss-Legendre nodes in each of some panels of equal length."""
    slope, way = np.zeros(begin.shape), own - begin
    for panel in range(panels):
        for t, w in _nodes():
            here = begin + (panel + t) / panels * way
            slope += w / panels * won_log_odds(here, factors, live)[1]
    return slope


@cache
def _nodes() -> list[tuple[float, float]]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return [(float(t + 1) / 2, float(w) / 2) for t, w in zip(nodes, weights, strict=True)]
