"""The canonical records: one declaration that store, importers, wire checks and docs all read.

An `Entity` declares its fields; a `Table` holds rows of one entity as columns. A table is what
travels between the rooms: a mapped file, a request body, a store and the synthetic CRM all
become tables, and `data.history.History` is built from tables alone.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

__all__ = [
    "ENTITIES",
    "Entity",
    "Field",
    "ParsedRow",
    "RecordError",
    "SourceFacts",
    "Table",
    "entity_of_path",
    "parse_attribute",
    "parse_row",
    "parse_time",
]

Kind = Literal["id", "text", "number", "boolean", "time", "date", "choice", "json"]

_MISSING_TIME = np.datetime64("NaT", "us")
_EARLIEST = dt.datetime(1900, 1, 1, tzinfo=dt.UTC)
_LATEST = dt.datetime(2200, 1, 1, tzinfo=dt.UTC)


class RecordError(ValueError):
    """A value that a canonical field does not accept.

    Attributes
    ----------
    field : str
        Name of the field, as declared.
    value : object
        The value seen.
    allowed : str
        What the field accepts, in words.
    """

    def __init__(self, field: str, value: object, allowed: str) -> None:
        self.field, self.value, self.allowed = field, value, allowed
        shown = repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        super().__init__(f"{field} is {shown}; allowed: {allowed}")


@dataclass(frozen=True, slots=True)
class Field:
    """One declared field.

    `static` fields are known at creation and never change by themselves. `personal` fields are
    erased on request and are never a feature unless the user declares them one.
    """

    name: str
    kind: Kind
    meaning: str
    unit: str = ""
    choices: tuple[str, ...] = ()
    static: bool = False
    personal: bool = False

    @property
    def allowed(self) -> str:
        """What the field accepts, in words for error messages."""
        return {
            "id": "text or a whole number, not empty",
            "text": "text",
            "number": "a finite number",
            "boolean": "true or false",
            "time": "an ISO 8601 time with offset, like 2026-03-31T14:00:00Z, from 1900 to 2200",
            "date": "an ISO 8601 date, like 2026-03-31, from 1900 to 2200",
            "choice": " | ".join(self.choices),
            "json": "a JSON object",
        }[self.kind]

    def parse(self, value: object) -> Any:
        """Convert one plain value; None (and an empty text) is missing.

        Returns
        -------
        str, float, numpy.datetime64 or dict
            Text for id, text and choice; float for number and boolean (0.0 or 1.0);
            datetime64[us] in UTC for time; datetime64[D] for date.

        Raises
        ------
        RecordError
            If the value is not one the field accepts.
        """
        if value is None or (isinstance(value, str) and value == ""):
            return None
        match self.kind:
            case "id" | "text":
                if isinstance(value, str):
                    return value
                if isinstance(value, int) and not isinstance(value, bool):
                    return str(value)
            case "choice":
                if isinstance(value, str) and value in self.choices:
                    return value
            case "number":
                if isinstance(value, int | float) and not isinstance(value, bool):
                    try:
                        number = float(value)
                    except OverflowError:
                        number = math.inf
                    if math.isfinite(number):
                        return number
            case "boolean":
                if isinstance(value, bool):
                    return float(value)
            case "time":
                moment = parse_time(value)
                if moment is not None:
                    return moment
            case "date":
                day = _parse_date(value)
                if day is not None:
                    return day
            case "json":
                if isinstance(value, dict):
                    return value
        raise RecordError(self.name, value, self.allowed)


def parse_time(value: object, zone: dt.tzinfo = dt.UTC) -> np.datetime64 | None:
    """A UTC datetime64[us] from an ISO 8601 text or a datetime; None when it is neither.

    A bare date is 00:00 in `zone`; a time without offset is in `zone` too.
    """
    if isinstance(value, np.datetime64):
        return cast(np.datetime64, value.astype("datetime64[us]"))
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, dt.datetime):
        moment = value
    elif isinstance(value, dt.date):
        moment = dt.datetime(value.year, value.month, value.day)
    else:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    try:
        moment = moment.astimezone(dt.UTC)
    except OverflowError:
        return None
    if not _EARLIEST <= moment < _LATEST:
        return None
    return np.datetime64(moment.replace(tzinfo=None), "us")


def _parse_date(value: object) -> np.datetime64 | None:
    if isinstance(value, np.datetime64):
        return cast(np.datetime64, value.astype("datetime64[D]"))
    if isinstance(value, str):
        try:
            value = dt.date.fromisoformat(value[:10]) if len(value) >= 10 else None
        except ValueError:
            return None
    if isinstance(value, dt.datetime):
        value = value.date()
    if not isinstance(value, dt.date) or not _EARLIEST.year <= value.year < _LATEST.year:
        return None
    return np.datetime64(value, "D")


_DTYPES: dict[Kind, str] = {
    "id": "object",
    "text": "object",
    "choice": "object",
    "json": "object",
    "number": "float64",
    "boolean": "float64",
    "time": "datetime64[us]",
    "date": "datetime64[D]",
}


def _missing(kind: Kind, n: int) -> npt.NDArray[Any]:
    if kind in ("number", "boolean"):
        return np.full(n, np.nan)
    if kind in ("time", "date"):
        return np.full(n, "NaT", dtype=_DTYPES[kind])
    return np.full(n, None, dtype=object)


@dataclass(frozen=True)
class Entity:
    """One kind of record.

    Attributes
    ----------
    name : str
        Singular, as in `product.md`: "deal", "stage_change".
    path : str
        The plural used in URLs: "deals", "stage-changes".
    fields : tuple of Field
        The declared fields, keys first. Every entity also carries `BOOKKEEPING`.
    key : tuple of str
        The fields that identify a row. Writing a row with a known key again replaces it
        (records) or changes nothing (events).
    required : tuple of str
        Fields that must not be missing, besides the key.
    event : bool
        True for rows that are appended and never change (stage_change, field_change).
    happened : str
        The field that says when the row came into being, "" where none does.
    """

    name: str
    path: str
    fields: tuple[Field, ...]
    key: tuple[str, ...]
    required: tuple[str, ...] = ()
    event: bool = False
    happened: str = ""
    by_name: dict[str, Field] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {f.name: f for f in (*self.fields, *BOOKKEEPING)})

    @property
    def columns(self) -> tuple[Field, ...]:
        """All columns of the entity: its own fields, then the bookkeeping ones."""
        return (*self.fields, *BOOKKEEPING)


# What every row carries about itself, beside its own fields. None of these is a feature.
BOOKKEEPING: tuple[Field, ...] = (
    Field("recorded_at", "time", "when the source wrote the row; as_of believes a row from here"),
    Field("recorded_assumed", "boolean", "true where the source has no write time"),
    Field("first_seen_at", "time", "since when the source has shown the record"),
    Field("seen_at", "time", "when the source showed this state (export time or receipt)"),
    Field("ingested_at", "time", "when dealcast stored the row; never used by as_of"),
    Field("sequence", "number", "order among rows of the same moment"),
    Field("source", "text", "name of the import or key that brought the row"),
    Field("raw", "json", "the source's own row", personal=True),
)


@dataclass(frozen=True)
class Table:
    """Rows of one entity, as columns.

    Attributes
    ----------
    entity : Entity
        What the rows are.
    columns : dict of str to ndarray
        One array of shape (n,) for every column of the entity. dtypes by kind: object (text or
        None), float64 (NaN = missing; booleans are 0.0 or 1.0), datetime64[us] UTC and
        datetime64[D] (NaT = missing).
    attributes : dict of str to ndarray
        The source's own extra fields, arrays of shape (n,), dtype object: text, float, bool,
        list of text, or None.
    """

    entity: Entity
    columns: dict[str, npt.NDArray[Any]]
    attributes: dict[str, npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(self.columns[self.entity.key[0]])

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.columns[name]

    @classmethod
    def from_columns(
        cls,
        entity: Entity,
        columns: Mapping[str, npt.ArrayLike],
        attributes: Mapping[str, npt.ArrayLike] | None = None,
    ) -> Table:
        """Build a table from converted columns; absent columns are filled with missing.

        Raises
        ------
        RecordError
            If a column is not one of the entity's, or the lengths differ.
        """
        unknown = set(columns) - set(entity.by_name)
        if unknown:
            raise RecordError(entity.name, sorted(unknown), "columns " + ", ".join(entity.by_name))
        arrays = {
            name: np.asarray(values, dtype=_DTYPES[entity.by_name[name].kind])
            for name, values in columns.items()
        }
        lengths = {len(a) for a in arrays.values()}
        extra = {k: np.asarray(v, dtype=object) for k, v in (attributes or {}).items()}
        lengths |= {len(a) for a in extra.values()}
        if len(lengths) > 1:
            raise RecordError(entity.name, sorted(lengths), "columns of one length")
        n = lengths.pop() if lengths else 0
        full = {f.name: arrays.get(f.name) for f in entity.columns}
        return cls(
            entity,
            {k: _missing(entity.by_name[k].kind, n) if v is None else v for k, v in full.items()},
            extra,
        )

    @classmethod
    def from_rows(cls, entity: Entity, rows: Sequence[Mapping[str, Any]]) -> Table:
        """Build a table from plain rows (parsed JSON), checking every value.

        Keys that the entity does not declare become attributes; a key `attributes` holding an
        object is spread into attributes too.

        Raises
        ------
        RecordError
            On the first value that its field does not accept, or a missing key.
        """
        return cls.from_parsed(entity, [parse_row(entity, row) for row in rows])

    @classmethod
    def from_parsed(cls, entity: Entity, rows: Sequence[ParsedRow]) -> Table:
        """Build a table from rows that `parse_row` accepted."""
        n = len(rows)
        columns = {f.name: _missing(f.kind, n) for f in entity.columns}
        attributes: dict[str, npt.NDArray[Any]] = {}
        for i, row in enumerate(rows):
            for name, value in row.values.items():
                columns[name][i] = value
            for name, value in row.attributes.items():
                if name not in attributes:
                    attributes[name] = np.full(n, None, dtype=object)
                attributes[name][i] = value
        return cls(entity, columns, attributes)

    @classmethod
    def empty(cls, entity: Entity) -> Table:
        """A table with no rows."""
        return cls.from_columns(entity, {f.name: [] for f in entity.columns})

    def take(self, rows: npt.NDArray[Any]) -> Table:
        """The rows at integer positions, or where a boolean mask of shape (n,) is true."""
        return Table(
            self.entity,
            {k: v[rows] for k, v in self.columns.items()},
            {k: v[rows] for k, v in self.attributes.items()},
        )

    def with_columns(self, **columns: npt.ArrayLike) -> Table:
        """The same rows with some columns replaced."""
        return Table.from_columns(self.entity, {**self.columns, **columns}, self.attributes)

    @classmethod
    def concat(cls, tables: Iterable[Table]) -> Table:
        """Rows of several tables of one entity, in order."""
        parts = list(tables)
        entity = parts[0].entity
        names = dict.fromkeys(name for t in parts for name in t.attributes)
        return cls(
            entity,
            {f.name: np.concatenate([t[f.name] for t in parts]) for f in entity.columns},
            {
                name: np.concatenate(
                    [t.attributes.get(name, np.full(len(t), None, dtype=object)) for t in parts]
                )
                for name in names
            },
        )


@dataclass(frozen=True, slots=True)
class ParsedRow:
    """One row whose values were checked: declared values present, and attributes."""

    values: dict[str, Any]
    attributes: dict[str, Any]


def parse_row(entity: Entity, row: Mapping[str, Any]) -> ParsedRow:
    """Check one plain row against its entity.

    Raises
    ------
    RecordError
        On the first value that its field does not accept, or a missing key or required field.
    """
    values: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    for name, value in row.items():
        declared = entity.by_name.get(name)
        if declared is not None:
            parsed = declared.parse(value)
            if parsed is not None:
                values[name] = parsed
        elif name == "attributes" and isinstance(value, Mapping):
            for inner, inner_value in value.items():
                attributes[str(inner)] = parse_attribute(str(inner), inner_value)
        else:
            attributes[name] = parse_attribute(name, value)
    for name in (*entity.key, *entity.required):
        if name not in values:
            raise RecordError(name, row.get(name), entity.by_name[name].allowed + " (required)")
    return ParsedRow(values, {k: v for k, v in attributes.items() if v is not None})


def parse_attribute(name: str, value: object) -> Any:
    """Check an extra field: text, number, boolean, or a list of texts.

    Raises
    ------
    RecordError
        If the value is something else, or not finite.
    """
    if value is None or value == "":
        return None
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        return value
    raise RecordError(name, value, "text, a finite number, true or false, or a list of texts")


@dataclass(frozen=True)
class SourceFacts:
    """What is true of a whole source and cannot be read off its rows.

    Attributes
    ----------
    name : str
        Name of the source; rows carry it in `source`.
    currency : str or None
        Currency of amounts that name none, if the user declared one.
    static : dict of str to tuple of str
        By entity, the fields and attributes that the user declares known at creation and
        unchanged since ("deal": ("amount",)). Without this, or a history of the field, a value
        counts only from the moment the source showed it (`seen_at`).
    excluded, trusted : dict of str to tuple of str
        By entity, what must never become a feature, and what may though it seems to leak.
    pseudo_times : tuple of str
        Entities whose times were made from the order of the rows: order is right, durations
        and calendars mean nothing.
    observed_from : datetime64[us] or NaT
        Closings before this moment are not in the source: records created earlier are there
        only because they lasted (left truncation).
    observed_until : datetime64[us] or NaT
        The source was exported at this moment: nothing is known of later times. NaT for a
        source that goes on sending.
    """

    name: str
    currency: str | None = None
    static: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    excluded: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pseudo_times: tuple[str, ...] = ()
    observed_from: np.datetime64 = _MISSING_TIME
    observed_until: np.datetime64 = _MISSING_TIME
    trusted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_CLOSED = ("open", "won", "lost")
_PROVENANCE = ("native", "field_history", "entered_dates", "audit", "snapshot_diff", "import")


def _id(name: str, meaning: str, *, static: bool = False) -> Field:
    return Field(name, "id", meaning, static=static)


def _text(name: str, meaning: str, *, personal: bool = False) -> Field:
    return Field(name, "text", meaning, personal=personal)


def _time(name: str, meaning: str, *, static: bool = False) -> Field:
    return Field(name, "time", meaning, "UTC", static=static)


def _money(name: str, meaning: str) -> Field:
    return Field(name, "number", meaning, "currency")


_LEAD = Entity(
    "lead",
    "leads",
    (
        _id("lead_id", "the CRM's id", static=True),
        _time("created_at", "when the lead entered the CRM", static=True),
        _text("status", "the CRM's own status"),
        Field(
            "outcome",
            "choice",
            "from the CRM's flags",
            choices=("open", "qualified", "disqualified"),
        ),
        _time("qualified_at", "when it was qualified"),
        _time("disqualified_at", "when it was disqualified"),
        _text("disqualification_reason", "why it was disqualified; known afterwards"),
        _text("lead_source", "channel it came from"),
        _text("campaign", "campaign it came from"),
        _text("company_name", "company", personal=True),
        _text("industry", "industry of the company"),
        Field("employee_count", "number", "size of the company", "persons"),
        _money("annual_revenue", "revenue of the company"),
        _text("country", "country"),
        _text("state", "state or region"),
        _text("language", "language"),
        _text("email_domain", "the part after the @, never the address"),
        Field("has_phone", "boolean", "whether a telephone number is known"),
        Field("tags", "text", "tags, separated by ;"),
        _text("title", "job title"),
        _text("rating", "the CRM's own rating"),
        _id("owner_id", "who works it"),
        _id("account_id", "account it belongs to"),
        _id("converted_deal_id", "deal it became"),
        _time("deleted_at", "when it was deleted"),
        _id("merged_into_id", "lead it was merged into"),
    ),
    key=("lead_id",),
    happened="created_at",
)

_DEAL = Entity(
    "deal",
    "deals",
    (
        _id("deal_id", "the CRM's id", static=True),
        _text("name", "title of the deal", personal=True),
        _id("account_id", "the customer"),
        _id("originating_lead_id", "lead it came from", static=True),
        _id("owner_id", "the rep"),
        _id("team_id", "the team; the owner's team when missing"),
        _id("pipeline_id", "the sales pipeline"),
        _id("stage_id", "the stage now"),
        Field("outcome", "choice", "from the CRM's closed and won flags", choices=_CLOSED),
        _money("amount", "expected amount"),
        _money("closed_amount", "amount it closed at"),
        Field("currency", "text", "ISO 4217 code of the amounts"),
        _money("recurring_amount", "recurring part, a year"),
        _time("created_at", "when the deal entered the CRM", static=True),
        Field("expected_close_date", "date", "the rep's expected close date"),
        _time("closed_at", "when it was won or lost"),
        Field("probability", "number", "the CRM's own win probability", "0-1"),
        _text("forecast_category", "the rep's commit, best case, pipeline, omitted"),
        _text("lead_source", "channel it came from"),
        _text("deal_type", "new business, renewal, ..."),
        _text("product_family", "product"),
        _text("competitor", "known competitor"),
        _text("loss_reason", "why it was lost; known afterwards"),
        _time("deleted_at", "when it was deleted"),
        _id("merged_into_id", "deal it was merged into"),
    ),
    key=("deal_id",),
    happened="created_at",
)

_STAGE = Entity(
    "stage",
    "stages",
    (
        _id("pipeline_id", "pipeline the stage belongs to"),
        _id("stage_id", "the CRM's id"),
        _text("name", "what people call it"),
        Field("sort_order", "number", "position in the pipeline, smallest first"),
        Field("kind", "choice", "whether a deal in it is closed", choices=_CLOSED),
        Field("default_probability", "number", "the CRM's own win probability", "0-1"),
        Field("rotten_after_days", "number", "after how long a deal in it is stale", "days"),
    ),
    key=("pipeline_id", "stage_id"),
)

_STAGE_CHANGE = Entity(
    "stage_change",
    "stage-changes",
    (
        Field("entity", "choice", "what moved", choices=("lead", "deal")),
        _id("entity_id", "which one"),
        _time("changed_at", "when it moved"),
        _id("from_stage_id", "stage before"),
        _id("to_stage_id", "stage after"),
        _id("changed_by_id", "who moved it"),
        Field("provenance", "choice", "where the fact comes from", choices=_PROVENANCE),
    ),
    key=("entity", "entity_id", "changed_at", "to_stage_id"),
    event=True,
    happened="changed_at",
)

_FIELD_CHANGE = Entity(
    "field_change",
    "field-changes",
    (
        Field("entity", "choice", "what changed", choices=("lead", "deal")),
        _id("entity_id", "which one"),
        _time("changed_at", "when it changed"),
        Field("field", "text", "which field: a declared name or an attribute"),
        _text("old_value", "value before, as text (ISO 8601 times, plain numbers)"),
        _text("new_value", "value after"),
        Field("provenance", "choice", "where the fact comes from", choices=_PROVENANCE),
    ),
    key=("entity", "entity_id", "changed_at", "field"),
    event=True,
    happened="changed_at",
)

_ACTIVITY = Entity(
    "activity",
    "activities",
    (
        _id("activity_id", "the CRM's id"),
        _text("type", "call, email, meeting, task, visit, ..."),
        Field("direction", "choice", "who reached out", choices=("inbound", "outbound")),
        _time("occurred_at", "when it took place"),
        _time("due_at", "when it is planned for"),
        Field("is_done", "boolean", "whether it is done"),
        Field("duration_minutes", "number", "how long it took", "minutes"),
        _id("lead_id", "lead it concerns"),
        _id("deal_id", "deal it concerns"),
        _id("account_id", "account it concerns"),
        _id("owner_id", "who did it"),
    ),
    key=("activity_id",),
    happened="occurred_at",
)

_ACCOUNT = Entity(
    "account",
    "accounts",
    (
        _id("account_id", "the CRM's id"),
        _text("name", "name", personal=True),
        _text("industry", "industry"),
        Field("employee_count", "number", "size", "persons"),
        _money("annual_revenue", "revenue"),
        _text("country", "country"),
        _id("parent_account_id", "the company that owns it"),
        _time("created_at", "when it entered the CRM", static=True),
    ),
    key=("account_id",),
    happened="created_at",
)

_OWNER = Entity(
    "owner",
    "owners",
    (
        _id("owner_id", "the CRM's id"),
        _text("name", "name", personal=True),
        _id("manager_id", "the owner's own manager"),
        _id("team_id", "team"),
        Field("is_active", "boolean", "whether the person still works here"),
    ),
    key=("owner_id",),
)

_TARGET = Entity(
    "target",
    "targets",
    (
        Field("scope", "choice", "whose target it is", choices=("all", "team", "owner")),
        _id("scope_id", "owner_id or team_id; the word all for the whole"),
        Field("period_start", "date", "first day"),
        Field("period_end", "date", "first day after"),
        _money("amount", "target"),
        Field("currency", "text", "ISO 4217 code"),
        _text("kind", "revenue, quantity, ..."),
    ),
    key=("scope", "scope_id", "period_start", "period_end"),
    required=("amount",),
)

_QUALIFICATION = Entity(
    "qualification",
    "qualifications",
    (
        Field("entity", "choice", "what was qualified", choices=("lead", "deal")),
        _id("entity_id", "which one"),
        _time("changed_at", "when the answers were given"),
        _money("budget_amount", "budget"),
        _text("budget_status", "none, may buy, can buy, will buy"),
        Field("is_decision_maker", "boolean", "whether the contact decides"),
        _text("need", "how strong the need is"),
        _text("purchase_timeframe", "how soon"),
        Field("stakeholder_count", "number", "people involved", "persons"),
    ),
    key=("entity", "entity_id", "changed_at"),
    event=True,
    happened="changed_at",
)

_CONTACT_ROLE = Entity(
    "contact_role",
    "contact-roles",
    (
        _id("deal_id", "the deal"),
        _id("contact_id", "the person's id"),
        _text("role", "decision maker, champion, ..."),
        Field("is_decision_maker", "boolean", "whether the person decides"),
    ),
    key=("deal_id", "contact_id"),
)

_EXCHANGE_RATE = Entity(
    "exchange_rate",
    "exchange-rates",
    (
        Field("date", "date", "day the rate holds from"),
        Field("from_currency", "text", "ISO 4217 code"),
        Field("to_currency", "text", "ISO 4217 code"),
        Field("rate", "number", "units of to_currency for one of from_currency"),
    ),
    key=("date", "from_currency", "to_currency"),
    required=("rate",),
)

_COMMIT = Entity(
    "commit",
    "commits",
    (
        _id("author_id", "who committed"),
        Field("scope", "choice", "for whom", choices=("all", "team", "owner")),
        _id("scope_id", "owner_id or team_id; the word all for the whole"),
        Field("period_start", "date", "first day"),
        Field("period_end", "date", "first day after"),
        _time("changed_at", "when the number was given"),
        _money("amount", "the number"),
        _text("reason", "why", personal=True),
    ),
    key=("author_id", "scope", "scope_id", "period_start", "period_end", "changed_at"),
    required=("amount",),
    event=True,
    happened="changed_at",
)

_OVERRIDE = Entity(
    "override",
    "overrides",
    (
        _id("deal_id", "the deal"),
        _id("author_id", "who overrides"),
        _time("changed_at", "when"),
        _text("field", "probability, amount or close_date"),
        _text("value", "the person's value, as text"),
        _text("reason", "why", personal=True),
    ),
    key=("deal_id", "author_id", "changed_at", "field"),
    required=("value",),
    event=True,
    happened="changed_at",
)

ENTITIES: dict[str, Entity] = {
    e.name: e
    for e in (
        _LEAD,
        _DEAL,
        _STAGE,
        _STAGE_CHANGE,
        _FIELD_CHANGE,
        _ACTIVITY,
        _ACCOUNT,
        _OWNER,
        _TARGET,
        _QUALIFICATION,
        _CONTACT_ROLE,
        _EXCHANGE_RATE,
        _COMMIT,
        _OVERRIDE,
    )
}


def entity_of_path(path: str) -> Entity:
    """The entity behind a URL's plural.

    Raises
    ------
    RecordError
        If there is none.
    """
    for entity in ENTITIES.values():
        if entity.path == path:
            return entity
    raise RecordError("entity", path, " | ".join(e.path for e in ENTITIES.values()))
