"""What a route is given: the desk, the live bundles, and a key with the right scope."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import msgspec
from fastapi import Depends, Request, Response, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from data.store import Store
from serving.auth import KeyRing, allows
from serving.desk import Desk
from serving.errors import PROBLEM_JSON
from serving.issuing import Issuer
from serving.live import Live
from serving.schemas import Problem

__all__ = ["PROBLEMS", "DeskOf", "IssuerOf", "LiveOf", "Services", "StoreOf", "as_json", "needs"]


class Services(TypedDict):
    """What lives as long as the app: its lifespan state."""

    store: Store
    live: Live
    desk: Desk
    keys: KeyRing
    issuer: Issuer


def _desk(request: Request) -> Desk:
    desk: Desk = request.state.desk
    return desk


def _issuer(request: Request) -> Issuer:
    issuer: Issuer = request.state.issuer
    return issuer


def _live(request: Request) -> Live:
    live: Live = request.state.live
    return live


def _store(request: Request) -> Store:
    store: Store = request.state.store
    return store


DeskOf = Annotated[Desk, Depends(_desk)]
IssuerOf = Annotated[Issuer, Depends(_issuer)]
LiveOf = Annotated[Live, Depends(_live)]
StoreOf = Annotated[Store, Depends(_store)]

# Told in OpenAPI; the key itself is read before the body, by `serving.app`.
_BEARER = HTTPBearer(auto_error=False, description="an API key: dc_<id>_<secret>")
_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, description="the same, in a header")


def needs(scope: str) -> Any:
    """A dependency: the caller's key must have a scope."""

    def check(request: Request, _bearer: Any = None, _header: Any = None) -> None:
        allows(request.state.key, scope)

    check.__annotations__ |= {
        "request": Request,
        "_bearer": Annotated[Any, Security(_BEARER)],
        "_header": Annotated[Any, Security(_HEADER)],
    }
    found: Callable[..., None] = check
    return Depends(found)


def as_json(answer: Any) -> Response:
    """An answer as JSON, without another look at what the schemas promise: tests do that."""
    return Response(msgspec.json.encode(answer), media_type="application/json")


def _problem(description: str) -> dict[str, Any]:
    # `Problem` is among the components because answers about single records carry it too.
    reference = {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}
    return {"description": description, "content": {PROBLEM_JSON: reference}}


PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: _problem("no valid API key"),
    403: _problem("the key has not the scope"),
    413: _problem("the body, or the number of records, is above the limit"),
    422: _problem("a value is not what its field accepts"),
    503: _problem("no model yet, or the store does not answer; see Retry-After"),
}
