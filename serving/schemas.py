"""The wire: bodies and answers as OpenAPI describes them.

Records are described from their declarations in `data.records`, which also check them; pydantic
checks only what is around them.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, create_model

from data.records import ENTITIES, Entity, Kind
from serving.intake import NESTED

__all__ = [
    "AnyVersion",
    "DealListing",
    "DealScoreOut",
    "DealScores",
    "DealScoresIssued",
    "ForecastHistoryOut",
    "ForecastOut",
    "ForecastPeriodOut",
    "LeadListing",
    "LeadScoreOut",
    "LeadScores",
    "LeadScoresIssued",
    "ModelOfAnswer",
    "ModelOut",
    "ModelsOut",
    "Problem",
    "PromoteRequest",
    "PromotedOut",
    "Readiness",
    "RenewalsOut",
    "WriteOut",
    "record_schema",
    "score_request",
    "write_request",
]

_JSON: dict[Kind, dict[str, Any]] = {
    "id": {"type": ["string", "integer", "null"]},
    "text": {"type": ["string", "null"]},
    "number": {"type": ["number", "null"]},
    "boolean": {"type": ["boolean", "null"]},
    "time": {"type": ["string", "null"], "format": "date-time"},
    "date": {"type": ["string", "null"], "format": "date"},
    "choice": {"type": ["string", "null"]},
    "json": {"type": ["object", "null"]},
}
# Set by the service itself, or only told by file imports.
_INTERNAL = {"ingested_at", "recorded_assumed"}

_EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "lead": [
        {
            "lead_id": "L-7",
            "created_at": "2026-02-09T08:30:00Z",
            "lead_source": "website",
            "industry": "manufacturing",
            "country": "DE",
            "activities": [{"type": "call", "occurred_at": "2026-02-10T09:00:00Z"}],
        }
    ],
    "deal": [
        {
            "deal_id": "D-42",
            "created_at": "2026-01-12T10:00:00Z",
            "pipeline_id": "new-business",
            "stage_id": "proposal",
            "amount": 18000,
            "currency": "EUR",
            "expected_close_date": "2026-03-31",
            "stage_changes": [
                {
                    "changed_at": "2026-02-02T15:00:00Z",
                    "from_stage_id": "needs-analysis",
                    "to_stage_id": "proposal",
                }
            ],
        }
    ],
    "stage": [
        {
            "pipeline_id": "new-business",
            "stage_id": "proposal",
            "name": "Proposal",
            "sort_order": 3,
            "kind": "open",
        }
    ],
    "target": [
        {
            "scope": "all",
            "scope_id": "all",
            "period_start": "2026-01-01",
            "period_end": "2026-04-01",
            "amount": 500000,
            "currency": "EUR",
        }
    ],
}


def record_schema(entity: Entity, *, nested: bool = False) -> dict[str, Any]:
    """JSON schema of a record; with `nested`, of one that carries its own history to be scored."""
    properties = {}
    for declared in entity.columns:
        if declared.name in _INTERNAL:
            continue
        unit = f" ({declared.unit})" if declared.unit else ""
        properties[declared.name] = {
            **_JSON[declared.kind],
            **({"enum": [*declared.choices, None]} if declared.choices else {}),
            "description": declared.meaning + unit,
        }
    required = [*entity.key, *entity.required]
    if nested:
        properties |= _nested_properties(entity)
    return {
        "type": "object",
        "title": entity.name,
        "properties": properties,
        "required": required,
        "additionalProperties": {
            "description": "an attribute of your own: text, number, boolean or a list of texts"
        },
    }


def _nested_properties(entity: Entity) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, inner in NESTED.items():
        if inner == "contact_role" and entity.name != "deal":
            continue
        link = {"entity", "entity_id", f"{entity.name}_id", "activity_id"}
        schema = record_schema(ENTITIES[inner])
        schema["required"] = [r for r in schema["required"] if r not in link]
        many = {"type": ["array", "null"], "items": schema}
        found[name] = {"oneOf": [schema, many]} if name == "qualification" else many
    found["stage_changes"]["description"] = (
        "all moves so far; an empty list says that it never moved, none at all that the moves "
        "are not known"
    )
    found["context"] = {
        "type": ["object", "null"],
        "description": "values of context features for this record alone",
    }
    return found


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


def score_request(entity: Entity) -> type[BaseModel]:
    """The body of a call for scores of leads or deals."""
    record = Annotated[
        dict[str, Any], WithJsonSchema(record_schema(entity, nested=True)),
    ]  # fmt: skip
    return create_model(
        f"{entity.name.title()}ScoreRequest",
        __base__=_Request,
        records=(
            list[record],
            Field(description="the records to score", examples=[_EXAMPLES[entity.name]]),
        ),
        as_of=(
            str | None,
            Field(
                None,
                description="the moment to score at: an ISO 8601 time, or a date, which is 00:00 "
                "in the organisation's time zone; now when missing",
            ),
        ),
        explain=(bool, Field(True, description="whether to give reasons")),
        context=(
            dict[str, Any] | None,
            Field(
                None,
                description="values of context features, by name, for all records; what is not "
                "given is missing",
                examples=[{"owner_win_rate_90d": 0.42}],
            ),
        ),
        hindsight=(
            bool,
            Field(False, description="let a model answer that knows of later times than as_of"),
        ),
    )


def write_request(entity: Entity) -> type[BaseModel]:
    """The body of a bulk write."""
    record = Annotated[dict[str, Any], WithJsonSchema(record_schema(entity))]
    example = [
        {k: v for k, v in row.items() if k not in NESTED} for row in _EXAMPLES.get(entity.name, [])
    ]
    name = "".join(part.title() for part in entity.name.split("_"))
    return create_model(
        f"{name}WriteRequest",
        __base__=_Request,
        records=(
            list[record],
            Field(description="the records to store", examples=[example] if example else None),
        ),
    )


class PromoteRequest(_Request):
    """Which version to promote."""

    version: str = Field(description="a version's number, or an alias", examples=["3"])


class _Answer(BaseModel):
    # Tests hold every answer against these, so that nothing is undocumented.
    model_config = ConfigDict(extra="forbid")


class _Problem(BaseModel):
    type: str = Field(examples=["urn:dealcast:problem:invalid-value"])
    title: str
    status: int
    detail: str


class Problem(_Problem):
    """Problem details (RFC 9457); media type application/problem+json."""

    model_config = ConfigDict(extra="allow")

    field: str | None = Field(None, description="the field it is about")
    value: Any = Field(None, description="the value seen")
    allowed: str | None = Field(None, description="what the field accepts")


class ModelOfAnswer(_Answer):
    """The model behind an answer."""

    name: str = Field(examples=["dealcast-deal"])
    version: str
    trained_at: str
    trained_through: str = Field(description="the last moment it knew of")


class _Reason(_Answer):
    feature: str
    text: str
    contribution: float = Field(description="on the log-odds; base and contributions add up")


class _Score(_Answer):
    as_of: str
    score: int = Field(ge=0, le=100, description="1-99; 0 and 100 for closed records only")
    grade: str = Field(examples=["B"])
    percentile: float | None = Field(description="rank among open records, 0-100")
    reasons: list[_Reason]
    base: float | None = Field(description="log-odds that the reasons start from")
    evidence: dict[str, Any] = Field(description="method, examples, and more on what it rests on")
    warnings: list[str]
    model: ModelOfAnswer
    hindsight: bool | None = Field(None, description="true where the model knew of later times")


class LeadScoreOut(_Score):
    """The score of a lead."""

    lead_id: str
    probability: float = Field(description="of being qualified within the model's horizon")
    probability_won: float = Field(description="of being won in the end")


class _CurvePoint(_Answer):
    date: str
    won: float
    lost: float


class _DateRange(_Answer):
    p10: str
    p50: str
    p90: str


class _AmountRange(_Answer):
    p10: float
    p50: float
    p90: float


class DealScoreOut(_Score):
    """The score of a deal; money in the base currency."""

    deal_id: str
    probability_won: float
    probability_lost: float
    curve: list[_CurvePoint] = Field(description="chance to have been won, lost by each date")
    close_date: _DateRange | None = Field(description="of winning, given that it is won")
    probability_slip: float | None
    amount: _AmountRange | None
    expected_revenue: float | None
    stage_win_probability: float | None


class _RecordProblem(_Answer):
    index: int
    lead_id: str | None = None
    deal_id: str | None = None
    problem: Problem


class _Scores(_Answer):
    as_of: str
    hindsight: bool
    failed: int = Field(description="how many records got a problem instead of a score")


class LeadScores(_Scores):
    """Scores in the order of the records."""

    results: list[LeadScoreOut | _RecordProblem]


class DealScores(_Scores):
    """Scores in the order of the records."""

    results: list[DealScoreOut | _RecordProblem]


class _Page(_Answer):
    as_of: str
    total: int = Field(description="how many records pass the filters")
    limit: int
    offset: int


class _ListedLead(LeadScoreOut):
    owner_id: str | None


class _ListedDeal(DealScoreOut):
    owner_id: str | None


class LeadListing(_Page):
    """Open leads, the most promising first."""

    items: list[_ListedLead]


class DealListing(_Page):
    """Open deals, the most promising first."""

    items: list[_ListedDeal]


class _IssuedLead(LeadScoreOut):
    issued_at: str


class _IssuedDeal(DealScoreOut):
    issued_at: str


class LeadScoresIssued(_Answer):
    """Scores of a lead as they were given out, oldest first."""

    lead_id: str
    scores: list[_IssuedLead]


class _DealOutcome(_Answer):
    outcome: str = Field(examples=["won"])
    closed_at: str
    amount: float = Field(description="won, in the base currency")


class _ComparedError(_Answer):
    measure: str = Field(description="absolute, brier or log_loss")
    human: float
    model: float
    added: float = Field(description="model - human: above 0 the person was better")


class _Compared(_Answer):
    """A person's number beside the model's last one before it, at most 7 days old."""

    kind: str = Field(description="forecast, probability, amount or close_date")
    author_id: str
    at: str
    reason: str | None
    human: float | str
    model: float | str
    actual: float | str | None = Field(description="null while it is not known")
    model_issued_at: str
    errors: list[_ComparedError]


class DealScoresIssued(_Answer):
    """Scores of a deal as they were given out, oldest first, and how it ended."""

    deal_id: str
    scores: list[_IssuedDeal]
    outcome: _DealOutcome | None = Field(description="null while it is open, or not stored")
    overrides: list[_Compared]


class _RejectedRecord(_Answer):
    index: int
    problem: Problem


class WriteOut(_Answer):
    """What became of the records; the numbers and `rejected` add up to all of them."""

    inserted: int
    updated: int
    unchanged: int
    stale: int = Field(description="not applied: the store has seen a later state")
    rejected: list[_RejectedRecord]


class _Coverage(_Answer):
    level: float
    measured: float | None = Field(description="share of past periods inside the range")
    n: int


class _Driver(_Answer):
    deal_id: str
    share_of_variance: float


class _Components(_Answer):
    won: float
    open: float
    new: float


class ForecastPeriodOut(_Answer):
    """The won revenue of one period and group."""

    period: str = Field(examples=["2026-Q1"])
    start: str
    end: str = Field(description="first day after the period")
    group: str
    mean: float
    quantiles: dict[str, float] = Field(examples=[{"0.1": 81000.0, "0.5": 102000.0}])
    components: _Components
    target: float | None
    probability_of_target: float | None
    coverage: list[_Coverage]
    drivers: list[_Driver]


class ForecastOut(_Answer):
    """The won revenue of periods ahead: the whole, and each group."""

    as_of: str
    period: str
    by: str | None
    measure: str = Field(description="amount, recurring (amount a year) or count (deals won)")
    horizon: int
    levels: list[float]
    hindsight: bool
    currency: str
    periods: list[ForecastPeriodOut]
    warnings: list[str]
    model: ModelOfAnswer


class _Renewed(_Answer):
    mean: float
    quantiles: dict[str, float]


class _RenewalOut(_Answer):
    period: str
    start: str
    end: str = Field(description="first day after the period")
    pipeline: str
    due: int = Field(description="open renewals due in the period; overdue ones in the first")
    up_for_renewal: float = Field(description="their value, and that of what closed in the period")
    renewed_to_date: float
    churned_to_date: float
    expected_renewed: float = Field(description="of what is up, whenever it closes")
    expected_churn: float
    undecided: float = Field(description="still open beyond the model's reach")
    gross_retention: float | None = Field(description="kept, at its value before, over what was up")
    net_retention: float | None = Field(description="kept, at its value after, over what was up")
    renewed: _Renewed = Field(description="closed as renewed inside the period")


class RenewalsOut(_Answer):
    """What renewal pipelines will keep."""

    as_of: str
    period: str
    horizon: int
    hindsight: bool
    currency: str
    items: list[_RenewalOut]
    warnings: list[str]
    model: ModelOfAnswer


class _HeldOut(_Answer):
    level: float
    held: bool


class _OutcomeOut(_Answer):
    actual: float
    error: float = Field(description="mean - actual")
    crps: float = Field(description="read off the quantiles, which run straight on normal scores")
    held: list[_HeldOut] = Field(description="whether each range held the actual")
    target_reached: bool | None


class _IssuedCellOut(_Answer):
    issued_at: str
    as_of: str
    kind: str = Field(description="week, month, quarter or days")
    period: str
    start: str
    end: str = Field(description="first day after the period")
    by: str | None
    group: str
    measure: str
    currency: str | None
    mean: float
    quantiles: dict[str, float]
    components: dict[str, float]
    target: float | None
    probability_of_target: float | None
    hindsight: bool
    model: dict[str, str]
    draws: int | None
    seed: int | None
    inputs: str | None = Field(description="fingerprint of the records it was made from")
    outcome: _OutcomeOut | None = Field(description="null until the period is over and known")
    commits: list[_Compared] = Field(description="people's numbers given while this was the newest")


class _MeasuredCoverage(_Answer):
    level: float
    measured: float
    low: float = Field(description="95 % interval of the measured share")
    high: float
    n: int


class _TargetsOut(_Answer):
    brier: float
    mean_probability: float
    reached: float
    n: int


class _SummaryOut(_Answer):
    cells: int
    n: int = Field(description="periods and groups that are over, said before they were")
    periods: int = Field(description="different periods among them")
    pending: int
    excluded: int = Field(description="said after the period, or with hindsight")
    bias: float | None = Field(description="as a share of the mean actual, like mae and crps")
    mae: float | None
    crps: float | None
    coverage: list[_MeasuredCoverage]
    target: _TargetsOut | None


class _ValueAdded(_Answer):
    kind: str
    measure: str
    n: int
    subjects: int = Field(description="different periods, or deals")
    pending: int
    human_error: float | None
    model_error: float | None
    added: float | None = Field(description="model - human: above 0 people were better")
    low: float | None = Field(description="95 % interval, by a bootstrap over the subjects")
    high: float | None


class ForecastHistoryOut(_Answer):
    """Forecasts as they were given out, newest first, and what happened."""

    total: int
    limit: int
    offset: int
    items: list[_IssuedCellOut]
    summary: _SummaryOut
    value_added: list[_ValueAdded]
    commits_without_forecast: int


class AnyVersion(_Answer):
    """One version of a model."""

    version: str
    aliases: list[str]
    created_at: str
    run_id: str
    trained_through: str
    metrics: dict[str, float | None]
    tags: dict[str, str]


class ModelOut(_Answer):
    """A registered model, its newest version first."""

    name: str
    in_use: str | None = Field(description="the version that answers now")
    problem: str | None = Field(description="why the champion is not in use, if it is not")
    versions: list[AnyVersion]


class ModelsOut(_Answer):
    """All registered models."""

    models: list[ModelOut]


class PromotedOut(_Answer):
    """The version that is champion now, and in use."""

    name: str
    champion: AnyVersion


class _Check(_Answer):
    ready: bool
    version: str | None = None
    problem: str | None = None


class Readiness(_Answer):
    """Whether the service can answer: the store, and at least one model."""

    ready: bool
    store: _Check
    models: dict[str, _Check]
    issued: _Check = Field(description="whether all numbers given out are kept")
