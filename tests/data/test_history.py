"""The time machine against an oracle in plain Python, on records as messy as real ones."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest

from data.features import Feature, compute
from data.history import LOST, OPEN, WON, History, HistoryError, Snapshot
from data.records import ENTITIES, SourceFacts, Table
from data.timelines import NEVER
from tests.data.messy_crm import DAY, EXPORT, FACTS, START, Messy, iso
from tests.data.oracle import Deal, Oracle

SEEDS = range(40)
OUTCOMES = {"open": OPEN, "won": WON, "lost": LOST}


def us(at: int) -> np.datetime64:
    return np.datetime64(at, "us")


def make(seed: int) -> tuple[History, Oracle]:
    tables = Messy(seed).tables()
    return History(tables, FACTS, "EUR"), Oracle(tables, FACTS)


def moments(history: History, seed: int, n: int = 6) -> list[int]:
    """Random moments, and those at and just before which something happened or was told."""
    pick = random.Random(seed)
    ledger = history.deals
    marked = [*ledger.stages.known_at, *ledger.outcomes.known_at, *ledger.outcomes.at,
              *ledger.activities.known_at, EXPORT]  # fmt: skip
    some = [int(pick.choice(marked)) - pick.choice([0, 0, 1]) for _ in range(n)]
    return [*some, pick.randrange(START, EXPORT), EXPORT + 90 * DAY]


# --- the oracle ------------------------------------------------------------------------------


def expected(deal: Deal, t: int) -> dict[str, Any]:
    """Features of a deal at a moment; None is missing."""
    path, stages = deal.path(t), [e.value for e in deal.path(t)]
    created = deal.row["created_at"]
    began = path[-1].at if path else created
    order = [deal.crm.place[s] for s in stages]
    steps = [b - a for a, b in itertools.pairwise(order)]
    done = deal.activities(t)
    amount, base = deal.value("amount", t), _first(deal, "amount", t)
    close = deal.value("expected_close_date", t)
    close_base = _first(deal, "expected_close_date", t)
    age = None if created is None else (t - created) / DAY
    waited = (min(a["occurred_at"] for a in done) - created) / DAY if done and created else age

    def within(days: int, kind: str | None = None) -> float:
        return float(
            sum(a["occurred_at"] > t - days * DAY and kind in (None, a["type"]) for a in done)
        )

    return {
        "stage": stages[-1] if stages else None,
        "stage_order": float(order[-1]) if order else None,
        "age": age,
        "days_in_stage": None if began is None else (t - began) / DAY,
        "stage_moves": float(max(len(stages) - 1, 0)),
        "stage_visits": float(stages.count(stages[-1])) if stages else 0.0,
        "backward_moves": float(sum(s < 0 for s in steps)),
        "skipped_stages": float(sum(max(s - 1, 0) for s in steps)),
        "activities": float(len(done)),
        "activities_7d": within(7),
        "activities_28d": within(28),
        "activities_90d": within(90),
        "activities_28d[call]": within(28, "call"),
        "activities_in_stage": float(sum(began is not None and a["occurred_at"] >= began
                                         for a in done)),
        "days_since_activity": (t - done[-1]["occurred_at"]) / DAY if done else None,
        "last_activity": done[-1]["type"] if done else None,
        "days_to_first_activity": waited,
        "days_to_next_planned": deal.next_planned(t),
        "amount_log": None if amount is None else float(np.log1p(amount)),
        "amount_changes": float(len(deal.changed("amount", t))),
        "amount_growth": None if amount is None or base is None
        else float(np.log1p(amount) - np.log1p(base)),
        "close_date_pushes": float(len(deal.changed("expected_close_date", t))),
        "close_date_pushed_days": None if close is None or close_base is None
        else close - close_base,
        "days_to_expected_close": None if close is None else close - t / DAY,
        "field[lead_source]": deal.value("lead_source", t),
        "field[size]": deal.value("size", t),
        "field[seats]": deal.value("seats", t),
        "bant[need]": deal.answer("need", t),
        "bant[budget_amount]": deal.answer("budget_amount", t),
        "stakeholders": float(sum(r["recorded_at"] <= t
                                  for r in deal.crm.of("contact_role", deal.row["deal_id"]))),
        **expected_peers(deal, t),
    }  # fmt: skip


def _first(deal: Deal, field: str, t: int) -> Any:
    """The value before any change, once it is shown or a change has told it."""
    told = any(deal.known(c) <= t for c in deal.changes_of(field))
    return deal.base(field) if told or deal.visible(field, t) else None


def expected_peers(deal: Deal, t: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    account, owner = deal.value("account_id", t), deal.value("owner_id", t)
    others = [d for d in deal.crm.deals.values() if d is not deal]
    turns = [
        (turn, d.value("account_id", turn[1]), d.value("owner_id", turn[1]))
        for d in others
        for turn in d.closings()
        if turn[1] <= t
    ]
    for name, outcome in (("account_wins", "won"), ("account_losses", "lost")):
        standing = sum(
            (after == outcome) - (before == outcome)
            for (_, _, before, after), a, _ in turns
            if a == account
        )
        found[name] = None if account is None else float(standing)
    recent = [after for (at, _, _, after), _, o in turns
              if o == owner and after != "open" and at > t - 90 * DAY]  # fmt: skip
    won = float(recent.count("won"))
    found["owner_closings_90d"] = None if owner is None else float(len(recent))
    found["owner_win_rate_90d"] = None if owner is None else (won + 5.0) / (len(recent) + 10.0)
    for name in ("industry", "employee_count"):
        found[f"account[{name}]"] = deal.crm.account(account, name, t)
    return found


CATEGORIES = {"stage", "last_activity", "field[lead_source]", "field[size]", "bant[need]",
              "account[industry]"}  # fmt: skip


def _shown(column: Any, i: int) -> Any:
    """A value of a computed column; None is missing."""
    if isinstance(column, tuple):
        codes, levels = column
        return None if codes[i] < 0 else levels[codes[i]]
    return None if np.isnan(column[i]) else float(column[i])


@pytest.mark.parametrize("seed", SEEDS)
def test_features_are_those_of_the_oracle(seed: int) -> None:
    history, oracle = make(seed)
    deals = list(oracle.deals.values())
    for t in moments(history, seed):
        wanted = [expected(deal, t) for deal in deals]
        features = [Feature(n, "category" if n in CATEGORIES else "number", "", "")
                    for n in wanted[0]]  # fmt: skip
        rows = np.arange(len(deals))
        columns = compute(history.landmarks("deal", rows, np.full(len(rows), t)), features)
        for i, want in enumerate(wanted):
            got = {name: _shown(columns[name], i) for name in want}
            assert got == want, f"{deals[i].row['deal_id']} at {iso(t)}"


@pytest.mark.parametrize("seed", SEEDS)
def test_as_of_and_outcomes_are_those_of_the_oracle(seed: int) -> None:
    history, oracle = make(seed)
    deals = list(oracle.deals.values())
    for t in moments(history, seed, 10):
        rows = np.arange(len(deals))
        every = history.landmarks("deal", rows, np.full(len(rows), t))
        assert every.outcome.tolist() == [OUTCOMES[d.outcome(t)] for d in deals]
        assert every.exists.tolist() == [d.exists(t) for d in deals]
        here = [d.row["deal_id"] for d in deals if d.exists(t) and d.outcome(t) == "open"]
        assert history.as_of("deal", us(t)).ids.tolist() == here


@pytest.mark.parametrize("seed", SEEDS)
def test_revenue_known_at_a_moment_adds_up_to_the_oracles(seed: int) -> None:
    history, oracle = make(seed)
    for t in moments(history, seed, 10):
        want: dict[tuple[str, int], float] = {}
        for deal_id, deal in oracle.deals.items():
            for when, amount in deal.revenue(t):
                want[deal_id, when] = want.get((deal_id, when), 0.0) + amount
        rows, counts_at, known, value = history.wins
        got: dict[tuple[str, int], float] = {}
        for i in np.flatnonzero(known <= t):
            key = str(history.deals.ids[rows[i]]), int(counts_at[i])
            got[key] = got.get(key, 0.0) + float(value[i])
        assert {k: v for k, v in got.items() if v} == {k: v for k, v in want.items() if v}


def test_the_random_records_hold_every_trap() -> None:
    """The oracle proves nothing about what never occurs."""
    late = reopened = gone = unordered = hidden = taken_back = 0
    for seed in SEEDS:
        history, oracle = make(seed)
        ledger = history.deals
        late += int((ledger.stages.known_at > ledger.stages.at).sum())
        unordered += int((~ledger.stages.in_order).sum() + (~ledger.outcomes.in_order).sum())
        gone += int((ledger.gone_at < EXPORT).sum())
        reopened += int((ledger.outcomes.value == OPEN).sum())
        taken_back += int((history.wins[3] < 0).sum())
        hidden += sum(
            d.base("amount") is not None and d.value("amount", EXPORT - DAY) is None
            for d in oracle.deals.values()
        )
    assert min(late, reopened, gone, unordered, taken_back) > 50
    assert hidden > 5


# --- one rule at a time ----------------------------------------------------------------------


def deal(**values: Any) -> dict[str, Any]:
    return {"deal_id": "D", "created_at": "2025-01-01T00:00:00Z", "source": "crm", **values}


def move(day: str, to: str, **values: Any) -> dict[str, Any]:
    return {"entity": "deal", "entity_id": "D", "changed_at": f"{day}T12:00:00Z",
            "to_stage_id": to, "provenance": "native", "source": "crm", **values}  # fmt: skip


def change(day: str, field: str, old: str | None, new: str | None, **values: Any) -> dict[str, Any]:
    return {"entity": "deal", "entity_id": "D", "changed_at": f"{day}T12:00:00Z", "field": field,
            "old_value": old, "new_value": new, "provenance": "native", "source": "crm",
            **values}  # fmt: skip


STAGE_ROWS = [
    {"pipeline_id": "p", "stage_id": s, "sort_order": i, "kind": k}
    for i, (s, k) in enumerate({"A": "open", "B": "open", "W": "won", "L": "lost"}.items())
]


def one(*facts: SourceFacts, currency: str | None = None, **rows: list[dict[str, Any]]) -> History:
    rows = {"stage": STAGE_ROWS, **rows}
    return History({n: Table.from_rows(ENTITIES[n], r) for n, r in rows.items()}, facts, currency)


def at(history: History, day: str) -> Snapshot:
    moment = np.datetime64(day if "T" in day else f"{day}T00:00", "us").astype(np.int64)
    return history.landmarks("deal", np.array([0]), np.array([moment]))


def outcomes(history: History, *days: str) -> list[int]:
    return [int(at(history, day).outcome[0]) for day in days]


def entries(history: History) -> list[tuple[str, str, float]]:
    """(moment it counts, moment known, amount) of won revenue."""
    _, when, known, value = history.wins
    return [(str(us(int(a)))[:10], str(us(int(k)))[:10], float(v))
            for a, k, v in zip(when, known, value, strict=True)]  # fmt: skip


def test_what_happens_at_as_of_is_known_and_a_microsecond_before_is_not() -> None:
    history = one(deal=[deal(outcome="won", closed_at="2025-02-01T12:00:00Z")])
    assert outcomes(history, "2025-02-01T12:00", "2025-02-01T11:59:59.999999") == [WON, OPEN]
    assert len(history.as_of("deal", np.datetime64("2025-01-01T00:00"))) == 1
    assert len(history.as_of("deal", np.datetime64("2024-12-31T23:59"))) == 0


def test_a_closing_told_late_is_known_late_and_counts_on_its_day() -> None:
    history = one(
        deal=[deal(outcome="won", closed_at="2025-02-01T00:00:00Z", closed_amount=7)],
        stage_change=[move("2025-02-20", "W", provenance="snapshot_diff")],
    )
    assert outcomes(history, "2025-02-10", "2025-02-21") == [OPEN, WON]
    assert entries(history) == [("2025-02-01", "2025-02-20", 7.0)]


def test_a_closing_date_alone_does_not_move_a_closing_told_that_day() -> None:
    history = one(
        deal=[deal(outcome="won", closed_at="2025-02-01T00:00:00Z")],
        stage_change=[move("2025-02-01", "B", from_stage_id="A",
                           changed_at="2025-02-01T09:00:00Z"), move("2025-02-01", "W")],
    )  # fmt: skip
    assert outcomes(history, "2025-02-01T11:00", "2025-02-01T12:00") == [OPEN, WON]
    assert history.deals.outcomes.value.tolist() == [WON]


def test_a_closing_dated_back_counts_on_its_date_once_it_is_told() -> None:
    history = one(
        deal=[deal(outcome="won", closed_at="2025-01-31T00:00:00Z", closed_amount=7)],
        stage_change=[move("2025-02-02", "B"), move("2025-02-03", "W")],
    )
    assert outcomes(history, "2025-02-01", "2025-02-03T11:00", "2025-02-04") == [OPEN, OPEN, WON]
    assert entries(history) == [("2025-01-31", "2025-02-03", 7.0)]


def test_the_outcome_flag_stands_against_a_later_open_stage() -> None:
    history = one(
        deal=[deal(outcome="won", closed_at="2025-02-01T00:00:00Z")],
        stage_change=[move("2025-01-20", "L"), move("2025-02-05", "B")],
    )
    assert outcomes(history, "2025-01-25", "2025-02-06") == [LOST, WON]


def test_a_reopened_deal_is_open_again_and_takes_its_revenue_back_that_day() -> None:
    history = one(
        deal=[deal(outcome="won", closed_at="2025-04-01T12:00:00Z", closed_amount=80)],
        stage_change=[move("2025-02-01", "W"), move("2025-03-01", "B"), move("2025-04-01", "W")],
        field_change=[change("2025-02-01", "closed_amount", None, "100"),
                      change("2025-04-01", "closed_amount", "100", "80")],
    )  # fmt: skip
    days = "2025-01-15", "2025-02-15", "2025-03-15", "2025-04-15"
    assert outcomes(history, *days) == [OPEN, WON, OPEN, WON]
    assert entries(history) == [
        ("2025-02-01", "2025-02-01", 100.0),
        ("2025-03-01", "2025-03-01", -100.0),
        ("2025-04-01", "2025-04-01", 80.0),
    ]
    _, value = history.won_between(np.datetime64("2025-01-01"), np.datetime64("2026-01-01"))
    assert value.sum() == 80.0
    _, value = history.won_between(
        np.datetime64("2025-01-01"), np.datetime64("2026-01-01"), np.datetime64("2025-02-10")
    )
    assert value.tolist() == [100.0]


def test_a_corrected_amount_counts_from_its_correction() -> None:
    history = one(
        deal=[deal(outcome="won", closed_at="2025-02-01T12:00:00Z", closed_amount=90)],
        field_change=[change("2025-06-01", "closed_amount", "100", "90")],
    )
    assert entries(history) == [
        ("2025-02-01", "2025-02-01", 100.0),
        ("2025-02-01", "2025-06-01", -100.0),
        ("2025-02-01", "2025-06-01", 90.0),
    ]


def test_a_deal_first_seen_closed_was_closed_before_it_was_reopened() -> None:
    history = one(
        deal=[deal(outcome="open", closed_at="2025-01-20T00:00:00Z", first_seen_at=
                   "2025-02-01T00:00:00Z", recorded_at="2025-02-01T00:00:00Z", amount=5)],
        field_change=[change("2025-03-01", "outcome", "won", "open", provenance="snapshot_diff")],
    )  # fmt: skip
    assert outcomes(history, "2025-02-02", "2025-03-02") == [WON, OPEN]
    assert entries(history) == [("2025-01-20", "2025-02-01", 5.0), ("2025-03-01", "2025-03-01", -5)]


def test_repeated_closings_told_out_of_order_count_once() -> None:
    history = one(
        deal=[deal(outcome="won", closed_at="2025-02-01T12:00:00Z", amount=5)],
        stage_change=[
            move("2025-02-01", "W"),
            move("2025-02-02", "W"),
            move("2025-01-10", "B", recorded_at="2025-05-01T00:00:00Z"),
        ],
    )
    assert entries(history) == [("2025-02-01", "2025-02-01", 5.0)]


@pytest.mark.parametrize(
    ("values", "changes", "gone"),
    [
        ({"deleted_at": "2025-02-01T00:00:00Z"}, [], "2025-02-01"),
        # Told by a later export only.
        ({"deleted_at": "2025-02-01T00:00:00Z"},
         [("2025-02-10", "deleted_at", None, "2025-02-01T00:00:00Z")], "2025-02-10T12:00"),
        ({"merged_into_id": "X", "seen_at": "2025-06-01T00:00:00Z"},
         [("2025-02-10", "merged_into_id", None, "X")], "2025-02-10T12:00"),
        ({"merged_into_id": "X", "first_seen_at": "2025-03-01T00:00:00Z",
          "seen_at": "2025-06-01T00:00:00Z"}, [], "2025-03-01"),
    ],
)  # fmt: skip
def test_a_deal_leaves_when_that_is_told(
    values: dict[str, Any], changes: list[tuple[str, str, str | None, str]], gone: str
) -> None:
    history = one(deal=[deal(**values)], field_change=[change(*c) for c in changes])
    left = np.datetime64(gone, "us")
    assert len(history.as_of("deal", left)) == 0
    assert len(history.as_of("deal", left - np.timedelta64(1, "us"))) == 1


def test_a_value_without_history_counts_from_when_it_was_shown() -> None:
    row = deal(amount=5, lead_source="web", first_seen_at="2025-02-01T00:00:00Z",
               seen_at="2025-06-01T00:00:00Z")  # fmt: skip
    plain = one(deal=[row])
    static = one(SourceFacts("crm", static={"deal": ("amount",)}), deal=[row])
    other = one(SourceFacts("sheets", static={"deal": ("amount",)}), deal=[row])
    kept = one(deal=[row, {**row, "deal_id": "E"}],
               field_change=[change("2025-03-01", "amount", "5", "6", entity_id="E")])  # fmt: skip
    for history, known in ((plain, False), (static, True), (other, False), (kept, True)):
        assert bool(at(history, "2025-01-15").value("amount").present()[0]) is known
        assert at(history, "2025-02-01").value("amount").numbers().tolist() == [5.0]
        assert not at(history, "2025-01-15").value("lead_source").present()[0]


def test_changed_values_keep_their_form() -> None:
    history = one(
        deal=[deal(attributes={"tags": ["b", "a"], "big": True, "since": "2025-01-05", "n": 2.5})],
        field_change=[
            change("2025-02-01", "tags", "b;a", "c;a"),
            change("2025-02-01", "big", "true", "false"),
            change("2025-02-01", "since", "2025-01-05", "2025-01-07T12:00:00+02:00"),
            change("2025-02-01", "n", "2.5", "1e9"),
        ],
    )
    early, late = at(history, "2025-01-15"), at(history, "2025-02-15")
    assert [s.value("tags").texts()[0] for s in (early, late)] == ["a;b", "a;c"]
    assert [s.value("big").numbers()[0] for s in (early, late)] == [1.0, 0.0]
    assert [s.value("n").numbers()[0] for s in (early, late)] == [2.5, 1e9]
    day = np.datetime64("2025-01-05").astype(float)
    assert [s.value("since").numbers()[0] for s in (early, late)] == [day, day + 2 + 10 / 24]


def test_the_team_is_the_deals_own_or_its_owners() -> None:
    history = one(
        deal=[deal(owner_id="R1", team_id="north"), deal(deal_id="E", owner_id="R1"),
              deal(deal_id="F", owner_id="R2"), deal(deal_id="G")],
        owner=[{"owner_id": "R1", "team_id": "south"}, {"owner_id": "R2"}],
    )  # fmt: skip
    now = np.full(4, np.datetime64("2025-06-01", "us").astype(np.int64))
    snapshot = history.landmarks("deal", np.arange(4), now)
    assert snapshot.team.texts().tolist() == ["north", "south", None, None]


RATES = [
    {"date": "2025-01-01", "from_currency": "USD", "to_currency": "EUR", "rate": 0.5},
    {"date": "2025-03-01", "from_currency": "USD", "to_currency": "EUR", "rate": 0.8},
]


def test_amounts_are_told_in_the_base_currency_of_their_day() -> None:
    history = one(
        deal=[deal(amount=100, currency="USD", outcome="won", closed_at="2025-02-01T00:00:00Z")],
        exchange_rate=RATES, currency="EUR",
    )  # fmt: skip
    assert at(history, "2025-01-15").amount.tolist() == [50.0]
    assert at(history, "2025-03-01").amount.tolist() == [80.0]
    assert entries(history) == [("2025-02-01", "2025-02-01", 50.0)]


def test_a_missing_rate_is_an_error_only_where_there_is_an_amount() -> None:
    early = [{**RATES[0], "date": "2025-06-01"}]
    history = one(deal=[deal(amount=1, currency="USD")], exchange_rate=early, currency="EUR")
    with pytest.raises(HistoryError, match="deal D is in USD, and there is no rate from USD"):
        _ = at(history, "2025-01-15").amount
    history = one(deal=[deal(currency="USD")], exchange_rate=early, currency="EUR")
    assert np.isnan(at(history, "2025-01-15").amount).all()


def test_the_base_currency_is_declared_or_the_only_one() -> None:
    assert one(deal=[deal(currency="CHF")]).currency == "CHF"
    assert one(SourceFacts("crm", currency="CHF")).currency == "CHF"
    with pytest.raises(HistoryError, match=r"\['CHF', 'EUR'\].*DEALCAST_CURRENCY"):
        _ = one(deal=[deal(currency="CHF"), deal(deal_id="E", currency="EUR")]).currency


def test_what_can_be_seen_lies_between_the_sources_bounds() -> None:
    day = np.datetime64("2025-02-01", "us")
    bounded = one(SourceFacts("a", observed_from=day, observed_until=day + 9), SourceFacts("b"))
    assert bounded.observed_from == int(day.astype(np.int64))
    assert bounded.observed_until == int(day.astype(np.int64)) + 9
    assert one().observed_until == NEVER


def test_leads_are_qualified_and_disqualified() -> None:
    history = one(
        lead=[
            {"lead_id": "L1", "created_at": "2025-01-01T00:00:00Z", "outcome": "qualified",
             "qualified_at": "2025-02-01T00:00:00Z"},
            {"lead_id": "L2", "created_at": "2025-01-01T00:00:00Z", "outcome": "disqualified",
             "disqualified_at": "2025-02-01T00:00:00Z", "qualified_at": "2025-01-05T00:00:00Z"},
            {"lead_id": "L3", "created_at": "2025-01-01T00:00:00Z"},
        ]
    )  # fmt: skip
    assert history.as_of("lead", np.datetime64("2025-01-20")).ids.tolist() == ["L1", "L2", "L3"]
    assert history.as_of("lead", np.datetime64("2025-02-20")).ids.tolist() == ["L3"]
    now = np.full(3, np.datetime64("2025-02-20", "us").astype(np.int64))
    assert history.landmarks("lead", np.arange(3), now).outcome.tolist() == [WON, LOST, OPEN]


def test_order_stands_in_for_time_where_times_were_made_up() -> None:
    facts = SourceFacts("crm", pseudo_times=("lead",))
    lead = {"created_at": "2025-01-01T00:00:00Z", "source": "crm", "outcome": "qualified"}
    history = one(facts, lead=[{"lead_id": "L1", **lead}, {"lead_id": "L2", **lead,
                                                           "created_at": None}])  # fmt: skip
    begin = np.datetime64("2025-01-01", "us")
    assert history.as_of("lead", begin).ids.tolist() == ["L1"]
    assert len(history.as_of("lead", begin + 1)) == 0
    assert len(history.leads.outcomes.at) == 1
