"""Rows for the tests of the store, and rows read back in a form that can be compared."""

from __future__ import annotations

from typing import Any

import numpy as np

from data.records import ENTITIES, Table
from data.store import IssuedScore, Store

T1 = np.datetime64("2026-01-10T09:00:00", "us")
T2 = np.datetime64("2026-02-10T09:00:00.000250", "us")
T3 = np.datetime64("2026-03-10T09:00:00", "us")


def table(entity: str, *rows: dict[str, Any]) -> Table:
    return Table.from_rows(ENTITIES[entity], rows)


def deal(**values: Any) -> Table:
    return table("deal", {"deal_id": "D1", **values})


def move(to: str, at: str = "2026-01-05T00:00:00Z", **values: Any) -> Table:
    row = {"entity": "deal", "entity_id": "D1", "changed_at": at, "to_stage_id": to}
    return table("stage_change", {**row, "provenance": "native", **values})


def plain(found: Table) -> list[dict[str, Any]]:
    """Rows as comparable values: missing is None, the moment of storing is left out."""

    def one(value: Any) -> Any:
        missing = value is None or (not isinstance(value, str | list | dict) and value != value)
        return None if missing else value

    columns = {**found.columns, **{f"+{k}": v for k, v in found.attributes.items()}}
    columns.pop("ingested_at")
    return [{k: one(v[i]) for k, v in columns.items()} for i in range(len(found))]


def changes(store: Store, entity: str = "field_change") -> list[tuple[Any, ...]]:
    shown = {
        "field_change": ("entity", "entity_id", "field", "old_value", "new_value"),
        "stage_change": ("entity", "entity_id", "from_stage_id", "to_stage_id"),
    }[entity]
    found = store.read([entity])[entity]
    return sorted(zip(*(found[c] for c in shown), strict=True), key=str)


MODEL = {"name": "dealcast-deal", "version": "7", "trained_through": "2026-01-01T00:00:00Z"}


def score(entity_id: str, as_of: np.datetime64 = T1, **said: Any) -> IssuedScore:
    detail = {"reasons": [{"text": "ü"}, {"text": "x"}], "grade": None, **said}
    return IssuedScore("deal", entity_id, as_of, T3, MODEL, 0.1 + 0.2, None, detail)
