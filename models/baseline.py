"""What a spreadsheet or a CRM would say: the methods every model is shown beside."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

__all__ = ["conversion_ratio", "past_mean", "shrunken_rate", "stage_weighted"]

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


def stage_weighted(
    amount: FloatArray, rate: FloatArray, draws: int, rng: np.random.Generator
) -> FloatArray:
    """Sum of amount x stage rate, without timing: what most CRMs show. Draws of the sum.

    Deals are independent coins, as the method takes them; shape (draws,).
    """
    amount = np.nan_to_num(amount)
    mean = float((amount * rate).sum())
    sd = float(np.sqrt((amount**2 * rate * (1.0 - rate)).sum()))
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
