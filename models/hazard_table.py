"""Aalen-Johansen table: hazards of winning and losing by stage, time in stage and step.

The baseline every learner has to beat, the anchor of the ensemble, and the whole model where
few deals have closed. Cells are shrunken towards their stage, and stages towards what a chain of
stages says, which learns from every stay of a deal in a stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.grid import Cells
from models.stage_chain import AGES, StageChain

__all__ = ["HazardTable", "incidence", "interval_labels", "read_curve"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_PARENT_DEALS = 20.0  # deals that what a cell leans on is worth


def interval_labels(
    cells: Cells, time: FloatArray, outcome: IntArray
) -> tuple[FloatArray, IntArray]:
    """What each interval saw: the share of it at risk, and its label.

    Case analysis, for an interval [b, e) and a record that closes or is last seen at `time`:

    - time < b: nothing is seen, share 0
    - b <= time < e and it closed: the whole interval counts, label = outcome
    - b <= time < e and it was last seen open: the part up to time counts, label 0
    - e <= time: the whole interval counts, label 0

    Returns
    -------
    share : float64 (m, k), from 0 to 1
    label : int64 (m, k), 0 = still open, 1 = won, 2 = lost
    """
    length = cells.end - cells.begin
    t = time[:, None]
    inside = (t >= cells.begin) & (t < cells.end)
    closed = inside & (outcome[:, None] > 0)
    seen = np.clip((t - cells.begin) / np.where(length > 0, length, 1.0), 0.0, 1.0)
    share = np.where(closed, 1.0, seen)
    share[length <= 0] = 0.0
    return share, np.where(closed, outcome[:, None], 0)


def incidence(hazards: FloatArray) -> FloatArray:
    """Hazards of competing outcomes -> cumulative incidences, by the product limit.

    Parameters
    ----------
    hazards : shape (m, k, c)
        Chance of each outcome in each interval, given still open at its start.

    Returns
    -------
    shape (m, k, c)
        Chance of each outcome by the end of each interval: rises, and sums to at most one.
    """
    # Chances that sum to one may do so by a rounding error too much.
    stay = np.maximum(1.0 - hazards.sum(axis=2), 0.0)
    open_before = np.cumprod(np.concatenate([np.ones_like(stay[:, :1]), stay[:, :-1]], 1), axis=1)
    return np.cumsum(hazards * open_before[:, :, None], axis=1)


def read_curve(curve: FloatArray, cells: Cells, days: FloatArray) -> FloatArray:
    """Cumulative curves read at days after the landmark, straight inside an interval.

    Parameters
    ----------
    curve : shape (m, k)
        Values at the ends of the intervals; 0 at the landmark, constant after the last.
    days : shape (m, d) or (1, d)

    Returns
    -------
    float64, shape (m, d)
    """
    row = np.arange(len(curve))
    out = np.empty((len(curve), days.shape[1]))
    for j, day in enumerate(np.broadcast_to(days, out.shape).T):
        k = np.minimum((cells.end < day[:, None]).sum(axis=1), curve.shape[1] - 1)
        before = np.where(k > 0, curve[row, np.maximum(k - 1, 0)], 0.0)
        begin, width = cells.begin[row, k], cells.end[row, k] - cells.begin[row, k]
        part = np.clip((day - begin) / np.where(width > 0, width, 1.0), 0.0, 1.0)
        out[:, j] = before + (curve[row, k] - before) * part
    return out


@dataclass(frozen=True)
class HazardTable:
    """Shrunken hazards per (stage, time in stage, step of the grid).

    Attributes
    ----------
    stages : tuple of str
        Known stages; the row after the last one serves every other stage.
    bins : tuple of float
        Lower edges of the time-in-stage bins, days.
    chance : float64, shape (len(stages) + 1, len(bins), steps, 2)
        Chance to be won, to be lost, within one whole step.
    steps : float64, shape (steps,)
        Length of each step, days.
    """

    stages: tuple[str, ...]
    bins: tuple[float, ...]
    chance: FloatArray
    steps: FloatArray

    @classmethod
    def fit(
        cls,
        stage: tuple[npt.NDArray[np.int32], npt.NDArray[np.object_]],
        days_in_stage: FloatArray,
        cells: Cells,
        time: FloatArray,
        outcome: IntArray,
        edges: tuple[float, ...],
        *,
        chain: StageChain,
        rows_per_deal: float = 1.0,
    ) -> HazardTable:
        """Count what happened in each interval, and shrink.

        Parameters
        ----------
        stage : (codes, levels)
            Stage of each landmark, shape (m,).
        days_in_stage : shape (m,)
        time : shape (m,)
            Days from the landmark to closing, or to the last moment it was seen open.
        outcome : shape (m,)
            0 = last seen open, 1 = won, 2 = lost.
        chain : StageChain
            What the hazards of a stage lean on.
        rows_per_deal : float
            Landmarks a deal has on average: many rows of one deal are one experience.
        """
        steps = np.diff(np.array(edges))
        unit = steps[0]
        bins = tuple(float(b) for b in unit * np.array([0, 1, 2, 4, 8, 16, 32, 64]))
        codes, levels = stage
        names = tuple(sorted({str(s) for s in levels} | set(chain.names)))
        row = _stage_rows(codes, levels, names)
        column = np.searchsorted(bins, np.nan_to_num(days_in_stage), side="right") - 1
        share, label = interval_labels(cells, time, outcome)
        # A closing counts the rest of its step as at risk, also beyond a cut at a month's end, so
        # that a step never holds more closings than records at risk.
        rest = (np.array(edges)[cells.step + 1] - cells.begin) / steps[cells.step]
        part = share * (cells.end - cells.begin) / steps[cells.step]
        share = np.where(label > 0, rest, part)
        shape = (len(names) + 1, len(bins), len(steps))
        place = np.ravel_multi_index(
            (
                np.broadcast_to(row[:, None], share.shape),
                np.broadcast_to(np.maximum(column, 0)[:, None], share.shape),
                cells.step,
            ),
            shape,
        ).ravel()
        size = int(np.prod(shape))
        risk, won, lost = (
            np.asarray(np.bincount(place, part.ravel(), size), dtype=np.float64).reshape(shape)
            for part in (share, label == 1, label == 2)
        )
        events = np.stack([won, lost], axis=-1)
        known = {name: i for i, name in enumerate(chain.names)}
        rows = np.array([known.get(name, len(known)) for name in (*names, "")], dtype=np.int64)
        # A stay is a good half of the way through the bin it is found in.
        ages = np.searchsorted(AGES, 1.4 * np.array(bins), side="right") - 1
        prior = chain.hazards(np.array(edges))[rows[:, None], ages]
        return cls(names, bins, _shrink(risk, events, prior, rows_per_deal), steps)

    def chances(
        self,
        stage: tuple[npt.NDArray[np.int32], npt.NDArray[np.object_]],
        days_in_stage: FloatArray,
        cells: Cells,
    ) -> FloatArray:
        """Chance of (won, lost) in each interval given open at its start: (m, k, 2)."""
        row = _stage_rows(*stage, self.stages)
        column = np.searchsorted(self.bins, np.nan_to_num(days_in_stage), side="right") - 1
        whole = self.chance[row[:, None], np.maximum(column, 0)[:, None], cells.step]
        part = (cells.end - cells.begin) / self.steps[cells.step]
        # A part of a step under a constant hazard; the split between outcomes stays.
        closing = whole.sum(axis=2)
        closing_part = 1.0 - (1.0 - closing) ** part
        return np.asarray(whole * (closing_part / closing)[:, :, None], dtype=np.float64)

    def to_state(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "stages": list(self.stages),
            "bins": list(self.bins),
            "chance": self.chance,
            "steps": self.steps,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> HazardTable:
        """Rebuild from `to_state`."""
        return cls(
            tuple(state["stages"]), tuple(state["bins"]), np.asarray(state["chance"]),
            np.asarray(state["steps"]),
        )  # fmt: skip


def _stage_rows(
    codes: npt.NDArray[np.int32], levels: npt.NDArray[np.object_], names: tuple[str, ...]
) -> IntArray:
    place = {name: i for i, name in enumerate(names)}
    table = np.array([place.get(str(s), len(names)) for s in levels] + [len(names)], dtype=np.int64)
    return table[codes]


def _shrink(risk: FloatArray, events: FloatArray, prior: FloatArray, per_deal: float) -> FloatArray:
    """Counts -> chances: cells towards their stage, stages towards the chain."""
    # Deals, not rows, are the experience that a parent is weighed against.
    m = _PARENT_DEALS * per_deal
    due = (risk[..., None] * prior).sum(1)
    believed = m * prior.mean(1)
    stage = prior * ((events.sum(1) + believed) / (due + believed))[:, None]
    stage /= np.maximum(stage.sum(-1, keepdims=True) / 0.98, 1.0)
    cells = (events + m * stage) / (risk + m)[..., None]
    return np.asarray(np.maximum(cells, 1e-7), dtype=np.float64)
