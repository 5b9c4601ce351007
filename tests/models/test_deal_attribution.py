"""Contributions to a deal's log-odds: exact, from its stage's average on, the same bits alone."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from models import deal_attribution
from models.calibration import logit
from models.deal import DealModel, DealRows
from models.deal_arms import AHEAD, take_columns
from models.deal_attribution import DealAttribution
from models.hazard_table import incidence
from tests.models.test_deal import GRID, fitted, world

FloatArray = npt.NDArray[np.float64]


def attribution(model: DealModel, reference: DealRows | None = None) -> DealAttribution:
    rows = reference or world(160, 31)
    return DealAttribution.of(model, rows.columns, rows.cells)


@cache
def served() -> tuple[DealModel, DealAttribution]:
    """All arms, recalibrated."""
    model = fitted().calibrate(world(500, 5, lost=0.08))
    return model, attribution(model)


@cache
def few() -> tuple[DealModel, DealAttribution]:
    """The table alone."""
    model = DealModel.fit(world(60, 2), GRID)
    return model, attribution(model)


def log_odds(model: DealModel, rows: DealRows) -> FloatArray:
    return logit(incidence(model.hazards(rows.columns, rows.cells))[:, -1, 0])


def test_contributions_add_up_to_what_is_served() -> None:
    rows = world(400, 32)
    for model, mine in (served(), few()):
        base, parts = mine.contributions(rows.columns, rows.cells)
        rest = log_odds(model, rows) - base - parts.sum(axis=1)
        assert np.quantile(np.abs(rest), 0.9) < 1e-9 and np.abs(rest).max() < 1e-5
        assert parts.shape == (400, len(mine.names)) and mine.names[-1] == AHEAD
        assert (np.abs(parts).sum(axis=1) > 1e-4).all()


def test_the_base_is_the_mean_log_odds_of_the_stage() -> None:
    rows = world(160, 31)
    for model, mine in (served(), few()):
        base, parts = mine.contributions(rows.columns, rows.cells)
        assert set(mine.stages) == {"new", "offer"}
        of_stage = rows.columns["stage"][0]
        for code in (0, 1):
            own = np.flatnonzero(of_stage == code)
            assert len(set(base[own].tolist())) == 1
            assert base[own[0]] == pytest.approx(log_odds(model, rows)[own].mean(), abs=1e-9)
            np.testing.assert_allclose(parts[own].mean(axis=0), 0.0, atol=1e-12)
        assert mine.starts[0].base < mine.starts[1].base  # offers are won more often


def test_what_matters_contributes_most_and_in_the_right_direction() -> None:
    rows = world(400, 33)
    _, mine = served()
    _, parts = mine.contributions(rows.columns, rows.cells)
    size = dict(zip(mine.names, np.abs(parts).mean(axis=0), strict=True))
    assert size["x"] > 3 * max(v for name, v in size.items() if name != "x")
    assert size["stage"] < 0.05 * size["x"]  # the stage is the base
    x, known = rows.columns["x"], ~np.isnan(rows.columns["x"])
    assert np.corrcoef(x[known], parts[known, mine.names.index("x")])[0, 1] > 0.9


def test_few_deals_are_told_their_time_in_the_stage_and_the_calendar() -> None:
    rows, (_, mine) = world(100, 34), few()
    _, parts = mine.contributions(rows.columns, rows.cells)
    assert mine.names == ("stage", "days_in_stage", AHEAD) and mine.forest is None
    assert (parts[:, 0] == 0).all() and np.abs(parts[:, 1]).max() > 0.01


def test_one_record_and_a_batch_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = world(41, 35)
    for _, mine in (served(), few()):
        base, parts = mine.contributions(rows.columns, rows.cells)
        for i in range(41):
            one = rows.take(np.array([i]))
            alone = mine.contributions(one.columns, one.cells)
            assert alone[0][0] == base[i] and alone[1][0].tobytes() == parts[i].tobytes()
        with monkeypatch.context() as patch:
            patch.setattr(deal_attribution, "_INTERVALS", 200)
            patch.setattr(deal_attribution, "_LEAVES", 40_000)
            again = mine.contributions(rows.columns, rows.cells)
        assert again[1].tobytes() == parts.tobytes()


def test_a_stage_that_is_new_or_rare_starts_from_all_records() -> None:
    reference = world(160, 31)
    codes, levels = reference.columns["stage"]
    offers = np.flatnonzero(codes == 1)
    some = np.concatenate([np.flatnonzero(codes == 0), offers[:4]])
    model, _ = served()
    mine = attribution(model, reference.take(some))
    assert mine.stages == ("new",)
    rows = world(30, 36)
    for stage in (np.array(["renamed", "offer"], object), levels):
        for given in (codes[:30], np.full(30, -1, dtype=np.int32)):
            columns = dict(rows.columns) | {"stage": (given, stage)}
            changed = replace(rows, columns=columns)
            base, parts = mine.contributions(columns, rows.cells)
            start = mine.start_of(columns)
            assert ((start == 1) == (base == mine.starts[1].base)).all() and (start == 1).any()
            rest = log_odds(model, changed) - base - parts.sum(axis=1)
            assert np.abs(rest).max() < 1e-9
            told = np.abs(parts[start == 1][:, mine.names.index("stage")])
            assert told.max() > 0.01


def test_missing_values_and_absent_columns_have_contributions_too() -> None:
    rows = world(20, 37)
    model, mine = served()
    nothing: dict[str, Any] = {
        "x": np.full(20, np.nan),
        "source": (np.full(20, -1, np.int32), rows.columns["source"][1]),
        "days_in_stage": np.full(20, np.nan),
        "days_to_expected_close": np.full(20, np.nan),
    }
    changed = replace(rows, columns=dict(rows.columns) | nothing)
    base, parts = mine.contributions(changed.columns, rows.cells)
    assert np.isfinite(parts).all()
    np.testing.assert_allclose(base + parts.sum(axis=1), log_odds(model, changed), atol=1e-9)
    assert np.abs(parts[:, mine.names.index("x")]).max() > 0


def test_one_reference_record_is_enough_and_no_record_gives_nothing() -> None:
    model, _ = served()
    mine = attribution(model, world(160, 31).take(np.array([3])))
    rows = world(10, 38)
    base, parts = mine.contributions(rows.columns, rows.cells)
    np.testing.assert_allclose(base + parts.sum(axis=1), log_odds(model, rows), atol=1e-9)
    none = rows.take(np.zeros(0, dtype=np.int64))
    base, parts = mine.contributions(take_columns(none.columns, np.arange(0)), none.cells)
    assert base.shape == (0,) and parts.shape == (0, len(mine.names))
