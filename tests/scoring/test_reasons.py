"""Reasons: contributions that add up to what is served, in words that claim no cause."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from data.features import Feature
from models.calibration import logit
from scoring.reasons import contributions, reasons_of
from scoring.scores import score_deals, score_leads
from tests import worlds

FEATURES = (
    Feature("size", "number", "persons", "size of the company", group="company"),
    Feature("revenue", "number", "log(1 + currency)", "revenue", group="company"),
    Feature("source", "category", "", "channel it came from"),
    Feature("age", "number", "days", "time since creation"),
    Feature("growth", "number", "log ratio", "amount now against the first one"),
)
GROUPS = {
    "company": ["size", "revenue"],
    "source": ["source"],
    "age": ["age"],
    "growth": ["growth"],
}


def columns(size: list[float], source: list[int], levels: list[str]) -> dict[str, Any]:
    n = len(size)
    return {
        "size": np.array(size),
        "revenue": np.log1p(np.full(n, 5000.0)),
        "source": (np.array(source, dtype=np.int32), np.array(levels, dtype=object)),
        "age": np.linspace(1, 30, n),
        "growth": np.full(n, np.log(1.25)),
    }


def log_odds(stacked: Any, row: Any = None) -> Any:
    """A model with an interaction, reading levels by their text."""
    codes, levels = stacked["source"]
    web = np.array([c >= 0 and levels[c] == "web" for c in codes])
    return 0.1 * stacked["size"] + 2 * web - 0.05 * stacked["age"] * (1 + web) + stacked["growth"]


def test_contributions_add_up_for_any_model() -> None:
    mine = columns([1.0, 12.0, 3.0], [0, 1, -1], ["web", "fair"])
    usual = columns([5.0, 5.0, 5.0], [1, 1, 0], ["web", "call"])  # another dictionary
    base, parts = contributions(log_odds, mine, usual, list(GROUPS.values()))
    np.testing.assert_allclose(base, log_odds(usual))
    np.testing.assert_allclose(base + parts.sum(1), log_odds(mine), atol=1e-12)
    np.testing.assert_allclose(parts[:, 0], 0.1 * (mine["size"] - 5))  # no interaction: exact
    assert parts[0, 1] == pytest.approx(2.0 - 0.05 * 1.0)  # the record is one day old
    _, none = contributions(log_odds, mine, mine, list(GROUPS.values()))
    np.testing.assert_allclose(none, 0.0)


def told(parts: list[float], rest: float = 0.0) -> list[Any]:
    mine = columns([3.0, 120.0], [0, -1], ["web", "fair"])
    usual = columns([5.0, 5.0], [1, 1], ["web", "fair"])
    return reasons_of(FEATURES, GROUPS, np.array(parts), mine, usual, 1, "this stage", rest)


def test_texts_tell_the_value_and_the_usual_one() -> None:
    by_name = {r.feature: r for r in told([0.4, -0.9, 0.1, 0.2])}
    assert (
        by_name["company"].text
        == "size of the company: 120 persons; typical for this stage: 5 persons"
    )
    assert by_name["source"].text == "channel it came from: not known; typical for this stage: fair"
    assert by_name["age"].text.startswith("time since creation: 30 days")
    assert "+25%" in by_name["growth"].text
    assert list(by_name) == ["source", "company", "growth", "age"]  # largest first


def test_the_rest_is_told_as_such() -> None:
    found = told([0.4, 0.0, 0.0, 0.0], rest=-0.05)
    assert [r.feature for r in found] == ["company", "other"]
    assert found[-1].contribution == pytest.approx(-0.05)
    assert told([0.0, 0.0, 0.0, 0.0]) == []


def test_only_the_five_largest_are_named() -> None:
    names = [f"f{i}" for i in range(9)]
    features = [Feature(n, "number", "", n) for n in names]
    mine: dict[str, Any] = {n: np.ones(1) for n in names}
    usual: dict[str, Any] = {n: np.zeros(1) for n in names}
    parts = np.arange(9, dtype=float)
    found = reasons_of(features, {n: [n] for n in names}, parts, mine, usual, 0, "all leads")
    assert [r.feature for r in found] == ["f8", "f7", "f6", "f5", "f4", "other"]
    assert sum(r.contribution for r in found) == pytest.approx(parts.sum())


def test_reasons_of_deals_add_up_to_the_served_log_odds() -> None:
    bundle, history = worlds.deals(), worlds.company()
    assert bundle.model.trees is not None
    for moment in (worlds.cut_time(), worlds.cut_time() + np.timedelta64(13 * 24 + 7, "h")):
        scores = score_deals(history.as_of("deal", moment), bundle)
        assert len(scores) > 15
        for score in scores:
            assert score.base is not None and score.reasons
            total = score.base + sum(r.contribution for r in score.reasons)
            assert total == pytest.approx(float(logit(score.probability_won)), abs=1e-9)
        assert any(r.feature == "other" for s in scores for r in s.reasons)


def test_reasons_of_leads_add_up_to_the_served_log_odds() -> None:
    scores = score_leads(worlds.company().as_of("lead", worlds.cut_time()), worlds.leads())
    assert len(scores) > 15
    for score in scores:
        assert score.base is not None and score.reasons
        total = score.base + sum(r.contribution for r in score.reasons)
        assert total == pytest.approx(float(logit(score.probability)), abs=1e-9)


def test_the_stage_itself_is_the_base_of_a_deal() -> None:
    """Two deals that differ from the typical one of their stage in nothing get its base."""
    scores = score_deals(worlds.company().as_of("deal", worlds.cut_time()), worlds.deals())
    bases: dict[Any, set[float]] = {}
    for score in scores:
        bases.setdefault(score.stage_win_probability, set()).add(round(score.base or 0.0, 9))
    assert len(bases) > 2 and all(len(found) == 1 for found in bases.values())


def test_words_claim_no_cause_and_give_no_advice() -> None:
    history = worlds.company()
    told_of = [
        s.reasons for s in score_deals(history.as_of("deal", worlds.cut_time()), worlds.deals())
    ]
    told_of += [
        s.reasons for s in score_leads(history.as_of("lead", worlds.cut_time()), worlds.leads())
    ]
    texts = [r.text for reasons in told_of for r in reasons]
    assert len(set(texts)) > 50
    for text in texts:
        words = text.casefold()
        assert not any(w in words for w in ("because", "due to", "therefore", "should", "causes"))
        assert "nan" not in words.replace("finance", "") and "none" not in words, text
        assert text == "everything else together" or "; typical for " in text
        assert len(text) < 140
