"""The deal model: hazards that chain, blend and recalibrate, the same bits one by one."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from models import bundle, deal
from models.deal import DealModel, DealRows, arm_weights
from models.deal_arms import calendar_columns, sample_intervals, take_columns
from models.grid import CALENDAR_COLUMNS, HazardGrid
from models.hazard_table import interval_labels
from models.stage_chain import Exits, StageChain, StagePrior

FloatArray = npt.NDArray[np.float64]
GRID = HazardGrid.for_durations(20.0, 60.0)
STAGES = np.array(["new", "offer"], dtype=object)
START = 19_700.0


def world(n: int, seed: int, lost: float = 0.04) -> DealRows:
    """One landmark a deal: 3 % won a day, more with a high `x`, twice as much at the offer."""
    rng = np.random.default_rng(seed)
    stage, x = rng.integers(0, 2, n).astype(np.int32), rng.normal(size=n)
    won = 0.03 * np.exp(0.8 * x) * (1 + stage)
    time = rng.exponential(1 / (won + lost))
    outcome = np.where(rng.random(n) < won / (won + lost), 1, 2)
    seen = rng.uniform(5, 80, n)
    x[rng.random(n) < 0.05] = np.nan
    columns: dict[str, Any] = {
        "stage": (stage, STAGES),
        "days_in_stage": rng.exponential(10, n),
        "x": x,
        "source": (rng.integers(-1, 2, n).astype(np.int32), np.array(["web", "fair"], object)),
        "days_to_expected_close": np.where(rng.random(n) < 0.3, np.nan, rng.normal(30, 20, n)),
    }
    return DealRows(
        columns,
        GRID.cells(START + rng.uniform(0, 100, n)),
        np.minimum(time, seen),
        np.where(time <= seen, outcome, 0),
        np.arange(n),
    )


@cache
def fitted(n: int = 900) -> DealModel:
    chain = StageChain.fit(StagePrior.of({"new": 0.2, "offer": 0.5}), Exits.none())
    return DealModel.fit(world(n, 1), GRID, span=300.0, chain=chain)


def test_arm_weights_are_continuous_and_sum_to_one() -> None:
    weights = np.array([arm_weights(n) for n in range(0, 2000)])
    np.testing.assert_allclose(weights.sum(1), 1.0)
    assert (weights >= 0).all()
    assert np.abs(np.diff(weights, axis=0)).max() < 0.02
    np.testing.assert_array_equal(weights[60], [1, 0, 0])
    np.testing.assert_allclose(weights[200], 1 / 3)
    np.testing.assert_allclose(weights[700:], [[0.2, 0.4, 0.4]] * 1300)


def test_many_landmarks_of_a_deal_weigh_as_one() -> None:
    rows = world(200, 3)
    twice = rows.take(np.repeat(np.arange(len(rows)), 2))
    once, doubled = (sample_intervals(r, np.random.default_rng(0)) for r in (rows, twice))
    closings = [s.weight[s.label > 0].sum() for s in (once, doubled)]
    assert closings[0] == pytest.approx(closings[1])
    deals_a_row = len(np.unique(rows.deal)) / len(rows)
    np.testing.assert_allclose(once.weight[once.label > 0], deals_a_row)


def test_the_calendar_is_learnt_once_it_came_around() -> None:
    assert calendar_columns(30.0) == ("weekday_share",)
    assert calendar_columns(800.0) == CALENDAR_COLUMNS
    assert "season_sin" not in calendar_columns(500.0)


def test_the_method_follows_the_number_of_wins() -> None:
    few = DealModel.fit(world(60, 2), GRID)
    assert (few.encoder, few.ridge, few.trees) == (None, None, None) and few.won <= 60
    assert fitted().encoder is not None and fitted().trees is not None
    assert fitted().won == world(900, 1).won_deals > 200


def test_the_model_finds_what_drives_winning() -> None:
    rows = world(1500, 7)
    curve = fitted().incidence(rows.columns, rows.cells)
    assert (np.diff(curve, axis=1) >= 0).all() and curve.sum(2).max() <= 1 + 1e-12
    x, (stage, _) = np.asarray(rows.columns["x"], np.float64), rows.columns["stage"]
    won = 0.03 * np.exp(0.8 * np.nan_to_num(x)) * (1 + stage)
    last = rows.cells.end[:, -1]
    truth = won / (won + 0.04) * -np.expm1(-(won + 0.04) * last)
    p, known = curve[:, -1, 0], ~np.isnan(x)
    assert abs(p.mean() - truth.mean()) < 0.04
    assert np.corrcoef(p[known], truth[known])[0, 1] > 0.9
    table = replace(fitted(), weights=np.array([1.0, 0, 0])).incidence(rows.columns, rows.cells)

    def error(values: FloatArray) -> float:
        return float(np.mean((values - truth)[known] ** 2))

    assert error(p) < 0.5 * error(table[:, -1, 0])


def test_one_row_and_a_batch_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = world(61, 3)
    for model in (fitted(), DealModel.fit(world(60, 2), GRID)):
        batch = model.hazards(rows.columns, rows.cells)
        for i in range(len(rows)):
            one = rows.take(np.array([i]))
            assert model.hazards(one.columns, one.cells).tobytes() == batch[i].tobytes()
        for some in (slice(0, 2), slice(5, 12), slice(0, 60)):
            part = rows.take(np.arange(61)[some])
            assert model.hazards(part.columns, part.cells).tobytes() == batch[some].tobytes()
        with monkeypatch.context() as patch:
            patch.setattr(deal, "_CHUNK_ROWS", 100)
            assert model.hazards(rows.columns, rows.cells).tobytes() == batch.tobytes()


def test_a_saved_model_predicts_the_same_bits(tmp_path: Path) -> None:
    rows = world(200, 4)
    calibrated = fitted().calibrate(world(500, 5))
    for i, model in enumerate((calibrated, DealModel.fit(world(60, 2), GRID))):
        bundle.save(tmp_path / str(i), model.to_state())
        again = DealModel.from_state(bundle.load(tmp_path / str(i)))
        assert (
            again.hazards(rows.columns, rows.cells).tobytes()
            == model.hazards(rows.columns, rows.cells).tobytes()
        )
        assert (again.grid, again.calendar, again.won, again.closed) == (
            model.grid, model.calendar, model.won, model.closed,
        )  # fmt: skip


def test_no_rows_give_no_hazards() -> None:
    rows = world(5, 3).take(np.zeros(0, dtype=np.int64))
    assert fitted().hazards(rows.columns, rows.cells).shape == (0, rows.cells.begin.shape[1], 2)


def test_hazards_are_chances_and_vanish_in_intervals_of_no_length() -> None:
    rows = world(400, 8)
    extreme = replace(fitted(), correction=np.full_like(fitted().correction, 200.0))
    for model in (fitted(), extreme):
        hazards = model.hazards(rows.columns, rows.cells)
        assert (hazards >= 0).all() and hazards.sum(2).max() <= 1.0
        empty = rows.cells.end <= rows.cells.begin
        assert empty.any() and (hazards[empty] == 0).all()
        assert model.incidence(rows.columns, rows.cells).sum(2).max() <= 1 + 1e-12


def test_unknown_stages_and_levels_are_answered() -> None:
    rows = world(4, 9)
    codes = np.array([0, 0, -1, -1], dtype=np.int32)
    columns = dict(rows.columns) | {
        "stage": (codes, np.array(["renamed"], dtype=object)),
        "source": (codes, np.array(["carrier pigeon"], dtype=object)),
        "x": np.full(4, np.nan),
    }
    hazards = fitted().hazards(columns, rows.cells)
    assert np.isfinite(hazards).all() and (hazards.sum((1, 2)) > 0).all()


def test_an_outcome_that_never_occurred_stays_unlikely() -> None:
    rows = world(700, 10)
    only_won = replace(rows, outcome=np.minimum(rows.outcome, 1) * (rows.outcome == 1))
    model = DealModel.fit(only_won, GRID)
    assert model.trees is not None
    curve = model.incidence(rows.columns, rows.cells)[:, -1]
    assert curve[:, 1].mean() < 0.05 < curve[:, 0].mean()


def test_sampling_looks_at_nothing_but_the_label() -> None:
    rows = world(2000, 11)
    sample = sample_intervals(rows, np.random.default_rng(0))
    assert set(sample.weight[sample.label > 0]) == {1.0}
    assert set(sample.weight[sample.label == 0]) == {5.0}
    assert (sample.label > 0).sum() == ((rows.outcome > 0) & (rows.time < GRID.t_max)).sum()
    for closed in (True, False):  # deals that will close, and those that will not, alike
        mine = (rows.outcome > 0) == closed
        kept = np.bincount(sample.row[sample.label == 0], minlength=2000)[mine].sum()
        share, label = interval_labels(rows.cells, rows.time, rows.outcome)
        there = ((share > 0) & (label == 0))[mine].sum()
        assert kept / there == pytest.approx(0.2, abs=0.01)


def test_calibration_shrinks_and_keeps_chances() -> None:
    model = fitted()
    nothing = model.calibrate(world(3, 12).take(np.zeros(0, dtype=np.int64)))
    np.testing.assert_allclose(nothing.correction, 1.0)
    # A world in which deals are lost twice as fast as the model was taught.
    few, some, many = (model.calibrate(world(n, 13, lost=0.08)) for n in (3, 20, 5000))
    assert 1.0 < few.correction[:2, :, 1].mean() < some.correction[:2, :, 1].mean() < 1.6
    assert few.correction[:2].max() < 1.3
    assert many.correction[:2, 0, 1] == pytest.approx(2.0, abs=0.4)
    assert many.correction[:2, 0, 0] == pytest.approx(1.0, abs=0.3)
    assert many.correction.max() <= 2.0 and many.correction.min() >= 0.5
    rows = world(1500, 14, lost=0.08)
    hazards = many.hazards(rows.columns, rows.cells)
    assert hazards.sum(2).max() <= 1
    lost = (rows.outcome == 2).mean()
    share, _ = interval_labels(rows.cells, rows.time, rows.outcome)

    def due(m: DealModel) -> float:
        return float((share * m.hazards(rows.columns, rows.cells)[:, :, 1]).sum() / len(rows))

    assert abs(due(many) - lost) < 0.3 * abs(due(model) - lost)


def test_many_landmarks_of_one_deal_calibrate_like_one() -> None:
    rows = world(40, 13, lost=0.08)
    copies = rows.take(np.repeat(np.arange(40), 50))
    np.testing.assert_allclose(
        fitted().calibrate(copies).correction, fitted().calibrate(rows).correction, rtol=1e-9
    )


def test_a_correction_is_handed_on_stage_by_stage() -> None:
    donor = fitted().calibrate(world(3000, 13, lost=0.08))
    names = np.array(["offer", "brand new"], dtype=object)
    rows = world(60, 15)
    other = replace(rows, columns=dict(rows.columns) | {"stage": (rows.columns["stage"][0], names)})
    receiver = DealModel.fit(other, GRID).corrected_like(donor)
    assert receiver.table.stages == ("brand new", "offer")
    offer, rest = donor.table.stages.index("offer"), len(donor.table.stages)
    np.testing.assert_array_equal(receiver.correction, donor.correction[[rest, offer, rest]])


def test_taking_rows_keeps_levels() -> None:
    columns = take_columns(world(5, 1).columns, np.array([4, 0]))
    assert columns["stage"][1] is STAGES and len(columns["x"]) == 2
