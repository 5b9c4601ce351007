"""What a back-test gives: forecasts as they would have been issued, and what happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models import measures

__all__ = ["LEVELS", "QUANTILES", "SERVED", "Issued"]

FloatArray = npt.NDArray[np.float64]

SERVED = "dealcast"
LEVELS = (0.5, 0.8, 0.95)
QUANTILES = tuple(sorted({0.5, *((1 - v) / 2 for v in LEVELS), *((1 + v) / 2 for v in LEVELS)}))


@dataclass(frozen=True)
class Issued:
    """One forecast as it would have been issued, and what happened; money in base currency.

    Attributes
    ----------
    origin : datetime64[us]
    horizon : float
        Days from the origin to the end of the window.
    group, method : str
    mean, crps, actual : float
    quantiles : dict of str to float
    components : dict of str to float
        Means of what was won to date, comes from open deals and from new business ("dealcast"
        only).
    window : str
        What forecasts of several origins are judged under: "28 days", "this month".
    period : str
        The calendar period, "2017-07"; empty for so many days from the origin.
    pit : float
        Share of the forecast's draws below what happened, ties by half: over many forecasts as
        often small as large, if the distribution is right.
    ranged : bool
        Whether the method gave a distribution, not only a number.
    """

    origin: np.datetime64
    horizon: float
    group: str
    method: str
    mean: float
    quantiles: dict[str, float]
    crps: float
    actual: float
    components: dict[str, float]
    window: str
    period: str = ""
    pit: float = float("nan")
    ranged: bool = True

    @classmethod
    def of(
        cls, values: FloatArray, actual: float, components: Mapping[str, float], **where: Any
    ) -> Issued:
        """Sum draws up; `where` gives all other fields."""
        found = np.quantile(values, QUANTILES)
        return cls(
            mean=float(values.mean()),
            quantiles={f"{q:g}": float(v) for q, v in zip(QUANTILES, found, strict=True)},
            crps=float(measures.crps_sample(values, actual)),
            actual=float(actual),
            components=dict(components),
            pit=float(measures.pit_sample(values, actual)),
            **where,
        )

    def holds(self, level: float) -> bool:
        """Whether what happened lies in the central range of a level."""
        low, high = f"{(1 - level) / 2:g}", f"{(1 + level) / 2:g}"
        return self.quantiles[low] <= self.actual <= self.quantiles[high]

    @property
    def pinball(self) -> float:
        """Mean pinball loss of the quantiles."""
        levels = [float(q) for q in self.quantiles]
        return float(measures.pinball(list(self.quantiles.values()), self.actual, levels).mean())

    def to_state(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"origin": str(self.origin.astype("datetime64[us]"))}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Issued:
        """Rebuild from `to_state`."""
        return cls(**{**state, "origin": np.datetime64(state["origin"], "us")})
