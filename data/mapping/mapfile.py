"""The sections of a mapping file, read strictly into frozen values: see `docs/mapping.md`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from data.mapping.expression_reader import DATE_ORDERS, DECIMALS, read_expression, read_map
from data.mapping.expressions import Condition, Context, Expression, ValueMap, columns_used
from data.mapping.frames import FileSpec
from data.mapping.readers import FORMATS
from data.mapping.sections import MappingError, Section, did_you_mean, shorten
from data.records import ENTITIES, Entity

__all__ = [
    "SIDES",
    "Attributes",
    "Filter",
    "Move",
    "Pipeline",
    "SourceSpec",
    "StageSpec",
    "TableSpec",
    "check_stages",
    "read_attributes",
    "read_fields",
    "read_file_spec",
    "read_filter",
    "read_maps",
    "read_pipeline",
    "read_source_spec",
    "read_stage",
    "read_table",
    "read_toml",
    "take_file",
]

SIDES = ("deal", "lead")
_UNMAPPED = ("recorded_assumed", "seen_at", "ingested_at", "sequence", "source", "raw")


@dataclass(frozen=True)
class SourceSpec:
    """`[source]`: what is true of the whole source."""

    name: str
    zone: ZoneInfo
    currency: str | None
    exported_at: np.datetime64
    observed_from: np.datetime64
    static: Mapping[str, tuple[str, ...]]
    exclude: Mapping[str, tuple[str, ...]]
    trusted: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class StageSpec:
    """One stage; `activities` are the names that lead into it in an event log."""

    stage_id: str
    name: str
    default_probability: float | None = None
    rotten_after_days: float | None = None
    activities: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pipeline:
    """`[[stages]]`: the stages of one pipeline in order, and those that close a deal."""

    pipeline_id: str
    open: tuple[StageSpec, ...]
    won: tuple[StageSpec, ...] = ()
    lost: tuple[StageSpec, ...] = ()


@dataclass(frozen=True)
class Filter:
    """Rows that count: all of `where` hold, and none of `unless`."""

    where: tuple[Condition, ...] = ()
    unless: tuple[Condition, ...] = ()


@dataclass(frozen=True)
class Attributes:
    """A row's own extra fields; `rest` takes all columns not used otherwise, nor dropped."""

    named: Mapping[str, Expression]
    rest: bool = False
    drop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Move:
    """`[[table.stage_changes]]`: the row's record entered `to` at `at`."""

    place: str
    to: Expression
    at: Expression


@dataclass(frozen=True)
class TableSpec:
    """`[[table]]`: one row of a file is one record or event."""

    place: str
    entity: Entity
    file: str
    filter: Filter
    fields: Mapping[str, Expression]
    attributes: Attributes
    moves: tuple[Move, ...] = ()
    duplicates: str = "reject"
    changes_only: bool = False
    raw: bool = True

    @property
    def columns_used(self) -> set[str]:
        """Columns that the fields, named attributes, moves and filters read."""
        expressions = [*self.fields.values(), *self.attributes.named.values()]
        expressions += [e for m in self.moves for e in (m.to, m.at)]
        used = set().union(*(columns_used(e) for e in expressions))
        return used | {c.column for c in (*self.filter.where, *self.filter.unless)}


def read_toml(path: Path) -> Section:
    """The file's top level.

    Raises
    ------
    MappingError
        If it is not there or is not TOML.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise MappingError(str(path), f"cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MappingError(str(path), f"is not valid TOML: {error}") from error
    return Section("", content)


def read_source_spec(section: Section) -> SourceSpec:
    """Read `[source]`."""
    zone_name = section.text("time_zone", "UTC") or "UTC"
    try:
        zone = ZoneInfo(zone_name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        message = f'is "{zone_name}"; write an IANA name like "UTC" or "Europe/Paris"'
        raise section.fail("time_zone", message) from error
    currency = section.text("currency")
    if currency is not None and not (len(currency) == 3 and currency.isupper()):
        raise section.fail("currency", f'is "{currency}"; write an ISO 4217 code like "EUR"')
    lists = {key: section.lists(key) for key in ("static", "exclude", "trusted")}
    for key, by_entity in lists.items():
        for entity in by_entity:
            if entity not in ENTITIES:
                raise section.fail(f"{key}.{entity}", did_you_mean(entity, ENTITIES))
    spec = SourceSpec(
        name=section.required_text("name"),
        zone=zone,
        currency=currency,
        exported_at=section.time("exported_at", zone),
        observed_from=section.time("observed_from", zone),
        static=lists["static"],
        exclude=lists["exclude"],
        trusted=lists["trusted"],
    )
    section.finish()
    return spec


def read_file_spec(name: str, section: Section) -> FileSpec:
    """Read one `[files.NAME]`."""
    missing = section.take("missing", [])
    by_column: dict[str, tuple[str, ...]] = {}
    if isinstance(missing, Mapping):
        by_column = section.lists("missing")
        general = by_column.pop("*", ())
    else:
        general = section.texts("missing")
    quote = section.take("quote", '"')
    if not isinstance(quote, str) or len(quote) > 1:
        raise section.fail("quote", f'is {shorten(quote)}; write one character, or "" for none')
    delimiter = section.text("delimiter")
    if delimiter is not None and len(delimiter) != 1:
        raise section.fail("delimiter", f'is {shorten(delimiter)}; write one character, like ";"')
    skip = section.number("skip_lines", 0) or 0
    spec = FileSpec(
        name=name,
        path=section.text("path"),
        format=section.choice("format", FORMATS),
        delimiter=delimiter,
        encoding=section.text("encoding"),
        quote=quote or None,
        columns=section.texts("columns"),
        skip_lines=int(skip),
        sheet=section.text("sheet"),
        url=section.text("url"),
        query=section.text("query"),
        missing=general,
        missing_in=by_column,
        date_order=section.choice("date_order", DATE_ORDERS),
        decimal=section.choice("decimal", DECIMALS),
    )
    section.finish()
    if (spec.query is None) != (spec.url is None):
        raise MappingError(section.place, "a query needs both url and query")
    if (spec.path is None) == (spec.query is None):
        raise MappingError(section.place, 'needs path = "..." (or url and query, for a database)')
    return spec


def read_stage(place: str, content: object, *, log: bool = False) -> StageSpec:
    """Read one stage: its name, or a table with name, id, default_probability, ..."""
    if isinstance(content, str):
        content = {"name": content}
    section = Section(place, content)
    name = section.required_text("name")
    stage = StageSpec(
        stage_id=section.text("id", name) or name,
        name=name,
        default_probability=section.number("default_probability"),
        rotten_after_days=section.number("rotten_after_days"),
        activities=section.texts("activities") if log else (),
    )
    section.finish()
    if stage.default_probability is not None and not 0 <= stage.default_probability <= 1:
        message = f"is {stage.default_probability:g}; write a number from 0 to 1"
        raise section.fail("default_probability", message)
    return stage


def read_pipeline(section: Section) -> Pipeline:
    """Read one `[[stages]]`."""

    def stages(key: str) -> tuple[StageSpec, ...]:
        value = section.take(key, [])
        if not isinstance(value, list):
            raise section.fail(key, f"is {shorten(value)}; it must be a list of stages")
        return tuple(read_stage(f"{section.at(key)} {i}", v) for i, v in enumerate(value, 1))

    pipeline = Pipeline(
        section.text("pipeline", "default") or "default",
        stages("open"),
        stages("won"),
        stages("lost"),
    )
    section.finish()
    check_stages(section.place, (*pipeline.open, *pipeline.won, *pipeline.lost))
    return pipeline


def check_stages(place: str, stages: tuple[StageSpec, ...]) -> None:
    """Refuse a pipeline without stages, or with one id twice."""
    ids = [s.stage_id for s in stages]
    if not ids:
        raise MappingError(place, 'needs stages, like open = ["New", "Proposal"]')
    for stage_id in ids:
        if ids.count(stage_id) > 1:
            raise MappingError(place, f'the stage "{stage_id}" stands there twice')


def take_file(section: Section, files: Mapping[str, FileSpec]) -> str:
    """The `file` of a table or log; may be left out where the mapping has only one."""
    name = section.text("file") or (next(iter(files)) if len(files) == 1 else None)
    if name is None or name not in files:
        seen = "is missing" if name is None else f"is {shorten(name)}"
        raise section.fail("file", f"{seen}; {did_you_mean(name or '', files)}")
    return name


def read_filter(section: Section) -> Filter:
    """Read `where` and `unless`: {column = ["value", ...]}; "" stands for missing."""

    def conditions(key: str) -> tuple[Condition, ...]:
        lists = section.lists(key)
        return tuple(Condition(section.at(key), c, v) for c, v in lists.items())

    return Filter(conditions("where"), conditions("unless"))


def read_fields(
    section: Section, key: str, entity: Entity, context: Context, fixed: tuple[str, ...] = ()
) -> dict[str, Expression]:
    """Read `[table.fields]`; `fixed` are fields that the mapping may not set."""
    inner = Section(section.at(key), section.take(key, {}))
    allowed = [f for f in entity.by_name if f not in (*_UNMAPPED, *fixed)]
    fields = {}
    for name, content in inner.items():
        place = f"{section.place}, {key}.{name}"
        if name not in allowed:
            message = f"is no field of {entity.name} that can be mapped here; "
            raise MappingError(place, message + did_you_mean(name, allowed))
        fields[name] = read_expression(place, content, context)
    return fields


def read_attributes(section: Section, key: str, entity: Entity, context: Context) -> Attributes:
    """Read `attributes` ("rest", or a table) and `drop`."""
    content = section.take(key, {})
    drop = section.texts("drop")
    if content == "rest":
        content = {"*": "rest"}
    inner = Section(section.at(key), content)
    named: dict[str, Expression] = {}
    rest = False
    for name, value in inner.items():
        place = f"{section.place}, {key}.{name}"
        if name == "*":
            if value != "rest":
                raise MappingError(place, f'is {shorten(value)}; the only word here is "rest"')
            rest = True
            continue
        if name in entity.by_name:
            raise MappingError(place, f"is a field of {entity.name}; map it under fields")
        named[name] = read_expression(place, value, context, attribute=True)
    if drop and not rest:
        raise section.fail("drop", 'says what attributes = "rest" leaves out, which is not there')
    return Attributes(named, rest, drop)


def read_table(section: Section, files: Mapping[str, FileSpec], context: Context) -> TableSpec:
    """Read one `[[table]]`."""
    name = section.required_text("entity")
    if name not in ENTITIES:
        raise section.fail("entity", f"is {shorten(name)}; {did_you_mean(name, ENTITIES)}")
    entity = ENTITIES[name]
    spec = TableSpec(
        place=section.place,
        entity=entity,
        file=take_file(section, files),
        filter=read_filter(section),
        fields=read_fields(section, "fields", entity, context),
        attributes=read_attributes(section, "attributes", entity, context),
        moves=tuple(_read_move(m, context) for m in section.array("stage_changes", "stage_change")),
        duplicates=section.choice("duplicates", ("reject", "first", "last"), "reject") or "reject",
        changes_only=section.flag("changes_only", False),
        raw=section.flag("raw", True),
    )
    section.finish()
    for needed in (*entity.key, *entity.required):
        if needed not in spec.fields and not (needed == "pipeline_id"):
            raise MappingError(f"{section.place}, fields.{needed}", f"{name} needs this field")
    if spec.changes_only and name not in ("stage_change", "field_change"):
        raise section.fail("changes_only", "is for stage_change and field_change")
    if spec.moves and name not in SIDES:
        raise section.fail("stage_changes", "only a deal or a lead changes stages")
    return spec


def _read_move(section: Section, context: Context) -> Move:
    to = section.take("to")
    if isinstance(to, str):
        to = {"const": to}  # a stage's own name; a column is written {column = "..."}
    at = section.take("at")
    if at is None:
        raise section.fail("at", "is missing; it must be the column with the time")
    move = Move(
        section.place,
        read_expression(section.at("to"), to, context),
        read_expression(section.at("at"), at, context),
    )
    section.finish()
    return move


def read_maps(section: Section) -> dict[str, ValueMap]:
    """Read `[maps.NAME]`."""
    content = Section("maps", section.take("maps", {}))
    return {n: read_map(n, f"maps.{n}", v) for n, v in content.items()}
