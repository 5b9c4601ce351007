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
from typing import Any

import numpy as np
import numpy.typing as npt

from data.building import build_ledger
from data.chronicle import LOST, OPEN, WON, Ledger, Side
from data.columns import DAY, NEVER, BoolArray, Column, FloatArray, IntArray, micros
from data.events import Events
from data.records import ENTITIES, SourceFacts, Table
from data.revenue import revenue_events

__all__ = ["LOST", "OPEN", "WON", "History", "HistoryError", "Ledger", "Side", "Snapshot"]


class HistoryError(ValueError):
    """Records that contradict each other, with what to do about it."""


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
    _seen: list[tuple[Events, tuple[IntArray, IntArray]]] = field(
        default_factory=list, compare=False, repr=False
    )

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
        for known, bounds in self._seen:  # a handful at most, asked for by many features
            if known is events:
                return bounds
        bounds = events.known(self.rows, self.at)
        self._seen.append((events, bounds))
        return bounds

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
        events = self.ledger.stages
        return events.pick(events.latest(*self.seen(events)), -1)

    @cached_property
    def stage_event(self) -> IntArray:
        """Position in `ledger.stage_path` of what was known of the stages, -1 for nothing."""
        lo, hi = self.seen(self.ledger.stages)
        return np.where(hi > lo, hi - 1, -1)

    @cached_property
    def age(self) -> FloatArray:
        """Days since creation, NaN where that is unknown."""
        created = self.ledger.created_at[self.rows]
        known = created != NEVER
        return np.where(known, (self.at - np.where(known, created, 0)) / DAY, np.nan)

    @cached_property
    def days_in_stage(self) -> FloatArray:
        """Days since the current stage was entered; since creation when no stage is known."""
        began, known = self.stage_began, self.stage_began != NEVER
        return np.where(known, (self.at - np.where(known, began, 0)) / DAY, np.nan)

    @cached_property
    def stage_began(self) -> IntArray:
        """When the current stage was entered, or the record created; int64 microseconds."""
        created = self.ledger.created_at[self.rows]
        since, last = self.ledger.stage_path.since, self.stage_event
        return np.where(last >= 0, since[last], created) if len(since) else created

    @cached_property
    def amount(self) -> FloatArray:
        """Expected amount in the base currency at the rate of the moment, NaN when missing."""
        amount = self.value("amount").numbers().copy()
        priced = np.flatnonzero(~np.isnan(amount))
        amount[priced] *= self.history.rate(self.take(priced))
        return amount

    @cached_property
    def team(self) -> Column:
        """The deal's team as known then, or else its owner's: the owners as they stand."""
        own, owner = self.value("team_id").as_text(), self.value("owner_id").as_text()
        teams = self.history.team_of_owner
        place = {level: code for code, level in enumerate(own.levels.tolist())}
        codes = [
            -1 if team is None else place.setdefault(team, len(place))
            for team in (teams.get(level) for level in owner.levels.tolist())
        ]
        by_owner = np.array([*codes, -1], dtype=np.int32)[owner.values]
        levels = np.empty(len(place), dtype=object)
        levels[:] = list(place)
        return Column("text", np.where(own.values >= 0, own.values, by_owner), levels)


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

    @cached_property
    def deals(self) -> Ledger:
        """The deals; built when first asked for, since many a request has only one side."""
        return build_ledger("deal", self.tables, self.facts)

    @cached_property
    def leads(self) -> Ledger:
        """The leads."""
        return build_ledger("lead", self.tables, self.facts)

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
        """team_id by owner_id, as the owners stand: teams are configuration, without history."""
        owners = self.tables["owner"]
        return dict(zip(owners["owner_id"].tolist(), owners["team_id"].tolist(), strict=True))

    @cached_property
    def row_of_account(self) -> dict[str, int]:
        """Position of each account in its table."""
        return {str(a): n for n, a in enumerate(self.tables["account"]["account_id"].tolist())}

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
        return self.conversion(own.texts(), snapshot.rows, snapshot.at)

    def conversion(self, own: npt.NDArray[np.object_], rows: IntArray, at: IntArray) -> FloatArray:
        """Units of the base currency for one of `own` (None: the base) at each moment.

        Parameters
        ----------
        own : object, shape (m,)
            Currency codes.
        rows : int64, shape (m,)
            The deals they are of, for the message of an error.
        at : int64 microseconds, shape (m,)

        Raises
        ------
        HistoryError
            If a currency has no rate by then.
        """
        factor = np.ones(len(own))
        named = {str(c) for c in set(own.tolist()) if c is not None}
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

        Those known by a moment add up to what was known then: see `data.revenue`.
        """
        return revenue_events(self.deals, self.conversion)

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
