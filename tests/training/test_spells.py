"""When records were open: the ground on which all labels stand."""

import numpy as np
import pytest

from data.history import LOST, OPEN, WON, History
from tests.small_crm import change, deal, history, moment
from training.examples import durations, open_spells

UNTIL = "2024-06-01"


def spells(crm: History, instant: bool = False) -> list[tuple[str, str, str, int]]:
    """(deal, begin, end, outcome), times as days, in order."""
    found = open_spells(crm.deals, int(moment(UNTIL).astype(np.int64)), instant=instant)
    begin, end = (
        t.astype("datetime64[us]").astype("datetime64[D]").astype(str)
        for t in (found.begin, found.end)
    )
    ids = crm.deals.ids[found.row]
    return sorted(zip(map(str, ids), begin, end, map(int, found.outcome), strict=True))


def test_open_won_lost_deleted_and_not_yet_known() -> None:
    crm = history(
        deal=[
            deal("open", "2024-01-01T08:00Z"),
            deal("won", "2024-01-02T08:00Z", "2024-02-01T08:00Z"),
            deal("lost", "2024-01-03T08:00Z", "2024-03-01T08:00Z", outcome="lost"),
            deal("gone", "2024-01-04T08:00Z", "2024-04-01T08:00Z", deleted_at="2024-02-02T00:00Z"),
            deal("later", "2024-01-05T08:00Z", "2024-07-01T08:00Z"),
            deal("unborn", "2024-06-02T08:00Z"),
        ]
    )
    assert spells(crm) == [
        ("gone", "2024-01-04", "2024-02-02", OPEN),
        ("later", "2024-01-05", "2024-06-01", OPEN),
        ("lost", "2024-01-03", "2024-03-01", LOST),
        ("open", "2024-01-01", "2024-06-01", OPEN),
        ("won", "2024-01-02", "2024-02-01", WON),
    ]


def test_a_reopened_deal_has_two_spells() -> None:
    crm = history(
        deal=[deal("d", "2024-01-01T08:00Z", "2024-04-01T08:00Z", outcome="lost")],
        field_change=[
            change("d", "2024-02-01T08:00Z", "outcome", "open", "won"),
            change("d", "2024-03-01T08:00Z", "outcome", "won", "open"),
            change("d", "2024-04-01T08:00Z", "outcome", "open", "lost"),
        ],
    )
    assert spells(crm) == [
        ("d", "2024-01-01", "2024-02-01", WON),
        ("d", "2024-03-01", "2024-04-01", LOST),
    ]
    age, outcome, entry = durations(crm, "deal", int(moment(UNTIL).astype(np.int64)))
    assert (age.tolist(), outcome.tolist(), entry.tolist()) == ([31.0], [WON], [0.0])


def test_deals_that_had_closed_when_they_became_known_were_never_seen_open() -> None:
    pushed = {"recorded_at": "2024-05-01T00:00Z"}  # a back-fill by the API
    crm = history(
        deal=[
            deal("old", "2023-01-01T08:00Z", "2023-03-01T08:00Z", **pushed),
            deal("back in time", "2024-02-01T08:00Z", "2024-01-01T08:00Z"),
            deal("still open", "2023-01-01T08:00Z", **pushed),
        ]
    )
    assert spells(crm) == [("still open", "2024-05-01", "2024-06-01", OPEN)]


def test_a_closing_at_the_moment_of_creation_is_a_spell_of_no_length() -> None:
    crm = history(deal=[deal("d", "2024-01-01T00:00Z", "2024-01-01T00:00Z")])
    assert spells(crm) == []
    assert spells(crm, instant=True) == [("d", "2024-01-01", "2024-01-01", WON)]


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_closed_is_no_error(n: int) -> None:
    crm = history(deal=[deal("d", "2024-01-01T08:00Z")][:n])
    assert len(spells(crm)) == n
