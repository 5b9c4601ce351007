"""The benchmark of the forecast against the truth, small: the oracle is one, and ranges compare."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DEALS, DAYS, WORLDS = 1_500, 500, 4


@cache
def _load(name: str) -> ModuleType:
    """A part of the benchmarks: scripts beside each other, no package."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@cache
def told() -> list[Any]:
    """Two origins of four small companies."""
    oracle = _load("_oracle")
    oracle._LARGE, oracle._COURSES = 12_000, 16  # type: ignore[attr-defined]
    _load("_published")
    truth = _load("forecast_truth")
    truth.DRAWS, truth.RECIPE = 400, truth.Recipe(truth.FiscalCalendar(), landmarks=3_000)  # type: ignore[attr-defined]
    found: list[Any] = []
    for seed in range(WORLDS):
        found += truth.measured(seed, DEALS, DAYS, (91, 182))
    return found


def test_every_arm_forecasts_the_same_windows() -> None:
    found = told()
    truth = _load("forecast_truth")
    assert len(found) == WORLDS * 2 * 2 * len(truth.ARMS)
    for t in found:
        others = [o for o in found if (o.seed, o.weeks) == (t.seed, t.weeks)]
        assert t.actual in {o.actual for o in others if o.arm == "oracle"}
        assert t.actual > 0 and t.crps >= 0


def test_the_oracle_is_not_biased_and_independent_deals_are_too_sure() -> None:
    found = told()
    means, actual = (
        np.array([getattr(t, what) for t in found if t.arm == "oracle"])
        for what in ("mean", "actual")
    )
    # Shocks of a quarter have an SD of .25; eight quarters, the windows overlapping.
    assert abs(means.sum() / actual.sum() - 1) < 0.25
    held = {
        arm: np.mean([t.held for t in found if t.arm == arm])
        for arm in ("oracle", "dealcast", "independent")
    }
    assert held["independent"] < held["oracle"]
    assert held["independent"] < held["dealcast"]
    assert abs(held["dealcast"] - held["oracle"]) < 0.4


def test_the_report_tells_every_arm() -> None:
    lines, rows = _load("forecast_truth").report(told())
    text = "\n".join(lines)
    for arm in ("oracle", "dealcast", "independent", "past mean"):
        assert f"| {arm} |" in text
    assert len(rows) == 3 and all(np.isfinite(r.value) for r in rows)


def test_what_a_bad_week_does_not_win_is_mostly_won_later() -> None:
    oracle, truth = _load("_oracle"), _load("forecast_truth")
    crm = truth.make_history(300, 9, end=truth.END, days=300)
    at = truth.END - np.timedelta64(91, "D")
    bad = np.zeros(13)
    bad[1] = -1.0
    usual, moved = (oracle._newcomers(crm.truth, at, path).sum(0) for path in (np.zeros(13), bad))
    lost = usual - moved
    assert lost[0] == 0 and lost[1] > 0.4 * usual[1] and lost[2] < 0
    assert 0 < lost.sum() < 0.5 * lost[1]


def test_weeks_add_up_to_quarters_for_the_oracle_too() -> None:
    oracle, truth = _load("_oracle"), _load("forecast_truth")
    crm = truth.make_history(600, 9, end=truth.END, days=300)
    history = truth.History(crm.tables, [crm.facts])
    people = oracle.Population.of(truth.World(), truth.END, 300, 9)
    at = truth.END - np.timedelta64(91, "D")
    drawn = oracle.oracle_draws(crm, history, people, at, 13, 50, 1, 600.0)
    assert drawn.shape == (50, 13) and (drawn >= 0).all() and drawn.sum() > 0
