"""`[[log]]` of a mapping file: an event log (case, activity, time) and what its names mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from data.mapping.expression_reader import read_expression
from data.mapping.expressions import Context, Expression, columns_used
from data.mapping.frames import FileSpec
from data.mapping.mapfile import (
    SIDES,
    Attributes,
    Filter,
    Pipeline,
    StageSpec,
    check_stages,
    read_attributes,
    read_fields,
    read_filter,
    read_stage,
    take_file,
)
from data.mapping.sections import MappingError, Section, shorten
from data.records import ENTITIES, Entity

__all__ = ["LogSpec", "Outcome", "read_log"]

LIFECYCLES = ("done", "planned", "started", "ignore")
# What the log itself tells, and therefore no field of the case may.
_TOLD = {
    "deal": (
        "deal_id",
        "created_at",
        "outcome",
        "closed_at",
        "stage_id",
        "loss_reason",
        "pipeline_id",
    ),
    "lead": (
        "lead_id",
        "created_at",
        "outcome",
        "qualified_at",
        "disqualified_at",
        "disqualification_reason",
    ),
}
_OUTCOMES = {"deal": ("won", "lost"), "lead": ("qualified", "disqualified")}


@dataclass(frozen=True)
class Outcome:
    """The names that decide a case: the first of them, with the outcome and its reason."""

    value: str
    names: tuple[str, ...]
    reason: str | None


@dataclass(frozen=True)
class LogSpec:
    """An event log.

    Attributes
    ----------
    activities : dict of str to str
        Activity name -> type of the canonical activity; "*" for all others.
    lifecycles : dict of str to str
        Lifecycle word -> one of done, planned, started, ignore.
    cut : bool
        Whether events after the outcome are left out.
    """

    place: str
    entity: Entity
    file: str
    filter: Filter
    case: Expression
    activity: Expression
    time: Expression
    order: str | None
    lifecycle: str | None
    owner: Expression | None
    automatic: tuple[str, ...]
    pipeline: str
    fields: Mapping[str, Expression]
    attributes: Attributes
    stages: tuple[StageSpec, ...]
    activities: Mapping[str, str]
    lifecycles: Mapping[str, str]
    outcomes: tuple[Outcome, ...]
    ignore: tuple[str, ...]
    cut: bool

    @property
    def as_pipeline(self) -> Pipeline | None:
        """The pipeline that the log's stages make."""
        return Pipeline(self.pipeline, self.stages) if self.stages else None

    @property
    def columns_used(self) -> set[str]:
        """Columns that the log reads, attributes of `rest` not included."""
        expressions = [self.case, self.activity, self.time, self.owner, *self.fields.values()]
        expressions += self.attributes.named.values()
        used = set().union(*(columns_used(e) for e in expressions))
        used |= {c.column for c in (*self.filter.where, *self.filter.unless)}
        return used | {c for c in (self.order, self.lifecycle) if c}


def read_log(section: Section, files: Mapping[str, FileSpec], context: Context) -> LogSpec:
    """Read one `[[log]]`.

    Raises
    ------
    MappingError
        If something is missing, misspelt, or an activity name means two things.
    """
    sides = [s for s in SIDES if s in section]
    if len(sides) != 1:
        raise MappingError(section.place, "needs either [log.deal] or [log.lead] (it may be empty)")
    side = sides[0]
    entity = ENTITIES[side]

    def expression(key: str) -> Expression | None:
        content = section.take(key)
        return None if content is None else read_expression(section.at(key), content, context)

    def needed(key: str) -> Expression:
        found = expression(key)
        if found is None:
            raise section.fail(key, "is missing; it must be a column")
        return found

    owner = expression("owner")
    told = (*_TOLD[side], "owner_id") if owner is not None else _TOLD[side]
    if "automatic" in section and owner is None:
        raise section.fail("automatic", "lists owners who are no person, and there is no owner")
    spec = LogSpec(
        place=section.place,
        entity=entity,
        file=take_file(section, files),
        filter=read_filter(section),
        case=needed("case"),
        activity=needed("activity"),
        time=needed("time"),
        order=section.text("order"),
        lifecycle=section.text("lifecycle"),
        owner=owner,
        automatic=section.texts("automatic"),
        pipeline=section.text("pipeline", "default") or "default",
        fields=read_fields(section, side, entity, context, told),
        attributes=read_attributes(section, "attributes", entity, context),
        stages=_read_stages(section),
        activities=_read_activities(section),
        lifecycles=_read_lifecycles(section),
        outcomes=_read_outcomes(section, side),
        ignore=section.texts("ignore"),
        cut=section.choice("cut", ("outcome", "none"), "outcome") == "outcome",
    )
    section.finish()
    _check_names(spec)
    return spec


def _read_stages(section: Section) -> tuple[StageSpec, ...]:
    value = section.take("stages", [])
    if not isinstance(value, list):
        raise section.fail("stages", f"is {shorten(value)}; write [[log.stages]] for each stage")
    stages = tuple(
        read_stage(f"{section.at('stages')} {i}", v, log=True) for i, v in enumerate(value, 1)
    )
    if stages:
        check_stages(section.at("stages"), stages)
    for i, stage in enumerate(stages, 1):
        if not stage.activities:
            message = f'the stage "{stage.name}" needs activities = ["..."]'
            raise MappingError(f"{section.at('stages')} {i}", message)
    return stages


def _read_activities(section: Section) -> dict[str, str]:
    inner = Section(section.at("activities"), section.take("activities", {}))
    return {name: inner.required_text(name) for name, _ in inner.items()}


def _read_lifecycles(section: Section) -> dict[str, str]:
    inner = Section(section.at("lifecycles"), section.take("lifecycles", {}))
    words = {name: inner.choice(name, LIFECYCLES) or "done" for name, _ in inner.items()}
    if bool(words) != ("lifecycle" in section):
        raise section.fail("lifecycles", "and lifecycle (the column) belong together")
    return words


def _read_outcomes(section: Section, side: str) -> tuple[Outcome, ...]:
    inner = Section(section.at("outcome"), section.take("outcome", {}))
    outcomes = []
    for value in _OUTCOMES[side]:
        for one in inner.array(value, value):
            names = one.texts("first_of")
            if not names:
                raise one.fail("first_of", 'is missing; list activities, like ["A_APPROVED"]')
            outcomes.append(Outcome(value, names, one.text("reason")))
            one.finish()
            if value in ("won", "qualified") and outcomes[-1].reason:
                raise one.fail("reason", f"says why a {side} was lost, and this one is {value}")
    inner.finish()
    return tuple(outcomes)


def _check_names(spec: LogSpec) -> None:
    """An activity name means one thing."""
    meanings: dict[str, str] = {}
    listed = [(n, f'the stage "{s.name}"') for s in spec.stages for n in s.activities]
    listed += [(n, f"the outcome {o.value}") for o in spec.outcomes for n in o.names]
    listed += [(n, "an activity") for n in spec.activities if n != "*"]
    listed += [(n, "ignore") for n in spec.ignore]
    if not listed and "*" not in spec.activities:
        message = "says nothing about its activities; add stages, activities or an outcome"
        raise MappingError(spec.place, message)
    for name, meaning in listed:
        before = meanings.setdefault(name, meaning)
        if before != meaning:
            raise MappingError(spec.place, f'"{name}" is listed twice: as {before} and {meaning}')
