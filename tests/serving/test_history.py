"""Forecasts as issued, through the API: what was said stays, and what happened stands beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from serving.schemas import DealScoresIssued, ForecastHistoryOut
from tests.serving.conftest import House


def _history(client: TestClient, **params: Any) -> dict[str, Any]:
    answer = client.get("/v1/forecast/history", params=params)
    assert answer.status_code == 200, answer.text
    ForecastHistoryOut.model_validate(answer.json(), strict=True)
    found: dict[str, Any] = answer.json()
    return found


def _ask(client: TestClient, **params: Any) -> dict[str, Any]:
    answer = client.get("/v1/forecast", params=params)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _win(client: TestClient, at: str, amount: float, **more: Any) -> None:
    deal = {
        "deal_id": f"W{at}", "created_at": at, "currency": "EUR", "amount": amount,
        "outcome": "won", "closed_at": at, "closed_amount": amount,
    } | more  # fmt: skip
    assert client.post("/v1/deals", json={"records": [deal]}).status_code == 200


def test_nothing_was_issued_yet(client: TestClient) -> None:
    found = _history(client)
    assert (found["items"], found["total"], found["value_added"]) == ([], 0, [])


def test_what_was_said_is_there_as_it_was(client: TestClient) -> None:
    said = _ask(client, period="month", by="team", levels="0.8")
    found = _history(client)
    assert found["total"] == len(found["items"]) == len(said["periods"])
    for item, cell in zip(found["items"], said["periods"], strict=True):
        for name in ("period", "start", "end", "group", "mean", "quantiles", "components", "target",
                     "probability_of_target"):  # fmt: skip
            assert item[name] == cell[name], name
        assert item["model"] == said["model"] and item["as_of"] == said["as_of"]
        assert (item["kind"], item["by"], item["currency"]) == ("month", "team", "EUR")
        assert item["outcome"] is None and item["commits"] == []
        assert item["draws"] > 0 and item["seed"] == 0 and len(item["inputs"]) == 16


def test_the_same_question_is_kept_once_and_another_answer_beside_it(
    house: House, client: TestClient
) -> None:
    past = {"as_of": "2025-10-15T00:00:00Z", "period": "month", "horizon": 1}
    _ask(client, **past)
    house.clock.wait(1, "h")
    _ask(client, **past)
    assert _history(client)["total"] == 1
    _win(client, "2025-10-10T00:00:00Z", 10.0, recorded_at="2025-10-10T00:00:00Z")
    _ask(client, **past)  # other records, another answer
    found = _history(client)["items"]
    assert len(found) == 2
    assert found[0]["inputs"] != found[1]["inputs"]
    assert found[0]["components"]["won"] - found[1]["components"]["won"] == pytest.approx(
        10, abs=0.02
    )
    assert found[1]["issued_at"] == "2026-02-16T03:00:00Z"


def test_what_happened_shows_once_the_period_is_over(house: House, client: TestClient) -> None:
    _live(house)
    said = _ask(client, period="week", by="owner", horizon=1)["periods"]
    _win(client, "2026-02-18T00:00:00Z", 1000.55, owner_id="rep-01")
    _win(client, "2026-02-19T00:00:00Z", 20.2, owner_id="newcomer")
    assert all(i["outcome"] is None for i in _history(client)["items"])
    house.clock.now = np.datetime64("2026-02-23T00:00:00", "us")
    found = _history(client)
    by_group = {i["group"]: i["outcome"] for i in found["items"]}
    before = {c["group"]: c["components"]["won"] for c in said}
    assert by_group["all"]["actual"] == pytest.approx(before["all"] + 1020.75)
    assert by_group["rep-01"]["actual"] == pytest.approx(before["rep-01"] + 1000.55)
    assert by_group["unassigned"]["actual"] == pytest.approx(before["unassigned"] + 20.2)
    parts = [round(100 * o["actual"]) for g, o in by_group.items() if g != "all"]
    assert sum(parts) == round(100 * by_group["all"]["actual"])
    for cell in said:
        outcome = by_group[cell["group"]]
        assert outcome["error"] == pytest.approx(cell["mean"] - outcome["actual"], abs=0.02)
        assert [h["level"] for h in outcome["held"]] == [0.5, 0.8, 0.95]
        low, high = cell["quantiles"]["0.025"], cell["quantiles"]["0.975"]
        assert outcome["held"][-1]["held"] is (low <= outcome["actual"] <= high)
    assert found["summary"]["n"] == found["total"] == len(said)
    assert found["summary"]["periods"] == 1


def _live(house: House) -> None:
    """Let the records go on: the sample's export ends when the tests begin."""
    with house.store._transaction("write") as connection:
        connection.exec_driver_sql("DELETE FROM source")


def test_filters_and_pages(client: TestClient) -> None:
    _ask(client, period="week", by="team", horizon=3)
    _ask(client, period="month", horizon=2)
    whole = _history(client, limit=1000)
    assert whole["total"] == len(whole["items"])
    assert {i["kind"] for i in _history(client, period="month")["items"]} == {"month"}
    assert _history(client, period="month")["total"] == 2
    assert {i["group"] for i in _history(client, group="all", by="team")["items"]} == {"all"}
    later = _history(client, **{"from": "2026-02-23", "to": "2026-03-02", "period": "week"})
    assert {i["start"] for i in later["items"]} == {"2026-02-23"}
    pages = [_history(client, limit=4, offset=o)["items"] for o in range(0, whole["total"], 4)]
    assert [i for page in pages for i in page] == whole["items"]
    assert _history(client, limit=1)["summary"]["cells"] == whole["total"]
    for wrong in ({"period": "year"}, {"limit": 0}, {"from": "soon"}):
        assert client.get("/v1/forecast/history", params=wrong).status_code == 422


def test_a_commit_stands_beside_the_forecast_of_its_time(house: House, client: TestClient) -> None:
    _live(house)
    said = _ask(client, period="week", horizon=1)["periods"][0]
    house.clock.wait(1, "h")
    commit = {
        "author_id": "boss", "scope": "all", "scope_id": "all", "period_start": "2026-02-16",
        "period_end": "2026-02-23", "changed_at": "2026-02-16T04:00:00Z", "amount": 123.0,
        "reason": "promised",
    }  # fmt: skip
    assert client.post("/v1/commits", json={"records": [commit]}).status_code == 200
    house.clock.wait(1, "h")
    _ask(client, period="week", horizon=1)  # said after the commit
    house.clock.now = np.datetime64("2026-02-23T00:00:00", "us")
    found = _history(client)
    newer, older = found["items"]
    assert newer["commits"] == [] and older["mean"] == said["mean"]
    (shown,) = older["commits"]
    assert (shown["human"], shown["model"], shown["reason"]) == (123.0, said["mean"], "promised")
    assert shown["errors"][0]["human"] == pytest.approx(abs(123.0 - shown["actual"]))
    (added,) = found["value_added"]
    assert (added["kind"], added["n"], found["commits_without_forecast"]) == ("forecast", 1, 0)


def test_an_override_stands_beside_the_scores_of_its_deal(house: House, client: TestClient) -> None:
    deal = {"deal_id": "N", "created_at": "2026-02-10T00:00:00Z", "amount": 5.0, "currency": "EUR",
            "stage_id": "proposal"}  # fmt: skip
    client.post("/v1/deals", json={"records": [deal]})
    said = client.get("/v1/deals/N/score").json()
    house.clock.wait(1, "h")
    override = {"deal_id": "N", "author_id": "rep", "changed_at": "2026-02-16T04:00:00Z",
                "field": "probability", "value": "0.9", "reason": "they called"}  # fmt: skip
    assert client.post("/v1/overrides", json={"records": [override]}).status_code == 200
    _live(house)
    before = client.get("/v1/deals/N/scores").json()
    DealScoresIssued.model_validate(before, strict=True)
    assert before["outcome"] is None and before["overrides"][0]["actual"] is None
    house.clock.wait(1, "D")
    won = {"deal_id": "N", "outcome": "won", "closed_at": "2026-02-17T00:00:00Z"}
    client.post("/v1/deals", json={"records": [won]})
    after = client.get("/v1/deals/N/scores").json()
    DealScoresIssued.model_validate(after, strict=True)
    assert after["outcome"] == {
        "outcome": "won", "closed_at": "2026-02-17T00:00:00Z", "amount": 5.0,
    }  # fmt: skip
    (shown,) = after["overrides"]
    assert shown["actual"] == 1.0 and shown["model"] == said["probability_won"]
    assert [e["measure"] for e in shown["errors"]] == ["brier", "log_loss"]
