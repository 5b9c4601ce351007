"""Evaluation: the right rows, proper figures, differences with their noise."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

from data.timelines import DAY
from models import measures
from models.hazard_table import incidence
from tests import worlds
from training.evaluation import Evaluation, evaluate_deals, evaluate_leads, plain
from training.examples import deal_rows

HORIZON = 20.0


@cache
def judged() -> Evaluation:
    end = worlds.company().observed_until
    found = evaluate_deals(worlds.company(), worlds.deals(), worlds.cut(), end, end, HORIZON)
    assert found is not None
    return found


def test_landmarks_lie_after_the_cut_and_have_matured() -> None:
    crm, bundle, end = worlds.company(), worlds.deals(), worlds.company().observed_until
    assert judged().start == f"{worlds.cut_time().astype('datetime64[s]')}Z"
    last = np.datetime64(end - int(HORIZON * DAY), "us").astype("datetime64[s]")
    assert judged().stop == f"{last}Z"
    rows, snapshot = deal_rows(
        crm, bundle.features, bundle.model.grid, bundle.calendar, worlds.cut(),
        end - int(HORIZON * DAY), end, entry=False,
    )  # fmt: skip
    assert judged().n == len(rows) and judged().records == len(np.unique(rows.deal))
    assert snapshot.at.min() >= worlds.cut() and snapshot.at.max() + HORIZON * DAY < end
    y = (rows.outcome == 1) & (rows.time <= HORIZON)
    assert judged().events == y.sum() and judged().base_rate == pytest.approx(y.mean())


def test_the_arms_are_what_they_say() -> None:
    names = [a["name"] for a in judged().arms]
    assert names == ["served", "Aalen-Johansen table", "stage rate"]
    crm, bundle, end = worlds.company(), worlds.deals(), worlds.company().observed_until
    rows, _ = deal_rows(
        crm, bundle.features, bundle.model.grid, bundle.calendar, worlds.cut(),
        end - int(HORIZON * DAY), end, entry=False,
    )  # fmt: skip
    y = ((rows.outcome == 1) & (rows.time <= HORIZON)).astype(float)
    model = bundle.model
    alone = replace(model, weights=np.array([1.0, 0, 0]), correction=np.ones_like(model.correction))
    for name, hazards in (
        ("served", model.hazards(rows.columns, rows.cells)),
        ("Aalen-Johansen table", alone.hazards(rows.columns, rows.cells)),
    ):
        curve = incidence(hazards)[:, :, 0]
        p = np.array(
            [np.interp(HORIZON, np.r_[0, e], np.r_[0, c])
             for e, c in zip(rows.cells.end, curve, strict=True)]
        )  # fmt: skip
        assert judged().arm(name)["log_loss"] == pytest.approx(measures.log_loss(p, y), rel=1e-9)
        assert judged().arm(name)["mean_probability"] == pytest.approx(p.mean(), rel=1e-9)
    stage = rows.columns["stage"]
    assert isinstance(stage, tuple)
    by_level = [bundle.stage_rates.get(str(s), {}).get("rate", np.nan) for s in stage[1]]
    rates = np.array(by_level)[stage[0]]
    assert judged().arm("stage rate")["brier"] == pytest.approx(measures.brier(rates, y))


def test_every_lead_comes_with_its_noise() -> None:
    served, *others = judged().arms
    assert (served["lead"], served["lead_error"]) == (0.0, 0.0)
    for arm in others:
        assert arm["lead"] == pytest.approx(arm["log_loss"] - served["log_loss"])
        assert arm["lead_error"] > 0


def test_the_noise_of_a_lead_counts_records_not_rows() -> None:
    rng = np.random.default_rng(0)
    y, p = (rng.random(400) < 0.3).astype(float), rng.uniform(0.05, 0.95, 400)
    better = np.where(y == 1, np.maximum(p, 0.3), np.minimum(p, 0.3))

    def error(times: int, record: np.ndarray) -> float:
        copies = {k: np.repeat(v, times) for k, v in {"served": better, "other": p}.items()}
        found = evaluate_leads(copies, np.repeat(y, times), record, 0, 1, "what")
        assert found is not None
        return float(found.arm("other")["lead_error"])

    once = error(1, np.arange(400))
    assert error(9, np.repeat(np.arange(400), 9)) == pytest.approx(once)
    assert error(9, np.arange(3600)) == pytest.approx(once / 3)
    # And it is the standard deviation of the difference between samples.
    gaps = []
    for seed in range(300):
        draw = np.random.default_rng(seed)
        yy = (draw.random(400) < 0.3).astype(float)
        a, b = np.full(400, 0.3), np.full(400, 0.5)
        gaps.append(measures.log_loss(b, yy) - measures.log_loss(a, yy))
    found = evaluate_leads(
        {"served": np.full(400, 0.3), "b": np.full(400, 0.5)}, y, np.arange(400), 0, 1, "w"
    )
    assert found is not None
    assert found.arm("b")["lead_error"] == pytest.approx(np.std(gaps), rel=0.15)


def test_predicted_and_actual_wins_are_compared_by_lead_time() -> None:
    levels = judged().levels
    assert [row["days"] for row in levels] == [1.0, 7.0, 14.0, 28.0]
    assert all(0.1 < row["count"] < 10 and row["value"] > 0 for row in levels)


def test_the_mean_error_is_known_as_well_as_records_allow() -> None:
    for arm in judged().arms:
        assert arm["mean_error"] == pytest.approx(arm["mean_probability"] - judged().base_rate)
        assert arm["mean_error_error"] > np.sqrt(0.25 / judged().n)  # rows are not independent


def test_reliability_is_told_by_stage_segment_and_grade() -> None:
    found = {split["by"]: split["parts"] for split in judged().splits}
    assert list(found)[:2] == ["stage", "grade"] and len(found) > 2
    stages = [part["name"] for part in found["stage"]]
    assert stages == [name for name in worlds.deals().stage_rates if name in stages]
    served = judged().arms[0]
    for parts in found.values():
        n = np.array([part["n"] for part in parts])
        assert n.sum() == judged().n
        for name, whole in (
            ("predicted", served["mean_probability"]), ("observed", judged().base_rate),
        ):  # fmt: skip
            assert n @ [part[name] for part in parts] / n.sum() == pytest.approx(whole)
        for part in parts:
            assert 0 <= part["band_low"] <= part["observed"] <= part["band_high"] <= 1
            assert part["records"] <= part["n"]
            assert sum(band["n"] for band in part["bands"]) in (0, part["n"])


def test_leads_are_told_by_segment_too() -> None:
    p, y = np.tile([0.05, 0.2, 0.4, 0.9], 50), np.tile([0.0, 0.0, 1.0, 1.0], 50)
    source = np.repeat([0, 1], 100).astype(np.int32), np.array(["web", "fair"], object)
    found = evaluate_leads(
        {"served": p}, y, np.arange(200), 0, 1, "w", {"field[lead_source]": source}
    )
    assert found is not None
    assert [split["by"] for split in found.splits] == ["grade", "lead source"]
    assert [part["name"][0] for part in found.splits[0]["parts"]] == ["A", "B", "C", "D"]
    assert [part["n"] for part in found.splits[1]["parts"]] == [100, 100]
    assert json.loads(json.dumps(plain(found), allow_nan=False))["splits"] == found.splits


def test_what_cannot_be_judged_is_none() -> None:
    crm, bundle, end = worlds.company(), worlds.deals(), worlds.company().observed_until
    assert evaluate_deals(crm, bundle, worlds.cut(), end, end, 365.0) is None  # nothing matured
    assert evaluate_deals(crm, bundle, end, end, end, 1.0) is None
    for y in (np.zeros(0), np.zeros(5), np.ones(5)):
        n = len(y)
        assert evaluate_leads({"a": np.full(n, 0.5)}, y, np.arange(n), 0, 1, "w") is None


def test_certain_probabilities_give_finite_figures() -> None:
    y = np.array([0.0, 1.0, 1.0, 0.0])
    found = evaluate_leads(
        {"served": np.array([0.0, 1.0, 0.0, 1.0]), "b": np.full(4, 0.5)}, y, np.arange(4), 0, 1, "w"
    )
    assert found is not None and found.arm("served")["log_loss"] < 15
    assert np.isfinite(found.arm("b")["lead"])


def test_an_evaluation_becomes_plain_json() -> None:
    class Pair(NamedTuple):
        a: float
        b: np.datetime64

    @dataclass
    class Thing:
        values: np.ndarray
        pair: Pair

    thing = Thing(np.array([1, 2]), Pair(np.nan, np.datetime64("2024-01-01")))
    assert plain({"x": thing, 3: (np.float64(0.5), None, "y", np.inf, np.True_)}) == {
        "x": {"values": [1, 2], "pair": {"a": None, "b": "2024-01-01"}},
        "3": [0.5, None, "y", None, True],
    }
    assert json.loads(json.dumps(plain(judged()), allow_nan=False))["n"] == judged().n
