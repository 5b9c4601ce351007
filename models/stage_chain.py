"""The way through the stages as a chain: what the hazard table leans on while few deals closed.

A deal leaves its stage for another one, or it is won or lost. How fast, and where to, is learnt
from every stay in a stage, of deals still open too: those that have closed so far are the quick
ones, and their rates alone would say that nearly everything is lost. Each stage leans on its
pipeline, that on the organisation, and the organisation on the win probabilities believed
beforehand; what the age of a stay does is learnt for all stages together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.linalg import expm

__all__ = ["AGES", "Exits", "StageChain", "StagePrior"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

AGES = (0.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)  # lower edges of the ages of a stay, days

_CLOSING = 0.03  # chance a day to close before any deal has been seen
_SHARE = 0.3  # share of deals won in general
_MOST_UP = 0.98  # likeliest that an exit is no loss, before any was seen
# What the level above is worth, in exits: for the speed of an organisation and a pipeline, for
# the speed of a stage, for its share of losses, for the way on, and for each age of a stay.
_SPEED_ABOVE, _SPEED, _LOSSES, _WAY, _AGEING = 2.0, 5.0, 10.0, 5.0, 10.0
_VOICE_SPEED, _VOICE = 10.0, 3.0  # a stage tells the others as much as so many exits, at most
# Believed chances are steeper than what happens: wins draw them towards the share of deals won in
# general, half of the way they ever go after so many. So do the first losses, but no more of them:
# what is lost early says nothing of stages that nobody has reached.
_DRAWN, _DRAWN_HALF, _LOSSES_DRAW = 0.7, 4.0, 3.0
_SPREAD = 0.8  # SD of the log-odds to lose, felt over a whole pipeline, around the level above
_NEWTON = 30  # rounds; a handful is enough


@dataclass(frozen=True)
class StagePrior:
    """The stages of an organisation, and what is believed of them before any deal has closed.

    Attributes
    ----------
    names : tuple of str
    chance : float64, shape (s,)
        Chance to be won from each stage, above 0 and below 1.
    pipeline : int64, shape (s,)
        Which pipeline each belongs to, from 0.
    follows : int64, shape (s,)
        Place of the stage that comes next; -1 after the last one, and where nobody says.
    """

    names: tuple[str, ...]
    chance: FloatArray
    pipeline: IntArray
    follows: IntArray

    @classmethod
    def of(cls, chance: Mapping[str, float]) -> StagePrior:
        """Stages of one pipeline in no order."""
        n = len(chance)
        return cls(
            tuple(chance), np.array(list(chance.values()), dtype=np.float64),
            np.zeros(n, dtype=np.int64), np.full(n, -1, dtype=np.int64),
        )  # fmt: skip


@dataclass(frozen=True)
class Exits:
    """Stays of deals in a stage, while they were open and watched.

    Attributes
    ----------
    stage : int64, shape (n,)
        Place in `StagePrior.names` (s of them); s for any other stage.
    since, days : float64, shape (n,)
        How long it had lasted when it came to be watched, and how long it was watched.
    to : int64, shape (n,)
        -1 = still there; the place of the next stage, s for any other; s + 1 = won, s + 2 = lost.
    """

    stage: IntArray
    since: FloatArray
    days: FloatArray
    to: IntArray

    @classmethod
    def none(cls) -> Exits:
        """Before any deal was seen."""
        return cls(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros(0, np.int64))


@dataclass(frozen=True)
class StageChain:
    """Rates of leaving each stage.

    Attributes
    ----------
    names : tuple of str
        The s stages; the row after the last one is a deal in any other stage, or in none.
    rates : float64, shape (s + 1, s + 3)
        A day, to each stage, to any other, to won and to lost.
    ageing : float64, shape (ages, 2)
        What a stay's age multiplies the rates by: all exits but losses, and losses.
    """

    names: tuple[str, ...]
    rates: FloatArray
    ageing: FloatArray

    @classmethod
    def fit(cls, prior: StagePrior, exits: Exits) -> StageChain:
        """Learn the rates, each level shrunken to the one above."""
        s = len(prior.names)
        count = np.zeros((s + 1, s + 3))
        gone = exits.to >= 0
        np.add.at(count, (exits.stage[gone], exits.to[gone]), 1.0)
        days = np.bincount(exits.stage, exits.days, s + 1).astype(np.float64)
        rates = np.zeros((s + 1, s + 3))
        known = count[:s]
        if s:
            leave = _speed(prior, known.sum(1), days[:s])
            prior = _drawn(prior, *known[:, -2:].sum(0))
            lose = _losing(prior, known)
            rates[:s, :-1] = (leave * (1.0 - lose))[:, None] * _ways(prior, known[:, :-1])
            rates[:s, -1] = leave * lose
        rates[s, -2:] = _anywhere(count[:, -2:].sum(0), float(days.sum()))
        return cls(prior.names, rates, _ageing(exits, rates))

    def incidence(self, days: FloatArray) -> FloatArray:
        """Chance of having been (won, lost) by each of some ascending days.

        Returns
        -------
        float64, shape (s + 1, ages, k, 2)
            By stage, and by how long the stay has lasted.
        """
        generator = self._generator()
        n = len(generator) - 2
        state, before = np.eye(n + 2), 0.0
        out = np.empty((n, len(days), 2))
        for k, day in enumerate(days):
            state = state @ expm(generator * (day - before))
            before = day
            out[:, k] = state[:n, n:]
        return np.clip(out, 0.0, 1.0).reshape(len(self.rates), len(AGES), len(days), 2)

    def hazards(self, edges: FloatArray) -> FloatArray:
        """Chance to be (won, lost) in each step given still open: (s + 1, ages, k, 2)."""
        curve = self.incidence(edges[1:])
        curve = np.concatenate([np.zeros_like(curve[:, :, :1]), curve], axis=2)
        still = np.maximum(1.0 - curve[:, :, :-1].sum(3), 1e-9)
        hazards = np.clip(np.diff(curve, axis=2) / still[..., None], 1e-6, 0.49)
        return np.asarray(hazards, dtype=np.float64)

    def win(self) -> FloatArray:
        """Chance to be won in the end, by stage and age of the stay: (s + 1, ages)."""
        generator = self._generator()
        n = len(generator) - 2
        ever = np.linalg.solve(-generator[:n, :n], generator[:n, n])
        return np.asarray(ever).reshape(len(self.rates), len(AGES))

    def longest(self, stage: IntArray) -> float:
        """Days after which 99 % of the deals that have just come to these stages have closed."""
        if len(stage) == 0:
            stage = np.array([len(self.names)])  # deals of which no stage is known
        days = np.geomspace(1.0, 1000.0, 61)
        share = np.bincount(stage, minlength=len(self.rates)) / len(stage)
        closed = (share[:, None] * self.incidence(days)[:, 0].sum(2)).sum(0)
        return float(days[min(int(np.searchsorted(closed, 0.99)), len(days) - 1)])

    def _generator(self) -> FloatArray:
        """Rates between all pairs of (stage, age), then won and lost.

        A stay grows older at the rate that takes it through an age in its width on average.
        """
        rows, ages = len(self.rates), len(AGES)
        n = rows * ages
        up, lose = self.ageing.T
        flow = np.zeros((rows, ages, n + 2))
        flow[:, :, :n:ages] = self.rates[:, None, :rows] * up[:, None]
        flow[:, :, -2] = self.rates[:, None, -2] * up
        flow[:, :, -1] = self.rates[:, None, -1] * lose
        place = np.arange(n).reshape(rows, ages)
        for a, width in enumerate(np.diff(AGES)):
            flow[np.arange(rows), a, place[:, a + 1]] += 1.0 / width
        whole = np.zeros((n + 2, n + 2))
        whole[:n] = flow.reshape(n, n + 2)
        whole[np.arange(n), np.arange(n)] -= whole[:n].sum(1)
        return whole


def _speed(prior: StagePrior, exits: FloatArray, days: FloatArray) -> FloatArray:
    """Rate of leaving each stage, a day: exits against those due, level by level."""
    size = np.bincount(prior.pipeline)[prior.pipeline]
    # From the middle of a pipeline half of its stages are left.
    rate = _CLOSING * (size + 1) / 2
    voice = _VOICE_SPEED / (exits + _VOICE_SPEED)
    for group in (np.zeros_like(prior.pipeline), prior.pipeline):
        seen, due = np.bincount(group, voice * exits), np.bincount(group, voice * days * rate)
        rate = rate * ((seen + _SPEED_ABOVE) / (due + _SPEED_ABOVE))[group]
    return np.asarray(rate * (exits + _SPEED) / (days * rate + _SPEED), dtype=np.float64)


def _drawn(prior: StagePrior, won: float, lost: float) -> StagePrior:
    """What is believed once so many deals have closed."""
    seen = won + min(lost, _LOSSES_DRAW)
    drawn = _DRAWN * seen / (seen + _DRAWN_HALF)
    odds = (1.0 - drawn) * _logit(prior.chance) + drawn * _logit(_SHARE)
    return replace(prior, chance=_sigmoid(odds))


def _losing(prior: StagePrior, count: FloatArray) -> FloatArray:
    """Chance that an exit of each stage is a loss, shape (s,)."""
    exits, lost = count.sum(1), count[:, -1]
    after = np.where(prior.follows >= 0, prior.chance[prior.follows], 1.0)
    odds = _logit(1.0 - np.minimum(prior.chance / after, _MOST_UP))
    # A stage whose belief is far off must not speak for all others, however many left it.
    voice = _VOICE / (exits + _VOICE)
    stages = np.maximum(np.bincount(prior.pipeline), 1)
    # A shift of every stage is felt as often as there are stages on the way.
    for group, way in (
        (np.zeros_like(prior.pipeline), stages.mean(keepdims=True)), (prior.pipeline, stages),
    ):  # fmt: skip
        spread = _SPREAD / way
        odds = odds + _shift(odds, voice * exits, voice * lost, group, spread)[group]
    return np.asarray((lost + _LOSSES * _sigmoid(odds)) / (exits + _LOSSES), dtype=np.float64)


def _shift(
    odds: FloatArray, exits: FloatArray, lost: FloatArray, group: IntArray, spread: FloatArray
) -> FloatArray:
    """By how much each group's log-odds of losing are off: the mode under a normal prior."""
    shift = np.zeros(len(spread))
    for _ in range(_NEWTON):
        q = _sigmoid(odds + shift[group])
        slope = np.bincount(group, lost - exits * q) - shift / spread**2
        bend = np.bincount(group, exits * q * (1.0 - q)) + 1.0 / spread**2
        shift = shift + np.clip(slope / bend, -1.0, 1.0)
    return shift


def _ways(prior: StagePrior, count: FloatArray) -> FloatArray:
    """Where deals go that leave a stage without being lost: (s, s + 2), the last one is won."""
    believed = np.zeros_like(count)
    believed[prior.follows < 0, -1] = 1.0
    on = np.flatnonzero(prior.follows >= 0)
    following = prior.follows[on]
    after = prior.chance[following]
    # Where the next stage is believed worse, so many must be won straight for the chance to hold.
    straight = np.clip((prior.chance[on] / _MOST_UP - after) / (1.0 - after), 0.0, 1.0)
    believed[on, following], believed[on, -1] = 1.0 - straight, straight
    ways = (count + _WAY * believed) / (count.sum(1, keepdims=True) + _WAY)
    return np.asarray(ways, dtype=np.float64)


def _anywhere(closed: FloatArray, days: float) -> FloatArray:
    """Rates of (won, lost) a day of a deal of which nothing is known but that it is open."""
    believed = np.array([_SHARE, 1.0 - _SHARE])
    share = (closed + _SPEED * believed) / (closed.sum() + _SPEED)
    return np.asarray(share * (closed.sum() + _SPEED) / (days + _SPEED / _CLOSING))


def _ageing(exits: Exits, rates: FloatArray) -> FloatArray:
    """What the age of a stay multiplies the rates by: exits seen against those due, (ages, 2).

    All ages together leave the rates as they are. Each age leans on the one before: what nobody
    has seen yet goes on as it was.
    """
    edges = np.array([*AGES, np.inf])
    begin, end = exits.since, exits.since + exits.days
    up, lose = rates[exits.stage, :-1].sum(1), rates[exits.stage, -1]
    at = np.searchsorted(edges, end, side="right") - 1
    gone, lost = exits.to >= 0, exits.to == rates.shape[1] - 1
    due = np.array([exits.days @ up, exits.days @ lose])
    level = (np.array([(gone & ~lost).sum(), lost.sum()]) + _AGEING) / (due + _AGEING)
    out, before = np.ones((len(AGES), 2)), np.ones(2)
    for a in range(len(AGES)):
        here = np.clip(np.minimum(end, edges[a + 1]) - np.maximum(begin, edges[a]), 0.0, None)
        due = level * np.array([here @ up, here @ lose])
        seen = np.array([((at == a) & gone & ~lost).sum(), ((at == a) & lost).sum()])
        before = (seen + _AGEING * before) / (due + _AGEING)
        out[a] = before
    return out


def _logit(p: npt.ArrayLike) -> FloatArray:
    p = np.asarray(p)
    return np.asarray(np.log(p / (1.0 - p)), dtype=np.float64)


def _sigmoid(x: FloatArray) -> FloatArray:
    return np.asarray(1.0 / (1.0 + np.exp(-x)), dtype=np.float64)
