"""The way through the stages as a chain: what the hazard table leans on while few deals closed.

A deal leaves its stage for another one, or it is won or lost. How fast and where to is learnt
from every exit, of deals still open too: those that have closed so far are the quick ones, and
their rates alone would say that nearly everything is lost. Each stage leans on its pipeline,
that on the organisation, and the organisation on the win probabilities believed beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import expm

__all__ = ["Exits", "StageChain", "StagePrior"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_CLOSING = 0.03  # chance a day to close before any deal has been seen
_SHARE = 0.3  # share of deals won, where not even the stage is known
_MOST_UP = 0.98  # likeliest that an exit is no loss, before any was seen
# What each level's parent is worth: exits, for how fast and where to.
_SPEED_DEALS, _DEALS, _WAY_DEALS = 5.0, 10.0, 3.0
# SD of the log-odds of losing of an organisation, and of a pipeline, around what they lean on.
_SPREAD = 0.5
# However many exits a stage has seen, it speaks for the other stages like so many.
_VOICE = 3.0
_VOICE_SPEED=10.0
_SPEED_TOP=2.0
_SOFT=10.0


@dataclass(frozen=True)
class StagePrior:
    """The stages of an organisation, and what is believed of them before any deal has closed.

    Attributes
    ----------
    names : tuple of str
    chance : float64, shape (s,)
        Chance to be won from each stage, 0-1.
    pipeline : int64, shape (s,)
    follows : int64, shape (s,)
        Place of the stage that comes next; -1 after the last one, and where nobody says.
    """

    names: tuple[str, ...]
    chance: FloatArray
    pipeline: IntArray
    follows: IntArray

    @classmethod
    def of(cls, chance: dict[str, float]) -> StagePrior:
        """Stages of one pipeline in no order."""
        n = len(chance)
        return cls(
            tuple(chance), np.array(list(chance.values())), np.zeros(n, np.int64),
            np.full(n, -1, dtype=np.int64),
        )  # fmt: skip


@dataclass(frozen=True)
class Exits:
    """Stays of deals in a stage, while they were open and watched.

    Attributes
    ----------
    stage : int64, shape (n,)
        Place in `StagePrior.names`; as many as there are names for any other stage, or none.
    days : float64, shape (n,)
        How long the stay was watched.
    to : int64, shape (n,)
        -1 = still there; the place of the next stage; one beyond the last place, s + 1 = won,
        s + 2 = lost.
    """

    stage: IntArray
    days: FloatArray
    to: IntArray

    @classmethod
    def none(cls) -> Exits:
        """Before any deal was seen."""
        return cls(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))


@dataclass(frozen=True)
class StageChain:
    """Rates of leaving each stage.

    Attributes
    ----------
    names : tuple of str
        The stages; the row after the last one is a deal in any other stage, or in none.
    rates : float64, shape (s + 1, s + 3)
        A day, to each stage, to any other, to won and to lost.
    """

    names: tuple[str, ...]
    rates: FloatArray

    @classmethod
    def fit(cls, prior: StagePrior, exits: Exits) -> StageChain:
        """Learn the rates, each level shrunken to the one above."""
        s = len(prior.names)
        count = np.zeros((s + 1, s + 3))
        gone = exits.to >= 0
        np.add.at(count, (exits.stage[gone], exits.to[gone]), 1.0)
        days = np.bincount(exits.stage, exits.days, s + 1)[: s + 1]
        rates = np.zeros((s + 1, s + 3))
        known = count[:s]
        leave = _speed(prior, known.sum(1), days[:s])
        lose = _losing(prior, known.sum(1), known[:, -1], float(known[:, -2:].sum()))
        way = _ways(prior, known[:, :-1])
        rates[:s, :-1] = (leave * (1.0 - lose))[:, None] * way
        rates[:s, -1] = leave * lose
        rates[s, -2:] = _anywhere(count, float(days.sum()))
        return cls(prior.names, rates)

    def incidence(self, days: FloatArray) -> FloatArray:
        """Chance of having been (won, lost) by each of some ascending days: (s + 1, k, 2)."""
        n = len(self.rates)
        generator = np.zeros((n + 2, n + 2))
        generator[:n] = self.rates
        generator[np.arange(n), np.arange(n)] -= self.rates.sum(1)
        state, before = np.eye(n + 2), 0.0
        out = np.empty((n, len(days), 2))
        for k, day in enumerate(days):
            state = state @ expm(generator * (day - before))
            before = day
            out[:, k] = state[:n, n:]
        return np.clip(out, 0.0, 1.0)

    def hazards(self, edges: FloatArray) -> FloatArray:
        """Chance to be (won, lost) in each step [edge, edge) given still open: (s + 1, k, 2)."""
        curve = np.concatenate([np.zeros((len(self.rates), 1, 2)), self.incidence(edges[1:])], 1)
        still = np.maximum(1.0 - curve[:, :-1].sum(2), 1e-9)
        return np.clip(np.diff(curve, axis=1) / still[:, :, None], 0.0, 0.98)

    def longest(self, stage: IntArray) -> float:
        """Days after which 99 % of the deals that are in these stages now will have closed."""
        days = np.geomspace(1.0, 1000.0, 61)
        share = np.bincount(stage, minlength=len(self.rates)) / max(len(stage), 1)
        closed = (share[:, None] * self.incidence(days).sum(2)).sum(0)
        return float(days[min(int(np.searchsorted(closed, 0.99)), len(days) - 1)])

    def win(self) -> FloatArray:
        """Chance to be won in the end from each stage, and from any other: (s + 1,)."""
        n = len(self.rates)
        total = self.rates.sum(1, keepdims=True)
        jump = self.rates / total
        return np.asarray(np.linalg.solve(np.eye(n) - jump[:, :n], jump[:, n]))


def _speed(prior: StagePrior, exits: FloatArray, days: FloatArray) -> FloatArray:
    """Rate of leaving each stage, a day: against what is expected, level by level."""
    size = np.bincount(prior.pipeline, minlength=1)[prior.pipeline]
    # From the middle of a pipeline half of its stages are left.
    rate = _CLOSING * (size + 1) / 2
    voice = _VOICE_SPEED / (exits + _VOICE_SPEED)
    everyone = np.zeros(len(rate), dtype=np.int64)
    for group in (everyone, prior.pipeline):
        seen, due = _by(group, voice * exits), _by(group, voice * days * rate)
        rate = rate * ((seen + _SPEED_TOP) / (due + _SPEED_TOP))[group]
    return rate * (exits + _SPEED_DEALS) / (days * rate + _SPEED_DEALS)


def _losing(prior: StagePrior, exits: FloatArray, lost: FloatArray, closed: float) -> FloatArray:
    """Chance that an exit of each stage is a loss."""
    p = prior.chance
    after = np.where(prior.follows >= 0, p[prior.follows], 1.0) if len(p) else p
    odds = _logit(1.0 - np.minimum(p / after, _MOST_UP))
    own = _SOFT / (_SOFT + closed)
    odds = own * odds + (1.0 - own) * odds.mean() if len(odds) else odds
    everyone = np.zeros(len(p), dtype=np.int64)
    voice = _VOICE / (exits + _VOICE)
    for group in (everyone, prior.pipeline):
        odds = odds + _shift(odds, voice * exits, voice * lost, group)[group]
    return (lost + _DEALS * _sigmoid(odds)) / (exits + _DEALS)


def _shift(odds: FloatArray, exits: FloatArray, lost: FloatArray, group: IntArray) -> FloatArray:
    """By how much each group's log-odds of losing are off: the mode under a normal prior."""
    shift = np.zeros(group.max(initial=-1) + 1)
    for _ in range(30):
        q = _sigmoid(odds + shift[group])
        slope = _by(group, lost - exits * q) - shift / _SPREAD**2
        bend = _by(group, exits * q * (1 - q)) + 1 / _SPREAD**2
        shift = shift + np.clip(slope / bend, -1.0, 1.0)
    return shift


def _ways(prior: StagePrior, count: FloatArray) -> FloatArray:
    """Where deals go that leave a stage without being lost: shape (s, s + 2), the last is won."""
    s = len(prior.names)
    believed = np.zeros((s, s + 2))
    for i, following in enumerate(prior.follows):
        if following < 0:
            believed[i, -1] = 1.0
            continue
        # Of the deals that are not lost here, so many must be won here for the chance to hold.
        p, after = prior.chance[i], prior.chance[following]
        straight = max((p / _MOST_UP - after) / max(1.0 - after, 0.01), 0.0)
        believed[i, following], believed[i, -1] = 1.0 - straight, straight
    return (count + _WAY_DEALS * believed) / (count.sum(1, keepdims=True) + _WAY_DEALS)


def _anywhere(count: FloatArray, days: float) -> FloatArray:
    """Rates of (won, lost) a day of a deal of which nothing is known but that it is open."""
    closed = count[:, -2:].sum(0)
    believed = np.array([_SHARE, 1.0 - _SHARE])
    share = (closed + _SPEED_DEALS * believed) / (closed.sum() + _SPEED_DEALS)
    pace = (closed.sum() + _SPEED_DEALS) / (days + _SPEED_DEALS / _CLOSING)
    return np.asarray(pace * share)


def _by(group: IntArray, values: FloatArray) -> FloatArray:
    return np.asarray(np.bincount(group, values, group.max(initial=-1) + 1), dtype=np.float64)


def _logit(p: FloatArray) -> FloatArray:
    return np.asarray(np.log(p / (1.0 - p)))


def _sigmoid(x: FloatArray) -> FloatArray:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))
