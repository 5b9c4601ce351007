"""People's numbers beside the model's: which is compared with which, and who was nearer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from data.pipeline import FiscalCalendar
from scoring.overrides import (
    Comparison,
    DealClaim,
    compare_commits,
    compare_overrides,
    value_added,
)
from scoring.verify import Claim
from tests.scoring.test_verify import NOW, claim
from tests.small_crm import deal, history, moment

CALENDAR = FiscalCalendar()


def commit(
    amount: float, at: str, scope: str = "all", group: str = "all", **more: Any
) -> dict[str, Any]:
    return {
        "author_id": "boss", "scope": scope, "scope_id": group, "period_start": "2024-05-01",
        "period_end": "2024-06-01", "changed_at": at, "amount": amount, "reason": "a feeling",
    } | more  # fmt: skip


def compared(commits: list[dict[str, Any]], claims: list[Claim]) -> tuple[list[Comparison], int]:
    rows = [
        deal("a", "2024-04-01T00:00Z", "2024-05-20T00:00Z", owner_id="ann", amount=80.0),
        deal("b", "2024-04-01T00:00Z", "2024-05-20T00:00Z", owner_id="bob", amount=20.0),
    ]
    return compare_commits(history(deal=rows, commit=commits), CALENDAR, claims, NOW)


def test_a_commit_is_held_against_the_forecast_last_issued_before_it() -> None:
    claims = [
        claim(mean=120.0, issued_at=moment("2024-05-08")),
        claim(mean=130.0, issued_at=moment("2024-05-12")),
        claim("ann", mean=70.0, issued_at=moment("2024-05-08")),
    ]
    (first, second, ann), alone = compared(
        [
            commit(110.0, "2024-05-13T00:00:00Z"),
            commit(110.0, "2024-05-10T00:00:00Z"),
            commit(95.0, "2024-05-10T00:00:01Z", "owner", "ann"),
        ],
        claims,
    )
    assert alone == 0
    assert (first.model, first.human, first.actual) == (120.0, 110.0, 100.0)
    assert first.errors == {"absolute": (10.0, 20.0)}
    assert (second.model, second.claim) == (70.0, claims[2])
    assert second.errors == {"absolute": (15.0, 10.0)}
    assert (ann.model, ann.reason, ann.author_id) == (130.0, "a feeling", "boss")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (commit(1.0, "2024-05-10T00:00:00Z"), {"issued_at": moment("2024-05-11")}),
        (commit(1.0, "2024-05-20T00:00:00Z"), {}),  # the forecast is ten days old
        (commit(1.0, "2024-05-11T00:00:00Z"), {"hindsight": True}),
        (commit(1.0, "2024-05-11T00:00:00Z"), {"measure": "count"}),
        (commit(1.0, "2024-05-11T00:00:00Z", "team", "ann"), {"group": "ann"}),
        (commit(1.0, "2024-05-11T00:00:00Z", period_end="2024-07-01"), {}),
        # Entered when all was over, whatever date it bears.
        (commit(1.0, "2024-05-11T00:00:00Z", recorded_at="2024-06-02T00:00:00Z"), {}),
    ],
)
def test_a_commit_without_a_forecast_of_its_time_is_counted_apart(
    made: dict[str, Any], said: dict[str, Any]
) -> None:
    assert compared([made], [claim(**said)]) == ([], 1)


def test_a_commit_of_a_running_period_waits() -> None:
    rows = [deal("a", "2024-04-01T00:00Z")]
    made = commit(110.0, "2024-05-11T00:00:00Z")
    crm = history(deal=rows, commit=[made])
    ((found,), _) = compare_commits(crm, CALENDAR, [claim()], moment("2024-05-25"))
    assert found.actual is None and found.errors == {}
    (row,) = value_added([found])
    assert (row["n"], row["pending"], row["added"]) == (0, 1, None)


# --- deals -----------------------------------------------------------------------------------


def override(
    deal_id: str, field: str, value: str, at: str = "2024-05-10T12:00:00Z"
) -> dict[str, Any]:
    return {"deal_id": deal_id, "author_id": "rep", "changed_at": at, "field": field,
            "value": value}  # fmt: skip


def test_overrides_of_a_deal() -> None:
    said = [
        DealClaim(moment("2024-05-10"), 0.4, 90.0, np.datetime64("2024-05-30")),
        DealClaim(moment("2024-05-11"), 0.9, 1.0, np.datetime64("2030-01-01")),
    ]
    crm = history(
        deal=[
            deal("w", "2024-04-01T00:00Z", "2024-05-20T00:00Z", closed_amount=70.0),
            deal("l", "2024-04-01T00:00Z", "2024-05-20T00:00Z", outcome="lost"),
            deal("o", "2024-04-01T00:00Z"),
        ],
        override=[
            override("w", "probability", "0.9"), override("w", "amount", "75"),
            override("w", "close_date", "2024-05-22"), override("l", "probability", "1"),
            override("l", "amount", "75"), override("o", "probability", "0.2"),
            override("w", "probability", "90", "2024-05-10T13:00:00Z"),
            override("w", "mood", "good"), override("none", "probability", "0.5"),
            override("w", "probability", "1", "2024-05-21T00:00:00Z"),
        ],
    )  # fmt: skip
    found, alone = compare_overrides(crm, dict.fromkeys("wlo", said), NOW)
    assert alone == 3  # no probability, no field that is known, no score
    by = {(c.about["deal_id"], c.kind): c for c in found}
    assert len(found) == len(by) == 6
    sure = by["w", "probability"]
    assert sure.actual == 1.0 and sure.model == 0.4
    assert sure.errors["brier"] == pytest.approx((0.01, 0.36))
    assert sure.errors["log_loss"] == pytest.approx((-math.log(0.9), -math.log(0.4)))
    assert by["w", "amount"].errors == {"absolute": (5.0, 20.0)}
    assert by["w", "close_date"].errors == {"absolute": (2.0, 10.0)}
    # Sure and wrong: as bad as a score of 99, not infinitely so.
    assert by["l", "probability"].errors["log_loss"][0] == pytest.approx(-math.log(0.01))
    assert by["l", "amount"].actual is None and by["o", "probability"].actual is None
    table = {(r["kind"], r["measure"]): r for r in value_added(found)}
    assert list(table) == [
        ("probability", "brier"), ("probability", "log_loss"), ("amount", "absolute"),
        ("close_date", "absolute"),
    ]  # fmt: skip
    both = table["probability", "brier"]
    assert (both["n"], both["subjects"], both["pending"]) == (2, 2, 1)
    assert both["human_error"] == pytest.approx((0.01 + 1.0) / 2)
    assert both["model_error"] == pytest.approx((0.36 + 0.16) / 2)
    assert both["added"] == pytest.approx(both["model_error"] - both["human_error"])
    assert both["low"] <= both["added"] <= both["high"]
    assert table["amount", "absolute"]["low"] is None  # one deal says nothing of others


def test_the_interval_of_what_was_added_counts_subjects_not_numbers() -> None:
    def made(start: str, human: float, model: float) -> Comparison:
        about = {"start": start, "end": "", "group": "all"}
        return Comparison("forecast", "a", NOW, None, about, 0.0, 0.0, NOW, 0.0,
                          {"absolute": (human, model)})  # fmt: skip

    rng = np.random.default_rng(3)
    gains = rng.normal(1.0, 1.0, 40)
    once = [made(str(i), 5.0, 5.0 + g) for i, g in enumerate(gains)]
    (alone,) = value_added(once)
    (tenfold,) = value_added(once * 10)
    assert (alone["n"], tenfold["n"], tenfold["subjects"]) == (40, 400, 40)
    assert (alone["low"], alone["high"]) == pytest.approx((tenfold["low"], tenfold["high"]))
    spread = 1.96 * gains.std() / math.sqrt(40)
    assert alone["high"] - alone["low"] == pytest.approx(2 * spread, rel=0.15)
