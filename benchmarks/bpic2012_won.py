"""BPIC 2012: P(won within 35 days) of open deals, every arm, the served model last."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
from _public import datasets
from _published import Row, publish, table
from _won_protocol import CUTOFF, DAYS, HORIZON, RECIPE, Judged, judged, resampled

from data.history import WON
from data.timelines import DAY
from models import measures
from models.deal import DealModel
from models.encoding import TableEncoder
from models.hazard_table import incidence
from training.evaluation import stage_rate
from training.examples import deal_rows

FloatArray = npt.NDArray[np.float64]

TABLE = "Aalen-Johansen table, stage x time in stage"
_PROTOTYPE = "prototype, hazard LightGBM, all rows"
_LEVELS = (1.0, 7.0, 14.0, 28.0)


def hazard_arms(it: Judged) -> dict[str, FloatArray]:
    """Curves of winning by the end of each day, (m, 35), by arm; the served model last."""
    model, rows = it.bundle.model, it.rows
    plain = replace(model, correction=np.ones_like(model.correction))
    bare = replace(plain, encoder=None, weights=np.array([1.0, 0.0, 0.0]))
    arms: dict[str, DealModel] = {
        TABLE: bare,
        "hazard ridge": replace(plain, weights=np.array([0.0, 1.0, 0.0])),
        "hazard LightGBM": replace(plain, weights=np.array([0.0, 0.0, 1.0])),
        "served": model,
    }
    found = {}
    for name, arm in arms.items():
        print(f"{name} ...", file=sys.stderr)
        found[name] = it.read(incidence(arm.hazards(rows.columns, rows.cells))[:, :, 0])
    return found


def direct(it: Judged) -> FloatArray:
    """A boosted classifier of the 35-day outcome, on landmarks whose 35 days were over: (m,)."""
    stop = CUTOFF - int(HORIZON * DAY)
    rows, _ = deal_rows(
        it.history, it.bundle.features, it.bundle.model.grid, RECIPE.calendar, -DAY, stop, CUTOFF,
        limit=RECIPE.landmarks,
    )  # fmt: skip
    y = (rows.outcome == WON) & (rows.time <= HORIZON)
    encoder = TableEncoder.fit(rows.columns)
    data = lgb.Dataset(
        encoder.trees(rows.columns), y, categorical_feature=list(encoder.categorical)
    )
    parameters = {
        "objective": "binary", "num_leaves": 15, "learning_rate": 0.05, "min_data_in_leaf": 150,
        "lambda_l2": 5.0, "deterministic": True, "num_threads": 1, "verbosity": -1,
    }  # fmt: skip
    booster = lgb.train(parameters, data, num_boost_round=150)
    return np.asarray(booster.predict(encoder.trees(it.rows.columns)), dtype=np.float64)


def levels(it: Judged, curve: FloatArray) -> list[list[object]]:
    """Predicted / actual wins and won value by lead time, with clustered intervals."""
    found: list[list[object]] = []
    for days in _LEVELS:
        line: list[object] = [f"{days:g} days"]
        for worth in (np.ones(len(it.rows)), it.amount):
            said, came = worth * curve[:, int(days) - 1], worth * it.won_by(days)
            low, high = resampled(partial(_ratio, said, came), it.rows.deal)
            line += [f"{said.sum() / came.sum():.3f}", f"{low:.2f} to {high:.2f}"]
        found.append(line)
    return found


def _ratio(said: FloatArray, came: FloatArray, w: FloatArray) -> float:
    return float((w * said).sum() / (w * came).sum())


def _losses(p: FloatArray, y: FloatArray) -> FloatArray:
    return np.asarray(-(y * np.log(p) + (1 - y) * np.log1p(-p)), dtype=np.float64)


def _mean_loss(losses: FloatArray, w: FloatArray) -> float:
    return float(np.average(losses, weights=w))


def arm_table(it: Judged, at_horizon: dict[str, FloatArray], whole: dict[str, float]) -> list[str]:
    """Every arm: probabilities at the horizon, and the integrated Brier score of the curves."""
    y = it.won
    cells = [
        [
            name, measures.log_loss(np.clip(p, 1e-6, 1 - 1e-6), y), measures.brier(p, y),
            whole.get(name), measures.auc(p, y), float(p.mean()),
        ]
        for name, p in at_horizon.items()
    ]  # fmt: skip
    return table(["arm", "log loss", "Brier", "integrated Brier 1-35 d", "AUC", "mean p"], cells)


def main() -> None:
    """Measure and publish."""
    folder = datasets()
    if folder is None:
        return
    it = judged(folder)
    y, rows = it.won, it.rows
    curves = hazard_arms(it)
    at_horizon = {
        "CRM-style stage rate, per deal": stage_rate(it.bundle, rows),
        "direct boosted classifier": direct(it),
        **{name: curve[:, -1] for name, curve in curves.items()},
    }
    # The log ends after the last landmark's 35 days: nothing is censored before.
    whole = {
        name: measures.integrated_brier(curve, DAYS, rows.time, rows.outcome)
        for name, curve in curves.items()
    }
    p = at_horizon["served"]
    losses = _losses(p, y)
    more = _losses(at_horizon[TABLE], y) - losses
    interval = resampled(partial(_mean_loss, losses), rows.deal)
    gain = resampled(partial(_mean_loss, more), rows.deal)
    lines = [
        f"Trained as of 2012-01-09; n = {len(y):,} landmarks of {len(np.unique(rows.deal)):,} "
        f"deals, base rate {y.mean():.4f}; {it.bundle.model.won:,} won deals learnt from.",
        "",
        *arm_table(it, at_horizon, whole),
        "",
        f"Served log loss {losses.mean():.4f} (95 % {interval[0]:.3f} to {interval[1]:.3f}); "
        f"better than the table by {more.mean():.4f} ({gain[0]:.4f} to {gain[1]:.4f}). Intervals: "
        "deals drawn anew with all their landmarks.",
        "",
        "Predicted / actual of the served model:",
        "",
        *table(["lead time", "wins", "95 %", "value", "95 %"], levels(it, curves["served"])),
    ]
    name, n = "BPIC 2012, won within 35 days: served", len(y)
    publish(__file__, "BPIC 2012: won within 35 days", lines, [
        Row(name, "log loss", float(losses.mean()), 0.5148, _PROTOTYPE, n, interval),
        Row(name, "integrated Brier, 1-35 days", whole["served"], 0.1275, _PROTOTYPE, n),
        Row(name, "AUC", measures.auc(p, y), 0.777, _PROTOTYPE, n),
        Row(name, "log loss gained on the table", float(more.mean()), 0.0, "same run", n, gain),
    ], seed=RECIPE.seed)  # fmt: skip


if __name__ == "__main__":
    main()
