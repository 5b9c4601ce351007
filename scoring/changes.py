"""What moved in the open pipeline between two moments: a bridge that adds up to the cent.

Every deal is walked through the moments at which something about it became known, each read
through a snapshot; what one step changes is booked under a kind. So the open pipeline at the
start, and all that was booked, make the open pipeline at the end: for the whole, for every group,
and for the part that is expected to close in a period. Money is counted in whole cents (integers,
each deal rounded once at each moment), so that no sum depends on its order.

Where several things became known at one moment, they are booked in this order: the exchange rate
(on the amount as it was), the amount, the move to another group, the expected close date, and at
last that the deal was won, lost, deleted or merged. A deal that was created enters with the
amount that it had then.

What is booked is what happened, so two intervals in a row book what the whole interval does, kind
by kind. Three kinds are told net for each deal, because a typing error that was corrected is no
news: the amount (up or down, by its balance), the exchange rate, and without a period the shift of
the expected close date.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.columns import dictionary
from data.history import OPEN, WON, History, Ledger
from data.pipeline import FiscalCalendar, Period
from data.timelines import Timeline
from scoring.grouping import GROUPINGS, WHOLE, group_of, in_order
from scoring.money import base_currency, in_cents

__all__ = ["KINDS", "Bridge", "Change", "Changes", "ChangesError", "Moved", "Stock", "changes"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# In the order in which they are told, with what they mean.
KINDS: dict[str, str] = {
    "created": "became known, and was open",
    "reopened": "was won or lost, and is open again",
    "amount_set": "an amount became known where there was none",
    "amount_up": "the expected amount rose",
    "amount_down": "the expected amount fell, or was taken away",
    "exchange_rate": "the rate of the deal's currency moved",
    "pulled_in": "the expected close date moved to an earlier day; with a period: into it",
    "pushed_in": "with a period: the expected close date moved into it from an earlier one",
    "dated": "with a period: got an expected close date in it, and had none",
    "pushed_out": "the expected close date moved to a later day; with a period: out of it",
    "pulled_out": "with a period: the expected close date moved out of it to an earlier one",
    "undated": "with a period: had an expected close date in it, and has none",
    "moved": "of the whole: went to another group (owner, where no grouping is asked for)",
    "moved_in": "of a group: came from another one",
    "moved_out": "of a group: went to another one",
    "won": "was won; leaves with the amount it had",
    "lost": "was lost; leaves with the amount it had",
    "deleted": "was deleted, or merged into another",
}
_CODE = {kind: code for code, kind in enumerate(KINDS)}
# Booked as they come, then told net by deal under the kinds above.
_AMOUNT, _SHIFT = len(KINDS), len(KINDS) + 1
_NETTED = (_AMOUNT, _CODE["exchange_rate"])
_STATED = (_SHIFT, _CODE["moved"])  # no effect; what moved is the deal's amount, told once
_BETWEEN = (_CODE["moved_in"], _CODE["moved_out"])


class ChangesError(ValueError):
    """Changes that cannot be told; the message says why and what is allowed."""


@dataclass(frozen=True)
class Stock:
    """An open pipeline at a moment.

    Attributes
    ----------
    deals, without_amount : int
        How many, and how many of them carry no amount and count as nothing.
    cents : int
        What they are worth, in hundredths of the base currency.
    """

    deals: int
    without_amount: int
    cents: int


@dataclass(frozen=True)
class Change:
    """All that was booked under one kind, in one group.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    deals : int
        How many deals it concerns, each counted once.
    effect : int
        What it did to the pipeline, cents: below 0 where that became smaller.
    amount : int
        What moved, cents; where the effect is 0 (a shifted close date without a period, another
        owner in the whole), the amount of the deals.
    days : float or None
        Without a period: mean days by which a close date moved.
    """

    kind: str
    deals: int
    effect: int
    amount: int
    days: float | None


@dataclass(frozen=True)
class Moved:
    """One deal under one kind: `effect`, `amount` and `days` as in `Change`; `at` the last time."""

    deal_id: str
    kind: str
    group: str
    at: np.datetime64
    effect: int
    amount: int
    days: float | None


@dataclass(frozen=True)
class Bridge:
    """From the open pipeline at the start to that at the end, for one group.

    `before.cents` and the effects of `changes` add up to `after.cents`.
    """

    group: str
    before: Stock
    after: Stock
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Changes:
    """What moved: the whole first, then each group; then deal by deal, the largest first.

    `moved` may leave off the smaller ones; `moved_in_all` counts them too. `without_date` counts
    open deals at the end that have no expected close date, and so belong to no period.
    """

    start: np.datetime64
    end: np.datetime64
    currency: str
    by: str | None
    period: Period | None
    groups: tuple[Bridge, ...]
    moved: tuple[Moved, ...]
    moved_in_all: int
    without_date: int


def changes(
    history: History,
    start: np.datetime64,
    end: np.datetime64,
    by: str | None = None,
    *,
    period: Period | None = None,
    calendar: FiscalCalendar | None = None,
    most: int | None = None,
) -> Changes:
    """What moved in the open pipeline from `start` to `end`, as was known at each moment.

    Parameters
    ----------
    by : str, optional
        One of `scoring.grouping.GROUPINGS`.
    period : Period, optional
        Only what is expected to close in it. A deal without a date is in no period.
    calendar : FiscalCalendar, optional
        Where the days of the period begin; UTC when missing.
    most : int, optional
        How many deals to list; all when missing.

    Raises
    ------
    ChangesError
        If the end comes before the start.
    GroupingError
        If the grouping is unknown.
    HistoryError
        If an amount cannot be converted or is beyond reason.
    """
    if end < start:
        since, to = (f"{t.astype('datetime64[s]')}Z" for t in (start, end))
        raise ChangesError(f"from is {since}, to is {to}; from must not be later than to")
    path = _walk(history, start, end, by, _days_of(period, calendar or FiscalCalendar()))
    booked = _booked(path, period is not None)
    inner = np.isin(booked.kind, _BETWEEN)
    together = booked.take(~inner)
    whole = _told(_netted(together, np.zeros(len(together.row), dtype=np.int64)))
    cells = [(WHOLE, np.ones(len(path.row), dtype=bool), whole)]
    told = whole
    if by is not None:
        apart = booked.take(booked.kind != _CODE["moved"])
        told = _told(_netted(apart, apart.group))
        cells += [
            (name, path.group == code, told.take(told.group == code))
            for name, code in _in_order(path.names, by)
            if (path.open & path.inside & path.edge & (path.group == code)).any()
            or (told.group == code).any()
        ]
    return Changes(
        start,
        end,
        base_currency(history),
        by,
        period,
        tuple(
            Bridge(
                group, _stock(path, here & path.first), _stock(path, here & path.last), _sum(own)
            )
            for group, here, own in cells
        ),
        _moved(history, path, told, by, most),
        len(told.row),
        int((path.open & path.last & np.isnan(path.date)).sum()),
    )


def _days_of(period: Period | None, calendar: FiscalCalendar) -> tuple[float, float] | None:
    """First day of a period and the first after it, in days since 1970."""
    if period is None:
        return None
    first, after = (
        np.datetime64(calendar.day_of(moment), "D").astype(np.int64)
        for moment in (period.start, period.end)
    )
    return float(first), float(after)


# --- the way of every deal


@dataclass(frozen=True)
class _Path:
    """Deals at the moments when something about them became known, by deal and moment; (p,).

    Attributes
    ----------
    row, at : int64
    first, last : bool
        Whether the moment is the start, or the end, of the interval.
    known, open, won, gone : bool
    priced : bool
        Whether an amount is known.
    cents : int64
        Amount in the base currency; 0 for none.
    carried : int64
        The amount known one step before, at this moment's rate.
    date : float64
        Expected close date, days since 1970; NaN for none.
    inside : bool
        Whether that is one of the days asked for.
    group, mover : int64
        Group by code into `names`; and by the owner, where no grouping was asked for.
    """

    row: IntArray
    at: IntArray
    first: BoolArray
    last: BoolArray
    known: BoolArray
    open: BoolArray
    won: BoolArray
    gone: BoolArray
    priced: BoolArray
    cents: IntArray
    carried: IntArray
    date: FloatArray
    inside: BoolArray
    group: IntArray
    mover: IntArray
    names: npt.NDArray[np.object_]

    @property
    def edge(self) -> BoolArray:
        """Whether the moment is one of the two ends."""
        return self.first | self.last


def _walk(
    history: History,
    start: np.datetime64,
    end: np.datetime64,
    by: str | None,
    days: tuple[float, float] | None,
) -> _Path:
    lo, hi = (int(t.astype("datetime64[us]").astype(np.int64)) for t in (start, end))
    group_of(history.landmarks("deal", *_NOBODY), by)  # refuses an unknown grouping
    row, at = _moments(history, lo, hi, by)
    snapshot = history.landmarks("deal", row, at)
    ledger = history.deals
    is_open = snapshot.exists & (snapshot.outcome == OPEN)
    before = np.r_[False, row[1:] == row[:-1]][: len(row)]
    was_open = before & np.roll(is_open, 1)
    own, currency = snapshot.value("amount").numbers(), snapshot.value("currency").texts()
    codes, names = dictionary(group_of(snapshot, by))
    mover = codes if by is not None else dictionary(group_of(snapshot, "owner"))[0]
    date = snapshot.value("expected_close_date").numbers()
    inside = np.full(len(row), True) if days is None else (days[0] <= date) & (date < days[1])
    return _Path(
        row,
        at,
        at == lo,
        at == hi,
        ledger.known_from[row] <= at,
        is_open,
        snapshot.outcome == WON,
        ledger.gone_at[row] <= at,
        ~np.isnan(own),
        in_cents(history, snapshot, own, currency, is_open | was_open),
        in_cents(history, snapshot, np.roll(own, 1), np.roll(currency, 1), was_open),
        date,
        inside,
        codes.astype(np.int64),
        mover.astype(np.int64),
        names,
    )


def _in_order(names: npt.NDArray[np.object_], by: str) -> list[tuple[str, int]]:
    """Groups and their codes."""
    codes = {str(name): code for code, name in enumerate(names)}
    return [(name, codes[name]) for name in in_order(codes, by)]


_NOBODY = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)


def _moments(history: History, lo: int, hi: int, by: str | None) -> tuple[IntArray, IntArray]:
    """Deals that were open at some time from `lo` to `hi`, and the moments to read them at.

    Both ends, and every moment between at which something that counts became known.
    """
    ledger = history.deals
    fields = ["amount", "currency", "expected_close_date", GROUPINGS[by or "owner"]]
    fields += ["owner_id"] * (by == "team")
    everyone = np.arange(len(ledger))
    told = [
        (ledger.outcomes.row, ledger.outcomes.known_at),
        (everyone, ledger.known_from),
        (everyone, ledger.gone_at),
    ]
    events = _between(told, lo, hi)
    here = history.as_of("deal", np.datetime64(lo, "us")).rows
    rows = np.unique(np.concatenate([here, events[0]]))
    values = _between([pair for f in fields for pair in _told_of(ledger, f)], lo, hi)
    wanted = np.zeros(len(ledger), dtype=bool)
    wanted[rows] = True
    ends = np.concatenate([np.full(len(rows), lo), np.full(len(rows), hi)])
    row = np.concatenate([rows, rows, events[0], values[0]])
    at = np.concatenate([ends, events[1], values[1]])
    row, at = row[wanted[row]], at[wanted[row]]
    order = np.lexsort((at, row))
    row, at = row[order], at[order]
    new = np.r_[True, (row[1:] != row[:-1]) | (at[1:] != at[:-1])][: len(row)]
    return row[new], at[new]


def _told_of(ledger: Ledger, field: str) -> list[tuple[IntArray, IntArray]]:
    """Records and moments at which a value of the field became known."""
    timeline: Timeline = ledger.timeline(field)
    told = [(np.arange(len(ledger)), timeline.base_at)]
    if timeline.changes is not None:
        told.append((timeline.changes.row, timeline.changes.known_at))
    return told


def _between(told: list[tuple[IntArray, IntArray]], lo: int, hi: int) -> tuple[IntArray, IntArray]:
    """Those of some records and moments that lie after `lo`, and not after `hi`."""
    row, at = (np.concatenate(part) for part in zip(*told, strict=True))
    here = (at > lo) & (at <= hi)
    return row[here], at[here]


def _stock(path: _Path, here: BoolArray) -> Stock:
    """The open pipeline at some points of the way: all of one moment."""
    mine = here & path.open & path.inside
    return Stock(int(mine.sum()), int((mine & ~path.priced).sum()), int(path.cents[mine].sum()))


# --- what is booked


@dataclass(frozen=True)
class _Entries:
    """Bookings: kind, deal, group, moment, effect and amount in cents, days moved; (e,)."""

    kind: IntArray
    row: IntArray
    group: IntArray
    at: IntArray
    effect: IntArray
    amount: IntArray
    days: IntArray

    def take(self, which: npt.NDArray[np.int64] | BoolArray) -> _Entries:
        """Some of them."""
        return _Entries(*(getattr(self, name)[which] for name in self.__dataclass_fields__))


def _booked(path: _Path, with_period: bool) -> _Entries:
    """What each step of each deal changes, in the order that the module tells."""
    now = np.flatnonzero(np.r_[False, path.row[1:] == path.row[:-1]][: len(path.row)])
    was = now - 1
    old, new = path.group[was], path.group[now]
    before, carried, cents = path.cents[was], path.carried[now], path.cents[now]
    nothing = np.zeros(len(now), dtype=np.int64)
    mine, is_in = path.open[was] & path.inside[was], path.inside[now]
    into, out = path.open[was] & ~path.inside[was] & is_in, mine & ~is_in
    priced = np.where(path.priced[was], _AMOUNT, _CODE["amount_set"])
    hands = mine & (path.mover[was] != path.mover[now])
    leads, takes = _crossing(path.date[was], path.date[now])
    left = path.open[was] & ~path.open[now] & is_in
    ended = np.where(path.won[now], _CODE["won"], _CODE["lost"])
    ended = np.where(path.gone[now], _CODE["deleted"], ended)
    came = ~path.open[was] & path.open[now] & is_in
    entered = np.where(path.known[was], _CODE["reopened"], _CODE["created"])
    shift = nothing if with_period else _shift(path, was, now)
    booked = [
        (mine & (carried != before), _CODE["exchange_rate"], old, carried - before),
        (mine & (cents != carried), priced, old, cents - carried),
        (hands, _CODE["moved"], new, nothing),
        (hands, _CODE["moved_out"], old, -cents),
        (hands, _CODE["moved_in"], new, cents),
        (shift != 0, _SHIFT, new, nothing),
        (out, takes, new, -cents),
        (into, leads, new, cents),
        (left, ended, new, -cents),
        (came, entered, new, cents),
    ]
    parts = []
    for which, kind, group, effect in booked:
        i = np.flatnonzero(which)
        kinds = np.broadcast_to(np.asarray(kind, dtype=np.int64), len(now))[i]
        amount = np.where(np.isin(kinds, _STATED), cents[i], effect[i])
        days = np.where(kinds == _SHIFT, shift[i], 0)
        parts.append((kinds, path.row[now[i]], group[i], path.at[now[i]], effect[i], amount, days))
    return _Entries(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _crossing(old: FloatArray, new: FloatArray) -> tuple[IntArray, IntArray]:
    """Kinds of a close date that moves into a period, and out of it; a missing one is NaN."""
    later, earlier = new > old, new < old
    into = np.where(later, _CODE["pushed_in"], _CODE["dated"])
    out = np.where(later, _CODE["pushed_out"], _CODE["undated"])
    return (
        np.where(earlier, _CODE["pulled_in"], into),
        np.where(earlier, _CODE["pulled_out"], out),
    )


def _shift(path: _Path, was: IntArray, now: IntArray) -> IntArray:
    """Days by which the close dates of deals that stay open move; 0 where one is missing."""
    moved = path.date[now] - path.date[was]
    stays = path.open[was] & path.open[now] & ~np.isnan(moved)
    return np.where(stays, np.nan_to_num(moved), 0.0).astype(np.int64)


def _netted(booked: _Entries, group: IntArray) -> _Entries:
    """One entry for each deal, group and kind; the three net kinds under what they come to."""
    order = np.lexsort((booked.at, booked.kind, group, booked.row))
    part = booked.take(order)
    keys = np.column_stack([part.row, group[order], part.kind])
    new = np.r_[True, (keys[1:] != keys[:-1]).any(axis=1)][: len(keys)]
    begin = np.flatnonzero(new)
    end = np.r_[begin[1:], len(keys)][: len(begin)] - 1
    if not len(begin):
        return part
    effect, days = (np.add.reduceat(x, begin) for x in (part.effect, part.days))
    kind = part.kind[begin]
    # What moved: of the net kinds the balance, where there is no effect the deal's last amount.
    gross = np.add.reduceat(np.abs(part.amount), begin)
    amount = np.where(np.isin(kind, _NETTED), np.abs(effect), gross)
    amount = np.where(np.isin(kind, _STATED), np.abs(part.amount[end]), amount)
    return _Entries(kind, part.row[begin], group[order][begin], part.at[end], effect, amount, days)


def _told(netted: _Entries) -> _Entries:
    """The net kinds by their direction; those that come to nothing are no news."""
    is_amount, is_shift = netted.kind == _AMOUNT, netted.kind == _SHIFT
    up, down = _CODE["amount_up"], _CODE["amount_down"]
    kind = np.where(is_amount, np.where(netted.effect > 0, up, down), netted.kind)
    earlier, later = _CODE["pulled_in"], _CODE["pushed_out"]
    kind = np.where(is_shift, np.where(netted.days < 0, earlier, later), kind)
    rate = netted.kind == _CODE["exchange_rate"]
    nothing = (is_amount | rate) & (netted.effect == 0) | is_shift & (netted.days == 0)
    told = _Entries(
        kind, netted.row, netted.group, netted.at, netted.effect, netted.amount, netted.days
    )
    return told.take(~nothing)


def _sum(told: _Entries) -> tuple[Change, ...]:
    """Entries of one group, by kind."""
    found = []
    for kind, code in _CODE.items():
        mine = told.kind == code
        if mine.any():
            days = told.days[mine]
            found.append(
                Change(
                    kind,
                    len(np.unique(told.row[mine])),
                    int(told.effect[mine].sum()),
                    int(told.amount[mine].sum()),
                    float(days.mean()) if days.any() else None,
                )
            )
    return tuple(found)


def _moved(
    history: History, path: _Path, told: _Entries, by: str | None, most: int | None
) -> tuple[Moved, ...]:
    """Deal by deal, the largest amounts first."""
    kinds = list(KINDS)
    ids = history.deals.ids
    order = np.lexsort((told.kind, ids[told.row].astype(str), -told.amount))
    return tuple(
        Moved(
            str(ids[told.row[i]]),
            kinds[told.kind[i]],
            WHOLE if by is None else str(path.names[told.group[i]]),
            np.datetime64(int(told.at[i]), "us"),
            int(told.effect[i]),
            int(told.amount[i]),
            float(told.days[i]) if told.days[i] else None,
        )
        for i in order[:most].tolist()
    )
