"""Scores: of records in the call, of stored records, and as they were issued."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from data.history import Side
from data.records import ENTITIES
from serving import schemas
from serving.answers import time_text
from serving.desk import Scored
from serving.errors import problem_of
from serving.routes.access import PROBLEMS, DeskOf, as_json, needs
from serving.writes import Rejected

__all__ = ["router"]

router = APIRouter(tags=["scores"], responses=PROBLEMS, dependencies=[needs("score")])

_OwnerFilter = Annotated[str | None, Query(description="only those of this owner")]
_GradeFilter = Annotated[Literal["A", "B", "C", "D"] | None, Query(description="only this grade")]
_Limit = Annotated[int, Query(ge=1, le=1000, description="how many to show")]
_Offset = Annotated[int, Query(ge=0, description="how many to leave out first")]
_Explain = Annotated[bool, Query(description="whether to give reasons")]


def _add_routes(kind: Side, plural: str, answers: dict[str, type[BaseModel]]) -> None:
    """The four calls about leads, or deals."""
    body_type = schemas.score_request(ENTITIES[kind])

    def score_records(desk: DeskOf, body: Any) -> Response:
        found = desk.score_records(
            kind,
            body.records,
            as_of=body.as_of,
            explain=body.explain,
            context=body.context,
            hindsight=body.hindsight,
        )
        return as_json(_results(kind, found))

    score_records.__annotations__["body"] = body_type

    def score_stored(desk: DeskOf, record_id: str, explain: _Explain = True) -> Response:
        return as_json(desk.score_stored(kind, record_id, explain=explain))

    def scores_issued(desk: DeskOf, record_id: str, limit: _Limit = 100) -> Response:
        return as_json(desk.scores_issued(kind, record_id, limit))

    def list_scored(
        desk: DeskOf,
        owner_id: _OwnerFilter = None,
        grade: _GradeFilter = None,
        limit: _Limit = 100,
        offset: _Offset = 0,
        explain: _Explain = False,
    ) -> Response:
        found = desk.list_scored(
            kind, owner_id=owner_id, grade=grade, limit=limit, offset=offset, explain=explain
        )
        return as_json(
            {
                "as_of": time_text(found.as_of),
                "total": found.total,
                "limit": limit,
                "offset": offset,
                "items": found.items,
            }
        )

    path = f"/v1/{plural}"
    for endpoint, method, where, answer, summary in (
        (score_records, "POST", f"{path}/score", "scores", f"Score {plural} given in the call"),
        (score_stored, "GET", path + "/{record_id:path}/score", "one", f"Score a stored {kind}"),
        (
            scores_issued,
            "GET",
            path + "/{record_id:path}/scores",
            "issued",
            f"Scores of a {kind} as they were given out",
        ),
        (list_scored, "GET", path, "list", f"Stored open {plural}, the most promising first"),
    ):
        _add(endpoint, method, where, answers[answer], f"{endpoint.__name__}_{plural}", summary)


def _add(
    endpoint: Callable[..., Response],
    method: str,
    path: str,
    answer: type[BaseModel],
    name: str,
    summary: str,
) -> None:
    missing = PROBLEMS[422] | {"description": "there is no such record"}
    router.add_api_route(
        path,
        endpoint,
        methods=[method],
        operation_id=name,
        summary=summary,
        response_class=Response,
        responses={
            200: {"model": answer, "description": "as asked"},
            **({404: missing, 410: missing} if "record_id" in path else {}),
        },
    )


def _results(kind: Side, found: Scored) -> dict[str, Any]:
    results = [
        {"index": r.index, f"{kind}_id": r.id, "problem": problem_of(r.error)}
        if isinstance(r, Rejected)
        else r
        for r in found.results
    ]
    return {
        "as_of": time_text(found.as_of),
        "hindsight": found.hindsight,
        "failed": sum(isinstance(r, Rejected) for r in found.results),
        "results": results,
    }


_add_routes(
    "lead",
    "leads",
    {
        "scores": schemas.LeadScores,
        "one": schemas.LeadScoreOut,
        "issued": schemas.LeadScoresIssued,
        "list": schemas.LeadListing,
    },
)
_add_routes(
    "deal",
    "deals",
    {
        "scores": schemas.DealScores,
        "one": schemas.DealScoreOut,
        "issued": schemas.DealScoresIssued,
        "list": schemas.DealListing,
    },
)
