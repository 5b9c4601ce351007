"""The same facts give the same bits: from the store or from a request, alone or in a batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest
from fastapi.testclient import TestClient

from data.features import Feature, compute
from data.history import History, Snapshot
from data.records import Table
from models import bundle as bundles
from scoring.bundles import DealBundle, LeadBundle, bundle_of
from serving.intake import check_record, snapshot_of, stored_snapshot
from tests.serving.conftest import NOW, House, request_record

Side = Literal["lead", "deal"]
SIDES: tuple[Side, ...] = ("lead", "deal")


def _bundle(house: House, side: Side) -> LeadBundle | DealBundle:
    version = house.shelf.champions[side]
    return bundle_of(bundles.load(house.shelf.folders[side, version]))


def _some_ids(house: House, side: Side, n: int = 60) -> list[str]:
    """Open and closed, old and new."""
    ids = [str(i) for i in house.organisation.tables[side][f"{side}_id"]]
    open_ids = house.store.open_ids(side)
    return list(dict.fromkeys([*open_ids[: n // 2], *ids[:: max(len(ids) // n, 1)]]))[:n]


def _equal(a: dict[str, Any], b: dict[str, Any], rows: int) -> None:
    assert a.keys() == b.keys()
    for name in a:
        for i in range(rows):
            mine, other = _value(a[name], i), _value(b[name], i)
            assert mine == other, f"{name} of row {i}: {mine} against {other}"


def _value(column: Any, i: int) -> Any:
    """A value whose equality is equality of bits; NaN equals NaN."""
    if isinstance(column, tuple):
        return None if column[0][i] < 0 else column[1][column[0][i]]
    return column[i].tobytes()


def _columns(snapshot: Snapshot, features: Sequence[Feature]) -> dict[str, Any]:
    return compute(snapshot, features)


@pytest.mark.parametrize("side", SIDES)
def test_features_of_a_request_are_those_of_the_store_to_the_bit(house: House, side: Side) -> None:
    bundle = _bundle(house, side)
    own = [f for f in bundle.features if f.scope == "own"]
    assert any(f.name.startswith("field[") for f in own)
    ids = _some_ids(house, side)
    at = np.full(len(ids), NOW).astype(np.int64)
    tables = house.store.read()
    sent = [json.loads(json.dumps(request_record(tables, side, i))) for i in ids]
    submitted = [check_record(side, record) for record in sent]
    requested = _columns(snapshot_of(side, submitted, at, own, tables_of_rules(tables), "EUR"), own)

    # The whole history, as training and forecasts read it.
    whole = History(tables, house.store.sources(), None)
    place = whole.ledger(side).row_of
    rows = np.array([place[i] for i in ids], dtype=np.int64)
    _equal(requested, _columns(whole.landmarks(side, rows, at), own), len(ids))

    # One record read alone, as a stored score reads it.
    for i, record_id in enumerate(ids[:10]):
        alone = stored_snapshot(
            side, house.store.read_records(side, [record_id]), own, house.store.sources(),
            None, NOW,
        )  # fmt: skip
        one = _columns(alone, own)
        for name in one:
            assert _value(one[name], 0) == _value(requested[name], i), name


def _same(mine: dict[str, Any], other: dict[str, Any]) -> None:
    """Equal to the bit; only a reason's contribution may differ in what adding up leaves over."""
    mine, other = json.loads(json.dumps(mine)), json.loads(json.dumps(other))
    for a, b in zip(mine.get("reasons", []), other.get("reasons", []), strict=True):
        assert a.pop("contribution") == pytest.approx(b.pop("contribution"), abs=1e-12)
    assert mine == other


def tables_of_rules(tables: dict[str, Table]) -> dict[str, Table]:
    return {name: tables[name] for name in ("stage", "exchange_rate")}


@pytest.mark.parametrize("side", SIDES)
def test_the_score_of_a_request_is_that_of_the_store(
    house: House, client: TestClient, side: Side
) -> None:
    tables = house.store.read()
    features = [f for f in _bundle(house, side).features if f.scope == "context"]
    assert (side == "deal") == bool(features)
    history = History(tables, house.store.sources(), None)
    for record_id in _some_ids(house, side, 8):
        stored = client.get(f"/v1/{side}s/{record_id}/score").json()
        record = request_record(tables, side, record_id)
        row = np.array([history.ledger(side).row_of[record_id]])
        context = _context_of(history.landmarks(side, row, np.array([NOW.astype(np.int64)])),
                              features)  # fmt: skip
        answer = client.post(
            f"/v1/{side}s/score", json={"records": [record], "context": context}
        ).json()
        assert answer["failed"] == 0, answer
        _same(answer["results"][0], stored)


def _context_of(snapshot: Snapshot, features: Sequence[Feature]) -> dict[str, Any]:
    found = {}
    for name, column in compute(snapshot, features).items():
        value = _value(column, 0) if isinstance(column, tuple) else float(column[0])
        found[name] = None if value != value else value
    return found


@pytest.mark.parametrize("side", SIDES)
def test_a_listed_score_is_the_score_asked_for_alone(client: TestClient, side: Side) -> None:
    listing = client.get(f"/v1/{side}s", params={"limit": 5, "explain": True}).json()
    for item in listing["items"]:
        alone = client.get(f"/v1/{side}s/{item[f'{side}_id']}/score").json()
        item.pop("owner_id")
        _same(item, alone)


@pytest.mark.parametrize("side", SIDES)
def test_one_by_one_is_the_batch(house: House, client: TestClient, side: Side) -> None:
    tables = house.store.read()
    records = [request_record(tables, side, i) for i in _some_ids(house, side, 20)]
    # Neighbours with other types in the same attributes, other contexts, and the same id.
    records.append({f"{side}_id": "odd", "segment": 7, "seats": "many", "new": True})
    records.append({f"{side}_id": "odd", "segment": True, "seats": False,
                    "context": {"account_wins": 3}})  # fmt: skip
    batch = client.post(f"/v1/{side}s/score", json={"records": records}).json()["results"]
    for record, expected in zip(records, batch, strict=True):
        alone = client.post(f"/v1/{side}s/score", json={"records": [record]}).json()["results"]
        assert len(alone) == 1
        _same(alone[0], expected)


def test_a_wrongly_typed_attribute_is_missing_for_its_record_alone(
    house: House, client: TestClient
) -> None:
    tables = house.store.read()
    record = request_record(tables, "deal", house.store.open_ids("deal")[0]) | {"seats": 40}
    odd = record | {"seats": "forty"}
    without = {k: v for k, v in record.items() if k != "seats"}
    results = client.post("/v1/deals/score", json={"records": [record, odd, without]}).json()[
        "results"
    ]
    _same(results[1], results[2])
    assert results[0]["probability_won"] != results[2]["probability_won"]


@pytest.mark.parametrize("side", SIDES)
def test_null_is_the_same_as_absent(house: House, client: TestClient, side: Side) -> None:
    tables = house.store.read()
    full = [request_record(tables, side, i) for i in _some_ids(house, side, 10)]
    bare = [{k: v for k, v in record.items() if v is not None and v != []} for record in full]
    assert full != bare
    for record in full:  # an empty list of moves says more than none
        record["stage_changes"] = record["stage_changes"] or None
    answers = [client.post(f"/v1/{side}s/score", json={"records": r}).json() for r in (full, bare)]
    assert answers[0] == answers[1]


def test_the_order_of_what_is_nested_does_not_matter(house: House, client: TestClient) -> None:
    tables = house.store.read()
    for record_id in _some_ids(house, "deal", 10):
        record = request_record(tables, "deal", record_id)
        turned = record | {
            name: record[name][::-1] for name in ("stage_changes", "field_changes", "activities")
        }
        answer = client.post("/v1/deals/score", json={"records": [record, turned]}).json()
        _same(*answer["results"])


def test_what_is_told_twice_counts_once(house: House, client: TestClient) -> None:
    tables = house.store.read()
    record = request_record(tables, "deal", house.store.open_ids("deal")[0])
    assert record["activities"]
    assert record["stage_changes"]
    twice = record | {n: record[n] * 2 for n in ("stage_changes", "field_changes", "activities")}
    answer = client.post("/v1/deals/score", json={"records": [record, twice]}).json()
    _same(*answer["results"])


def test_pushed_records_score_as_the_request_did(house: House, client: TestClient) -> None:
    """A deal pushed through the API, then asked for, is the deal of the call."""
    record = {
        "deal_id": "P-1",
        "created_at": "2026-01-20T08:00:00Z",
        "stage_id": "proposal",
        "pipeline_id": "new-business",
        "amount": 12000,
        "currency": "EUR",
        "segment": "large",
        "seats": 12,
    }
    moves = [
        {"changed_at": "2026-01-25T09:00:00Z", "from_stage_id": "needs-analysis",
         "to_stage_id": "proposal"}
    ]  # fmt: skip
    calls = [
        {"activity_id": "b", "type": "call", "occurred_at": "2026-02-01T10:00:00Z"},
        {"activity_id": "a", "type": "email", "occurred_at": "2026-02-01T10:00:00Z"},
    ]
    link = {"entity": "deal", "entity_id": "P-1"}
    for path, rows in (
        ("deals", [record]),
        ("stage-changes", [m | link for m in moves]),
        ("activities", [c | {"deal_id": "P-1"} for c in calls]),
    ):
        written = client.post(f"/v1/{path}", json={"records": rows})
        assert written.json()["inserted"] == len(rows)
    stored = client.get("/v1/deals/P-1/score").json()
    sent = {**record, "stage_changes": moves, "activities": calls}
    # The pushed deal has neither account nor owner: its context is missing in both.
    asked = client.post("/v1/deals/score", json={"records": [sent]}).json()["results"][0]
    stored["warnings"] = asked["warnings"] = []
    _same(stored, asked)
