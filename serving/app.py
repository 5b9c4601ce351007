"""The app: everything put together, opened and closed with the process."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Callable
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import uvicorn
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from data.store import Store, StoreError
from models.registry import Registry
from serving import errors
from serving.auth import AuthenticationError, KeyRing, token_of
from serving.desk import Desk
from serving.live import Live
from serving.routes import forecast, models, operations, pipeline, records, scores
from serving.routes.access import Services
from serving.settings import Settings

__all__ = ["BodyLimit", "KeyCheck", "create_app", "now_utc", "run"]

_DESCRIPTION = (
    "Calibrated scores of leads and deals, and probabilistic revenue forecasts, from an "
    "organisation's own CRM history."
)
_GUARDED = "/v1/"


def now_utc() -> np.datetime64:
    """The moment now, datetime64[us] UTC."""
    return np.datetime64(dt.datetime.now(dt.UTC).replace(tzinfo=None), "us")


def create_app(
    settings: Settings,
    *,
    live: Live | None = None,
    clock: Callable[[], np.datetime64] = now_utc,
) -> FastAPI:
    """The service as an ASGI app; it opens store and models when it starts.

    Parameters
    ----------
    live : Live, optional
        Bundles from elsewhere than the registry in the settings.
    clock : callable
        The moment now, datetime64[us] UTC.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[Services]:
        registry = Registry(settings.tracking_uri, settings.artifacts) if live is None else None
        bundles = live if registry is None else Live(registry, settings.currency)
        assert bundles is not None
        with Store(settings.store) as store:
            await run_in_threadpool(bundles.refresh)
            watching = asyncio.create_task(_watch(bundles, settings.refresh_seconds))
            try:
                yield Services(
                    store=store,
                    live=bundles,
                    desk=Desk(store, bundles, settings, clock),
                    keys=KeyRing(store, clock),
                )
            finally:
                watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watching

    app = FastAPI(
        title="dealcast",
        version=_version(),
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own pages load scripts from another server
        redoc_url=None,
    )
    for routes in (scores, records, forecast, pipeline, models, operations):
        app.include_router(routes.router)
    errors.install(app)
    # The last one added sees a request first: a body is read only for those who have a key.
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes)
    app.add_middleware(KeyCheck)
    return app


def _version() -> str:
    try:
        return version("dealcast")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0"


async def _watch(live: Live, seconds: float) -> None:
    """Look for a new champion again and again; `refresh` keeps its own errors."""
    while True:
        await asyncio.sleep(seconds)
        await run_in_threadpool(live.refresh)


class KeyCheck:
    """Lets nobody near the guarded paths without a valid key, before the body is read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or hand on with the key in the request's state."""
        if scope["type"] == "http" and scope["path"].startswith(_GUARDED):
            headers = Headers(scope=scope)
            keys: KeyRing = scope["state"]["keys"]
            try:
                token = token_of(headers.get("authorization"), headers.get("x-api-key"))
                scope["state"]["key"] = await run_in_threadpool(keys.identify, token)
            except (AuthenticationError, StoreError) as error:
                await errors.response_of(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class BodyLimit:
    """Refuses bodies above a limit: by their declared length, or once that much has come."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 413, or hand on a `receive` that counts."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdecimal() and int(declared) > self._limit:
            await errors.response_of(errors.BodyTooLarge(self._limit))(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                raise errors.BodyTooLarge(self._limit)
            return message

        await self._app(scope, counted, send)


def run(settings: Settings) -> None:
    """Serve until interrupted."""
    uvicorn.run(create_app(settings), host=settings.host, port=settings.port)
