"""The KPIs, each by hand on a few records, and why where the records cannot tell."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.history import History, HistoryError
from data.records import ENTITIES, Table
from scoring import metrics as kpi
from scoring.attention import attention
from scoring.books import Books
from scoring.changes import KINDS
from scoring.kpi import Kpi
from tests import worlds
from tests.scoring.crm_books import books_of
from tests.small_crm import deal, history, moment, move, stages

NOW = "2024-05-15T12:00"
DOCS = (Path(__file__).parents[2] / "docs" / "kpis.md").read_text("utf-8")


def lost(deal_id: str, created: str, closed: str, **fields: Any) -> dict[str, Any]:
    return deal(deal_id, created, closed, outcome="lost", **fields)


def to_date(name: str, crm: History, at: str = NOW, **options: Any) -> Kpi:
    """A KPI of the period to date."""
    books = books_of(crm, at, **options)
    of_window: Callable[..., Kpi] = getattr(kpi, name)
    return of_window(books, books.to_date)


CLOSED = history(
    deal=[
        deal("w1", "2024-04-01T00:00Z", "2024-05-01T00:00Z", closed_amount=800.0),
        deal("w2", "2024-04-21T00:00Z", "2024-05-11T00:00Z", amount=300.0),
        deal("w3", "2024-05-02T00:00Z", "2024-05-12T00:00Z", closed_amount=1000.0),
        lost("l1", "2024-04-01T00:00Z", "2024-05-03T00:00Z", amount=700.0),
        lost("before", "2024-04-01T00:00Z", "2024-04-30T23:59Z", amount=9e6),
        deal("later", "2024-04-01T00:00Z", "2024-05-15T12:01Z", closed_amount=9e6),
        deal("gone", "2024-04-01T00:00Z", "2024-05-04T00:00Z", deleted_at="2024-05-10T00:00Z"),
        deal("open", "2024-05-01T00:00Z", amount=250.0),
    ]
)


@pytest.mark.parametrize(
    ("name", "value", "n"),
    [
        ("win_rate", 3 / 4, 4),
        ("win_rate_by_value", 2100 / 2800, 4),
        ("mean_sales_cycle", 20.0, 3),
        ("median_sales_cycle", 20.0, 3),
        ("deal_size", 700.0, 3),
        ("median_deal_size", 800.0, 3),
        ("closed_value", 2100.0, 3),
    ],
)
def test_deals_closed_in_the_period_so_far(name: str, value: float, n: int) -> None:
    found = to_date(name, CLOSED)
    assert found.value == pytest.approx(value) and found.n == n
    assert (found.name, found.window) == (name, "2024-05")
    early = to_date(name, CLOSED, "2024-05-01T00:00")  # the first moment of the period counts
    assert early.n == 1


def test_velocity_is_the_product_of_its_parts() -> None:
    found = to_date("pipeline_velocity", CLOSED)
    # "later" is still open now, and so is "open": two deals
    assert found.value == pytest.approx(2 * 0.75 * 700 / 20)
    assert found.n == 2 and found.unit == "money a day"


def test_nothing_closed_is_told_and_not_zero() -> None:
    crm = history(deal=[deal("open", "2024-05-01T00:00Z")])
    for name in ("win_rate", "win_rate_by_value", "mean_sales_cycle", "median_sales_cycle",
                 "deal_size", "median_deal_size", "closed_value", "pipeline_velocity"):  # fmt: skip
        found = to_date(name, crm)
        assert found.value is None and found.n == 0, name
        assert "2024-05" in found.reason or "ever closed" in found.reason, found


def test_a_reopening_takes_the_closed_value_back_on_its_day() -> None:
    crm = history(
        deal=[deal("d", "2024-03-01T00:00Z", amount=500.0)],
        stage=[*stages(), {"pipeline_id": "p", "stage_id": "W", "name": "W", "sort_order": 9,
                           "kind": "won"}],
        stage_change=[move("d", "2024-04-10T00:00Z", "W", "new"),
                      move("d", "2024-05-10T00:00Z", "talk", "W")],
    )  # fmt: skip
    assert to_date("closed_value", crm, "2024-04-20").value == 500.0
    assert books_of(crm, NOW).won_in(books_of(crm, NOW).to_date) == -500_00


def test_the_worked_example_of_a_weighted_pipeline() -> None:
    crm = history(
        deal=[deal(f"d{i}", "2024-05-01T00:00Z", amount=100_000.0, stage_id="talk")
              for i in range(10)],
        stage=stages(default_probability=[0.2, 0.6, 0.9]),
    )  # fmt: skip
    found = kpi.weighted_pipeline_crm(books_of(crm, NOW))
    assert (found.value, found.n, found.reason) == (600_000.0, 10, "")


def test_the_worked_example_of_closed_value() -> None:
    crm = history(deal=[deal(f"d{i}", "2024-04-01T00:00Z", "2024-05-02T00:00Z",
                             closed_amount=100_000.0) for i in range(5)])  # fmt: skip
    found = to_date("closed_value", crm)
    assert (found.value, found.n) == (500_000.0, 5)


def test_a_deals_own_probability_counts_before_its_stages() -> None:
    now = "2024-05-01T00:00Z"
    crm = history(
        deal=[
            deal("own", now, stage_id="talk", probability=0.1, seen_at=now),
            deal("stage", now, stage_id="talk"),
            deal("none", now, stage_id="offer"),
        ],
        stage=stages(default_probability=[0.2, 0.6, None]),
    )
    found = kpi.weighted_pipeline_crm(books_of(crm, NOW))
    assert found.value == pytest.approx(700.0) and found.n == 2
    assert found.reason == "1 more lack an amount or a probability"
    bare = kpi.weighted_pipeline_crm(books_of(history(deal=[deal("d", now)]), NOW))
    assert bare.value is None and bare.reason == "none of 1 open deals has a probability"


def test_learnt_rates_weigh_the_pipeline_where_there_is_a_model() -> None:
    books = books_of(worlds.company(), worlds.cut_time(), bundle=worlds.deals())
    found = kpi.weighted_pipeline(books)
    rates = worlds.deals().stage_rates
    levels = books.open.ledger.stage_levels
    by_hand = sum(
        amount * rates[str(levels[stage])]["rate"]
        for amount, stage in zip(books.open.amount, books.open.stage, strict=True)
    )
    assert found.value == pytest.approx(by_hand) and found.n == len(books.open)
    without = kpi.weighted_pipeline(books_of(worlds.company(), worlds.cut_time()))
    assert without.value is None and "no model" in without.reason


def test_open_deals_without_amounts_are_told() -> None:
    some = history(deal=[deal("a", "2024-05-01T00:00Z", amount=None),
                         deal("b", "2024-05-01T00:00Z", amount=7.0)])  # fmt: skip
    found = kpi.open_pipeline(books_of(some, NOW))
    assert (found.value, found.n, found.reason) == (7.0, 2, "1 of them carry no amount")
    none = history("EUR", deal=[deal("a", "2024-05-01T00:00Z", amount=None)])
    assert kpi.open_pipeline(books_of(none, NOW)).value is None


# --- targets


def quota(scope: str, scope_id: str, amount: float, **more: Any) -> dict[str, Any]:
    return {"scope": scope, "scope_id": scope_id, "period_start": "2024-05-01",
            "period_end": "2024-06-01", "amount": amount} | more  # fmt: skip


def sold(*targets: dict[str, Any], **more: Any) -> Books:
    crm = history(
        deal=[
            deal("a", "2024-04-01T00:00Z", "2024-05-03T00:00Z", owner_id="ann", amount=400.0),
            deal("b", "2024-04-01T00:00Z", "2024-05-04T00:00Z", owner_id="bob", amount=100.0),
            deal("c", "2024-05-01T00:00Z", amount=900.0, expected_close_date="2024-05-31"),
            deal("d", "2024-05-01T00:00Z", amount=600.0, expected_close_date="2024-06-01"),
        ],
        target=list(targets),
    )
    return books_of(crm, NOW, **more)


def test_attainment_and_coverage_measure_by_exactly_the_periods_target() -> None:
    books = sold(quota("all", "all", 1000.0))
    assert kpi.target_attainment(books).value == 0.5
    assert kpi.pipeline_coverage(books).value == 1500 / 500
    assert kpi.pipeline_coverage_expected(books).value == 900 / 500
    quarter = sold(quota("all", "all", 1000.0), period="quarter")
    for name in ("target_attainment", "pipeline_coverage", "pipeline_coverage_expected"):
        found = getattr(kpi, name)(quarter)
        assert found.value is None and "2024-Q2" in found.reason


def test_a_target_that_is_reached_leaves_nothing_to_cover() -> None:
    books = sold(quota("all", "all", 450.0))
    assert kpi.target_attainment(books).value == pytest.approx(500 / 450)
    found = kpi.pipeline_coverage(books)
    assert found.value is None and "reached" in found.reason


def test_the_share_of_reps_at_their_target() -> None:
    books = sold(quota("owner", "ann", 400.0), quota("owner", "bob", 200.0),
                 quota("owner", "cat", 5.0), quota("owner", "dan", 3.0, kind="deals"))  # fmt: skip
    found = kpi.reps_at_target(books)
    assert found.value == pytest.approx(1 / 3) and found.n == 3
    assert {p.name: p.value for p in found.parts} == {"ann": 1.0, "bob": 0.5, "cat": 0.0}
    assert kpi.reps_at_target(sold()).value is None


# --- leads and work


def lead(lead_id: str, created: str, **fields: Any) -> dict[str, Any]:
    return {"lead_id": lead_id, "created_at": created, "outcome": "open", "source": "crm"} | fields


def done(number: int, at: str, lead_id: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"activity_id": f"x{number}", "occurred_at": at, "lead_id": lead_id, "type": "call",
            "direction": "outbound"} | fields  # fmt: skip


def test_response_time_counts_unanswered_leads_as_waiting() -> None:
    leads = [lead(f"l{i}", "2024-05-02T00:00Z") for i in range(5)]
    answers = [
        done(1, "2024-05-02T02:00:00Z", "l0"),
        done(2, "2024-05-02T01:00:00Z", "l1", direction="inbound"),
        done(3, "2024-05-02T06:00:00Z", "l1"),
        done(4, "2024-05-02T10:00:00Z", "l2"),
        done(5, "2024-05-16T00:00:00Z", "l3"),  # not yet
        done(6, "2024-05-01T00:00:00Z", "l4"),  # before it was a lead
    ]
    found = to_date("lead_response_time", history(lead=leads, activity=answers))
    assert (found.value, found.n) == (10.0, 5)
    assert found.reason == "3 of 5 were answered so far"
    few = to_date("lead_response_time", history(lead=leads, activity=answers[:1]))
    assert few.value is None and "fewer than half" in few.reason
    silent = to_date("lead_response_time", history(lead=leads))
    assert silent.value is None and "no activity" in silent.reason
    assert "no lead was created" in to_date("lead_response_time", history()).reason


def test_lead_conversion_by_source() -> None:
    def decided(lead_id: str, outcome: str, at: str, source: str | None) -> dict[str, Any]:
        return lead(lead_id, "2024-04-01T00:00Z", outcome=outcome, lead_source=source,
                    seen_at="2024-04-01T00:00Z", **{f"{outcome}_at": at})  # fmt: skip

    crm = history(lead=[
        decided("a", "qualified", "2024-05-02T00:00Z", "web"),
        decided("b", "disqualified", "2024-05-03T00:00Z", "web"),
        decided("c", "qualified", "2024-05-04T00:00Z", None),
        decided("d", "qualified", "2024-04-30T00:00Z", "web"),
        lead("e", "2024-05-01T00:00Z"),
    ])  # fmt: skip
    found = to_date("lead_conversion", crm)
    assert found.value == pytest.approx(2 / 3) and found.n == 3
    assert [(p.name, p.value, p.n) for p in found.parts] == [("web", 0.5, 2), ("unknown", 1.0, 1)]
    assert to_date("lead_conversion", history()).value is None


def test_meetings_took_place_in_the_window_and_were_known() -> None:
    work = [
        done(1, "2024-05-02T00:00:00Z", type="Meeting"),
        done(2, "2024-05-03T00:00:00Z", type="sales meeting"),
        done(3, "2024-05-03T00:00:00Z", type="call"),
        done(4, "2024-04-03T00:00:00Z", type="meeting"),
        done(5, "2024-05-04T00:00:00Z", type="meeting", recorded_at="2024-05-20T00:00:00Z"),
    ]
    assert to_date("meetings", history(activity=work)).value == 2.0
    none = to_date("meetings", history(activity=work[2:3]))
    assert none.value is None and "types seen: call" in none.reason
    quiet = to_date("meetings", history(activity=work[:1]), "2024-06-10")
    assert quiet.value == 0.0  # meetings are recorded, and there were none


# --- renewals


def test_retention_and_churn_of_renewals_alone() -> None:
    seen = "2024-04-01T00:00Z"
    crm = history(deal=[
        deal("a", seen, "2024-05-02T00:00Z", deal_type="Renewal", seen_at=seen, amount=300.0),
        deal("b", seen, "2024-05-03T00:00Z", pipeline_id="renewals-eu", seen_at=seen, amount=50.0),
        lost("c", seen, "2024-05-04T00:00Z", deal_type="renewal", seen_at=seen, amount=150.0),
        lost("d", seen, "2024-05-04T00:00Z", deal_type="new", seen_at=seen),
    ])  # fmt: skip
    kept, gone = to_date("retention", crm), to_date("churn", crm)
    assert kept.value == pytest.approx(2 / 3) and kept.n == 3
    assert gone.value == pytest.approx(1 / 3)
    assert [p.value for p in (*kept.parts, *gone.parts)] == [pytest.approx(0.7), pytest.approx(0.3)]
    assert to_date("churn", CLOSED).value is None


# --- all together


def test_every_kpi_is_defined_in_the_guide_and_says_why_where_it_is_not_told() -> None:
    figures = DOCS.partition("## Pace")[0]
    defined = set(re.findall(r"^\| `(\w+)` \|", figures, flags=re.MULTILINE))
    empty = History({"lead": Table.empty(ENTITIES["lead"])}, (), None)
    for crm, at in ((empty, moment(NOW)), (worlds.company(), worlds.cut_time())):
        books = books_of(crm, at, "quarter")
        found = kpi.metrics(books)
        assert {k.name for k in found.kpis} == defined
        for k in found.kpis:
            assert (k.value is None) <= bool(k.reason), k
            assert k.value is None or np.isfinite(k.value), k
    assert found.pace.past and found.flagged


def test_the_guide_tells_every_kind_of_change_and_its_examples_hold() -> None:
    moved = DOCS.partition("## What moved")[2]
    assert set(KINDS) <= set(re.findall(r"`(\w+)`", moved))
    blocks = re.findall(r"```python\n(.*?)```", DOCS, flags=re.DOTALL)
    assert len(blocks) == 2
    exec("\n".join(blocks), {})


def test_kpis_of_a_moment_know_nothing_later() -> None:
    crm, at = worlds.company(), worlds.cut_time()
    later = np.datetime64(crm.observed_until, "us")

    def before(table: Table) -> Table:
        recorded = table["recorded_at"]
        return table.take(np.isnat(recorded) | (recorded <= at))

    events = ("stage_change", "field_change", "activity")
    cut = {n: before(t) if n in events else t for n, t in crm.tables.items()}
    known = History(cut, crm.facts)
    assert later > at
    # The rows as they stand now say how deals ended: only events may be left out here.
    for name in ("meetings", "lead_response_time"):
        one, other = (
            getattr(kpi, name)(b, b.to_date) for b in (books_of(crm, at), books_of(known, at))
        )
        assert one == other


def test_a_rate_that_is_missing_is_an_error_and_no_kpi() -> None:
    crm = history("EUR", deal=[deal("d", "2024-05-01T00:00Z", currency="USD")])
    with pytest.raises(HistoryError, match="no rate from USD"):
        kpi.open_pipeline(books_of(crm, NOW))


def test_flags_become_money_with_counts() -> None:
    crm = history(deal=[
        deal("late", "2024-05-01T00:00Z", amount=70.0, expected_close_date="2024-05-14"),
        deal("well", "2024-05-01T00:00Z", amount=9.0, expected_close_date="2024-05-20"),
    ])  # fmt: skip
    books = books_of(crm, NOW)
    found = attention(books)
    slipped = kpi.slipped_deals(books, found)
    assert (slipped.value, slipped.n) == (70.0, 1)
    assert [(p.value, p.n) for p in slipped.parts] == [(70.0, 1), (0.0, 0)]
    risk = kpi.at_risk_deals(books, found)
    assert (risk.value, risk.n) == (70.0, 1)
    assert risk.reason == "of 2 deals expected by the end of 2024-05; slipped or stalled"
    stalled = kpi.stalled_deals(books, found)
    assert stalled.value is None and "too few won deals" in stalled.reason
    over = books_of(crm, NOW, "2024-04")
    assert kpi.at_risk_deals(over, attention(over)).value is None
    undated = books_of(history(deal=[deal("d", "2024-05-01T00:00Z")]), NOW)
    assert kpi.slipped_deals(undated, attention(undated)).value is None
