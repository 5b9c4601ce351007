"""Random CRM records as real ones are: told late, reopened, deleted, merged, from several sources.

Times lie on a coarse grid, so that many coincide. Rows need not agree with each other: a row may
say won where the last move says open. What matters is that they have one meaning.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from data.records import ENTITIES, SourceFacts, Table

HOUR = 3_600_000_000
DAY = 24 * HOUR
START = int(np.datetime64("2025-01-06", "us").astype(np.int64))  # a Monday
DAYS = 120
EXPORT = START + DAYS * DAY

Row = dict[str, Any]

STAGES = {"s1": "open", "s2": "open", "s3": "open", "s4": "open", "W": "won", "L": "lost"}
FACTS = (
    # Keeps histories; what it declares static never changes by itself.
    SourceFacts(
        "crm",
        currency="EUR",
        static={"deal": ("lead_source", "account_id"), "account": ("industry",)},
    ),
    # Exports of the present state, compared with the last one.
    SourceFacts("sheets", currency="EUR", static={"deal": ("owner_id",)}),
)


def iso(at: int) -> str:
    return str(np.datetime64(at, "us").astype("datetime64[s]")) + "Z"


def micros_of(value: np.datetime64 | None) -> int | None:
    return None if value is None else int(value.astype("datetime64[us]").astype(np.int64))


class Messy:
    """A random CRM; the same seed gives the same rows."""

    def __init__(self, seed: int, deals: int = 12) -> None:
        self.random = random.Random(seed)
        self.rows: dict[str, list[Row]] = {name: [] for name in ENTITIES}
        self.rows["stage"] = [
            {"pipeline_id": "p", "stage_id": s, "name": s, "sort_order": 10 * i, "kind": kind}
            for i, (s, kind) in enumerate(STAGES.items(), 1)
        ]
        self._accounts()
        for i in range(deals):
            self._deal(f"D{i}")

    def tables(self) -> dict[str, Table]:
        """The rows as canonical tables, in their order."""
        return {name: Table.from_rows(ENTITIES[name], rows) for name, rows in self.rows.items()}

    def moment(self, after: int = START) -> int:
        """A moment from `after` on; often one that something else shares."""
        span = max((EXPORT - after) // (6 * HOUR), 1)
        return after + self.random.randrange(span) * 6 * HOUR

    def _late(self, at: int) -> str | None:
        """When a row of that moment was recorded."""
        wait = self.random.choice([None, None, 0, 0, 6 * HOUR, 9 * DAY, 40 * DAY, 95 * DAY])
        return None if wait is None else iso(at + wait)

    def _accounts(self) -> None:
        for name in ("A0", "A1", "A2"):
            self.rows["account"].append(
                {
                    "account_id": name,
                    "industry": self.random.choice(["steel", "food"]),
                    "employee_count": self.random.randrange(1, 999),
                    "recorded_at": iso(self.moment()),
                    "seen_at": iso(EXPORT - 30 * DAY),
                    "source": self.random.choice(["crm", "sheets"]),
                }
            )

    def _deal(self, deal_id: str) -> None:
        pick = self.random
        source = pick.choice(["crm", "crm", "sheets", None])
        created = self.moment() // 2 + START // 2  # in the first half
        row: Row = {
            "deal_id": deal_id,
            "source": source,
            "pipeline_id": "p",
            "amount": pick.randrange(100, 900),
            "currency": "EUR",
            "created_at": iso(created) if pick.random() < 0.95 else None,
            "expected_close_date": iso(self.moment(created))[:10],
            "lead_source": pick.choice(["web", "fair", None]),
            "account_id": pick.choice(["A0", "A1", "A2", None]),
            "owner_id": pick.choice(["R0", "R1", None]),
            "stage_id": pick.choice([*STAGES, None]),
            "attributes": {"size": pick.choice(["S", "L", None]), "seats": pick.randrange(9)},
        }
        shown = EXPORT if source == "crm" else min(created + pick.choice([0, 3, 20]) * DAY, EXPORT)
        if pick.random() < 0.8:
            row["seen_at"] = iso(EXPORT)
            row["first_seen_at"] = iso(shown) if source != "crm" else None
        if pick.random() < 0.6:
            row["recorded_at"] = iso(created + pick.choice([0, 0, 0, 5 * DAY]))
            row["recorded_assumed"] = pick.random() < 0.5
        self._outcome(row, created)
        self._leaving(row, created)
        self.rows["deal"].append(row)
        self._moves(row, created)
        self._changes(row, created)
        self._work(deal_id, created)

    def _outcome(self, row: Row, created: int) -> None:
        outcome = self.random.choice(["open", "won", "lost", None])
        row["outcome"] = outcome
        if outcome in ("won", "lost") and self.random.random() < 0.9:
            closed = self.moment(created)
            if self.random.random() < 0.4:
                closed -= closed % DAY  # a date alone, which may lie before the creation
            row["closed_at"] = iso(closed)
        if outcome == "won" and self.random.random() < 0.7:
            row["closed_amount"] = self.random.randrange(100, 900)

    def _leaving(self, row: Row, created: int) -> None:
        if self.random.random() < 0.1:
            row["deleted_at"] = iso(self.moment(created))
        if self.random.random() < 0.1:
            row["merged_into_id"] = "D0"

    def _event(self, row: Row, at: int) -> Row:
        kept = self.random.choice(["native", "native", "snapshot_diff", None])
        if row["source"] == "sheets":
            kept = "snapshot_diff"
        return {
            "entity": "deal",
            "entity_id": row["deal_id"],
            "changed_at": iso(at),
            "recorded_at": self._late(at),
            "provenance": kept,
            "source": row["source"],
        }

    def _moves(self, row: Row, created: int) -> None:
        before: str | None = self.random.choice([None, None, *STAGES])
        told: set[tuple[str, str]] = set()
        moments = sorted(self.moment(created) for _ in range(self.random.choice([0, 1, 2, 5])))
        if before is None and moments:
            moments[0] = created
        for number, at in enumerate(moments):
            to = self.random.choice(["s1", "s2", "s3", "s4", "s1", "s2", "W", "L"])
            if (iso(at), to) in told:
                continue
            told.add((iso(at), to))
            event = self._event(row, at)
            event |= {"from_stage_id": before, "to_stage_id": to, "sequence": number}
            self.rows["stage_change"].append(event)
            before = to
            if STAGES[to] != "open" and self.random.random() < 0.5:
                row["outcome"], row["closed_at"] = STAGES[to], iso(at - at % DAY)

    def _changes(self, row: Row, created: int) -> None:
        draw: dict[str, Any] = {
            "amount": lambda: str(self.random.randrange(100, 400, 100)),
            "closed_amount": lambda: self.random.choice(["150", "250", None]),
            "expected_close_date": lambda: iso(self.moment(created))[:10],
            "owner_id": lambda: self.random.choice(["R0", "R1", None]),
            "account_id": lambda: self.random.choice(["A0", "A1"]),
            "size": lambda: self.random.choice(["S", "M"]),
            "seats": lambda: self.random.choice(["3", "4"]),
            "outcome": lambda: self.random.choice(["open", "won", "lost"]),
            "closed_at": lambda: self.random.choice([None, iso(self.moment(created))]),
            "deleted_at": lambda: iso(self.moment(created)),
            "merged_into_id": lambda: "D0",
        }
        for field, value in draw.items():
            often = [0, 0, 0, 1] if field in ("deleted_at", "merged_into_id") else [0, 0, 1, 2, 4]
            before = value()
            for at in sorted({self.moment(created) for _ in range(self.random.choice(often))}):
                after = value()
                event = self._event(row, at)
                event |= {"field": field, "old_value": before, "new_value": after}
                self.rows["field_change"].append(event)
                before = after

    def _work(self, deal_id: str, created: int) -> None:
        pick = self.random
        for _ in range(pick.choice([0, 1, 4, 9])):
            at = self.moment(created)
            row = {
                "activity_id": f"X{len(self.rows['activity'])}",
                "deal_id": deal_id,
                "type": pick.choice(["call", "email", None]),
                "occurred_at": iso(at),
                "recorded_at": self._late(at),
            }
            if pick.random() < 0.5:
                made = at - pick.randrange(10) * DAY
                row |= {"recorded_at": iso(made), "seen_at": iso(made), "due_at": iso(at + DAY)}
                if pick.random() < 0.5:
                    row["occurred_at"] = None
            self.rows["activity"].append(row)
        for at in {self.moment(created) for _ in range(pick.choice([0, 0, 1, 3]))}:
            self.rows["qualification"].append(
                {
                    "entity": "deal",
                    "entity_id": deal_id,
                    "changed_at": iso(at),
                    "recorded_at": self._late(at),
                    "need": pick.choice(["high", "low", None]),
                    "budget_amount": pick.choice([None, 100, 200]),
                }
            )
        for contact in range(pick.choice([0, 0, 2])):
            self.rows["contact_role"].append(
                {"deal_id": deal_id, "contact_id": f"C{contact}",
                 "recorded_at": iso(self.moment(created))}
            )  # fmt: skip
