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

__all__ = ["ClosingDates", "changes_of"]

_CLOSED_AT = {"deal": ("closed_at", "closed_at"), "lead": ("qualified_at", "disqualified_at")}


def changes_of(changes: Table, field: str) -> Table:
    """The kept changes of one field."""
    codes, levels = dictionary(changes["field"])
    return changes.take(np.flatnonzero(codes_in(levels, codes, {field})))


def _line(side: Side, table: Table, changes: Table, field: str) -> Timeline:
    kept = changes_of(changes, field)
    rows = places(table[f"{side}_id"], kept["entity_id"])
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
        line = _line(side, table, changes, won)
        return cls({WON: line, LOST: line if lost == won else _line(side, table, changes, lost)})

    def at(self, rows: IntArray, outcome: IntArray, moments: IntArray) -> IntArray:
        """The dates as known at each moment, int64 microseconds, NEVER for none."""
        return self._pick(outcome, lambda line: line.at(rows, moments).numbers())

    def base(self, rows: IntArray, outcome: IntArray) -> IntArray:
        """The dates before any change was known."""
        return self._pick(outcome, lambda line: line.base.values[rows])

    def first(self, rows: IntArray, outcome: IntArray) -> tuple[IntArray, IntArray]:
        """The first date that each row had, and since when it is known; -NEVER: with the row."""
        date = self.base(rows, outcome)
        since = np.full(len(rows), -NEVER, dtype=np.int64)
        for i in np.flatnonzero(date == NEVER):
            changes = self.lines[int(outcome[i])].changes
            assert changes is not None
            for place in range(changes.start[rows[i]], changes.start[rows[i] + 1]):
                moment = changes.known_at[place : place + 1]
                told = self.at(rows[i : i + 1], outcome[i : i + 1], moment)
                if told[0] != NEVER:
                    date[i], since[i] = told[0], moment[0]
                    break
        return date, since

    def _pick(self, outcome: IntArray, read: Callable[[Timeline], FloatArray]) -> IntArray:
        won = read(self.lines[WON])
        one = self.lines[LOST] is self.lines[WON]
        days = won if one else np.where(outcome == WON, won, read(self.lines[LOST]))
        known = ~np.isnan(days)
        found = np.round(np.where(known, days, 0.0) * DAY).astype(np.int64)
        return np.where(known, found, NEVER)

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
