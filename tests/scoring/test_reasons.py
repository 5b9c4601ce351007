"""Reasons: contributions that add up to what is served, in words that claim no cause."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from data.features import Feature, compute
from models.calibration import logit
from scoring.bundles import DealBundle, bundle_of
from scoring.curves import Curves
from scoring.reasons import Comparison, Reason, tell
from scoring.scores import _time_ahead, score_deals, score_leads
from tests import worlds

FEATURES = (
    Feature("size", "number", "persons", "size of the company", group="company"),
    Feature("revenue", "number", "log(1 + currency)", "revenue", group="company"),
    Feature("source", "category", "", "channel it came from"),
    Feature("age", "number", "days", "time since creation"),
    Feature("unread", "number", "", "what the model does not read"),
)


def compare(n: int = 2) -> Comparison:
    """Two typical records: of this stage, and of all deals."""
    columns: dict[str, Any] = {
        "size": np.array([3.0, 120.0])[:n],
        "revenue": np.log1p([5000.0, 5000.0])[:n],
        "source": (np.array([0, -1], np.int32)[:n], np.array(["web", "fair"], dtype=object)),
        "age": np.array([1.0, 30.0])[:n],
    }
    typical: dict[str, Any] = {
        "size": np.array([5.0, 7.0]),
        "revenue": np.log1p([5000.0, np.nan]),
        "source": (np.array([1, 1], np.int32), np.array(["spam", "web"], dtype=object)),
        "age": np.array([1.0, np.nan]),
    }
    return Comparison(columns, typical, np.array([0, 1])[:n], ["this stage", "all deals"])


def told(rest: float = 0.0, **parts: list[float]) -> list[tuple[Reason, ...]]:
    every = {name: np.array(values) for name, values in parts.items()}
    return tell(FEATURES, every, np.full(len(next(iter(every.values()))), rest), compare())


def test_groups_are_told_largest_first_and_add_up() -> None:
    first, second = told(
        size=[0.4, -0.1], revenue=[0.1, 0.0], source=[-0.9, 0.2], age=[0.2, 0.05], rest=0.01
    )
    assert [r.feature for r in first] == ["source", "company", "age", "other"]
    assert [r.contribution for r in first] == pytest.approx([-0.9, 0.5, 0.2, 0.01])
    assert [r.feature for r in second] == ["source", "company", "age", "other"]
    assert first[-1].text == "everything else together"
    assert sum(r.contribution for r in second) == pytest.approx(-0.1 + 0.2 + 0.05 + 0.01)
    assert told(size=[0.0, 0.0]) == [(), ()]


def test_texts_tell_the_value_beside_what_is_typical_of_its_like() -> None:
    first, second = told(size=[0.4, 0.4], source=[0.3, 0.3], age=[0.2, 0.2])
    assert [r.text for r in first] == [
        "size of the company: 3 persons; typical for this stage: 5 persons",
        "channel it came from: web, as is typical for this stage",
        "time since creation: 1 day, as is typical for this stage",
    ]
    assert [r.text for r in second] == [
        "size of the company: 120 persons; typical for all deals: 7 persons",
        "channel it came from: not known; typical for all deals: web",
        "time since creation: 30 days; typical for all deals: not known",
    ]


def test_a_group_speaks_through_the_feature_that_brought_most() -> None:
    texts = [r[0].text for r in told(size=[0.1, 0.1], revenue=[0.3, 0.3])]
    # Of the first, the revenue is as is typical: it cannot have brought it by itself.
    assert texts[0].startswith("size of the company: 3 persons")
    assert texts[1] == "revenue: 5,000; typical for all deals: not known"
    texts = [r[0].text for r in told(size=[-0.1, 0.1], revenue=[0.3, -0.3])]
    assert texts[0] == "revenue: 5,000, as is typical for this stage"  # the other speaks against
    assert texts[1].startswith("revenue: 5,000;")


def test_only_the_five_largest_are_named() -> None:
    names = [f"f{i}" for i in range(9)]
    features = [Feature(n, "number", "", n) for n in names]
    columns: dict[str, Any] = {n: np.ones(1) for n in names}
    typical: dict[str, Any] = {n: np.zeros(1) for n in names}
    against = Comparison(columns, typical, np.zeros(1, np.int64), ["all leads"])
    parts = {n: np.array([float(i)]) for i, n in enumerate(names)}
    (found,) = tell(features, parts, np.zeros(1), against)
    assert [r.feature for r in found] == ["f8", "f7", "f6", "f5", "f4", "other"]
    assert sum(r.contribution for r in found) == pytest.approx(36.0)


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


def test_a_deal_starts_from_the_average_of_its_stage() -> None:
    scores = score_deals(worlds.company().as_of("deal", worlds.cut_time()), worlds.deals())
    attribution = worlds.deals().attribution
    known = {start.base for start in attribution.starts}
    assert {score.base for score in scores} <= known and len(known) > 3
    own = [s for s in scores if s.base != attribution.starts[-1].base]
    assert own and not any(r.feature == "stage" for s in own for r in s.reasons)
    assert all("typical for this stage" in r.text or r.feature == "other"
               for s in own for r in s.reasons)  # fmt: skip
    # The average of a stage is what its records have on average: nothing is left to tell.
    reference = worlds.deals().reference
    cells = worlds.deals().model.grid.cells(reference.local)
    base, parts = attribution.contributions(reference.records, cells)
    for stage in range(len(attribution.stages)):
        mine = attribution.start_of(reference.records) == stage
        np.testing.assert_allclose(parts[mine].mean(axis=0), 0.0, atol=1e-9)
        assert base[mine][0] == attribution.starts[stage].base


def test_asking_for_reasons_changes_no_score() -> None:
    crm, at = worlds.company(), worlds.cut_time()
    bare = score_deals(crm.as_of("deal", at), worlds.deals(), explain=False)
    with_reasons = score_deals(crm.as_of("deal", at), worlds.deals())
    assert [replace(s, reasons=(), base=None) for s in with_reasons] == bare
    leads = score_leads(crm.as_of("lead", at), worlds.leads(), explain=False)
    told_of = score_leads(crm.as_of("lead", at), worlds.leads())
    assert [replace(s, reasons=(), base=None) for s in told_of] == leads


def test_one_deal_alone_has_the_reasons_it_has_in_a_batch() -> None:
    snapshot = worlds.company().as_of("deal", worlds.cut_time())
    batch = score_deals(snapshot, worlds.deals())
    for i in range(0, len(snapshot), 4):
        assert score_deals(snapshot.take(np.array([i])), worlds.deals()) == [batch[i]]


def test_a_bundle_without_reference_records_starts_from_its_typical_ones() -> None:
    state = worlds.deals().to_state()
    del state["reference"]["records"], state["reference"]["local"]
    old = bundle_of(state)
    assert isinstance(old, DealBundle) and old.attribution.stages == ()
    for score in score_deals(worlds.company().as_of("deal", worlds.cut_time()), old):
        assert score.base is not None
        total = score.base + sum(r.contribution for r in score.reasons)
        assert total == pytest.approx(float(logit(score.probability_won)), abs=1e-9)
        assert all("typical for all deals" in r.text or r.feature == "other"
                   for r in score.reasons)  # fmt: skip


def test_the_calendar_is_told_by_what_the_model_knows_of_it() -> None:
    bundle, snapshot = worlds.deals(), worlds.company().as_of("deal", worlds.cut_time())
    curves = Curves.of(snapshot, bundle, compute(snapshot, bundle.features))
    feature, column, usual = _time_ahead(bundle, curves, 3)
    month = worlds.cut_time().astype("datetime64[M]")
    quarter = month + (3 - int(month.astype(int)) % 3)
    left = (quarter.astype("datetime64[D]") - worlds.cut_time().astype("datetime64[D]")).astype(int)
    assert column == pytest.approx(left) and usual.tolist() == [46.0] * 3
    assert (feature.group, feature.unit) == ("calendar", "days")
    short = replace(bundle, model=replace(bundle.model, calendar=("weekday_share",)))
    feature, (codes, names), (typical, _) = _time_ahead(short, curves, 2)
    day = worlds.cut_time().astype("datetime64[s]").astype(object).strftime("%A")
    assert {names[c] for c in codes} == {day} and {names[c] for c in typical} == {"any"}


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
        assert text == "everything else together" or "typical for " in text
        assert len(text) < 140
