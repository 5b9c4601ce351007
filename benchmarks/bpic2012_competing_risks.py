"""BPIC 2012 as competing risks: won, declined, cancelled, or still open, at every day ahead.

The served hazards of winning and losing; a loss is split into declined and cancelled by the lead
model's learner, fitted on the lost landmarks with the day of the loss among its inputs. Beside them
the Aalen-Johansen table (its split by stage and time in stage), and SurvivalBoost of hazardous
on the same landmarks and features, in an environment of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from _public import datasets
from _published import Row, publish, table
from _won_protocol import CUTOFF, DAYS, HORIZON, RECIPE, Judged, judged, resampled

from data.history import LOST
from data.timelines import DAY
from models import measures
from models.deal import DealModel
from models.deal_arms import DealRows, take_columns
from models.encoding import Columns
from models.hazard_table import incidence
from models.lead import LeadModel
from models.stage_chain import StageChain
from training.examples import deal_rows
from training.stages import stage_exits, stage_prior

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

CAUSES = ("won", "declined", "cancelled")
TABLE, BOOST = "Aalen-Johansen by stage and time in stage", "SurvivalBoost (hazardous 0.2.0)"
_ROOT = Path(__file__).parents[1]
_PYTHON = _ROOT / ".venv-benchmarks" / "bin" / "python"
_SEEN = (7.0, 14.0, 30.0)
_BINS = np.array([0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
_LEARNT = 12_000  # landmarks: SurvivalBoost took over ten minutes for 40,000
_SPAN = 100.0  # days of history, as the served bundle has them
_CELL = 20.0  # losses of the whole that a cell of the table's split starts with


def every_third(it: Judged) -> Judged:
    """A third of the landmarks: SurvivalBoost takes minutes for all of them."""
    some = np.arange(0, len(it.rows), 3)
    return replace(it, rows=it.rows.take(some), amount=it.amount[some])


def causes(it: Judged, rows: DealRows) -> IntArray:
    """How each landmark ended: 0 open, then `CAUSES` in order; shape (m,)."""
    reason = it.history.deals.table["loss_reason"][rows.deal]
    lost = np.where(reason == "cancelled", 3, 2)
    return np.where(rows.outcome == LOST, lost, rows.outcome).astype(np.int64)


def training_rows(it: Judged) -> DealRows:
    """Landmarks to learn from: a random part of those of the served bundle, for every arm."""
    rows, _ = deal_rows(
        it.history, it.bundle.features, it.bundle.model.grid, RECIPE.calendar, -DAY, CUTOFF,
        CUTOFF, limit=_LEARNT, seed=RECIPE.seed, mask=True,
    )  # fmt: skip
    return rows


@dataclass(frozen=True)
class Arm:
    """Incidences by cause, (m, 35, 3), and the seconds of fitting and of predicting them."""

    curves: FloatArray
    seconds: tuple[float, float]


def ours(it: Judged, past: DealRows, cause: IntArray) -> tuple[Arm, Arm]:
    """The hazards with a boosted split of losses, and the table with a table of splits."""
    prior = stage_prior(it.history)
    began = time.perf_counter()
    chain = StageChain.fit(prior, stage_exits(it.history, prior, CUTOFF))
    model = DealModel.fit(
        past, it.bundle.model.grid, chain=chain, span=_SPAN, seed=RECIPE.seed, threads=1
    )
    lost = np.flatnonzero(cause >= 2)
    columns = {**take_columns(past.columns, lost), "days_ahead": past.time[lost]}
    split = LeadModel.fit(
        columns, (cause[lost] == 3).astype(float), order_time=np.zeros(len(lost)),
        groups=past.deal[lost],
    )  # fmt: skip
    fitted = time.perf_counter()
    hazards = model.hazards(it.rows.columns, it.rows.cells)
    share = _split_over_cells(split, it.rows)
    served = _by_cause(it, hazards, share)
    done = time.perf_counter()
    bare = replace(model, encoder=None, weights=np.array([1.0, 0.0, 0.0]))
    plain = bare.hazards(it.rows.columns, it.rows.cells)
    flat = np.repeat(_split_table(past, cause, it.rows)[:, None], plain.shape[1], axis=1)
    return Arm(served, (fitted - began, done - fitted)), Arm(
        _by_cause(it, plain, flat), (float("nan"), float("nan"))
    )


def _split_over_cells(split: LeadModel, rows: DealRows) -> FloatArray:
    """Chance that a loss in each interval is a cancellation, (m, k); in chunks of landmarks."""
    middle = (rows.cells.begin + rows.cells.end) / 2
    m, k = middle.shape
    found = np.empty((m, k))
    for part in np.array_split(np.arange(m), 20):
        columns: Columns = {
            **take_columns(rows.columns, np.repeat(part, k)),
            "days_ahead": middle[part].ravel(),
        }
        found[part] = split.predict(columns).reshape(len(part), k)
    return found


def _split_table(past: DealRows, cause: IntArray, rows: DealRows) -> FloatArray:
    """Share of cancellations among losses by stage and time in stage, shrunken: (m,)."""

    def place(r: DealRows) -> IntArray:
        stage, days = r.columns["stage"], r.columns["days_in_stage"]
        assert isinstance(stage, tuple) and not isinstance(days, tuple)
        names = np.append(stage[1].astype(str), "")[stage[0]]
        code = np.array([known.index(n) if n in known else len(known) for n in names.tolist()])
        column = np.searchsorted(_BINS, np.nan_to_num(days), side="right") - 1
        return np.asarray(code * len(_BINS) + np.maximum(column, 0), dtype=np.int64)

    levels = past.columns["stage"]
    assert isinstance(levels, tuple)
    known = sorted({str(s) for s in levels[1]})
    size = (len(known) + 1) * len(_BINS)
    lost = cause >= 2
    at = place(past)[lost]
    cancelled = np.bincount(at, (cause[lost] == 3).astype(float), size)
    whole = float((cause[lost] == 3).mean())
    share = (cancelled + _CELL * whole) / (np.bincount(at, minlength=size) + _CELL)
    return np.asarray(share[place(rows)], dtype=np.float64)


def _by_cause(it: Judged, hazards: FloatArray, cancelled: FloatArray) -> FloatArray:
    """Hazards of (won, lost) and the split of losses -> incidences by cause and day."""
    won, lost = hazards[:, :, 0], hazards[:, :, 1]
    parts = np.stack([won, lost * (1 - cancelled), lost * cancelled], axis=2)
    curves = incidence(parts)
    return np.stack([it.read(curves[:, :, c]) for c in range(3)], axis=2)


def survival_boost(it: Judged, past: DealRows, cause: IntArray) -> Arm | None:
    """The same landmarks and features through SurvivalBoost; None without its environment."""
    if not _PYTHON.exists():
        print(f"{_PYTHON} is not there: SurvivalBoost is left out", file=sys.stderr)
        return None
    encoder = it.bundle.model.encoder
    assert encoder is not None
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "in.npz", Path(folder) / "out.npz"
        np.savez(
            given, x=encoder.trees(past.columns), event=cause, duration=past.time,
            x_new=encoder.trees(it.rows.columns), times=DAYS,
        )  # fmt: skip
        script = Path(__file__).with_name("_survivalboost.py")
        command = [str(_PYTHON), str(script), str(given), str(found)]
        # One thread, like ours: the ratio of times is one of work.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        subprocess.run(command, check=True, env=environment)
        with np.load(found, allow_pickle=False) as read:
            curves = np.moveaxis(read["incidence"][:, 1:], 1, 2)
            seconds = read["seconds"]
    return Arm(curves, (float(seconds[0]), float(seconds[1])))


def whole_scores(it: Judged, arms: dict[str, Arm], cause: IntArray) -> list[list[object]]:
    """Integrated Brier score by cause for every arm, and their sum over causes."""
    found: list[list[object]] = []
    for name, arm in arms.items():
        scores = [
            measures.integrated_brier(arm.curves[:, :, c], DAYS, it.rows.time, cause, cause=c + 1)
            for c in range(3)
        ]
        falls = float((np.diff(arm.curves, axis=1) < -1e-9).any(axis=(1, 2)).mean())
        over = float((arm.curves.sum(axis=2) > 1 + 1e-9).any(axis=1).mean())
        found.append([name, *scores, sum(scores), f"{falls:.1%}", f"{over:.1%}"])
    return found


def reliability(it: Judged, arm: Arm, cause: IntArray) -> list[list[object]]:
    """Mean incidence and what happened by cause and horizon, with the clustered slope."""
    found: list[list[object]] = []
    for c, name in enumerate(CAUSES):
        for days in _SEEN:
            p = np.clip(arm.curves[:, int(days) - 1, c], 1e-6, 1 - 1e-6)
            y = ((cause == c + 1) & (it.rows.time <= days)).astype(np.float64)
            line = measures.calibration_slope_intercept(p, y, groups=it.rows.deal)
            slope = f"{line.slope:.2f} ± {1.96 * line.slope_error:.2f}"
            found.append([name, f"{days:g}", float(p.mean()), float(y.mean()), slope])
    return found


def gains(
    it: Judged, arms: dict[str, Arm], cause: IntArray
) -> dict[str, tuple[float, float, float]]:
    """By how much the served sum of Brier scores, mean over days, is below each other arm's."""

    def losses(arm: Arm) -> FloatArray:
        happened = (it.rows.time[:, None] <= DAYS)[:, :, None] & (
            cause[:, None, None] == np.arange(1, 4)
        )
        return np.asarray(((arm.curves - happened) ** 2).sum(axis=2).mean(axis=1))

    own, found = losses(arms["served"]), {}
    for name in [n for n in arms if n != "served"]:
        more = losses(arms[name]) - own
        low, high = resampled(partial(_average, more), it.rows.deal)
        found[name] = (float(more.mean()), low, high)
    return found


def _average(values: FloatArray, weight: FloatArray) -> float:
    return float(np.average(values, weights=weight))


def told(
    it: Judged, arms: dict[str, Arm], scores: Sequence[Sequence[object]], cause: IntArray,
    better: dict[str, tuple[float, float, float]],
) -> list[str]:  # fmt: skip
    """The section."""
    lines = [
        f"Trained as of 2012-01-09 on {_LEARNT:,} landmarks, the same for all; judged on every "
        f"third of the later ones, {len(it.rows):,}; days 1 to {HORIZON:g} ahead.",
        "",
        *table(["integrated Brier", *CAUSES, "sum", "curves that fall", "sum above 1"], scores),
        "",
        "Served better by (sum, mean over days, deals drawn anew): "
        + "; ".join(f"{n} {g:.4f} ({a:.4f} to {b:.4f})" for n, (g, a, b) in better.items())
        + ".",
    ]
    if BOOST in arms:
        mine, other = arms["served"].seconds, arms[BOOST].seconds
        lines += [
            "",
            f"Time of SurvivalBoost / ours, one thread each: fit {other[0] / mine[0]:.1f}, predict "
            f"{other[1] / mine[1]:.1f}, both {sum(other) / sum(mine):.1f}.",
        ]
    head = ["cause", "days", "mean incidence", "happened", "calibration slope, 95 %"]
    return [*lines, "", *table(head, reliability(it, arms["served"], cause))]


def main() -> None:
    """Measure and publish."""
    folder = datasets()
    if folder is None:
        return
    it = every_third(judged(folder))
    past = training_rows(it)
    before, cause = causes(it, past), causes(it, it.rows)
    print("our hazards ...", file=sys.stderr)
    served, plain = ours(it, past, before)
    print("SurvivalBoost ...", file=sys.stderr)
    rival = survival_boost(it, past, before)
    arms = {TABLE: plain, **({} if rival is None else {BOOST: rival}), "served": served}
    scores, better = whole_scores(it, arms, cause), gains(it, arms, cause)
    n, by_name = len(cause), {str(s[0]): s for s in scores}
    rows = []
    for c, name in enumerate(CAUSES):
        for other in [a for a in arms if a != "served"]:
            rows.append(
                Row(
                    f"BPIC 2012, {name}, competing risks: served", "integrated Brier, 1-35 days",
                    float(str(by_name["served"][c + 1])), float(str(by_name[other][c + 1])),
                    f"{other}, same run", n,
                )
            )  # fmt: skip
    publish(
        __file__, "BPIC 2012: won, declined, cancelled or open",
        told(it, arms, scores, cause, better), rows, seed=RECIPE.seed,
    )  # fmt: skip


if __name__ == "__main__":
    main()
