"""Forecasts: what is won, open and new, by period and group, in what money, against what target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from data.history import History, HistoryError
from data.pipeline import FiscalCalendar, Period
from models.ranges import RangeMap
from models.shocks import ShockModel
from scoring.bundles import DealBundle
from scoring.forecast import Cell, Forecast, ForecastError, Simulation, forecast, simulate
from scoring.grouping import GroupingError, group_of
from scoring.scores import won_within
from scoring.what_if import Supposed, WhatIf
from tests import worlds
from tests.small_crm import after, change, deal, history, moment, move
from training.fitting import Recipe, fit_deals

CALENDAR = FiscalCalendar()
NOW = "2024-05-15T09:00"


def bundle_of(crm: History, at: str = NOW, calendar: FiscalCalendar = CALENDAR) -> DealBundle:
    return fit_deals(crm, int(moment(at).astype(np.int64)), Recipe(calendar, landmarks=300))


def cells(
    crm: History, by: str | None = None, kind: str = "month", at: str = NOW, horizon: int = 2,
    **options: Any,
) -> list[Cell]:  # fmt: skip
    """Cells of a small forecast."""
    bundle = options.pop("bundle", None) or bundle_of(crm, at)
    calendar = bundle.calendar
    periods = calendar.periods(kind, moment(at), horizon)  # type: ignore[arg-type]
    found = forecast(
        crm, bundle, moment(at), periods, by, draws=options.pop("draws", 200), **options
    )
    return list(found.cells)


def won(found: Sequence[Cell], group: str = "all", period: int = 0) -> float:
    """Won to date of a group in the n-th period."""
    of_group = [c for c in found if c.group == group]
    return of_group[period].components["won"]


@cache
def shown(by: str | None) -> Forecast:
    """The synthetic company at the cut, three months."""
    periods = CALENDAR.periods("month", worlds.cut_time(), 3)
    return forecast(worlds.company(), worlds.deals(), worlds.cut_time(), periods, by, draws=1000)


# --- periods ---------------------------------------------------------------------------------


def test_the_horizon_counts_the_period_in_progress_and_won_runs_from_its_start() -> None:
    crm = history(
        deal=[
            deal("april", "2024-03-01T08:00Z", "2024-04-30T23:59Z", closed_amount=7.0),
            deal("early", "2024-03-01T08:00Z", "2024-05-01T00:00Z", closed_amount=100.0),
            deal("today", "2024-03-01T08:00Z", "2024-05-15T09:00Z", closed_amount=20.0),
            deal("later", "2024-03-01T08:00Z", "2024-05-15T09:01Z", closed_amount=3.0),
            deal("lost", "2024-03-01T08:00Z", "2024-05-02T09:00Z", outcome="lost"),
        ]
    )
    found = cells(crm, horizon=3)
    assert [str(c.period.start)[:10] for c in found] == ["2024-05-01", "2024-06-01", "2024-07-01"]
    assert [c.components["won"] for c in found] == [120.0, 0.0, 0.0]
    week = cells(crm, kind="week", horizon=1)
    assert str(week[0].period.start)[:10] == "2024-05-13" and won(week) == 20.0


def test_periods_begin_at_midnight_of_the_organisation() -> None:
    crm = history(
        deal=[
            deal("d", "2024-03-01T08:00Z", "2024-04-30T23:00Z", closed_amount=100.0),
            deal("e", "2024-03-01T08:00Z", "2024-04-30T21:00Z", closed_amount=5.0),
        ]
    )
    berlin = bundle_of(crm, calendar=FiscalCalendar(zone="Europe/Berlin"))
    assert won(cells(crm, bundle=berlin)) == 100.0  # one in the morning on the first of May there


def test_weeks_and_months_of_a_year_of_weeks_add_up_to_its_quarter() -> None:
    retail = FiscalCalendar(2, "America/New_York", "4-5-4", "sunday")
    at = worlds.cut_time()
    made = fit_deals(worlds.company(), worlds.cut(), Recipe(retail, landmarks=800))
    bundle = DealBundle.from_state(made.to_state())
    assert bundle.calendar == retail
    [quarter] = retail.periods("quarter", at, 1)
    drawn = simulate(worlds.company(), bundle, at, [quarter], draws=200)
    whole = (drawn.won + drawn.open.value)[:, 0, 0]
    for kind in ("month", "week"):
        parts = retail.periods_between(kind, quarter.start, quarter.end)
        assert len(parts) == (3 if kind == "month" else 13)
        drawn = simulate(worlds.company(), bundle, at, parts, draws=200)
        total = (drawn.won + drawn.open.value)[:, 0]
        np.testing.assert_allclose(total.sum(axis=1), whole, rtol=1e-9)


def test_periods_that_are_over_are_refused() -> None:
    crm = history(deal=[deal("d", "2024-03-01T08:00Z")])
    past = [Period(moment("2024-04-01"), moment("2024-05-01"), "2024-04")]
    with pytest.raises(ForecastError, match="end before as_of"):
        forecast(crm, bundle_of(crm), moment(NOW), past)
    with pytest.raises(ForecastError, match="end before as_of"):
        forecast(crm, bundle_of(crm), moment(NOW), [])


def test_a_finished_period_before_the_current_one_is_all_won() -> None:
    crm = history(
        deal=[
            deal("d", "2024-03-01T08:00Z", "2024-04-20T00:00Z", closed_amount=100.0),
            deal("o", "2024-05-01T08:00Z"),
        ]
    )
    periods = [
        Period(moment("2024-04-01"), moment("2024-05-01"), "a"),
        Period(moment("2024-05-01"), moment("2024-06-01"), "b"),
    ]
    first, second = forecast(crm, bundle_of(crm), moment(NOW), periods, draws=50).cells
    assert first.mean == 100.0 and set(first.quantiles.values()) == {100.0}
    assert first.components == {"won": 100.0, "open": 0.0, "new": 0.0}
    assert second.components["open"] > 0


# --- sums ------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [None, "owner", "team", "pipeline", "product", "source", "type"])
def test_components_add_to_the_mean_and_groups_to_the_whole(by: str | None) -> None:
    found = shown(by).cells
    for cell in found:
        assert sum(cell.components.values()) == pytest.approx(cell.mean, rel=1e-9, abs=1e-6)
        values = list(cell.quantiles.values())
        assert values == sorted(values) and values[0] >= 0
    for start in {c.period.start for c in found}:
        here = [c for c in found if c.period.start == start]
        assert here[0].group == "all"
        if by is None:
            continue
        assert "unassigned" in {c.group for c in here}
        for part in ("won", "open", "new"):
            total = sum(c.components[part] for c in here[1:])
            assert total == pytest.approx(here[0].components[part], rel=1e-9, abs=1e-6)


def test_the_whole_is_the_same_number_whatever_the_grouping() -> None:
    whole = [c for c in shown(None).cells]
    for by in ("owner", "team", "source"):
        again = [c for c in shown(by).cells if c.group == "all"]
        for one, other in zip(whole, again, strict=True):
            assert one.mean == pytest.approx(other.mean, rel=1e-9)
            assert list(one.quantiles.values()) == pytest.approx(list(other.quantiles.values()))


def test_a_month_is_the_same_number_whatever_the_horizon() -> None:
    periods = CALENDAR.periods("month", worlds.cut_time(), 1)
    (alone,) = forecast(
        worlds.company(), worlds.deals(), worlds.cut_time(), periods, draws=1000
    ).cells
    first = shown(None).cells[0]
    assert alone.mean == pytest.approx(first.mean, rel=1e-9)
    assert list(alone.quantiles.values()) == pytest.approx(list(first.quantiles.values()))


def test_open_deals_bring_what_their_curves_say_at_the_usual_level() -> None:
    crm, at = worlds.company(), worlds.cut_time()
    bundle = replace(worlds.deals(), shocks=ShockModel.known(0.0, 0.15))
    periods = CALENDAR.periods("month", at, 3)
    drawn = simulate(crm, bundle, at, periods, draws=4000)
    snapshot = crm.as_of("deal", at)
    ends = [(p.end - at) / np.timedelta64(1, "D") for p in periods]
    within = np.array([won_within(snapshot, bundle, np.full(len(snapshot), d)) for d in ends])
    chance = np.diff(within, axis=0, prepend=0.0)
    np.testing.assert_allclose(drawn.chance.T, chance, atol=1e-12)
    wins = drawn.open.wins.sum(1)
    error = wins.std(0) / np.sqrt(4000)
    np.testing.assert_array_less(np.abs(wins.mean(0) - chance.sum(1)), 4.5 * error + 0.01)


def test_a_level_of_late_moves_the_forecast_and_fades_with_the_age_of_the_model() -> None:
    crm, at = worlds.company(), worlds.cut_time()
    usual = replace(worlds.deals(), shocks=ShockModel.known(0.0, 0.1))
    slow = ShockModel.fit(np.full(26, 40.0), np.r_[np.full(18, 40.0), np.full(8, 20.0)])
    late = replace(usual, shocks=slow)
    old = replace(late, manifest=replace(late.manifest, trained_through="2020-01-01T00:00:00Z"))
    periods = CALENDAR.periods("month", at, 2)
    expected, slowed, faded = (
        simulate(crm, b, at, periods, draws=50).chance.sum(0) for b in (usual, late, old)
    )
    assert slow.level(1)[0] < 0.75
    assert (slowed < expected).all() and slowed[0] / expected[0] < 0.85
    np.testing.assert_allclose(faded, expected, rtol=0.01)
    told = {
        name: [w for w in forecast(crm, b, at, periods, draws=50).warnings if "lately" in w]
        for name, b in (("usual", usual), ("late", late), ("old", old))
    }
    assert told["usual"] == told["old"] == []
    assert "fewer deals were won" in told["late"][0]


# --- what counts as won ----------------------------------------------------------------------


def test_a_reopened_deal_takes_its_revenue_back_on_that_day() -> None:
    crm = history(
        deal=[deal("d", "2024-03-01T08:00Z", closed_amount=100.0), deal("o", "2024-03-01T08:00Z")],
        field_change=[
            change("d", "2024-04-20T12:00Z", "outcome", "open", "won"),
            change("d", "2024-05-03T12:00Z", "outcome", "won", "open"),
        ],
    )
    assert won(cells(crm, at="2024-04-25")) == 100.0
    assert won(cells(crm, at="2024-05-02")) == 0.0
    assert won(cells(crm, at=NOW)) == -100.0
    quarter = cells(crm, at=NOW, kind="quarter")
    assert won(quarter) == 0.0
    assert simulate(
        crm, bundle_of(crm), moment(NOW), CALENDAR.periods("month", moment(NOW), 1), draws=5
    ).open_deals.ids.tolist() == ["d", "o"]


def test_deleted_and_merged_deals_leave_from_that_moment() -> None:
    crm = history(
        deal=[
            deal("won", "2024-03-01T08:00Z", "2024-05-02T00:00Z", closed_amount=100.0,
                 deleted_at="2024-05-10T00:00Z"),
            deal("open", "2024-03-01T08:00Z", deleted_at="2024-05-10T00:00Z"),
            deal("twin", "2024-03-01T08:00Z", merged_into_id="kept", seen_at="2024-05-10T00:00Z"),
            deal("kept", "2024-03-01T08:00Z"),
        ]
    )  # fmt: skip
    before, later = cells(crm, at="2024-05-09"), cells(crm, at=NOW)
    assert won(before) == 100.0 and won(later) == 0.0
    open_now = simulate(
        crm, bundle_of(crm), moment(NOW), CALENDAR.periods("month", moment(NOW), 1), draws=5
    ).open_deals
    assert open_now.ids.tolist() == ["kept"]


def test_a_win_recorded_later_is_not_known_yet() -> None:
    late = deal("d", "2024-03-01T08:00Z", "2024-05-02T00:00Z", closed_amount=100.0)
    crm = history(
        deal=[late | {"outcome": "won"}],
        field_change=[
            change("d", "2024-05-02T00:00Z", "outcome", "open", "won")
            | {"recorded_at": "2024-05-20T00:00Z"}
        ],
    )
    assert won(cells(crm)) == 0.0
    assert won(cells(crm, at="2024-05-21")) == 100.0


# --- money -----------------------------------------------------------------------------------


def rates(*rows: tuple[str, float]) -> list[dict[str, Any]]:
    return [{"date": d, "from_currency": "USD", "to_currency": "EUR", "rate": r} for d, r in rows]


def test_open_deals_convert_at_the_latest_rate_and_won_ones_at_that_of_their_day() -> None:
    crm = history(
        "EUR",
        deal=[
            deal("w", "2024-03-01T08:00Z", "2024-05-03T10:00Z", closed_amount=1e2, currency="USD"),
            deal("o", "2024-03-01T08:00Z", amount=100.0, currency="USD"),
        ],
        exchange_rate=rates(("2024-01-01", 0.5), ("2024-05-02", 0.8), ("2024-05-10", 0.9),
                            ("2024-05-16", 7.0)),
    )  # fmt: skip
    periods = CALENDAR.periods("month", moment(NOW), 1)
    drawn = simulate(crm, bundle_of(crm), moment(NOW), periods, draws=5)
    assert drawn.won.sum() == pytest.approx(80.0)
    assert drawn.open_deals.amount.tolist() == pytest.approx([90.0])
    assert forecast(crm, bundle_of(crm), moment(NOW), periods, draws=5).currency == "EUR"


def test_recurring_amounts_and_deals_are_measures_of_their_own() -> None:
    crm = history(
        "EUR",
        deal=[
            deal("w", "2024-03-01T08:00Z", "2024-05-03T10:00Z", amount=900.0, currency="USD",
                 recurring_amount=300.0),
            deal("v", "2024-03-01T08:00Z", "2024-05-04T10:00Z", amount=50.0),
            deal("o", "2024-03-01T08:00Z", amount=200.0, currency="USD", recurring_amount=100.0),
            deal("p", "2024-03-01T08:00Z", amount=80.0),
        ],
        exchange_rate=rates(("2024-01-01", 0.5), ("2024-05-10", 0.9)),
        target=[
            {"scope": "all", "scope_id": "all", "period_start": "2024-05-01",
             "period_end": "2024-06-01", "amount": 2.0, "kind": "deals"},
        ],
    )  # fmt: skip
    bundle = bundle_of(crm)
    periods = CALENDAR.periods("month", moment(NOW), 1)

    def drawn(measure: str) -> Simulation:
        return simulate(crm, bundle, moment(NOW), periods, draws=400, measure=measure)

    money, yearly, count = (drawn(m) for m in ("amount", "recurring", "count"))
    # Won: at the rate of the day it closed. Open: at the latest rate.
    assert [float(d.won.sum()) for d in (money, yearly, count)] == [500.0, 150.0, 2.0]
    np.testing.assert_array_equal(count.open.value, money.open.wins)
    np.testing.assert_array_equal(count.new.value, money.new.wins)
    assert yearly.typical[0] / money.typical[0] == pytest.approx(0.5) and yearly.typical[1] == 0
    np.testing.assert_array_equal(yearly.open.wins, money.open.wins)
    assert set(np.unique(yearly.new.value.round(6))) <= {150.0 * k for k in range(9)}
    (cell,) = cells(crm, bundle=bundle, horizon=1, measure="count")
    assert cell.target == 2.0 and cell.probability_of_target == 1.0
    assert cell.coverage[0]["measured"] is None
    (cell,) = cells(crm, bundle=bundle, horizon=1)
    assert cell.target is None
    warned = forecast(crm, bundle, moment(NOW), periods, draws=5, measure="recurring").warnings
    assert any("1 of 2 open deals carry no recurring amount" in w for w in warned)
    with pytest.raises(ForecastError, match="measure is 'profit'; allowed: amount, recurring"):
        simulate(crm, bundle, moment(NOW), periods, measure="profit")


@pytest.mark.parametrize("measure", ["amount", "recurring", "count"])
def test_a_reopened_win_takes_back_what_it_brought(measure: str) -> None:
    crm = history(
        "EUR",
        deal=[deal("d", "2024-03-01T08:00Z", amount=100.0, recurring_amount=40.0, currency="USD")],
        field_change=[
            change("d", "2024-05-03T00:00Z", "outcome", "open", "won"),
            change("d", "2024-05-12T00:00Z", "outcome", "won", "open"),
        ],
        exchange_rate=rates(("2024-01-01", 0.5), ("2024-05-10", 0.9)),
    )
    _, at, _, value = crm.won_events(measure)
    assert value.tolist() == {"amount": [50.0, -50.0], "recurring": [20.0, -20.0],
                              "count": [1.0, -1.0]}[measure]  # fmt: skip
    assert at[0] < at[1]


def test_a_rate_holds_from_its_day_on() -> None:
    def won_at(closed: str) -> float:
        row = deal("d", "2024-03-01T08:00Z", closed, closed_amount=100.0, currency="USD")
        crm = history(
            "EUR", deal=[row], exchange_rate=rates(("2024-01-01", 0.5), ("2024-05-02", 1))
        )
        return float(crm.wins[3].sum())

    assert won_at("2024-05-01T23:59:59Z") == 50.0
    assert won_at("2024-05-02T00:00:00Z") == 100.0


def test_a_missing_rate_is_an_error_that_names_the_deal() -> None:
    crm = history("EUR", deal=[deal("o", "2024-03-01T08:00Z", currency="GBP")])
    with pytest.raises(HistoryError, match="deal o is in GBP"):
        cells(crm)


def test_open_deals_without_an_amount_are_drawn_from_final_ones() -> None:
    closed = [
        deal(f"w{i}", "2024-03-01T08:00Z", f"2024-04-{i + 1:02d}T10:00Z", closed_amount=500.0)
        for i in range(12)
    ]
    crm = history(deal=[*closed, deal("o", "2024-04-20T08:00Z", amount=None)])
    bundle = bundle_of(crm)
    periods = CALENDAR.periods("month", moment(NOW), 2)
    found = forecast(crm, bundle, moment(NOW), periods, draws=300)
    assert any("1 open deals carry no amount; theirs is drawn" in w for w in found.warnings)
    drawn = simulate(crm, bundle, moment(NOW), periods, draws=300)
    value, wins = drawn.open.value.sum((1, 2)), drawn.open.wins.sum((1, 2))
    assert wins.any()
    np.testing.assert_allclose(value, 500.0 * wins)


def test_without_any_amount_the_forecast_is_nothing_and_says_so() -> None:
    crm = history(
        deal=[
            deal("w", "2024-03-01T08:00Z", "2024-04-02T00:00Z", amount=None, currency=None),
            deal("o", "2024-03-01T08:00Z", amount=None, currency=None),
        ]
    )
    found = forecast(
        crm, bundle_of(crm), moment(NOW), CALENDAR.periods("month", moment(NOW), 1), draws=50
    )
    assert found.cells[0].mean == 0 and found.currency == ""
    assert any("nor did any deal that was won" in w for w in found.warnings)


# --- groups ----------------------------------------------------------------------------------


def test_open_deals_belong_to_their_owner_at_as_of_and_won_ones_to_that_of_the_closing() -> None:
    crm = history(
        deal=[
            deal("o", "2024-03-01T08:00Z", owner_id="ann"),
            deal("w", "2024-03-01T08:00Z", "2024-05-03T10:00Z", closed_amount=100.0, owner_id="cy"),
            deal("n", "2024-03-01T08:00Z"),
        ],
        field_change=[
            change("o", "2024-05-10T00:00Z", "owner_id", "bob", "ann"),
            change("w", "2024-05-04T00:00Z", "owner_id", "bob", "cy"),
        ],
    )
    found = cells(crm, "owner", horizon=1)
    assert {c.group for c in found} == {"all", "ann", "bob", "unassigned"}
    opens = {c.group: c.components["open"] for c in found}
    assert opens["ann"] > 0 and opens["unassigned"] > 0 and opens["bob"] == 0
    assert {c.group: c.components["won"] for c in found} == {
        "all": 100.0, "ann": 0, "bob": 100.0, "unassigned": 0,
    }  # fmt: skip
    before = simulate(
        crm, bundle_of(crm), moment("2024-05-09"), CALENDAR.periods("month", moment(NOW), 1),
        "owner", draws=5,
    )  # fmt: skip
    assert before.open_groups.tolist() == ["bob", "unassigned"]


def test_a_team_is_the_deals_own_or_its_owners() -> None:
    crm = history(
        deal=[
            deal("a", "2024-03-01T08:00Z", owner_id="ann", team_id="north"),
            deal("b", "2024-03-01T08:00Z", owner_id="ann"),
            deal("c", "2024-03-01T08:00Z"),
        ],
        owner=[{"owner_id": "ann", "team_id": "south"}],
    )
    snapshot = crm.as_of("deal", moment(NOW))
    assert group_of(snapshot, "team").tolist() == ["north", "south", "unassigned"]
    assert group_of(snapshot, None).tolist() == ["all"] * 3


def test_an_unknown_grouping_is_refused() -> None:
    crm = history(deal=[deal("d", "2024-03-01T08:00Z")])
    with pytest.raises(GroupingError, match="by is 'moon'; allowed: owner, team"):
        cells(crm, "moon")


def test_bands_of_amounts_are_those_known_then() -> None:
    crm = history(
        deal=[
            deal("big", "2024-03-01", "2024-05-03T09:00Z", amount=9_000.0, closed_amount=12_000.0),
            deal("small", "2024-03-01", "2024-05-04T09:00Z", amount=150.0, closed_amount=150.0),
            deal("open", "2024-03-01", amount=7_000.0),
            deal("bare", "2024-03-01", amount=None),
        ]
    )
    found = cells(crm, "amount", horizon=1)
    assert [c.group for c in found] == ["all", "100 to 200", "5,000 to 10,000", "unassigned"]
    assert [c.components["won"] for c in found] == [12_150.0, 150.0, 12_000.0, 0.0]
    supposed = WhatIf(deals={"open": Supposed(amount=90_000.0)})
    moved = {c.group: c for c in cells(crm, "amount", horizon=1, what_if=supposed)}
    usual = {c.group: c for c in found}
    assert moved["50,000 to 100,000"].components["open"] > 0
    assert moved["5,000 to 10,000"].components["open"] < usual["5,000 to 10,000"].components["open"]


# --- targets ---------------------------------------------------------------------------------


def target(
    scope: str, scope_id: str, start: str, end: str, amount: float, **more: Any
) -> dict[str, Any]:
    return {
        "scope": scope, "scope_id": scope_id, "period_start": start, "period_end": end,
        "amount": amount,
    } | more  # fmt: skip


def test_targets_match_period_and_group_exactly_and_are_never_summed() -> None:
    crm = history(
        deal=[
            deal("a", "2024-03-01T08:00Z", "2024-05-03T10:00Z", closed_amount=90.0, owner_id="ann"),
            deal("b", "2024-03-01T08:00Z", owner_id="bob"),
        ],
        target=[
            target("owner", "ann", "2024-05-01", "2024-06-01", 50.0),
            target("owner", "bob", "2024-05-01", "2024-06-01", 1e9, kind="revenue"),
            target("owner", "bob", "2024-06-01", "2024-07-01", 3.0, kind="Quantity"),
            target("team", "ann", "2024-06-01", "2024-07-01", 8.0),
            target("all", "all", "2024-04-01", "2024-07-01", 777.0),
        ],
    )
    found = {(c.group, str(c.period.start)[:7]): c for c in cells(crm, "owner")}
    assert found["ann", "2024-05"].target == 50.0
    assert found["ann", "2024-05"].probability_of_target == 1.0  # won already
    assert found["bob", "2024-05"].target == 1e9
    assert found["bob", "2024-05"].probability_of_target == 0.0
    for nobody in (("all", "2024-05"), ("bob", "2024-06"), ("ann", "2024-06")):
        assert found[nobody].target is None and found[nobody].probability_of_target is None
    quarter = cells(crm, kind="quarter", horizon=1)
    assert quarter[0].target == 777.0
    assert not any(c.target for c in cells(crm, "product"))


def test_the_chance_of_a_target_is_the_share_of_draws_that_reach_it() -> None:
    crm, at = worlds.company(), worlds.cut_time()
    periods = CALENDAR.periods("quarter", at, 2)
    drawn = simulate(crm, worlds.deals(), at, periods, draws=800)
    found = forecast(crm, worlds.deals(), at, periods, draws=800).cells
    assert any(c.target for c in found)
    for i, cell in enumerate(found):
        if cell.target is not None:
            share = (drawn.total[:, 0, i] >= cell.target).mean()
            assert cell.probability_of_target == pytest.approx(float(share))


def test_a_target_in_another_currency_is_converted() -> None:
    rows: dict[str, Any] = {
        "deal": [deal("b", "2024-03-01T08:00Z")],
        "target": [target("all", "all", "2024-05-01", "2024-06-01", 100.0, currency="USD")],
    }
    crm = history("EUR", **rows, exchange_rate=rates(("2024-01-01", 0.5), ("2024-06-01", 9.0)))
    assert cells(crm, horizon=1)[0].target == 50.0
    with pytest.raises(HistoryError, match="a target is in USD, and there is no rate"):
        cells(history("EUR", **rows), horizon=1)


# --- ranges and drivers ----------------------------------------------------------------------


def test_levels_become_quantile_keys() -> None:
    crm = history(deal=[deal("d", "2024-03-01T08:00Z")])
    (cell,) = cells(crm, horizon=1)
    assert list(cell.quantiles) == ["0.025", "0.1", "0.25", "0.5", "0.75", "0.9", "0.975"]
    (cell,) = cells(crm, horizon=1, levels=(0.9, 0.333))
    assert list(cell.quantiles) == ["0.05", "0.3335", "0.5", "0.6665", "0.95"]
    assert [c["level"] for c in cell.coverage] == [0.9, 0.333]
    for level in (0.0, 1.0, 80):
        with pytest.raises(ForecastError, match="level is"):
            cells(crm, levels=(level,))


def test_ranges_and_chances_are_read_as_far_out_as_past_forecasts_taught() -> None:
    crm, at = worlds.company(), worlds.cut_time()
    wide = replace(worlds.deals(), ranges=RangeMap(np.array([30.0]), np.array([1.5]), np.ones(1)))
    periods = CALENDAR.periods("month", at, 2)
    drawn, read = (forecast(crm, b, at, periods, draws=2000) for b in (worlds.deals(), wide))
    for plain, cell in zip(drawn.cells, read.cells, strict=True):
        assert cell.mean == plain.mean and cell.quantiles["0.5"] == plain.quantiles["0.5"]
        assert cell.quantiles["0.1"] < plain.quantiles["0.1"]
        assert cell.quantiles["0.9"] > plain.quantiles["0.9"]
        if plain.probability_of_target is not None and 0.0 < plain.probability_of_target < 0.5:
            assert plain.probability_of_target < (cell.probability_of_target or 0.0) < 0.5


def test_coverage_is_that_of_the_nearest_horizon_or_not_known() -> None:
    crm = history(deal=[deal("d", "2024-03-01T08:00Z")])
    measured = [
        {"horizon_days": days, "level": 0.8, "measured": share, "n": 9}
        for days, share in ((7.0, 0.7), (28.0, 0.9))
    ]
    bare = bundle_of(crm)
    bundle = replace(bare, manifest=replace(bare.manifest, coverage=measured))
    found = cells(crm, "owner", bundle=bundle, kind="week", horizon=4, levels=(0.8, 0.5))
    whole = [c.coverage for c in found if c.group == "all"]
    assert [c[0]["measured"] for c in whole] == [0.7, 0.7, 0.9, 0.9]
    assert whole[0][1] == {"level": 0.5, "measured": None, "n": 0}
    assert all(c.coverage[0]["measured"] is None for c in found if c.group != "all")


def test_drivers_are_the_deals_that_carry_the_variance() -> None:
    crm = history(
        deal=[
            deal("small", "2024-05-01T08:00Z", amount=10.0, owner_id="ann"),
            deal("big", "2024-05-01T08:00Z", amount=9000.0, owner_id="bob"),
            deal("mid", "2024-05-01T08:00Z", amount=3000.0, owner_id="ann"),
        ]
    )
    found = {c.group: c.drivers for c in cells(crm, "owner", horizon=1, draws=3000)}
    assert [d["deal_id"] for d in found["all"]] == ["big", "mid", "small"]
    assert [d["deal_id"] for d in found["ann"]] == ["mid", "small"]
    shares = [d["share_of_variance"] for d in found["all"]]
    assert 0.7 < shares[0] <= 1 and shares == sorted(shares, reverse=True) and sum(shares) < 1.1


def test_nothing_open_is_a_forecast_too() -> None:
    crm = history(deal=[deal("w", "2024-03-01T08:00Z", "2024-05-02T00:00Z", closed_amount=100.0)])
    (cell,) = cells(crm, horizon=1)
    assert cell.components["won"] == 100.0 and cell.components["open"] == 0
    assert cell.drivers == [] and cell.quantiles["0.025"] >= 100.0


def test_a_period_beyond_the_grid_is_announced() -> None:
    crm = history(deal=[deal("d", "2024-03-01T08:00Z")])
    bundle = bundle_of(crm)
    far = CALENDAR.periods("quarter", moment(NOW), 4)
    found = forecast(crm, bundle, moment(NOW), far, draws=20)
    assert any("counted as still open" in w for w in found.warnings)
    near = forecast(crm, bundle, moment(NOW), far[:1], draws=20)
    assert not any("counted as still open" in w for w in near.warnings)
    assert any("not yet verified" in w for w in near.warnings)


def test_deals_created_later_change_nothing() -> None:
    rows = [deal("d", "2024-03-01T08:00Z"), deal("e", "2024-04-01T08:00Z", "2024-05-01T08:00Z")]
    later = [deal("z", after(NOW, 1), amount=1e9), deal("y", after(NOW, 2), after(NOW, 3))]
    moves = [move("d", after(NOW, 2), "offer", None)]
    one = cells(history(deal=rows))
    two = cells(history(deal=[*rows, *later], stage_change=moves))
    assert [c.mean for c in one] == [c.mean for c in two]
