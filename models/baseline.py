"""What a spreadsheet or a CRM would say: the methods every model is shown beside."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

__all__ = [
    "conversion_ratio",
    "growth_ratio",
    "past_mean",
    "point",
    "seasonal_naive",
    "series_totals",
    "shrunken_rate",
    "weighted_pipeline",
]

FloatArray = npt.NDArray[np.float64]


def shrunken_rate(
    won: float, closed: float, prior: float, strength: float = 20.0
) -> dict[str, float]:
    """Beta-binomial rate with its 80 % range.

    Parameters
    ----------
    won, closed : float
        Deals won, and deals won or lost.
    prior : float
        Rate of the level above, 0-1.
    strength : float
        Deals that the prior is worth.

    Returns
    -------
    dict
        rate, low and high (10 % and 90 %), n (closed deals), prior (its share of the evidence).

    Examples
    --------
    >>> shrunken_rate(3, 4, prior=0.3, strength=20)["rate"]
    0.375
    """
    a = won + strength * prior
    b = closed - won + strength * (1.0 - prior)
    low, high = beta.ppf([0.1, 0.9], max(a, 1e-6), max(b, 1e-6))
    return {
        "rate": a / (a + b),
        "low": float(low),
        "high": float(high),
        "n": closed,
        "prior": strength / (closed + strength),
    }


def weighted_pipeline(
    amount: FloatArray, chance: FloatArray, draws: int, rng: np.random.Generator
) -> FloatArray:
    """Sum of amount x chance to be won, without timing: what most CRMs show. Draws of the sum.

    Deals are independent coins, as the method takes them; shape (draws,).
    """
    amount = np.nan_to_num(amount)
    mean = float((amount * chance).sum())
    sd = float(np.sqrt((amount**2 * chance * (1.0 - chance)).sum()))
    return np.maximum(rng.normal(mean, sd, draws), 0.0)


def past_mean(totals: FloatArray, draws: int, rng: np.random.Generator) -> FloatArray:
    """Mean of past periods of the same length, with their spread; draws, shape (draws,).

    `totals` are the won revenues of past periods, shape (t,).
    """
    if len(totals) == 0:
        return np.zeros(draws)
    sd = float(totals.std(ddof=1)) if len(totals) > 1 else float(totals[0])
    error = sd * np.sqrt(1.0 + 1.0 / len(totals))
    return np.maximum(rng.normal(float(totals.mean()), error, draws), 0.0)


def conversion_ratio(
    ratios: FloatArray, pipeline: float, draws: int, rng: np.random.Generator
) -> FloatArray:
    """Open pipeline x the share of it that similar past pipelines brought; draws (draws,).

    `ratios` are won revenue / open pipeline at past origins with the same horizon, shape (t,).
    """
    return past_mean(ratios * pipeline, draws, rng)


def growth_ratio(
    ratios: FloatArray, to_date: float, draws: int, rng: np.random.Generator
) -> FloatArray:
    """Won to date x how much past periods still grew from the same point on; draws (draws,).

    `ratios` are final / won-to-date revenue of past periods, shape (t,). A period never ends
    below what is won already.
    """
    return np.maximum(past_mean(ratios * to_date, draws, rng), to_date)


def seasonal_naive(
    earlier: float, differences: FloatArray, draws: int, rng: np.random.Generator
) -> FloatArray:
    """The same period a season earlier, as wrong as that has been before; draws (draws,).

    `differences` between past periods and those a season before them, shape (t,), at least one.
    The method expects no change, so their root mean square is its error.
    """
    error = float(np.sqrt(np.mean(differences**2)))
    return np.maximum(rng.normal(earlier, error, draws), 0.0)


def series_totals(paths: FloatArray, weight: FloatArray) -> FloatArray:
    """Sum of simulated steps, each by the share of it that counts; draws (draws,).

    Parameters
    ----------
    paths : float64, shape (steps, draws)
    weight : float64, shape (steps,)
        Share of each step that lies in the period, 0-1.
    """
    return np.maximum(weight @ paths, 0.0)


def point(value: float, draws: int) -> FloatArray:
    """A number that somebody gave without a range; draws that are all alike (draws,)."""
    return np.full(draws, value)
