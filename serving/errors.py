"""From errors to HTTP: one table of statuses, and problem details (RFC 9457) for every error."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from data.history import HistoryError
from data.pipeline import CalendarError
from data.records import RecordError
from data.store import ConflictError, StoreError
from models.bundle import BundleError
from models.registry import NoSuchVersion, RegistryError, TrackerError
from scoring.changes import ChangesError
from scoring.forecast import ForecastError
from scoring.grouping import GroupingError
from scoring.what_if import WhatIfError
from serving.auth import AuthenticationError, ScopeError
from serving.batch import CurrencyError, GoneError, UnknownError
from serving.desk import AsOfError, TooManyError
from serving.live import NoModelError, UnfitError
from serving.writes import RejectedError

__all__ = ["PROBLEM_JSON", "BodyTooLarge", "Kind", "install", "problem_of", "response_of", "shown"]

PROBLEM_JSON = "application/problem+json"

_log = logging.getLogger(__name__)


class BodyTooLarge(HTTPException):
    """A body above the limit; an HTTPException, so that whoever reads the body lets it pass."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"the body is larger than the limit of {limit:,} bytes; send less")


@dataclass(frozen=True)
class Kind:
    """How an error is told: status, the last word of its type, and a title that never varies."""

    status: int
    slug: str
    title: str


_INVALID = Kind(422, "invalid-value", "A value is not what its field accepts")

# The one table. An error of a subclass is told like the nearest class listed.
_KINDS: dict[type[Exception], Kind] = {
    RecordError: _INVALID,
    CurrencyError: _INVALID,
    ForecastError: _INVALID,
    GroupingError: _INVALID,
    WhatIfError: _INVALID,
    CalendarError: _INVALID,
    ChangesError: _INVALID,
    RejectedError: Kind(422, "records-rejected", "Some records are not valid; nothing was stored"),
    AuthenticationError: Kind(401, "not-authenticated", "A valid API key is needed"),
    ScopeError: Kind(403, "not-allowed", "The API key may not do this"),
    UnknownError: Kind(404, "unknown-record", "There is no such record"),
    NoSuchVersion: Kind(404, "unknown-model", "There is no such model or version"),
    GoneError: Kind(410, "gone-record", "The record was deleted or merged"),
    AsOfError: Kind(409, "no-model-of-that-date", "No model of that date can answer"),
    HistoryError: Kind(409, "contradicting-data", "The stored records do not allow an answer"),
    ConflictError: Kind(409, "conflicting-event", "An event is stored with other content"),
    RegistryError: Kind(409, "registry-refused", "The model registry refused"),
    UnfitError: Kind(409, "unfit-model", "The model cannot be served"),
    BundleError: Kind(409, "unfit-model", "The model cannot be served"),
    TooManyError: Kind(413, "too-many-records", "Too many records in one call"),
    BodyTooLarge: Kind(413, "body-too-large", "The body is too large"),
    NoModelError: Kind(503, "no-model", "There is no model to answer yet"),
    TrackerError: Kind(503, "registry-unavailable", "The model registry does not answer"),
    StoreError: Kind(503, "store-unavailable", "The store does not answer"),
}
_SECRETIVE = (StoreError, TrackerError)  # names places and settings that concern the operator alone
_RETRY_AFTER = {503: "30"}


def problem_of(error: Exception) -> dict[str, Any]:
    """The problem details of a declared error; KeyError for any other."""
    declared = _declared(error)
    kind = _KINDS[declared]
    detail = str(error.detail) if isinstance(error, HTTPException) else str(error)
    if declared in _SECRETIVE:
        detail = "the service's log says why"
    problem = _problem(kind, detail)
    if isinstance(error, RecordError):
        problem |= {
            "field": error.field,
            "value": shown(error.value),
            "allowed": error.allowed,
        }
        problem["detail"] = f"{error.field} is {_short(error.value)}; allowed: {error.allowed}"
    if isinstance(error, RejectedError):
        problem["rejected"] = [
            {"index": r.index, "problem": problem_of(r.error)} for r in error.rejected
        ]
    return problem


def _declared(error: Exception) -> type[Exception]:
    return next(c for c in type(error).__mro__ if c in _KINDS)


def _problem(kind: Kind, detail: str) -> dict[str, Any]:
    return {
        "type": f"urn:dealcast:problem:{kind.slug}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
    }


def shown(value: object) -> Any:
    """A value as it may be repeated to the caller: short, and valid JSON."""
    if value is None or isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**53):
        return value
    if isinstance(value, str) and len(value) <= 80 and value.isprintable():
        return value
    return _short(value)


def _short(value: object) -> str:
    # ascii() also spells out half surrogates, which no response could carry.
    text = repr(value) if isinstance(value, str) and value.isprintable() else ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


def response_of(error: Exception) -> Response:
    """The response to a declared error."""
    if _declared(error) in _SECRETIVE:
        _log.error("%s: %s", type(error).__name__, error)
    return _response(problem_of(error))


def _response(problem: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    status = int(problem["status"])
    found = dict(headers or {})
    if status in _RETRY_AFTER:
        found["Retry-After"] = _RETRY_AFTER[status]
    if status == 401:
        found["WWW-Authenticate"] = "Bearer"
    return Response(msgspec.json.encode(problem), status, found, PROBLEM_JSON)


def install(app: FastAPI) -> None:
    """Make an app tell every error as problem details."""

    async def declared(_: Request, error: Exception) -> Response:
        return response_of(error)

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if isinstance(error, BodyTooLarge):
            return response_of(error)
        phrase = HTTPStatus(error.status_code).phrase
        kind = Kind(error.status_code, phrase.lower().replace(" ", "-"), phrase)
        return _response(_problem(kind, str(error.detail)), dict(error.headers or {}))

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _response(_invalid_request(error.errors()))

    async def unforeseen(request: Request, error: Exception) -> Response:
        incident = secrets.token_hex(6)
        _log.error(
            "incident %s in %s %s", incident, request.method, request.url.path, exc_info=error
        )
        kind = Kind(500, "internal-error", "The service failed")
        detail = f"the log tells what went wrong, under incident {incident}"
        return _response(_problem(kind, detail) | {"incident": incident})

    for error_type in _KINDS:
        if error_type is not BodyTooLarge:
            app.add_exception_handler(error_type, declared)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, unforeseen)


def _invalid_request(errors: Sequence[Any]) -> dict[str, Any]:
    """What pydantic found in parameters and body, field by field."""
    kind = Kind(422, "invalid-request", "The request is not of the declared form")
    found = [
        {
            # ("body", "records", 3) -> records.3; a broken body is the field "body" itself
            "field": ".".join(str(p) for p in error["loc"][1:]) or str(error["loc"][0]),
            "in": str(error["loc"][0]),
            "value": None if error["type"] == "missing" else shown(error.get("input")),
            "allowed": str(error["msg"]),
        }
        for error in errors
    ]
    told = "; ".join(f"{e['field']}: {e['allowed']}" for e in found[:5])
    first = {k: found[0][k] for k in ("field", "value", "allowed")} if found else {}
    return _problem(kind, told) | first | {"errors": found}
