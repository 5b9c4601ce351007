"""Stages as training sees them: what is believed of them, how deals left them, how many were won."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from data.history import OPEN, WON, History
from data.pipeline import preset_probability
from data.records import Table
from data.timelines import DAY
from models.baseline import shrunken_rate
from models.stage_chain import Exits, StagePrior
from training.examples import open_spells

__all__ = ["stage_exits", "stage_prior", "stage_rates"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_LEAST, _MOST = 0.02, 0.95  # what a believed win probability is kept within
_LEVEL = 20.0  # deals that a level's parent is worth
_NEVER = np.iinfo(np.int64).max


def stage_prior(history: History) -> StagePrior:
    """The stages that leave a deal open, declared or only seen, and what is believed of them.

    Their win probability before any deal has closed is the CRM's own, a preset's by name, or an
    even step by place in the pipeline.
    """
    stage = history.tables["stage"]
    kinds, ids = stage["kind"].astype(str), [str(i) for i in stage["stage_id"]]
    pipelines, owner = np.unique(stage["pipeline_id"].astype(str), return_inverse=True)
    closing = np.isin(kinds, ("won", "lost"))
    order = np.lexsort((np.nan_to_num(stage["sort_order"]), owner))
    # A stage that two pipelines share is the first one's.
    declared: dict[str, int] = {}
    for r in order[~closing[order]].tolist():
        declared.setdefault(ids[r], r)
    shut = {ids[r] for r in np.flatnonzero(closing)}
    seen = sorted({str(s) for s in history.deals.stage_levels} - shut - set(declared))
    rows = list(declared.values())
    place, follows = _places(rows, owner, stage["sort_order"])
    chance = [_believed(stage, row, place[i]) for i, row in enumerate(rows)]
    chance += [float(np.clip(preset_probability(name, 0.5), _LEAST, _MOST)) for name in seen]
    nowhere = len(pipelines)
    return StagePrior(
        (*declared, *seen),
        np.array(chance, dtype=np.float64),
        np.array([*owner[rows], *[nowhere] * len(seen)], dtype=np.int64),
        np.array([*follows, *[-1] * len(seen)], dtype=np.int64),
    )


def _places(rows: list[int], owner: IntArray, order: FloatArray) -> tuple[list[float], list[int]]:
    """Place of each stage in its pipeline, 0 to 1, and which one follows it (-1: none)."""
    place, follows = [0.5] * len(rows), [-1] * len(rows)
    for pipeline in set(owner[rows].tolist()):
        mine = [
            i for i, r in enumerate(rows) if owner[r] == pipeline and not np.isnan(order[r])
        ]  # already in order
        for k, i in enumerate(mine):
            place[i] = k / (len(mine) - 1) if len(mine) > 1 else 0.5
            follows[i] = mine[k + 1] if k + 1 < len(mine) else -1
    return place, follows


def _believed(stage: Table, row: int, place: float) -> float:
    given = stage["default_probability"][row]
    label = stage["name"][row] or str(stage["stage_id"][row])
    prior = preset_probability(label, place) if np.isnan(given) else float(given)
    return float(np.clip(prior, _LEAST, _MOST))


def stage_exits(history: History, prior: StagePrior, until: int) -> Exits:
    """Every stay of a deal in a stage while it was open and watched, as known at `until`."""
    ledger = history.deals
    spells, moves = open_spells(ledger, until), ledger.stages
    known = np.flatnonzero(moves.known_at <= until)
    known = known[np.lexsort((moves.at[known], moves.row[known]))]
    row, at, value = moves.row[known], moves.at[known], moves.value[known]
    turn = np.r_[True, (row[1:] != row[:-1]) | (value[1:] != value[:-1])][: len(row)]
    row, at, value = row[turn], at[turn], value[turn]
    leaves = np.append(at[1:], _NEVER)[: len(at)]
    leaves[np.append(row[1:] != row[:-1], True)[: len(row)]] = _NEVER
    lo, hi = np.searchsorted(row, spells.row), np.searchsorted(row, spells.row, side="right")
    spell = np.repeat(np.arange(len(lo)), hi - lo)
    event = np.arange(len(spell)) - np.repeat(np.cumsum(hi - lo) - (hi - lo), hi - lo) + lo[spell]
    begin = np.maximum(np.maximum(at[event], spells.begin[spell]), history.observed_from)
    end = np.minimum(leaves[event], spells.end[spell])
    seen = (end > begin) | ((end == begin) & (at[event] == begin))
    spell, event, begin, end = spell[seen], event[seen], begin[seen], end[seen]
    code = _places_of(ledger.stage_levels, prior.names)
    s = len(prior.names)
    closed = spells.outcome[spell]
    ends_with = np.where(closed == OPEN, -1, np.where(closed == WON, s + 1, s + 2))
    moved = leaves[event] < spells.end[spell]
    following = np.append(value, 0)[np.where(moved, event + 1, len(value))]
    to = np.where(moved, code[following], ends_with)
    return Exits(code[value[event]], (end - begin) / DAY, to)


def _places_of(levels: npt.NDArray[np.object_], names: tuple[str, ...]) -> IntArray:
    place = {name: i for i, name in enumerate(names)}
    codes = [place.get(str(level), len(names)) for level in levels]
    return np.array([*codes, len(names)], dtype=np.int64)


def stage_rates(history: History, until: int) -> dict[str, dict[str, float]]:
    """Shrunken win rate of every stage, from deals closed by `until`.

    A deal counts in each stage it is known to have been in. The prior is the CRM's own
    probability of the stage, a preset's by name, or an even step; stages lean on the whole.
    """
    prior = stage_prior(history)
    ledger = history.deals
    spells = open_spells(ledger, until)
    closed = np.flatnonzero(spells.outcome != OPEN)
    won_of = dict(zip(spells.row[closed].tolist(), spells.outcome[closed] == WON, strict=True))
    moves = ledger.stages
    known = np.flatnonzero(moves.known_at <= until)
    visits = {(int(r), int(c)) for r, c in zip(moves.row[known], moves.value[known], strict=True)}
    code = _places_of(ledger.stage_levels, prior.names)
    won, n = np.zeros(len(prior.names)), np.zeros(len(prior.names))
    for row, value in visits:
        if row in won_of and code[value] < len(n):
            n[code[value]] += 1
            won[code[value]] += won_of[row]
    total = len(closed)
    overall = (sum(won_of.values()) + 5 * 0.3) / (total + 5)
    # With data the level above is the organisation; without, it is the stage's own prior.
    weight = total / (total + _LEVEL)
    return {
        name: {
            **shrunken_rate(float(w), float(m), weight * overall + (1 - weight) * p, _LEVEL),
            "won": float(w),
            "prior_rate": p,
        }
        for name, w, m, p in zip(prior.names, won, n, prior.chance.tolist(), strict=True)
    }
