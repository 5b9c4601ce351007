"""The pipeline as it stands and as it moved: changes, KPIs, the table of stages."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from scoring.grouping import GROUPINGS
from serving.pipeline_schemas import ChangesOut, MetricsOut, StagesOut
from serving.routes.access import PROBLEMS, DeskOf, as_json, needs

__all__ = ["router"]

router = APIRouter(
    tags=["pipeline"],
    responses={**PROBLEMS, 409: PROBLEMS[422] | {"description": "contradicting data"}},
    dependencies=[needs("forecast")],
)

_From = Annotated[
    str | None,
    Query(alias="from", description="a time or date; seven days before `to` when missing",
          examples=["2026-02-09"]),
]  # fmt: skip
_To = Annotated[str | None, Query(description="a time or date, up to now; now when missing")]
_By = Annotated[str | None, Query(description=f"one of {', '.join(GROUPINGS)}")]
_Within = Annotated[
    str | None,
    Query(
        description="only what is expected to close in it: a name like 2026-Q1, 2026-03 or "
        "2026-W09, or week, month or quarter for the one that holds `to`",
        examples=["2026-Q1"],
    ),
]
_Period = Annotated[
    str,
    Query(
        description="week, month or quarter for the one that holds the moment, or a name like "
        "2026-Q1, 2026-03 or 2026-W09",
        examples=["quarter"],
    ),
]
_AsOf = Annotated[str | None, Query(description="a time or date, up to now; now when missing")]
_Most = Annotated[int, Query(ge=0, le=1000, description="how many deals to list")]


@router.get(
    "/v1/pipeline/changes",
    summary="What moved in the open pipeline",
    response_class=Response,
    responses={200: {"model": ChangesOut, "description": "as asked"}},
)
def get_changes(
    desk: DeskOf,
    start: _From = None,
    to: _To = None,
    by: _By = None,
    period: _Within = None,
    limit: _Most = 20,
) -> Response:
    """From the open pipeline at one moment to that at another: it adds up to the cent."""
    return as_json(desk.changes(start, to, by=by, period=period, most=limit))


@router.get(
    "/v1/pipeline/metrics",
    summary="The sales KPIs, the pace, and deals that want a look",
    response_class=Response,
    responses={200: {"model": MetricsOut, "description": "as asked"}},
)
def get_metrics(
    desk: DeskOf, as_of: _AsOf = None, period: _Period = "quarter", limit: _Most = 20
) -> Response:
    """As known at the moment. What the records cannot tell is null, and says why."""
    return as_json(desk.metrics(as_of=as_of, period=period, most=limit))


@router.get(
    "/v1/pipeline/stages",
    summary="The table of stages",
    response_class=Response,
    responses={200: {"model": StagesOut, "description": "as asked"}},
)
def get_stages(desk: DeskOf, as_of: _AsOf = None) -> Response:
    """By pipeline and stage: learnt win probability, conversion, days, and what is in it now."""
    return as_json(desk.stages(as_of=as_of))
