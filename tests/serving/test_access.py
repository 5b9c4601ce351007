"""Who may do what: keys, scopes, and what is told to those who may not."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from data.records import ENTITIES
from data.store import Store
from serving.auth import SCOPES, AuthenticationError, ScopeError, make_key, token_of
from tests.serving.conftest import NOW, House

# Every guarded call and the scope it needs.
CALLS: dict[tuple[str, str], str] = {
    **{("POST", f"/v1/{e.path}"): "records" for e in ENTITIES.values()},
    **{
        (method, f"/v1/{plural}{rest}"): "score"
        for plural in ("leads", "deals")
        for method, rest in (
            ("POST", "/score"),
            ("GET", ""),
            ("GET", "/{record_id}/score"),
            ("GET", "/{record_id}/scores"),
        )
    },
    ("GET", "/v1/forecast"): "forecast",
    ("GET", "/v1/forecast/history"): "forecast",
    ("GET", "/v1/forecast/renewals"): "forecast",
    ("POST", "/v1/forecast/what-if"): "forecast",
    ("GET", "/v1/pipeline/changes"): "forecast",
    ("GET", "/v1/pipeline/metrics"): "forecast",
    ("GET", "/v1/pipeline/stages"): "forecast",
    ("GET", "/v1/models"): "models",
    ("GET", "/v1/models/{name}"): "models",
    ("POST", "/v1/models/{name}/promote"): "models",
    ("POST", "/v1/models/{name}/rollback"): "models",
}


def test_every_guarded_call_is_in_the_table(house: House) -> None:
    described = {
        (method.upper(), path)
        for path, calls in house.app.openapi()["paths"].items()
        for method in calls
        if path.startswith("/v1/")
    }
    assert described == set(CALLS)


def test_each_call_needs_its_scope(house: House) -> None:
    keys = {scope: house.key(scope) for scope in SCOPES}
    with house.client() as client:
        for (method, path), needed in CALLS.items():
            # An unknown model, so that no call of the table changes anything.
            where = path.replace("{record_id}", "D000001").replace("{name}", "none")
            for scope, token in keys.items():
                answer = client.request(method, where, headers={"X-API-Key": token})
                allowed = scope in (needed, "admin")
                told = f"{method} {path} with {scope}: {answer.status_code}"
                assert (answer.status_code == 403) is not allowed, told
                assert answer.status_code != 401, told
                if not allowed:
                    assert answer.json()["type"] == "urn:dealcast:problem:not-allowed"
                    assert needed in answer.json()["detail"]


def test_each_call_needs_a_key(house: House) -> None:
    with house.client() as client:
        for method, path in CALLS:
            # Not even the body is looked at before the key.
            answer = client.request(method, path, content=b"{not json")
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == 401


def test_what_needs_no_key(house: House) -> None:
    with house.client() as client:
        for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200, path


def _status(house: House, headers: dict[str, str]) -> int:
    with house.client() as client:
        return client.get("/v1/models", headers=headers).status_code


def test_a_key_comes_in_either_header(house: House) -> None:
    token = house.key("models")
    assert _status(house, {"Authorization": f"Bearer {token}"}) == 200
    assert _status(house, {"Authorization": f"bearer {token}"}) == 200
    assert _status(house, {"X-API-Key": token}) == 200
    assert _status(house, {"Authorization": f"Basic {token}"}) == 401
    assert _status(house, {"Authorization": "Bearer", "X-API-Key": token}) == 401


def test_a_changed_token_opens_nothing(house: House) -> None:
    token = house.key("models")
    other = house.key("models")
    _, key_id, secret = token.split("_")
    _, other_id, _ = other.split("_")
    wrong = [
        f"dc_{key_id}_{'0' * 64}",
        f"dc_{other_id}_{secret}",
        f"dc_{key_id}_{secret[:-1]}",
        token.upper(),
        f"{token}0",
        key_id,
    ]
    for bad in wrong:
        assert _status(house, {"X-API-Key": bad}) == 401, bad
    assert _status(house, {"X-API-Key": token}) == 200


def test_an_expired_key_opens_nothing_from_that_moment_on(house: House) -> None:
    token = house.key("models", expires_at=NOW + np.timedelta64(60, "s"))
    assert _status(house, {"X-API-Key": token}) == 200
    house.clock.wait(60, "s")
    assert _status(house, {"X-API-Key": token}) == 401


def test_a_revoked_key_opens_nothing_at_once(house: House) -> None:
    token = house.key("models")
    with house.client(token=token) as client:
        assert client.get("/v1/models").status_code == 200
        (key,) = house.store.list_keys()
        assert house.store.revoke_key(key.key_id, NOW)
        answer = client.get("/v1/models")
    assert answer.status_code == 401
    assert "revoked" in answer.json()["detail"]


def test_the_store_keeps_a_hash_and_when_the_key_was_used(house: House) -> None:
    token = house.key("models")
    (kept,) = house.store.list_keys()
    secret = token.split("_")[2]
    assert kept.hash == hashlib.sha256(secret.encode()).hexdigest()
    assert secret not in repr(kept)
    assert np.isnat(kept.last_used_at)
    with house.client(token=token) as client:
        client.get("/v1/models")
        house.clock.wait(10, "s")
        client.get("/v1/models")
        assert house.store.list_keys()[0].last_used_at == NOW  # at most once a minute
        house.clock.wait(60, "s")
        client.get("/v1/models")
    assert house.store.list_keys()[0].last_used_at == NOW + np.timedelta64(70, "s")


def test_tokens_are_long_and_never_the_same() -> None:
    tokens = {make_key("k", ["score"], NOW)[0] for _ in range(50)}
    assert len({t.split("_")[2] for t in tokens}) == 50
    assert all(len(t.split("_")[2]) == 64 for t in tokens)


@pytest.mark.parametrize("scopes", [[], ["everything"], ["score", "Admin"]])
def test_a_key_has_known_scopes(scopes: list[str]) -> None:
    with pytest.raises(ScopeError, match="allowed: one or more of score, records"):
        make_key("k", scopes, NOW)


def test_no_token_at_all() -> None:
    assert token_of(None, None) is None
    with pytest.raises(AuthenticationError, match="another scheme"):
        token_of("Digest x", "dc_1_2")


def test_when_the_store_is_away_nobody_is_let_in(house: House) -> None:
    token = house.key("admin")
    with house.client(token=token) as client:
        _break(house.store)
        answer = client.get("/v1/models")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert str(house.store.url) not in answer.text
        assert client.get("/healthz").status_code == 200


def _break(store: Store) -> None:
    """Take the tables away under the service."""
    with store._transaction("write") as connection:
        connection.exec_driver_sql("DROP TABLE api_key")


def test_a_caller_without_a_key_learns_nothing_of_what_is_stored(house: House) -> None:
    with house.client() as client:
        known, unknown = (client.get(f"/v1/deals/{i}/score").text for i in ("D000001", "none"))
    assert known == unknown


def test_unknown_paths_under_v1_need_a_key_too(house: House) -> None:
    with house.client() as client:
        assert client.get("/v1/none").status_code == 401
    with house.client("score") as client:
        assert client.get("/v1/none").status_code == 404
