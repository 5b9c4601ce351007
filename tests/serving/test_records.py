"""Bulk writes: durable, idempotent, all or none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from data.records import ENTITIES
from data.store import Store
from serving.schemas import WriteOut
from tests.serving.conftest import NOW, House

DAY = "2026-02-10T00:00:00Z"
# One record of each entity, with all that it must have.
RECORDS: dict[str, dict[str, Any]] = {
    "leads": {"lead_id": "x", "created_at": DAY},
    "deals": {"deal_id": "x", "created_at": DAY, "amount": 5, "currency": "EUR"},
    "stages": {"pipeline_id": "p", "stage_id": "s", "kind": "open"},
    "stage-changes": {
        "entity": "deal", "entity_id": "x", "changed_at": DAY, "to_stage_id": "s",
    },
    "field-changes": {
        "entity": "deal", "entity_id": "x", "changed_at": DAY, "field": "amount",
        "new_value": "5",
    },
    "activities": {"activity_id": "x", "type": "call", "occurred_at": DAY},
    "accounts": {"account_id": "x", "industry": "retail"},
    "owners": {"owner_id": "x", "team_id": "t"},
    "targets": {
        "scope": "all", "scope_id": "all", "period_start": "2031-01-01",
        "period_end": "2031-04-01", "amount": 9,
    },
    "qualifications": {"entity": "lead", "entity_id": "x", "changed_at": DAY, "need": "high"},
    "contact-roles": {"deal_id": "x", "contact_id": "c", "role": "champion"},
    "exchange-rates": {
        "date": "2026-02-10", "from_currency": "USD", "to_currency": "EUR", "rate": 0.9,
    },
    "commits": {
        "author_id": "a", "scope": "team", "scope_id": "t", "period_start": "2026-01-01",
        "period_end": "2026-04-01", "changed_at": DAY, "amount": 7,
    },
    "overrides": {
        "deal_id": "x", "author_id": "a", "changed_at": DAY, "field": "amount", "value": "6",
    },
}  # fmt: skip


def _counts(answer: Any) -> tuple[int, int, int, int]:
    assert answer.status_code == 200, answer.text
    WriteOut.model_validate(answer.json(), strict=True)
    found = answer.json()
    return found["inserted"], found["updated"], found["unchanged"], len(found["rejected"])


def test_there_is_a_record_of_every_entity_here() -> None:
    assert set(RECORDS) == {e.path for e in ENTITIES.values()}


@pytest.mark.parametrize("path", RECORDS)
def test_writing_twice_changes_nothing(client: TestClient, path: str) -> None:
    body = {"records": [RECORDS[path]]}
    assert _counts(client.post(f"/v1/{path}", json=body)) == (1, 0, 0, 0)
    assert _counts(client.post(f"/v1/{path}", json=body)) == (0, 0, 1, 0)


@pytest.mark.parametrize("path", RECORDS)
def test_a_record_without_its_key_is_refused(client: TestClient, path: str) -> None:
    entity = next(e for e in ENTITIES.values() if e.path == path)
    record = {k: v for k, v in RECORDS[path].items() if k != entity.key[-1]}
    answer = client.post(f"/v1/{path}", json={"records": [record]})
    assert answer.status_code == 422
    (rejected,) = answer.json()["rejected"]
    assert rejected["index"] == 0
    assert rejected["problem"]["field"] == entity.key[-1]
    assert "required" in rejected["problem"]["allowed"]


def test_what_was_acknowledged_is_there_for_another_process(
    house: House, client: TestClient
) -> None:
    client.post("/v1/deals", json={"records": [{**RECORDS["deals"], "colour": "red"}]})
    with Store(house.settings.store) as other:
        table = other.read_records("deal", ["x"])["deal"]
    assert table["amount"].tolist() == [5.0]
    assert table.attributes["colour"].tolist() == ["red"]
    # Of a push, the time of receipt is the time the source wrote it.
    assert table["recorded_at"].tolist() == [NOW.item()]
    assert table["recorded_assumed"].tolist() == [0.0]


def test_an_update_keeps_what_it_does_not_name(house: House, client: TestClient) -> None:
    client.post("/v1/deals", json={"records": [{**RECORDS["deals"], "stage_id": "s"}]})
    house.clock.wait(1, "h")
    update = {"deal_id": "x", "amount": 8, "currency": "EUR", "stage_id": None}
    assert _counts(client.post("/v1/deals", json={"records": [update]})) == (0, 1, 0, 0)
    found = house.store.read_records("deal", ["x"])
    assert found["deal"]["amount"].tolist() == [8.0]
    assert found["deal"]["stage_id"].tolist() == ["s"]
    change = found["field_change"]
    assert change["field"].tolist() == ["amount"]
    assert change["changed_at"].tolist() == [(NOW + np.timedelta64(1, "h")).item()]


def test_one_bad_record_and_nothing_is_stored(house: House, client: TestClient) -> None:
    rows = [{"lead_id": "a"}, {"lead_id": "b", "has_phone": "yes"}, {"lead_id": "c"}, {}]
    answer = client.post("/v1/leads", json={"records": rows})
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["type"].endswith("records-rejected")
    assert [r["index"] for r in problem["rejected"]] == [1, 3]
    assert [r["problem"]["field"] for r in problem["rejected"]] == ["has_phone", "lead_id"]
    assert len(house.store.read_records("lead", ["a", "b", "c"])["lead"]) == 0


def test_partial_stores_the_good_ones_and_tells_of_the_others(
    house: House, client: TestClient
) -> None:
    rows = [{"lead_id": "a"}, {"lead_id": "b", "has_phone": "yes"}, {"lead_id": "c"}, {}]
    answer = client.post("/v1/leads", params={"partial": True}, json={"records": rows})
    assert _counts(answer) == (2, 0, 0, 2)
    assert [r["index"] for r in answer.json()["rejected"]] == [1, 3]
    assert len(house.store.read_records("lead", ["a", "b", "c"])["lead"]) == 2


def test_an_event_that_contradicts_a_stored_one(house: House, client: TestClient) -> None:
    move = RECORDS["stage-changes"]
    client.post("/v1/stage-changes", json={"records": [move]})
    moves = [{**move, "changed_at": f"2026-02-{day}T00:00:00Z"} for day in (11, 12)] + [
        {**move, "from_stage_id": "other"},
        {**move, "changed_at": "2026-02-13T00:00:00Z"},
    ]
    answer = client.post("/v1/stage-changes", json={"records": moves})
    assert answer.status_code == 409
    assert answer.json()["type"].endswith("conflicting-event")
    assert "from_stage_id" in answer.json()["detail"]
    assert len(house.store.read_records("deal", ["x"])["stage_change"]) == 1

    partial = client.post("/v1/stage-changes", params={"partial": True}, json={"records": moves})
    assert _counts(partial) == (3, 0, 0, 1)
    (rejected,) = partial.json()["rejected"]
    assert rejected["index"] == 2
    assert rejected["problem"]["status"] == 409
    assert len(house.store.read_records("deal", ["x"])["stage_change"]) == 4


def test_a_state_seen_earlier_is_not_applied(house: House, client: TestClient) -> None:
    new = {**RECORDS["deals"], "seen_at": "2026-02-12T00:00:00Z"}
    old = {**RECORDS["deals"], "amount": 3, "seen_at": "2026-02-11T00:00:00Z"}
    client.post("/v1/deals", json={"records": [new]})
    answer = client.post("/v1/deals", json={"records": [old]})
    assert answer.json()["stale"] == 1
    assert house.store.read_records("deal", ["x"])["deal"]["amount"].tolist() == [5.0]


def test_an_unknown_entity(client: TestClient) -> None:
    assert client.post("/v1/unicorns", json={"records": []}).status_code == 404


def test_nothing_to_write(client: TestClient) -> None:
    assert _counts(client.post("/v1/leads", json={"records": []})) == (0, 0, 0, 0)
