"""The events of a log, read, checked one by one and put in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.mapping.evaluation import Evaluator
from data.mapping.expressions import ColumnOf, How
from data.mapping.imported import Tally
from data.mapping.logspec import LogSpec
from data.mapping.mapped_table import Faults, Settings, too_late
from data.mapping.sections import did_you_mean, shorten

__all__ = [
    "ACTIVITY",
    "IGNORE",
    "OUTCOME",
    "STAGE",
    "Events",
    "LogColumns",
    "Names",
    "check_events",
    "names_of",
    "read_columns",
    "refuse_doubles",
    "sort_events",
]

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
ObjectArray = npt.NDArray[np.object_]

IGNORE, STAGE, ACTIVITY, OUTCOME = range(4)


@dataclass(frozen=True)
class LogColumns:
    """The columns of the log over all rows of the file, as read."""

    case: ObjectArray
    activity: ObjectArray
    time: npt.NDArray[Any]
    order: npt.NDArray[np.float64]
    order_text: ObjectArray | None
    owner: ObjectArray
    lifecycle: ObjectArray


@dataclass(frozen=True)
class Events:
    """The usable events, sorted by case, time and order; arrays of shape (m,).

    Attributes
    ----------
    row : int64
        Position in the file.
    case : int64
        Number of the case, in order of its first appearance in the file.
    role : int64
        What the activity's name means; `meaning` is its stage, type or outcome by number.
    number : float64
        The event's own order number, or its position in the case.
    """

    row: IntArray
    case: IntArray
    role: IntArray
    meaning: IntArray
    number: npt.NDArray[np.float64]
    first: BoolArray


@dataclass(frozen=True)
class Names:
    """What each activity name means."""

    roles: dict[str, tuple[int, int]]
    types: tuple[str, ...]


def read_columns(
    spec: LogSpec, evaluator: Evaluator, settings: Settings, faults: Faults
) -> LogColumns:
    """Read what the log says of each event; what is missing or unreadable goes to `faults`."""
    n = len(evaluator)
    empty = np.full(n, None, dtype=object)
    case = evaluator.evaluate(spec.case, "text")
    activity = evaluator.evaluate(spec.activity, "text")
    time = evaluator.evaluate(spec.time, "time")
    for name, parsed in (("case", case), ("activity", activity), ("time", time)):
        faults.add(name, parsed.bad)
        faults.where(name, pd.isna(parsed.values), "is missing, and it is required")
    too_late(time.values, "time", settings, faults)
    order, order_text = np.arange(n, dtype=np.float64), None
    if spec.order is not None:
        place = f"{spec.place}, order"
        parsed = evaluator.evaluate(ColumnOf(How(place), spec.order), "number")
        faults.add("order", parsed.bad)
        faults.where("order", np.isnan(parsed.values), "is missing, and it is required")
        order, order_text = parsed.values, evaluator.texts(spec.order, place)
    owner = empty
    if spec.owner is not None:
        found = evaluator.evaluate(spec.owner, "text")
        faults.add("owner", found.bad)
        owner = found.values
    lifecycle = empty
    if spec.lifecycle is not None:
        lifecycle = evaluator.texts(spec.lifecycle, f"{spec.place}, lifecycle").copy()
        lifecycle[pd.isna(lifecycle)] = ""
    return LogColumns(
        case.values, activity.values, time.values, order, order_text, owner, lifecycle
    )


def names_of(spec: LogSpec, activity: ObjectArray, evaluator: Evaluator) -> Names:
    """What each activity name means; one that never occurs is noted."""
    roles: dict[str, tuple[int, int]] = {}
    types = list(dict.fromkeys(t for n, t in spec.activities.items() if n != "*"))
    for i, stage in enumerate(spec.stages):
        roles |= {n: (STAGE, i) for n in stage.activities}
    for i, outcome in enumerate(spec.outcomes):
        roles |= {n: (OUTCOME, i) for n in outcome.names}
    roles |= {n: (ACTIVITY, types.index(t)) for n, t in spec.activities.items() if n != "*"}
    roles |= {n: (IGNORE, 0) for n in spec.ignore}
    occurring = [str(n) for n in pd.unique(activity) if n is not None]
    for name in roles:
        if name not in occurring:
            evaluator.note(
                f'the activity "{name}" of {spec.place} never occurs; '
                + did_you_mean(name, occurring)
            )
    others = spec.activities.get("*")
    if others is not None:
        for name in occurring:
            if name not in roles:
                types.append(name if others == "*" else others)
                roles[name] = (ACTIVITY, len(types) - 1)
    return Names(roles, tuple(types))


def check_events(spec: LogSpec, columns: LogColumns, names: Names, faults: Faults) -> None:
    """Refuse events whose activity or lifecycle the mapping does not list."""
    codes, distinct = pd.factorize(columns.activity)
    for code, name in enumerate(distinct):
        if name not in names.roles:
            why = f"{shorten(str(name))} is not listed; add it to a stage, activities or ignore"
            faults.where("activity", codes == code, why)
    if spec.lifecycle is None:
        return
    codes, distinct = pd.factorize(columns.lifecycle)
    for code, word in enumerate(distinct):
        if word not in spec.lifecycles:
            seen = did_you_mean(str(word), spec.lifecycles)
            faults.where("lifecycle", codes == code, f"{shorten(word)} is not listed; {seen}")


def refuse_doubles(
    columns: LogColumns, good: BoolArray, evaluator: Evaluator, tally: Tally, faults: Faults
) -> None:
    """Two events of a case with one order number: the same event twice, or a contradiction."""
    if columns.order_text is None:
        return
    rows = np.flatnonzero(good)
    keys = pd.DataFrame({"case": pd.factorize(columns.case[rows])[0], "order": columns.order[rows]})
    doubled = rows[keys.duplicated(keep=False).to_numpy()]
    groups: dict[tuple[Any, float], list[int]] = {}
    for row in doubled:
        groups.setdefault((columns.case[row], columns.order[row]), []).append(int(row))
    for (case, _), same in groups.items():
        if all(evaluator.frame.raw(r) == evaluator.frame.raw(same[0]) for r in same):
            tally.duplicates += len(same) - 1
            good[same[1:]] = False
            continue
        lines = ", ".join(str(evaluator.frame.lines[r]) for r in same)
        why = f"order: case {case} has it on lines {lines}, with different content"
        faults.by_row.update(dict.fromkeys(same, why))


def sort_events(columns: LogColumns, names: Names, good: BoolArray) -> Events:
    """The good events by case, time, order and line."""
    rows = np.flatnonzero(good)
    case, _ = pd.factorize(columns.case[rows])
    order = np.lexsort((rows, columns.order[rows], columns.time[rows], case))
    rows, case = rows[order], case[order].astype(np.int64)
    codes, distinct = pd.factorize(columns.activity[rows])
    meant = np.array([names.roles[n] for n in distinct], dtype=np.int64).reshape(-1, 2)
    first = np.r_[True, case[1:] != case[:-1]] if len(case) else np.zeros(0, dtype=bool)
    start = np.maximum.accumulate(np.where(first, np.arange(len(rows)), 0))
    position = (np.arange(len(rows)) - start).astype(np.float64)
    number = position if columns.order_text is None else columns.order[rows]
    return Events(rows, case, meant[codes, 0], meant[codes, 1], number, first)
