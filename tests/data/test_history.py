"""The time machine against an oracle in plain Python, on records as messy as real ones."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest

from data.features import Feature, compute
from data.history import LOST, OPEN, WON, History
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
    amount, base = deal.value("amount", t), deal.base("amount")
    base = base if deal.visible("amount", t) or _nothing_new(deal, "amount", t) else None
    close, close_base = deal.value("expected_close_date", t), deal.base("expected_close_date")
    name = "expected_close_date"
    close_base = close_base if deal.visible(name, t) or _nothing_new(deal, name, t) else None
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


def _nothing_new(deal: Deal, field: str, t: int) -> bool:
    """Whether a change told by t said, at any time, no more than what had held before."""
    base, events = deal.base(field), deal.changes_of(field)
    return any(
        not any(deal.news(field, c)) and deal.known(c) <= t and base is not None for c in events
    )


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
            for at, amount in deal.revenue(t):
                want[deal_id, at] = want.get((deal_id, at), 0.0) + amount
        rows, at, known, value = history.wins
        got: dict[tuple[str, int], float] = {}
        for i in np.flatnonzero(known <= t):
            key = str(history.deals.ids[rows[i]]), int(at[i])
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
