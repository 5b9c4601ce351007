"""Scores: closed and reopened records, bounds, ranks, curves and what is read off them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from data.history import History
from data.pipeline import FiscalCalendar
from data.timelines import DAY
from scoring.bundles import DealBundle
from scoring.curves import Curves
from scoring.scores import (
    GRADES,
    DealScore,
    qualified_within,
    score_deals,
    score_leads,
    won_within,
)
from tests import worlds
from tests.small_crm import after, change, deal, history, moment, move, stages
from training.fitting import Recipe, fit_deals


@cache
def scores() -> list[DealScore]:
    return score_deals(worlds.company().as_of("deal", worlds.cut_time()), worlds.deals())


def bundle_of(crm: History, at: str, zone: str = "UTC") -> DealBundle:
    until = int(moment(at).astype(np.int64))
    return fit_deals(crm, until, Recipe(FiscalCalendar(zone=zone), landmarks=500))


def one(crm: History, bundle: DealBundle, at: str) -> DealScore:
    """The score of the only deal of a history, open or not."""
    rows = np.zeros(1, dtype=np.int64)
    when = np.array([moment(at).astype(np.int64)])
    return score_deals(crm.landmarks("deal", rows, when), bundle)[0]


@cache
def reopened() -> History:
    """Won in May, reopened in June, lost in July."""
    return history(
        deal=[deal("d", "2024-04-01T08:00Z", "2024-07-20T12:00Z", outcome="lost")],
        stage_change=[
            move("d", "2024-04-01T08:00Z", "new"),
            move("d", "2024-05-10T12:00Z", "offer", "new"),
        ],
        field_change=[
            change("d", "2024-05-20T12:00Z", "outcome", "open", "won"),
            change("d", "2024-06-03T12:00Z", "outcome", "won", "open"),
            change("d", "2024-07-20T12:00Z", "outcome", "open", "lost"),
        ],
    )


def test_closed_records_score_0_or_100_and_reopened_ones_are_open_again() -> None:
    crm = reopened()
    bundle = bundle_of(crm, "2024-07-01")
    shown = {
        at: one(crm, bundle, at)
        for at in ("2024-05-19", "2024-05-21", "2024-06-02", "2024-06-04", "2024-07-21")
    }
    assert [s.score for s in shown.values()][1:3] == [100, 100]
    for at in ("2024-05-19", "2024-06-04"):
        assert 1 <= shown[at].score <= 99 and shown[at].curve and shown[at].reasons is not None
        assert shown[at].evidence["method"] == "table"
    won, lost = shown["2024-05-21"], shown["2024-07-21"]
    assert (won.probability_won, won.probability_lost, won.grade) == (1.0, 0.0, "A")
    assert (lost.probability_won, lost.probability_lost, lost.score) == (0.0, 1.0, 0)
    for closed in (won, lost):
        assert closed.evidence == {"method": "closed"}
        assert (closed.reasons, closed.curve, closed.close_date, closed.percentile) == (
            (), (), None, None,
        )  # fmt: skip


def test_probabilities_scores_and_grades_go_together() -> None:
    assert len(scores()) > 20
    for s in scores():
        assert 0 < s.probability_won < 1 and 0 < s.probability_lost < 1
        assert s.probability_won + s.probability_lost <= 1 + 1e-12
        assert s.score == min(max(round(100 * s.probability_won), 1), 99)
        assert s.grade == next(g for g, least in GRADES if s.probability_won >= least)
        assert s.expected_revenue is not None and s.amount is not None
        assert s.amount.p10 <= s.amount.p50 <= s.amount.p90
        assert s.evidence["method"] == "table + ridge + trees"


@pytest.mark.parametrize(("factor", "score"), [(1e-9, 1), (1e9, 99)])
def test_open_records_never_score_0_or_100(factor: float, score: int) -> None:
    bundle = worlds.deals()
    model = bundle.model
    correction = model.correction.copy()
    correction[:, :, 0] *= factor
    correction[:, :, 1] /= factor
    sure = replace(bundle, model=replace(model, correction=correction))
    found = score_deals(worlds.company().as_of("deal", worlds.cut_time()), sure, explain=False)
    assert {s.score for s in found} == {score}


def test_ranks_follow_probabilities() -> None:
    order = np.argsort([s.probability_won for s in scores()])
    ranks = np.array([s.percentile for s in scores()])[order]
    assert (np.diff(ranks) >= 0).all() and 0 <= ranks[0] < 10 < 90 < ranks[-1] <= 100


def test_curves_rise_to_the_probability_and_name_each_day_once() -> None:
    for s in scores():
        dates = np.array([p.date for p in s.curve])
        won, lost = (np.array([getattr(p, n) for p in s.curve]) for n in ("won", "lost"))
        assert (np.diff(dates) > np.timedelta64(0)).all()
        assert (np.diff(won) >= 0).all() and (np.diff(lost) >= 0).all()
        assert won[-1] == pytest.approx(s.probability_won)
        assert lost[-1] == pytest.approx(s.probability_lost)
        assert (won + lost <= 1 + 1e-12).all()


def test_a_point_of_the_curve_holds_at_the_end_of_its_day() -> None:
    crm, bundle = worlds.company(), worlds.deals()
    for hours, first in ((0, 0), (15, 1)):  # when the first step of a day ends
        at = worlds.cut_time() + np.timedelta64(hours, "h")
        snapshot = crm.as_of("deal", at).take(np.arange(1))
        (score,) = score_deals(snapshot, bundle, explain=False)
        assert score.curve[0].date == worlds.cut_time().astype("datetime64[D]") + first
        for p in score.curve:
            end = p.date + np.timedelta64(1, "D")
            days = (end.astype("datetime64[us]") - at) / np.timedelta64(1, "D")
            assert p.won == pytest.approx(float(won_within(snapshot, bundle, np.array([days]))[0]))


def test_dates_are_the_organisations_own() -> None:
    crm = reopened()
    bundle = bundle_of(crm, "2024-05-01", zone="Asia/Tokyo")
    late = one(crm, bundle, "2024-05-15T16:00:00")  # 01:00 on the 16th in Tokyo
    assert late.curve[0].date == np.datetime64("2024-05-17")
    early = one(crm, bundle, "2024-05-15T15:00:00")  # midnight there
    assert early.curve[0].date == np.datetime64("2024-05-16")


def test_close_dates_are_ordered_and_split_the_chance_of_winning() -> None:
    crm, bundle = worlds.company(), worlds.deals()
    snapshot = crm.as_of("deal", worlds.cut_time())
    for quantile, name in ((0.1, "p10"), (0.5, "p50"), (0.9, "p90")):
        dates = [getattr(s.close_date, name) for s in scores()]
        days = (np.array(dates) - worlds.cut_time().astype("datetime64[D]")).astype(float)
        before, after = (won_within(snapshot, bundle, days + d) for d in (0.0, 1.0))
        share = quantile * np.array([s.probability_won for s in scores()])
        assert ((before <= share + 1e-12) & (share <= after + 1e-12)).all()
    for s in scores():
        assert s.close_date is not None
        assert s.close_date.p10 <= s.close_date.p50 <= s.close_date.p90


def test_slip_is_the_chance_to_be_open_after_the_expected_date() -> None:
    snapshot = worlds.company().as_of("deal", worlds.cut_time())
    expected = snapshot.value("expected_close_date").numbers()
    ahead = expected + 1 - worlds.cut() / DAY
    seen = {"none": 0, "over": 0, "ahead": 0}
    for s, days in zip(scores(), ahead, strict=True):
        if np.isnan(days):
            assert s.probability_slip is None
            seen["none"] += 1
        elif days <= 0:
            assert s.probability_slip == 1.0
            seen["over"] += 1
        else:
            end = np.datetime64(worlds.cut() + int(days * DAY) - 1, "us").astype("datetime64[D]")
            on = [p for p in s.curve if p.date == end]
            assert s.probability_slip is not None and 0 < s.probability_slip <= 1
            for p in on:
                assert s.probability_slip == pytest.approx(1 - p.won - p.lost)
            seen["ahead"] += 1
    assert seen["ahead"] > 5 and seen["over"] + seen["none"] > 0


def test_horizons_are_monotone_and_end_at_the_grid() -> None:
    crm, bundle = worlds.company(), worlds.deals()
    snapshot = crm.as_of("deal", worlds.cut_time())
    n = len(snapshot)
    grid = [0.0, 0.3, 1, 5, 30.5, 90, bundle.model.grid.t_max, 1e4, np.inf]
    p = np.array([won_within(snapshot, bundle, np.full(n, d)) for d in grid])
    assert (np.diff(p, axis=0) >= 0).all() and (p[0] == 0).all()
    np.testing.assert_array_equal(p[-1], p[-3])
    np.testing.assert_allclose(p[-1], [s.probability_won for s in scores()])


def test_the_expected_revenue_is_the_chance_times_the_mean_amount() -> None:
    crm, bundle = worlds.company(), worlds.deals()
    snapshot = crm.as_of("deal", worlds.cut_time())
    stage = (snapshot.stage.astype(np.int32), snapshot.ledger.stage_levels)
    levels = (np.arange(4000) + 0.5) / 4000
    for i in (0, 7):
        codes = np.repeat(stage[0][[i]], 4000)
        worth = bundle.amount.final(
            (codes, stage[1]), np.repeat(snapshot.amount[[i]], 4000), levels
        )
        due = scores()[i].probability_won * worth.mean()
        assert scores()[i].expected_revenue == pytest.approx(due, rel=0.01)


def test_a_deal_without_stage_or_amount_says_so() -> None:
    crm = history(deal=[deal("d", "2024-04-01T08:00Z", amount=None)])
    bundle = bundle_of(crm, "2024-05-01")
    score = one(crm, bundle, "2024-05-01")
    assert score.amount is None and score.expected_revenue is None
    assert any("no amount" in w for w in score.warnings)
    assert any("stage" in w for w in score.warnings)
    assert score.stage_win_probability is None


def test_one_deal_scores_as_in_a_batch() -> None:
    snapshot = worlds.company().as_of("deal", worlds.cut_time())
    for i in (0, 5, len(snapshot) - 1):
        (alone,) = score_deals(snapshot.take(np.array([i])), worlds.deals())
        assert alone == scores()[i]


def test_context_given_in_a_request_is_used() -> None:
    snapshot = worlds.company().as_of("deal", worlds.cut_time()).take(np.arange(5))
    names = [
        f.name for f in worlds.deals().features if f.scope == "context" and f.dtype == "number"
    ]
    assert names
    hidden, given = (
        score_deals(snapshot, worlds.deals(), explain=False, context=dict.fromkeys(names, value))
        for value in (None, 40.0)
    )
    assert [s.probability_won for s in hidden] != [s.probability_won for s in given]


# --- leads -----------------------------------------------------------------------------------


def test_leads_open_and_closed() -> None:
    crm, bundle = worlds.company(), worlds.leads()
    rows = np.arange(len(crm.leads))[crm.leads.known_from < worlds.cut()]
    snapshot = crm.landmarks("lead", rows, np.full(len(rows), worlds.cut()))
    for s, outcome in zip(score_leads(snapshot, bundle), snapshot.outcome, strict=True):
        if outcome == 0:
            assert 0 < s.probability < 1 and s.score == min(max(round(100 * s.probability), 1), 99)
            assert s.evidence["horizon_days"] == 30 and s.reasons
            assert 0 < s.probability_won < s.probability
        else:
            assert s.score == (100 if outcome == 1 else 0) and s.probability == float(outcome == 1)
            assert s.evidence == {"method": "closed"} and s.reasons == () and s.percentile is None


def test_other_horizons_of_a_lead_are_monotone() -> None:
    snapshot = worlds.company().as_of("lead", worlds.cut_time())
    n = len(snapshot)
    grid = [0.5, 3, 10, 30, 60, 90, 400]
    p = np.array([qualified_within(snapshot, worlds.leads(), np.full(n, float(d))) for d in grid])
    assert (np.diff(p, axis=0) >= -1e-12).all() and p.min() >= 0 and p.max() <= 1
    served = [s.probability for s in score_leads(snapshot, worlds.leads(), explain=False)]
    np.testing.assert_allclose(p[3], served)


def test_no_records_no_scores() -> None:
    crm = worlds.company()
    nothing = np.zeros(0, dtype=np.int64)
    assert score_deals(crm.landmarks("deal", nothing, nothing), worlds.deals()) == []
    assert score_leads(crm.landmarks("lead", nothing, nothing), worlds.leads()) == []
    assert (
        len(won_within(crm.landmarks("deal", nothing, nothing), worlds.deals(), np.zeros(0))) == 0
    )


def test_a_deal_that_cannot_be_won_has_no_date_of_winning() -> None:
    bundle = worlds.deals()
    cells = bundle.model.grid.cells(np.array([19_800.0]))
    never = np.zeros((1, cells.begin.shape[1], 2))
    assert Curves(np.array([19_800.0]), cells, never).close_dates() == [None]


# --- new and renamed stages ------------------------------------------------------------------


def _declared(*names: str, chances: tuple[float, ...]) -> History:
    """One open deal in the last of the stages, which the CRM believes in so much."""
    return history(
        deal=[deal("d", "2024-06-01T08:00Z")],
        stage=stages(names, default_probability=chances),
        stage_change=[move("d", "2024-06-01T08:00Z", names[-1])],
    )


def _taught() -> DealBundle:
    rows, moves = [], []
    for i in range(60):
        begin, won = after("2024-01-01T08:00", i), i % 2 == 0
        rows.append(deal(f"c{i}", begin, after(begin[:-1], 9), outcome="won" if won else "lost"))
        moves.append(move(f"c{i}", begin, "new"))
        if won:
            moves.append(move(f"c{i}", after(begin[:-1], 4), "offer", "new"))
    table = stages(("new", "offer"), default_probability=(0.2, 0.8))
    return bundle_of(history(deal=rows, stage_change=moves, stage=table), "2024-04-01")


@pytest.mark.parametrize(
    ("names", "chances", "like"),
    [
        (("new", "offer", "contract"), (0.2, 0.8, 0.9), "offer"),  # a new stage, after the last
        (("offer", "triage"), (0.8, 0.15), "new"),  # `new` renamed, and gone
        (("first", "last"), (0.1, 0.7), "offer"),  # all renamed
    ],
)
def test_a_new_stage_is_read_as_the_one_believed_to_be_like_it(
    names: tuple[str, ...], chances: tuple[float, ...], like: str
) -> None:
    bundle = _taught()
    score = one(_declared(*names, chances=chances), bundle, "2024-06-05")
    known = one(_declared(like, chances=(0.5,)), bundle, "2024-06-05")
    assert score.probability_won == pytest.approx(known.probability_won, abs=0.02)
    (warning,) = (w for w in score.warnings if "stage" in w)
    assert repr(names[-1]) in warning and repr(like) in warning
    assert score.evidence["stage_examples"] == 0 and score.evidence["prior_share"] == 1.0
    assert score.stage_win_probability is None and not known.warnings
    (within,) = won_within(
        _declared(*names, chances=chances).as_of("deal", moment("2024-06-05")), bundle,
        np.array([bundle.model.grid.t_max]),
    )  # fmt: skip
    assert within == pytest.approx(score.probability_won)


def test_a_stage_that_nobody_declares_gets_the_average() -> None:
    crm = history(
        deal=[deal("d", "2024-06-01T08:00Z")],
        stage=stages(("new", "offer")),
        stage_change=[move("d", "2024-06-01T08:00Z", "who knows")],
    )
    score = one(crm, _taught(), "2024-06-05")
    assert any("the average of all stages" in w for w in score.warnings)
    assert 0.3 < score.probability_won < 0.7


def test_the_evidence_says_what_a_score_leans_on() -> None:
    evidence = one(_declared("new", chances=(0.2,)), _taught(), "2024-06-05").evidence
    assert evidence["stage_examples"] == 60 and evidence["prior_share"] < 0.1
    assert list(evidence["shares"]) == ["stage", "pipeline", "organisation", "preset"]
    assert sum(evidence["shares"].values()) == pytest.approx(1.0, abs=0.002)
    assert evidence["shares"]["stage"] == pytest.approx(0.75)
