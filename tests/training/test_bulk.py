"""Bulk closings: losses of one clean-up are drawn back in time, everything else stays."""

from __future__ import annotations

from typing import Any

import numpy as np

from data.features import declare
from data.history import LOST, WON, History
from data.pipeline import FiscalCalendar
from data.records import ENTITIES, Table
from models.deal import DealRows
from models.grid import HazardGrid
from training.bulk import spread_bulk_losses
from training.examples import deal_rows

GRID = HazardGrid.for_durations(30.0, 180.0)
UNTIL = int(np.datetime64("2025-12-01", "us").astype(np.int64))
DAY = 86_400_000_000


def stamp(day: int, minute: int = 0) -> str:
    return str(np.datetime64("2025-01-01T10:00", "m") + np.timedelta64(day * 1440 + minute, "m"))


def spread(
    deals: list[dict[str, Any]], activities: list[dict[str, Any]] | None = None
) -> tuple[DealRows, DealRows]:
    """Landmarks as they stand, and with bulk losses drawn back."""
    rows = {"deal": deals, "activity": activities or []}
    history = History({n: Table.from_rows(ENTITIES[n], r) for n, r in rows.items()})
    found, snapshot = deal_rows(
        history, declare(history, "deal", UNTIL), GRID, FiscalCalendar(), -DAY, UNTIL, UNTIL
    )
    return found, spread_bulk_losses(found, snapshot)


def deal(name: str, born: int, end: str, outcome: str = "lost") -> dict[str, Any]:
    return {"deal_id": name, "created_at": stamp(born), "closed_at": end, "outcome": outcome}


def scattered(n: int = 30) -> list[dict[str, Any]]:
    """Deals lost one by one, each on a day and at a minute of its own."""
    return [deal(f"S{i}", i, stamp(20 + 3 * i, 7 * i)) for i in range(n)]


def test_losses_of_one_clean_up_lie_between_the_last_sign_of_life_and_the_clean_up() -> None:
    wave = [deal(f"B{i}", i, stamp(200, i % 3)) for i in range(40)]
    calls = [
        {"activity_id": f"A{i}", "type": "call", "occurred_at": stamp(100), "deal_id": f"B{i}"}
        for i in range(40)
    ]
    before, after = spread(scattered() + wave, calls)
    moved = before.time != after.time
    assert set(before.deal[moved]) == set(range(30, 70))  # the wave, and nothing else
    at = before.time - after.time  # how far each was drawn back
    assert (at[moved] > 0).all() and (after.time >= 0).all()
    created = np.floor(before.time[moved])
    early = created > 110  # landmarks before the call: the loss lies after the call
    assert ((before.time - after.time)[moved][early] <= 100.01).all()
    one_each = [after.time[moved & (before.deal == d)].max() for d in range(30, 70)]
    assert np.ptp(np.array(one_each) + np.arange(40)) > 40  # spread out, not one wave again


def test_wins_in_one_moment_stay_where_they_are() -> None:
    wave = [deal(f"B{i}", i, stamp(200), "won") for i in range(40)]
    before, after = spread(scattered() + wave)
    assert (before.outcome == WON).any() and (before.outcome == LOST).any()
    np.testing.assert_array_equal(before.time, after.time)


def test_a_nightly_job_is_a_rule_that_lasts() -> None:
    nights = [deal(f"N{k}-{i}", i, stamp(100 + 10 * k)) for k in range(6) for i in range(15)]
    before, after = spread(scattered() + nights)
    np.testing.assert_array_equal(before.time, after.time)


def test_dates_without_a_clock_are_counted_by_day() -> None:
    dated = [
        {**deal(f"D{i}", i, ""), "closed_at": f"2025-0{2 + i % 6}-{1 + i % 28:02d}T00:00:00Z"}
        for i in range(60)
    ]
    wave = [{**deal(f"B{i}", i, ""), "closed_at": "2025-09-01T00:00:00Z"} for i in range(30)]
    before, after = spread(dated + wave)
    assert set(before.deal[before.time != after.time]) == set(range(60, 90))
