"""For operators: liveness, readiness, and a page that shows the API without any other server."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from jinja2 import Environment, FileSystemLoader, select_autoescape
from starlette.responses import HTMLResponse, RedirectResponse

from data.store import Store, StoreError
from serving.routes.access import IssuerOf, LiveOf, StoreOf
from serving.schemas import Readiness

__all__ = ["router"]

router = APIRouter(tags=["operations"])

_log = logging.getLogger(__name__)
_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent.parent / "pages"),
    autoescape=select_autoescape(default=True),
    trim_blocks=True,
    lstrip_blocks=True,
)


@router.get("/healthz", summary="Whether the process answers")
async def healthz() -> dict[str, str]:
    """Liveness: needs neither store nor model."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    summary="Whether the service can answer",
    response_class=Response,
    responses={
        200: {"model": Readiness, "description": "ready"},
        503: {"model": Readiness, "description": "not ready; the problem is told"},
    },
)
def readyz(store: StoreOf, live: LiveOf, issuer: IssuerOf) -> Response:
    """Readiness: the store answers, and at least one model is in use.

    `issued` tells whether all numbers that were given out are kept; answers do not depend on it.
    """
    storage = _store_check(store)
    models = {
        f"dealcast-{kind}": {
            "ready": state.bundle is not None,
            "version": state.version,
            "problem": state.problem,
        }
        for kind, state in live.in_use().items()
    }
    ready = storage["ready"] and any(m["ready"] for m in models.values())
    problem = issuer.problem
    issued = {"ready": problem is None, "problem": problem}
    body = {"ready": ready, "store": storage, "models": models, "issued": issued}
    return Response(msgspec.json.encode(body), 200 if ready else 503, media_type="application/json")


def _store_check(store: Store) -> dict[str, Any]:
    try:
        store.ping()
    except StoreError as error:
        _log.error("the store is not ready: %s", error)
        return {"ready": False, "problem": "the store does not answer; the log says why"}
    return {"ready": True}


@router.get("/", include_in_schema=False)
async def root() -> RedirectResponse:
    """Send a browser to the page that shows the API."""
    return RedirectResponse("/docs")


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """All calls, from the OpenAPI description; no script, and nothing from elsewhere."""
    described = request.app.openapi()
    calls = [
        {"method": method.upper(), "path": path, **operation}
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
    ]
    tags = list(dict.fromkeys(tag for call in calls for tag in call.get("tags", ["other"])))
    page = _PAGES.get_template("api.html")
    return HTMLResponse(page.render(info=described["info"], tags=tags, calls=calls))
