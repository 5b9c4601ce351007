"""Every error is told as problem details, and never tells more than it should."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from data.records import RecordError
from serving.batch import GoneError
from serving.errors import _KINDS, problem_of, shown
from serving.schemas import Problem
from tests.serving.conftest import House


def _problem(answer: Any, status: int, slug: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    Problem.model_validate(problem)
    assert problem["type"] == f"urn:dealcast:problem:{slug}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    return problem


def test_every_declared_error_has_its_own_words() -> None:
    for error_type, kind in _KINDS.items():
        assert issubclass(error_type, Exception)
        assert 400 <= kind.status < 600
        assert kind.slug == kind.slug.lower().replace(" ", "-")
    # One slug is one status.
    assert len({(k.slug, k.status, k.title) for k in _KINDS.values()}) == len(
        {k.slug for k in _KINDS.values()}
    )


def test_a_subclass_is_told_like_its_parent() -> None:
    class Merged(GoneError):
        pass

    assert problem_of(Merged("it is gone"))["status"] == 410


def test_a_value_is_told_with_its_field_and_what_is_allowed(client: TestClient) -> None:
    body = {"records": [{"lead_id": "a", "employee_count": "many"}]}
    answer = client.post("/v1/leads/score", json=body)
    assert answer.status_code == 200
    (result,) = answer.json()["results"]
    assert result["index"] == 0
    assert result["lead_id"] == "a"
    assert result["problem"]["field"] == "employee_count"
    assert result["problem"]["value"] == "many"
    assert result["problem"]["allowed"] == "a finite number"
    assert result["problem"]["status"] == 422


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "records"),
        ({"records": {}}, "records"),
        ({"records": [1]}, "records.0"),
        ({"records": [], "explain": "perhaps"}, "explain"),
        ({"records": [], "as_of": 5}, "as_of"),
        ({"records": [], "asof": "2026-01-01"}, "asof"),
        ({"records": [], "context": []}, "context"),
    ],
)
def test_a_body_of_another_form(client: TestClient, body: Any, field: str) -> None:
    problem = _problem(client.post("/v1/deals/score", json=body), 422, "invalid-request")
    assert problem["field"] == field
    assert problem["allowed"]
    assert problem["errors"][0]["in"] == "body"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b'"text"', b"[" * 100_000])
def test_a_body_that_is_no_json_object(client: TestClient, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = client.post("/v1/deals/score", content=content, headers=headers)
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    Problem.model_validate(answer.json())


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("period=year", "period"),
        ("horizon=many", "horizon"),
        ("horizon=0", "horizon"),
        ("period=week&horizon=54", "horizon"),
        ("levels=0.5,1.5", "levels"),
        ("levels=", "levels"),
        ("levels=nan", "levels"),
        ("as_of=yesterday", "as_of"),
        ("as_of=2199-01-01", "as_of"),
    ],
)
def test_a_parameter_of_another_form(client: TestClient, query: str, field: str) -> None:
    answer = client.get(f"/v1/forecast?{query}")
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["field"] == field
    assert problem["allowed"]


def test_an_unknown_grouping(client: TestClient) -> None:
    problem = _problem(client.get("/v1/forecast?by=moon"), 422, "invalid-value")
    assert "owner, team" in problem["detail"]


def test_unknown_paths_and_methods(client: TestClient) -> None:
    _problem(client.get("/nowhere"), 404, "not-found")
    answer = client.delete("/v1/models")
    _problem(answer, 405, "method-not-allowed")
    assert "GET" in answer.headers["allow"]


def test_an_unknown_record(client: TestClient) -> None:
    for path in ("/v1/deals/none/score", "/v1/leads/none/score", "/v1/deals/none/scores"):
        problem = _problem(client.get(path), 404, "unknown-record")
        assert "'none'" in problem["detail"]


def test_an_id_may_hold_a_slash(client: TestClient) -> None:
    written = client.post("/v1/leads", json={"records": [{"lead_id": "crm/7?x"}]})
    assert written.json()["inserted"] == 1
    assert client.get("/v1/leads/crm%2F7%3Fx/score").json()["lead_id"] == "crm/7?x"


def test_too_many_records(house: House, client: TestClient) -> None:
    most = house.settings.max_records
    rows = [{"lead_id": str(i)} for i in range(most + 1)]
    for path in ("/v1/leads/score", "/v1/leads"):
        problem = _problem(client.post(path, json={"records": rows}), 413, "too-many-records")
        assert f"allowed: {most}" in problem["detail"]
        assert client.post(path, json={"records": rows[:most]}).status_code == 200


def test_a_body_above_the_limit(house: House, client: TestClient) -> None:
    limit = house.settings.max_body_bytes
    rows = {"records": [{"lead_id": "a", "title": "x" * limit}]}
    problem = _problem(client.post("/v1/leads/score", json=rows), 413, "body-too-large")
    assert f"{limit:,}" in problem["detail"]

    def pieces() -> Any:  # no declared length
        text = json.dumps(rows).encode()
        for i in range(0, len(text), 50_000):
            yield text[i : i + 50_000]

    _problem(client.post("/v1/leads/score", content=pieces()), 413, "body-too-large")


def test_a_failure_of_ours_is_told_by_its_incident_alone(
    house: House, client: TestClient, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr("serving.desk.Desk.list_scored", fails)
    answer = client.get("/v1/leads")
    problem = _problem(answer, 500, "internal-error")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert problem["incident"] in problem["detail"]
    assert problem["incident"] in caplog.text
    assert "secret of the house" in caplog.text


def test_no_model_yet(house: House) -> None:
    house.shelf.champions.clear()
    with house.client("admin") as client:
        for method, path, body in (
            ("POST", "/v1/leads/score", {"records": [{"lead_id": "a"}]}),
            ("GET", "/v1/deals/D000001/score", None),
            ("GET", "/v1/deals", None),
            ("GET", "/v1/forecast", None),
        ):
            answer = client.request(method, path, json=body)
            problem = _problem(answer, 503, "no-model")
            assert answer.headers["retry-after"] == "30"
            assert "dealcast train" in problem["detail"]


def test_the_store_is_away(house: House, client: TestClient) -> None:
    with house.store._transaction("write") as connection:
        connection.exec_driver_sql("DROP TABLE deal")
    for path in ("/v1/deals/D000001/score", "/v1/deals", "/v1/forecast"):
        answer = client.get(path)
        _problem(answer, 503, "store-unavailable")
        assert answer.headers["retry-after"]
        assert "deal" not in answer.json()["detail"]


@pytest.mark.parametrize(
    ("text", "status"),
    [("\ud800", 422), ("a\0b", 422), ("é日本", 200), ("\\u0000", 200)],
)
def test_texts_that_cannot_be_stored(client: TestClient, text: str, status: int) -> None:
    body = {"records": [{"lead_id": "a", "title": text}]}
    headers = {"Content-Type": "application/json"}
    content = json.dumps(body).encode()
    written = client.post("/v1/leads", content=content, headers=headers)
    assert written.status_code == status, written.text
    result = client.post("/v1/leads/score", content=content, headers=headers).json()["results"][0]
    assert ("problem" in result) == (status == 422)


def test_a_bad_id_does_not_break_the_answer(client: TestClient) -> None:
    for value in ("\ud800", "a\0b", {"x": "\udfff"}, ["\ud800"], "\ud800" * 500, 1e400, 10**30):
        content = json.dumps({"records": [{"lead_id": value}]}).encode()
        for path in ("/v1/leads", "/v1/leads/score"):
            answer = client.post(path, content=content)
            assert answer.status_code in (200, 422), answer.text
            assert len(answer.content) < 3_000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (10**30, str(10**30)),
        ("text", "text"),
        ("\ud800", "'\\ud800'"),
        (float("nan"), "nan"),
        ([1], "[1]"),
        ("x" * 200, "'" + "x" * 76 + "..."),
    ],
)
def test_values_are_repeated_short_and_safe(value: Any, expected: Any) -> None:
    assert shown(value) == expected


def test_a_record_error_is_told_without_losing_its_words() -> None:
    problem = problem_of(RecordError("amount", "much", "a finite number"))
    assert problem["detail"] == "amount is 'much'; allowed: a finite number"
