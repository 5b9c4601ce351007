"""Small histories written out by hand, for tests that need to know every record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data.history import History
from data.records import ENTITIES, SourceFacts, Table

STAGES = ("new", "talk", "offer")

Row = Mapping[str, Any]


def moment(text: str) -> np.datetime64:
    """An ISO 8601 time in UTC."""
    return np.datetime64(text, "us")


def after(start: str, days: float) -> str:
    """The time so many days after another one."""
    shifted = moment(start) + np.timedelta64(round(days * 86_400), "s")
    return f"{shifted.astype('datetime64[s]')}Z"


def stages(names: Sequence[str] = STAGES, **more: Sequence[Any]) -> list[Row]:
    """Open stages of one pipeline in order, then the two that close."""
    return [
        {"pipeline_id": "p", "stage_id": s, "name": s, "sort_order": i, "kind": "open"}
        | {name: values[i] for name, values in more.items()}
        for i, s in enumerate(names)
    ]


def deal(deal_id: str, created: str, closed: str | None = None, **fields: Any) -> dict[str, Any]:
    """A deal whose amount and stage are known since its creation."""
    row = {"deal_id": deal_id, "created_at": created, "amount": 1000.0, "currency": "EUR"} | fields
    if closed is not None:
        row = {"outcome": "won", "closed_at": closed} | row
    return {"outcome": "open", "first_seen_at": created, "source": "crm"} | row


def move(deal_id: str, at: str, to: str, since: str | None = None, **fields: Any) -> dict[str, Any]:
    """A stage change of a deal."""
    row = {"entity": "deal", "entity_id": deal_id, "changed_at": at, "to_stage_id": to}
    return row | {"from_stage_id": since} | fields


def change(deal_id: str, at: str, field: str, old: object, new: object) -> dict[str, Any]:
    """A kept change of a deal's field."""
    return {
        "entity": "deal",
        "entity_id": deal_id,
        "changed_at": at,
        "field": field,
        "old_value": None if old is None else str(old),
        "new_value": None if new is None else str(new),
        "provenance": "field_history",
        "source": "crm",
    }


def history(
    currency: str | None = None, until: str | None = None, **rows: Sequence[Row]
) -> History:
    """A history from plain rows by entity; the stage table is there unless it is given."""
    tables = {
        name: Table.from_rows(ENTITIES[name], list(given))
        for name, given in {"stage": stages(), **rows}.items()
    }
    end = np.datetime64("NaT", "us") if until is None else moment(until.removesuffix("Z"))
    facts = SourceFacts(
        "crm",
        static={"deal": ("amount", "currency", "owner_id", "team_id", "expected_close_date")},
        observed_until=end,
    )
    return History(tables, [facts], currency)
