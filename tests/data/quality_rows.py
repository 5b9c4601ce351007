"""A small CRM in perfect health, as rows to spoil: one year, Monday 2 January to 1 January."""

from __future__ import annotations

import copy
import datetime as dt
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from data.history import History
from data.pipeline import FiscalCalendar
from data.quality import CHECKS, QualityReport, examine
from data.quality.findings import Finding
from data.records import ENTITIES, SourceFacts, Table

Row = dict[str, Any]

START = dt.datetime(2023, 1, 2, tzinfo=dt.UTC)
UNTIL = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)  # a Monday, and the first day of a quarter
WEEKS = 52
DAY = dt.timedelta(days=1)
MINUTE = dt.timedelta(minutes=1)


@dataclass
class Crm:
    """Rows by entity, and the facts about their source."""

    deal: list[Row]
    lead: list[Row]
    stage_change: list[Row]
    field_change: list[Row] = field(default_factory=list)
    activity: list[Row] = field(default_factory=list)
    stage: list[Row] = field(default_factory=list)
    owner: list[Row] = field(default_factory=list)
    exchange_rate: list[Row] = field(default_factory=list)
    facts: Row = field(default_factory=dict)
    calendar: FiscalCalendar = field(default_factory=FiscalCalendar)
    currency: str | None = None

    def static(self, *names: str, side: str = "deal") -> None:
        self.facts["static"] = {
            **self.facts["static"],
            side: (*self.facts["static"][side], *names),
        }

    def closed(self, outcome: str | None = None) -> list[Row]:
        return [
            d for d in self.deal if d["outcome"] in ((outcome,) if outcome else ("won", "lost"))
        ]

    def open(self) -> list[Row]:
        return [d for d in self.deal if d["outcome"] == "open"]

    def moves_of(self, deal: Row) -> list[Row]:
        return [m for m in self.stage_change if m["entity_id"] == deal["deal_id"]]

    def history(self) -> History:
        names = ("deal", "lead", "stage_change", "field_change", "activity", "stage", "owner",
                 "exchange_rate")  # fmt: skip
        tables = {n: Table.from_rows(ENTITIES[n], [_plain(r) for r in getattr(self, n)])
                  for n in names}  # fmt: skip
        return History(tables, [SourceFacts("crm", **self.facts)], self.currency)

    def report(self) -> QualityReport:
        return examine(self.history(), self.calendar)

    def find(self, code: str) -> list[Finding]:
        """What one check says."""
        only = [c for c in CHECKS if c.code == code]
        return list(examine(self.history(), self.calendar, only).findings)


def _plain(row: Row) -> Row:
    return {k: v.isoformat() if isinstance(v, dt.datetime | dt.date) else v for k, v in row.items()}


def change(deal: Row, name: str, at: dt.datetime, old: Any, new: Any, **more: Any) -> Row:
    return {
        "entity": "deal", "entity_id": deal["deal_id"], "changed_at": at, "field": name,
        "old_value": old, "new_value": new, "provenance": "native", "recorded_at": at,
        "source": "crm", **more,
    }  # fmt: skip


def healthy() -> Crm:
    """A copy to spoil."""
    return copy.deepcopy(_healthy())


@cache
def _healthy() -> Crm:
    rng = np.random.default_rng(5)
    deals: list[Row] = []
    moves: list[Row] = []
    for number in range(12 * WEEKS):
        created = _working_moment(rng, number // 12)
        cycle = dt.timedelta(days=float(min(rng.exponential(15) + 1, 60)))
        won = bool(rng.random() < 0.4)
        deal = _deal(rng, number, created, created + cycle, won)
        deals.append(deal)
        moves += _moves(deal, cycle)
    return Crm(
        deal=deals,
        lead=[_lead(rng, n) for n in range(9 * WEEKS)],
        stage_change=moves,
        stage=[
            {"pipeline_id": "sales", "stage_id": s, "name": s, "sort_order": i, "kind": kind}
            for i, (s, kind) in enumerate(
                (("Contact", "open"), ("Proposal", "open"), ("Won", "won"), ("Lost", "lost"))
            )
        ],
        owner=[{"owner_id": f"rep-{i}"} for i in range(5)],
        facts={
            "currency": "EUR",
            "static": {
                "deal": ("amount", "owner_id", "lead_source", "region"),
                "lead": ("owner_id", "lead_source"),
            },
            "observed_until": np.datetime64(UNTIL.replace(tzinfo=None), "us"),
        },
    )


def _working_moment(rng: np.random.Generator, week: int) -> dt.datetime:
    day = START + dt.timedelta(weeks=week, days=int(rng.integers(5)))
    return day + dt.timedelta(seconds=int(rng.integers(8 * 3600, 18 * 3600)))


def _deal(
    rng: np.random.Generator, number: int, created: dt.datetime, closing: dt.datetime, won: bool
) -> Row:
    closed = closing < UNTIL
    outcome = ("won" if won else "lost") if closed else "open"
    deal = {
        "deal_id": f"D{number}",
        "created_at": created,
        "pipeline_id": "sales",
        "stage_id": {"won": "Won", "lost": "Lost", "open": "Proposal"}[outcome],
        "outcome": outcome,
        "amount": round(float(rng.lognormal(8, 0.8)), 2),
        "owner_id": f"rep-{rng.integers(5)}",
        "lead_source": str(rng.choice(["web", "fair", "partner"])),
        "attributes": {"region": str(rng.choice(["north", "south"]))},
        "seen_at": UNTIL,
        "source": "crm",
    }
    if closed:
        deal["closed_at"] = closing
    if outcome == "won":
        deal["closed_amount"] = deal["amount"]
    return deal


def _moves(deal: Row, cycle: dt.timedelta) -> list[Row]:
    created = deal["created_at"]
    steps = [(created, None, "Contact"), (created + 0.3 * cycle, "Contact", "Proposal")]
    return [
        {
            "entity": "deal", "entity_id": deal["deal_id"], "changed_at": at, "from_stage_id": left,
            "to_stage_id": entered, "provenance": "native", "recorded_at": at, "source": "crm",
            "sequence": i,
        }
        for i, (at, left, entered) in enumerate(steps)
        if at < UNTIL
    ]  # fmt: skip


def _lead(rng: np.random.Generator, number: int) -> Row:
    created = _working_moment(rng, number // 9)
    decided = created + dt.timedelta(days=float(min(rng.exponential(6) + 0.5, 40)))
    good = bool(rng.random() < 0.35)
    lead: Row = {
        "lead_id": f"L{number}",
        "created_at": created,
        "outcome": "open",
        "lead_source": str(rng.choice(["web", "fair", "partner"])),
        "owner_id": f"rep-{rng.integers(5)}",
        "seen_at": UNTIL,
        "source": "crm",
    }
    if decided < UNTIL:
        lead["outcome"] = "qualified" if good else "disqualified"
        lead["qualified_at" if good else "disqualified_at"] = decided
    return lead
