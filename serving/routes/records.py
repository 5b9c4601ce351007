"""Bulk writes of canonical records, one path for each entity."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from data.records import ENTITIES, Entity
from serving.errors import problem_of
from serving.routes.access import PROBLEMS, DeskOf, as_json, needs
from serving.schemas import WriteOut, write_request
from serving.writes import Stored

__all__ = ["router"]

router = APIRouter(tags=["records"], responses=PROBLEMS, dependencies=[needs("records")])

_Partial = Annotated[bool, Query(description="store the good records even if others are rejected")]


def _add_route(entity: Entity) -> None:
    def write(desk: DeskOf, body: Any, partial: _Partial = False) -> Response:
        return as_json(_told(desk.write(entity, body.records, partial=partial)))

    write.__annotations__["body"] = write_request(entity)
    append = "Append" if entity.event else "Insert or update"
    router.add_api_route(
        f"/v1/{entity.path}",
        write,
        methods=["POST"],
        operation_id=f"write_{entity.path.replace('-', '_')}",
        summary=f"{append} {entity.path.replace('-', ' ')}",
        description=(
            f"Identified by {', '.join(entity.key)}. "
            + (
                "An event that is stored already changes nothing; one stored with other content "
                "is a conflict."
                if entity.event
                else "Values that are missing, or null, leave what is stored."
            )
            + " All records are stored, durably, or none; with `partial=true`, the good ones."
        ),
        response_class=Response,
        responses={
            200: {"model": WriteOut, "description": "stored, durably"},
            409: PROBLEMS[422] | {"description": "an event is stored with other content"},
        },
    )


def _told(stored: Stored) -> dict[str, Any]:
    written = stored.written
    return {
        "inserted": written.inserted,
        "updated": written.updated,
        "unchanged": written.unchanged,
        "stale": written.stale,
        "rejected": [{"index": r.index, "problem": problem_of(r.error)} for r in stored.rejected],
    }


for _entity in ENTITIES.values():
    _add_route(_entity)
