"""`[[table]]`: the rows of a file -> records or events of one entity.

A row is stored whole or refused whole: the first of its values that cannot be used is the
reason. Checks here need one row only; what several rows say together (the same key twice) is
`data.mapping`'s.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.mapping.evaluation import Evaluator
from data.mapping.expressions import ColumnOf, How, Order
from data.mapping.imported import Tally
from data.mapping.mapfile import Filter, TableSpec
from data.mapping.sections import MappingError, did_you_mean, shorten
from data.records import ENTITIES, Entity, Field, Table

__all__ = [
    "HAPPENED",
    "Faults",
    "MappedRows",
    "Settings",
    "map_table",
    "read_attribute_columns",
    "read_field",
    "selected",
    "snake_case",
    "too_late",
]

# Times of things that have happened: none can lie after the moment the source was exported.
HAPPENED = (
    "created_at",
    "closed_at",
    "qualified_at",
    "disqualified_at",
    "changed_at",
    "occurred_at",
)
_CLOSINGS = {"deal": ("closed_at",), "lead": ("qualified_at", "disqualified_at")}
_KINDS = {"id": "text", "choice": "text", "text": "text"}
_DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class Settings:
    """What every table of a source shares.

    Attributes
    ----------
    latest : datetime64[us]
        Nothing can have happened later; `latest_is` says in words what moment that is.
    pipeline : str or None
        The pipeline of deals that name none: the only one declared.
    """

    currency: str | None
    latest: np.datetime64
    latest_is: str
    pipeline: str | None


@dataclass
class MappedRows:
    """Rows of one use of a file that passed their own checks.

    `rows` are their positions in the frame; `moves` the stage changes made from them.
    """

    tally: Tally
    table: Table
    rows: npt.NDArray[np.int64]
    duplicates: str
    moves: Table | None = None
    pseudo: bool = False


class Faults:
    """The first fault of each row."""

    def __init__(self) -> None:
        self.by_row: dict[int, str] = {}

    def add(self, name: str, bad: dict[int, str]) -> None:
        """Note faults of one field."""
        for row, why in bad.items():
            self.by_row.setdefault(row, f"{name}: {why}")

    def where(self, name: str, rows: npt.NDArray[np.bool_], why: str) -> None:
        """Note one fault in all rows of a mask."""
        self.add(name, {int(r): why for r in np.flatnonzero(rows)})


def selected(evaluator: Evaluator, chosen: Filter) -> npt.NDArray[np.bool_]:
    """The rows that a filter lets through."""
    keep = np.ones(len(evaluator), dtype=bool)
    for condition in chosen.where:
        keep &= evaluator.holds(condition)
    for condition in chosen.unless:
        keep &= ~evaluator.holds(condition)
    return keep


def read_field(
    evaluator: Evaluator, declared: Field, expression: Any, faults: Faults
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]:
    """One field over all rows, checked against its declaration; and which times are dates."""
    share = declared.unit == "0-1"
    kind = _KINDS.get(declared.kind, declared.kind)
    parsed = evaluator.evaluate(expression, kind, share=share)
    faults.add(declared.name, parsed.bad)
    if declared.kind == "choice":
        odd = ~np.isin(parsed.values.astype(str), [*declared.choices, "None"])
        for row in np.flatnonzero(odd):
            seen = shorten(str(parsed.values[row]))
            allowed = f"{seen} is not one of {declared.allowed}; use a map"
            faults.add(declared.name, {int(row): allowed})
    if share:
        with np.errstate(invalid="ignore"):
            off = (parsed.values < 0) | (parsed.values > 1)
        for row in np.flatnonzero(off):
            seen = f"{parsed.values[row]:g} is not from 0 to 1; for percents, set scale = 0.01"
            faults.add(declared.name, {int(row): seen})
    return parsed.values, parsed.bare


def too_late(times: npt.NDArray[Any], name: str, settings: Settings, faults: Faults) -> None:
    """Refuse what has happened after the source was exported."""
    for row in np.flatnonzero(times > settings.latest):
        why = f"{_show(times[row])} lies after {settings.latest_is}"
        faults.add(name, {int(row): why})


def read_attribute_columns(
    spec: Any, entity: Entity, evaluator: Evaluator, used: set[str], faults: Faults
) -> dict[str, npt.NDArray[np.object_]]:
    """The attributes, those of `rest` named after their headers.

    `spec` is what declares them: a table or a log, with `place` and `attributes`.
    """
    expressions = dict(spec.attributes.named)
    headers = list(evaluator.frame.columns)
    for column in spec.attributes.drop:
        if column not in headers:
            message = f'there is no column "{column}"; {did_you_mean(column, headers)}'
            raise MappingError(f"{spec.place}, drop", message)
    if spec.attributes.rest:
        for column in headers:
            if column in used or column in spec.attributes.drop:
                continue
            name = snake_case(column)
            place = f"{spec.place}, attributes.{name}"
            if name in entity.by_name or name in expressions:
                taken = f"a field of {entity.name}" if name in entity.by_name else "taken already"
                message = f'column "{column}" would be called {name}, which is {taken}; '
                raise MappingError(place, message + "map it, name it otherwise, or drop it")
            expressions[name] = ColumnOf(How(place), column)
    columns = {}
    for name, expression in expressions.items():
        columns[name], parsed = evaluator.attribute(expression)
        faults.add(name, parsed.bad)
    return columns


def snake_case(header: str) -> str:
    """A header as an attribute's name.

    >>> snake_case("Total Time Spent on Website"), snake_case("emp.var.rate"), snake_case("UTMid")
    ('total_time_spent_on_website', 'emp_var_rate', 'ut_mid')
    """
    cut = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", header)
    cut = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", cut)
    return re.sub(r"[\W_]+", "_", cut).strip("_").lower() or "column"


def map_table(spec: TableSpec, evaluator: Evaluator, settings: Settings) -> MappedRows:
    """Do what one `[[table]]` says."""
    tally = Tally(evaluator.frame, f"{spec.place}: {spec.entity.name}")
    keep = selected(evaluator, spec.filter)
    tally.ignored["where"] = int((~keep).sum())
    faults = Faults()
    columns: dict[str, npt.NDArray[Any]] = {}
    bare: dict[str, npt.NDArray[np.bool_]] = {}
    for name, expression in spec.fields.items():
        declared = spec.entity.by_name[name]
        columns[name], dates = read_field(evaluator, declared, expression, faults)
        if dates is not None:
            bare[name] = dates
    attributes = read_attribute_columns(spec, spec.entity, evaluator, spec.columns_used, faults)
    _fill_in(spec.entity, columns, settings, len(evaluator))
    _check_present(spec.entity, columns, faults)
    _check_times(spec, columns, bare, evaluator, keep, settings, faults)
    moves = _moves(spec, evaluator, settings, faults)
    for row, why in sorted(faults.by_row.items()):
        if keep[row]:
            tally.reject(row, why)
            keep[row] = False
    if spec.changes_only:
        same = _unchanged(spec.entity, columns, keep)
        tally.ignored["no change"] = int(same.sum())
        keep &= ~same
    rows = np.flatnonzero(keep)
    table = Table.from_columns(spec.entity, columns, attributes).take(rows)
    if spec.raw:
        raw = np.empty(len(rows), dtype=object)
        raw[:] = [evaluator.frame.raw(int(r)) for r in rows]
        table = table.with_columns(raw=raw)
    if spec.entity.event or spec.entity.name == "activity":
        table = table.with_columns(sequence=rows.astype(np.float64))
    pseudo = any(isinstance(e, Order) for e in spec.fields.values())
    return MappedRows(
        tally, table, rows, spec.duplicates, _moves_of(spec, columns, moves, rows), pseudo
    )


def _fill_in(
    entity: Entity, columns: dict[str, npt.NDArray[Any]], settings: Settings, n: int
) -> None:
    """What goes without saying: the only pipeline, the source's currency, the provenance."""
    if "pipeline_id" in entity.by_name and "pipeline_id" not in columns:
        pipeline = settings.pipeline or ("default" if entity.name == "stage" else None)
        columns["pipeline_id"] = np.full(n, pipeline, dtype=object)
    if entity.name in ("stage_change", "field_change") and "provenance" not in columns:
        columns["provenance"] = np.full(n, "import", dtype=object)
    money = [
        c for f in entity.fields if f.unit == "currency" and (c := columns.get(f.name)) is not None
    ]
    if "currency" in entity.by_name and settings.currency and money:
        named = columns.get("currency", np.full(n, None, dtype=object))
        valued = np.any([~np.isnan(m) for m in money], axis=0)
        columns["currency"] = np.where(valued & pd.isna(named), settings.currency, named)


def _check_present(entity: Entity, columns: dict[str, npt.NDArray[Any]], faults: Faults) -> None:
    for name in (*entity.key, *entity.required):
        faults.where(name, pd.isna(columns[name]), "is missing, and it is required")


def _check_times(
    spec: TableSpec,
    columns: dict[str, npt.NDArray[Any]],
    bare: dict[str, npt.NDArray[np.bool_]],
    evaluator: Evaluator,
    keep: npt.NDArray[np.bool_],
    settings: Settings,
    faults: Faults,
) -> None:
    """Clocks run forwards: created, then closed, then exported."""
    for name in HAPPENED:
        if name in columns:
            too_late(columns[name], name, settings, faults)
    for name in _CLOSINGS.get(spec.entity.name, ()):
        if name not in columns:
            continue
        closed = columns[name]
        if "outcome" in columns:
            still = ~np.isnat(closed) & (columns["outcome"] == "open")
            faults.where(
                name,
                still,
                "is set though outcome is open; if it is an expected date, "
                "map it as expected_close_date and use if for the closed ones",
            )
        created = columns.get("created_at")
        if created is None:
            continue
        early = closed < created
        # A closing given as a date is 00:00 of that day, which may lie before the creation.
        same_day = early & bare[name] & (created - closed < _DAY)
        columns[name] = np.where(same_day, created, closed)
        if count := int((same_day & keep).sum()):
            evaluator.note(
                f"{name}: {count:,} rows closed, by date, on the day they were created "
                "are taken as closed at once"
            )
        for row in np.flatnonzero(early & ~same_day):
            why = f"{_show(closed[row])} lies before created_at {_show(created[row])}"
            faults.add(name, {int(row): why})


def _unchanged(
    entity: Entity, columns: dict[str, npt.NDArray[Any]], keep: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Rows that say what the row before them, in time, said of the same record and field.

    The value before is filled in where the source does not tell it.
    """
    new, old = (
        ("to_stage_id", "from_stage_id")
        if entity.name == "stage_change"
        else ("new_value", "old_value")
    )
    empty = np.full(len(keep), None, dtype=object)
    same = np.zeros(len(keep), dtype=bool)
    rows = np.flatnonzero(keep)
    what = [columns[c][rows] for c in ("entity", "entity_id", "field") if c in columns]
    group = pd.MultiIndex.from_arrays(what).factorize()[0]
    rows, group = (a[np.lexsort((rows, columns["changed_at"][rows], group))] for a in (rows, group))
    value = columns.setdefault(new, empty.copy())[rows]
    again = np.r_[False, group[1:] == group[:-1]] if len(rows) else np.zeros(0, dtype=bool)
    before = np.roll(value, 1)
    before[~again] = None
    same[rows] = again & (value == before)
    told = columns.setdefault(old, empty.copy())
    told[rows] = np.where(pd.isna(told[rows]), before, told[rows])
    return same


def _show(time: np.datetime64) -> str:
    return str(time.astype("datetime64[s]")) + "Z"


def _moves(
    spec: TableSpec, evaluator: Evaluator, settings: Settings, faults: Faults
) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """(stage, time) over all rows, for each declared stage change."""
    moves = []
    for move in spec.moves:
        to, at = evaluator.evaluate(move.to, "text"), evaluator.evaluate(move.at, "time")
        faults.add("stage change to", to.bad)
        faults.add("stage change at", at.bad)
        too_late(at.values, "stage change at", settings, faults)
        moves.append((to.values, at.values))
    return moves


def _moves_of(
    spec: TableSpec,
    columns: dict[str, npt.NDArray[Any]],
    moves: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]],
    rows: npt.NDArray[np.int64],
) -> Table | None:
    """The stage changes of the stored rows, each from the stage entered before it."""
    if not moves:
        return None
    ids = columns[f"{spec.entity.name}_id"]
    stage = np.concatenate([to[rows] for to, _ in moves])
    time = np.concatenate([at[rows] for _, at in moves])
    listed = np.repeat(np.arange(len(moves)), len(rows))
    row = np.tile(rows, len(moves))
    real = np.flatnonzero(~np.isnat(time) & ~pd.isna(stage))
    real = real[np.lexsort((listed[real], time[real], row[real]))]
    row, stage = row[real], stage[real]
    again = np.r_[False, row[1:] == row[:-1]] if len(row) else np.zeros(0, dtype=bool)
    before = np.roll(stage, 1)
    before[~again] = None
    moved = stage != before
    n = int(moved.sum())
    return Table.from_columns(
        ENTITIES["stage_change"],
        {
            "entity": np.full(n, spec.entity.name, dtype=object),
            "entity_id": ids[row[moved]],
            "changed_at": time[real][moved],
            "from_stage_id": before[moved],
            "to_stage_id": stage[moved],
            "provenance": np.full(n, "entered_dates", dtype=object),
            "sequence": listed[real][moved].astype(np.float64),
        },
    )
