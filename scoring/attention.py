"""Open deals that want a look: slipped, stalled, and at risk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.timelines import DAY, NEVER
from scoring.books import Books
from scoring.scores import won_within
from scoring.stage_table import Limits, limits

__all__ = ["Attention", "Flagged", "attention", "flagged"]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_SHARE = 0.5  # a deal is at risk below this share of its stage's own chance


@dataclass(frozen=True)
class Attention:
    """Which open deals want a look; arrays by the rows of `books.open`.

    Attributes
    ----------
    overdue : bool
        The expected close date has passed.
    pushed : bool
        Expected in the period when that began (or when the deal became known), and after it now.
    long, idle : bool
        Longer in its stage, or without activity, than is typical of deals that were won.
    counted_on : bool
        Expected to close by the end of the period.
    at_risk : bool
        Counted on, and with a model: its chance to be won by the end of the period is below half
        of what deals of its stage have in the end; without one: slipped or stalled.
    chance, usual : float64
        The two chances, NaN where there is none.
    days_in_stage, days_idle, limit_days, limit_idle : float64
    """

    overdue: BoolArray
    pushed: BoolArray
    long: BoolArray
    idle: BoolArray
    counted_on: BoolArray
    at_risk: BoolArray
    chance: FloatArray
    usual: FloatArray
    days_in_stage: FloatArray
    days_idle: FloatArray
    limit_days: FloatArray
    limit_idle: FloatArray

    @property
    def slipped(self) -> BoolArray:
        """The expected close date has passed, or was pushed out of the period."""
        return self.overdue | self.pushed

    @property
    def stalled(self) -> BoolArray:
        """Nothing moves: too long in its stage, or without activity."""
        return self.long | self.idle


@dataclass(frozen=True)
class Flagged:
    """One deal that wants a look, and why, in words.

    Attributes
    ----------
    flags : tuple of str
        slipped, stalled, at_risk.
    """

    deal_id: str
    owner_id: str | None
    stage_id: str | None
    cents: int
    flags: tuple[str, ...]
    why: str


def attention(books: Books) -> Attention:
    """Look at every open deal."""
    deals = books.open
    today = books.day(books.as_of)
    first, after = books.day(books.period.start), books.day(books.period.end)
    expected = books.expected
    since = np.maximum(books.to_date.start, deals.ledger.known_from[deals.rows])
    since = np.minimum(since, books.now)
    then = books.history.landmarks("deal", deals.rows, since)
    before = then.value("expected_close_date").numbers()
    overdue = expected < today
    pushed = (before >= first) & (before < after) & (expected >= after)
    counted_on = expected < after
    known = limits(books)
    limit_days, limit_idle = _of_stages(books, known)
    quiet = _days_idle(books)
    long = deals.days_in_stage > limit_days
    idle = quiet > limit_idle
    chance, usual = _chances(books, counted_on)
    at_risk = counted_on & (overdue | pushed | long | idle)
    if books.bundle is not None:
        at_risk = counted_on & (chance < _SHARE * usual)
    return Attention(
        overdue,
        pushed,
        long,
        idle,
        counted_on,
        at_risk,
        chance,
        usual,
        deals.days_in_stage,
        quiet,
        limit_days,
        limit_idle,
    )


def _of_stages(books: Books, known: Limits) -> tuple[FloatArray, FloatArray]:
    """The limits of each open deal's stage; NaN for a stage that is not known."""
    stage = books.open.stage
    return np.append(known.days, np.nan)[stage], np.append(known.idle, np.nan)[stage]


def _days_idle(books: Books) -> FloatArray:
    """Days since the last activity, or since the stage was entered, whichever is later."""
    deals = books.open
    events = deals.ledger.activities
    last = events.latest(*deals.seen(events))
    at = np.where(last >= 0, np.append(events.at, 0)[last], -NEVER)
    since = np.maximum(at, deals.stage_began)
    return np.where(since == NEVER, np.nan, (books.now - np.minimum(since, books.now)) / DAY)


def _chances(books: Books, counted_on: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Chance to be won by the end of the period, and the stage's own in the end."""
    chance, usual = np.full(len(books.open), np.nan), np.full(len(books.open), np.nan)
    left = float((books.period.end - books.as_of) / np.timedelta64(1, "D"))
    rows = np.flatnonzero(counted_on)
    if books.bundle is None or left <= 0 or not len(rows):
        return chance, usual
    part = books.open.take(rows)
    chance[rows] = won_within(part, books.bundle, np.full(len(rows), left))
    rates = books.bundle.stage_rates
    by_stage = [rates.get(str(level), {}).get("rate", np.nan) for level in part.ledger.stage_levels]
    usual[rows] = np.array([*by_stage, np.nan])[part.stage]
    return chance, usual


def flagged(books: Books, found: Attention, most: int) -> tuple[Flagged, ...]:
    """The deals that want a look, the largest amounts first."""
    any_flag = found.slipped | found.stalled | found.at_risk
    rows = np.flatnonzero(any_flag)
    rows = rows[np.lexsort((books.open.ids[rows].astype(str), -books.open_cents[rows]))][:most]
    part = books.open.take(rows)
    owners = part.value("owner_id").texts()
    stages = [None if s < 0 else str(part.ledger.stage_levels[s]) for s in part.stage]
    return tuple(
        Flagged(
            str(part.ids[i]),
            owners[i],
            stages[i],
            int(books.open_cents[row]),
            tuple(
                name
                for name, which in (
                    ("slipped", found.slipped),
                    ("stalled", found.stalled),
                    ("at_risk", found.at_risk),
                )
                if which[row]
            ),
            _why(books, found, int(row)),
        )
        for i, row in enumerate(rows.tolist())
    )


def _why(books: Books, found: Attention, row: int) -> str:
    said = []
    expected = books.expected[row]
    day = "" if np.isnan(expected) else str(np.datetime64(int(expected), "D"))
    if found.overdue[row]:
        said.append(f"was expected on {day}")
    if found.pushed[row]:
        said.append(f"pushed out of {books.period.name}, to {day}")
    if found.long[row]:
        said.append(
            f"{_days(found.days_in_stage[row])} days in its stage (9 of 10 won deals: under "
            f"{_days(found.limit_days[row])})"
        )
    if found.idle[row]:
        said.append(
            f"{_days(found.days_idle[row])} days without activity (limit "
            f"{_days(found.limit_idle[row])})"
        )
    if found.at_risk[row] and not np.isnan(found.chance[row]):
        said.append(
            f"{100 * found.chance[row]:.0f} % to be won in {books.period.name} (its stage in the "
            f"end: {100 * found.usual[row]:.0f} %)"
        )
    return "; ".join(said)


def _days(days: float) -> str:
    return f"{days:.0f}" if days >= 10 else f"{days:.1f}".removesuffix(".0")
