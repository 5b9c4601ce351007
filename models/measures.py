"""Measures of probabilities, ranges and totals: one definition each for the whole house.

What was said comes first, what happened second: `log_loss(p, y)`, `crps_sample(draws, observed)`,
`wape(predicted, actual)`. Scores are losses (smaller is better) unless named otherwise. A measure
that the data cannot give (one class only, a zero total) is NaN, never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn.isotonic import isotonic_regression
from sklearn.metrics import roc_auc_score

__all__ = [
    "BrierParts",
    "CalibrationLine",
    "Coverage",
    "MeasureError",
    "ReliabilityBin",
    "alift",
    "auc",
    "bias",
    "brier",
    "brier_by_time",
    "brier_decomposition",
    "calibration_slope_intercept",
    "coverage",
    "crps_quantiles",
    "crps_sample",
    "integrated_brier",
    "jeffreys_interval",
    "log_loss",
    "observation_survival",
    "pinball",
    "pit_sample",
    "reliability_table",
    "wape",
    "wilson_interval",
]

FloatArray = npt.NDArray[np.float64]

_TINY = 1e-15
_ALIKE_GROUPS = 10.0


class MeasureError(ValueError):
    """Arrays that a measure cannot be taken of; the message says what was seen and allowed."""


class BrierParts(NamedTuple):
    """Brier score = reliability - resolution + uncertainty."""

    reliability: float
    resolution: float
    uncertainty: float


class CalibrationLine(NamedTuple):
    """Fit of logit P(y) = intercept + slope * logit(p), with standard errors.

    `in_the_large` is the intercept when the slope is held at 1: above 0 the predictions are too
    low. Perfect calibration has slope 1 and both intercepts 0.
    """

    slope: float
    intercept: float
    slope_error: float
    intercept_error: float
    in_the_large: float
    in_the_large_error: float
    examples: int


class Coverage(NamedTuple):
    """Share of n observations inside their range, with a Wilson interval for that share."""

    share: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """One bin of a reliability table: predictions in [low, high], and what happened.

    `n` rows of `records` distinct groups. `band_low` and `band_high` hold the Jeffreys interval of
    `observed`, from as many rows as the groups are worth.
    """

    low: float
    high: float
    n: int
    records: int
    predicted: float
    observed: float
    band_low: float
    band_high: float


def log_loss(p: npt.ArrayLike, y: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> float:
    """Mean of -y log p - (1 - y) log(1 - p), in nats (Good, 1952).

    Parameters
    ----------
    p, y, weight : array_like of shape (n,)
        Probabilities, outcomes 0 or 1, row weights. p is kept 1e-15 away from 0 and 1.

    Raises
    ------
    MeasureError
        If p leaves [0, 1], y is not 0 or 1, or the shapes differ.
    """
    p, y, w = _binary(p, y, weight)
    p = np.clip(p, _TINY, 1 - _TINY)
    return _mean(-(y * np.log(p) + (1 - y) * np.log1p(-p)), w)


def brier(p: npt.ArrayLike, y: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> float:
    """Mean of (p - y)^2 (Brier, 1950). Arguments and errors as for `log_loss`."""
    p, y, w = _binary(p, y, weight)
    return _mean((p - y) ** 2, w)


def brier_decomposition(
    p: npt.ArrayLike, y: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> BrierParts:
    """Split the Brier score, without bins (CORP; Dimitriadis, Gneiting and Jordan, PNAS 2021).

    With r the isotonic regression of y on p and b the mean of y: reliability (miscalibration,
    smaller is better) = Brier(p) - Brier(r), resolution (discrimination, larger is better) =
    Brier(b) - Brier(r), uncertainty = Brier(b). The isotonic fit is made on the same rows, so
    both parts are somewhat too large on few rows.
    """
    p, y, w = _binary(p, y, weight)
    order = np.argsort(p, kind="stable")
    # Equal predictions are one group: isotonic regression must give them one value.
    _, group = np.unique(p[order], return_inverse=True)
    total = np.bincount(group, w[order])
    rate = np.bincount(group, w[order] * y[order]) / np.where(total > 0, total, 1.0)
    fitted = isotonic_regression(rate, sample_weight=np.maximum(total, _TINY))[group]
    score = _mean((p - y) ** 2, w)
    best = _mean((fitted - y[order]) ** 2, w[order])
    uncertainty = _mean((y - _mean(y, w)) ** 2, w)
    return BrierParts(score - best, uncertainty - best, uncertainty)


def calibration_slope_intercept(
    p: npt.ArrayLike,
    y: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
) -> CalibrationLine:
    """Logistic regression of y on logit(p) (Cox, 1958; Van Calster et al., 2016).

    Parameters
    ----------
    p, y, weight : array_like of shape (n,)
        As for `log_loss`.
    groups : array_like of shape (n,), optional
        Rows of one group (deal, account) are dependent: the standard errors are then clustered.
        Without it each row is its own cluster. Sandwich errors, times G / (G - 1).

    Returns
    -------
    CalibrationLine
        Slope and intercept are NaN when y has one class or p one value, or p separates y.
    """
    p, y, w = _binary(p, y, weight)
    clusters = np.arange(len(y)) if groups is None else np.asarray(groups)
    if clusters.shape != y.shape:
        raise MeasureError(f"groups has shape {clusters.shape}, y {y.shape}; give one per row")
    p = np.clip(p, _TINY, 1 - _TINY)
    x = np.log(p) - np.log1p(-p)
    ones = np.ones((len(y), 1))
    _, cluster = np.unique(clusters, return_inverse=True)
    large, large_error = _logistic(ones, y, w, cluster, offset=x)
    both, errors = _logistic(np.column_stack([ones, x]), y, w, cluster, offset=np.zeros_like(x))
    return CalibrationLine(
        float(both[1]),
        float(both[0]),
        float(errors[1]),
        float(errors[0]),
        float(large[0]),
        float(large_error[0]),
        len(y),
    )


def _logistic(
    x: FloatArray, y: FloatArray, w: FloatArray, cluster: npt.NDArray[np.intp], offset: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Coefficients and sandwich errors of a logistic regression, by Newton steps.

    NaN where there is no finite answer: one class, a constant column, or separation.
    """
    beta, none = np.zeros(x.shape[1]), np.full(x.shape[1], np.nan)
    y_mean = _mean(y, w)
    if not 0 < y_mean < 1 or np.any(np.ptp(x[:, 1:], axis=0) == 0):
        return none, none
    for _ in range(100):
        fitted = _expit(x @ beta + offset)
        information = (x * (w * fitted * (1 - fitted))[:, None]).T @ x
        if np.linalg.cond(information) > 1e12:
            return none, none
        step = np.linalg.solve(information, x.T @ (w * (y - fitted)))
        # A bounded step keeps the first moves from a distant start inside reach.
        beta = beta + np.clip(step, -2.0, 2.0)
        if np.max(np.abs(step)) < 1e-10:
            break
    else:
        return none, none
    residual = x * (w * (y - _expit(x @ beta + offset)))[:, None]
    count = int(cluster.max()) + 1
    scores = np.column_stack([np.bincount(cluster, column) for column in residual.T])
    bread = np.linalg.inv(information)
    sandwich = bread @ (scores.T @ scores) @ bread * (count / max(count - 1, 1))
    return beta, np.sqrt(np.diag(sandwich))


def observation_survival(
    time: npt.ArrayLike, event: npt.ArrayLike, at: npt.ArrayLike
) -> FloatArray:
    """P(not censored before u), by Kaplan-Meier of the censoring: the G(u-) of IPCW weights.

    Parameters
    ----------
    time : array_like of shape (n,)
        Time of the event or of censoring.
    event : array_like of int, shape (n,)
        0 = censored, otherwise the cause. At a tie events come before censorings.
    at : array_like of shape (m,)
        Moments u.
    """
    time, event = np.asarray(time, dtype=np.float64), np.asarray(event)
    moments = np.unique(time[event == 0])
    ordered, events = np.sort(time), np.sort(time[event != 0])
    at_risk = len(ordered) - np.searchsorted(ordered, moments, "left")
    # Events of the same moment have left before the censorings.
    at_risk -= np.searchsorted(events, moments, "right") - np.searchsorted(events, moments, "left")
    censored = np.sort(time[event == 0])
    leaving = np.searchsorted(censored, moments, "right") - np.searchsorted(
        censored, moments, "left"
    )
    survival = np.concatenate([[1.0], np.cumprod(1 - leaving / np.maximum(at_risk, 1))])
    return survival[np.searchsorted(moments, np.asarray(at, dtype=np.float64), "left")]


def brier_by_time(
    incidence: npt.ArrayLike,
    times: npt.ArrayLike,
    time: npt.ArrayLike,
    event: npt.ArrayLike,
    *,
    cause: int = 1,
    weight: npt.ArrayLike | None = None,
) -> FloatArray:
    """Brier score of a cumulative incidence at each moment of a grid.

    BS(t) = mean of w_i(t) (1{T_i <= t, cause} - F_i(t))^2 with inverse-probability-of-censoring
    weights w_i(t) = 1 / G(min(T_i, t)-) where the state at t is known, else 0 (Graf et al., 1999;
    Schoop et al., 2011, for competing risks). A row censored at T is known to be open at T.

    Parameters
    ----------
    incidence : array_like of shape (n, m)
        P(event of this cause by times[j]) for each row.
    times : array_like of shape (m,)
        Increasing moments.
    time, event : array_like of shape (n,)
        Time observed; 0 = censored, otherwise the cause.
    cause : int
        The cause that `incidence` is about.
    weight : array_like of shape (n,), optional
        Row weights.

    Raises
    ------
    MeasureError
        If shapes differ, or a moment lies beyond all follow-up, where nothing is known.
    """
    f, grid = np.asarray(incidence, dtype=np.float64), np.asarray(times, dtype=np.float64)
    t, d = np.asarray(time, dtype=np.float64), np.asarray(event)
    if f.shape != (len(t), len(grid)) or d.shape != t.shape:
        raise MeasureError(
            f"incidence has shape {f.shape} for {len(t)} rows (event: {d.shape}) and "
            f"{len(grid)} times; give (rows, times)"
        )
    w = np.ones(len(t)) if weight is None else np.asarray(weight, dtype=np.float64)
    happened = (t[:, None] <= grid) & (d != 0)[:, None]
    known = happened | (t[:, None] >= grid)
    observable = np.where(
        happened, observation_survival(t, d, t)[:, None], observation_survival(t, d, grid)
    )
    beyond = grid[~known.any(axis=0)]
    if len(beyond):
        raise MeasureError(
            f"no row is known at time {beyond[0]}; the last follow-up ends at {t.max()}: "
            "shorten the grid"
        )
    ipcw = np.where(known, 1 / np.where(known, observable, 1.0), 0.0)
    squared = ((happened & (d == cause)[:, None]) - f) ** 2
    scores: FloatArray = (w[:, None] * ipcw * squared).sum(axis=0) / w.sum()
    return scores


def integrated_brier(
    incidence: npt.ArrayLike,
    times: npt.ArrayLike,
    time: npt.ArrayLike,
    event: npt.ArrayLike,
    *,
    cause: int = 1,
    weight: npt.ArrayLike | None = None,
) -> float:
    """Mean of `brier_by_time` over the grid, by the trapezium rule.

    Arguments and errors as for `brier_by_time`; at least two times.
    """
    grid = np.asarray(times, dtype=np.float64)
    if len(grid) < 2 or np.any(np.diff(grid) <= 0):
        raise MeasureError(f"times are {grid}; give at least two, increasing")
    scores = brier_by_time(incidence, grid, time, event, cause=cause, weight=weight)
    return float(np.trapezoid(scores, grid) / (grid[-1] - grid[0]))


def crps_sample(draws: npt.ArrayLike, observed: npt.ArrayLike, *, fair: bool = False) -> FloatArray:
    """Continuous ranked probability score of draws: E|X - y| - E|X - X'| / 2, in the unit of y.

    Sorted draws give E|X - X'| in m log m steps (Gneiting and Raftery, 2007). With `fair` the
    pairs of a draw with itself are left out, so that few draws are not punished (Ferro, 2014).

    Parameters
    ----------
    draws : array_like of shape (..., m)
        Draws of each forecast; with `fair`, m >= 2.
    observed : array_like of shape (...)
        What happened.

    Returns
    -------
    ndarray of shape (...)
    """
    x = np.sort(np.asarray(draws, dtype=np.float64), axis=-1)
    y = np.asarray(observed, dtype=np.float64)
    m = x.shape[-1] if x.ndim else 0
    if x.shape[:-1] != y.shape or m < (2 if fair else 1):
        raise MeasureError(
            f"draws have shape {x.shape} for observations of shape {y.shape}; "
            "give at least one draw (two when fair) for each, on the last axis"
        )
    distance = np.abs(x - y[..., None]).mean(axis=-1)
    rank = 2 * np.arange(1, m + 1) - m - 1
    spread = (x * rank).sum(axis=-1) / (m * (m - 1 if fair else m))
    result: FloatArray = np.asarray(distance - spread, dtype=np.float64)
    return result


def pit_sample(draws: npt.ArrayLike, observed: npt.ArrayLike) -> FloatArray:
    """Share of draws below what happened, ties by half: the probability integral transform.

    Uniform on 0-1 over many forecasts if their distributions are right (Dawid, 1984; ties as in
    Czado, Gneiting and Held, 2009).

    Parameters
    ----------
    draws : array_like of shape (..., m)
    observed : array_like of shape (...)
    """
    x, y = np.asarray(draws, dtype=np.float64), np.asarray(observed, dtype=np.float64)[..., None]
    return np.asarray(((x < y).mean(axis=-1) + (x <= y).mean(axis=-1)) / 2, dtype=np.float64)


def pinball(quantile: npt.ArrayLike, observed: npt.ArrayLike, level: npt.ArrayLike) -> FloatArray:
    """Quantile loss (y - q)(level - 1{y < q}), elementwise (Koenker and Bassett, 1978)."""
    q, y = np.asarray(quantile, dtype=np.float64), np.asarray(observed, dtype=np.float64)
    return np.asarray((y - q) * (np.asarray(level) - (y < q)), dtype=np.float64)


def crps_quantiles(
    quantiles: npt.ArrayLike, observed: npt.ArrayLike, levels: npt.ArrayLike
) -> FloatArray:
    """CRPS read off quantiles: twice the integral of the pinball loss over the levels.

    Each level stands for the cell between its neighbours' midpoints (0 and 1 at the ends), so
    uneven levels are not over-counted; at equal spacing this is twice the mean pinball loss.

    Parameters
    ----------
    quantiles : array_like of shape (..., k)
        Quantiles of each forecast.
    observed : array_like of shape (...)
        What happened.
    levels : array_like of shape (k,)
        Increasing, between 0 and 1.
    """
    q, y = np.asarray(quantiles, dtype=np.float64), np.asarray(observed, dtype=np.float64)
    at = np.asarray(levels, dtype=np.float64)
    if q.shape != (*y.shape, len(at)):
        raise MeasureError(
            f"quantiles have shape {q.shape} for observations {y.shape} and {len(at)} levels; "
            "give one quantile per level, on the last axis"
        )
    if np.any(np.diff(at) <= 0) or at.min() <= 0 or at.max() >= 1:
        raise MeasureError(f"levels are {at}; give increasing levels between 0 and 1")
    width = np.diff(np.concatenate([[0.0], (at[1:] + at[:-1]) / 2, [1.0]]))
    return np.asarray(2 * (pinball(q, y[..., None], at) * width).sum(axis=-1), dtype=np.float64)


def coverage(
    low: npt.ArrayLike, high: npt.ArrayLike, observed: npt.ArrayLike, confidence: float = 0.95
) -> Coverage:
    """Share of observations inside [low, high], with a Wilson interval for that share.

    The interval takes the observations as independent; overlapping horizons are not.
    """
    y = np.asarray(observed, dtype=np.float64)
    inside = (np.asarray(low) <= y) & (y <= np.asarray(high))
    n, hits = int(inside.size), int(np.count_nonzero(inside))
    if n == 0:
        return Coverage(np.nan, 0.0, 1.0, 0)
    return Coverage(hits / n, *wilson_interval(hits, n, confidence), n)


def wilson_interval(successes: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a share (Wilson, 1927); (0, 1) when n is 0."""
    if n == 0:
        return 0.0, 1.0
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def jeffreys_interval(successes: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Equal-tailed interval of Beta(k + 1/2, n - k + 1/2) (Brown, Cai and DasGupta, 2001)."""
    tail = (1 - confidence) / 2
    a, b = successes + 0.5, n - successes + 0.5
    low = 0.0 if successes == 0 else float(stats.beta.ppf(tail, a, b))
    high = 1.0 if successes == n else float(stats.beta.ppf(1 - tail, a, b))
    return low, high


def auc(p: npt.ArrayLike, y: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> float:
    """Area under the ROC curve: P(a positive ranks above a negative); NaN with one class."""
    p, y, w = _binary(p, y, weight)
    if len(np.unique(y[w > 0])) < 2:
        return float("nan")
    return float(roc_auc_score(y, p, sample_weight=w))


def alift(p: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Area under the cumulative gains curve (Moro et al., 2014).

    Share of positives reached against share of records worked, best first: equals
    (1 - rate) AUC + rate / 2, with ties shared out.
    """
    rate = float(np.mean(np.asarray(y, dtype=np.float64)))
    return (1 - rate) * auc(p, y) + rate / 2


def reliability_table(
    p: npt.ArrayLike,
    y: npt.ArrayLike,
    bins: int = 10,
    confidence: float = 0.9,
    *,
    groups: npt.ArrayLike | None = None,
    edges: npt.ArrayLike | None = None,
) -> tuple[ReliabilityBin, ...]:
    """Predicted against observed, in up to `bins` bins of about equal count.

    Equal predictions are never parted, so there may be fewer bins.

    Parameters
    ----------
    p, y : array_like of shape (n,)
        As for `log_loss`.
    groups : array_like of shape (n,), optional
        Rows of one group (many landmarks of one deal) are one experience: n rows of a bin count as
        n / (1 + r (s - 1)), with s the mean size of a row's group in the bin and r how alike rows
        of one group end (the design effect; Kish, 1965). Each row its own group without.
    edges : array_like, optional
        Increasing limits between bins, each belonging to the bin above; instead of equal counts.
    """
    p, y, _ = _binary(p, y, None)
    own = np.arange(len(y)) if groups is None else np.asarray(groups)
    if own.shape != y.shape:
        raise MeasureError(f"groups has shape {own.shape}, y {y.shape}; give one per row")
    _, group = np.unique(own, return_inverse=True)
    if edges is None:
        tops = np.unique(np.quantile(p, np.arange(1, bins + 1) / bins, method="inverted_cdf"))
        at = np.searchsorted(tops, p, "left")
    else:
        at = np.searchsorted(np.asarray(edges, dtype=np.float64), p, "right")
    alike = _likeness(y, at, group)
    table = []
    for b in np.unique(at):
        inside = at == b
        n, rate = int(inside.sum()), float(y[inside].mean())
        sizes = np.unique(group[inside], return_counts=True)[1]
        worth = n / (1 + alike * (float((sizes**2).sum()) / n - 1))
        low, high = jeffreys_interval(rate * worth, worth, confidence)
        table.append(
            ReliabilityBin(
                low=float(p[inside].min()),
                high=float(p[inside].max()),
                n=n,
                records=len(sizes),
                predicted=float(p[inside].mean()),
                observed=rate,
                band_low=low,
                band_high=high,
            )
        )
    return tuple(table)


def _likeness(y: FloatArray, at: npt.NDArray[np.intp], group: npt.NDArray[np.intp]) -> float:
    """How alike rows of one group and bin end: 0 as strangers, 1 always alike.

    The mean product of two rows' deviations from the rate of their bin, over its variance, pooled
    over the bins. As if 10 groups had been seen whose rows always end alike: from few groups one
    cannot tell, and the band should then be too wide rather than too narrow.
    """
    _, cell = np.unique(at * (group.max() + 1) + group, return_inverse=True)
    _, bin_of = np.unique(at, return_inverse=True)
    rate = np.bincount(bin_of, y) / np.bincount(bin_of)
    away, variance = y - rate[bin_of], (rate * (1 - rate))[bin_of]
    size = np.bincount(cell)
    products = np.bincount(cell, away) ** 2 - np.bincount(cell, away**2)
    expected = (size - 1) * np.bincount(cell, variance)
    paired = np.unique(group[size[cell] > 1])
    total = float(expected.sum())
    found = float(np.clip(products.sum() / total, 0.0, 1.0)) if total > 0 else 1.0
    return (len(paired) * found + _ALIKE_GROUPS) / (len(paired) + _ALIKE_GROUPS)


def wape(predicted: npt.ArrayLike, actual: npt.ArrayLike) -> float:
    """Weighted absolute percentage error: sum |predicted - actual| / sum |actual|."""
    f, a = _pair(predicted, actual)
    total = float(np.abs(a).sum())
    return float(np.abs(f - a).sum()) / total if total > 0 else float("nan")


def bias(predicted: npt.ArrayLike, actual: npt.ArrayLike) -> float:
    """Signed share by which the total was over-forecast: sum(predicted - actual) / sum |actual|."""
    f, a = _pair(predicted, actual)
    total = float(np.abs(a).sum())
    return float((f - a).sum()) / total if total > 0 else float("nan")


def _pair(predicted: npt.ArrayLike, actual: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    f, a = np.asarray(predicted, dtype=np.float64), np.asarray(actual, dtype=np.float64)
    if f.shape != a.shape:
        raise MeasureError(f"predicted has shape {f.shape}, actual {a.shape}; give one each")
    return f, a


def _binary(
    p: npt.ArrayLike, y: npt.ArrayLike, weight: npt.ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    p, y = np.asarray(p, dtype=np.float64), np.asarray(y, dtype=np.float64)
    w = np.ones(y.shape) if weight is None else np.asarray(weight, dtype=np.float64)
    if p.ndim != 1 or p.shape != y.shape or w.shape != y.shape or len(y) == 0:
        raise MeasureError(
            f"p has shape {p.shape}, y {y.shape}, weight {w.shape}; give one of each per row, "
            "and at least one row"
        )
    if not np.all((p >= 0) & (p <= 1)):
        raise MeasureError(f"p holds {_first(p, (p >= 0) & (p <= 1))}; give values from 0 to 1")
    if not np.all((y == 0) | (y == 1)):
        raise MeasureError(f"y holds {_first(y, (y == 0) | (y == 1))}; give outcomes 0 or 1")
    return p, y, w


def _first(values: FloatArray, allowed: npt.NDArray[np.bool_]) -> float:
    return float(values[~allowed][0])


def _mean(values: FloatArray, weight: FloatArray) -> float:
    return float((values * weight).sum() / weight.sum())


def _expit(z: Any) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-np.clip(z, -700.0, 700.0))), dtype=np.float64)
