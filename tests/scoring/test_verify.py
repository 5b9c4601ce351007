"""What was issued against what happened: counted as it was forecast, and only once it is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from data.history import History
from models.measures import crps_sample
from scoring.verify import (
    Claim,
    ScoreClaims,
    crps_of,
    deal_outcomes,
    forecast_summary,
    known_until,
    score_summary,
    verify_forecasts,
    verify_scores,
)
from tests.small_crm import change, deal, history, moment

AS_OF = moment("2024-05-10T00:00")
NOW = moment("2024-07-01T00:00")
LEVELS = (0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975)
OWNERS = frozenset({"all", "ann", "bob", "unassigned"})


def claim(group: str = "all", **more: Any) -> Claim:
    """A forecast of May, made on the tenth."""
    made = Claim(
        AS_OF, AS_OF, moment("2024-05-01"), moment("2024-06-01"), "owner", group, OWNERS,
        "amount", 100.0, {"0.1": 50.0, "0.5": 90.0, "0.9": 160.0}, None, None, False,
    )  # fmt: skip
    return replace(made, **more)


def actuals(crm: History, *groups: str, now: np.datetime64 = NOW, **more: Any) -> list[float]:
    found = verify_forecasts(crm, [claim(g, **more) for g in groups], now)
    return [v.actual for v in found if v is not None]


# --- what is counted -------------------------------------------------------------------------


def test_groups_follow_the_rule_of_the_forecast() -> None:
    crm = history(
        deal=[
            # Won before as_of: the owner at closing counts.
            deal("early", "2024-04-01T00:00Z", "2024-05-02T00:00Z", owner_id="ann", amount=1.0),
            # Open at as_of: the owner then, whoever closed it.
            deal("moved", "2024-04-01T00:00Z", "2024-05-20T00:00Z", owner_id="bob", amount=10.0),
            # New business: the owner at creation.
            deal("new", "2024-05-12T00:00Z", "2024-05-25T00:00Z", owner_id="bob", amount=100.0),
            # An owner nobody had heard of at as_of.
            deal("cy", "2024-05-12T00:00Z", "2024-05-25T00:00Z", owner_id="cy", amount=1000.0),
            deal("june", "2024-04-01T00:00Z", "2024-06-01T00:00Z", owner_id="ann", amount=7.0),
            deal("lost", "2024-04-01T00:00Z", "2024-05-20T00:00Z", outcome="lost", amount=7.0),
        ],
        field_change=[
            change("moved", "2024-05-15T00:00Z", "owner_id", "ann", "bob"),
            change("new", "2024-05-20T00:00Z", "owner_id", "ann", "bob"),
        ],
    )
    assert actuals(crm, "all", "ann", "bob", "unassigned") == [1111.0, 111.0, 0.0, 1000.0]
    assert actuals(crm, "all", by=None, groups=frozenset({"all"})) == [1111.0]
    assert actuals(crm, "all", "ann", measure="count") == [4.0, 3.0]


def test_a_reopened_win_is_taken_back_where_it_reopened() -> None:
    crm = history(
        deal=[deal("d", "2024-04-01T00:00Z", outcome="open", amount=50.0, owner_id="ann")],
        field_change=[
            change("d", "2024-05-05T00:00Z", "outcome", "open", "won"),
            change("d", "2024-05-20T00:00Z", "outcome", "won", "open"),
        ],
    )
    assert actuals(crm, "all", "ann") == [0.0, 0.0]
    april = {"start": moment("2024-05-01"), "end": moment("2024-05-15")}
    assert actuals(crm, "ann", **april) == [50.0]


def test_a_deal_that_was_deleted_is_gone() -> None:
    gone = deal("d", "2024-04-01T00:00Z", "2024-05-20T00:00Z", deleted_at="2024-06-20T00:00:00Z")
    assert actuals(history(deal=[gone]), "all") == [0.0]
    assert actuals(history(deal=[gone]), "all", now=moment("2024-06-10")) == [1000.0]


def test_nothing_is_said_of_a_period_that_is_not_over_or_not_known() -> None:
    row = deal("d", "2024-04-01T00:00Z", "2024-05-20T00:00Z")
    assert actuals(history(deal=[row]), "all", now=moment("2024-05-31T23:59")) == []
    assert actuals(history(deal=[row]), "all", now=moment("2024-06-01")) == [1000.0]
    exported = history(deal=[row], until="2024-05-25T00:00:00")
    assert actuals(exported, "all") == []
    assert known_until(exported, NOW) == moment("2024-05-25")
    assert known_until(exported, moment("2024-05-02")) == moment("2024-05-02")


def test_what_is_told_late_counts_from_when_it_was_known() -> None:
    row = deal("d", "2024-04-01T00:00Z", "2024-05-20T00:00Z", recorded_at="2024-06-15T00:00:00Z",
               recorded_assumed=False)  # fmt: skip
    assert actuals(history(deal=[row]), "all", now=moment("2024-06-10")) == [0.0]
    assert actuals(history(deal=[row]), "all", now=moment("2024-06-20")) == [1000.0]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 10**9),
                          st.sampled_from(["ann", "bob", "cy", None])), max_size=12))  # fmt: skip
def test_groups_add_up_to_the_whole_to_the_cent(
    deals: list[tuple[int, int, int, str | None]],
) -> None:
    start = np.datetime64("2024-04-01", "h")
    rows = [
        deal(f"d{i}", f"{start + 24 * created}:00Z", f"{start + 24 * (created + days) + 1}:00Z",
             amount=cents / 100, owner_id=owner)
        for i, (created, days, cents, owner) in enumerate(deals)
    ]  # fmt: skip
    whole, *parts = actuals(history("EUR", deal=rows), *sorted(OWNERS), now=moment("2025-01-01"))
    inside = [cents for created, days, cents, _ in deals if 30 <= created + days < 61]
    assert round(100 * whole) == sum(inside)
    assert sum(round(100 * p) for p in parts) == sum(inside)


# --- how it is judged ------------------------------------------------------------------------


def test_a_verdict() -> None:
    crm = history(deal=[deal("d", "2024-04-01T00:00Z", "2024-05-20T00:00Z", amount=50.0)])
    ranges = {"0.1": 50.0, "0.25": 60.0, "0.5": 90.0, "0.75": 100.0, "0.9": 160.0}
    (found,) = verify_forecasts(crm, [claim(quantiles=ranges, target=50.0)], NOW)
    assert found is not None
    assert (found.actual, found.error, found.reached) == (50.0, 50.0, True)
    assert found.held == {0.5: False, 0.8: True}  # the ends belong to a range
    (missed,) = verify_forecasts(crm, [claim(target=50.01)], NOW)
    assert missed is not None and missed.reached is False


@pytest.mark.parametrize(
    "law", [stats.norm(10, 2), stats.gamma(2, scale=3), stats.lognorm(0.6)], ids=str
)
def test_crps_is_read_off_the_quantiles(law: Any) -> None:
    draws = law.rvs(20_000, random_state=1)
    quantiles = {f"{q:g}": float(np.quantile(draws, q)) for q in LEVELS}
    seen = law.rvs(100, random_state=2)
    true = np.array([crps_sample(draws, y) for y in seen])
    read = np.array([crps_of(quantiles, float(y)) for y in seen])
    assert read.mean() == pytest.approx(true.mean(), rel=0.01)
    assert np.abs(read - true).mean() < 0.03 * true.mean()


def test_crps_of_one_quantile_is_its_distance() -> None:
    assert crps_of({"0.5": 3.0}, 5.0) == 2.0


def test_the_summary_leaves_out_what_was_said_afterwards() -> None:
    crm = history(deal=[deal("d", "2024-04-01T00:00Z", "2024-05-20T00:00Z", amount=80.0)])
    claims = [
        claim(target=100.0, probability_of_target=0.4),
        claim(mean=60.0),
        claim(issued_at=moment("2024-06-01")),
        claim(hindsight=True),
        claim(start=moment("2024-06-01"), end=moment("2024-09-01")),
    ]
    found = forecast_summary(claims, verify_forecasts(crm, claims, NOW))
    assert [found[k] for k in ("n", "periods", "pending", "excluded")] == [2, 1, 1, 2]
    assert found["bias"] == pytest.approx(0.0) and found["mae"] == pytest.approx(0.25)
    (eighty,) = found["coverage"]
    assert (eighty["level"], eighty["measured"], eighty["n"]) == (0.8, 1.0, 2)
    assert 0 < eighty["low"] < 1 and eighty["high"] == 1
    assert found["target"] == {
        "brier": pytest.approx(0.16), "mean_probability": 0.4, "reached": 0.0, "n": 1,
    }  # fmt: skip
    nothing = forecast_summary([], [])
    assert (nothing["n"], nothing["bias"], nothing["coverage"]) == (0, None, [])


# --- scores ----------------------------------------------------------------------------------


def scores(*rows: tuple[str, str, float, float], **more: Any) -> ScoreClaims:
    """(id, as_of, days, probability), given at their as_of."""
    ids = np.array([r[0] for r in rows], dtype=object)
    as_of = np.array([moment(r[1]) for r in rows]).astype(np.int64)
    days, p = (np.array([r[k] for r in rows], dtype=np.float64) for k in (2, 3))
    made = ScoreClaims("deal", ids, as_of, as_of, days, p, np.zeros(len(rows), dtype=bool))
    return replace(made, **more)


def test_a_score_is_held_against_its_own_days() -> None:
    crm = history(
        deal=[
            deal("won", "2024-04-01T00:00Z", "2024-05-20T00:00Z"),
            deal("lost", "2024-04-01T00:00Z", "2024-05-20T00:00Z", outcome="lost"),
            deal("open", "2024-04-01T00:00Z"),
            deal("gone", "2024-04-01T00:00Z", deleted_at="2024-05-15T00:00:00Z"),
        ]
    )
    asked = scores(
        ("won", "2024-05-10", 7, 0.5), ("won", "2024-05-10", 28, 0.5),
        ("won", "2024-05-13", 7, 0.5), ("won", "2024-05-10", 91, 0.5),
        ("won", "2024-05-21", 7, 0.5), ("lost", "2024-05-10", 28, 0.5),
        ("open", "2024-05-10", 28, 0.5), ("gone", "2024-05-10", 28, 0.5),
        ("none", "2024-05-10", 7, 0.5),
    )  # fmt: skip
    np.testing.assert_array_equal(
        verify_scores(crm, asked, NOW), [0, 1, 1, np.nan, 0, 0, 0, np.nan, np.nan]
    )


def test_the_summary_of_scores_counts_what_is_judged_pending_and_left_out() -> None:
    crm = history(
        deal=[deal("won", "2024-04-01T00:00Z", "2024-05-20T00:00Z"), deal("open", "2024-04-01")]
    )
    asked = scores(
        ("won", "2024-05-10", 28, 0.8), ("open", "2024-05-10", 28, 0.4),
        ("open", "2024-06-20", 28, 0.4),
        ("won", "2024-05-10", 28, 0.9), ("won", "2024-05-10", 7, 0.9),
    )  # fmt: skip
    late = asked.issued_at.copy()
    late[3] += 40 * 86_400_000_000
    asked = replace(asked, issued_at=late)
    seven, month = score_summary(asked, verify_scores(crm, asked, NOW))
    assert (seven["days"], seven["n"], seven["rate"]) == (7.0, 1, 0.0)
    assert [month[k] for k in ("n", "records", "pending", "excluded")] == [2, 2, 1, 1]
    assert month["brier"] == pytest.approx((0.04 + 0.16) / 2)
    assert month["mean_probability"] == pytest.approx(0.6) and month["rate"] == 0.5
    assert sum(b["n"] for b in month["bands"]) == 2
    none = score_summary(asked, np.full(5, np.nan))[0]
    assert (none["n"], none["brier"], none["bands"]) == (0, None, [])


def test_how_deals_ended() -> None:
    crm = history(
        deal=[
            deal("won", "2024-04-01T00:00Z", "2024-05-20T12:00Z", closed_amount=70.0),
            deal("lost", "2024-04-01T00:00Z", "2024-05-20T00:00Z", outcome="lost"),
            deal("open", "2024-04-01T00:00Z"),
        ]
    )
    won, lost, still, none = deal_outcomes(crm, ["won", "lost", "open", "none"], NOW)
    assert won is not None and lost is not None and still is None and none is None
    assert (won.amount, won.closed_at) == (70.0, moment("2024-05-20T12:00"))
    assert won.closed_day == np.datetime64("2024-05-20").astype(int)
    assert lost.amount == 0.0
    assert deal_outcomes(crm, ["won"], moment("2024-05-19")) == [None]
