"""Features of a case at each of its events: the product's kernels, and some that only a log has.

The kernels here are made like those of `data.feature_kernels`: from a snapshot alone, through
what it has seen, so that nothing later than an event can be in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.columns import DAY, NEVER, FloatArray, IntArray, codes_in
from data.events import Events, group_events, rank_within
from data.feature_kernels import KERNELS
from data.features import Feature, FeatureColumns, compute
from data.history import Snapshot

__all__ = ["event_columns", "take"]

_Values = FloatArray | tuple[npt.NDArray[np.int32], npt.NDArray[np.object_]]
_ZONE = "Europe/Amsterdam"
# Nothing but trailing work follows these.
_FINAL = {"A_APPROVED", "A_REGISTERED", "A_ACTIVATED", "A_DECLINED", "A_CANCELLED"}
_WORK_MINUTE = 60e6
_STARTED = " started"


def event_columns(snapshot: Snapshot, names: Sequence[str]) -> FeatureColumns:
    """Columns by name, `kernel` or `kernel[argument]`; the product's kernels come first."""
    columns: FeatureColumns = {}
    for name in names:
        kernel, _, argument = name.partition("[")
        if kernel in KERNELS:
            kind: Any = "category" if kernel in ("stage", "last_activity") else "number"
            columns |= compute(snapshot, [Feature(name, kind, "", "")])
        else:
            columns[name] = _KERNELS[kernel](snapshot, argument.removesuffix("]"))
    return columns


def take(columns: FeatureColumns, rows: npt.NDArray[Any]) -> FeatureColumns:
    """Some rows of named columns."""
    return {k: (v[0][rows], v[1]) if isinstance(v, tuple) else v[rows] for k, v in columns.items()}


# --- which events, and when ------------------------------------------------------------------


def _total(s: Snapshot, kind: str) -> FloatArray:
    """Events of one type so far."""
    lo, hi = s.seen(s.ledger.activities_of(kind))
    return (hi - lo).astype(np.float64)


def _days_since(s: Snapshot, events: Events) -> FloatArray:
    last = events.latest(*s.seen(events))
    return np.where(last >= 0, (s.at - np.append(events.at, 0)[last]) / DAY, np.nan)


def _days_since_type(s: Snapshot, kind: str) -> FloatArray:
    return _days_since(s, s.ledger.activities_of(kind))


def _track(s: Snapshot, prefix: str) -> Events:
    """The events whose name begins so: application, offer and work run beside each other."""
    levels = s.ledger.activity_levels
    chosen = {level for level in levels.tolist() if level.startswith(prefix)}
    memory = s.ledger.memory.setdefault("tracks", {})
    if prefix not in memory:
        events = s.ledger.activities
        memory[prefix] = events.where(codes_in(levels, events.value.astype(np.int32), chosen))
    found: Events = memory[prefix]
    return found


def _last_of_track(s: Snapshot, prefix: str) -> _Values:
    events = _track(s, prefix)
    last = events.latest(*s.seen(events))
    return events.pick(last, -1).astype(np.int32), s.ledger.activity_levels


def _days_since_track(s: Snapshot, prefix: str) -> FloatArray:
    return _days_since(s, _track(s, prefix))


def _position_back(s: Snapshot, back: int) -> IntArray:
    lo, hi = s.seen(s.ledger.activities)
    return np.where(hi - 1 - back >= lo, hi - 1 - back, -1)


def _event_before(s: Snapshot, back: str) -> _Values:
    codes = s.ledger.activities.pick(_position_back(s, int(back)), -1)
    return codes.astype(np.int32), s.ledger.activity_levels


def _days_between(s: Snapshot, _: str) -> FloatArray:
    """Days from the event before to the last one."""
    at, here, before = s.ledger.activities.at, _position_back(s, 0), _position_back(s, 1)
    return np.where(before >= 0, (at[here] - at[before]) / DAY, np.nan)


def _offers_out(s: Snapshot, _: str) -> FloatArray:
    return _total(s, "O_SENT") - _total(s, "O_CANCELLED")


# --- clock, people, load ---------------------------------------------------------------------


def _local(s: Snapshot) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(pd.to_datetime(s.at, unit="us", utc=True)).tz_convert(_ZONE)


def _hour(s: Snapshot, _: str) -> FloatArray:
    local = _local(s)
    return np.asarray(local.hour + local.minute / 60, dtype=np.float64)


def _weekday(s: Snapshot, _: str) -> FloatArray:
    return np.asarray(_local(s).weekday, dtype=np.float64)


def _owner(s: Snapshot, _: str) -> _Values:
    told = s.value("owner_id").as_text()
    return told.values.astype(np.int32), told.levels


def _owner_at(s: Snapshot, kind: str) -> _Values:
    """Who was at work at the last event of one type."""
    events = s.ledger.activities_of(kind)
    last = events.latest(*s.seen(events))
    told = s.ledger.timeline("owner_id").at(s.rows, np.append(events.at, 0)[last]).as_text()
    return np.where(last >= 0, told.values, -1).astype(np.int32), told.levels


def _owner_changes(s: Snapshot, _: str) -> FloatArray:
    return s.ledger.timeline("owner_id").count(s.rows, s.at).astype(np.float64)


def _open_cases(s: Snapshot, _: str) -> FloatArray:
    """Cases that had begun and were not decided yet, this one among them."""
    ledger = s.ledger
    decided = np.full(len(ledger), NEVER)
    for kind in _FINAL:
        events = ledger.activities_of(kind)
        np.minimum.at(decided, events.row, events.known_at)
    begun = np.searchsorted(np.sort(ledger.known_from), s.at, "right")
    return (begun - np.searchsorted(np.sort(decided), s.at, "right")).astype(np.float64)


# --- work done -------------------------------------------------------------------------------


def _work(s: Snapshot) -> tuple[Events, FloatArray]:
    """Finished work items, and the minutes from the start to the end of each."""
    ledger = s.ledger
    if "work" not in ledger.memory:
        kinds = [k[: -len(_STARTED)] for k in ledger.activity_levels if k.endswith(_STARTED)]
        row, at, minutes = (np.concatenate(a) for a in zip(*map(_of_kind(s), kinds), strict=True))
        nothing = np.zeros(len(row))
        order = np.arange(len(row))
        events, taken = group_events(len(ledger), row, at, at, nothing, order)
        ledger.memory["work"] = events, minutes[taken]
    found: tuple[Events, FloatArray] = ledger.memory["work"]
    return found


def _of_kind(s: Snapshot) -> Callable[[str], tuple[IntArray, IntArray, FloatArray]]:
    def finished(kind: str) -> tuple[IntArray, IntArray, FloatArray]:
        done, begun = s.ledger.activities_of(kind), s.ledger.activities_of(kind + _STARTED)
        lo = begun.start[done.row]
        last = rank_within(begun.at, lo, begun.start[done.row + 1], done.at) - 1
        same = np.r_[False, done.row[1:] == done.row[:-1]]
        before = np.where(same, np.roll(done.at, 1), -NEVER)
        begun_at = begun.at[np.maximum(last, 0)]
        own = (last >= lo) & (begun_at > before)  # a start belongs to the next end only
        minutes = np.where(own, (done.at - begun_at) / _WORK_MINUTE, 0.0)
        return done.row, done.at, minutes

    return finished


def _work_minutes(s: Snapshot, _: str) -> FloatArray:
    events, minutes = _work(s)
    lo, hi = s.seen(events)
    total = np.r_[0.0, np.cumsum(minutes)]
    return np.asarray(total[hi] - total[lo], dtype=np.float64)


def _last_work_minutes(s: Snapshot, _: str) -> FloatArray:
    events, minutes = _work(s)
    last = events.latest(*s.seen(events))
    return np.where(last >= 0, minutes[last], np.nan)


_KERNELS: dict[str, Callable[[Snapshot, str], _Values]] = {
    "total": _total,
    "days_since": _days_since_type,
    "last_of_track": _last_of_track,
    "days_since_track": _days_since_track,
    "event_before": _event_before,
    "days_between_events": _days_between,
    "offers_out": _offers_out,
    "hour": _hour,
    "weekday": _weekday,
    "owner": _owner,
    "owner_at": _owner_at,
    "owner_changes": _owner_changes,
    "open_cases": _open_cases,
    "work_minutes": _work_minutes,
    "last_work_minutes": _last_work_minutes,
}
