"""The store as a history in memory: read whole, kept for a while, read again when it changed."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from data.history import History
from data.records import SourceFacts, Table
from data.store import Store

__all__ = ["CurrentHistory", "Held", "Rules"]

_OUTLAST = 10.0  # a history is kept at least this many times as long as it took to read
_RULES = ("stage", "exchange_rate")


@dataclass(frozen=True)
class Held:
    """A history, and which reading of the store it is."""

    history: History
    reading: int


@dataclass(frozen=True)
class Rules:
    """What even a record that is not stored is read with.

    Attributes
    ----------
    tables : dict of str to Table
        Stages and exchange rates.
    facts : tuple of SourceFacts
        Of the sources imported from.
    """

    tables: dict[str, Table]
    facts: tuple[SourceFacts, ...]

    @property
    def currency(self) -> str | None:
        """The currency that the sources declare for amounts that name none, if it is one."""
        found = {f.currency for f in self.facts if f.currency}
        return found.pop() if len(found) == 1 else None


class CurrentHistory:
    """What the store holds, as of a few seconds ago at most.

    Writes that go through this service are seen at once (`changed`); those of other processes
    after `seconds`, or after ten times what reading takes, if that is longer.

    Parameters
    ----------
    store : Store
    currency : str or None
        Base currency.
    seconds : float
    """

    def __init__(self, store: Store, currency: str | None, seconds: float) -> None:
        self._store, self._currency, self._seconds = store, currency, seconds
        self._reading_lock = threading.Lock()
        self._held: Held | None = None
        self._writes = 0  # how many writes this service knows of
        self._held_writes = -1  # how many of them the held history has seen
        self._held_until = 0.0
        self._rules_lock = threading.Lock()
        self._rules: Rules | None = None
        self._rules_writes = -1
        self._rules_until = 0.0

    def changed(self) -> None:
        """Tell that the store was written to."""
        self._writes += 1

    def get(self, tolerance: float = 0.0) -> Held:
        """The history; with a `tolerance`, one that many seconds out of date is good enough."""
        with self._reading_lock:
            now = time.monotonic()
            known = self._held_writes == self._writes or tolerance > 0.0
            if self._held is not None and known and now < self._held_until + tolerance:
                return self._held
            writes = self._writes
            history = History(self._store.read(), self._store.sources(), self._currency)
            done = time.monotonic()
            reading = 1 if self._held is None else self._held.reading + 1
            self._held, self._held_writes = Held(history, reading), writes
            self._held_until = done + max(self._seconds, _OUTLAST * (done - now))
            return self._held

    def rules(self) -> Rules:
        """Stages, exchange rates and the facts of the sources."""
        with self._rules_lock:
            now = time.monotonic()
            fresh = self._rules_writes == self._writes and now < self._rules_until
            if self._rules is None or not fresh:
                writes = self._writes
                self._rules = Rules(self._store.read(_RULES), tuple(self._store.sources()))
                self._rules_writes, self._rules_until = writes, now + self._seconds
            return self._rules
