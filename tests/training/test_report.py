from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from data.features import Feature
from data.pipeline import FiscalCalendar
from models.amount import AmountModel
from models.calibration import Calibrator
from models.deal import DealModel
from models.encoding import TableEncoder
from models.grid import HazardGrid
from models.lead import Evidence, LeadModel
from models.shocks import ShockModel
from scoring.bundles import DealBundle, LeadBundle, Manifest, Reference
from training import wording
from training.charts import fan_chart, nice_ticks, pit_chart, reliability_chart
from training.evaluation import Evaluation
from training.replayed import Issued
from training.report import backtest_report, training_report
from training.run import Check, Run

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
UNREAD: Any = None  # parts of a bundle that no report reads
NASTY = '<script>alert("x")</script> & Söhne'


def _parsed(page: str) -> ET.Element:
    """The page as strict XML: every element closed, every special character escaped."""
    assert page.startswith("<!DOCTYPE html>")
    root = ET.fromstring(page)
    assert {"script", "img", "link", "iframe"}.isdisjoint(e.tag for e in root.iter())
    assert not re.search(r"https?://|url\(|@import", page)
    return root


def _text(element: ET.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def _tables(page: str) -> list[list[list[str]]]:
    rows = [[_row(r) for r in t.iter("tr")] for t in _parsed(page).iter("table")]
    assert rows, "no table"
    return rows


def _row(row: ET.Element) -> list[str]:
    return [_text(cell) for cell in row]


def _table(page: str, first_header: str) -> list[list[str]]:
    return next(t for t in _tables(page) if t[0][0] == first_header)


def _arm(name: str, log_loss: float, **more: Any) -> dict[str, Any]:
    line = {"slope": 0.9, "intercept": -0.1, "slope_error": 0.2, "intercept_error": 0.05,
            "in_the_large": 0.02, "in_the_large_error": 0.05, "examples": 5000}  # fmt: skip
    return {"name": name, "log_loss": log_loss, "brier": log_loss / 3, "auc": 1 - log_loss / 2,
            "mean_probability": 0.3, "calibration": line, **more}  # fmt: skip


def _evaluation() -> Evaluation:
    bands = [
        {"low": 0.0, "high": 0.2, "n": 3000, "records": 800, "predicted": 0.1, "observed": 0.12,
         "band_low": 0.08, "band_high": 0.15},
        {"low": 0.2, "high": 0.9, "n": 2000, "records": 600, "predicted": 0.6, "observed": 0.55,
         "band_low": 0.5, "band_high": 0.61},
    ]  # fmt: skip
    part = {"n": 3000, "records": 800, "predicted": 0.1, "observed": 0.12, "band_low": 0.08,
            "band_high": 0.15}  # fmt: skip
    high = {**part, "predicted": 0.4, "name": NASTY, "bands": bands}
    splits = [
        {"by": "stage", "parts": [{**part, "name": "new", "bands": bands}, high]},
        {"by": "lead source", "parts": [{**part, "name": "web", "predicted": 0.05, "bands": []}]},
    ]
    return Evaluation(
        "P(won within 30 days) of open deals", "2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z",
        5000, 1250, 1460, 0.292,
        [_arm("served", 0.45678), _arm("stage rate", 0.6)],
        bands,
        [{"days": 7.0, "count": 1.4421, "value": None}],
        splits,
    )  # fmt: skip


def _deal_bundle() -> DealBundle:
    model = DealModel(
        HazardGrid((0.0, 1.0, 30.0)), UNREAD, None, None, None, np.array([0.5, 0.25, 0.25]),
        np.ones((1, 4, 2)), (), 1270, 15887,
    )  # fmt: skip
    rate = {"rate": 0.3154, "low": 0.306, "high": 0.325, "n": 4039.0, "prior": 0.00493}
    return DealBundle(
        Manifest("deal", "2024-03-02T08:30:00Z", "2024-03-01T00:00:00Z", "EUR"),
        (Feature("age", "number", "days", NASTY, "own", "age"),),
        FiscalCalendar(), model, AmountModel((), np.zeros((1, 101)), np.zeros(101), 1100), UNREAD,
        ShockModel.known(0.17, 0.15), {NASTY: rate}, UNREAD,
    )  # fmt: skip


def _lead_bundle(horizon: int = 30) -> LeadBundle:
    model = LeadModel(
        TableEncoder(()), (("logistic", 0.5, UNREAD), ("trees", 0.5, UNREAD)), -1.0, np.zeros(0),
        cast(Calibrator, UNREAD), Evidence("logistic + trees", 9239, 3561, 0.02),
    )  # fmt: skip
    return LeadBundle(
        Manifest("lead", "", "2024-03-01T00:00:00Z"), (), model, horizon, np.ones(1), None, 0.25,
        cast(Reference, UNREAD),
    )  # fmt: skip


def _issued(
    origin: str = "2024-01-01", horizon: float = 7.0, method: str = "dealcast",
    actual: float = 100_000.0, crps: float = 5_000.0, group: str = "all", **more: Any,
) -> Issued:  # fmt: skip
    points = {"0.025": 0.5, "0.1": 0.8, "0.25": 0.9, "0.5": 1.0, "0.75": 1.1, "0.9": 1.2}
    quantiles = {q: 100_000 * v for q, v in {**points, "0.975": 1.6}.items()}
    parts = {"open": 75_000.0, "new": 25_000.0} if method == "dealcast" else {}
    more = {"window": f"{horizon:g} days", "pit": 0.5, **more}
    return Issued(
        np.datetime64(origin, "us"), horizon, group, method, 100_000.0, quantiles, crps, actual,
        parts, **more,
    )  # fmt: skip


def _backtest() -> list[Issued]:
    days = ["2024-01-01", "2024-01-08", "2024-01-15", "2024-01-22"]
    ours = [_issued(d, actual=v) for d, v in zip(days, (9e4, 1e5, 1.5e5, 1.1e5), strict=True)]
    naive = [replace(i, method="past mean", crps=20_000.0, components={}) for i in ours]
    return ours + naive


def _run(**changes: Any) -> Run:
    checks = [
        Check("DG001", True, "log loss 0.4568 against 0.6000 of the stage rate, 5000 landmarks"),
        Check("DG003", None, "there is no champion to compare with"),
    ]
    run = Run("deal", _deal_bundle(), _evaluation(), _backtest(), checks, ["only one year known"])
    return replace(run, **changes)


# --- training report -----------------------------------------------------------------------------


def test_the_verdict_and_every_check_are_told() -> None:
    page = training_report(_run())
    assert "May be promoted: the gate is open" in page
    assert "Of 2 checks, 1 passed, 0 failed and 1 could not be judged." in page
    first, second = _table(page, "Check")[1:]
    assert first[0] == "DG001" and first[2] == "✓ pass" and "0.4568 against 0.6000" in first[3]
    assert second[0] == "DG003" and second[2] == "○ not judged"
    assert "only one year known" in page


def test_a_failed_check_shuts_the_gate_in_words() -> None:
    checks = [Check("DG001", False, "log loss 0.7 against 0.6"), Check("XX999", True, "new check")]
    page = training_report(_run(checks=checks))
    assert "Not to be promoted: the gate stays shut" in page
    assert "Failed: DG001." in page
    assert _table(page, "Check")[1][2] == "✗ fail"
    assert _table(page, "Check")[2][1] == DASH  # a check whose question this page does not know


def test_nothing_judged_is_not_called_verified() -> None:
    page = training_report(
        _run(checks=[Check("DG001", None, "no later data to judge on")], evaluation=None, issued=[])
    )
    assert "May be promoted, but not verified: no check could be judged" in page
    assert "Not evaluated." in page
    assert "There is no back-test" in page


def test_the_training_data_are_told_with_units() -> None:
    text = _text(_parsed(training_report(_run())))
    for part in (
        "1 Mar 2024, 00:00 UTC", "2 Mar 2024, 08:30 UTC",
        "15,887 closed deals in the fitted sample, 1,270 of them won",
        "table by stage and time in stage 50 %, ridge logistic 25 %, boosted trees 25 %",
        "30 days, in 2 steps", "1,100 won deals, in EUR",
    ):  # fmt: skip
        assert part in text


def test_the_evaluation_stands_beside_the_baselines() -> None:
    page = training_report(_run())
    text = _text(_parsed(page))
    served, baseline = _table(page, "Method")[1:]
    assert served == [
        "served", "best 0.457", "best 0.152", "best 0.772", "30.0 %", "0.900 ± 0.20",
        f"{MINUS}0.100 ± 0.050",
    ]  # fmt: skip
    assert baseline[:2] == ["stage rate", "0.600"]
    assert "Log loss 0.457, 23.9 % below that of “stage rate” (0.600)." in text
    assert "it said 30.0 %, and 29.2 % happened: no more apart than chance explains" in text
    assert "judged on 5,000 landmarks of 1,250 deals between 1 Jan 2024 and 1 Feb 2024" in text
    assert ["7 days", "1.44", "44 % too much", DASH, DASH] in _table(page, "Won within")
    row = ["60.0 %", "55.0 %", "50.0 % to 61.0 %", "2,000", "600"]
    assert row in _table(page, "Said on average")
    assert "landmarks of one deal mostly end alike, so they count for little more than one" in text


def test_reliability_is_shown_part_by_part() -> None:
    page = training_report(_run())
    root = _parsed(page)
    headings = [_text(h) for h in root.iter("h3")]
    assert {"Does it hold for every stage?", "Does it hold for every lead source?"} <= {*headings}
    new, other = _table(page, "By stage")[1:]
    assert new == ["new", "10.0 %", "12.0 %", "", "8.00 % to 15.0 %", "agrees", "3,000", "800"]
    assert other[0] == NASTY and other[5] == "said too much"
    assert _table(page, "By lead source")[1][5] == "said too little"
    # One small plot a stage, none where there are no bands.
    plots = [e for e in root.iter("div") if e.get("class") == "many"]
    assert [len(list(p.iter("svg"))) for p in plots] == [2]
    labels = [e.get("aria-label", "") for e in plots[0].iter("svg")]
    assert labels[0].startswith("new: what the model said")


def test_reliability_without_parts_is_left_out() -> None:
    found = _evaluation()
    page = training_report(_run(evaluation=replace(found, splits=[])))
    assert "Does it hold" not in page and "In the tables" not in page
    alone = [{"by": "team", "parts": found.splits[0]["parts"][:1]}]
    page = training_report(_run(evaluation=replace(found, splits=alone)))
    assert "Does it hold for every team?" in page and 'class="many"' not in page


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"in_the_large": -0.3, "in_the_large_error": 0.1}, "too high, by more than chance"),
        ({"in_the_large": 0.3, "in_the_large_error": 0.1}, "too low, by more than chance"),
        ({"in_the_large": None}, "whether by chance cannot be told"),
        ({"slope": 0.5, "slope_error": 0.1}, "too bold"),
        ({"slope": 1.5, "slope_error": 0.1}, "too timid"),
    ],
)
def test_calibration_is_put_in_words(line: dict[str, Any], words: str) -> None:
    arm = _arm("served", 0.5)
    served = {**arm, "calibration": {**arm["calibration"], **line}}
    page = training_report(_run(evaluation=replace(_evaluation(), arms=[served])))
    assert words in _text(_parsed(page))


def test_arms_without_a_calibration_line_show_a_dash() -> None:
    none = dict.fromkeys(("slope", "intercept", "slope_error", "intercept_error"))
    flat = _arm("base rate", 0.7, calibration=none)
    page = training_report(_run(evaluation=replace(_evaluation(), arms=[flat])))
    assert _table(page, "Method")[1][-2:] == [DASH, DASH]


def test_the_stage_table_tells_rate_range_and_evidence() -> None:
    rows = _table(training_report(_run()), "Stage")
    assert rows[1] == [NASTY, "31.5 %", "", "30.6 % to 32.5 %", "4,039", DASH, "0.493 %"]


def test_names_from_the_data_are_escaped() -> None:
    page = training_report(_run(notes=[NASTY], checks=[Check(NASTY, None, NASTY)]))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 5  # stage, feature, note, code, text
    assert "<script" not in backtest_report(
        [_issued(), _issued(group=NASTY)], NASTY, currency="<b>"
    )


def test_a_lead_report_has_its_own_facts_and_no_forecast() -> None:
    checks = [Check("LG001", True, "better")]
    page = training_report(Run("lead", _lead_bundle(), _evaluation(), [], checks))
    text = _text(_parsed(page))
    assert "the chance that a lead is qualified within 30 days of entry" in text
    assert "9,239 landmarks" in text and "3,561 times" in text
    assert "logistic 50 %, trees 50 %" in text
    assert "25.0 % for all" in text
    assert "Back-test" not in text and "Win rate by stage" not in text


def test_invented_dates_are_not_shown() -> None:
    run = Run("lead", _lead_bundle(horizon=0), _evaluation(), [], [Check("LG001", True, "x")])
    text = _text(_parsed(training_report(run)))
    assert "only the order of entry is known" in text
    assert "2024" not in text


def test_the_same_run_gives_the_same_page() -> None:
    assert training_report(_run()) == training_report(_run())


# --- back-test -----------------------------------------------------------------------------------


def test_methods_stand_side_by_side_best_first() -> None:
    page = backtest_report(_backtest()[::-1], "Spring", currency="EUR")
    rows = _table(page, "Method")
    assert rows[1] == [
        "Next 7 days 4 forecasts, worth about 4.0 that do not overlap; won on average 112,000 EUR"
    ]
    ours, naive = rows[2:]  # one window: no rows for all of them together
    assert ours[:2] == ["dealcast best", "4.44 % 3.6 % to 5.3 %"] and ours[2] == DASH
    assert ours[3].startswith(f"{MINUS}11 % ") and ours[4] == "16 %"
    assert ours[6] == "75 % 3 of 4 30 % to 95 %" and ours[8] == "40.0 %"
    assert naive[0] == "past mean" and naive[1].startswith("17.8 %")
    # Every forecast of dealcast has a quarter of the error: no resample says otherwise.
    assert naive[2] == f"{MINUS}75 % {MINUS}75 % to {MINUS}75 % smaller"
    text = _text(_parsed(page))
    assert "4 past dates, from 1 Jan 2024 to 22 Jan 2024" in text
    assert "it is the smallest of all methods in 1 of 1 windows." in text
    assert "in 3 of 4 forecasts (75 %)" in text
    assert "misses by 4.4 % of what is won, 75 % less than the best plain method" in text


def test_a_baseline_that_wins_is_marked_so() -> None:
    page = backtest_report(
        [replace(i, crps=1.0) if i.method == "past mean" else i for i in _backtest()], "t"
    )
    rows = _table(page, "Method")
    assert rows[2][0] == "past mean best" and rows[2][2].endswith("larger")
    assert "smallest of all methods in 0 of 1 windows" in page


def test_ranges_that_do_not_hold_are_called_so() -> None:
    days = [f"2024-01-{d:02d}" for d in range(1, 29)]
    narrow = _table(backtest_report([_issued(d, actual=1.0, horizon=1.0) for d in days], "t"),
                    "Method")  # fmt: skip
    assert narrow[2][6] == "0 % 0 of 28 0 % to 12 % too narrow"
    wide = _table(backtest_report([_issued(d, horizon=1.0) for d in days], "t"), "Method")
    assert wide[2][5] == "100 % 28 of 28 88 % to 100 % too wide"
    # Of forecasts a month ahead, 28 days in a row are one experience: nothing can be said.
    one = _table(backtest_report([_issued(d, horizon=28.0) for d in days], "t"), "Method")
    assert one[2][5].startswith("100 % 28 of 28 ") and not one[2][5].endswith("too wide")


def test_a_method_that_was_not_always_there_is_held_against_its_own_dates() -> None:
    hard = [replace(i, crps=4e4) if i.origin == _backtest()[0].origin else i for i in _backtest()]
    rare = [replace(i, method="growth", crps=6e3) for i in _backtest()[1:2]]
    rows = _table(backtest_report(hard + rare, "t"), "Method")
    growth = next(r for r in rows if r[0].startswith("growth"))
    assert growth[0] == "growth 1 forecasts only"
    assert growth[2] == f"{MINUS}17 % too few dates"


def test_a_number_without_a_range_has_no_coverage() -> None:
    commit = [replace(i, method="commit", ranged=False) for i in _backtest() if i.components]
    rows = _table(backtest_report(_backtest() + commit, "t"), "Method")
    said = next(r for r in rows if r[0].startswith("commit"))
    assert said[5:] == ["no range", "no range", "no range", DASH]


def test_what_is_missing_says_what_it_needs() -> None:
    root = _parsed(backtest_report(_backtest(), "t"))
    told = dict(zip((_text(e) for e in root.iter("dt")), (_text(e) for e in root.iter("dd")),
                    strict=True))  # fmt: skip
    assert told["commit"].startswith("not there; it needs a commit for exactly this period")
    assert told["past mean"].startswith("won to date + the mean")


def test_every_window_has_its_charts_and_all_have_a_block() -> None:
    issued = _backtest() + [
        replace(i, horizon=28.0, window="28 days") for i in _backtest()
    ]  # fmt: skip
    page = backtest_report(issued, "t")
    charts = [e.get("aria-label") or "" for e in _parsed(page).iter("svg") if e.get("role")]
    assert [c[:22] for c in charts] == [
        "Forecasts of 7 days by", "Forecasts of 28 days b", "Next 7 days: where in ",
        "Next 28 days: where in",
    ]  # fmt: skip
    bands = [r[0].split(" 4 ")[0].split(" 8 ")[0] for r in _table(page, "Method") if len(r) == 1]
    assert bands == ["Next 7 days", "Next 28 days", "All windows together"]
    assert ["Next 7 days", "75.0 %", "25.0 %"] in _tables(page)[-1]
    off = _table(page, "Window")
    assert off[1][0] == "Next 7 days" and off[1][1] == f"{MINUS}11 %" and off[3][5] == "8"


def test_calendar_periods_are_named() -> None:
    issued = [replace(i, window="this month", period="2024-01") for i in _backtest()]
    page = backtest_report(issued, "t")
    assert _table(page, "Method")[1][0].startswith("This month 4 forecasts")
    assert "Issued 1 Jan 2024 for 2024-01: mean" in _text(_parsed(page))


def test_groups_are_pooled_then_listed_largest_first() -> None:
    small, large = (_issued(group=g, actual=v) for g, v in (("north", 5e4), ("south", 9e4)))
    naive = replace(small, method="past mean", crps=10_000.0)
    rows = _table(backtest_report([_issued(), small, large, naive], "t"), "Group")
    assert [r[:2] for r in rows[1:]] == [
        ["each group all 2 groups pooled", "70,000"], ["south", "90,000"], ["north", "50,000"],
    ]  # fmt: skip
    assert rows[3][3].startswith(f"{MINUS}50 % past mean")


def test_no_forecasts_give_a_sentence() -> None:
    page = backtest_report([], "Empty")
    assert "There is no back-test" in _text(_parsed(page))


def test_nothing_won_leaves_shares_out() -> None:
    page = backtest_report([_issued(actual=0.0)], "t")
    assert _table(page, "Method")[2][1:3] == [DASH, DASH]


def test_forecasts_of_other_methods_alone_need_no_chart() -> None:
    page = backtest_report([_issued(method="past mean")], "t")
    assert not [e for e in _parsed(page).iter("svg") if e.get("role") == "img"]
    assert _table(page, "Method")[2][0] == "past mean"


# --- charts --------------------------------------------------------------------------------------


def test_a_fan_chart_keeps_order_and_proportion() -> None:
    chart = fan_chart([_issued("2024-01-15", actual=2e5), _issued("2024-01-01")])
    early, late = chart.bars
    assert chart.frame.left < early.x < late.x < chart.frame.right
    for bar in chart.bars:
        tops, bottoms = zip(*bar.ranges, strict=True)
        assert list(tops) == sorted(set(tops)) and tops[-1] < bar.mean  # y grows downwards
        assert list(bottoms) == sorted(set(bottoms), reverse=True) and bar.mean < bottoms[-1]
    assert early.inside and not late.inside
    assert early.actual == early.mean  # both 100,000
    assert late.actual < late.ranges[0][0]  # above the band
    zero, top = chart.y_ticks[0], chart.y_ticks[-1]
    assert (zero.label, zero.at) == ("0", chart.frame.bottom)
    assert late.actual >= top.at == chart.frame.top
    half = next(t for t in chart.y_ticks if t.label == "100\u00a0k")
    assert early.mean == pytest.approx(half.at)
    assert "outside the 80 % range" in late.text


def test_a_histogram_of_the_truth_counts_every_forecast_once() -> None:
    chart = pit_chart([0, 2, 4], "Next 7 days")
    heights = [height for _, _, height, _ in chart.bars]
    assert heights[0] == 0 and heights[2] == pytest.approx(2 * heights[1], abs=0.2)
    assert chart.even == pytest.approx(chart.frame.bottom - heights[1], abs=0.2)  # 2 of 6 in each
    assert "4 of 6 forecasts saw what happened between 66 and 100 %" in chart.bars[2][3]
    assert pit_chart([0, 0], "none").bars[0][2] == 0


def test_labels_of_many_origins_do_not_touch() -> None:
    days = np.datetime64("2024-01-01") + np.arange(200)
    chart = fan_chart([_issued(str(d)) for d in days])
    places = [t.at for t in chart.x_ticks]
    assert len(chart.bars) == 200 and len(places) < 12
    assert min(np.diff(places)) >= 90


def test_forecasts_of_nothing_can_be_drawn() -> None:
    empty = replace(_issued(), mean=0.0, actual=0.0, quantiles=dict.fromkeys(
        ("0.025", "0.1", "0.25", "0.75", "0.9", "0.975"), 0.0))  # fmt: skip
    assert fan_chart([empty]).bars[0].mean == fan_chart([empty]).frame.bottom


def test_right_probabilities_lie_on_the_diagonal() -> None:
    band = {
        "n": 10,
        "records": 5,
        "predicted": 0.5,
        "observed": 0.5,
        "band_low": 0.2,
        "band_high": 0.8,
    }
    for chart in (reliability_chart([band]), reliability_chart([band], "offer", small=True)):
        (dot,), box = chart.dots, chart.frame
        assert dot.x == pytest.approx((box.left + box.right) / 2)
        assert dot.y == pytest.approx((box.top + box.bottom) / 2)
        assert dot.band[0] < dot.y < dot.band[1]
        assert "10 landmarks of 5 records" in dot.text


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 7), (-3, 2), (0, 99_999), (0, 1e-3), (-5e8, -1)]
)
def test_ticks_cover_the_data(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low and ticks[-1] >= high
    assert 2 <= len(ticks) <= 7


# --- figures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (None, DASH), (float("nan"), DASH), (float("inf"), DASH), (0.00001, "<0.0001"),
        (-0.00001, f">{MINUS}0.0001"), (1e-17, "0"),
        (999.6, "1,000"), (12345.0, "12,300"), (-2.5, f"{MINUS}2.50"), (0.05, "0.0500"),
    ],
)  # fmt: skip
def test_numbers_have_three_significant_digits(value: float | None, text: str) -> None:
    assert wording.number(value) == text


def test_missing_figures_are_dashes_everywhere() -> None:
    for words in (wording.count, wording.percent, wording.money, wording.ratio_error):
        assert words(None) == DASH
    assert wording.moment("") == DASH
    assert wording.money(None, "EUR") == DASH
