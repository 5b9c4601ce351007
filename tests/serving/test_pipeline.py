"""The pipeline through the API: what moved, the KPIs, the table of stages."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import BaseModel

from serving.pipeline_schemas import ChangesOut, MetricsOut, StagesOut
from tests.serving.conftest import House

_SCHEMAS: dict[str, type[BaseModel]] = {
    "changes": ChangesOut,
    "metrics": MetricsOut,
    "stages": StagesOut,
}


def ask(client: TestClient, what: str, **params: Any) -> dict[str, Any]:
    query = {k.removesuffix("_"): v for k, v in params.items()}
    answer = client.get(f"/v1/pipeline/{what}", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    _SCHEMAS[what].model_validate(found, strict=True)
    return found


def cents(amount: float) -> int:
    return round(100 * amount)


def kpi(answer: dict[str, Any], name: str, window: str | None = None) -> dict[str, Any]:
    return next(k for k in answer["kpis"] if k["name"] == name and window in (None, k["window"]))


# --- what moved


@pytest.mark.parametrize("by", [None, "owner", "team", "product"])
@pytest.mark.parametrize("period", [None, "quarter", "2026-02"])
def test_what_moved_adds_up_to_the_cent(
    client: TestClient, by: str | None, period: str | None
) -> None:
    asked = {k: v for k, v in (("by", by), ("period", period)) if v}
    found = ask(client, "changes", from_="2026-01-05", **asked)
    assert found["groups"][0]["group"] == "all" and found["groups"][0]["changes"]
    for group in found["groups"]:
        moved = sum(cents(c["effect"]) for c in group["changes"])
        before, after = cents(group["before"]["amount"]), cents(group["after"]["amount"])
        assert before + moved == after
        assert cents(group["difference"]) == moved
    for side in ("before", "after"):
        whole, *groups = (cents(g[side]["amount"]) for g in found["groups"])
        assert not groups or sum(groups) == whole


def test_by_default_the_last_seven_days(client: TestClient) -> None:
    found = ask(client, "changes")
    assert (found["from"], found["to"]) == ("2026-02-09T03:00:00Z", "2026-02-16T03:00:00Z")
    assert found["period"] is None and found["currency"] == "EUR"


def test_a_deal_that_is_pushed_shows_at_once(house: House, client: TestClient) -> None:
    before = ask(client, "changes", from_="2026-02-16")
    deal = {"deal_id": "N", "created_at": "2026-02-16T01:00:00Z", "currency": "EUR",
            "amount": 1234.56, "expected_close_date": "2026-03-01"}  # fmt: skip
    client.post("/v1/deals", json={"records": [deal]})
    house.clock.wait(1, "m")
    after = ask(client, "changes", from_="2026-02-16")
    assert before["groups"][0]["changes"] == []
    (created,) = after["groups"][0]["changes"]
    assert (created["kind"], created["deals"], created["effect"]) == ("created", 1, 1234.56)
    assert after["deals"][0]["deal_id"] == "N" and after["deals_in_all"] == 1


def test_the_named_period_and_a_limit(client: TestClient) -> None:
    found = ask(client, "changes", from_="2026-01-05", period="2026-Q1", limit=3)
    assert found["period"] == {"period": "2026-Q1", "start": "2026-01-01", "end": "2026-04-01"}
    assert len(found["deals"]) == 3 < found["deals_in_all"]
    amounts = [d["amount"] for d in found["deals"]]
    assert amounts == sorted(amounts, reverse=True)
    assert ask(client, "changes", from_="2026-01-05", limit=0)["deals"] == []


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"from": "soon"}, "from"),
        ({"to": "2027-01-01"}, "to"),
        ({"limit": "-1"}, "limit"),
    ],
)
def test_a_wrong_argument_is_named(client: TestClient, params: dict[str, str], field: str) -> None:
    answer = client.get("/v1/pipeline/changes", params=params)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["field"] == field


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"from": "2026-02-10", "to": "2026-02-01"}, "must not be later"),
        ({"by": "colour"}, "owner, team"),
        ({"period": "2026-Q5"}, "2026-W09"),
    ],
)
def test_what_cannot_be_told_says_what_can(
    client: TestClient, params: dict[str, str], said: str
) -> None:
    answer = client.get("/v1/pipeline/changes", params=params)
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:dealcast:problem:invalid-value"
    assert said in answer.json()["detail"]


# --- the KPIs


def test_the_kpis_say_what_they_count_and_why_not(client: TestClient) -> None:
    found = ask(client, "metrics")
    assert found["period"]["period"] == "2026-Q1" and found["model"]["version"] == "2"
    for k in found["kpis"]:
        assert k["value"] is not None or k["reason"], k
        if k["unit"].startswith("money") and k["value"] is not None:
            assert k["value"] == round(k["value"], 2)
    assert kpi(found, "open_pipeline")["value"] > 0
    assert kpi(found, "weighted_pipeline")["value"] > 0
    assert 0 < kpi(found, "win_rate", "365 days")["value"] < 1
    assert kpi(found, "forecast_error_commit")["value"] is None


def test_closed_value_is_what_the_forecast_calls_won(client: TestClient) -> None:
    forecast = client.get("/v1/forecast", params={"period": "quarter", "horizon": 1}).json()
    won = forecast["periods"][0]["components"]["won"]
    found = ask(client, "metrics", period="quarter")
    assert kpi(found, "closed_value", "2026-Q1")["value"] == pytest.approx(won, abs=0.01)
    assert found["pace"]["won"] == pytest.approx(won, abs=0.01)


def test_the_pipeline_of_the_kpis_is_that_of_the_changes(client: TestClient) -> None:
    whole = ask(client, "changes", from_="2026-02-01", to="2026-02-16")["groups"][0]["after"]
    metrics, stages = ask(client, "metrics", as_of="2026-02-16"), ask(client, "stages")
    found = kpi(metrics, "open_pipeline")
    assert (found["value"], found["n"]) == (pytest.approx(whole["amount"]), whole["deals"])
    assert sum(s["open_deals"] for s in stages["stages"]) == whole["deals"]
    assert sum(cents(s["open_amount"]) for s in stages["stages"]) == cents(whole["amount"])


def test_a_past_moment_is_answered_by_a_model_of_that_time_or_none(client: TestClient) -> None:
    then = ask(client, "metrics", as_of="2025-10-15", period="month")
    assert then["period"]["period"] == "2025-10" and then["model"]["version"] == "1"
    before = ask(client, "metrics", as_of="2025-03-01")
    assert before["model"] is None
    assert kpi(before, "weighted_pipeline")["value"] is None
    assert "no model" in kpi(before, "weighted_pipeline")["reason"]
    assert kpi(before, "weighted_pipeline_crm")["value"] > 0


def test_without_a_model_the_records_still_speak(house: House) -> None:
    house.shelf.champions.clear()
    with house.client("forecast") as client:
        found = ask(client, "metrics")
        assert found["model"] is None and kpi(found, "open_pipeline")["value"] > 0
        stages = ask(client, "stages")["stages"]
        assert all(s["win_probability"] is None for s in stages)
        assert any(s["conversion"] is not None for s in stages)


def test_deals_that_want_a_look_come_with_the_reason(client: TestClient) -> None:
    found = ask(client, "metrics", limit=2)
    assert len(found["attention"]) == 2 < found["attention_in_all"]
    for deal in found["attention"]:
        assert deal["why"] and set(deal["flags"]) <= {"slipped", "stalled", "at_risk"}


def test_the_period_of_the_kpis_must_be_one(client: TestClient) -> None:
    answer = client.get("/v1/pipeline/metrics", params={"period": "year"})
    assert answer.status_code == 422 and "2026-Q1" in answer.json()["detail"]


# --- the stages


def test_the_table_of_stages(client: TestClient) -> None:
    found = ask(client, "stages")
    assert found["model"]["version"] == "2" and len(found["stages"]) >= 5
    for stage in found["stages"]:
        assert stage["low"] < stage["win_probability"] < stage["high"]
        assert 0 < stage["conversion"] <= 1 and stage["median_days"] > 0


def test_the_example_in_openapi_is_an_answer(house: House) -> None:
    schema = house.app.openapi()["components"]["schemas"]["ChangesOut"]
    (example,) = schema["examples"]
    ChangesOut.model_validate(example, strict=True)
    whole = example["groups"][0]
    effects = sum(c["effect"] for c in whole["changes"])
    assert whole["before"]["amount"] + effects == whole["after"]["amount"]
    assert whole["difference"] == effects
