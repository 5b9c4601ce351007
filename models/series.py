"""Exponential smoothing of a series of totals: what can be said without looking at the records.

The library is statsmodels (ETS models in state-space form); this module chooses among few of
them, as `ets` of R's forecast package does, and gives draws of sums over the steps ahead.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from statsmodels.tsa.exponential_smoothing.ets import ETSModel

__all__ = ["LEAST_STEPS", "SeriesModel", "fit_series"]

FloatArray = npt.NDArray[np.float64]

LEAST_STEPS = 8
_MOST_STEPS = 156
_CYCLES = 3  # a season is looked for where it was seen so often


@dataclass(frozen=True)
class SeriesModel:
    """A fitted series.

    Attributes
    ----------
    name : str
        Error, trend and season: N none, A additive, Ad damped additive.
    aicc : float
        Akaike's criterion, corrected for few steps; NaN where nothing was left to fit.
    scale : float
        Mean size of the series: it was fitted in units of that.
    """

    name: str
    aicc: float
    scale: float
    _results: Any

    def paths(self, steps: int, draws: int, rng: np.random.Generator) -> FloatArray:
        """Draws of the coming values, shape (steps, draws).

        Paths of the state-space model: what happens in a step moves the level of the next ones.
        """
        if self._results is None:
            return np.zeros((steps, draws))
        found = self._results.simulate(steps, anchor="end", repetitions=draws, rng=rng)
        return self.scale * np.asarray(found, dtype=np.float64).reshape(steps, draws)


def fit_series(totals: FloatArray, season: int = 13) -> SeriesModel | None:
    """Choose and fit an exponential smoothing model by its AICc.

    Parameters
    ----------
    totals : float64, shape (n,)
        Totals of consecutive steps, oldest first. What lies before the first that is not zero
        is left out: it is the time before business began.
    season : int
        Steps after which a rhythm may repeat (13 weeks: a quarter); only models without a
        season are tried where it was not seen three times.

    Returns
    -------
    SeriesModel or None
        None where fewer than 8 steps are left, or no model can be fitted.

    Notes
    -----
    Hyndman, Koehler, Ord and Snyder, Forecasting with Exponential Smoothing, 2008.
    """
    begun = np.flatnonzero(totals)
    if len(totals) >= LEAST_STEPS and len(begun) == 0:
        return SeriesModel("zero", float("nan"), 0.0, None)
    series = totals[begun[0] :][-_MOST_STEPS:] if len(begun) else totals[:0]
    if len(series) < LEAST_STEPS:
        return None
    fitted = [
        model
        for trend in (False, True)
        for seasonal in ((0, season) if len(series) >= _CYCLES * season else (0,))
        if (model := _fit(series, trend, seasonal)) is not None
    ]
    return min(fitted, key=lambda m: m.aicc, default=None)


def _fit(series: FloatArray, trend: bool, season: int) -> SeriesModel | None:
    """One model; None where it cannot be fitted or has more parameters than the data bear."""
    options: dict[str, Any] = {}
    if trend:
        options |= {"trend": "add", "damped_trend": True}
    if season:
        # Searching for the states it begins with, one for each step of the season, costs a
        # hundredfold and finds little else than the first cycles' deviations.
        options |= {"seasonal": "add", "seasonal_periods": season}
        options |= {"initialization_method": "heuristic"}
    # The library's search is made for values of about 1: money as it is stops it far too early.
    scale = float(np.abs(series).mean())
    with warnings.catch_warnings():
        # A search that stops early is judged by its AICc like any other.
        warnings.simplefilter("ignore")
        try:
            found = ETSModel(series / scale, error="add", **options).fit(disp=False)
        except (ValueError, np.linalg.LinAlgError, ZeroDivisionError):
            return None
    states = season + 1 + trend if season else 0  # the others count theirs as parameters
    aicc = _aicc(float(found.llf), len(found.params) + 1 + states, len(series))
    if not np.isfinite(aicc) or not np.isfinite(found.params).all():
        return None
    name = f"A,{'Ad' if trend else 'N'},{'A' if season else 'N'}"
    return SeriesModel(name, aicc, scale, found)


def _aicc(log_likelihood: float, parameters: int, n: int) -> float:
    """Infinite where there are too few steps for so many parameters."""
    free = n - parameters - 1
    if free <= 0:
        return float("inf")
    return -2 * log_likelihood + 2 * parameters + 2 * parameters * (parameters + 1) / free
