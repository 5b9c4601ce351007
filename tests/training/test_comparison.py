"""Measures with their uncertainty, and methods held against each other on the same forecasts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.backtest import EACH, METHODS
from training.comparison import PIT_BINS, compare, pit_histogram
from training.replayed import QUANTILES, Issued
from training.rivals import RIVALS

GUIDE = Path(__file__).parents[2] / "docs" / "backtest.md"
FIRST = np.datetime64("2024-01-01", "us")


def issued(week: int, draws: Any, actual: float, **fields: Any) -> Issued:
    where = {"origin": FIRST + np.timedelta64(7 * week, "D"), "horizon": 7.0, "group": "all",
             "method": "dealcast", "window": "7 days"}  # fmt: skip
    return Issued.of(np.asarray(draws, dtype=np.float64), actual, {}, **where | fields)


def replay(n: int, spread: float, seed: int = 0, **fields: Any) -> list[Issued]:
    """Forecasts whose law is normal about 100; the truth's spread is 10."""
    rng = np.random.default_rng(seed)
    truth = 100 + 10 * rng.standard_normal(n)
    draws = 100 + spread * np.random.default_rng(9).standard_normal(2000)
    return [issued(week, draws, float(t), **fields) for week, t in enumerate(truth)]


def row(table: list[dict[str, Any]], method: str = "dealcast") -> dict[str, Any]:
    return next(r for r in table if r["method"] == method and r["window"] is None)


def test_a_right_forecast_has_the_measures_it_should() -> None:
    found = row(compare(replay(400, 10.0)))
    # A normal forecast that is right: CRPS = SD / sqrt(pi).
    assert found["crps"] == pytest.approx(10 / np.sqrt(np.pi) / 100, rel=0.05)
    assert found["wape"] == pytest.approx(0.1 * np.sqrt(2 / np.pi), rel=0.1)
    assert abs(found["bias"]) < 0.01
    for level in ("0.5", "0.8", "0.95"):
        bounds = found["interval"]["coverage"][level]
        assert bounds["low"] < float(level) < bounds["high"]
        assert bounds["high"] - bounds["low"] < 0.12
    assert found["interval"]["crps"]["low"] < found["crps"] < found["interval"]["crps"]["high"]
    assert sum(found["pit"]) == 400 and min(found["pit"]) > 20


def test_the_pinball_loss_is_that_of_the_quantiles() -> None:
    one = issued(0, np.linspace(0, 100, 1001), 30.0)
    losses = [(30 - 100 * q) * (q - (100 * q > 30)) for q in QUANTILES]
    assert one.pinball == pytest.approx(np.mean(losses))
    assert row(compare([one]))["pinball"] == pytest.approx(np.mean(losses) / 30)


def test_ranges_too_narrow_show_in_coverage_and_histogram() -> None:
    found = row(compare(replay(200, 3.0)))
    assert found["interval"]["coverage"]["0.8"]["high"] < 0.8
    assert found["pit"][0] + found["pit"][-1] > 100


def test_overlap_makes_everything_less_certain() -> None:
    short, long = (row(compare(replay(60, 10.0, horizon=h))) for h in (7.0, 91.0))
    assert short["crps"] == long["crps"]
    assert short["blocks"] == 60 and long["blocks"] == pytest.approx(60 / 13)
    for level in ("0.8", "0.95"):
        wide, narrow = (r["interval"]["coverage"][level] for r in (long, short))
        assert wide["high"] - wide["low"] >= narrow["high"] - narrow["low"]


def test_methods_are_compared_on_the_forecasts_that_both_made() -> None:
    ours = replay(40, 10.0)
    theirs = [issued(w, np.full(10, 100.0), i.actual, method="growth")
              for w, i in enumerate(ours)]  # fmt: skip
    every = row(compare([*ours, *theirs]), "growth")["against"]
    # A number against the right distribution: mean absolute error over CRPS is sqrt(2).
    assert every["value"] == pytest.approx(1 / np.sqrt(2) - 1, abs=0.08)
    assert every["low"] < every["value"] < every["high"] < 0 and every["n"] == 40
    few = row(compare([*ours, *theirs[:7]]), "growth")["against"]
    assert few["n"] == 7
    expected = sum(i.crps for i in ours[:7]) / sum(i.crps for i in theirs[:7]) - 1
    assert few["value"] == pytest.approx(expected)
    assert row(compare([*ours, *theirs]))["against"] is None
    assert row(compare(theirs), "growth")["against"] is None


def test_only_the_whole_can_be_asked_for() -> None:
    two = [
        issued(w, [1.0, 2.0], 1.0, window=f"{d} days", horizon=d) for w in (0, 1) for d in (7, 9)
    ]
    every = compare(two)
    assert [r["window"] for r in every] == ["7 days", "9 days", None]
    together = compare(two, together=True)
    assert len(together) == 1 and together[0] == every[2]


def test_pairs_are_surer_than_the_figures_themselves() -> None:
    """Both methods have good and bad weeks together; their ratio hardly moves."""
    rng = np.random.default_rng(1)
    size = np.exp(rng.standard_normal(60))
    ours = [issued(w, [100 - s, 100 + s], 100 + 3 * s) for w, s in enumerate(size)]
    theirs = [issued(w, [100 - s, 100 + s], 100 + 3 * s, method="growth")
              for w, s in enumerate(size)]  # fmt: skip
    table = compare([*ours, *theirs])
    own = row(table)["interval"]["crps"]
    assert own["high"] > 1.3 * own["low"]
    against = row(table, "growth")["against"]
    assert (against["low"], against["high"]) == pytest.approx((0.0, 0.0), abs=1e-12)


def test_groups_are_judged_alone_or_pooled() -> None:
    found = [issued(w, [90.0, 110.0], 100.0 * g, group=str(g)) for w in range(5) for g in (1, 2)]
    found += [issued(w, [190.0, 210.0], 300.0) for w in range(5)]
    assert row(compare(found))["n"] == 5 and row(compare(found, "1"))["mean_actual"] == 100
    pooled = row(compare(found, EACH))
    assert pooled["n"] == 10 and pooled["mean_actual"] == 150
    assert pooled["blocks"] == 5  # two groups of one origin are not two experiences


def test_a_number_is_no_range() -> None:
    points = [issued(w, [7.0, 7.0], 7.0, method="commit", ranged=False) for w in range(3)]
    found = row(compare(points), "commit")
    assert found["coverage"] is None and found["width"] is None and found["ranged"] == 0
    assert found["interval"]["coverage"] is None and found["pit"] == [0] * PIT_BINS
    assert found["crps"] == 0.0


def test_ties_fall_in_the_middle_of_what_they_tie_with() -> None:
    assert issued(0, [1.0, 1.0, 1.0, 1.0], 1.0).pit == 0.5
    assert issued(0, [0.0, 0.0, 1.0, 2.0], 0.0).pit == 0.25
    assert pit_histogram([issued(0, [1.0], 9.0)]) == [0] * (PIT_BINS - 1) + [1]


def test_the_guide_runs_and_names_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), flags=re.DOTALL)
    exec(compile(block, str(GUIDE), "exec"), {})
    assert capsys.readouterr().out.startswith("dealcast 2 ")
    rows = re.findall(r"^\| ([a-zA-Z' -]+?) \|", GUIDE.read_text("utf-8"), flags=re.MULTILINE)
    assert [r for r in rows if r not in ("method", "---")] == list(RIVALS)


def test_every_method_of_a_back_test_has_its_place() -> None:
    found = [issued(0, [1.0, 2.0], 1.0, method=m) for m in METHODS]
    assert [r["method"] for r in compare(found) if r["window"] is None] == list(METHODS)
