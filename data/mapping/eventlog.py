"""`[[log]]`: the events of cases -> deals (or leads), stage changes, activities, owners.

Every event ends as exactly one of: a stage change, an activity, the outcome of its case,
ignored, after the outcome, or rejected. Whatever a case is said to be (its stage, its owner, its
outcome) is read from the events up to its outcome, in the order of time, then of the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.mapping.evaluation import Evaluator
from data.mapping.imported import Tally
from data.mapping.logevents import (
    ACTIVITY,
    IGNORE,
    OUTCOME,
    STAGE,
    Events,
    LogColumns,
    Names,
    check_events,
    names_of,
    read_columns,
    refuse_doubles,
    sort_events,
)
from data.mapping.logspec import LogSpec
from data.mapping.mapped_table import Faults, Settings, read_attribute_columns, read_field, selected
from data.records import ENTITIES, Table

__all__ = ["MappedLog", "map_log"]

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
ObjectArray = npt.NDArray[np.object_]

_CLOSING = {
    "won": ("closed_at", None),
    "lost": ("closed_at", "loss_reason"),
    "qualified": ("qualified_at", None),
    "disqualified": ("disqualified_at", "disqualification_reason"),
}
_SUFFIX = {"done": "", "planned": " planned", "started": " started", "ignore": ""}


@dataclass(frozen=True)
class MappedLog:
    """What a log became: its cases, and the events besides."""

    tally: Tally
    cases: Table
    events: tuple[Table, ...]


@dataclass(frozen=True)
class _Log:
    """All that is known of a log once its usable events are in order.

    `time`, `owner` and `life` are by event, of shape (m,); `starts` holds the position of each
    case's first event and `closes` that of its outcome, m where there is none.
    """

    spec: LogSpec
    events: Events
    names: Names
    columns: LogColumns
    time: npt.NDArray[Any]
    owner: ObjectArray
    life: ObjectArray
    starts: IntArray
    closes: IntArray

    @property
    def ids(self) -> ObjectArray:
        """The id of each case."""
        found: ObjectArray = self.columns.case[self.events.row[self.starts]]
        return found

    def case_ids(self, at: IntArray) -> ObjectArray:
        """The case id of events by position."""
        found: ObjectArray = self.columns.case[self.events.row[at]]
        return found


def map_log(spec: LogSpec, evaluator: Evaluator, settings: Settings) -> MappedLog:
    """Do what one `[[log]]` says."""
    tally = Tally(evaluator.frame, f"{spec.place}: {spec.entity.name}")
    keep = selected(evaluator, spec.filter)
    tally.ignored["where"] = int((~keep).sum())
    faults = Faults()
    columns = read_columns(spec, evaluator, settings, faults)
    names = names_of(spec, columns.activity, evaluator)
    check_events(spec, columns, names, faults)
    fields, attributes, case_faults = _read_case_fields(spec, evaluator)
    good = keep.copy()
    good[list(faults.by_row)] = False
    refuse_doubles(columns, good, evaluator, tally, faults)
    good[list(faults.by_row)] = False
    events = sort_events(columns, names, good)
    if _refuse_cases(columns, events, case_faults, faults):
        good[list(faults.by_row)] = False
        events = sort_events(columns, names, good)
    for row, why in sorted(faults.by_row.items()):
        if keep[row]:
            tally.reject(row, why)
    log = _open_log(spec, columns, names, events)
    _note_changing(log, {**fields, **attributes}, evaluator)
    cases = _cases(log, fields, attributes, settings)
    tally.made[spec.entity.name] = len(cases)
    return MappedLog(tally, cases, _sort_out(log, tally))


def _read_case_fields(
    spec: LogSpec, evaluator: Evaluator
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, ObjectArray], dict[int, str]]:
    faults = Faults()
    fields = {
        name: read_field(evaluator, spec.entity.by_name[name], expression, faults)[0]
        for name, expression in spec.fields.items()
    }
    attributes = read_attribute_columns(spec, spec.entity, evaluator, spec.columns_used, faults)
    return fields, attributes, faults.by_row


def _refuse_cases(
    columns: LogColumns, events: Events, case_faults: dict[int, str], faults: Faults
) -> bool:
    """Refuse all events of a case whose first event holds a field that cannot be used."""
    firsts = events.row[events.first]
    bad = {i: case_faults[int(r)] for i, r in enumerate(firsts) if int(r) in case_faults}
    for place in np.flatnonzero(np.isin(events.case, list(bad))):
        row, why = int(events.row[place]), bad[int(events.case[place])]
        faults.by_row[row] = f"the first event of case {columns.case[row]} has {why}"
    return bool(bad)


def _open_log(spec: LogSpec, columns: LogColumns, names: Names, events: Events) -> _Log:
    """Find where each case starts and where it is decided."""
    owner = columns.owner[events.row]
    owner[np.isin(owner.astype(str), list(spec.automatic))] = None
    life = np.full(len(events.row), "done", dtype=object)
    if spec.lifecycle is not None:
        codes, words = pd.factorize(columns.lifecycle[events.row])
        meant = np.array([spec.lifecycles[w] for w in words] + [None], dtype=object)
        life = meant[codes]
    starts = np.flatnonzero(events.first)
    closes = np.full(len(starts), len(events.row), dtype=np.int64)
    deciding = np.flatnonzero((events.role == OUTCOME) & (life != "ignore"))
    case, earliest = np.unique(events.case[deciding], return_index=True)
    closes[case] = deciding[earliest]
    time = columns.time[events.row]
    return _Log(spec, events, names, columns, time, owner, life, starts, closes)


def _note_changing(log: _Log, values: dict[str, npt.NDArray[Any]], evaluator: Evaluator) -> None:
    """Tell which fields of a case its events do not agree on."""
    for name, column in values.items():
        codes, _ = pd.factorize(column[log.events.row])
        differs = codes != codes[log.starts][log.events.case]
        if count := len(np.unique(log.events.case[differs])):
            evaluator.note(
                f"{name} changes within {count:,} cases; the value of the first event is taken"
            )


def _sort_out(log: _Log, tally: Tally) -> tuple[Table, ...]:
    """Give every event its one fate; the tables of those that are stored."""
    events, spec = log.events, log.spec
    place = np.arange(len(events.row))
    close = log.closes[events.case]
    after = (place > close) if spec.cut else np.zeros(len(place), dtype=bool)
    live = ~after & (place != close)
    listed = live & (events.role == IGNORE)
    lifecycle = live & ~listed & (log.life == "ignore")
    again = live & ~lifecycle & (events.role == OUTCOME)
    live &= ~listed & ~lifecycle & ~again
    in_stage = np.flatnonzero(live & (events.role == STAGE))
    acted = np.flatnonzero(live & (events.role == ACTIVITY))
    moves, repeated = _moves(log, in_stage)
    tally.after_outcome = int(after.sum())
    tally.ignored += {
        "listed in ignore": int(listed.sum()),
        "lifecycle": int(lifecycle.sum()),
        "outcome again": int(again.sum()),
        "already in the stage": repeated,
    }
    changes = _owner_changes(log, np.flatnonzero(live))
    activities = _activities(log, acted)
    tally.stored += {
        "stage_change": len(moves),
        "activity": len(activities),
        "outcome": int((log.closes < len(place)).sum()),
    }
    tally.made["field_change"] = len(changes)
    return moves, activities, changes


def _new_in_case(case: IntArray, value: npt.NDArray[Any]) -> BoolArray:
    """Where a value differs from the one before it in the same case."""
    if len(case) == 0:
        return np.zeros(0, dtype=bool)
    new: BoolArray = np.r_[True, (case[1:] != case[:-1]) | (value[1:] != value[:-1])]
    return new


def _before(case: IntArray, value: ObjectArray) -> ObjectArray:
    """The value before each one in the same case, None before the first."""
    previous = np.roll(value, 1)
    if len(case):
        previous[np.r_[True, case[1:] != case[:-1]]] = None
    return previous


def _texts(n: int, value: str) -> ObjectArray:
    return np.full(n, value, dtype=object)


def _moves(log: _Log, at: IntArray) -> tuple[Table, int]:
    """The stage changes among stage events, and how many of these changed nothing."""
    events = log.events
    moved = at[_new_in_case(events.case[at], events.meaning[at])]
    ids = np.array([s.stage_id for s in log.spec.stages] + [None], dtype=object)
    to = events.meaning[moved]
    stage = ids[to]
    key = pd.DataFrame({"case": events.case[moved], "time": log.time[moved], "to": to})
    once = ~key.duplicated().to_numpy()
    before = _before(events.case[moved], stage)
    kept = moved[once]
    table = Table.from_columns(
        ENTITIES["stage_change"],
        {
            "entity": _texts(len(kept), log.spec.entity.name),
            "entity_id": log.case_ids(kept),
            "changed_at": log.time[kept],
            "from_stage_id": before[once],
            "to_stage_id": stage[once],
            "changed_by_id": log.columns.owner[events.row[kept]],
            "provenance": _texts(len(kept), "native"),
            "sequence": events.number[kept],
        },
    )
    return table, len(at) - len(kept)


def _activities(log: _Log, at: IntArray) -> Table:
    events = log.events
    types = np.array([*log.names.types, None], dtype=object)
    suffix = np.array([_SUFFIX[w] for w in log.life[at]] + [None], dtype=object)[:-1]
    case = log.case_ids(at)
    if log.columns.order_text is None:
        number = events.number[at].astype(np.int64).astype(str).astype(object)
    else:
        number = log.columns.order_text[events.row[at]]
    return Table.from_columns(
        ENTITIES["activity"],
        {
            "activity_id": case + "-" + number,
            "type": types[events.meaning[at]] + suffix,
            "occurred_at": log.time[at],
            "is_done": (log.life[at] == "done").astype(np.float64),
            "owner_id": log.owner[at],
            f"{log.spec.entity.name}_id": case,
            "sequence": events.number[at],
        },
    )


def _last_of_moment(log: _Log, at: IntArray) -> IntArray:
    """Of events of one case at one moment, the last."""
    case, time = log.events.case[at], log.time[at]
    if len(at) == 0:
        return at
    return at[np.r_[(case[1:] != case[:-1]) | (time[1:] != time[:-1]), True]]


def _owner_changes(log: _Log, live: IntArray) -> Table:
    """The owners a case had, from one person to the next; automatic ones do not count."""
    at = _last_of_moment(log, live[~pd.isna(log.owner[live])])
    at = at[_new_in_case(log.events.case[at], log.owner[at])]
    return Table.from_columns(
        ENTITIES["field_change"],
        {
            "entity": _texts(len(at), log.spec.entity.name),
            "entity_id": log.case_ids(at),
            "changed_at": log.time[at],
            "field": _texts(len(at), "owner_id"),
            "old_value": _before(log.events.case[at], log.owner[at]),
            "new_value": log.owner[at],
            "provenance": _texts(len(at), "native"),
            "sequence": log.events.number[at],
        },
    )


def _cases(
    log: _Log,
    fields: dict[str, npt.NDArray[Any]],
    attributes: dict[str, ObjectArray],
    settings: Settings,
) -> Table:
    """One record for each case, as it stands at its outcome or at the end of the log."""
    spec, events, side = log.spec, log.events, log.spec.entity.name
    first = events.row[log.starts]
    columns = {name: values[first] for name, values in fields.items()}
    columns |= {f"{side}_id": log.ids, "created_at": log.time[log.starts]}
    columns |= _closing(log)
    place = np.arange(len(events.row))
    before = (place < log.closes[events.case]) | (not spec.cut)
    before &= (events.role != IGNORE) & (events.role != OUTCOME) & (log.life != "ignore")
    if spec.owner is not None:
        columns["owner_id"] = _latest(log, before & ~pd.isna(log.owner), log.owner)
    if side == "deal":
        stage = np.array([s.stage_id for s in spec.stages] + [None], dtype=object)
        in_stage = before & (events.role == STAGE)
        here = stage[np.where(in_stage, events.meaning, -1)]
        columns["stage_id"] = _latest(log, in_stage, here)
        columns["pipeline_id"] = _texts(len(first), spec.pipeline)
        if "closed_amount" in columns:
            won = columns["outcome"] == "won"
            columns["closed_amount"] = np.where(won, columns["closed_amount"], np.nan)
        if settings.currency and "currency" not in columns:
            columns["currency"] = _texts(len(first), settings.currency)
    kept = {name: values[first] for name, values in attributes.items()}
    return Table.from_columns(spec.entity, columns, kept)


def _latest(log: _Log, mask: BoolArray, values: ObjectArray) -> ObjectArray:
    """The last value of each case among the events of a mask."""
    latest = np.full(len(log.starts), None, dtype=object)
    at = np.flatnonzero(mask)
    latest[log.events.case[at]] = values[at]  # in order, so that the last one stays
    return latest


def _closing(log: _Log) -> dict[str, npt.NDArray[Any]]:
    n = len(log.starts)
    columns: dict[str, npt.NDArray[Any]] = {"outcome": _texts(n, "open")}
    closed = np.flatnonzero(log.closes < len(log.events.row))
    which = log.events.meaning[log.closes[closed]]
    for i, outcome in enumerate(log.spec.outcomes):
        cases = closed[which == i]
        at, why = _CLOSING[outcome.value]
        columns["outcome"][cases] = outcome.value
        columns.setdefault(at, np.full(n, "NaT", dtype="datetime64[us]"))
        columns[at][cases] = log.time[log.closes[cases]]
        if why is not None:
            columns.setdefault(why, np.full(n, None, dtype=object))[cases] = outcome.reason
    return columns
