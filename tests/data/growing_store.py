"""A store that is written to for half a year: by a CRM that pushes, and by weekly files."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np

from data.records import ENTITIES, SourceFacts, Table
from data.store import Store
from tests.data.messy_crm import DAY, HOUR, START, iso

__all__ = ["WRITES", "grow"]

Row = dict[str, Any]

WRITES = 30
_STAGES = [("s1", "open"), ("s2", "open"), ("s3", "open"), ("W", "won"), ("L", "lost")]
_FILE = SourceFacts("file", currency="EUR", static={"deal": ("lead_source",)})


def grow(path: Path, seed: int) -> list[tuple[int, dict[str, Table], list[SourceFacts]]]:
    """(moment, all tables, facts) after each of the writes, oldest first."""
    pick = random.Random(seed)
    states: dict[str, Row] = {}
    found = []
    with Store(str(path)) as store:
        store.upgrade()
        stages = [
            {"pipeline_id": "p", "stage_id": s, "sort_order": i, "kind": kind}
            for i, (s, kind) in enumerate(_STAGES)
        ]
        store.write([Table.from_rows(ENTITIES["stage"], stages)], at=np.datetime64(START, "us"))
        for number in range(WRITES):
            at = START + number * 6 * DAY + pick.randrange(20) * HOUR
            pushed = _push(pick, states, at)
            now = np.datetime64(at, "us")
            store.write(pushed, at=now, facts=None)
            if pick.random() < 0.4:
                store.write([_export(pick, states, at)], at=now + HOUR, facts=_FILE)
            found.append((at + 2 * HOUR, store.read(), store.sources()))
    return found


def _push(pick: random.Random, states: dict[str, Row], at: int) -> list[Table]:
    """What the CRM pushes: some deals as they stand, and what happened to them."""
    events: dict[str, list[Row]] = {"stage_change": [], "activity": [], "qualification": []}
    if len(states) < 25:
        for _ in range(pick.randrange(4)):
            _new(pick, states, at)
    changed = [_changed(pick, row, at, events["stage_change"]) for row in states.values()
               if pick.random() < 0.5]  # fmt: skip
    for row in pick.sample(list(states.values()), min(len(states), 5)):
        number, happened = pick.randrange(10**9), at - pick.randrange(10) * DAY
        events["activity"].append(
            {"activity_id": f"X{number}", "deal_id": row["deal_id"], "type": "call",
             "occurred_at": iso(happened), "due_at": iso(at + 3 * DAY)}
        )  # fmt: skip
        events["qualification"].append(
            {"entity": "deal", "entity_id": row["deal_id"], "changed_at": iso(happened),
             "need": pick.choice(["high", "low"])}
        )  # fmt: skip
    tables = [Table.from_rows(ENTITIES[n], _once(n, rows)) for n, rows in events.items() if rows]
    return [Table.from_rows(ENTITIES["deal"], changed), *tables] if changed else tables


def _once(name: str, rows: list[Row]) -> list[Row]:
    """One row a key: events of one moment must not contradict each other."""
    return list({tuple(r[k] for k in ENTITIES[name].key): r for r in rows}.values())


def _new(pick: random.Random, states: dict[str, Row], at: int) -> None:
    deal_id = f"D{len(states)}"
    states[deal_id] = {
        "deal_id": deal_id,
        "created_at": iso(at - pick.choice([0, 0, 40 * DAY])),
        "stage_id": "s1",
        "outcome": "open",
        "amount": pick.randrange(100, 900),
        "currency": "EUR",
        "owner_id": pick.choice(["R0", "R1"]),
        "account_id": pick.choice(["A0", "A1"]),
        "lead_source": "web",
        "attributes": {"size": pick.choice(["S", "M"])},
    }


def _changed(pick: random.Random, row: Row, at: int, moves: list[Row]) -> Row:
    """A new state of a deal; half of the moves are told besides."""
    row["amount"] = pick.choice([row["amount"], pick.randrange(100, 900)])
    row["owner_id"] = pick.choice([row["owner_id"], "R0", "R1"])
    row["attributes"] = {"size": pick.choice(["S", "M"])}
    row["expected_close_date"] = iso(at + pick.randrange(90) * DAY)[:10]
    stage, before = pick.choice(_STAGES), row["stage_id"]
    row["stage_id"], row["outcome"] = stage
    if stage[1] != "open":
        row["closed_at"] = iso(at - pick.choice([0, 0, 4]) * DAY)
        if stage[1] == "won":
            row["closed_amount"] = pick.randrange(100, 900)
    if pick.random() < 0.05:
        row["deleted_at"] = iso(at)
    if before != stage[0] and pick.random() < 0.5:
        moves.append(
            {"entity": "deal", "entity_id": row["deal_id"], "changed_at": iso(at - HOUR),
             "from_stage_id": before, "to_stage_id": stage[0], "provenance": "native"}
        )  # fmt: skip
    return dict(row)


def _export(pick: random.Random, states: dict[str, Row], at: int) -> Table:
    """A file of the deals as they stand, without what only the push knows."""
    rows = [
        {k: v for k, v in row.items() if k not in ("attributes", "expected_close_date")}
        for row in states.values()
        if pick.random() < 0.8
    ]
    seen = np.full(len(rows), np.datetime64(at + HOUR, "us"))
    table = Table.from_rows(ENTITIES["deal"], rows)
    return table.with_columns(seen_at=seen, source=np.full(len(rows), "file", dtype=object))
