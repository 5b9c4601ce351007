"""Closing dates: a row says on which day a record closed, and may say it late, or say it anew.

A closing that is told at noon may be dated a week back. It counts on its date, but is known only
from noon. A date that is corrected later moves the closing from when the correction was known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data.chronicle import LOST, OPEN, WON, Side, known_times
from data.columns import (
    DAY,
    NEVER,
    BoolArray,
    FloatArray,
    IntArray,
    codes_in,
    dictionary,
    micros,
    places,
    to_column,
)
from data.events import Events, group_events, prefixes
from data.records import Table
from data.timelines import Changes, Timeline

__all__ = ["ClosingDates", "changes_of", "date_line", "first_dates"]

_CLOSED_AT = {"deal": ("closed_at", "closed_at"), "lead": ("qualified_at", "disqualified_at")}


def changes_of(changes: Table, field: str) -> Table:
    """The kept changes of one field."""
    codes, levels = dictionary(changes["field"])
    return changes.take(np.flatnonzero(codes_in(levels, codes, {field})))


def date_line(table: Table, changes: Table, field: str) -> Timeline:
    """A moment that a row carries, as days since 1970, through time."""
    kept = changes_of(changes, field)
    rows = places(table[table.entity.key[0]], kept["entity_id"])
    kept, rows = kept.take(rows >= 0), rows[rows >= 0]
    always = np.full(len(table), -NEVER, dtype=np.int64)
    return Timeline.with_changes(
        to_column(table[field]),
        always,
        Changes(
            rows, micros(kept["changed_at"]), known_times(kept), kept["sequence"],
            kept["old_value"], kept["new_value"],
        ),
    )  # fmt: skip


def first_dates(line: Timeline) -> tuple[IntArray, IntArray]:
    """The first date that each row had, and since when it is known; -NEVER: as long as the row."""
    date = _moments(line.base.values)
    since = np.full(len(date), -NEVER, dtype=np.int64)
    changes = line.changes
    assert changes is not None
    # The first change of a date that was missing gives one.
    for row in np.flatnonzero((date == NEVER) & (np.diff(changes.start) > 0)):
        known = changes.known_at[changes.start[row] : changes.start[row + 1]]
        told = _moments(line.at(np.full(len(known), row), known).numbers())
        given = np.flatnonzero(told != NEVER)
        if len(given):
            date[row], since[row] = told[given[0]], known[given[0]]
    return date, since


def _moments(days: FloatArray) -> IntArray:
    known = ~np.isnan(days)
    return np.where(known, np.round(np.where(known, days, 0.0) * DAY).astype(np.int64), NEVER)


@dataclass(frozen=True)
class ClosingDates:
    """The dates at which records were won and lost, as known through time.

    Attributes
    ----------
    lines : dict of int to Timeline
        By outcome code; a deal has one date for both.
    """

    lines: dict[int, Timeline]

    @classmethod
    def of(cls, side: Side, table: Table, changes: Table) -> ClosingDates:
        """The dates of all records of one side."""
        won, lost = _CLOSED_AT[side]
        line = date_line(table, changes, won)
        return cls({WON: line, LOST: line if lost == won else date_line(table, changes, lost)})

    def at(self, rows: IntArray, outcome: IntArray, moments: IntArray) -> IntArray:
        """The dates as known at each moment, int64 microseconds, NEVER for none."""
        return self._pick(outcome, lambda line: line.at(rows, moments).numbers())

    def base(self, rows: IntArray, outcome: IntArray) -> IntArray:
        """The dates before any change was known."""
        return self._pick(outcome, lambda line: line.base.values[rows])

    def first(self, rows: IntArray, outcome: IntArray) -> tuple[IntArray, IntArray]:
        """The first dates that rows had, and since when they are known."""
        date, since = first_dates(self.lines[WON])
        if self.lines[LOST] is not self.lines[WON]:
            lost = np.flatnonzero(outcome == LOST)
            date, since = date.copy(), since.copy()
            date_lost, since_lost = first_dates(self.lines[LOST])
            date[rows[lost]], since[rows[lost]] = date_lost[rows[lost]], since_lost[rows[lost]]
        return date[rows], since[rows]

    def _pick(self, outcome: IntArray, read: Callable[[Timeline], FloatArray]) -> IntArray:
        days = read(self.lines[WON])
        if self.lines[LOST] is not self.lines[WON]:
            days = np.where(outcome == WON, days, read(self.lines[LOST]))
        return _moments(days)

    def applied(self, told: Events, precise: BoolArray) -> Events:
        """The events, each closing at its date as known when it was told, then as corrected.

        Parameters
        ----------
        told : Events
            Closings and reopenings by the time they were told to have happened.
        precise : bool, shape (n_events,)
            Whether that time is the source's own: then a date of the same day (00:00) says less.
        """
        closing = np.flatnonzero(told.value != OPEN)
        floor = _floors(told)
        at = told.at.copy()
        at[closing] = self._dated(told, precise, floor, closing, told.known_at[closing])
        parts = [(told.row, at, told.known_at, told.value)]
        parts += self._corrected(told, precise, floor, at)
        row, when, known, value = (np.concatenate(p) for p in zip(*parts, strict=True))
        number = np.arange(len(row), dtype=np.float64)
        return group_events(len(told.in_order), row, when, known, number, value)[0]

    def _dated(
        self, told: Events, precise: BoolArray, floor: IntArray, place: IntArray, known: IntArray
    ) -> IntArray:
        """When closings count, by their dates as known at some moments."""
        date = self.at(told.row[place], told.value[place], known)
        same_day = precise[place] & (told.at[place] - np.minimum(date, told.at[place]) < DAY)
        stands = (date >= told.at[place]) | same_day
        return np.where(stands, told.at[place], np.maximum(date, floor[place]))

    def _corrected(
        self, told: Events, precise: BoolArray, floor: IntArray, at: IntArray
    ) -> list[tuple[IntArray, IntArray, IntArray, IntArray]]:
        """Closings moved by a later date: what stood is undone, and done anew.

        Nothing can be taken out of the events that were known before. A reopening of the very
        moment of a closing undoes it: of one moment, what is known last holds.
        """
        found = []
        current = at.copy()
        for outcome, line in self.lines.items():
            changes = line.changes
            assert changes is not None
            last = told.latest(*told.known(changes.row, changes.known_at))
            fits = told.pick(last, OPEN) == outcome
            fits &= changes.known_at > np.append(told.known_at, 0)[last]
            for change in np.flatnonzero(fits):
                place, known = last[change : change + 1], changes.known_at[change : change + 1]
                anew = self._dated(told, precise, floor, place, known)
                stood = current[place]
                if anew[0] > stood[0]:
                    found.append((told.row[place], stood, known, np.array([OPEN])))
                if anew[0] != stood[0]:
                    found.append((told.row[place], anew, known, told.value[place]))
                    current[place] = anew
        return found


def _floors(told: Events) -> IntArray:
    """What each event cannot be dated before: the event before it, as known then."""
    floor: IntArray = np.r_[-NEVER, told.at[:-1]][: len(told.at)]
    floor[told.start[:-1][told.start[:-1] < told.start[1:]]] = -NEVER
    for record in np.flatnonzero(~told.in_order):
        for position, line in prefixes(told, int(record)):
            place = line.index(position)
            floor[position] = told.at[line[place - 1]] if place else -NEVER
    return floor
