"""Fitting: from the first deal on, with what is known by a moment, and nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from data.history import History
from data.pipeline import FiscalCalendar
from scoring.bundles import DealBundle
from scoring.forecast import forecast
from scoring.scores import DealScore, score_deals, score_leads
from tests import worlds
from tests.small_crm import STAGES, after, change, deal, history, moment, move, stages
from training.fitting import Recipe, TrainingError, fit_deals, fit_leads
from training.stages import stage_rates

RECIPE = Recipe(FiscalCalendar(), landmarks=2000)
START, NOW = "2024-01-01T09:00", "2024-03-20"
PRIOR = {"new": 0.1, "talk": 0.3, "offer": 0.7}
UNTIL = int(moment(NOW).astype(np.int64))


@pytest.fixture(autouse=True)
def _numpy_is_strict() -> Iterator[None]:
    with warnings.catch_warnings(), np.errstate(all="warn", under="ignore"):
        warnings.simplefilter("error")
        yield


def start_up(
    closed: int, opened: int, *, won: Callable[[int], bool] = lambda i: i % 3 == 0,
    staged: bool = True, amounts: bool = True,
) -> History:  # fmt: skip
    """A new company: deals that closed within a month, and one open deal in each stage."""
    rows, moves = [], []
    bare: dict[str, Any] = {} if amounts else {"amount": None, "currency": None}
    for i in range(closed):
        begin = after(START, i * 40 / closed)
        end = after(begin.removesuffix("Z"), 3 + (i * 7) % 25)
        rows.append(deal(f"c{i}", begin, end, outcome="won" if won(i) else "lost", **bare))
        moves += [move(f"c{i}", begin, "new"), move(f"c{i}", after(begin[:-1], 1), "talk", "new")]
    for i in range(opened):
        begin = after("2024-02-20T10:00", i * 5)
        rows.append(deal(f"o{i}", begin, **bare))
        moves.append(move(f"o{i}", begin, STAGES[i % 3]))
    return history(
        deal=rows,
        stage_change=moves if staged else [],
        stage=stages(default_probability=list(PRIOR.values())) if staged else [],
    )


def scored(crm: History) -> tuple[DealBundle, list[DealScore]]:
    """Fit, score every open deal and forecast: what a first day with the product does."""
    bundle = fit_deals(crm, UNTIL, RECIPE)
    periods = RECIPE.calendar.periods("month", moment(NOW), 3)
    for cell in forecast(crm, bundle, moment(NOW), periods, "owner", draws=300).cells:
        assert np.isfinite([cell.mean, *cell.quantiles.values()]).all()
    scores = score_deals(crm.as_of("deal", moment(NOW)), bundle)
    for s in scores:
        assert 0 < s.probability_won < 1 and s.probability_won + s.probability_lost < 1
    return bundle, scores


@pytest.mark.parametrize("opened", [1, 2, 3])
@pytest.mark.parametrize("closed", [0, 1, 5, 20])
def test_the_first_deals_score_near_the_prior_of_their_stage(closed: int, opened: int) -> None:
    bundle, scores = scored(start_up(closed, opened))
    assert len(scores) == opened and bundle.model.weights.tolist() == [1.0, 0.0, 0.0]
    for score, (stage, prior) in zip(scores, PRIOR.items(), strict=False):
        # One in three of the closed deals was won; they were in `new` and `talk`.
        low, high = min(prior, 1 / 3) - 0.05, max(prior, 1 / 3) + 0.1
        assert low <= score.probability_won <= high, stage
        if closed <= 1:
            assert score.probability_won == pytest.approx(prior, abs=0.06)
        assert score.probability_won + score.probability_lost > 0.8  # it will end some day
        assert score.evidence["examples"] == closed
        assert score.stage_win_probability == pytest.approx(prior, abs=0.3)
    if closed == 0:
        assert all(s.evidence["prior_share"] == 1.0 for s in scores)


@pytest.mark.parametrize("closed", [0, 5, 20])
def test_deals_without_any_stage(closed: int) -> None:
    bundle, scores = scored(start_up(closed, 3, staged=False))
    assert bundle.stage_rates == {} or set(bundle.stage_rates) <= set(STAGES)
    for score in scores:
        assert 0.2 < score.probability_won < 0.5 and score.stage_win_probability is None


@pytest.mark.parametrize("closed", [1, 5, 20])
def test_one_outcome_only(closed: int) -> None:
    before = [s.probability_won for s in scored(start_up(0, 2))[1]]
    for won in (True, False):
        _, scores = scored(start_up(closed, 2, won=lambda i, won=won: won))  # type: ignore[misc]
        for score, prior in zip(scores, before, strict=True):
            assert 0.02 < score.probability_won < 0.95
            assert (score.probability_won > prior) is won


def test_all_amounts_missing() -> None:
    for closed in (0, 20):
        bundle, scores = scored(start_up(closed, 3, amounts=False))
        assert bundle.manifest.currency == ""
        assert all(s.amount is None and s.expected_revenue is None for s in scores)


def test_more_wins_bring_in_the_learners_without_a_jump() -> None:
    before, after_ = (scored(start_up(n, 3, won=lambda i: i % 2 == 0))[1] for n in (118, 126))
    for a, b in zip(before, after_, strict=True):
        assert abs(a.probability_won - b.probability_won) < 0.08


def test_leads_only() -> None:
    def lead(i: int, outcome: str) -> dict[str, Any]:
        begin = after(START, i % 60 if outcome != "open" else 75)
        row = {"lead_id": f"l{i}", "created_at": begin, "source": "crm", "outcome": outcome}
        name = {"qualified": "qualified_at", "disqualified": "disqualified_at"}.get(outcome)
        return row if name is None else row | {name: after(begin[:-1], 1 + i % 9)}

    found: dict[str, float] = {}
    for closed in ("", "q", "d", "qd" * 10, "qdd" * 30):
        names = {"q": "qualified", "d": "disqualified"}
        rows = [lead(i, names[c]) for i, c in enumerate(closed)]
        crm = history(lead=[*rows, lead(999, "open")])
        bundle = fit_leads(crm, UNTIL, 14, RECIPE)
        (score,) = score_leads(crm.as_of("lead", moment(NOW)), bundle)
        found[closed] = score.probability
        assert bundle.win is None and 0 < score.probability_won < score.probability
        if not closed:
            assert score.evidence["prior_share"] == 1.0 and not score.reasons
    nothing, one, none, half, third = found.values()
    assert nothing == pytest.approx(0.3)
    assert 0.15 < none < nothing < one < 0.6
    assert 0.15 < third < 0.5 and 0.15 < half < 0.6


def test_an_empty_history_is_refused_in_words() -> None:
    with pytest.raises(TrainingError, match="no deal with a creation time is known by 2024-03-20"):
        fit_deals(history(), UNTIL, RECIPE)
    with pytest.raises(TrainingError, match="no lead with a creation time is known by 2024-03-20"):
        fit_leads(history(), UNTIL, 30, RECIPE)
    later = history(deal=[deal("d", "2024-03-21T00:00Z")])
    with pytest.raises(TrainingError, match="import deals first, or train at a later date"):
        fit_deals(later, UNTIL, RECIPE)


# --- stage rates -----------------------------------------------------------------------------


def test_stage_rates_count_a_deal_in_each_stage_it_has_been_in() -> None:
    crm = start_up(60, 3)
    rates = stage_rates(crm, UNTIL)
    assert rates["new"]["n"] == rates["talk"]["n"] == 60 and rates["offer"]["n"] == 0
    assert rates["new"]["won"] == 20
    overall = (20 + 1.5) / 65
    for name, prior in PRIOR.items():
        parent = 0.75 * overall + 0.25 * prior
        n, won = (60, 20) if name != "offer" else (0, 0)
        assert rates[name]["rate"] == pytest.approx((won + 20 * parent) / (n + 20))
        assert rates[name]["low"] < rates[name]["rate"] < rates[name]["high"]
    assert rates["offer"]["prior"] == 1.0 and rates["offer"]["prior_rate"] == 0.7


def test_stage_rates_know_nothing_of_later_closings() -> None:
    crm = start_up(60, 3)
    early = stage_rates(crm, int(moment("2024-01-20").astype(np.int64)))
    assert 0 < early["new"]["n"] < 40


def test_stages_without_a_probability_get_the_vendors_or_even_steps() -> None:
    names = ("Prospecting", "Our own step", "Negotiation/Review")
    crm = history(
        deal=[deal("d", "2024-01-01T08:00Z")],
        stage=stages(names),
        stage_change=[move("d", "2024-01-01T08:00Z", n) for n in names],
    )
    rates = stage_rates(crm, UNTIL)
    assert rates["Prospecting"]["prior_rate"] == pytest.approx(0.1)
    assert rates["Our own step"]["prior_rate"] == pytest.approx(0.4)
    assert rates["Negotiation/Review"]["prior_rate"] == pytest.approx(0.85)


# --- grid, arrivals, amounts -----------------------------------------------------------------


def test_few_closings_do_not_end_the_grid_early() -> None:
    lengths = [fit_deals(start_up(n, 3), UNTIL, RECIPE).model.grid.t_max for n in (1, 20, 60, 110)]
    assert lengths[0] >= 180 and lengths[1] >= 180
    assert lengths == sorted(lengths, reverse=True) and lengths[-1] < 50


def test_deals_closed_at_creation_count_as_new_business() -> None:
    days = [f"2024-0{1 + i // 28}-{1 + i % 28:02d}T00:00Z" for i in range(56)]
    crm = history(
        deal=[
            *(deal(f"i{i}", d, d, closed_amount=10.0) for i, d in enumerate(days)),
            deal("o", "2024-01-02T08:00Z"),
        ]
    )
    bundle = fit_deals(crm, int(moment("2024-02-29").astype(np.int64)), RECIPE)
    assert bundle.arrivals.per_weekday.mean() == pytest.approx(1.0, abs=0.1)
    assert bundle.arrivals.won_by[0] > 0.9 and len(bundle.arrivals.amounts) == 56


def test_back_filled_deals_are_not_taken_for_open_ones() -> None:
    pushed = {"recorded_at": "2024-03-01T00:00Z"}
    old = [
        deal(f"d{i}", "2023-01-01T08:00Z", "2023-06-01T08:00Z", **pushed, owner_id="ann")
        for i in range(50)
    ]
    crm = history(deal=[*old, deal("o", "2024-03-02T08:00Z")])
    bundle = fit_deals(crm, UNTIL, RECIPE)
    assert bundle.model.closed == 0
    (score,) = score_deals(crm.as_of("deal", moment(NOW)), bundle)
    assert score.probability_won + score.probability_lost > 0.8


def test_final_amounts_are_learnt_against_those_carried() -> None:
    rows, edits = [], []
    for i in range(40):
        begin, end = after(START, i), after(START, i + 20)
        rows.append(deal(f"d{i}", begin, end, amount=1000.0, closed_amount=500.0))
        edits.append(change(f"d{i}", after(START, i + 10), "amount", 2000.0, 1000.0))
    crm = history(deal=rows, field_change=edits)
    bundle = fit_deals(crm, UNTIL, RECIPE)
    ratio = np.exp(bundle.amount.log_ratio[-1])
    shrunk = 40 / 43
    np.testing.assert_allclose(ratio[[0, 100]], [0.25**shrunk, 0.5**shrunk], rtol=1e-6)


# --- like ------------------------------------------------------------------------------------


def test_a_fit_like_another_takes_its_hazards_and_learns_the_rest_anew() -> None:
    crm = worlds.company()
    later = worlds.cut() + 30 * 86_400_000_000
    again = fit_deals(crm, later, worlds.RECIPE, like=worlds.deals())
    assert again.model is worlds.deals().model and again.features == worlds.deals().features
    assert again.manifest.trained_through > worlds.deals().manifest.trained_through
    assert again.arrivals.per_weekday.tolist() != worlds.deals().arrivals.per_weekday.tolist()
    assert again.stage_rates != worlds.deals().stage_rates


def test_a_seed_decides_everything() -> None:
    crm = worlds.company()
    snapshot = crm.as_of("deal", worlds.cut_time())
    again = fit_deals(crm, worlds.cut(), worlds.RECIPE, "2026-01-01T00:00:00Z")
    assert score_deals(snapshot, again) == score_deals(snapshot, worlds.deals())
    assert again.manifest == worlds.deals().manifest
    assert (
        worlds.deals().manifest.trained_through == f"{worlds.cut_time().astype('datetime64[s]')}Z"
    )
