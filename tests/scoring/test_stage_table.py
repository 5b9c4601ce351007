"""The table of stages: by hand on a few deals, and against the true world."""

from __future__ import annotations

from typing import Any

import pytest

from data.history import History
from scoring.stage_table import StageRow, stage_table
from tests import worlds
from tests.scoring.crm_books import books_of
from tests.small_crm import deal, history, moment, move, stages

NOW = "2024-06-01T00:00"


def walked(deal_id: str, *stays: tuple[str, str], end: str | None = None, won: bool = True,
           **fields: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:  # fmt: skip
    """A deal that entered some stages at some moments."""
    outcome = {} if end is None else {"outcome": "won" if won else "lost"}
    row = deal(deal_id, stays[0][1], end, stage_id=stays[-1][0], **outcome, **fields)
    before: list[str | None] = [None, *(s for s, _ in stays)]
    return row, [
        move(deal_id, at, stage, since, source="crm", provenance="native")
        for (stage, at), since in zip(stays, before, strict=False)
    ]


def crm_of(*deals: tuple[dict[str, Any], list[dict[str, Any]]], **more: Any) -> History:
    return history(deal=[d for d, _ in deals], stage_change=[m for _, ms in deals for m in ms],
                   **more)  # fmt: skip


def rows(crm: History, at: str = NOW) -> dict[str, StageRow]:
    return {r.stage_id: r for r in stage_table(books_of(crm, at))}


DEALS = (
    walked("a", ("new", "2024-05-01T00:00Z"), ("talk", "2024-05-03T00:00Z"),
           end="2024-05-09T00:00Z"),
    walked("b", ("new", "2024-05-01T00:00Z"), ("offer", "2024-05-05T00:00Z")),
    walked("c", ("new", "2024-05-01T00:00Z"), end="2024-05-07T00:00Z", won=False),
    walked("d", ("new", "2024-05-01T00:00Z"), ("talk", "2024-05-04T00:00Z"),
           ("new", "2024-05-06T00:00Z"), ("talk", "2024-05-07T00:00Z"),
           end="2024-05-08T00:00Z", won=False),
    walked("e", ("new", "2024-05-30T00:00Z"), amount=70.0),
)  # fmt: skip


def test_conversion_days_and_what_is_in_each_stage() -> None:
    found = rows(crm_of(*DEALS))
    assert list(found) == ["new", "talk", "offer"]
    new, talk, offer = found.values()
    # a, d, b went on after 2, 3, 4 days, c was lost after 6; e has been watched for two days
    went_on = 1 / 5 + 4 / 5 * (1 / 3 + 2 / 3 * 1 / 2)
    assert new.conversion == pytest.approx(went_on) and new.decided == 4
    assert new.stays == 5 and new.median_days == 3.0  # 2, 4, 6, 3 and 1 days; e still there
    assert talk.conversion == pytest.approx(1 / 2) and talk.decided == 2
    assert talk.stays == 3 and talk.median_days == 2.0
    assert (offer.conversion, offer.decided, offer.median_days) == (None, 0, None)
    assert [(r.open_deals, r.open_cents) for r in found.values()] == [
        (1, 7_000), (0, 0), (1, 100_000),
    ]  # fmt: skip
    assert new.win_probability is None and new.closed is None


def test_as_of_an_earlier_moment_only_what_was_known_counts() -> None:
    found = rows(crm_of(*DEALS), "2024-05-04T12:00")
    assert found["new"].decided == 2 and found["new"].conversion == 1.0
    assert found["talk"].open_deals == 2 and found["talk"].decided == 0


def test_a_deleted_deal_is_no_loss() -> None:
    gone = walked("g", ("new", "2024-05-01T00:00Z"), deleted_at="2024-05-02T00:00Z")
    assert rows(crm_of(*DEALS, gone))["new"].decided == 4


def test_stages_of_several_pipelines_keep_their_order_and_their_names() -> None:
    more = [{"pipeline_id": "a", "stage_id": "x", "name": "First", "sort_order": 1, "kind": "open"}]
    found = stage_table(books_of(crm_of(*DEALS, stage=[*stages(), *more]), NOW))
    assert [(r.pipeline_id, r.stage_id) for r in found] == [
        ("a", "x"), ("p", "new"), ("p", "talk"), ("p", "offer"),
    ]  # fmt: skip
    assert found[0].name == "First"


def test_deals_whose_stage_is_not_known_have_a_line_of_their_own() -> None:
    crm = history(deal=[deal("d", "2024-05-01T00:00Z", amount=5.0)])
    last = stage_table(books_of(crm, NOW))[-1]
    assert (last.stage_id, last.open_deals, last.open_cents) == ("unknown", 1, 500)


def test_the_models_rates_stand_beside_what_is_open() -> None:
    books = books_of(worlds.company(), worlds.cut_time(), bundle=worlds.deals())
    found = stage_table(books)
    assert sum(r.open_deals for r in found) == len(books.open)
    assert sum(r.open_cents for r in found) == books.open_cents.sum()
    for row in found:
        rate = worlds.deals().stage_rates[row.stage_id]
        assert (row.win_probability, row.closed) == (rate["rate"], int(rate["n"]))
        assert row.low is not None and row.high is not None
        assert row.low < rate["rate"] < row.high
    # Along a pipeline, going on from stage to stage comes to about the chance to be won.
    first = [r for r in found if r.pipeline_id == "new-business"]
    chain = 1.0
    for row in first:
        assert row.conversion is not None
        chain *= row.conversion
    assert first[0].win_probability is not None
    assert chain == pytest.approx(first[0].win_probability, abs=0.08)


def test_a_crm_without_deals_still_lists_its_stages() -> None:
    found = stage_table(books_of(history("EUR"), moment(NOW)))
    assert [r.open_deals for r in found] == [0, 0, 0]
