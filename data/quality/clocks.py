"""Checks of clocks: times that are missing, contradict each other, or are not what they seem."""

from __future__ import annotations

import numpy as np

from data.history import OPEN
from data.quality.findings import (
    Check,
    Finding,
    View,
    date_text,
    graded,
    number_text,
    share_text,
)
from data.records import Table
from data.timelines import DAY, NEVER, BoolArray, IntArray, micros

__all__ = ["CLOCK_CHECKS"]

_MINUTE = 60_000_000  # microseconds
_LATE_DAYS = 30
_EVENTS = ("stage_change", "field_change", "activity", "qualification")
# Before any CRM: a date that stands for none, like 1900-01-01 or 1970-01-01.
_BEFORE_CRMS = int(np.datetime64("1985-01-01", "us").astype(np.int64))


def _without_creation(view: View) -> Finding | None:
    lost = ~view.timed
    n = int(lost.sum())
    if n == 0:
        return None
    return view.finding(
        graded(n / len(view), 0.2),
        f"{number_text(n)} of {view.count(len(view))} without a creation time "
        f"({share_text(n, len(view))}): outside of timing, training and back-tests",
        "map created_at to the time the record entered the CRM; where the source keeps none, the "
        "first time of its history will do",
        examples=lost,
        records=n,
        open=int((lost & view.still_open).sum()),
    )


def _closed_without_time(view: View) -> Finding | None:
    decided = view.outcome != OPEN
    events = view.ledger.outcomes
    silent = decided & (events.start[1:] == events.start[:-1])
    n, total = int(silent.sum()), int(decided.sum())
    if n == 0:
        return None
    field = "closed_at" if view.side == "deal" else "qualified_at and disqualified_at"
    return view.finding(
        graded(n / total, 0.05, 0.0),
        f"{number_text(n)} of {number_text(total)} closed {view.noun} without the time of closing "
        f"({share_text(n, total)}): to the models they look open for ever",
        f"map {field}; without it, the time of the last stage change or of the last modification "
        "is a fair stand-in",
        examples=silent,
        records=n,
    )


def _closed_before_created(view: View) -> Finding | None:
    both = view.timed & (view.row_closed_at != NEVER)
    bad = both & (view.row_closed_at < view.created)
    n = int(bad.sum())
    if n == 0:
        return None
    return view.finding(
        graded(n / both.sum(), 0.05, 0.0),
        f"{view.count(n)} closed before being created",
        "see whether the two columns are swapped, read with different date orders or time zones, "
        "or whether created_at is the moment of an import into the CRM",
        examples=bad,
        records=n,
    )


def _history_before_creation(view: View) -> Finding | None:
    early = np.zeros(len(view), dtype=bool)
    for name in ("stage_change", "field_change"):
        table = view.events(name)
        rows, at = view.rows_of(table["entity_id"]), micros(table["changed_at"])
        ok = (rows >= 0) & view.timed[rows]
        # A date without a time stands at 00:00, before a creation of the same day.
        slack = view.tick(at)
        early[rows[ok][at[ok] + slack <= view.created[rows[ok]]]] = True
    n = int(early.sum())
    if n == 0:
        return None
    return view.finding(
        graded(n / len(view), 1.1),
        f"{view.count(n)} with stage or field changes before the creation",
        "created_at is probably the moment of an import into the CRM: map the first time of the "
        "history instead; or the two files are in different time zones",
        examples=early,
        records=n,
    )


def _written_early(table: Table) -> BoolArray:
    """Rows that the source wrote before what they tell had happened."""
    happened, recorded = micros(table[table.entity.happened]), micros(table["recorded_at"])
    known = (recorded != NEVER) & (happened != NEVER)
    bad = known & (recorded + _MINUTE < np.where(known, happened, 0))
    if table.entity.name == "activity":  # a plan is written before it takes place
        bad &= table["is_done"] == 1.0
    return np.asarray(bad & (table["recorded_assumed"] != 1.0))


def _clock_runs_backwards(view: View) -> Finding | None:
    found: dict[str, int] = {}
    rows: list[IntArray] = []
    for name in _EVENTS:
        table = view.events(name)
        bad = _written_early(table)
        if bad.any():
            found[name] = int(bad.sum())
            key = "entity_id" if "entity_id" in table.columns else f"{view.side}_id"
            rows.append(view.rows_of(table[key][bad]))
    if not found:
        return None
    total = sum(len(view.events(name)) for name in _EVENTS)
    n = sum(found.values())
    concerned = np.unique(np.concatenate(rows))
    return view.finding(
        graded(n / total, 0.2),
        f"events about {view.noun} written before they happened: {number_text(n)} (recorded_at "
        "lies before the event's own time)",
        "see whether the two columns are in different time zones, or swapped; leave recorded_at "
        "out if it is not the time of writing",
        examples=concerned[concerned >= 0],
        events=found,
    )


def _written_late(view: View) -> Finding | None:
    lags = []
    for name in _EVENTS:
        table = view.events(name)
        happened, recorded = micros(table[table.entity.happened]), micros(table["recorded_at"])
        told = (recorded != NEVER) & (happened != NEVER) & (table["recorded_assumed"] != 1.0)
        lags.append((recorded[told] - happened[told]) / DAY)
    lag = np.concatenate(lags)
    late = int((lag > _LATE_DAYS).sum())
    if late < 20 or late < 0.1 * len(lag):
        return None
    return view.finding(
        "warning",
        f"{share_text(late, len(lag))} of the events about {view.noun} were written over "
        f"{_LATE_DAYS} days after they happened; no past score or back-test may know them earlier",
        "if recorded_at is the moment of a migration or an export, leave it out: the event then "
        "counts from its own time",
        events=late,
        median_days=round(float(np.median(lag[lag > _LATE_DAYS])), 1),
    )


def _chain_breaks(view: View) -> Finding | None:
    table = view.events("stage_change")
    rows, at = view.rows_of(table["entity_id"]), micros(table["changed_at"])
    order = np.lexsort((np.nan_to_num(table["sequence"]), at, rows))
    rows, left, entered = rows[order], table["from_stage_id"][order], table["to_stage_id"][order]
    if len(rows) < 2:
        return None
    follows = (rows[1:] == rows[:-1]) & (rows[1:] >= 0)
    told = follows & np.array([stage is not None for stage in left[1:]], dtype=bool)
    broken = told & np.asarray(left[1:] != entered[:-1], dtype=bool)
    n = int(broken.sum())
    if n == 0:
        return None
    return view.finding(
        graded(n / told.sum(), 1.1, 0.02),
        f"{number_text(n)} of {number_text(int(told.sum()))} moves between stages begin in a stage "
        f"that the record was not in ({share_text(n, int(told.sum()))}): some are missing, or out "
        "of order",
        "import all stage changes; where several happen at the same moment, map `sequence` to "
        "their order in the source",
        examples=np.unique(rows[1:][broken]),
        moves=n,
    )


def _history_ends_otherwise(view: View) -> Finding | None:
    events = view.ledger.outcomes
    told = (events.start[1:] > events.start[:-1]) | (view.outcome == OPEN)
    bad = told & (view.last_event != view.outcome)
    n = int(bad.sum())
    if n == 0:
        return None
    return view.finding(
        graded(n / len(view), 0.05, 0.0),
        f"{view.count(n, 'ends', 'end')} otherwise in the history than in the record's own row "
        "(closed here, open there, or won against lost)",
        "see whether moves after the closing are real reopenings, whether the kinds of the stages "
        "are right, and whether both files were exported at the same moment",
        examples=bad,
        records=n,
        row_open=int((bad & (view.outcome == OPEN)).sum()),
        history_open=int((bad & (view.last_event == OPEN)).sum()),
    )


def _after_the_export(view: View) -> Finding | None:
    until = view.until_of(view.table)
    late = (view.timed & (view.created > until)) | (view.closed & (view.closed_at > until))
    for name in ("stage_change", "field_change"):
        table = view.events(name)
        rows = view.rows_of(table["entity_id"])
        at = micros(table["changed_at"])
        ahead = (rows >= 0) & (at != NEVER) & (at > view.until_of(table))
        late[rows[ahead]] = True
    n = int(late.sum())
    if n == 0:
        return None
    return view.finding(
        graded(n / len(view), 0.05, 0.0),
        f"{view.count(n)} created, moved or closed after the moment that the source shows",
        "set exported_at to when the files were written, check the time zone, and do not map an "
        "expected date to closed_at",
        examples=late,
        records=n,
    )


def _dates_for_missing(view: View) -> Finding | None:
    bad = view.timed & (view.created < _BEFORE_CRMS)
    bad |= view.closed & (view.closed_at < _BEFORE_CRMS)
    n = int(bad.sum())
    if n == 0:
        return None
    first = int(min(view.created[bad].min(), view.closed_at[bad].min()))
    return view.finding(
        graded(n / len(view), 0.05, 0.0),
        f"{view.count(n)} with a time like {date_text(first)}, which stands for a missing one",
        "list such values under `missing` of the file in the mapping",
        examples=bad,
        records=n,
    )


def _dates_without_clock(view: View) -> Finding | None:
    known = view.created[view.timed]
    if len(known) < 20 or view.tick(known) != DAY:
        return None
    hour = (known % DAY) // (DAY // 24)
    local = view.calendar.local_days(known) % 1.0
    at_midnight = np.isclose(local, 0.0) | np.isclose(local, 1.0)
    if at_midnight.mean() >= 0.95:
        return view.finding(
            "info",
            f"creation times of {view.noun} are dates without a clock: durations are right to the "
            "day only, and the order within a day is unknown",
            "map the full time if the source has it",
            records=len(known),
        )
    usual = ", ".join(f"{h:02d}:00" for h in np.unique(hour)[:3])
    return view.finding(
        "warning",
        f"creation times of {view.noun} all stand at {usual} UTC, which is not midnight in "
        f"{view.calendar.zone}: they look like dates of another time zone",
        "give the same time_zone in the mapping's [source] and in the settings",
        records=len(known),
        hours_utc=[int(h) for h in np.unique(hour)[:3]],
    )


def _pseudo_times(view: View) -> Finding | None:
    if not view.ledger.pseudo_times:
        return None
    return view.finding(
        "info",
        f"times of {view.noun} were made from the order of the rows: the order is right, "
        "durations, weekdays and periods mean nothing",
        "map real times if the source has them; without them there is no forecast and no time to "
        "close, only a probability",
    )


CLOCK_CHECKS = (
    Check("DQ101", _without_creation, timed=False),
    Check("DQ102", _closed_without_time),
    Check("DQ103", _closed_before_created),
    Check("DQ104", _history_before_creation),
    Check("DQ105", _clock_runs_backwards),
    Check("DQ106", _written_late),
    Check("DQ107", _chain_breaks),
    Check("DQ108", _history_ends_otherwise),
    Check("DQ109", _after_the_export),
    Check("DQ110", _dates_for_missing),
    Check("DQ111", _dates_without_clock),
    Check("DQ112", _pseudo_times, timed=False),
)
