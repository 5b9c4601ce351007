"""Answers about the pipeline, as OpenAPI describes them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from scoring.changes import KINDS

__all__ = ["ChangesOut", "MetricsOut", "StagesOut"]


class _Told(BaseModel):
    # Tests hold every answer against these, so that nothing is undocumented.
    model_config = ConfigDict(extra="forbid")


class _Span(_Told):
    period: str = Field(examples=["2026-Q1"])
    start: str = Field(examples=["2026-01-01"])
    end: str = Field(description="first day after the period", examples=["2026-04-01"])


class _Stock(_Told):
    deals: int
    without_amount: int = Field(description="how many of them count as nothing")
    amount: float


class _Change(_Told):
    kind: str = Field(description=f"one of {', '.join(KINDS)}", examples=["pushed_out"])
    meaning: str
    deals: int = Field(description="each counted once")
    effect: float = Field(description="what it did to the pipeline; effects add up")
    amount: float = Field(description="what moved, also where the effect is 0")
    mean_days: float | None = Field(None, description="by which expected close dates moved")


class _Bridge(_Told):
    group: str
    before: _Stock
    after: _Stock
    difference: float = Field(description="after - before, and the sum of all effects")
    changes: list[_Change]


class _Moved(_Told):
    deal_id: str
    kind: str
    group: str
    at: str
    effect: float
    amount: float
    days: float | None = None


_CHANGES_EXAMPLE: dict[str, Any] = {
    "from": "2026-02-09T00:00:00Z",
    "to": "2026-02-16T00:00:00Z",
    "currency": "EUR",
    "groups": [
        {
            "group": "all",
            "before": {"deals": 3, "without_amount": 0, "amount": 60000.0},
            "after": {"deals": 3, "without_amount": 0, "amount": 75000.0},
            "difference": 15000.0,
            "changes": [
                {
                    "kind": "created",
                    "meaning": KINDS["created"],
                    "deals": 1,
                    "effect": 35000.0,
                    "amount": 35000.0,
                },
                {
                    "kind": "won",
                    "meaning": KINDS["won"],
                    "deals": 1,
                    "effect": -20000.0,
                    "amount": 20000.0,
                },
            ],
        }
    ],
    "deals": [
        {
            "deal_id": "D-42",
            "kind": "created",
            "group": "all",
            "at": "2026-02-11T09:30:00Z",
            "effect": 35000.0,
            "amount": 35000.0,
        }
    ],
    "deals_in_all": 2,
    "without_close_date": 0,
}


class ChangesOut(_Told):
    """What moved in the open pipeline: before + all effects = after, to the cent."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_CHANGES_EXAMPLE]})

    from_: str = Field(alias="from")
    to: str
    by: str | None = None
    period: _Span | None = Field(None, description="only what is expected to close in it")
    currency: str
    groups: list[_Bridge] = Field(description="the whole first, called all")
    deals: list[_Moved] = Field(description="the largest first")
    deals_in_all: int
    without_close_date: int = Field(description="open deals at the end that are in no period")


class _Answerer(_Told):
    name: str = Field(examples=["dealcast-deal"])
    version: str
    trained_at: str
    trained_through: str


class _Part(_Told):
    name: str
    value: float | None
    n: int


class _Kpi(_Told):
    name: str = Field(examples=["win_rate"])
    window: str = Field(description="a period to date, 365 days, or now", examples=["2026-Q1"])
    value: float | None = Field(description="null where the records cannot tell", examples=[0.38])
    unit: str = Field(description="share, days, hours, money, money a day, ratio or count")
    n: int = Field(description="the records behind it")
    reason: str = Field(description="why there is no value, or what to know about it")
    parts: list[_Part]


class _PastPeriod(_Told):
    period: str
    then: float = Field(description="won at the same share of its length, as was known then")
    final: float


class _Pace(_Told):
    elapsed: float = Field(description="share of the period that has passed")
    won: float
    usual_then: float | None = Field(description="mean won at this point of past periods")
    share_then: float | None = Field(description="median share of the final that was won by then")
    share_then_lowest: float | None
    share_then_highest: float | None
    implied: float | None = Field(description="won / share_then")
    past: list[_PastPeriod] = Field(description="oldest first")
    reason: str


class _Flagged(_Told):
    deal_id: str
    owner_id: str | None
    stage_id: str | None
    amount: float
    flags: list[str] = Field(examples=[["slipped", "at_risk"]])
    why: str


class MetricsOut(_Told):
    """The KPIs as of a moment, the pace of the period, and the deals that want a look."""

    as_of: str
    currency: str
    model: _Answerer | None = Field(description="null where none may answer for the moment")
    period: _Span
    kpis: list[_Kpi]
    pace: _Pace
    attention: list[_Flagged] = Field(description="slipped, stalled or at risk; largest first")
    attention_in_all: int


class _Stage(_Told):
    pipeline_id: str
    stage_id: str
    name: str
    win_probability: float | None = Field(description="learnt; null without a model")
    low: float | None = Field(description="lower end of its 80 % range")
    high: float | None
    closed_deals: int | None = Field(description="behind the win probability")
    conversion: float | None = Field(description="share that goes on to a later stage, or is won")
    decided_deals: int = Field(description="behind the conversion")
    median_days: float | None
    stays: int = Field(description="stays that ended, behind the days")
    open_deals: int
    open_amount: float


class StagesOut(_Told):
    """Pipeline by pipeline, in the order of the stages."""

    as_of: str
    currency: str
    model: _Answerer | None
    stages: list[_Stage]
