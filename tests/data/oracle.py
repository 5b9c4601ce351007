"""What was known of a deal at a moment, told in plain Python, row by row and one rule at a time.

Slow and simple on purpose: no arrays, no shared code with `data.history`. The rules are those of
`docs` and of the docstrings in `data`; where one reads differently here and there, one is wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from data.records import SourceFacts, Table

DAY = 86_400_000_000
FULL = ("native", "field_history", "audit")
CLOSED = ("won", "lost")

Row = dict[str, Any]


def rows_of(table: Table) -> list[Row]:
    """Rows as dicts; moments as int microseconds, missing as None."""
    columns = {**table.columns, **table.attributes}
    return [{k: _plain(v[i]) for k, v in columns.items()} for i in range(len(table))]


def _plain(value: Any) -> Any:
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else int(value.astype("datetime64[us]").astype(np.int64))
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


@dataclass(frozen=True)
class Event:
    """Something that happened `at` a moment and was known at another."""

    at: int
    known: int
    value: Any


def known_at(row: Row, happened: str) -> int:
    at, recorded = int(row[happened]), row["recorded_at"]
    return at if recorded is None else max(at, int(recorded))


def in_known_order(events: list[tuple[Event, float]]) -> list[Event]:
    """By moment known, then happened, then the number given; else as they stand."""
    return [e for e, _ in sorted(events, key=lambda x: (x[0].known, x[0].at, x[1]))]


def line_of(events: list[Event], t: int) -> list[Event]:
    """What was known at t, in the order it happened; of one moment, what was known last is last."""
    return sorted((e for e in events if e.known <= t), key=lambda e: e.at)


def spells_of(line: list[Event], first: Any = None) -> list[Event]:
    """The events that changed the value."""
    found, before = [], first
    for event in line:
        if event.value != before or (event is line[0] and first is None):
            found.append(event)
        before = event.value
    return found


def lasting(line: list[Event]) -> list[Event]:
    """Of the outcomes of one moment, the last one holds."""
    if not line:
        return []
    return [e for e, after in zip(line, [*line[1:], None], strict=True)
            if after is None or after.at != e.at]  # fmt: skip


class Oracle:
    """All deals of some tables."""

    def __init__(self, tables: dict[str, Table], facts: tuple[SourceFacts, ...]) -> None:
        self.rows = {name: rows_of(table) for name, table in tables.items()}
        self.facts = {f.name: f for f in facts}
        self.closing = {s["stage_id"]: s["kind"] for s in self.rows["stage"] if s["kind"] in CLOSED}
        opened = [s["sort_order"] for s in self.rows["stage"]]
        self.place = {
            s["stage_id"]: sorted(opened).index(s["sort_order"]) + 1 for s in self.rows["stage"]
        }
        self.ids = {r["deal_id"] for r in self.rows["deal"]}
        self.deals = {r["deal_id"]: Deal(self, r) for r in self.rows["deal"]}

    def of(self, name: str, deal_id: str) -> list[Row]:
        key = (
            "entity_id" if name in ("stage_change", "field_change", "qualification") else "deal_id"
        )
        return [
            r for r in self.rows[name] if r[key] == deal_id and r.get("entity") in (None, "deal")
        ]

    def account(self, account_id: str | None, name: str, t: int) -> Any:
        for row in self.rows["account"]:
            if row["account_id"] == account_id:
                facts = self.facts.get(row["source"])
                static = facts is not None and name in facts.static.get("account", ())
                since = row["recorded_at"] if static else row["seen_at"]
                return row[name] if since <= t else None
        return None


class Deal:
    """One deal."""

    def __init__(self, crm: Oracle, row: Row) -> None:
        self.crm, self.row = crm, row
        self.moves = crm.of("stage_change", row["deal_id"])
        self.changes = crm.of("field_change", row["deal_id"])

    # --- since when

    @cached_property
    def known_from(self) -> int | None:
        if self.row["created_at"] is None:
            return None
        return known_at(self.row, "created_at")

    @property
    def shown(self) -> int | None:
        """Since when a source has shown it."""
        for name in ("first_seen_at", "seen_at"):
            if self.row[name] is not None:
                return int(self.row[name])
        return self.known_from

    @cached_property
    def gone(self) -> int | None:
        told: list[int | None] = []
        merged = self.first_told("merged_into_id")
        date, since = self._first_given("deleted_at")
        if date is not None:
            told.append(date if since is None else max(date, since))
        if self.row["merged_into_id"] is not None:
            if merged is not None:
                told.append(merged)
            elif not told:
                told.append(self.shown)
        return min((t for t in told if t is not None), default=None)

    def first_told(self, field: str) -> int | None:
        return min((known_at(c, "changed_at") for c in self.changes_of(field)), default=None)

    def changes_of(self, field: str) -> list[Row]:
        return [c for c in self.changes if c["field"] == field]

    def exists(self, t: int) -> bool:
        left = self.gone is not None and self.gone <= t
        return self.known_from is not None and self.known_from <= t and not left

    # --- outcome

    @cached_property
    def outcomes(self) -> list[Event]:
        told = self._told()
        kept = _ever_news(in_known_order([(e, n) for e, n, _ in told]))
        precise = {id(e): p for e, _, p in told}
        own = self._only_the_row_tells(kept)
        numbered = [(e, float(i)) for i, e in enumerate(kept)]
        events = in_known_order([*numbered, (own, math.inf)] if own else numbered)
        found = [(e, float(i)) for i, e in enumerate(events)]
        for i, event in enumerate(events):
            if event.value != "open":
                line = sorted(events[: i + 1], key=lambda e: e.at)
                place = next(n for n, e in enumerate(line) if e is event)
                floor = line[place - 1].at if place else -math.inf
                day = precise.get(id(event), False)
                at = self._dated(event, floor, day, event.known)
                found[i] = (Event(at, event.known, event.value), float(i))
                found += self._corrections(event, events, at, floor, day)
        return in_known_order(found)

    def _first_given(self, field: str) -> tuple[int | None, int | None]:
        """The first date that a row had, and since when it is known (None: with the row)."""
        base = self._first_date(field)
        if base is not None:
            return base, None
        for t in sorted(self.known(c) for c in self.changes_of(field)):
            date = self._date(t, field)
            if date is not None:
                return date, t
        return None, None

    def _date(self, t: int, field: str = "closed_at") -> int | None:
        """A date of the row as known at t."""
        changes = [c for c in self.changes_of(field) if self.known(c) <= t]
        changes.sort(key=lambda c: (self.known(c), c["changed_at"]))
        changes.sort(key=lambda c: c["changed_at"])
        if changes:
            text = changes[-1]["new_value"]
            return None if text is None else _moment(text)
        return self._first_date(field)

    def _first_date(self, field: str) -> int | None:
        changes = self.changes_of(field)
        if not changes:
            return None if self.row[field] is None else int(self.row[field])
        first = min(changes, key=lambda c: (self.known(c), c["changed_at"]))["old_value"]
        return None if first is None else _moment(first)

    def _dated(self, event: Event, floor: float, precise: bool, t: int) -> int:
        date = self._date(t)
        if date is None or date >= event.at or (precise and event.at - date < DAY):
            return event.at
        return int(max(date, floor))

    def _corrections(
        self, event: Event, events: list[Event], at: int, floor: float, precise: bool
    ) -> list[tuple[Event, float]]:
        """The closing moved by later dates, while it is what is known of the deal."""
        found = []
        for moment in sorted({self.known(c) for c in self.changes_of("closed_at")}):
            line = line_of(events, moment)
            if moment <= event.known or line[-1] is not event:
                continue
            anew = self._dated(event, floor, precise, moment)
            if anew > at:
                found.append((Event(at, moment, "open"), math.inf))
            if anew != at:
                found.append((Event(anew, moment, event.value), math.inf))
            at = anew
        return found

    def _told(self) -> list[tuple[Event, float, bool]]:
        """(event, number, whether its time is the source's own)."""
        found, firsts = [], []
        flips = [(c, c["new_value"], c["old_value"] or "open") for c in self.changes_of("outcome")]
        closing = self.crm.closing
        moves = [
            (m, closing.get(m["to_stage_id"], "open"), closing.get(m["from_stage_id"], "open"))
            for m in self.moves
            if closing
        ]
        for rows in (moves, flips):
            for row, new, _ in rows:
                event = Event(row["changed_at"], known_at(row, "changed_at"), new)
                precise = row["provenance"] != "snapshot_diff"
                found.append((event, row["sequence"] or 0.0, precise))
        for rows in (flips, moves):
            if rows:
                firsts.append(min(rows, key=lambda r: (r[0]["changed_at"], r[0]["sequence"] or 0)))
        for row, _, before in firsts[:1]:
            if before != "open":
                found.append((self._closed_before(row, before), -1.0, False))
        return found

    def _closed_before(self, row: Row, outcome: str) -> Event:
        """The closing that the first change ended: on the first closing date there was."""
        since = self._first_date("closed_at")
        since = self.row["created_at"] if since is None else since
        told = self.known(row)
        at = row["changed_at"] if since is None else min(since, row["changed_at"])
        return Event(at, told if self.known_from is None else min(max(at, self.known_from), told),
                     outcome)  # fmt: skip

    def _only_the_row_tells(self, told: list[Event]) -> Event | None:
        outcome = self.row["outcome"]
        last = sorted(told, key=lambda e: e.at)[-1] if told else None
        if outcome not in CLOSED or (last is not None and last.value == outcome):
            return None
        at, since = self._first_given("closed_at")
        if at is None:
            return None
        recorded, assumed = self.row["recorded_at"], self.row["recorded_assumed"] == 1.0
        known_at = at if recorded is None or assumed else max(at, recorded)
        known_at = known_at if since is None else max(since, known_at)
        if last is not None:
            at = max(at, last.at)
            known_at = max(known_at, last.known, at)
        return Event(at, known_at, outcome)

    def outcome(self, t: int) -> str:
        line = line_of(self.outcomes, t)
        return line[-1].value if line else "open"

    def closings(self) -> list[tuple[int, int, str, str]]:
        """(happened, known, outcome before, outcome after) of every turn."""
        found, before = [], "open"
        for known in sorted({e.known for e in self.outcomes}):
            newest = line_of(self.outcomes, known)[-1]
            if newest.value != before:
                found.append((newest.at, known, before, newest.value))
            before = newest.value
        return found

    # --- stages

    @cached_property
    def keeps_stages(self) -> bool:
        return self.row["source"] is not None and any(
            m["source"] == self.row["source"] and m["provenance"] != "snapshot_diff"
            for m in self.crm.rows["stage_change"]
            if m["entity_id"] in self.crm.ids
        )

    @cached_property
    def stages(self) -> list[Event]:
        events = [
            (
                Event(m["changed_at"], known_at(m, "changed_at"), m["to_stage_id"]),
                m["sequence"] or 0.0,
            )
            for m in self.moves
        ]
        if self.known_from is None:  # nothing is known of when it began
            return in_known_order([(e, n) for e, n in events if e.value not in self.crm.closing])
        created, known = int(self.row["created_at"]), self.known_from
        shown = known if self.shown is None else max(self.shown, known)
        at, since = (created, known) if self.keeps_stages else (shown, shown)
        if self.moves:
            first = min(self.moves, key=lambda m: (m["changed_at"], m["sequence"] or 0.0))
            left, told = first["from_stage_id"], known_at(first, "changed_at")
            if left is not None and first["changed_at"] > created:
                at, since = min(at, first["changed_at"]), min(since, told)
                events.append((Event(at, since, left), -1.0))
        elif self.row["stage_id"] is not None:
            events.append((Event(at, since, self.row["stage_id"]), -1.0))
        return in_known_order([(e, n) for e, n in events if e.value not in self.crm.closing])

    def path(self, t: int) -> list[Event]:
        return spells_of(line_of(self.stages, t))

    # --- fields

    def keeps(self, field: str) -> bool:
        """Whether its value is believed from the beginning."""
        source = self.row["source"]
        facts = self.crm.facts.get(source)
        if facts is not None and field in facts.static.get("deal", ()):
            return True
        return any(
            c["field"] == field and c["provenance"] in FULL and c["source"] == source
            for c in self.crm.rows["field_change"]
            if c["entity_id"] in self.crm.ids
        )

    def base(self, field: str) -> Any:
        changes = self.changes_of(field)
        if not changes:
            return _value(field, self.row.get(field))
        first = min(changes, key=lambda c: (self.known(c), c["changed_at"]))
        return _value(field, first["old_value"])

    def changed(self, field: str, t: int) -> list[Event]:
        """Changes known at t, in order, those that change nothing left out."""
        events = [
            (Event(c["changed_at"], known_at(c, "changed_at"), _value(field, c["new_value"])), 0.0)
            for c in self.changes_of(field)
        ]
        missing = object()
        base = self.base(field)
        line = [
            Event(e.at, e.known, missing if e.value is None else e.value)
            for e in line_of(in_known_order(events), t)
        ]
        found, before = [], missing if base is None else base
        for event in line:
            if event.value != before:
                found.append(
                    Event(event.at, event.known, None if event.value is missing else event.value)
                )
            before = event.value
        return found

    def known(self, change: Row) -> int:
        return known_at(change, "changed_at")

    def value(self, field: str, t: int, believed: bool = False) -> Any:
        changed = self.changed(field, t)
        if changed:
            return changed[-1].value
        # Nothing changed, or all was changed back: what held before is known from a change, too.
        if any(known_at(c, "changed_at") <= t for c in self.changes_of(field)):
            return self.base(field)
        return self.base(field) if believed or self.visible(field, t) else None

    def visible(self, field: str, t: int) -> bool:
        if self.known_from is None:
            return False
        since = self.known_from if self.keeps(field) else max(self.shown or 0, self.known_from)
        return since <= t

    # --- the rest

    def activities(self, t: int) -> list[Row]:
        rows = [a for a in self.crm.of("activity", self.row["deal_id"]) if a["occurred_at"]]
        rows.sort(key=lambda a: (known_at(a, "occurred_at"), a["occurred_at"]))
        rows = [a for a in rows if known_at(a, "occurred_at") <= t]
        return sorted(rows, key=lambda a: a["occurred_at"])

    def next_planned(self, t: int) -> float | None:
        ahead = []
        for a in self.crm.of("activity", self.row["deal_id"]):
            made = max((x for x in (a["recorded_at"], a["seen_at"]) if x is not None), default=t)
            done = a["occurred_at"] is not None and a["occurred_at"] <= t
            if a["due_at"] is not None and a["due_at"] > t and made <= t and not done:
                ahead.append((a["due_at"] - t) / DAY)
        return min(ahead, default=None)

    def answer(self, field: str, t: int) -> Any:
        rows = [q for q in self.crm.of("qualification", self.row["deal_id"])
                if known_at(q, "changed_at") <= t]  # fmt: skip
        rows.sort(key=lambda q: known_at(q, "changed_at"))
        return sorted(rows, key=lambda q: q["changed_at"])[-1][field] if rows else None

    # --- revenue

    def revenue(self, t: int) -> list[tuple[int, float]]:
        """(moment it counts, amount) of wins and what ended them, as known at t."""
        fields = ("closed_amount", "amount", "currency")
        moments = {e.known for e in self.outcomes}
        corrected = {known_at(c, "changed_at") for f in fields for c in self.changes_of(f)}
        asked: dict[int, int] = {}
        spells: list[Event] = []
        for moment in sorted(m for m in moments | corrected if m <= t):
            spells = spells_of(lasting(line_of(self.outcomes, moment)), "open")
            for spell in spells:
                if spell.value == "won":
                    asked.setdefault(spell.at, moment)
            if spells and spells[-1].value == "won":
                asked[spells[-1].at] = moment
        found = []
        for i, spell in enumerate(spells):
            if spell.value == "won":
                amount = self._won_amount(asked[spell.at])
                found.append((spell.at, amount))
                if i + 1 < len(spells):
                    found.append((spells[i + 1].at, -amount))
        return found

    def _won_amount(self, t: int) -> float:
        closed = self.value("closed_amount", t, believed=True)
        amount = self.value("amount", t, believed=True) if closed is None else closed
        return 0.0 if amount is None else float(amount)


def _ever_news(events: list[Event]) -> list[Event]:
    """Events (in known order) that say something new at some point."""
    news: set[int] = set()
    for n in range(1, len(events) + 1):
        before = "open"
        for event in sorted(events[:n], key=lambda e: e.at):
            if event.value != before:
                news.add(id(event))
            before = event.value
    return [e for e in events if id(e) in news]


def _moment(text: str) -> int:
    return int(np.datetime64(text.removesuffix("Z"), "us").astype(np.int64))


def _value(field: str, value: Any) -> Any:
    """A value of a row, or the text of one in a change, in one form: days for dates."""
    if value is None:
        return None
    if field in ("amount", "closed_amount", "seats"):
        return float(value)
    if field == "expected_close_date":
        return (_moment(value) if isinstance(value, str) else value) / DAY
    return value
