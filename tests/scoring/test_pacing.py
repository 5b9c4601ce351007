"""The pace of a period, and how right past numbers were."""

from __future__ import annotations

from typing import Any

import pytest

from scoring.accuracy import accuracies
from scoring.kpi import Kpi
from scoring.pacing import pacing, past_periods
from tests.scoring.crm_books import books_of
from tests.small_crm import deal, history, stages

# Won by the middle, and after it, month by month; each month from its first day.
MONTHS = {"2024-01": (100.0, 300.0), "2024-02": (50.0, 50.0), "2024-03": (0.0, 0.0),
          "2024-04": (30.0, 10.0)}  # fmt: skip
NOW = "2024-05-16T12:00"  # the middle of May


def sales(**more: Any) -> list[dict[str, Any]]:
    found = [deal("first", "2023-12-01T00:00Z", "2023-12-20T00:00Z", amount=1.0)]
    for month, (early, late) in MONTHS.items():
        for amount, day in ((early, "05"), (late, "25")):
            if amount:
                found.append(
                    deal(f"{month}-{day}", "2023-12-01T00:00Z", f"{month}-{day}T00:00Z",
                         amount=amount, **more)
                )  # fmt: skip
    return [*found, deal("may", "2024-05-01T00:00Z", "2024-05-10T00:00Z", amount=60.0)]


def test_won_so_far_against_the_same_point_of_past_months() -> None:
    pace = pacing(books_of(history(deal=sales()), NOW))
    assert pace.elapsed == 0.5 and pace.won == 60_00
    assert [(p.name, p.then, p.final) for p in pace.past] == [
        (month, round(100 * early), round(100 * (early + late)))
        for month, (early, late) in MONTHS.items()
    ]
    assert pace.usual_then == pytest.approx(100 * (100 + 50 + 0 + 30) / 4)
    # 1/4, 1/2 and 3/4; March, in which nothing was won, tells no share
    assert (pace.share_then, pace.lowest, pace.highest) == (0.5, 0.25, 0.75)
    assert pace.implied == pytest.approx(120_00)


def test_what_was_told_late_was_not_known_at_that_point() -> None:
    late = [d | {"recorded_at": "2024-02-20T00:00Z", "created_at": "2024-01-01T00:00Z"}
            if d["deal_id"] == "2024-02-05" else d for d in sales()]  # fmt: skip
    past = pacing(books_of(history(deal=late), NOW)).past
    assert (past[1].then, past[1].final) == (0, 100_00)


def test_the_month_that_the_records_begin_in_is_no_whole_one() -> None:
    names = [p.name for p in past_periods(books_of(history(deal=sales()), NOW))]
    assert names == list(MONTHS)


def test_without_past_periods_there_is_no_pace_but_a_reason() -> None:
    pace = pacing(books_of(history(deal=sales()), NOW, "2024-01"))
    assert pace.elapsed == 1.0 and pace.past == () and pace.implied is None
    assert "no whole month" in pace.reason
    nothing = pacing(books_of(history(deal=[]), NOW))
    assert (nothing.won, nothing.share_then) == (0, None) and nothing.reason


# --- how right past numbers were


def error(name: str, at: str = NOW, period: str = "month", **rows: Any) -> Kpi:
    books = books_of(history("EUR", **{"deal": sales(), **rows}), at, period)
    return next(k for k in accuracies(books) if k.name == name)


def commit(author: str, month: str, changed: str, amount: float) -> dict[str, Any]:
    begin, number = f"{month}-01", int(month[-2:])
    return {"author_id": author, "scope": "all", "scope_id": "all", "period_start": begin,
            "period_end": f"2024-{number + 1:02d}-01", "changed_at": changed,
            "amount": amount}  # fmt: skip


COMMITS = [
    commit("eve", "2024-01", "2024-01-03T00:00:00Z", 300.0),
    commit("eve", "2024-01", "2024-01-30T00:00:00Z", 400.0),  # when it was clear
    commit("eve", "2024-02", "2024-02-01T00:00:00Z", 200.0),
    commit("eve", "2024-04", "2024-04-01T00:00:00Z", 40.0),
    commit("eve", "2024-05", "2024-05-01T00:00:00Z", 9e9),  # not over yet
]


def test_a_commit_is_judged_by_the_first_number() -> None:
    found = error("forecast_error_commit", commit=COMMITS)
    assert found.n == 3
    assert found.value == pytest.approx((100 + 100 + 0) / (400 + 100 + 40))
    assert found.parts[0].value == pytest.approx((-100 + 100 + 0) / 540)
    two = error("forecast_error_commit", commit=COMMITS[:3])
    assert two.value is None and "needed: 3" in two.reason


def test_the_crms_weighted_pipeline_at_the_start_of_each_month() -> None:
    open_then = [
        deal(f"{month}-{i}", "2023-12-01T00:00Z", amount=100.0, stage_id="talk",
             expected_close_date=f"{month}-20")
        for i, month in enumerate(MONTHS)
    ]  # fmt: skip
    found = error(
        "forecast_error_crm_pipeline",
        deal=[*sales(), *open_then],
        stage=stages(default_probability=[None, 0.6, None]),
    )
    actual = [400.0, 100.0, 0.0, 40.0]
    assert found.n == 4
    assert found.value == pytest.approx(sum(abs(60 - a) for a in actual) / sum(actual))


def test_the_mean_of_four_periods_before_needs_four_and_three_of_its_kind() -> None:
    assert error("forecast_error_naive").value is None
    weekly = [
        deal(f"w{i}", "2023-12-01T00:00Z", f"2024-{m}-{d:02d}T12:00Z", amount=10.0)
        for m in ("01", "02", "03")
        for i, d in enumerate(range(1, 29))
    ]
    named = [d | {"deal_id": f"{d['deal_id']}-{i}"} for i, d in enumerate(weekly)]
    found = error("forecast_error_naive", "2024-03-28T00:00", "week", deal=named)
    assert found.n >= 3 and found.value is not None and found.value < 0.2


def test_the_models_coverage_is_that_of_its_back_tests() -> None:
    assert error("forecast_coverage_80").value is None
