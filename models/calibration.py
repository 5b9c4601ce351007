"""Calibrators: from what a model said and what happened, to what it should have said.

The more later rows there are, the more freely a calibrator may bend: an intercept, then a slope
and an intercept, and only with thousands of rows a curve, if it wins on the newest of them.
Every calibrator is monotone and never answers 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from sklearn.isotonic import isotonic_regression

__all__ = [
    "CalibrationError",
    "Calibrator",
    "expit",
    "fit_beta",
    "fit_calibrator",
    "fit_intercept",
    "fit_isotonic",
    "fit_platt",
    "fit_recalibration",
    "logit",
    "newest_line",
    "shrunken_line",
]

FloatArray = npt.NDArray[np.float64]
Name = Literal["none", "intercept", "platt", "beta", "isotonic"]

_EDGE = 1e-9
_SLOPE_STEP = 1e-4
# Prior standard deviations around "the model is right". About 16 later rows at p = 1/2 weigh as
# much as the prior of the intercept, about 80 typical rows as much as the prior of the slope.
_INTERCEPT_SD = 0.5
_SLOPE_SD = 0.25
_LEAST_SLOPE = 0.02

_FEW_ROWS, _FEW_MINORITY = 100, 20
_CURVE_ROWS, _CURVE_MINORITY = 2000, 100
_LATER_SHARE = 1 / 3
# A recalibration looks at the newest rows, is tried in steps over as many, and has to save this
# much log loss a row.
_RECENT_ROWS, _TRIAL_ROWS, _LEAST_KNOWN, _LEAST_GAIN = 2000, 250, 100, 0.001


class CalibrationError(ValueError):
    """Arrays that a calibrator cannot learn from; the message says what was seen and allowed."""


@dataclass(frozen=True)
class Calibrator:
    """A monotone map of probabilities.

    `none`, `intercept`, `platt` and `beta` are logit q = a ln p - b ln(1 - p) + c (Kull, Silva
    Filho and Flach, 2017); with a = b = slope this is Platt's line on the logit scale. `isotonic`
    interpolates between `knots` on the logit scale.

    Attributes
    ----------
    name : str
        none | intercept | platt | beta | isotonic.
    a, b, c : float
        Weights of the curve, a and b >= 0.
    knots : tuple of (float, float)
        (logit p, logit q), both increasing; only for `isotonic`.
    examples, minority : int
        Later rows it learnt from, and how many had the rarer outcome.

    Examples
    --------
    >>> Calibrator("platt", a=1.0, b=1.0, c=0.0).predict([0.25, 0.5]).round(6).tolist()
    [0.25, 0.5]
    """

    name: Name = "none"
    a: float = 1.0
    b: float = 1.0
    c: float = 0.0
    knots: tuple[tuple[float, float], ...] = field(default=(), repr=False)
    examples: int = 0
    minority: int = 0

    @property
    def slope(self) -> float | None:
        """The slope on the log-odds, None where the map is not a line there."""
        return self.a if self.a == self.b and not self.knots else None

    def predict(self, p: npt.ArrayLike) -> FloatArray:
        """Calibrated probabilities, same shape as p; NaN stays NaN.

        The answer lies between 1e-9 and 1 - 1e-9.
        """
        return expit(self.log_odds(logit(p)))

    def log_odds(self, z: npt.ArrayLike) -> FloatArray:
        """Calibrated log-odds from log-odds, same shape; a line stays a line."""
        z = np.asarray(z, dtype=np.float64)
        if self.knots:
            x, y = np.array(self.knots).T
            inside = np.interp(z, x, y)
            # Beyond the last knot the curve goes on with slope 1, so that ranks are kept.
            return np.asarray(inside + (z - np.clip(z, x[0], x[-1])), dtype=np.float64)
        if self.a == self.b:
            return np.asarray(self.a * z + self.c, dtype=np.float64)
        # ln p = -log(1 + e^-z) and ln(1 - p) = -log(1 + e^z).
        return np.asarray(
            self.b * _softplus(z) - self.a * _softplus(-z) + self.c,
            dtype=np.float64,
        )

    def mean_slope(self, start: float, z: npt.ArrayLike) -> FloatArray:
        """Mean slope on the log-odds between `start` and each of z, same shape as z."""
        z = np.asarray(z, dtype=np.float64)
        if self.slope is not None:
            return np.full(z.shape, self.slope)
        # Closer than this the difference is rounding error; then the slope over this distance.
        end = np.where(np.abs(z - start) < _SLOPE_STEP, start + _SLOPE_STEP, z)
        return np.asarray((self.log_odds(end) - self.log_odds(start)) / (end - start))

    def to_state(self) -> dict[str, Any]:
        """Plain JSON values from which `from_state` rebuilds an equal calibrator."""
        return {
            "name": self.name,
            "a": self.a,
            "b": self.b,
            "c": self.c,
            "knots": [list(knot) for knot in self.knots],
            "examples": self.examples,
            "minority": self.minority,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Calibrator:
        """Rebuild a calibrator from `to_state`."""
        return cls(
            state["name"],
            float(state["a"]),
            float(state["b"]),
            float(state["c"]),
            tuple((float(x), float(y)) for x, y in state["knots"]),
            int(state["examples"]),
            int(state["minority"]),
        )


def fit_calibrator(
    p: npt.ArrayLike, y: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> Calibrator:
    """Choose and fit a calibrator by how much there is to learn from.

    Parameters
    ----------
    p : array_like of shape (n,)
        Out-of-time predictions, **oldest row first**: a curve must win on the last third.
    y : array_like of shape (n,)
        Outcomes, 0 or 1.
    weight : array_like of shape (n,), optional
        Row weights, 1 by default.

    Returns
    -------
    Calibrator
        No rows: none. Under 100 rows or 20 of the rarer outcome: a shrunken intercept. Then
        a shrunken slope and intercept. From 2,000 rows with 100 of the rarer outcome: the beta
        or isotonic curve, where its log loss on the last third beats that line by more than the
        standard error of the difference.

    Raises
    ------
    CalibrationError
        If p leaves [0, 1], y is not 0 or 1, or the shapes differ.
    """
    p, y, w = _checked(p, y, weight)
    minority = _minority(y)
    if len(y) == 0:
        return Calibrator()
    if len(y) < _FEW_ROWS or minority < _FEW_MINORITY:
        return fit_intercept(p, y, w)
    line = fit_platt(p, y, w)
    if len(y) < _CURVE_ROWS or minority < _CURVE_MINORITY:
        return line
    cut = len(y) - int(len(y) * _LATER_SHARE)
    kind = _winner(p, y, w, cut)
    return line if kind is fit_platt else kind(p, y, w)


Fit = Callable[[FloatArray, FloatArray, FloatArray], Calibrator]


def _winner(p: FloatArray, y: FloatArray, w: FloatArray, cut: int) -> Fit:
    """The kind of calibrator that, fitted before `cut`, is best after it."""

    def losses(kind: Fit) -> FloatArray:
        return _losses(kind(p[:cut], y[:cut], w[:cut]).predict(p[cut:]), y[cut:])

    later = w[cut:] / w[cut:].sum()
    line = losses(fit_platt)
    best, best_gain = fit_platt, 0.0
    for kind in (fit_beta, fit_isotonic):
        gains = line - losses(kind)
        gain = float((later * gains).sum())
        error = float(np.sqrt((later**2 * (gains - gain) ** 2).sum()))
        if gain > error and gain > best_gain:
            best, best_gain = kind, gain
    return best


def fit_recalibration(
    p: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    at: npt.ArrayLike | None = None,
    wait: float = 0.0,
    late: bool = False,
) -> Calibrator:
    """A line from the newest rows, if such lines would have helped lately; else none.

    What an earlier fit got wrong need not be what the next one gets wrong: under drift that turns
    back, chasing the newest outcomes makes things worse. So the newest 2,000 rows are replayed in
    steps of 250, each corrected by the rows known before it.

    Parameters
    ----------
    p : array_like of shape (n,)
        Uncalibrated predictions by fits that had not seen the rows, **oldest row first**.
    y : array_like of shape (n,)
        Outcomes, 0 or 1.
    at : array_like of shape (n,), optional
        When each row was predicted, in days (or in rows, the default).
    wait : float
        How long an outcome takes to be known, in the unit of `at`.
    late : bool
        Move the level half way and leave the slope alone: the newest known rows are old.

    Returns
    -------
    Calibrator
        None before 100 rows are known, or where the replay saves less than .001 log loss a row.
    """
    p, y, _ = _checked(p, y, None)
    moment = np.arange(len(y), dtype=np.float64) if at is None else np.asarray(at, np.float64)
    gain, judged = 0.0, 0
    for start in range(max(len(y) - _RECENT_ROWS, 0), len(y), _TRIAL_ROWS):
        known = int(np.searchsorted(moment[:start] + wait, moment[start], side="right"))
        said, happened = (v[start : start + _TRIAL_ROWS] for v in (p, y))
        judged += len(said)
        if known >= _LEAST_KNOWN:
            corrected = newest_line(p[:known], y[:known], late=late).predict(said)
            gain += float((_losses(said, happened) - _losses(corrected, happened)).sum())
    if len(y) < _LEAST_KNOWN or gain < _LEAST_GAIN * judged:
        return Calibrator()
    return newest_line(p, y, late=late)


def newest_line(p: npt.ArrayLike, y: npt.ArrayLike, *, late: bool = False) -> Calibrator:
    """Slope and intercept of the newest 2,000 rows; if `late`, only half the intercept."""
    p, y, _ = _checked(p, y, None)
    newest = slice(-_RECENT_ROWS, None)
    if not late:
        return fit_platt(p[newest], y[newest])
    shift = fit_intercept(p[newest], y[newest])
    return replace(shift, c=shift.c / 2)


def _losses(p: FloatArray, y: FloatArray) -> FloatArray:
    inside = np.clip(p, _EDGE, 1 - _EDGE)
    return np.asarray(-(y * np.log(inside) + (1 - y) * np.log1p(-inside)), dtype=np.float64)


def fit_intercept(
    p: npt.ArrayLike, y: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> Calibrator:
    """Shift all log-odds by one number, shrunken towards 0 (prior SD 0.5)."""
    p, y, w = _checked(p, y, weight)
    (shift,) = shrunken_line(np.empty((len(y), 0)), logit(p), y, w, np.empty(0), np.empty(0))
    return Calibrator("intercept", c=float(shift), examples=len(y), minority=_minority(y))


def fit_platt(
    p: npt.ArrayLike, y: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> Calibrator:
    """Slope and intercept on the log-odds, shrunken towards (1, 0) (prior SD 0.25 and 0.5).

    A slope under 0.02 (predictions that say nothing, or the reverse) is held there.
    """
    p, y, w = _checked(p, y, weight)
    z = logit(p)
    # Around its mean, slope and intercept are nearly independent: the prior of the slope then
    # does not hold back the level.
    centre = float((z * w).sum() / w.sum()) if w.sum() > 0 else 0.0
    x = (z - centre)[:, None]
    shift, slope = shrunken_line(x, z * 0 + centre, y, w, np.ones(1), np.full(1, _SLOPE_SD))
    if slope < _LEAST_SLOPE:
        slope = _LEAST_SLOPE
        held = centre + slope * x[:, 0]
        (shift,) = shrunken_line(x[:, :0], held, y, w, np.empty(0), np.empty(0))
    c = float(shift + centre * (1 - slope))
    return Calibrator(
        "platt", float(slope), float(slope), c, examples=len(y), minority=_minority(y)
    )


def fit_beta(p: npt.ArrayLike, y: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> Calibrator:
    """The beta curve, its two slopes shrunken towards 1 and kept >= 0.02."""
    p, y, w = _checked(p, y, weight)
    z = logit(p)
    x = np.column_stack([-_softplus(-z), _softplus(z)])

    def loss(theta: FloatArray) -> tuple[float, FloatArray]:
        eta = x @ theta[:2] + theta[2]
        away = (theta - [1.0, 1.0, 0.0]) / [_SLOPE_SD, _SLOPE_SD, _INTERCEPT_SD]
        value = (w * (_softplus(eta) - y * eta)).sum() + 0.5 * (away**2).sum()
        slope = w * (expit(eta) - y)
        prior = away / [_SLOPE_SD, _SLOPE_SD, _INTERCEPT_SD]
        return float(value), np.append(x.T @ slope, slope.sum()) + prior

    bounds = [(_LEAST_SLOPE, None), (_LEAST_SLOPE, None), (None, None)]
    found = minimize(loss, np.array([1.0, 1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=bounds)
    a, b, c = (float(v) for v in found.x)
    return Calibrator("beta", a, b, c, examples=len(y), minority=_minority(y))


def fit_isotonic(
    p: npt.ArrayLike, y: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> Calibrator:
    """Isotonic regression, drawn between the centres of its steps.

    Each step is one prior row short of its raw rate (the row has the step's mean prediction),
    so that no step answers 0 or 1.
    """
    p, y, w = _checked(p, y, weight)
    order = np.argsort(p, kind="stable")
    p, y, w = np.clip(p[order], _EDGE, 1 - _EDGE), y[order], w[order]
    values, group = np.unique(p, return_inverse=True)
    total = np.maximum(np.bincount(group, w), _EDGE)
    rate = isotonic_regression(np.bincount(group, w * y) / total, sample_weight=total)
    _, step = np.unique(rate, return_inverse=True)
    rows = np.bincount(step, total)
    said = np.bincount(step, total * values) / rows
    happened = np.bincount(step, total * rate)
    smooth = np.maximum.accumulate((happened + said) / (rows + 1))
    knots = zip(logit(said).tolist(), logit(smooth).tolist(), strict=True)
    return Calibrator("isotonic", knots=tuple(knots), examples=len(y), minority=_minority(y))


def logit(p: npt.ArrayLike) -> FloatArray:
    """Log-odds of probabilities kept 1e-9 away from 0 and 1; NaN stays NaN."""
    p = np.clip(np.asarray(p, dtype=np.float64), _EDGE, 1 - _EDGE)
    return np.asarray(np.log(p) - np.log1p(-p), dtype=np.float64)


def expit(z: npt.ArrayLike) -> FloatArray:
    """Probabilities of log-odds, kept 1e-9 away from 0 and 1; NaN stays NaN."""
    z = np.clip(np.asarray(z, dtype=np.float64), -700.0, 700.0)
    return np.asarray(np.clip(1 / (1 + np.exp(-z)), _EDGE, 1 - _EDGE), dtype=np.float64)


def shrunken_line(
    x: FloatArray,
    offset: FloatArray,
    y: FloatArray,
    w: FloatArray,
    mean: FloatArray,
    sd: FloatArray,
    intercept_sd: float = _INTERCEPT_SD,
) -> FloatArray:
    """MAP of logit P(y) = offset + intercept + x beta under normal priors.

    Newton steps, halved until the objective falls, which a strictly convex one always allows.

    Parameters
    ----------
    x : ndarray of shape (n, k)
        Inputs; k may be 0.
    offset, y, w : ndarray of shape (n,)
        Fixed part of the log-odds, outcomes 0 or 1, row weights.
    mean, sd : ndarray of shape (k,)
        Prior of beta; the intercept's is 0 +- `intercept_sd`.

    Returns
    -------
    ndarray of shape (1 + k,)
        Intercept, then beta.
    """
    design = np.column_stack([np.ones(len(y)), x])
    centre, precision = np.append(0.0, mean), 1 / np.append(intercept_sd, sd) ** 2

    def objective(theta: FloatArray) -> float:
        eta = design @ theta + offset
        fit = (w * (_softplus(eta) - y * eta)).sum()
        return float(fit + 0.5 * (precision * (theta - centre) ** 2).sum())

    theta, best = centre.copy(), objective(centre)
    for _ in range(100):
        q = expit(design @ theta + offset)
        gradient = design.T @ (w * (q - y)) + precision * (theta - centre)
        hessian = (design * (w * q * (1 - q))[:, None]).T @ design + np.diag(precision)
        step = np.linalg.solve(hessian, gradient)
        while objective(theta - step) > best and np.abs(step).max() > 1e-12:
            step = step / 2
        theta, previous = theta - step, best
        best = objective(theta)
        if previous - best <= 1e-12 * (1 + abs(best)):
            break
    return theta


def _softplus(z: FloatArray) -> FloatArray:
    # numpy's logaddexp warns on NaN, which here is a plain missing prediction.
    return np.asarray(np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0.0), dtype=np.float64)


def _minority(y: FloatArray) -> int:
    return int(min(y.sum(), len(y) - y.sum()))


def _checked(
    p: npt.ArrayLike, y: npt.ArrayLike, weight: npt.ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    p, y = np.asarray(p, dtype=np.float64), np.asarray(y, dtype=np.float64)
    w = np.ones(y.shape) if weight is None else np.asarray(weight, dtype=np.float64)
    if p.ndim != 1 or p.shape != y.shape or w.shape != y.shape:
        raise CalibrationError(
            f"p has shape {p.shape}, y {y.shape}, weight {w.shape}; give one of each per row"
        )
    if not np.all((p >= 0) & (p <= 1)):
        raise CalibrationError("p holds values outside [0, 1] or NaN; give probabilities")
    if not np.all((y == 0) | (y == 1)):
        raise CalibrationError("y holds values other than 0 and 1; give outcomes 0 or 1")
    if not np.all(w >= 0):
        raise CalibrationError("weight holds negative values or NaN; give weights >= 0")
    return p, y, w
