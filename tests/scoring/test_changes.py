"""What moved between two moments: it adds up to the cent, and books each thing where it belongs."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.history import History, HistoryError
from data.pipeline import FiscalCalendar, Period
from data.records import ENTITIES, Table
from scoring.changes import KINDS, Bridge, Changes, ChangesError, changes
from scoring.grouping import GROUPINGS, GroupingError, group_of
from scoring.money import rounded
from tests.data.messy_crm import DAY, EXPORT, FACTS, HOUR, START, Messy, iso
from tests.small_crm import change, deal, history, moment, move

CALENDAR = FiscalCalendar()
# Booked as they happen, so that two intervals in a row book what the whole one does.
EXACT = [k for k in KINDS if k not in ("amount_up", "amount_down", "pulled_in", "pushed_out")]

BETWEEN = ("moved_in", "moved_out")


# --- random records, told late, reopened, deleted, in two currencies with moving rates


@cache
def messy(seed: int) -> History:
    """Messy records whose deals change currencies, owners and teams, at rates that move."""
    crm = Messy(seed)
    pick = random.Random(seed + 1)
    for row in crm.rows["deal"]:
        row["currency"] = pick.choice(["EUR", "USD", "USD"])
        row["amount"] = pick.choice([None, row["amount"] + pick.choice([0.0, 0.005, 0.37])])
        row["team_id"] = pick.choice(["T0", "T1", None])
        for field, values in (
            ("team_id", ["T0", "T1", None]),
            ("currency", ["EUR", "USD"]),
            ("expected_close_date", [iso(crm.moment())[:10], None]),
        ):
            if pick.random() < 0.5:
                crm.rows["field_change"].append(
                    {
                        "entity": "deal",
                        "entity_id": row["deal_id"],
                        "changed_at": iso(crm.moment()),
                        "field": field,
                        "old_value": pick.choice(values),
                        "new_value": pick.choice(values),
                        "source": row["source"],
                        "provenance": "native",
                    }
                )
    crm.rows["owner"] = [{"owner_id": "R0", "team_id": "T0"}, {"owner_id": "R1", "team_id": "T1"}]
    days = sorted({0, *(pick.randrange(120) for _ in range(20))})
    crm.rows["exchange_rate"] = [
        {"date": iso(START - DAY + d * DAY)[:10], "from_currency": "USD", "to_currency": "EUR",
         "rate": round(pick.uniform(0.8, 1.0), 4)}
        for d in days
    ]  # fmt: skip
    return History(crm.tables(), FACTS, "EUR")


def us(at: int) -> np.datetime64:
    return np.datetime64(at, "us")


def pipeline(crm: History, at: np.datetime64, by: str | None, period: Period | None) -> Any:
    """The open pipeline straight from the snapshot: (deals, cents) by group."""
    found = crm.as_of("deal", at)
    if period is not None:
        day = found.value("expected_close_date").numbers()
        first, after = (float(t.astype("datetime64[D]").astype(int))
                        for t in (period.start, period.end))  # fmt: skip
        found = found.take((day >= first) & (day < after))
    out: dict[str, tuple[int, int]] = {}
    for group, cents in zip(group_of(found, by), rounded(found.amount).tolist(), strict=True):
        n, total = out.get(str(group), (0, 0))
        out[str(group)] = n + 1, total + cents
    return out


def effects(bridge: Bridge) -> dict[str, int]:
    return {c.kind: c.effect for c in bridge.changes}


SEEDS = st.integers(0, 400)
# On the grid that the events lie on, and just beside it.
MOMENTS = st.integers(0, (EXPORT - START) // (6 * HOUR) + 40).map(lambda i: START + i * 6 * HOUR)
ASIDE = st.sampled_from([-1, 0, 1])
BY = st.sampled_from([None, *GROUPINGS])
PERIOD = st.sampled_from([None, "week", "month", "quarter"])


def period_of(kind: str | None, at: np.datetime64) -> Period | None:
    return None if kind is None else CALENDAR.named(kind, at)[1]


@settings(max_examples=300, deadline=None)
@given(SEEDS, MOMENTS, MOMENTS, ASIDE, BY, PERIOD, MOMENTS)
def test_it_adds_up_to_the_cent_for_the_whole_and_every_group(
    seed: int, one: int, other: int, aside: int, by: str | None, kind: str | None, around: int
) -> None:
    crm = messy(seed)
    start, end = us(min(one, other) + aside), us(max(one, other) + aside)
    period = period_of(kind, us(around))
    found = changes(crm, start, end, by, period=period)
    whole, *groups = found.groups
    for bridge in found.groups:
        assert bridge.before.cents + sum(effects(bridge).values()) == bridge.after.cents
    for at, side in ((start, "before"), (end, "after")):
        alone = pipeline(crm, at, None, period).get("all", (0, 0))
        stock = getattr(whole, side)
        assert (stock.deals, stock.cents) == alone
        if by is not None:
            told = {g.group: getattr(g, side) for g in groups}
            shown = {k: (s.deals, s.cents) for k, s in told.items() if s.deals}
            assert shown == pipeline(crm, at, by, period)
    if groups:  # what is not told net by deal adds up over the groups, kind by kind
        for exact in EXACT:
            if exact not in BETWEEN:
                total = sum(effects(g).get(exact, 0) for g in groups)
                assert total == effects(whole).get(exact, 0)
        assert sum(effects(g).get(kind, 0) for g in groups for kind in BETWEEN) == 0
    if by is None:
        assert sum(m.effect for m in found.moved) == whole.after.cents - whole.before.cents


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.tuples(MOMENTS, MOMENTS, MOMENTS), BY, PERIOD, MOMENTS)
def test_two_intervals_in_a_row_book_what_the_whole_one_does(
    seed: int, moments: tuple[int, int, int], by: str | None, kind: str | None, around: int
) -> None:
    crm, period = messy(seed), period_of(kind, us(around))
    a, b, c = (us(t) for t in sorted(moments))
    first, second, whole = (
        {g.group: effects(g) for g in changes(crm, *span, by, period=period).groups}
        for span in ((a, b), (b, c), (a, c))
    )
    both = first.keys() | second.keys()
    assert whole.keys() <= both
    for group in both:
        parts = [told.get(group, {}) for told in (first, second)]
        got = whole.get(group, {})
        for exact in [*EXACT, "pulled_in", "pushed_out"]:
            assert sum(p.get(exact, 0) for p in parts) == got.get(exact, 0), exact
        balance = [sum(p.get(k, 0) for k in ("amount_up", "amount_down")) for p in (*parts, got)]
        assert balance[0] + balance[1] == balance[2]


@settings(max_examples=60, deadline=None)
@given(SEEDS, MOMENTS, BY, PERIOD)
def test_from_a_moment_to_itself_nothing_moved(
    seed: int, at: int, by: str | None, kind: str | None
) -> None:
    found = changes(messy(seed), us(at), us(at), by, period=period_of(kind, us(at)))
    assert found.moved == ()
    assert all(g.changes == () and g.before == g.after for g in found.groups)


@settings(max_examples=60, deadline=None)
@given(SEEDS, MOMENTS, MOMENTS, BY)
def test_the_whole_is_the_same_whatever_the_grouping(
    seed: int, one: int, other: int, by: str | None
) -> None:
    start, end = us(min(one, other)), us(max(one, other))
    alone, grouped = (
        # "moved" is between the groups asked for, and of owners without any
        [c for c in changes(messy(seed), start, end, g).groups[0].changes if c.kind != "moved"]
        for g in (None, by)
    )
    assert alone == grouped


def test_the_random_records_hold_every_kind() -> None:
    seen: dict[str, int] = dict.fromkeys(KINDS, 0)
    for seed in range(60):
        for kind in (None, "month"):
            period = period_of(kind, us(START + 60 * DAY))
            found = changes(messy(seed), us(START), us(EXPORT), "owner", period=period)
            for group in found.groups:
                for c in group.changes:
                    seen[c.kind] += c.deals
    assert min(seen.values()) > 5, seen


# --- one thing at a time


def one_deal(*rows: dict[str, Any], moves: Any = (), **fields: Any) -> History:
    usual = {"expected_close_date": "2024-05-20", "owner_id": "ann", "amount": 100.0}
    fields = {**usual, **fields}
    return history(
        "EUR",
        deal=[deal("d", "2024-04-01T08:00Z", **fields)],
        field_change=list(rows),
        stage_change=[move("d", "2024-04-01T08:00Z", "new"), *moves],
        exchange_rate=[
            {"date": day, "from_currency": "USD", "to_currency": "EUR", "rate": rate}
            for day, rate in (("2024-01-01", 0.9), ("2024-05-05", 0.8))
        ],
        stage=[
            {"pipeline_id": "p", "stage_id": s, "name": s, "sort_order": i, "kind": kind}
            for i, (s, kind) in enumerate(
                {"new": "open", "offer": "open", "W": "won", "L": "lost"}.items()
            )
        ],
    )


def told(crm: History, start: str, end: str, **options: Any) -> dict[str, tuple[int, float, float]]:
    """By kind of the whole: deals, effect and amount in whole units."""
    found = changes(crm, moment(start), moment(end), **options)
    return {c.kind: (c.deals, c.effect / 100, c.amount / 100) for c in found.groups[0].changes}


def test_created_with_its_first_amount_then_raised_then_won() -> None:
    crm = one_deal(
        change("d", "2024-04-10T08:00:00Z", "amount", 100, 150),
        moves=[move("d", "2024-05-02T10:00Z", "W", "new")],
        amount=150.0, outcome="won", closed_at="2024-05-02T10:00:00Z", closed_amount=140.0,
    )  # fmt: skip
    assert told(crm, "2024-03-01", "2024-06-01") == {
        "created": (1, 100.0, 100.0),
        "amount_up": (1, 50.0, 50.0),
        "won": (1, -150.0, 150.0),
    }
    assert told(crm, "2024-04-05", "2024-04-20") == {"amount_up": (1, 50.0, 50.0)}
    assert told(crm, "2024-05-02T10:00", "2024-06-01") == {}


def test_what_is_known_at_one_moment_is_booked_amount_first_and_the_closing_last() -> None:
    at = "2024-05-02T10:00:00Z"
    crm = one_deal(
        change("d", at, "amount", 100, 130),
        change("d", at, "owner_id", "ann", "bob"),
        change("d", at, "expected_close_date", "2024-05-20", "2024-06-03"),
        moves=[move("d", at, "L", "new")],
        amount=130.0, owner_id="bob", expected_close_date="2024-06-03",
        outcome="lost", closed_at=at,
    )  # fmt: skip
    found = changes(crm, moment("2024-05-01"), moment("2024-05-03"), "owner")
    assert {g.group: effects(g) for g in found.groups} == {
        "all": {"amount_up": 3000, "moved": 0, "lost": -13000},
        "ann": {"amount_up": 3000, "moved_out": -13000},
        "bob": {"moved_in": 13000, "lost": -13000},
    }
    may = CALENDAR.named("2024-05", moment(at[:-1]))[1]
    inside = told(crm, "2024-05-01", "2024-05-03", by="owner", period=may)
    assert inside["pushed_out"] == (1, -130.0, 130.0) and "lost" not in inside


def test_an_amount_that_is_put_right_again_is_no_news() -> None:
    crm = one_deal(
        change("d", "2024-04-10T08:00:00Z", "amount", 100, 1000),
        change("d", "2024-04-11T08:00:00Z", "amount", 1000, 100),
    )
    assert told(crm, "2024-04-05", "2024-04-20") == {}
    assert told(crm, "2024-04-05", "2024-04-11") == {"amount_up": (1, 900.0, 900.0)}


def test_a_rate_that_moves_is_a_kind_of_its_own() -> None:
    crm = one_deal(change("d", "2024-05-10T08:00:00Z", "amount", 100, 200), amount=200.0,
                   currency="USD")  # fmt: skip
    assert told(crm, "2024-05-01", "2024-06-01") == {
        "amount_up": (1, 80.0, 80.0),
        "exchange_rate": (1, -10.0, 10.0),
    }


def test_a_rate_counts_up_to_the_moment_a_deal_leaves() -> None:
    crm = one_deal(
        moves=[move("d", "2024-05-07T10:00Z", "W", "new")],
        currency="USD", outcome="won", closed_at="2024-05-07T10:00:00Z",
    )  # fmt: skip
    assert told(crm, "2024-05-01", "2024-06-01") == {
        "exchange_rate": (1, -10.0, 10.0),
        "won": (1, -80.0, 80.0),
    }


def test_close_dates_are_shifted_without_a_period_and_cross_its_border_with_one() -> None:
    crm = one_deal(
        change("d", "2024-04-10T08:00:00Z", "expected_close_date", "2024-05-20", "2024-06-10"),
        change("d", "2024-04-20T08:00:00Z", "expected_close_date", "2024-06-10", "2024-05-30"),
        expected_close_date="2024-05-30",
    )
    found = changes(crm, moment("2024-04-05"), moment("2024-04-30"))
    (only,) = found.groups[0].changes
    assert (only.kind, only.effect, only.amount, only.days) == ("pushed_out", 0, 10000, 10.0)
    at = moment("2024-04-30")
    for name, kinds in (
        ("2024-05", {"pushed_out": (1, -100.0, 100.0), "pulled_in": (1, 100.0, 100.0)}),
        ("2024-06", {"pushed_in": (1, 100.0, 100.0), "pulled_out": (1, -100.0, 100.0)}),
        ("2024-07", {}),
        ("2024-Q2", {}),
    ):
        period = CALENDAR.named(name, at)[1]
        assert told(crm, "2024-04-05", "2024-04-30", period=period) == kinds, name


def test_a_deal_without_a_date_is_in_no_period() -> None:
    crm = one_deal(
        change("d", "2024-04-10T08:00:00Z", "expected_close_date", None, "2024-05-20"),
        change("d", "2024-04-20T08:00:00Z", "expected_close_date", "2024-05-20", None),
        expected_close_date=None,
    )
    may = CALENDAR.named("2024-05", moment("2024-04-30"))[1]
    assert told(crm, "2024-04-05", "2024-04-15", period=may) == {"dated": (1, 100.0, 100.0)}
    assert told(crm, "2024-04-15", "2024-04-25", period=may) == {"undated": (1, -100.0, 100.0)}
    assert told(crm, "2024-04-05", "2024-04-25") == {}


def test_a_deal_lost_and_reopened_is_told_as_both() -> None:
    crm = one_deal(moves=[
        move("d", "2024-04-10T10:00Z", "L", "new"), move("d", "2024-04-12T10:00Z", "offer", "L"),
    ])  # fmt: skip
    assert told(crm, "2024-04-05", "2024-04-20") == {
        "reopened": (1, 100.0, 100.0),
        "lost": (1, -100.0, 100.0),
    }
    assert told(crm, "2024-04-11", "2024-04-20") == {"reopened": (1, 100.0, 100.0)}


@pytest.mark.parametrize("how", ["deleted_at", "merged_into_id"])
def test_deleted_and_merged_deals_leave(how: str) -> None:
    at = "2024-04-10T10:00:00Z"
    value = at if how == "deleted_at" else "other"
    crm = one_deal(change("d", at, how, None, value), **{how: value})
    assert told(crm, "2024-04-05", "2024-04-20") == {"deleted": (1, -100.0, 100.0)}


def test_an_owner_changed_is_told_without_a_grouping_too() -> None:
    crm = one_deal(change("d", "2024-04-10T08:00:00Z", "owner_id", "ann", "bob"), owner_id="bob")
    assert told(crm, "2024-04-05", "2024-04-20") == {"moved": (1, 0.0, 100.0)}
    assert told(crm, "2024-04-05", "2024-04-20", by="product") == {}


def test_a_deal_goes_to_another_team_with_its_owner_and_the_amount_it_had() -> None:
    crm = history(
        deal=[deal("d", "2024-04-01T08:00Z", owner_id="bob", amount=170.0)],
        field_change=[change("d", "2024-04-10T08:00:00Z", "owner_id", "ann", "bob"),
                      change("d", "2024-04-12T08:00:00Z", "amount", 100, 170)],
        owner=[{"owner_id": "ann", "team_id": "north"}, {"owner_id": "bob", "team_id": "south"}],
    )  # fmt: skip
    found = changes(crm, moment("2024-04-05"), moment("2024-04-20"), "team")
    assert {g.group: effects(g) for g in found.groups} == {
        "all": {"amount_up": 7000, "moved": 0},
        "north": {"moved_out": -10000},
        "south": {"amount_up": 7000, "moved_in": 10000},
    }


def test_what_was_told_late_is_booked_when_it_was_told() -> None:
    late = change("d", "2024-04-10T08:00:00Z", "amount", 100, 150)
    crm = one_deal(late | {"recorded_at": "2024-04-18T08:00:00Z"}, amount=150.0)
    assert told(crm, "2024-04-09", "2024-04-15") == {}
    assert told(crm, "2024-04-15", "2024-04-20") == {"amount_up": (1, 50.0, 50.0)}


def test_deals_without_an_amount_count_as_nothing_and_are_told() -> None:
    crm = one_deal(amount=None)
    found = changes(crm, moment("2024-03-01"), moment("2024-05-01"))
    whole = found.groups[0]
    assert (whole.after.deals, whole.after.without_amount, whole.after.cents) == (1, 1, 0)
    assert [(c.kind, c.deals, c.effect) for c in whole.changes] == [("created", 1, 0)]


def test_an_amount_that_becomes_known_is_no_rise() -> None:
    crm = one_deal(
        change("d", "2024-04-10T08:00:00Z", "amount", None, 100),
        change("d", "2024-04-20T08:00:00Z", "amount", 100, 130),
        change("d", "2024-04-25T08:00:00Z", "amount", 130, None),
        amount=None,
    )
    assert told(crm, "2024-04-05", "2024-04-21") == {
        "amount_set": (1, 100.0, 100.0),
        "amount_up": (1, 30.0, 30.0),
    }
    assert told(crm, "2024-04-21", "2024-04-30") == {"amount_down": (1, -130.0, 130.0)}


def test_deals_come_the_largest_first_with_the_moment() -> None:
    crm = history(deal=[
        deal("small", "2024-04-01T08:00Z", amount=5.0), deal("large", "2024-04-02T08:00Z"),
    ])  # fmt: skip
    found = changes(crm, moment("2024-03-01"), moment("2024-05-01"))
    assert [(m.deal_id, m.kind, m.effect) for m in found.moved] == [
        ("large", "created", 100_000), ("small", "created", 500),
    ]  # fmt: skip
    assert str(found.moved[0].at)[:16] == "2024-04-02T08:00"


def test_what_cannot_be_told_is_refused() -> None:
    crm = one_deal()
    with pytest.raises(ChangesError, match="must not be later"):
        changes(crm, moment("2024-05-01"), moment("2024-04-01"))
    with pytest.raises(GroupingError, match="by is 'colour'"):
        changes(crm, moment("2024-04-01"), moment("2024-05-01"), "colour")
    with pytest.raises(HistoryError, match="no rate from CHF"):
        changes(one_deal(currency="CHF"), moment("2024-04-05"), moment("2024-05-01"))
    with pytest.raises(HistoryError, match="correct it"):
        changes(one_deal(amount=1e300), moment("2024-04-05"), moment("2024-05-01"))


def test_a_crm_without_deals_has_nothing_that_moved() -> None:
    crm = History({"lead": Table.empty(ENTITIES["lead"])}, (), None)
    found: Changes = changes(crm, moment("2024-04-01"), moment("2024-05-01"), "owner")
    assert found.groups == (found.groups[0],) and found.groups[0].changes == ()
    assert found.currency == ""
