"""Back-tests: refused where the records end, blind to the future, fair in what they count."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from data.history import History
from data.pipeline import FiscalCalendar
from data.records import Table
from data.synthetic import make_history
from data.timelines import DAY
from tests.small_crm import after, change, deal, history, moment
from training.backtest import (
    LEVELS,
    METHODS,
    BacktestError,
    Issued,
    backtest,
    beside,
    summary,
)
from training.fitting import Recipe, fit_deals

RECIPE = Recipe(FiscalCalendar(), landmarks=1200)


@cache
def tables() -> tuple[dict[str, Table], Any]:
    made = make_history(250, seed=4, days=300)
    return made.tables, made.facts


@cache
def company() -> History:
    found, facts = tables()
    return History(found, [facts])


@cache
def origin() -> np.datetime64:
    """A midnight two months before the records end."""
    end = company().observed_until - 60 * DAY
    return np.datetime64(end - end % DAY, "us")


def replayed(crm: History, **options: Any) -> list[Issued]:
    return backtest(crm, [origin()], [7, 28], RECIPE, by="owner", draws=300, **options)


@cache
def issued() -> list[Issued]:
    return replayed(company())


# --- the future ------------------------------------------------------------------------------


def _later(table: Table, column: str) -> npt.NDArray[np.bool_]:
    return np.asarray(table[column] > origin())


def corrupted() -> History:
    """What lies after the origin, turned upside down: outcomes, moves, amounts, new deals."""
    found, facts = tables()
    deals = found["deal"]
    changed = dict(found)
    flip = {"won": "lost", "lost": "won"}

    # Deals that closed later close the other way, at another time, for a hundredfold.
    closed = _later(deals, "closed_at")
    outcome = np.array(
        [flip.get(o, o) if late else o for o, late in zip(deals["outcome"], closed, strict=True)],
        dtype=object,
    )
    at = np.where(closed, deals["closed_at"] + np.timedelta64(31, "h"), deals["closed_at"])
    paid = np.where(closed, deals["closed_amount"] * 100, deals["closed_amount"])
    deals = deals.with_columns(outcome=outcome, closed_at=at, closed_amount=paid)
    changed["deal"] = deals.take(~_later(deals, "created_at"))

    moves = found["stage_change"]
    late = _later(moves, "changed_at")
    ends = {"won", "lost"}
    kinds = dict(zip(found["stage"]["stage_id"], found["stage"]["kind"], strict=True))
    opposite = {
        s: next(t for t, k in kinds.items() if k in ends and k != kind)
        for s, kind in kinds.items()
        if kind in ends
    }
    to = np.array(
        [opposite.get(s, s) if x else s for s, x in zip(moves["to_stage_id"], late, strict=True)],
        dtype=object,
    )
    still_open = late & ~np.isin(moves["to_stage_id"].astype(str), list(opposite))
    changed["stage_change"] = moves.with_columns(to_stage_id=to).take(~still_open)

    edits = found["field_change"]
    late = _later(edits, "changed_at")
    new = np.array(
        [
            str(float(v) * 50) if x and f == "amount" else v
            for v, f, x in zip(edits["new_value"], edits["field"], late, strict=True)
        ],
        dtype=object,
    )
    changed["field_change"] = edits.with_columns(new_value=new)
    done = found["activity"]
    changed["activity"] = done.take(~_later(done, "occurred_at"))
    leads = found["lead"]
    changed["lead"] = leads.take(~_later(leads, "created_at"))
    return History(changed, [facts])


def test_nothing_after_the_origin_is_looked_at() -> None:
    other = replayed(corrupted())
    mine, theirs = (
        {(i.method, i.group, i.horizon): i for i in found} for found in (issued(), other)
    )
    assert set(mine) == set(theirs)
    assert {m for m, _, _ in mine} == set(METHODS) - {"growth", "commit", "CRM's own"}
    for key, one in mine.items():
        assert theirs[key].quantiles == one.quantiles, key
        assert (theirs[key].mean, theirs[key].components) == (one.mean, one.components), key
    # While what happened is not what it was.
    assert any(theirs[k].actual != mine[k].actual for k in mine)


def test_an_origin_whose_horizon_passes_the_end_is_refused() -> None:
    crm = history(
        deal=[deal("d", "2024-01-01T08:00Z", "2024-02-01T08:00Z"), deal("o", "2024-01-20T08:00Z")],
        until="2024-03-15T12:00Z",
    )
    fine = [moment("2024-02-15"), moment("2024-02-16")]
    assert backtest(crm, fine, [7, 28], RECIPE, draws=20)
    with pytest.raises(BacktestError, match=r"2024-02-17.* looks 28 days.*allowed is 2024-02-16"):
        backtest(crm, [*fine, moment("2024-02-17")], [28, 7], RECIPE, draws=20)
    with pytest.raises(BacktestError, match="the records end at 2024-03-01"):
        backtest(crm, fine, [28], RECIPE, draws=20, until=int(moment("2024-03-01").astype(int)))


def test_records_without_a_stated_end_are_taken_to_end_with_the_last_event() -> None:
    crm = history(
        deal=[deal("d", "2024-01-01T08:00Z", "2024-03-01T08:00Z"), deal("o", "2024-01-20T08:00Z")]
    )
    assert backtest(crm, [moment("2024-02-20")], [7], RECIPE, draws=20)
    with pytest.raises(BacktestError, match="records end at 2024-03-01T08:00:00"):
        backtest(crm, [moment("2024-02-25")], [7], RECIPE, draws=20)


def test_nonsense_is_refused() -> None:
    crm = history(deal=[deal("d", "2024-01-01T08:00Z")], until="2024-06-01T00:00Z")
    for origins, horizons in (
        ([], [7]),
        ([moment("2024-02-01")], []),
        ([moment("2024-02-01")], [0]),
    ):
        with pytest.raises(BacktestError, match="at least one origin"):
            backtest(crm, origins, horizons, RECIPE)
    with pytest.raises(BacktestError, match=r"origin 2023-01-01.*no deal with a creation time"):
        backtest(crm, [moment("2023-01-01")], [7], RECIPE)


# --- what happened ---------------------------------------------------------------------------


def actuals(crm: History, by: str | None, at: str, days: float = 30) -> dict[str, float]:
    found = backtest(crm, [moment(at)], [days], RECIPE, by=by, draws=10)
    return {i.group: i.actual for i in found if i.method == "dealcast"}


def test_actuals_belong_to_the_group_the_forecast_gave_them_to() -> None:
    start = "2024-02-01T00:00"
    crm = history(
        deal=[
            deal("open", "2024-01-01T08:00Z", after(start, 5), closed_amount=1.0, owner_id="cy"),
            deal("new", after(start, 2), after(start, 9), closed_amount=10.0, owner_id="cy"),
            deal("hired", after(start, 3), after(start, 9), closed_amount=100.0, owner_id="dan"),
            deal("nobody", after(start, 3), after(start, 9), closed_amount=1000.0),
            deal("late", "2024-01-01T08:00Z", after(start, 31), closed_amount=1e6, owner_id="cy"),
            deal(
                "past", "2024-01-01T08:00Z", "2024-01-20T08:00Z", closed_amount=1e6, owner_id="ed"
            ),
        ],
        field_change=[
            change("open", after(start, -3), "owner_id", "ann", "bob"),
            change("open", after(start, 4), "owner_id", "bob", "cy"),
            change("new", after(start, 5), "owner_id", "ann", "cy"),
        ],
        until=after(start, 60),
    )
    found = actuals(crm, "owner", start)
    # bob had the open deal at the origin, ann the new one at its creation; nobody knew dan yet.
    assert found == {
        "all": 1111.0, "ann": 10.0, "bob": 1.0, "cy": 0.0, "ed": 0.0, "unassigned": 1100.0,
    }  # fmt: skip
    assert actuals(crm, None, start) == {"all": 1111.0}


def test_groups_add_up_to_the_whole() -> None:
    for horizon in (7.0, 28.0):
        found = [i for i in issued() if i.method == "dealcast" and i.horizon == horizon]
        whole = next(i for i in found if i.group == "all")
        parts = [i for i in found if i.group != "all"]
        assert len(parts) > 3
        assert sum(i.actual for i in parts) == pytest.approx(whole.actual)
        assert sum(i.mean for i in parts) == pytest.approx(whole.mean)


def test_what_became_known_later_does_not_count_as_having_happened() -> None:
    start = "2024-02-01T00:00"
    late = {"recorded_at": after(start, 50)}
    crm = history(
        deal=[deal("d", "2024-01-01T08:00Z", after(start, 5), closed_amount=7.0)],
        field_change=[change("d", after(start, 5), "outcome", "open", "won") | late],
        until=after(start, 60),
    )
    (found,) = [
        i.actual
        for i in backtest(crm, [moment(start)], [30], RECIPE, draws=10)
        if i.method == "dealcast"
    ]
    assert found == 7.0
    until = int(moment(after(start, 40).removesuffix("Z")).astype(int))
    (found,) = [
        i.actual
        for i in backtest(crm, [moment(start)], [30], RECIPE, draws=10, until=until)
        if i.method == "dealcast"
    ]
    assert found == 0.0


def test_a_reopening_is_taken_back_from_what_happened() -> None:
    start = "2024-02-01T00:00"
    crm = history(
        deal=[deal("d", "2024-01-01T08:00Z", closed_amount=7.0), deal("o", "2024-01-01T08:00Z")],
        field_change=[
            change("d", "2024-01-20T00:00Z", "outcome", "open", "won"),
            change("d", after(start, 3), "outcome", "won", "open"),
        ],
        until=after(start, 60),
    )
    assert actuals(crm, None, start) == {"all": -7.0}


# --- measures --------------------------------------------------------------------------------


def forecasted(actual: float, *, horizon: float = 7.0, method: str = "dealcast") -> Issued:
    points = {"0.025": 0.0, "0.1": 10.0, "0.25": 40.0, "0.5": 50.0, "0.75": 60.0, "0.9": 90.0,
              "0.975": 100.0}  # fmt: skip
    return Issued(
        moment("2024-02-01"), horizon, "all", method, 50.0, points, 5.0, actual, {},
        f"{horizon:g} days",
    )  # fmt: skip


def test_the_summary_tells_error_bias_and_width() -> None:
    rows = summary([forecasted(50.0), forecasted(30.0), forecasted(60.0, horizon=28.0)])
    assert [(r["method"], r["horizon"], r["n"]) for r in rows] == [
        ("dealcast", 7.0, 2), ("dealcast", 28.0, 1), ("dealcast", None, 3),
    ]  # fmt: skip
    week = rows[0]
    assert week["crps"] == pytest.approx(5 / 40) and week["bias"] == pytest.approx(0.25)
    assert week["width"] == pytest.approx(80 / 50) and week["coverage"]["0.5"] == 0.5
    assert set(week["coverage"]) == {f"{level:g}" for level in LEVELS}


def test_origins_are_sorted_and_share_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    fits: list[tuple[str, bool]] = []

    def counted(crm: History, until: int, recipe: Recipe, like: Any = None) -> Any:
        fits.append((str(np.datetime64(until, "us"))[:10], like is not None))
        return fit_deals(crm, until, recipe, like=like)

    monkeypatch.setattr("training.backtest.fit_deals", counted)
    crm = history(
        deal=[deal("d", "2024-01-01T08:00Z", "2024-02-03T08:00Z"), deal("o", "2024-01-20T08:00Z")],
        until="2024-06-01T00:00Z",
    )
    days = ["2024-02-12", "2024-02-01", "2024-02-05", "2024-02-08"]
    found = backtest(crm, [moment(d) for d in days], [7], RECIPE, draws=10, refit_days=7)
    assert fits == [
        ("2024-02-01", False), ("2024-02-05", True), ("2024-02-08", False), ("2024-02-12", True),
    ]  # fmt: skip
    origins = [str(i.origin)[:10] for i in found if i.method == "dealcast"]
    assert origins == sorted(days)


def test_jobs_do_not_change_the_answer() -> None:
    crm = history(
        deal=[
            deal(f"d{i}", f"2024-01-{i + 1:02d}T08:00Z", f"2024-02-{i + 1:02d}T08:00Z")
            for i in range(25)
        ],
        until="2024-06-01T00:00Z",
    )
    origins = [moment("2024-02-01"), moment("2024-02-20")]
    one, two = (
        backtest(crm, origins, [7], RECIPE, draws=50, jobs=jobs, progress=lambda it, n: it)
        for jobs in (1, 2)
    )
    assert [i.to_state() for i in one] == [i.to_state() for i in two]
    assert {str(i.origin)[:10] for i in one} == {"2024-02-01", "2024-02-20"}


# --- calendar periods ------------------------------------------------------------------------


def monthly(**options: Any) -> list[Issued]:
    at = [origin(), origin() - np.timedelta64(20, "D")]
    return backtest(company(), at, [], RECIPE, period="month", draws=300, **options)


def test_calendar_periods_hold_all_that_is_won_in_them() -> None:
    found = [i for i in monthly(by="owner") if i.method == "dealcast"]
    calendar = FiscalCalendar()
    for i in found:
        periods = {p.name: p for p in calendar.periods("month", i.origin, 2)}
        assert i.window == ("this month" if i.period == next(iter(periods)) else "next month")
        assert sum(i.components.values()) == pytest.approx(i.mean)
        if i.group == "all":
            period = periods[i.period]
            won = company().won_between(period.start, period.end)[1].sum()
            assert i.actual == pytest.approx(won)
            to_date = company().won_between(period.start, i.origin, as_of=i.origin)[1].sum()
            expected = to_date if i.window == "this month" else 0.0
            assert i.components["won"] == pytest.approx(expected)
            assert i.quantiles["0.025"] >= expected - 1e-6
    for key in {(i.origin, i.period) for i in found}:
        whole, parts = (
            [i for i in found if (i.origin, i.period) == key and (i.group == "all") is one]
            for one in (True, False)
        )
        assert sum(i.actual for i in parts) == pytest.approx(whole[0].actual)


def test_what_was_won_before_the_origin_belongs_to_its_group_at_the_closing() -> None:
    crm = history(
        deal=[
            deal("a", "2024-01-01T08:00Z", "2024-02-05T08:00Z", closed_amount=5.0, owner_id="bob"),
            deal("o", "2024-01-02T08:00Z", owner_id="ann"),
        ],
        field_change=[change("a", "2024-02-10T08:00Z", "owner_id", "ann", "bob")],
        until="2024-06-01T00:00Z",
    )
    found = backtest(crm, [moment("2024-02-15")], [], RECIPE, period="month", by="owner", draws=10)
    won = {i.group: i.actual for i in found if i.method == "dealcast" and i.period == "2024-02"}
    assert won["ann"] == 5.0 and won["all"] == 5.0 and won.get("bob", 0.0) == 0.0


def test_a_period_that_is_not_over_is_refused() -> None:
    crm = history(
        deal=[deal("d", "2024-01-01T08:00Z", "2024-02-01T08:00Z"), deal("o", "2024-01-20T08:00Z")],
        until="2024-04-01T00:00Z",
    )
    fine = moment("2024-02-20")
    assert backtest(crm, [fine], [], RECIPE, period="month", draws=20)
    with pytest.raises(BacktestError, match=r"end of 2024-04, but the records end.*fewer than 2"):
        backtest(crm, [fine, moment("2024-03-01")], [], RECIPE, period="month", draws=20)
    assert backtest(crm, [moment("2024-03-01")], [], RECIPE, period="month", ahead=1, draws=20)


def test_the_gate_compares_on_the_same_forecasts() -> None:
    mine = [forecasted(50.0), forecasted(150.0, horizon=28.0)]
    theirs = [replace(forecasted(50.0, method="past mean"), crps=10.0)]
    assert beside([*mine, *theirs], "past mean") == (5 / 50, 10 / 50)
    assert beside(mine, "past mean") is None
