"""Shocks that all deals share: how far a week's wins stray from what the deals said.

Wins of a week are Poisson around what the deal model expected of the deals then open, times a
factor that all of them share: a lasting part that drifts back to its mean, and a part of the week
alone, both of mean one. How large and how lasting they are is averaged over, each possible law
weighted by how well it tells the past weeks and by a prior that few weeks barely move; where the
lasting part stands now is filtered for each law. Both ignorances stay in the draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, logsumexp

__all__ = ["ShockModel"]

FloatArray = npt.NDArray[np.float64]

# Possible laws: how much of the lasting part is left after a week, its SD and that of a week.
_LEFT, _LASTING, _WEEKLY = (0.75, 0.9, 0.97), (0.03, 0.08, 0.15, 0.25, 0.4), (0.02, 0.1, 0.2, 0.35)
_USUAL_LASTING, _USUAL_WEEKLY, _UNSURE = 0.17, 0.15, 0.8  # SDs, and the SD of their logs
_LEVELS = np.linspace(-1.5, 1.5, 61)  # where the lasting part, a log factor, may stand
_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(7)
_LEAST_WEIGHT = 1e-3  # laws less likely than this are dropped
_TINY = 1e-12


@dataclass(frozen=True)
class ShockModel:
    """Laws of the shared shocks, and where the lasting part stood at the end of the last week.

    Attributes
    ----------
    weight : float64, shape (l,)
        How likely each law is; sums to one.
    left : float64, shape (l,)
        Share of the lasting part's distance from its mean that is left after a week.
    lasting, weekly : float64, shape (l,)
        SD of the lasting part and of the part of a week, on the log of the factor.
    state : float64, shape (l, 61)
        Where the lasting part stands, by law: chances of log factors from -1.5 to 1.5.
    """

    weight: FloatArray
    left: FloatArray
    lasting: FloatArray
    weekly: FloatArray
    state: FloatArray

    @classmethod
    def fit(cls, expected: FloatArray, won: FloatArray) -> ShockModel:
        """Learn from past weeks.

        Parameters
        ----------
        expected, won : shape (w,)
            Wins that the model expected and that came, by week, oldest first. Weeks without
            anything expected tell nothing.
        """
        told = expected > 0
        expected, won = expected[told], won[told]
        laws = np.array(list(product(_LEFT, _LASTING, _WEEKLY)))
        fits = {s: _log_likelihood(expected, won, s) for s in _WEEKLY}
        logs, states = np.empty(len(laws)), np.empty((len(laws), len(_LEVELS)))
        for i, (left, lasting, weekly) in enumerate(laws):
            logs[i], states[i] = _filter(fits[weekly], left, lasting)
        usual = np.log(laws[:, 1:] / np.array([_USUAL_LASTING, _USUAL_WEEKLY])) / _UNSURE
        logs -= 0.5 * (usual**2).sum(1)
        weight = np.exp(logs - logsumexp(logs))
        kept = weight >= _LEAST_WEIGHT
        weight = weight[kept] / weight[kept].sum()
        left, lasting, weekly = laws[kept].T
        return cls(weight, left, lasting, weekly, states[kept])

    @classmethod
    def known(cls, lasting: float, weekly: float, left: float = 1.0) -> ShockModel:
        """One law, known for sure, and nothing of where the lasting part stands."""
        state = _normal(np.array([-(lasting**2) / 2]), lasting)
        if lasting == 0:
            state = (_LEVELS == 0.0)[None, :].astype(np.float64)
        return cls(
            np.ones(1), np.array([left]), np.array([lasting]), np.array([weekly]), state
        )  # fmt: skip

    def level(self, weeks: int, age: float = 0.0) -> FloatArray:
        """Expected factor of each week after `age` days since the last one learnt from: (weeks,).

        One in the long run.
        """
        ahead = np.maximum(age, 0.0) / 7.0 + np.arange(weeks)
        kept = self.left[:, None] ** ahead
        variance = self.lasting[:, None] ** 2
        # The factor's mean is one where the log's is minus half its variance.
        centre = -variance / 2
        mean = centre[..., None] + kept[..., None] * (_LEVELS - centre[..., None])
        spread = variance * (1.0 - kept**2)
        factor = np.exp(mean + spread[..., None] / 2)
        return np.asarray(self.weight @ np.einsum("lz,lwz->lw", self.state, factor))

    def draw(
        self, draws: int, weeks: int, rng: np.random.Generator, age: float = 0.0
    ) -> FloatArray:
        """Logs of the factor of each week over its expected `level`: (draws, weeks).

        Antithetic pairs lie half the draws apart. More weeks leave the first ones as they were.
        """
        half = -(-draws // 2)
        law = np.tile(rng.choice(len(self.weight), half, p=self.weight), 2)
        place = rng.random(half)
        place = np.concatenate([place, 1.0 - place])
        noise = rng.standard_normal((max(weeks, 1), 2, half))
        noise = np.concatenate([noise, -noise], axis=2)
        lasting, weekly = self.lasting[law], self.weekly[law]
        centre = -(lasting**2) / 2
        now = np.where(lasting > 0, self._standing(law, place) - centre, 0.0)
        kept = self.left[law] ** (max(age, 0.0) / 7.0)
        out = np.empty((len(law), max(weeks, 1)))
        for w in range(out.shape[1]):
            now = kept * now + lasting * np.sqrt(1.0 - kept**2) * noise[w, 0]
            out[:, w] = centre + now + weekly * noise[w, 1] - weekly**2 / 2
            kept = self.left[law]
        return np.asarray((out - np.log(self.level(out.shape[1], age)))[:draws])

    def summary(self) -> dict[str, float]:
        """Mean law, and the level now with its SD, for a report."""
        mean = float(self.weight @ self.state @ _LEVELS)
        square = float(self.weight @ self.state @ _LEVELS**2)
        return {
            "left_after_a_week": float(self.weight @ self.left),
            "lasting_sd": float(self.weight @ self.lasting),
            "weekly_sd": float(self.weight @ self.weekly),
            "log_level": mean,
            "log_level_sd": float(np.sqrt(max(square - mean**2, 0.0))),
        }

    def to_state(self) -> dict[str, Any]:
        """Plain arrays, for a bundle."""
        return {
            "weight": self.weight, "left": self.left, "lasting": self.lasting,
            "weekly": self.weekly, "state": self.state,
        }  # fmt: skip

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> ShockModel:
        """Rebuild from `to_state`."""
        return cls(
            state["weight"], state["left"], state["lasting"], state["weekly"], state["state"]
        )

    def _standing(self, law: npt.NDArray[np.int64], place: FloatArray) -> FloatArray:
        """The lasting part at a quantile of where it stands, straight between the levels."""
        ends = np.concatenate([np.zeros((len(self.state), 1)), np.cumsum(self.state, axis=1)], 1)
        ends /= ends[:, -1:]
        width = _LEVELS[1] - _LEVELS[0]
        edges = np.append(_LEVELS - width / 2, _LEVELS[-1] + width / 2)
        out = np.empty(len(law))
        for i in np.unique(law):
            out[law == i] = np.interp(place[law == i], ends[i], edges)
        return out


def _log_likelihood(expected: FloatArray, won: FloatArray, weekly: float) -> FloatArray:
    """Log chance of each week's wins at each level, its own part averaged out: (w, levels)."""
    part = weekly * _NODES - weekly**2 / 2
    due = expected[:, None, None] * np.exp(_LEVELS[:, None] + part)
    logs = won[:, None, None] * np.log(due) - due - gammaln(won + 1.0)[:, None, None]
    return np.asarray(logsumexp(logs, axis=2, b=_NODE_WEIGHTS / _NODE_WEIGHTS.sum()))


def _filter(logs: FloatArray, left: float, lasting: float) -> tuple[float, FloatArray]:
    """Log chance of all weeks under a law, and where the lasting part stands after them."""
    centre = -(lasting**2) / 2
    state = _normal(np.array([centre]), lasting)[0]
    moves = _normal(centre + left * (_LEVELS - centre), lasting * np.sqrt(1.0 - left**2))
    total = 0.0
    for week in logs:
        state = state * np.exp(week - week.max())
        chance = max(float(state.sum()), _TINY)
        total += float(np.log(chance) + week.max())
        state = (state / chance) @ moves
    return total, state


def _normal(mean: FloatArray, sd: float) -> FloatArray:
    """Normal chances on the levels, never narrower than their distance: (len(mean), levels)."""
    sd = max(sd, (_LEVELS[1] - _LEVELS[0]) / 2)
    chance = np.exp(-0.5 * ((_LEVELS - mean[:, None]) / sd) ** 2)
    return np.asarray(chance / chance.sum(1, keepdims=True))
