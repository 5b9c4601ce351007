"""Stages as training sees them: what is believed of them, how deals left them, how many won."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from data.events import stays_known
from data.history import OPEN, WON, History
from data.pipeline import open_stages
from data.timelines import DAY
from models.baseline import shrunken_rate
from models.stage_chain import Exits, StagePrior
from training.examples import open_spells

__all__ = ["stage_exits", "stage_prior", "stage_rates"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_LEVEL = 20.0  # deals that the level above is worth
_FEW, _SHARE = 5.0, 0.3  # deals that the organisation's own prior is worth, and its share won


def stage_prior(history: History) -> StagePrior:
    """The stages that leave a deal open, declared or only seen, and what is believed of them."""
    found = open_stages(history.tables["stage"], [str(s) for s in history.deals.stage_levels])
    return StagePrior(found.names, found.chance, found.pipeline, found.follows)


def stage_exits(history: History, prior: StagePrior, until: int) -> Exits:
    """Every stay of a deal in a stage while it was open and watched, as known at `until`."""
    ledger = history.deals
    spells = open_spells(ledger, until)
    row, at, leaves, value = stays_known(ledger.stages, until)
    lo, hi = np.searchsorted(row, spells.row), np.searchsorted(row, spells.row, side="right")
    spell = np.repeat(np.arange(len(lo)), hi - lo)
    stay = np.arange(len(spell)) - np.repeat(np.cumsum(hi - lo) - hi, hi - lo)
    begin = np.maximum(np.maximum(at[stay], spells.begin[spell]), history.observed_from)
    end = np.minimum(leaves[stay], spells.end[spell])
    # A stay of no length counts where it was watched from its first moment on.
    seen = (end > begin) | ((end == begin) & (at[stay] == begin))
    spell, stay, begin, end = spell[seen], stay[seen], begin[seen], end[seen]
    s = len(prior.names)
    code = _places_of(ledger.stage_levels, prior.names)
    outcome = spells.outcome[spell]
    closing = np.where(outcome == OPEN, -1, np.where(outcome == WON, s + 1, s + 2))
    moved = leaves[stay] < spells.end[spell]
    following = code[np.append(value, -1)[np.where(moved, stay + 1, -1)]]
    to = np.where(moved, following, closing)
    return Exits(code[value[stay]], (begin - at[stay]) / DAY, (end - begin) / DAY, to)


def _places_of(levels: npt.NDArray[np.object_], names: tuple[str, ...]) -> IntArray:
    place = {name: i for i, name in enumerate(names)}
    codes = [place.get(str(level), len(names)) for level in levels]
    return np.array([*codes, len(names)], dtype=np.int64)


def stage_rates(history: History, until: int) -> dict[str, dict[str, float]]:
    """Shrunken win rate of every stage, from deals closed by `until`.

    A deal counts in each stage it is known to have been in. A stage leans on its pipeline, that
    on the organisation, and without deals on what is believed of the stage itself: the weights
    of the four are told with the rate, as `own`, `pipeline`, `organisation` and `preset`.
    """
    prior = stage_prior(history)
    outcome = _outcomes(history, until)
    won, n = _visits(history, prior, outcome, until, np.arange(len(prior.names)))
    pipeline_won, pipeline_n = (
        part[prior.pipeline] for part in _visits(history, prior, outcome, until, prior.pipeline)
    )
    total = int((outcome != OPEN).sum())
    overall = ((outcome == WON).sum() + _FEW * _SHARE) / (total + _FEW)
    # With data the levels above are pipeline and organisation; without, the stage's own prior.
    seen, inside = total / (total + _LEVEL), pipeline_n / (pipeline_n + _LEVEL)
    above = (pipeline_won + _LEVEL * overall) / (pipeline_n + _LEVEL)
    parent = seen * above + (1.0 - seen) * prior.chance
    rates = {}
    for i, name in enumerate(prior.names):
        rate = shrunken_rate(float(won[i]), float(n[i]), float(parent[i]), _LEVEL)
        rest = rate["prior"]
        rates[name] = {
            **rate,
            "won": float(won[i]),
            "prior_rate": float(prior.chance[i]),
            "own": 1.0 - rest,
            "pipeline": rest * seen * float(inside[i]),
            "organisation": rest * seen * (1.0 - float(inside[i])),
            "preset": rest * (1.0 - seen),
        }
    return rates


def _outcomes(history: History, until: int) -> IntArray:
    """How each deal closed, as known at `until`; OPEN where it has not, or was never seen open."""
    spells = open_spells(history.deals, until)
    closed = spells.outcome != OPEN
    outcome = np.full(len(history.deals), OPEN, dtype=np.int64)
    outcome[spells.row[closed]] = spells.outcome[closed]
    return outcome


def _visits(
    history: History, prior: StagePrior, outcome: IntArray, until: int, group: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Deals won, and deals closed, that are known to have been in each group of stages."""
    moves = history.deals.stages
    known = np.flatnonzero((moves.known_at <= until) & (outcome[moves.row] != OPEN))
    code = _places_of(history.deals.stage_levels, prior.names)[moves.value[known]]
    inside = code < len(prior.names)
    pairs = np.column_stack([moves.row[known][inside], group[code[inside]]])
    pairs = np.unique(pairs, axis=0)
    size = group.max(initial=-1) + 1
    won, n = (
        np.bincount(pairs[:, 1], part, size).astype(np.float64)
        for part in (outcome[pairs[:, 0]] == WON, None)
    )
    return won, n
