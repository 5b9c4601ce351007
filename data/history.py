"""The time machine: what was known about every lead and deal at any moment.

`History` holds columnar event tables made from canonical `Table`s. `History.as_of(t)` and
`History.landmarks(...)` give a `Snapshot`: pairs of (record, moment), from which everything else
is read. Nothing outside this module and the labels in `training.examples` looks at an event
without going through a snapshot, so that a fact known later cannot be seen earlier.

Times are int64 microseconds since 1970 UTC; `NEVER` (the largest int64) stands for "not".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data.records import ENTITIES, SourceFacts, Table
from data.timelines import (
    DAY,
    NEVER,
    BoolArray,
    Column,
    Events,
    FloatArray,
    IntArray,
    Timeline,
    dates_in,
    dictionary,
    group_events,
    micros,
    to_column,
)

__all__ = ["LOST", "OPEN", "WON", "History", "HistoryError", "Ledger", "Snapshot"]

Side = Literal["lead", "deal"]

OPEN, WON, LOST = 0, 1, 2  # outcome codes; a qualified lead is WON, a disqualified one LOST
_OUTCOME_CODES = {"open": OPEN, "won": WON, "lost": LOST, "qualified": WON, "disqualified": LOST}
_FULL_HISTORY = ("native", "field_history", "audit")
# Fields that the ledger itself turns into timelines or moments of their own.
_HANDLED = {
    "deal": {"deal_id", "created_at", "stage_id", "outcome", "closed_at", "deleted_at"},
    "lead": {"lead_id", "created_at", "outcome", "qualified_at", "disqualified_at", "deleted_at"},
}


class HistoryError(ValueError):
    """Records that contradict each other, with what to do about it."""


@dataclass(frozen=True)
class Ledger:
    """All that is known about the leads, or the deals, as columns.

    Attributes
    ----------
    ids : ndarray of object, shape (n,)
    created_at, known_from, gone_at : int64 microseconds, shape (n,)
        When the record came into being, since when it is known, when it left (deleted or merged).
        `known_from` is NEVER for a record without a creation time: it stays outside timing.
    outcomes : Events
        Changes of outcome (`value` = OPEN, WON, LOST), the first opening not included.
    stages : Events
        Stages entered (`value` = code into `stage_levels`).
    activities : Events
        Activities (`value` = code into `activity_levels`); `due` holds the planned time.
    table : Table
        The rows as stored now; read a value from it only through `Snapshot.value`.
    """

    side: Side
    ids: npt.NDArray[np.object_]
    created_at: IntArray
    known_from: IntArray
    gone_at: IntArray
    outcomes: Events
    stages: Events
    stage_levels: npt.NDArray[np.object_]
    activities: Events
    activity_levels: npt.NDArray[np.object_]
    activity_due: IntArray
    qualifications: Events
    qualification_table: Table
    stakeholders: Events
    table: Table
    changes: Table
    facts: tuple[SourceFacts, ...]
    pseudo_times: bool
    _timelines: dict[str, Timeline] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Position of each id."""
        return {str(i): n for n, i in enumerate(self.ids)}

    def timeline(self, name: str) -> Timeline:
        """The known values of a field or attribute through time."""
        if name not in self._timelines:
            self._timelines[name] = self._build_timeline(name)
        return self._timelines[name]

    @cached_property
    def fields(self) -> dict[str, str]:
        """Names that have a value anywhere, with their kind; attributes included."""
        table = self.table
        declared = {
            f.name: f.kind
            for f in table.entity.fields
            if f.kind != "json" and f.name not in _HANDLED[self.side]
        }
        found = {n: k for n, k in declared.items() if not _all_missing(table[n])}
        for name, values in table.attributes.items():
            if not _all_missing(values):
                found[name] = "date" if dates_in(values) is not None else to_column(values).kind
        return found

    def _declared(self, which: str, name: str) -> BoolArray:
        """Rows whose source lists `name` under `which` ("static" or "excluded")."""
        source = self.table["source"]
        listed = {f.name for f in self.facts if name in getattr(f, which).get(self.side, ())}
        if not listed:
            return np.zeros(len(self), dtype=bool)
        return np.fromiter((s in listed for s in source), dtype=bool, count=len(self))

    def excluded(self, name: str) -> bool:
        """Whether any source forbids `name` as a feature."""
        return any(name in f.excluded.get(self.side, ()) for f in self.facts)

    def _build_timeline(self, name: str) -> Timeline:
        table, changes = self.table, self.changes
        if name in table.columns:
            declared = table.entity.by_name[name].kind
            now = to_column(table[name], "text" if declared in ("id", "text", "choice") else None)
        elif name in table.attributes:
            days = dates_in(table.attributes[name])
            now = to_column(table.attributes[name] if days is None else days)
        else:
            return Timeline.nothing(len(self))
        picked = np.flatnonzero(changes["field"] == name)
        rows = np.array([self.row_of.get(str(i), -1) for i in changes["entity_id"][picked]], int)
        picked, rows = picked[rows >= 0], rows[rows >= 0]
        kept = self._history_kept(picked)
        static = self._declared("static", name) | kept
        field_ = table.entity.by_name.get(name)
        if field_ is not None and field_.static:
            static[:] = True
        base_at = np.where(static, self.known_from, np.maximum(self.seen_at, self.known_from))
        if len(picked) == 0:
            return Timeline.constant(now, base_at)
        return Timeline.with_changes(
            now,
            base_at,
            row=rows,
            at=micros(changes["changed_at"])[picked],
            known_at=_known(changes)[picked],
            sequence=changes["sequence"][picked],
            old=changes["old_value"][picked],
            new=changes["new_value"][picked],
        )

    def _history_kept(self, picked: IntArray) -> BoolArray:
        """Rows of sources that keep this field's history from the start."""
        full = np.isin(self.changes["provenance"][picked].astype(str), _FULL_HISTORY)
        sources = {str(s) for s in self.changes["source"][picked[full]]}
        if not sources:
            return np.zeros(len(self), dtype=bool)
        return np.fromiter(
            (str(s) in sources for s in self.table["source"]), dtype=bool, count=len(self)
        )

    @cached_property
    def seen_at(self) -> IntArray:
        """Since when a source has shown the row's state, int64 microseconds."""
        return _first_seen(self.table, self.known_from)


@dataclass(frozen=True)
class Snapshot:
    """Records at moments: row i is `ledger.ids[rows[i]]` as known at `at[i]`.

    Attributes
    ----------
    rows : int64, shape (m,)
    at : int64 microseconds, shape (m,)
        The as_of of each row.
    """

    history: History
    ledger: Ledger
    rows: IntArray
    at: IntArray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ids(self) -> npt.NDArray[np.object_]:
        """Ids of the records, shape (m,)."""
        return self.ledger.ids[self.rows]

    def take(self, index: npt.NDArray[Any]) -> Snapshot:
        """A part of the snapshot."""
        return Snapshot(self.history, self.ledger, self.rows[index], self.at[index])

    def value(self, name: str) -> Column:
        """The value of a field as known at each row's moment."""
        return self.ledger.timeline(name).at(self.rows, self.at)

    def seen(self, events: Events) -> tuple[IntArray, IntArray]:
        """Bounds [lo, hi) of the events of each row known by its moment."""
        return events.known(self.rows, self.at)

    @cached_property
    def outcome(self) -> IntArray:
        """OPEN, WON or LOST at each row's moment."""
        events = self.ledger.outcomes
        last = events.latest(*self.seen(events))
        return events.pick(last, OPEN)

    @cached_property
    def exists(self) -> BoolArray:
        """Whether the record was known and not yet gone."""
        ledger = self.ledger
        return (ledger.known_from[self.rows] <= self.at) & (ledger.gone_at[self.rows] > self.at)

    @cached_property
    def stage(self) -> IntArray:
        """Code of the current stage into `ledger.stage_levels`, -1 when unknown."""
        last = self.stage_event
        return self.ledger.stages.pick(last, -1)

    @cached_property
    def stage_event(self) -> IntArray:
        """Position of the event that brought the current stage, -1 for none."""
        events = self.ledger.stages
        return events.latest(*self.seen(events))

    @cached_property
    def age(self) -> FloatArray:
        """Days since creation."""
        return (self.at - self.ledger.created_at[self.rows]) / DAY

    @cached_property
    def days_in_stage(self) -> FloatArray:
        """Days since the current stage was entered; since creation when no stage is known."""
        return (self.at - self.stage_began) / DAY

    @cached_property
    def stage_began(self) -> IntArray:
        """When the current stage was entered, or the record created; int64 microseconds."""
        created = self.ledger.created_at[self.rows]
        events, last = self.ledger.stages, self.stage_event
        return np.where(last >= 0, events.at[last], created) if len(events.at) else created

    @cached_property
    def amount(self) -> FloatArray:
        """Expected amount in the base currency at the rate of the moment, NaN when missing."""
        return self.value("amount").numbers() * self.history.rate(self)

    @cached_property
    def team(self) -> Column:
        """The deal's team, or its owner's."""
        own = self.value("team_id").texts()
        owners = self.value("owner_id").texts()
        teams = self.history.team_of_owner
        return to_column(
            np.array(
                [t if t is not None else teams.get(o) for t, o in zip(own, owners, strict=True)],
                dtype=object,
            )
        )


class History:
    """Columnar event tables of one organisation.

    Parameters
    ----------
    tables : mapping of str to Table
        Canonical tables by entity name; what is absent is empty.
    facts : iterable of SourceFacts
        What is true of the sources.
    currency : str, optional
        Base currency; by default the only one that occurs.
    """

    def __init__(
        self,
        tables: Mapping[str, Table],
        facts: Iterable[SourceFacts] = (),
        currency: str | None = None,
    ) -> None:
        self.tables = {n: tables.get(n, Table.empty(e)) for n, e in ENTITIES.items()}
        self.facts = tuple(facts)
        self._currency = currency
        self.deals = _ledger("deal", self.tables, self.facts)
        self.leads = _ledger("lead", self.tables, self.facts)

    def ledger(self, side: Side) -> Ledger:
        """The leads or the deals."""
        return self.deals if side == "deal" else self.leads

    def as_of(self, side: Side, at: np.datetime64) -> Snapshot:
        """The records of one kind that were known, not gone and open at a moment."""
        ledger = self.ledger(side)
        moment = int(at.astype("datetime64[us]").astype(np.int64))
        rows = np.flatnonzero((ledger.known_from <= moment) & (ledger.gone_at > moment))
        snapshot = Snapshot(self, ledger, rows, np.full(len(rows), moment, dtype=np.int64))
        return snapshot.take(snapshot.outcome == OPEN)

    def landmarks(self, side: Side, rows: IntArray, at: IntArray) -> Snapshot:
        """Any records at any moments (int64 microseconds), open or not."""
        return Snapshot(self, self.ledger(side), rows, at)

    @cached_property
    def observed_until(self) -> int:
        """The moment up to which outcomes can be seen, int64 microseconds; NEVER for now."""
        ends = [micros(np.array([f.observed_until]))[0] for f in self.facts]
        return int(min(ends)) if ends else NEVER

    @cached_property
    def observed_from(self) -> int:
        """Closings before this moment were not recorded (left truncation)."""
        starts = [
            int(f.observed_from.astype("datetime64[us]").astype(np.int64))
            for f in self.facts
            if not np.isnat(f.observed_from)
        ]
        return max(starts) if starts else -NEVER

    @cached_property
    def currency(self) -> str:
        """The base currency, an ISO 4217 code.

        Raises
        ------
        HistoryError
            If none is declared, or several occur and none is named as the base.
        """
        if self._currency:
            return self._currency
        found = {f.currency for f in self.facts if f.currency}
        found |= {c for c in self.deals.table["currency"] if c is not None}
        if len(found) == 1:
            return str(found.pop())
        raise HistoryError(
            f"currencies are {sorted(found) or 'not declared'}; name the base one with "
            "DEALCAST_CURRENCY, or `currency` in the mapping file"
        )

    @cached_property
    def team_of_owner(self) -> dict[Any, Any]:
        """team_id by owner_id."""
        owners = self.tables["owner"]
        return dict(zip(owners["owner_id"], owners["team_id"], strict=True))

    @cached_property
    def _rates(self) -> dict[str, tuple[IntArray, FloatArray]]:
        """By currency: days (microseconds) and rates into the base currency, in order."""
        table = self.tables["exchange_rate"]
        into = table["to_currency"] == self.currency
        rates = {}
        for code in {str(c) for c in table["from_currency"][into]}:
            rows = np.flatnonzero(into & (table["from_currency"] == code))
            rows = rows[np.argsort(table["date"][rows], kind="stable")]
            rates[code] = (micros(table["date"][rows]), table["rate"][rows])
        return rates

    def rate(self, snapshot: Snapshot) -> FloatArray:
        """Units of the base currency for one of each row's own, at each row's moment.

        Raises
        ------
        HistoryError
            If a deal's currency has no rate by then.
        """
        own = snapshot.value("currency")
        return self._convert(own.texts(), snapshot.rows, snapshot.at)

    def _convert(self, own: npt.NDArray[np.object_], rows: IntArray, at: IntArray) -> FloatArray:
        factor = np.ones(len(own))
        named = {str(c) for c in own if c is not None}
        if not named - {self._currency or ""}:
            return factor
        for code in named - {self.currency}:
            here = np.flatnonzero(own == code)
            days, rates = self._rates.get(code, (np.zeros(0, np.int64), np.zeros(0)))
            position = np.searchsorted(days, at[here], side="right") - 1
            if len(here) and (position < 0).any():
                deal = self.deals.ids[rows[here[np.argmin(position)]]]
                raise HistoryError(
                    f"deal {deal} is in {code}, and there is no rate from {code} to "
                    f"{self.currency} on or before its date; import exchange rates"
                )
            factor[here] = rates[position]
        return factor

    @cached_property
    def wins(self) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
        """Revenue events: deal row, moment it happened, moment it was known, amount.

        A win counts its closed amount (the amount where none is kept) in the base currency at
        the rate of the closing day; a reopening takes the same amount back.
        """
        ledger = self.deals
        events = ledger.outcomes
        row = events.row
        before = np.where(np.r_[-1, row[:-1]] == row, np.r_[OPEN, events.value[:-1]], OPEN)
        won = np.flatnonzero((events.value == WON) | ((before == WON) & (events.value != WON)))
        rows = row[won]
        sign = np.where(events.value[won] == WON, 1.0, -1.0)
        closed = ledger.table["closed_amount"][rows]
        late = np.full(len(rows), NEVER - 1, dtype=np.int64)
        amount = Snapshot(self, ledger, rows, late).value("amount").numbers()
        currency = ledger.table["currency"][rows]
        value = np.where(np.isnan(closed), amount, closed)
        value = np.nan_to_num(value) * self._convert(currency, rows, events.at[won])
        return rows, events.at[won], events.known_at[won], sign * value

    def won_between(
        self, start: np.datetime64, end: np.datetime64, as_of: np.datetime64 | None = None
    ) -> tuple[IntArray, FloatArray]:
        """Deal rows and amounts (base currency) won in [start, end), as known at `as_of`."""
        rows, at, known, value = self.wins
        lo, hi = micros(np.array([start, end]))
        inside = (at >= lo) & (at < hi)
        if as_of is not None:
            inside &= known <= micros(np.array([as_of]))[0]
        return rows[inside], value[inside]


def _all_missing(values: npt.NDArray[Any]) -> bool:
    if values.dtype == object:
        return all(v is None for v in values)
    return bool(np.isnan(values).all() if values.dtype.kind == "f" else np.isnat(values).all())


def _known(table: Table) -> IntArray:
    """When each event was known: the later of happening and being recorded."""
    happened = micros(table[table.entity.happened])
    recorded = micros(table["recorded_at"])
    return np.where(recorded == NEVER, happened, np.maximum(happened, recorded))


def _first_seen(table: Table, known_from: IntArray) -> IntArray:
    """Since when a source has shown each row; since it is known where no source says."""
    first, seen = micros(table["first_seen_at"]), micros(table["seen_at"])
    first = np.where(first == NEVER, seen, first)
    return np.where(first == NEVER, known_from, first)


def _rows_of(ids: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> IntArray:
    place = {i: n for n, i in enumerate(ids)}
    return np.fromiter((place.get(w, -1) for w in wanted), dtype=np.int64, count=len(wanted))


def _ledger(side: Side, tables: Mapping[str, Table], facts: tuple[SourceFacts, ...]) -> Ledger:
    table = tables[side]
    ids = table[f"{side}_id"]
    n = len(ids)
    created = micros(table["created_at"])
    recorded = micros(table["recorded_at"])
    known_from = np.where(
        (created == NEVER) | (recorded == NEVER), created, np.maximum(created, recorded)
    )
    gone = micros(table["deleted_at"])
    merged = np.array([m is not None for m in table["merged_into_id"]], dtype=bool)
    gone = np.where(merged & (gone == NEVER), micros(table["seen_at"]), gone)
    pseudo = any(side in f.pseudo_times for f in facts)

    moves = tables["stage_change"]
    moves = moves.take(np.flatnonzero(moves["entity"] == side))
    stages, stage_levels = _stage_events(side, table, moves, known_from, created, tables["stage"])
    changes = tables["field_change"]
    changes = changes.take(np.flatnonzero(changes["entity"] == side))
    outcomes = _outcome_events(side, table, moves, changes, known_from, tables["stage"], pseudo)

    done = tables["activity"]
    rows = _rows_of(ids, done[f"{side}_id"])
    done, rows = done.take(rows >= 0), rows[rows >= 0]
    kinds, kind_levels = dictionary(done["type"])
    happened = micros(done["occurred_at"])
    activities, order = group_events(
        n, rows, happened, _known(done), done["sequence"], kinds.astype(np.int64)
    )
    answers = tables["qualification"]
    answers = answers.take(np.flatnonzero(answers["entity"] == side))
    rows = _rows_of(ids, answers["entity_id"])
    answers, rows = answers.take(rows >= 0), rows[rows >= 0]
    qualifications, _ = group_events(
        n,
        rows,
        micros(answers["changed_at"]),
        _known(answers),
        answers["sequence"],
        np.arange(len(rows)),
    )
    people = tables["contact_role"] if side == "deal" else Table.empty(ENTITIES["contact_role"])
    rows = _rows_of(ids, people["deal_id"])
    people, rows = people.take(rows >= 0), rows[rows >= 0]
    at = micros(people["recorded_at"])
    stakeholders, _ = group_events(n, rows, at, at, people["sequence"], np.zeros(len(rows), int))
    return Ledger(
        side=side,
        ids=ids,
        created_at=created,
        known_from=known_from,
        gone_at=gone,
        outcomes=outcomes,
        stages=stages,
        stage_levels=stage_levels,
        activities=activities,
        activity_levels=kind_levels,
        activity_due=micros(done["due_at"])[order],
        qualifications=qualifications,
        qualification_table=answers,
        stakeholders=stakeholders,
        table=table,
        changes=changes,
        facts=facts,
        pseudo_times=pseudo,
    )


def _closed_stages(stage: Table) -> dict[Any, int]:
    """Stages that close a deal, by id, with the outcome code."""
    return {
        s: _OUTCOME_CODES[k]
        for s, k in zip(stage["stage_id"], stage["kind"], strict=True)
        if k in ("won", "lost")
    }


def _stage_events(
    side: Side, table: Table, moves: Table, known_from: IntArray, created: IntArray, stage: Table
) -> tuple[Events, npt.NDArray[np.object_]]:
    """Stages entered: the recorded moves, and the stage a record began in."""
    n = len(table)
    ids = table[f"{side}_id"]
    rows = _rows_of(ids, moves["entity_id"])
    moves, rows = moves.take(rows >= 0), rows[rows >= 0]
    at, known = micros(moves["changed_at"]), _known(moves)
    order = np.lexsort((moves["sequence"], at, rows))
    first = order[np.r_[True, rows[order][1:] != rows[order][:-1]]] if len(order) else order
    # A record that moved began in the stage it first left, unless the move was its entry.
    began = first[
        np.array([f is not None for f in moves["from_stage_id"][first]], dtype=bool)
        & (at[first] > created[rows[first]])
    ]
    # A record that never moved has been in its stage for as long as the row is known to say so.
    still = np.setdiff1d(np.arange(n), rows)
    now = table["stage_id"] if side == "deal" else table["status"]
    still = still[np.array([now[i] is not None for i in still], dtype=bool)]
    since = np.maximum(_first_seen(table, known_from), known_from)[still]
    all_rows = np.concatenate([rows, rows[began], still])
    names = np.concatenate([moves["to_stage_id"], moves["from_stage_id"][began], now[still]])
    all_at = np.concatenate([at, created[rows[began]], since])
    all_known = np.concatenate([known, known_from[rows[began]], since])
    sequence = np.concatenate([moves["sequence"], np.full(len(began) + len(still), -1.0)])
    closed = _closed_stages(stage)
    keep = np.array([s not in closed for s in names], dtype=bool) & (all_at != NEVER)
    codes, levels = dictionary(names)
    events, _ = group_events(
        n,
        all_rows[keep],
        all_at[keep],
        all_known[keep],
        sequence[keep],
        codes[keep].astype(np.int64),
    )
    return events.without_repeats(), levels


def _outcome_events(
    side: Side,
    table: Table,
    moves: Table,
    changes: Table,
    known_from: IntArray,
    stage: Table,
    pseudo: bool,
) -> Events:
    """Closings and reopenings, from stages that close, kept outcome changes, and the row."""
    n = len(table)
    ids = table[f"{side}_id"]
    closed = _closed_stages(stage)
    parts: list[tuple[IntArray, IntArray, IntArray, FloatArray, IntArray]] = []
    if closed:
        rows = _rows_of(ids, moves["entity_id"])
        value = np.array([closed.get(s, OPEN) for s in moves["to_stage_id"]], dtype=np.int64)
        parts.append((rows, micros(moves["changed_at"]), _known(moves), moves["sequence"], value))
    flips = changes.take(np.flatnonzero(changes["field"] == "outcome"))
    rows = _rows_of(ids, flips["entity_id"])
    value = np.array([_OUTCOME_CODES.get(v, OPEN) for v in flips["new_value"]], dtype=np.int64)
    parts.append((rows, micros(flips["changed_at"]), _known(flips), flips["sequence"], value))

    final = np.array([_OUTCOME_CODES.get(o, OPEN) for o in table["outcome"]], dtype=np.int64)
    if side == "deal":
        at = micros(table["closed_at"])
    else:
        at = micros(np.where(final == WON, table["qualified_at"], table["disqualified_at"]))
    if pseudo:  # times from the order of rows: the outcome comes right after the record
        at = np.where(at == NEVER, known_from + 1, at)
    assumed = table["recorded_assumed"] == 1.0
    recorded = micros(table["recorded_at"])
    known = np.where(assumed | (recorded == NEVER), at, np.maximum(at, recorded))
    told = np.full(n, NEVER, dtype=np.int64)
    ok = rows >= 0
    same = ok & (value == final[np.maximum(rows, 0)])
    told[rows[same]] = _known(flips)[same]  # a kept change says when the closing was known
    known = np.where(told != NEVER, np.maximum(at, told), known)
    here = np.flatnonzero((final != OPEN) & (at != NEVER))
    parts.append((here, at[here], known[here], np.full(len(here), np.inf), final[here]))
    row, when, known_at, sequence, code = (np.concatenate(p) for p in zip(*parts, strict=True))
    ok = (row >= 0) & (when != NEVER)
    events, _ = group_events(n, row[ok], when[ok], known_at[ok], sequence[ok], code[ok])
    return events.without_repeats(first=OPEN)
