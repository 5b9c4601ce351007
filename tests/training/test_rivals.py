"""The plain methods, fed with what was known at the origin: small companies written out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from data.history import History
from data.pipeline import FiscalCalendar, PeriodKind
from tests.small_crm import Row, after, change, deal, history, moment
from training.backtest import METHODS, backtest
from training.fitting import Recipe
from training.replayed import Issued
from training.rivals import NEEDS, RIVALS

RECIPE = Recipe(FiscalCalendar(), landmarks=600)
START = "2024-01-01"


def steady(
    weeks: int, amount: float = 100.0, owner: str = "ann", tag: str = "w"
) -> list[dict[str, Any]]:
    """One deal a week, won on its Wednesday for always the same."""
    return [
        deal(f"{tag}{i}", after(START, 7 * i), after(START, 7 * i + 2.5), amount=amount,
             closed_amount=amount, owner_id=owner)
        for i in range(weeks)
    ]  # fmt: skip


def crm(deals: Sequence[Row], weeks: int = 80, **more: Any) -> History:
    return history(deal=deals, until=after(START, 7 * weeks), **more)


def said(found: Sequence[Issued], group: str = "all") -> dict[tuple[str, str], Issued]:
    return {(i.method, i.window): i for i in found if i.group == group}


def days(crm: History, at: str, horizon: float = 28, **more: Any) -> dict[tuple[str, str], Issued]:
    return said(backtest(crm, [moment(at)], [horizon], RECIPE, draws=400, **more))


def periods(
    crm: History, at: str, period: PeriodKind = "month", group: str = "all", **more: Any
) -> dict[tuple[str, str], Issued]:
    found = backtest(crm, [moment(at)], [], RECIPE, draws=400, period=period, **more)
    return said(found, group)


def test_in_a_company_without_change_all_series_methods_agree() -> None:
    open_deals = [deal(f"o{i}", after(START, 7 * i), amount=300.0) for i in range(80)]
    found = days(crm(steady(80) + open_deals), after(START, 60 * 7).removesuffix("Z"))
    for method in ("past mean", "seasonal naive", "exponential smoothing"):
        issued = found[method, "28 days"]
        assert issued.mean == pytest.approx(400.0, rel=0.02), method
        assert issued.actual == 400.0


def test_methods_that_cannot_speak_are_absent() -> None:
    found = days(crm(steady(12)), after(START, 5 * 7).removesuffix("Z"), horizon=14)
    methods = {method for method, _ in found}
    assert "past mean" in methods
    assert methods.isdisjoint({"seasonal naive", "exponential smoothing", "CRM's own", "growth",
                               "commit"})  # fmt: skip
    assert set(NEEDS) < set(RIVALS) < set(METHODS)


def test_a_season_seen_once_gives_a_number_without_a_range() -> None:
    found = days(crm(steady(30)), after(START, 17 * 7).removesuffix("Z"))
    issued = found["seasonal naive", "28 days"]
    assert issued.mean == 400.0 and not issued.ranged


def test_the_rest_of_a_period_is_added_to_what_was_won_in_it() -> None:
    found = periods(crm(steady(70)), "2025-03-17")
    won = found["dealcast", "this month"].components["won"]
    assert won == 200.0  # the Wednesdays before the 17th
    growth = found["growth", "this month"]
    assert growth.mean >= won and ("growth", "next month") not in found
    assert found["past mean", "this month"].mean == pytest.approx(400.0, abs=60)
    assert found["past mean", "next month"].mean == pytest.approx(440.0, abs=60)
    assert found["dealcast", "this month"].actual == 400.0
    assert found["dealcast", "this month"].period == "2025-03"


def test_the_crms_own_probabilities_count_by_close_date() -> None:
    def one(name: str, due: str) -> Row:
        return deal(name, "2024-01-02T08:00Z", amount=1000.0, expected_close_date=due)

    deals = [
        one("soon", "2024-03-10"), one("late", "2024-05-01"), one("overdue", "2024-02-01"),
        one("unsaid", "2024-03-11"),
        deal("undated", "2024-01-02T08:00Z", amount=100.0), *steady(6),
    ]  # fmt: skip
    kept = [
        change(d, "2024-01-02T08:00Z", "probability", None, chance)
        for d, chance in (("soon", 0.5), ("late", 0.5), ("overdue", 0.25), ("undated", 1.0))
    ]
    company = crm(deals, field_change=kept)
    near = days(company, "2024-03-01", horizon=30)["CRM's own", "30 days"]
    assert near.mean == pytest.approx(500 + 250 + 100, rel=0.1)
    far = days(company, "2024-03-01", horizon=91)["CRM's own", "91 days"]
    assert far.mean == pytest.approx(1000 + 250 + 100, rel=0.1)
    # Before the CRM said anything of them there was nothing to add up.
    assert ("CRM's own", "7 days") not in days(company, "2024-01-02T04:00", horizon=7)


def commit(amount: float, at: str, **fields: Any) -> Row:
    row = {"author_id": "boss", "scope": "all", "scope_id": "all", "period_start": "2024-05-01",
           "period_end": "2024-06-01", "changed_at": at, "amount": amount}  # fmt: skip
    return row | fields


def test_the_newest_commit_known_then_counts_for_its_period_and_group() -> None:
    company = crm(
        steady(30),
        commit=[
            commit(900.0, "2024-04-20T08:00Z"),
            commit(800.0, "2024-05-02T08:00Z", author_id="deputy"),
            commit(700.0, "2024-05-03T08:00Z", recorded_at="2024-05-20T08:00Z"),
            commit(1.0, "2024-05-01T08:00Z", scope="owner", scope_id="ann"),
            commit(9e9, "2024-05-01T08:00Z", period_end="2024-08-01"),
        ],
    )
    options: Any = {"by": "owner"}
    found = periods(company, "2024-05-06", **options)["commit", "this month"]
    assert found.mean == 800.0 and not found.ranged and found.crps == abs(800.0 - found.actual)
    assert periods(company, "2024-05-06", group="ann", **options)["commit", "this month"].mean == 1
    assert ("commit", "next month") not in periods(company, "2024-05-06")
    assert periods(company, "2024-05-21")["commit", "this month"].mean == 700.0
    assert periods(company, "2024-04-22", ahead=2)["commit", "next month"].mean == 900.0


def test_each_group_has_its_own_past() -> None:
    company = crm(steady(70) + steady(70, 1000.0, "bob", "b"))
    found = backtest(
        company, [moment("2025-03-03")], [28], RECIPE, by="owner", draws=400
    )  # fmt: skip
    for method in ("past mean", "seasonal naive", "exponential smoothing"):
        means = {i.group: i.mean for i in found if i.method == method}
        assert means["ann"] == pytest.approx(400.0, rel=0.02), method
        assert means["bob"] == pytest.approx(4000.0, rel=0.02), method
        assert means["all"] == pytest.approx(4400.0, rel=0.02), method


def test_a_quarter_end_rhythm_is_known_to_the_season_alone() -> None:
    deals = steady(80)
    for i, row in enumerate(deals):
        if i % 13 >= 11:  # the last two weeks of every quarter
            row["closed_amount"] = 1000.0
    at = after(START, 7 * 63).removesuffix("Z")  # before two such weeks
    found = days(crm(deals), at, horizon=14)
    happened = found["dealcast", "14 days"].actual
    assert happened == 2000.0
    assert found["seasonal naive", "14 days"].mean == pytest.approx(happened, rel=0.02)
    assert found["past mean", "14 days"].mean < 0.5 * happened
    assert np.isclose(found["exponential smoothing", "14 days"].mean, happened, rtol=0.1)


def test_past_wins_of_a_group_follow_the_rule_that_the_forecast_is_judged_by() -> None:
    """Deals change hands from ann to bob the day before they are won: they were ann's to win."""
    deals, moves = [deal("open", after(START, 300), owner_id="bob")], []
    for i in range(60):
        name = f"w{i}"
        deals.append(deal(name, after(START, 7 * i - 30), after(START, 7 * i + 2.5), amount=100.0,
                          closed_amount=100.0, owner_id="bob"))  # fmt: skip
        moves.append(change(name, after(START, 7 * i + 1.5), "owner_id", "ann", "bob"))
    company = crm(deals, field_change=moves)
    at = after(START, 50 * 7).removesuffix("Z")
    found = backtest(company, [moment(at)], [28], RECIPE, by="owner", draws=400)
    assert {i.group: i.actual for i in found if i.method == "dealcast"} == {
        "all": 400.0, "ann": 400.0, "bob": 0.0, "unassigned": 0.0,
    }  # fmt: skip
    for method in ("past mean", "seasonal naive", "exponential smoothing"):
        means = {i.group: i.mean for i in found if i.method == method}
        assert means["ann"] == pytest.approx(400.0, rel=0.02), method
        assert means["bob"] == 0.0, method
