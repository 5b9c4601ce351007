"""Ranges held to what past forecasts measured: how much further out each level is to be read.

A forecast whose past distributions were right saw what happened at uniform levels of them; as
normal scores these have variance one. Where the scores of past forecasts spread wider, a range is
read further out in the distribution, where they spread less, further in. Few past periods move
it little: each horizon leans on the others, and they on "as drawn".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

__all__ = ["RangeMap"]

FloatArray = npt.NDArray[np.float64]

_ALL_WORTH = 12.0  # independent forecasts that "as drawn" is worth, for the other horizons
_EACH_WORTH = 12.0  # that the other horizons are worth, for one
_MOST_SCORE = 3.0  # one forecast far off counts no more than this
_LEAST, _MOST = 0.6, 2.0


@dataclass(frozen=True)
class RangeMap:
    """By horizon, how much further out than drawn a level is read.

    Attributes
    ----------
    horizon : float64, shape (h,)
        Days, ascending.
    stretch : float64, shape (h,)
        Factor on normal scores: 1 as drawn, above 1 wider.
    independent : float64, shape (h,)
        About how many independent past forecasts are behind it.
    """

    horizon: FloatArray
    stretch: FloatArray
    independent: FloatArray

    @classmethod
    def as_drawn(cls) -> RangeMap:
        """Before any past forecast was measured."""
        return cls(np.zeros(0), np.zeros(0), np.zeros(0))

    @classmethod
    def fit(cls, horizon: FloatArray, level: FloatArray, gap: float) -> RangeMap:
        """Learn from past forecasts.

        Parameters
        ----------
        horizon, level : shape (n,)
            Days ahead, and the share of the forecast's draws below what happened.
        gap : float
            Days between neighbouring origins: forecasts over more days share what they saw.
        """
        horizons = np.unique(horizon)
        if len(horizons) == 0:
            return cls.as_drawn()
        # Levels of 0 and 1 are as far out as the clip lets them be.
        with np.errstate(divide="ignore"):
            score = np.clip(ndtri(level), -_MOST_SCORE, _MOST_SCORE) ** 2
        weight = np.minimum(gap / horizon, 1.0)
        total, count = float(weight @ score), float(weight.sum())
        squares, counts = [], []
        for days in horizons:
            here = horizon == days
            seen, own = float(weight[here].sum()), float(weight[here] @ score[here])
            others = (total - own + _ALL_WORTH) / (count - seen + _ALL_WORTH)
            squares.append((own + _EACH_WORTH * others) / (seen + _EACH_WORTH))
            counts.append(seen)
        stretch = np.clip(np.sqrt(squares), _LEAST, _MOST)
        return cls(horizons.astype(np.float64), stretch, np.array(counts))

    def at(self, days: float) -> float:
        """The factor at a horizon: straight in log days between those measured."""
        if len(self.horizon) == 0:
            return 1.0
        return float(np.interp(np.log(max(days, 0.1)), np.log(self.horizon), self.stretch))

    def read_at(self, level: npt.ArrayLike, days: float) -> FloatArray:
        """The level of the draws at which a range's level is read, both above 0 and below 1."""
        return np.asarray(ndtr(self.at(days) * ndtri(np.asarray(level, dtype=np.float64))))

    def chance(self, level: float, days: float) -> float:
        """The chance of less, where the draws say `level`: the inverse of `read_at`."""
        if not 0.0 < level < 1.0:
            return level
        return float(ndtr(ndtri(level) / self.at(days)))

    def to_state(self) -> dict[str, Any]:
        """Plain lists, for a manifest."""
        return {
            "horizon": self.horizon.tolist(), "stretch": self.stretch.tolist(),
            "independent": self.independent.tolist(),
        }  # fmt: skip

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> RangeMap:
        """Rebuild from `to_state`; an empty state is as drawn."""
        parts = (state.get(name, []) for name in ("horizon", "stretch", "independent"))
        return cls(*(np.array(part, dtype=np.float64) for part in parts))
