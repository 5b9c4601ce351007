"""Renewals: a known list that keeps or loses its value, and no new business."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from data.history import History
from data.pipeline import FiscalCalendar
from scoring.bundles import DealBundle
from scoring.forecast import forecast, simulate
from scoring.renewals import Renewal, renewals
from scoring.worth import arrivals_worth
from tests.small_crm import deal, history, moment
from training.fitting import Recipe, fit_deals

CALENDAR = FiscalCalendar()
NOW = moment("2024-05-15T09:00")


def _stages() -> list[dict[str, Any]]:
    return [
        {"pipeline_id": p, "stage_id": f"{p}-{s}", "name": s, "sort_order": i, "kind": "open"}
        for p in ("new", "keep")
        for i, s in enumerate(("talk", "offer"))
    ]


def _past(pipeline: str, n: int, won: float, days: int, **more: Any) -> list[dict[str, Any]]:
    """Closed deals of a pipeline, one created every second day before May."""
    start = np.datetime64("2024-05-01", "D")
    rows = []
    for i in range(n):
        created = start - days - 2 * i - 2
        outcome = "won" if (i * 7) % 10 < 10 * won else "lost"
        rows.append(
            deal(f"{pipeline}-{i}", f"{created}T08:00Z", f"{created + days}T09:00Z",
                 outcome=outcome, pipeline_id=pipeline, stage_id=f"{pipeline}-talk", **more)
        )  # fmt: skip
    return rows


def company(*rows: dict[str, Any], currency: str | None = None) -> History:
    past = [
        *_past("keep", 60, 0.8, 20, amount=100.0, recurring_amount=100.0),
        *_past("new", 60, 0.3, 10, amount=500.0, recurring_amount=50.0),
    ]
    return history(currency, deal=[*past, *rows], stage=_stages())


def upcoming(
    name: str, due: str | None, amount: float | None = 100.0, **more: Any
) -> dict[str, Any]:
    return deal(name, "2024-05-08T08:00Z", pipeline_id="keep", stage_id="keep-talk",
                expected_close_date=due, amount=amount, **more)  # fmt: skip


def fitted(crm: History, *names: str) -> DealBundle:
    recipe = Recipe(CALENDAR, landmarks=600, renewals=names)
    return fit_deals(crm, int(NOW.astype(np.int64)), recipe)


def kept(crm: History, bundle: DealBundle) -> list[Renewal]:
    periods = CALENDAR.periods("month", NOW, 2)
    found = forecast(crm, bundle, NOW, periods, "pipeline", draws=300)
    return renewals(crm, bundle, found, periods, ["keep", "never seen"])


def test_renewals_are_no_new_business() -> None:
    crm = company(upcoming("a", "2024-05-20"))
    plain, told = fitted(crm), fitted(crm, "keep")
    assert told.renewals == ("keep",)
    assert DealBundle.from_state(told.to_state()).renewals == ("keep",)
    assert "keep" in plain.arrivals.shares["pipeline"]
    assert "keep" not in told.arrivals.shares["pipeline"]
    assert set(told.arrivals.amounts.tolist()) == {500.0}
    assert told.arrivals.per_weekday.sum() == pytest.approx(
        plain.arrivals.per_weekday.sum() / 2, rel=0.3
    )
    periods = CALENDAR.periods("quarter", NOW, 1)
    drawn = simulate(crm, told, NOW, periods, "pipeline", draws=300)
    assert drawn.new.value[:, drawn.groups.index("keep")].sum() == 0.0
    assert drawn.new.value[:, drawn.groups.index("new")].sum() > 0.0
    # Nor is their recurring amount what new business brings.
    yearly = arrivals_worth("recurring", crm, told, NOW).amounts
    assert set(yearly.tolist()) == {50.0}


def test_all_pipelines_may_be_renewals() -> None:
    bundle = fitted(company(), "keep", "new")
    assert bundle.arrivals.per_weekday.sum() == 0.0
    assert len(bundle.arrivals.amounts) == 0


def test_what_is_up_is_what_is_due_and_what_closed_already() -> None:
    crm = company(
        upcoming("late", "2024-04-20", 1.0),
        upcoming("undated", None, 2.0),
        upcoming("may", "2024-05-31", 4.0),
        upcoming("june", "2024-06-01", 8.0),
        upcoming("july", "2024-07-01", 16.0),
        deal("kept", "2024-05-02T08:00Z", "2024-05-10T08:00Z", pipeline_id="keep", amount=32.0,
             closed_amount=40.0, stage_id="keep-talk"),
        deal("left", "2024-05-02T08:00Z", "2024-05-10T08:00Z", pipeline_id="keep", amount=64.0,
             outcome="lost", stage_id="keep-talk"),
        deal("other", "2024-05-02T08:00Z", "2024-05-10T08:00Z", pipeline_id="new", amount=999.0,
             stage_id="new-talk"),
    )  # fmt: skip
    may, june = kept(crm, fitted(crm, "keep"))
    assert (may.cell.group, may.due, june.due) == ("keep", 3, 1)
    assert may.up_for_renewal == 1.0 + 2.0 + 4.0 + 32.0 + 64.0
    assert june.up_for_renewal == 8.0
    assert (may.renewed_to_date, may.churned_to_date) == (40.0, 64.0)
    assert (june.renewed_to_date, june.churned_to_date) == (0.0, 0.0)
    assert may.cell.components["won"] == 40.0 and may.cell.components["new"] == 0.0
    assert may.expected_churn >= 64.0 and may.expected_renewed >= 40.0
    assert may.net_retention == pytest.approx(may.expected_renewed / may.up_for_renewal)
    # Amounts did not change but for the one: what is kept, lost and undecided adds up.
    whole = june.expected_renewed + june.expected_churn + june.undecided
    assert whole == pytest.approx(june.up_for_renewal, rel=0.15)
    assert june.gross_retention is not None and 0.5 < june.gross_retention < 0.95
    gross = june.gross_retention * 8.0 + june.expected_churn + june.undecided
    assert gross == pytest.approx(8.0)


def test_nothing_up_has_no_retention_and_no_amount_is_drawn() -> None:
    crm = company(upcoming("june", "2024-06-10", None))
    may, june = kept(crm, fitted(crm, "keep"))
    assert (may.up_for_renewal, may.net_retention, may.gross_retention) == (0.0, None, None)
    assert june.due == 1 and june.up_for_renewal > 0 and june.net_retention is not None


def test_only_closings_known_by_then_count() -> None:
    late = deal("late", "2024-05-02T08:00Z", "2024-05-10T08:00Z", pipeline_id="keep", amount=32.0,
                outcome="lost", stage_id="keep-talk", recorded_at="2024-05-20T00:00Z",
                recorded_assumed=False)  # fmt: skip
    crm = company(late, upcoming("june", "2024-06-10"))
    may, _ = kept(crm, fitted(crm, "keep"))
    assert may.churned_to_date == 0.0


def test_a_pipeline_in_which_all_has_closed_is_told_too() -> None:
    lost = deal("lost", "2024-05-02T08:00Z", "2024-05-10T08:00Z", pipeline_id="keep", amount=32.0,
                outcome="lost", stage_id="keep-talk")  # fmt: skip
    crm = company(lost)
    may, june = kept(crm, fitted(crm, "keep"))
    assert (may.up_for_renewal, may.churned_to_date, may.net_retention) == (32.0, 32.0, 0.0)
    assert may.cell.mean == 0.0 and set(may.cell.quantiles.values()) == {0.0}
    assert june.net_retention is None
