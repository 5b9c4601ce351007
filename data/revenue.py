"""Won revenue as events: what was won when, and since when that was known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.chronicle import OPEN, WON, Ledger
from data.columns import Column, FloatArray, IntArray
from data.events import last_of_moments, prefixes, run_starts

__all__ = ["MEASURES", "revenue_events"]

# What may be counted of won deals, and the fields that say it, the first that is known. Of none
# of them, each deal counts one.
MEASURES: dict[str, tuple[str, ...]] = {
    "amount": ("closed_amount", "amount"),
    "recurring": ("recurring_amount",),
    "count": (),
}

# (currency, records, moments) -> units of the base currency for one of each record's own.
Rates = Callable[[npt.NDArray[np.object_], IntArray, IntArray], FloatArray]
_Key = tuple[int, int, int]  # moment it counts, sign, number among those alike


@dataclass
class _Entries:
    """Entries in the making: a win, or what takes one back.

    `asked` is the moment whose knowledge gives the amount, `closed` the moment of the win, by
    whose rate it is converted.
    """

    row: list[int]
    at: list[int]
    known_at: list[int]
    sign: list[int]
    asked: list[int]
    closed: list[int]

    def add(self, row: int, at: int, known_at: int, sign: int, win: tuple[int, int]) -> None:
        """Add one; `win` is its (asked, closed)."""
        for column, value in zip(
            (self.row, self.at, self.known_at, self.sign, self.asked, self.closed),
            (row, at, known_at, sign, *win),
            strict=True,
        ):
            column.append(value)


def revenue_events(
    ledger: Ledger, rates: Rates, measure: str = "amount"
) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
    """Revenue events: deal row, moment it counts, moment it was known, amount.

    A win counts on the day of closing its closed amount (the amount where none is kept), as known
    when the closing was known, in the base currency at the rate of that day; a reopening takes
    the same amount back on its own day. What is learnt later (a corrected amount, a closing told
    late) takes the old entry back and makes a new one, known from then. So the entries known by
    any moment add up to what was known then. Sorted by deal, then by moment known. Of another
    measure (`MEASURES`) than the amount, the same of the recurring amount, or of the number.
    """
    fields = MEASURES[measure]
    won = np.unique(ledger.outcomes.row[ledger.outcomes.value == WON])
    corrected = _corrections(ledger, fields)
    simple = won[(np.diff(ledger.outcomes.start)[won] == 1) & ~np.isin(won, corrected[0])]
    first = ledger.outcomes.start[simple]
    at, known = ledger.outcomes.at[first], ledger.outcomes.known_at[first]
    found = _Entries([], [], [], [], [], [])
    by_row = _by_row(*corrected)
    for row in np.setdiff1d(won, simple).tolist():
        _walk(ledger, row, by_row.get(row, []), found)

    def joined(plain: IntArray, others: list[int]) -> IntArray:
        return np.concatenate([plain, np.array(others, dtype=np.int64)])

    rows, known_at = joined(simple, found.row), joined(known, found.known_at)
    order = np.lexsort((np.arange(len(rows)), known_at, rows))
    told, closed = joined(known, found.asked), joined(at, found.closed)
    value = _amounts(ledger, fields, rows, told, closed, rates) if fields else np.ones(len(rows))
    value *= joined(np.ones(len(simple), dtype=np.int64), found.sign)
    return rows[order], joined(at, found.at)[order], known_at[order], value[order]


def _corrections(ledger: Ledger, fields: tuple[str, ...]) -> tuple[IntArray, IntArray]:
    """(deal, moment known) of changes of an amount that came after the deal was known as won."""
    events = ledger.outcomes
    is_won = np.flatnonzero(events.value == WON)
    since = np.full(len(ledger), np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(since, events.row[is_won], events.known_at[is_won])
    rows, moments = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for name in (*fields, "currency") if fields else ():
        changes = ledger.timeline(name).changes
        if changes is not None:
            late = np.flatnonzero(changes.known_at > since[changes.row])
            rows.append(changes.row[late])
            moments.append(changes.known_at[late])
    return np.concatenate(rows), np.concatenate(moments)


def _by_row(rows: IntArray, moments: IntArray) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for row, moment in zip(rows.tolist(), moments.tolist(), strict=True):
        found.setdefault(row, []).append(moment)
    return found


def _walk(ledger: Ledger, row: int, corrected: list[int], found: _Entries) -> None:
    """Entries of a deal with more than one closing, or corrections: state by state."""
    events = ledger.outcomes
    spells_at: dict[int, list[tuple[int, int]]] = {}
    for position, line in prefixes(events, row):
        starts = run_starts(events.value, last_of_moments(events.at, line), OPEN)
        spells_at[int(events.known_at[position])] = [
            (int(events.at[p]), int(events.value[p])) for p in starts
        ]
    spells: list[tuple[int, int]] = []
    shown: dict[_Key, tuple[int, int]] = {}
    asked: dict[int, int] = {}  # by moment of closing, whose knowledge its amount is
    for moment in sorted({*spells_at, *corrected}):
        spells = spells_at.get(moment, spells)
        if spells and spells[-1][1] == WON:  # what ended keeps the amount it had
            asked[spells[-1][0]] = moment
        now = _entries_of(spells, asked, moment)
        for key, win in shown.items():
            if now.get(key) != win:
                found.add(row, key[0], moment, -key[1], win)
        for key, win in now.items():
            if shown.get(key) != win:
                found.add(row, key[0], moment, key[1], win)
        shown = now


def _entries_of(
    spells: list[tuple[int, int]], asked: dict[int, int], moment: int
) -> dict[_Key, tuple[int, int]]:
    """What a deal's spells (when each began, its outcome) come to: wins, and what ended them."""
    found: dict[_Key, tuple[int, int]] = {}
    for i, (at, value) in enumerate(spells):
        if value != WON:
            continue
        win = asked.setdefault(at, moment), at
        ends = [(spells[i + 1][0], -1)] if i + 1 < len(spells) else []
        for when, sign in [(at, 1), *ends]:
            same = sum(key[:2] == (when, sign) for key in found)
            found[when, sign, same] = win
    return found


def _amounts(
    ledger: Ledger, fields: tuple[str, ...], rows: IntArray, asked: IntArray, closed: IntArray,
    rates: Rates,
) -> FloatArray:  # fmt: skip
    """What was won, in the base currency; 0 where no amount is known."""
    value = np.full(len(rows), np.nan)
    for name in fields:
        own = ledger.timeline(name).believed(rows, asked).numbers()
        value = np.where(np.isnan(value), own, value)
    priced = np.flatnonzero(~np.isnan(value))
    out = np.zeros(len(rows))
    currency: Column = ledger.timeline("currency").believed(rows[priced], asked[priced])
    out[priced] = value[priced] * rates(currency.texts(), rows[priced], closed[priced])
    return out
