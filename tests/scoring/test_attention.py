"""Slipped, stalled and at-risk deals, one rule at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from data.history import WON, History
from scoring.attention import attention, flagged
from scoring.scores import won_within
from tests import worlds
from tests.scoring.crm_books import books_of
from tests.small_crm import after, change, deal, history, move, stages

NOW = "2024-05-15T12:00"


def flags(crm: History, at: str = NOW, **options: Any) -> dict[str, tuple[str, ...]]:
    books = books_of(crm, at, **options)
    return {f.deal_id: f.flags for f in flagged(books, attention(books), 100)}


def test_a_close_date_that_passed_has_slipped_and_today_has_not() -> None:
    crm = history(deal=[
        deal(d, "2024-05-01T00:00Z", expected_close_date=f"2024-05-{d}") for d in ("14", "15")
    ])  # fmt: skip
    assert set(flags(crm)) == {"14"}


def test_a_date_pushed_out_of_the_period_has_slipped() -> None:
    def pushed(deal_id: str, created: str, old: str, new: str) -> list[dict[str, Any]]:
        return [change(deal_id, "2024-05-10T00:00:00Z", "expected_close_date", old, new)]

    cases = {
        "out": ("2024-04-01T00:00Z", "2024-05-20", "2024-06-01"),
        "inside": ("2024-04-01T00:00Z", "2024-05-20", "2024-05-31"),
        "born in it": ("2024-05-05T00:00Z", "2024-05-20", "2024-06-05"),
        "later anyway": ("2024-04-01T00:00Z", "2024-06-20", "2024-07-05"),
        "into it": ("2024-04-01T00:00Z", "2024-06-20", "2024-05-30"),
    }
    crm = history(
        deal=[deal(n, c, expected_close_date=new) for n, (c, _, new) in cases.items()],
        field_change=[row for n, (c, old, new) in cases.items() for row in pushed(n, c, old, new)],
    )
    assert set(flags(crm)) == {"out", "born in it"}
    assert set(flags(crm, period="quarter")) == {"later anyway"}
    assert set(flags(crm, "2024-05-09T00:00")) == set()


def won_deals(n: int, days: list[float], stage: str = "talk") -> tuple[list[Any], list[Any]]:
    """Deals won from a stage after so many days in it."""
    deals, moves = [], []
    for i in range(n):
        begin = "2024-01-01T00:00Z"
        deals.append(deal(f"w{i}", begin, after("2024-01-01", days[i % len(days)]),
                          stage_id=stage))  # fmt: skip
        moves.append(move(f"w{i}", begin, stage, source="crm", provenance="native"))
    return deals, moves


def test_longer_in_its_stage_than_nine_in_ten_won_deals_is_stalled() -> None:
    deals, moves = won_deals(20, [float(d) for d in range(1, 21)])
    for name, days in (("slow", 19.0), ("usual", 17.0)):
        begin = after(NOW, -days)
        deals.append(deal(name, begin, stage_id="talk", source="crm"))
        moves.append(move(name, begin, "talk", source="crm", provenance="native"))
    crm = history(deal=deals, stage_change=moves)
    assert flags(crm) == {"slow": ("stalled",)}
    books = books_of(crm, NOW)
    (why,) = (f.why for f in flagged(books, attention(books), 10))
    assert why == "19 days in its stage (9 of 10 won deals: under 18)"
    few, few_moves = won_deals(9, [1.0])
    assert flags(history(deal=[*few, *deals[20:]], stage_change=[*few_moves, *moves[20:]])) == {}


def test_what_is_learnt_is_what_was_known_then() -> None:
    deals, moves = won_deals(20, [4.0])
    late = [d | {"closed_at": after("2024-01-05", 90)} for d in deals]
    begin = after("2024-02-01", -10)
    slow = deal("slow", begin, stage_id="talk"), move("slow", begin, "talk", provenance="native")
    for known, expected in ((deals, {"slow"}), (late, set())):
        crm = history(deal=[*known, slow[0]], stage_change=[*moves, slow[1]])
        told = flags(crm, "2024-02-01T00:00")
        assert set(told) & {"slow"} == expected


def test_a_stage_may_declare_how_long_without_activity_is_too_long() -> None:
    begin = "2024-05-01T00:00Z"
    crm = history(
        deal=[deal(d, begin, stage_id="talk") for d in ("quiet", "busy")],
        stage=stages(rotten_after_days=[None, 10, None]),
        activity=[{"activity_id": "x", "deal_id": "busy", "occurred_at": "2024-05-12T00:00:00Z"}],
    )
    assert flags(crm) == {"quiet": ("stalled",)}
    assert flags(crm, "2024-05-11T00:00") == {}


def test_pauses_of_won_deals_set_the_limit_where_none_is_declared() -> None:
    deals, moves = won_deals(20, [40.0])
    begin = after(NOW, -30)
    for name in ("quiet", "busy"):
        deals.append(deal(name, begin, stage_id="talk"))
        moves.append(move(name, begin, "talk", source="crm", provenance="native"))
    work = [
        {"activity_id": f"x{d['deal_id']}{day}", "deal_id": d["deal_id"],
         "occurred_at": after("2024-01-01", day)}
        for d in deals[:20] for day in range(0, 40, 8)
    ]  # fmt: skip
    work.append({"activity_id": "b", "deal_id": "busy", "occurred_at": after(NOW, -7)})
    assert flags(history(deal=deals, stage_change=moves, activity=work)) == {"quiet": ("stalled",)}
    assert flags(history(deal=deals, stage_change=moves)) == {}  # work leaves no trace here


def test_at_risk_is_told_by_the_models_chance_in_time() -> None:
    books = books_of(worlds.company(), worlds.cut_time(), "quarter", worlds.deals())
    found = attention(books)
    left = float((books.period.end - books.as_of) / np.timedelta64(1, "D"))
    chance = won_within(books.open, worlds.deals(), np.full(len(books.open), left))
    levels = books.open.ledger.stage_levels
    usual = np.array([worlds.deals().stage_rates[str(levels[s])]["rate"] for s in books.open.stage])
    expected = books.expected < books.day(books.period.end)
    assert found.counted_on.tolist() == expected.tolist()
    assert found.at_risk.tolist() == (expected & (chance < 0.5 * usual)).tolist()
    assert 0 < found.at_risk.sum() < expected.sum()


def test_deals_at_risk_are_won_more_seldom() -> None:
    """What the flag is worth: those with it against the others that are counted on."""
    books = books_of(worlds.company(), worlds.cut_time(), "quarter", worlds.deals())
    found = attention(books)
    end = int(books.period.end.astype("datetime64[us]").astype(np.int64))
    until = min(end, books.history.observed_until)
    rows = books.open.rows
    won = books.history.landmarks("deal", rows, np.full(len(rows), until)).outcome == WON
    risky, safe = found.at_risk, found.counted_on & ~found.at_risk
    assert won[risky].mean() < won[safe].mean()


@pytest.mark.parametrize("most", [0, 1, 5])
def test_the_largest_deals_are_listed_first(most: int) -> None:
    crm = history(deal=[
        deal(f"d{i}", "2024-05-01T00:00Z", amount=float(i), expected_close_date="2024-05-02")
        for i in range(3)
    ])  # fmt: skip
    books = books_of(crm, NOW)
    found = flagged(books, attention(books), most)
    assert [f.deal_id for f in found] == ["d2", "d1", "d0"][:most]
