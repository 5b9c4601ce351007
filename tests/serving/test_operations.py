"""What operators and integrators look at first: health, readiness, and the description."""

from __future__ import annotations

import asyncio
import datetime as dt
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from data.records import ENTITIES
from serving.app import create_app, now_utc
from serving.schemas import Readiness
from serving.settings import Settings
from tests.serving.conftest import House, Shelf


def test_healthy_is_not_ready(house: House) -> None:
    house.shelf.champions.clear()
    with house.client() as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        answer = client.get("/readyz")
        assert answer.status_code == 503
        found = Readiness.model_validate(answer.json(), strict=True)
    assert not found.ready
    assert found.store.ready
    assert found.models["dealcast-deal"].problem == "no version is champion"


def test_ready(house: House) -> None:
    with house.client() as client:
        answer = client.get("/readyz")
    assert answer.status_code == 200
    Readiness.model_validate(answer.json(), strict=True)
    assert answer.json()["models"]["dealcast-deal"] == {
        "ready": True, "version": "2", "problem": None,
    }  # fmt: skip


def test_one_model_is_enough(house: House) -> None:
    del house.shelf.champions["lead"]
    with house.client() as client:
        answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["models"]["dealcast-lead"]["ready"] is False


def test_a_store_without_tables_is_not_ready(tmp_path: Path, house: House) -> None:
    app = create_app(Settings(store=str(tmp_path / "new.db")), live=house.live)
    with TestClient(app) as client:
        answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["store"]["ready"] is False
    assert "new.db" not in answer.text


def test_a_champion_found_while_serving(house: House) -> None:
    settings = Settings(store=house.settings.store, refresh_seconds=0.1)
    shelf = Shelf(dict(house.organisation.folders))
    house.live.catalogue = shelf
    app = create_app(settings, live=house.live, clock=house.clock)
    with TestClient(app) as client:
        shelf.promote("deal", "1")
        for _ in range(100):
            models = client.get("/readyz").json()["models"]
            if models["dealcast-deal"]["version"] == "1":
                break
            asyncio.run(asyncio.sleep(0.05))
    assert models["dealcast-deal"]["version"] == "1"


def test_the_service_opens_with_the_registry_of_its_settings(tmp_path: Path, house: House) -> None:
    settings = Settings(
        store=house.settings.store,
        tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}",
        artifacts=tmp_path / "mlflow",
    )
    with TestClient(create_app(settings)) as client:
        answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["models"]["dealcast-lead"]["problem"] == "no version is champion"


class _Page(HTMLParser):
    """What a page would load, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "action") and value:
                self.loaded.append(value)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_of_the_api_needs_no_other_server(house: House) -> None:
    with house.client() as client:
        answer = client.get("/")
        described = client.get("/openapi.json").json()
    assert answer.history[0].status_code == 307
    assert answer.headers["content-type"].startswith("text/html")
    page = _Page()
    page.feed(answer.text)
    assert page.loaded == ["/openapi.json"]
    for path in described["paths"]:
        assert path in page.text


def test_every_path_that_was_promised_is_there(house: House) -> None:
    paths = house.app.openapi()["paths"]
    for entity in ENTITIES.values():
        assert "post" in paths[f"/v1/{entity.path}"], entity.path
    for path, method in (
        ("/v1/leads/score", "post"),
        ("/v1/deals/score", "post"),
        ("/v1/leads/{record_id}/score", "get"),
        ("/v1/deals/{record_id}/scores", "get"),
        ("/v1/leads", "get"),
        ("/v1/deals", "get"),
        ("/v1/forecast", "get"),
        ("/v1/forecast/history", "get"),
        ("/v1/models/{name}/promote", "post"),
        ("/v1/models/{name}/rollback", "post"),
        ("/healthz", "get"),
        ("/readyz", "get"),
    ):
        assert method in paths[path], path


def test_every_call_describes_its_answer(house: House) -> None:
    described = house.app.openapi()
    for path, calls in described["paths"].items():
        for method, call in calls.items():
            schema = call["responses"]["200"]["content"]["application/json"]["schema"]
            assert schema.get("$ref") or path == "/healthz", f"{method} {path}"
            if path.startswith("/v1/"):
                assert call["security"], f"{method} {path}"
                assert "application/problem+json" in call["responses"]["422"]["content"]
    names = set(described["components"]["schemas"])
    assert {r.rpartition("/")[2] for r in _references(described)} <= names


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [r for v in value.values() for r in _references(v)]
    return [r for v in value for r in _references(v)] if isinstance(value, list) else []


@pytest.mark.parametrize("side", ["lead", "deal"])
def test_the_examples_of_the_description_work(house: House, side: str) -> None:
    schemas = house.app.openapi()["components"]["schemas"]
    with house.client("score") as client:
        records = schemas[f"{side.title()}ScoreRequest"]["properties"]["records"]["examples"][0]
        answer = client.post(f"/v1/{side}s/score", json={"records": records}).json()
    assert answer["failed"] == 0
    assert answer["results"][0]["warnings"] == []


def test_the_description_names_every_field_of_a_record(house: House) -> None:
    schemas = house.app.openapi()["components"]["schemas"]
    for side in ("lead", "deal"):
        items = schemas[f"{side.title()}ScoreRequest"]["properties"]["records"]["items"]
        assert {f.name for f in ENTITIES[side].fields} <= set(items["properties"])
        assert items["required"] == [f"{side}_id"]
        assert items["properties"]["outcome"]["enum"][0] == "open"
        assert "stage_changes" in items["properties"]


def test_the_clock_of_the_service_is_utc() -> None:
    passed = np.datetime64(dt.datetime.now(dt.UTC).replace(tzinfo=None)) - now_utc()
    assert abs(passed) < np.timedelta64(5, "s")
