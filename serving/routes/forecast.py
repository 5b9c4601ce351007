"""The revenue forecast."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from data.records import RecordError
from data.store import ForecastFilter
from scoring.grouping import GROUPINGS
from serving.desk import HORIZONS
from serving.routes.access import PROBLEMS, DeskOf, as_json, needs
from serving.schemas import ForecastHistoryOut, ForecastOut, RenewalsOut
from serving.supposing import WhatIfIn, WhatIfOut

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
_Measure = Annotated[
    Literal["amount", "recurring", "count"],
    Query(description="what is counted: amounts, recurring amounts a year, or deals won"),
]
_Measures = Annotated[
    Literal["amount", "recurring", "count"] | None, Query(description="forecasts of this measure")
]
_Period = Annotated[
    Literal["week", "month", "quarter", "days"] | None, Query(description="periods of this kind")
]
_Group = Annotated[
    str | None, Query(description='one group, as in the forecasts: "all", an owner_id, a team_id')
]
_Since = Annotated[str | None, Query(alias="from", description="periods that begin from here on")]
_Until = Annotated[str | None, Query(alias="to", description="periods that begin before this")]
_Limit = Annotated[int, Query(ge=1, le=1000, description="how many to show")]
_Offset = Annotated[int, Query(ge=0, description="how many to leave out first")]


@router.get(
    "/v1/forecast/renewals",
    summary="What renewal pipelines will keep",
    response_class=Response,
    responses={
        200: {"model": RenewalsOut, "description": "as asked"},
        409: PROBLEMS[422] | {"description": "no model of that date, or contradicting data"},
    },
)
def get_renewals(
    desk: DeskOf,
    period: Literal["week", "month", "quarter"] = "quarter",
    levels: _Levels = "0.5,0.8,0.95",
    as_of: _AsOf = None,
    horizon: _Horizon = None,
    hindsight: _Hindsight = False,
) -> Response:
    """Value up for renewal, renewed and churned, and retention, by period and pipeline."""
    answer = desk.renewals(
        period, levels=_parsed(levels), as_of=as_of, horizon=horizon, hindsight=hindsight
    )
    return as_json(answer)


@router.get(
    "/v1/forecast/history",
    summary="Forecasts as they were given out, and what happened",
    response_class=Response,
    responses={
        200: {"model": ForecastHistoryOut, "description": "as asked"},
        409: PROBLEMS[422] | {"description": "contradicting data"},
    },
)
def get_history(
    desk: DeskOf,
    period: _Period = None,
    by: _By = None,
    group: _Group = None,
    measure: _Measures = None,
    since: _Since = None,
    until: _Until = None,
    limit: _Limit = 100,
    offset: _Offset = 0,
) -> Response:
    """Newest first: every number as it was, its error where the period is over, and the commits.

    The summary, and the value that commits added, are of all that pass the filters (of more than
    10,000 the newest), not of the page alone.
    """
    asked = ForecastFilter(
        period=period,
        measure=measure,
        by=by,
        group=group,
        order="newest",
        limit=limit,
        offset=offset,
    )
    return as_json(desk.forecast_history(asked, first=since, last=until))


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
    measure: _Measure = "amount",
) -> Response:
    """Won to date, from open deals, and from deals not yet in the pipeline: as a distribution."""
    answer = desk.forecast(
        period,
        by=by,
        levels=_parsed(levels),
        as_of=as_of,
        horizon=horizon,
        hindsight=hindsight,
        measure=measure,
    )
    return as_json(answer)


@router.post(
    "/v1/forecast/what-if",
    summary="The forecast if deals, odds or new business were others",
    response_class=Response,
    responses={
        200: {"model": WhatIfOut, "description": "as supposed, beside as it is"},
        409: PROBLEMS[422] | {"description": "contradicting data"},
    },
)
def what_if(desk: DeskOf, body: WhatIfIn) -> Response:
    """Both answers draw the same luck, so that the difference is what was supposed."""
    return as_json(desk.what_if(body))


def _parsed(levels: str) -> list[float]:
    try:
        found = sorted({float(part) for part in levels.split(",")})
    except ValueError:
        found = []
    if not found or len(found) > _MOST_LEVELS or not all(0.0 < f < 1.0 for f in found):
        allowed = f"up to {_MOST_LEVELS} numbers above 0 and below 1, like 0.5,0.8,0.95"
        raise RecordError("levels", levels, allowed)
    return found
