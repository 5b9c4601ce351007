"""What a data check sees and what it answers: `View`, `Finding`, and the `Check` between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data.history import LOST, OPEN, WON, History, Ledger, Side
from data.pipeline import FiscalCalendar
from data.records import Table
from data.timelines import DAY, NEVER, BoolArray, FloatArray, IntArray, micros

__all__ = [
    "SEVERITIES",
    "Check",
    "Finding",
    "Severity",
    "View",
    "date_text",
    "graded",
    "has_value",
    "listed",
    "number_text",
    "share_text",
]

Severity = Literal["severe", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("severe", "warning", "info")

_CODES = {"open": OPEN, "won": WON, "lost": LOST, "qualified": WON, "disqualified": LOST}
_EXAMPLES = 3
_MINUTE = 60_000_000  # microseconds


@dataclass(frozen=True)
class Finding:
    """One thing the data show, and what to do about it.

    Attributes
    ----------
    code : str
        "DQ..." for the quality of the data, "LK..." for fields that know the outcome;
        `docs/checks.md` lists all.
    severity : {"severe", "warning", "info"}
        severe: results are wrong or impossible until it is mended; warning: they suffer;
        info: good to know.
    side : {"deal", "lead"}
        The records it is about.
    title : str
        What was found, with its figures, in one sentence.
    evidence : mapping of str to object
        Figures, and ids of a few examples: plain JSON.
    cure : str
        What to do.
    """

    code: str
    severity: Severity
    side: Side
    title: str
    evidence: Mapping[str, Any]
    cure: str

    def to_dict(self) -> dict[str, Any]:
        """The finding as plain JSON."""
        return {
            "code": self.code,
            "severity": self.severity,
            "side": self.side,
            "title": self.title,
            "evidence": dict(self.evidence),
            "cure": self.cure,
        }


@dataclass(frozen=True)
class View:
    """The leads, or the deals, of a history, with what many checks need.

    Attributes
    ----------
    memory : dict
        Results that several checks share, by name.
    """

    history: History
    side: Side
    calendar: FiscalCalendar = field(default_factory=FiscalCalendar)
    memory: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.ledger)

    @property
    def ledger(self) -> Ledger:
        """The records and their events."""
        return self.history.ledger(self.side)

    @property
    def table(self) -> Table:
        """The rows as stored now."""
        return self.ledger.table

    @property
    def noun(self) -> str:
        """What the records are called."""
        return f"{self.side}s"

    @property
    def words(self) -> tuple[str, str]:
        """What the good and the bad outcome are called."""
        return ("won", "lost") if self.side == "deal" else ("qualified", "disqualified")

    @property
    def created(self) -> IntArray:
        """Creation, int64 microseconds, shape (n,); NEVER where missing."""
        return self.ledger.created_at

    @property
    def timed(self) -> BoolArray:
        """Whether the creation is known."""
        return np.asarray(self.created != NEVER)

    @cached_property
    def outcome(self) -> IntArray:
        """OPEN, WON or LOST as the source's own row says, shape (n,)."""
        return np.array([_CODES.get(o, OPEN) for o in self.table["outcome"]], dtype=np.int64)

    @cached_property
    def last_event(self) -> IntArray:
        """OPEN, WON or LOST as the history ends, shape (n,)."""
        return self.ledger.outcomes.pick(self._closing, OPEN)

    @cached_property
    def closed_at(self) -> IntArray:
        """Last closing, int64 microseconds; NEVER where the history does not end closed."""
        events = self.ledger.outcomes
        if len(events.at) == 0:
            return np.full(len(self), NEVER, dtype=np.int64)
        return np.where(self.last_event != OPEN, events.at[self._closing], NEVER)

    @cached_property
    def row_closed_at(self) -> IntArray:
        """The closing time in the record's own row, whatever its history says; NEVER for none."""
        table = self.table
        if self.side == "deal":
            told = table["closed_at"]
        else:
            told = np.where(self.outcome == WON, table["qualified_at"], table["disqualified_at"])
        return np.where(self.outcome != OPEN, micros(told), NEVER)

    @cached_property
    def _closing(self) -> IntArray:
        start = self.ledger.outcomes.start
        return self.ledger.outcomes.latest(start[:-1], start[1:])

    @cached_property
    def closed(self) -> BoolArray:
        """Whether the closing is known, and its time."""
        return np.asarray(self.closed_at != NEVER)

    @cached_property
    def still_open(self) -> BoolArray:
        """Open now, and neither deleted nor merged."""
        return np.asarray((self.outcome == OPEN) & (self.ledger.gone_at > self.until))

    @cached_property
    def cycles(self) -> FloatArray:
        """Days from creation to closing, shape (n,); NaN unless both are known and in order."""
        fair: BoolArray = self.timed & self.closed & (self.closed_at >= self.created)
        return np.where(fair, np.where(fair, self.closed_at - self.created, 0) / DAY, np.nan)

    @cached_property
    def until(self) -> int:
        """The moment the records show: declared, or else the latest one found in them."""
        if self.history.observed_until != NEVER:
            return self.history.observed_until
        seen = _latest([micros(self.table["seen_at"])])
        events = self.ledger
        return seen or _latest(
            [self.created, self.closed_at, events.stages.at, events.activities.at]
        )

    def fact(self, name: str, among: str) -> bool:
        """Whether any source lists the field under `among`: static, excluded or trusted."""
        return any(name in getattr(f, among).get(self.side, ()) for f in self.history.facts)

    def until_of(self, table: Table) -> IntArray:
        """The moment each row's own source shows, int64 microseconds, NEVER where open-ended."""
        ends = {f.name: int(micros(np.array([f.observed_until]))[0]) for f in self.history.facts}
        return np.fromiter(
            (ends.get(s, NEVER) for s in table["source"]), dtype=np.int64, count=len(table)
        )

    def events(self, name: str) -> Table:
        """The rows of an event table that concern this side's records."""
        table = self.history.tables[name]
        if "entity" in table.columns:
            return table.take(np.flatnonzero(table["entity"] == self.side))
        wanted = table[f"{self.side}_id"]
        return table.take(np.array([w is not None for w in wanted], dtype=bool))

    def rows_of(self, ids: npt.NDArray[Any]) -> IntArray:
        """Positions of records by id, -1 for none."""
        place = self.ledger.row_of
        return np.fromiter((place.get(str(i), -1) for i in ids), dtype=np.int64, count=len(ids))

    def count(self, n: int, one: str = "", many: str = "") -> str:
        """A number of these records, and the verb that fits it: "1 deal has", "20 deals have"."""
        noun, verb = (self.side, one) if n == 1 else (self.noun, many)
        return f"{number_text(n)} {noun} {verb}".strip()

    def examples(self, which: npt.NDArray[Any]) -> list[str]:
        """The first few ids where `which` (a mask, or positions) says."""
        rows = np.flatnonzero(which) if which.dtype == bool else which
        return [str(i) for i in self.ledger.ids[rows[:_EXAMPLES]]]

    def tick(self, times: IntArray) -> int:
        """How finely times are told: a day where nearly all stand at the same hour, else a minute.

        Two hours count as the same: midnight elsewhere is one hour in summer, another in winter.
        """
        known = times[times != NEVER]
        if len(known) < 5:
            return _MINUTE
        hours, counts = np.unique(known % DAY, return_counts=True)
        top = np.argsort(-counts)[:2]
        full = (hours[top] % (15 * _MINUTE) == 0).all()
        return DAY if full and counts[top].sum() >= 0.95 * len(known) else _MINUTE

    def finding(
        self,
        severity: Severity,
        title: str,
        cure: str,
        *,
        examples: npt.NDArray[Any] | None = None,
        **figures: Any,
    ) -> Finding:
        """A finding about these records; its code is filled in by the check."""
        evidence = dict(figures)
        if examples is not None and len(found := self.examples(examples)):
            evidence["examples"] = found
        return Finding("", severity, self.side, title, evidence, cure)


@dataclass(frozen=True)
class Check:
    """One registered check.

    Attributes
    ----------
    code : str
    run : callable
        Answers a finding, several of different severity, or None when all is well.
    sides : tuple of {"deal", "lead"}
        The records it is for.
    timed : bool
        Whether it reads clocks, so that times made from the order of rows mean nothing to it.
    """

    code: str
    run: Callable[[View], Finding | Sequence[Finding] | None]
    sides: tuple[Side, ...] = ("deal", "lead")
    timed: bool = True

    def applies(self, view: View) -> bool:
        """Whether the check has something to look at."""
        if view.side not in self.sides or len(view) == 0:
            return False
        return not (self.timed and view.ledger.pseudo_times)

    def findings(self, view: View) -> list[Finding]:
        """What it finds, under its code."""
        found = self.run(view)
        several = [found] if isinstance(found, Finding) else found or ()
        return [replace(one, code=self.code) for one in several]


def _latest(times: Iterable[IntArray]) -> int:
    """The latest known moment, 0 for none."""
    return max((int(t[t != NEVER].max()) for t in times if (t != NEVER).any()), default=0)


def has_value(values: npt.NDArray[Any]) -> BoolArray:
    """Where a stored column has a value."""
    if values.dtype == object:
        return np.array([v is not None for v in values], dtype=bool)
    return np.asarray(~(np.isnan(values) if values.dtype.kind == "f" else np.isnat(values)))


def graded(share: float, severe: float, warning: float = 0.01) -> Severity:
    """Severity by the share of records concerned."""
    if share >= severe:
        return "severe"
    return "warning" if share >= warning else "info"


def date_text(moment: int) -> str:
    """Day of int64 microseconds since 1970 UTC, as 2026-03-31."""
    return str(np.datetime64(int(moment), "us").astype("datetime64[D]"))


def number_text(value: float) -> str:
    """A count with thousands separators."""
    return f"{value:,.0f}"


def listed(names: Iterable[str], most: int = 8) -> str:
    """The first few names, and how many more there are.

    Examples
    --------
    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    found = list(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more


def share_text(part: float, whole: float) -> str:
    """A share in percent that is never rounded to none or all of it.

    Examples
    --------
    >>> share_text(1, 3), share_text(1, 5000), share_text(0, 10), share_text(9, 10)
    ('33.3 %', 'under 0.1 %', '0 %', '90 %')
    """
    percent = 100.0 * part / whole
    if 0 < percent < 0.1:
        return "under 0.1 %"
    if 99.9 < percent < 100:
        return "over 99.9 %"
    return f"{percent:.3g} %"
