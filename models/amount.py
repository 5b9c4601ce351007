"""The final amount of a won deal, given the amount it carries now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["AmountModel"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_POINTS = np.linspace(0.0, 1.0, 101)
_M = 20.0  # won deals of the whole that a stage starts with
_M_UNCHANGED = 3.0  # won deals closed at the amount they carried, that the whole starts with


@dataclass(frozen=True)
class AmountModel:
    """Distribution of log(final / current) by stage, shrunken to the whole, and that to none.

    Attributes
    ----------
    stages : tuple of str
    log_ratio : float64, shape (len(stages) + 1, 101)
        Quantile function of log(final / current); the last row is the whole.
    log_final : float64, shape (101,)
        Quantile function of the log of final amounts, for deals that carry none; empty when no
        amount has ever been seen.
    won : int
        Won deals it learnt from.
    """

    stages: tuple[str, ...]
    log_ratio: FloatArray
    log_final: FloatArray
    won: int

    @classmethod
    def fit(
        cls, stage: tuple[npt.NDArray[np.int32], npt.NDArray[np.object_]], current: FloatArray,
        final: FloatArray, deal: IntArray,
    ) -> AmountModel:  # fmt: skip
        """Learn from landmarks of won deals.

        Parameters
        ----------
        stage : (codes, levels)
            Stage at each landmark, shape (m,).
        current, final : float64, shape (m,)
            Amount carried at the landmark and amount it closed at, in one currency.
        deal : int64, shape (m,)
            Which deal each landmark belongs to.
        """
        codes, levels = stage
        known = (current > 0) & (final > 0)
        log_ratio = np.log(final[known] / current[known])
        whole = np.zeros(len(_POINTS))
        if known.any():
            n = len(np.unique(deal[known]))
            whole = np.quantile(log_ratio, _POINTS) * (n / (n + _M_UNCHANGED))
        names, rows = [], []
        for code, level in enumerate(levels):
            here = codes[known] == code
            n = len(np.unique(deal[known][here]))
            if n:
                own = np.quantile(log_ratio[here], _POINTS)
                names.append(str(level))
                # Quantile averaging keeps the shape; a mixture would invent a second mode.
                rows.append((n * own + _M * whole) / (n + _M))
        finals = final[np.unique(deal, return_index=True)[1]] if len(deal) else final
        finals = finals[finals > 0]
        return cls(
            tuple(names),
            np.array([*rows, whole]),
            np.quantile(np.log(finals), _POINTS) if len(finals) else np.zeros(0),
            len(finals),
        )

    def final(
        self, stage: tuple[npt.NDArray[np.int32], npt.NDArray[np.object_]], current: FloatArray,
        level: FloatArray,
    ) -> FloatArray:  # fmt: skip
        """The final amount at a quantile level, for deals that carry `current` (NaN: none).

        `level` and `current` have shape (m,); uniform levels give draws.
        """
        codes, levels = stage
        place = {name: i for i, name in enumerate(self.stages)}
        table = np.array([place.get(str(s), -1) for s in levels] + [-1])
        row = table[codes]
        position = np.clip(level, 0.0, 1.0) * (len(_POINTS) - 1)
        low = np.minimum(position.astype(np.int64), len(_POINTS) - 2)
        part = position - low
        logs = self.log_ratio[row, low] * (1 - part) + self.log_ratio[row, low + 1] * part
        out = current * np.exp(logs)
        none = np.isnan(current)
        if none.any():
            if len(self.log_final):
                out[none] = np.exp(np.interp(level[none], _POINTS, self.log_final))
            else:
                out[none] = 0.0
        return np.asarray(out, dtype=np.float64)

    def to_state(self) -> dict[str, Any]:
        """Plain values and arrays."""
        return {
            "stages": list(self.stages),
            "log_ratio": self.log_ratio,
            "log_final": self.log_final,
            "won": self.won,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> AmountModel:
        """Rebuild from `to_state`."""
        return cls(
            tuple(state["stages"]), state["log_ratio"], state["log_final"], int(state["won"])
        )
