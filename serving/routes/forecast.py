"""The revenue forecast."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from data.records import RecordError
from scoring.forecast import GROUPINGS
from serving.desk import HORIZONS
from serving.routes.access import PROBLEMS, DeskOf, as_json, needs
from serving.schemas import ForecastOut

__all__ = ["router"]

router = APIRouter(tags=["forecast"], responses=PROBLEMS, dependencies=[needs("forecast")])

_USUAL = ", ".join(f"{usual} {period}s" for period, (usual, _) in HORIZONS.items())
_MOST_LEVELS = 20

_By = Annotated[str | None, Query(description=f"one of {', '.join(GROUPINGS)}")]
_Levels = Annotated[str, Query(description="central ranges, between 0 and 1, with commas")]
_AsOf = Annotated[str | None, Query(description="a past moment, answered by a model of that time")]
_Horizon = Annotated[
    int | None,
    Query(description=f"how many periods, the one in progress included; usually {_USUAL}"),
]
_Hindsight = Annotated[bool, Query(description="let a model answer that knows of later times")]


@router.get(
    "/v1/forecast",
    summary="Won revenue of the periods ahead",
    response_class=Response,
    responses={
        200: {"model": ForecastOut, "description": "as asked"},
        409: PROBLEMS[422] | {"description": "no model of that date, or contradicting data"},
    },
)
def get_forecast(
    desk: DeskOf,
    period: Literal["week", "month", "quarter"] = "quarter",
    by: _By = None,
    levels: _Levels = "0.5,0.8,0.95",
    as_of: _AsOf = None,
    horizon: _Horizon = None,
    hindsight: _Hindsight = False,
) -> Response:
    """Won to date, from open deals, and from deals not yet in the pipeline: as a distribution."""
    answer = desk.forecast(
        period,
        by=by,
        levels=_parsed(levels),
        as_of=as_of,
        horizon=horizon,
        hindsight=hindsight,
    )
    return as_json(answer)


def _parsed(levels: str) -> list[float]:
    try:
        found = sorted({float(part) for part in levels.split(",")})
    except ValueError:
        found = []
    if not found or len(found) > _MOST_LEVELS or not all(0.0 < f < 1.0 for f in found):
        allowed = f"up to {_MOST_LEVELS} numbers above 0 and below 1, like 0.5,0.8,0.95"
        raise RecordError("levels", levels, allowed)
    return found
