"""The registered models: versions, promotion, rollback."""

from __future__ import annotations

import math
from typing import Any

from fastapi import APIRouter, Response

from data.history import Side
from models.registry import Version
from serving.live import KINDS, Live, kind_of
from serving.routes.access import PROBLEMS, LiveOf, as_json, needs
from serving.schemas import ModelOut, ModelsOut, PromotedOut, PromoteRequest

__all__ = ["router"]

router = APIRouter(
    tags=["models"],
    responses={**PROBLEMS, 404: PROBLEMS[422] | {"description": "no such model or version"}},
    dependencies=[needs("models")],
)
_REFUSED: dict[int | str, dict[str, Any]] = {
    409: PROBLEMS[422] | {"description": "the version cannot be served"}
}


@router.get(
    "/v1/models",
    summary="Both models with their versions",
    response_class=Response,
    responses={200: {"model": ModelsOut, "description": "as asked"}},
)
def list_models(live: LiveOf) -> Response:
    """Versions are listed newest first, with their evaluation and aliases."""
    return as_json({"models": [_model(live, kind) for kind in KINDS]})


@router.get(
    "/v1/models/{name}",
    summary="One model with its versions",
    response_class=Response,
    responses={200: {"model": ModelOut, "description": "as asked"}},
)
def get_model(live: LiveOf, name: str) -> Response:
    """`dealcast-lead` or `dealcast-deal`."""
    return as_json(_model(live, kind_of(name)))


@router.post(
    "/v1/models/{name}/promote",
    summary="Make a version the champion",
    response_class=Response,
    responses={200: {"model": PromotedOut, "description": "in use now"}, **_REFUSED},
)
def promote(live: LiveOf, name: str, body: PromoteRequest) -> Response:
    """The version is loaded and tried first; one that fails changes nothing."""
    return as_json({"name": name, "champion": _version(live.promote(kind_of(name), body.version))})


@router.post(
    "/v1/models/{name}/rollback",
    summary="Make the previous champion the champion again",
    response_class=Response,
    responses={200: {"model": PromotedOut, "description": "in use now"}, **_REFUSED},
)
def rollback(live: LiveOf, name: str) -> Response:
    """A second call swaps them back."""
    return as_json({"name": name, "champion": _version(live.rollback(kind_of(name)))})


def _model(live: Live, kind: Side) -> dict[str, Any]:
    state = live.in_use()[kind]
    return {
        "name": f"dealcast-{kind}",
        "in_use": state.version,
        "problem": state.problem,
        "versions": [_version(v) for v in live.catalogue.versions(kind)],
    }


def _version(version: Version) -> dict[str, Any]:
    metrics = {k: v if math.isfinite(v) else None for k, v in version.metrics.items()}
    return {
        "version": version.version,
        "aliases": list(version.aliases),
        "created_at": version.created_at,
        "run_id": version.run_id,
        "trained_through": version.trained_through,
        "metrics": metrics,
        "tags": dict(version.tags),
    }
