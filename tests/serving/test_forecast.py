"""The forecast through the API: it adds up, and says what it rests on."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.schemas import ForecastOut, RenewalsOut
from serving.supposing import WhatIfOut
from tests.serving.conftest import House


def _forecast(client: TestClient, **params: Any) -> dict[str, Any]:
    answer = client.get("/v1/forecast", params=params)
    assert answer.status_code == 200, answer.text
    ForecastOut.model_validate(answer.json(), strict=True)
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(("period", "usual"), [("week", 4), ("month", 3), ("quarter", 2)])
def test_the_usual_horizon(client: TestClient, period: str, usual: int) -> None:
    found = _forecast(client, period=period)
    assert len(found["periods"]) == found["horizon"] == usual
    starts = [p["start"] for p in found["periods"]]
    assert [p["end"] for p in found["periods"]][:-1] == starts[1:]
    assert (
        starts[0] == {"week": "2026-02-16", "month": "2026-02-01", "quarter": "2026-01-01"}[period]
    )
    assert found["currency"] == "EUR"
    assert found["model"]["version"] == "2"
    assert found["hindsight"] is False


def test_components_add_up_to_the_mean(client: TestClient) -> None:
    for cell in _forecast(client, period="month", by="team")["periods"]:
        assert sum(cell["components"].values()) == pytest.approx(cell["mean"], abs=0.03)


def test_groups_add_up_to_the_whole(client: TestClient) -> None:
    found = _forecast(client, period="month", by="owner")
    for _, cells in groupby(found["periods"], key=lambda c: str(c["start"])):
        whole, *groups = cells
        assert whole["group"] == "all"
        assert len(groups) > 3
        assert sum(g["mean"] for g in groups) == pytest.approx(whole["mean"], abs=0.2)
        for part in ("won", "open", "new"):
            total = sum(g["components"][part] for g in groups)
            assert total == pytest.approx(whole["components"][part], abs=0.2)


def test_levels_become_quantiles_in_order(client: TestClient) -> None:
    found = _forecast(client, levels="0.8,0.5")
    assert found["levels"] == [0.5, 0.8]
    for cell in found["periods"]:
        assert list(cell["quantiles"]) == ["0.1", "0.25", "0.5", "0.75", "0.9"]
        values = list(cell["quantiles"].values())
        assert values == sorted(values)
        assert [c["level"] for c in cell["coverage"]] == [0.5, 0.8]


def test_money_is_in_cents(client: TestClient) -> None:
    for cell in _forecast(client, by="team")["periods"]:
        money = [cell["mean"], *cell["quantiles"].values(), *cell["components"].values()]
        assert money == [round(m, 2) for m in money]


def test_a_won_deal_moves_from_open_to_won(client: TestClient) -> None:
    before = _forecast(client, period="quarter", horizon=1)["periods"][0]
    deal = {
        "deal_id": "W", "created_at": "2026-02-01T00:00:00Z", "currency": "EUR", "amount": 50_000,
        "outcome": "won", "closed_at": "2026-02-16T01:00:00Z", "closed_amount": 50_000,
    }  # fmt: skip
    client.post("/v1/deals", json={"records": [deal]})
    after = _forecast(client, period="quarter", horizon=1)["periods"][0]
    won = after["components"]["won"] - before["components"]["won"]
    assert won == pytest.approx(50_000, abs=0.02)


def test_targets_and_the_chance_to_reach_them(house: House, client: TestClient) -> None:
    target = {
        "scope": "all", "scope_id": "all", "period_start": "2026-01-01",
        "period_end": "2026-04-01", "amount": 1.0,
    }  # fmt: skip
    assert client.post("/v1/targets", json={"records": [target]}).status_code == 200
    cell = _forecast(client, period="quarter", horizon=1)["periods"][0]
    assert cell["target"] == 1.0
    assert cell["probability_of_target"] == 1.0
    assert _forecast(client, period="month", horizon=1)["periods"][0]["target"] != 1.0


def test_a_past_date_is_answered_by_a_model_of_that_date(client: TestClient) -> None:
    found = _forecast(client, as_of="2025-10-15T00:00:00Z", period="quarter")
    assert found["model"]["version"] == "1"
    assert found["model"]["trained_through"] <= found["as_of"] == "2025-10-15T00:00:00Z"
    assert found["periods"][0]["start"] == "2025-10-01"
    assert found["hindsight"] is False


def test_no_model_of_that_date_unless_hindsight_is_asked_for(client: TestClient) -> None:
    answer = client.get("/v1/forecast", params={"as_of": "2025-03-01"})
    assert answer.status_code == 409
    found = _forecast(client, as_of="2025-03-01", hindsight=True)
    assert found["hindsight"] is True
    assert found["model"]["version"] == "2"


def test_what_happened_later_does_not_show_in_a_past_forecast(client: TestClient) -> None:
    before = _forecast(client, as_of="2025-10-15T00:00:00Z")
    deal = {
        "deal_id": "W", "created_at": "2025-10-01T00:00:00Z", "currency": "EUR", "amount": 50_000,
        "outcome": "won", "closed_at": "2025-10-20T01:00:00Z",
        "recorded_at": "2025-10-16T00:00:00Z",
    }  # fmt: skip
    client.post("/v1/deals", json={"records": [deal]})
    assert _forecast(client, as_of="2025-10-15T00:00:00Z") == before


def test_deals_and_recurring_amounts_can_be_asked_for(client: TestClient) -> None:
    money, deals = (_forecast(client, period="month", measure=m) for m in ("amount", "count"))
    assert (money["measure"], deals["measure"]) == ("amount", "count")
    assert 0 < deals["periods"][1]["mean"] < money["periods"][1]["mean"] / 100
    assert client.get("/v1/forecast", params={"measure": "profit"}).status_code == 422
    kept = client.get("/v1/forecast/history", params={"measure": "count"}).json()
    assert {i["measure"] for i in kept["items"]} == {"count"}
    assert kept["total"] == len(deals["periods"])


def test_a_store_of_several_currencies_needs_a_base(client: TestClient) -> None:
    deal = {"deal_id": "U", "created_at": "2026-02-01", "amount": 5, "currency": "USD"}
    client.post("/v1/deals", json={"records": [deal]})
    answer = client.get("/v1/forecast")
    assert answer.status_code == 409
    assert "DEALCAST_CURRENCY" in answer.json()["detail"]


def test_renewals_need_a_pipeline_that_is_declared(house: House, client: TestClient) -> None:
    answer = client.get("/v1/forecast/renewals")
    assert answer.status_code == 422
    assert "DEALCAST_RENEWAL_PIPELINES" in answer.json()["detail"]
    settings = replace(house.settings, renewal_pipelines=" renewals , other")
    assert settings.renewals == ("renewals", "other")
    app = create_app(settings, live=house.live, clock=house.clock)
    headers = {"X-API-Key": house.key("forecast")}
    with TestClient(app, headers=headers) as told:
        answer = told.get("/v1/forecast/renewals", params={"period": "month", "horizon": 2})
        assert answer.status_code == 200, answer.text
        RenewalsOut.model_validate(answer.json(), strict=True)
        found = answer.json()
        kept = told.get("/v1/forecast/history", params={"group": "renewals"}).json()
    assert [(i["period"], i["pipeline"]) for i in found["items"]] == [
        ("2026-02", "renewals"), ("2026-03", "renewals"),
    ]  # fmt: skip
    assert any("other renewal pipelines" in w for w in found["warnings"])
    assert [i["mean"] for i in kept["items"]] == [i["renewed"]["mean"] for i in found["items"]]


def _what_if(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/forecast/what-if", json=body)
    assert answer.status_code == 200, answer.text
    WhatIfOut.model_validate(answer.json(), strict=True)
    found: dict[str, Any] = answer.json()
    return found


def test_supposing_nothing_is_the_forecast_itself(client: TestClient) -> None:
    found = _what_if(client, period="month", by="team")
    assert found["as_is"] == found["supposed"]
    assert found["as_is"] == _forecast(client, period="month", by="team")["periods"]
    assert all(d["mean"] == 0.0 for d in found["differences"])


def test_what_is_supposed_shows_where_it_happens(client: TestClient) -> None:
    usual = _what_if(client, period="quarter", by="owner", horizon=1)
    driver = usual["as_is"][0]["drivers"][0]["deal_id"]
    found = _what_if(client, period="quarter", by="owner", horizon=1, drop=[driver])
    moved = [d for d in found["differences"] if d["mean"] != 0.0]
    assert len(moved) == 2 and moved[0]["group"] == "all"
    assert all(d["mean"] < 0 for d in moved)
    stage = client.get("/v1/pipeline/stages").json()["stages"][0]["stage_id"]
    new = {"stage_id": stage, "amount": 90_000.0, "group": "rep-01"}
    more = _what_if(client, period="quarter", by="owner", horizon=1, add=[new], arrivals=1.5)
    assert more["differences"][0]["mean"] > 0
    assert more["supposed"][0]["components"]["new"] > usual["as_is"][0]["components"]["new"]
    target = usual["as_is"][0]["target"]
    if target is not None:
        assert more["differences"][0]["probability_of_target"] >= 0


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"drop": ["nobody"]}, "deal 'nobody' is not open"),
        ({"odds": -2.0}, "odds is -2.0"),
        ({"deals": {"x": {"expected_close_date": "soon"}}}, "deals.x.expected_close_date"),
        ({"add": [{"amount": 5.0}]}, "added deal 1 needs a stage_id"),
        ({"by": "colour"}, "by is 'colour'"),
        ({"levels": [1.5]}, "level is 1.5"),
        ({"horizon": 99}, "horizon"),
    ],
)
def test_what_cannot_be_supposed_is_refused(
    client: TestClient, body: dict[str, Any], says: str
) -> None:
    answer = client.post("/v1/forecast/what-if", json=body)
    assert answer.status_code == 422
    assert says in answer.json()["detail"]


def test_unknown_words_and_kinds_are_refused(client: TestClient) -> None:
    refused: list[dict[str, Any]] = [{"dropp": ["x"]}, {"odds": "much"}, {"deals": []}]
    for body in refused:
        assert client.post("/v1/forecast/what-if", json=body).status_code == 422
