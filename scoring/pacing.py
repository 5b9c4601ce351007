"""Pacing: what is won so far, against the same point of past periods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.pipeline import Period
from scoring.books import Books, bounds_of

__all__ = ["Pace", "PastPeriod", "pacing", "past_periods"]

_MOST = {"week": 26, "month": 24, "quarter": 12}


@dataclass(frozen=True)
class PastPeriod:
    """A period that is over: what was known to be won at the same point, and in the end; cents."""

    name: str
    then: int
    final: int


@dataclass(frozen=True)
class Pace:
    """Won to date against the same point of past periods.

    Attributes
    ----------
    elapsed : float
        Share of the period that has passed, 0-1.
    won : int
        Won to date, cents.
    past : tuple of PastPeriod
        Oldest first.
    usual_then : float or None
        Mean won at this point, cents.
    share_then, lowest, highest : float or None
        Median share of the final that was won at this point, and the least and most.
    implied : float or None
        Won to date / median share: what the period comes to if it goes on like the median, cents.
    reason : str
        Why something is not told.
    """

    elapsed: float
    won: int
    past: tuple[PastPeriod, ...]
    usual_then: float | None
    share_then: float | None
    lowest: float | None
    highest: float | None
    implied: float | None
    reason: str


def pacing(books: Books) -> Pace:
    """The running period against past ones of the same kind at the same share of their length."""
    start, end = books.period.start, books.period.end
    elapsed = min(float((books.as_of - start) / (end - start)), 1.0)
    won = books.won_in(books.to_date)
    past = tuple(_past(books, period, elapsed) for period in past_periods(books))
    # A period in which nothing was won tells no share.
    shares = np.array([p.then / p.final for p in past if p.final > 0])
    reason = "" if past else f"no whole {books.kind} lies between the first closing and this one"
    if past and not len(shares):
        reason = f"nothing was won in the {len(past)} past periods"
    median = float(np.median(shares)) if len(shares) else None
    return Pace(
        elapsed,
        won,
        past,
        float(np.mean([p.then for p in past])) if past else None,
        median,
        float(shares.min()) if len(shares) else None,
        float(shares.max()) if len(shares) else None,
        won / median if median else None,
        reason or ("" if median else "nothing was won by this point in the median past period"),
    )


def past_periods(books: Books) -> list[Period]:
    """The newest whole periods before this one, from the first closing on; oldest first."""
    at = books.closed.at
    if not len(at):
        return []
    first = np.datetime64(max(int(at.min()), books.history.observed_from), "us")
    whole = books.calendar.periods_between(books.kind, first, books.period.start)
    return whole[-_MOST[books.kind] :]


def _past(books: Books, period: Period, elapsed: float) -> PastPeriod:
    start, end = bounds_of(period)
    point = start + round(elapsed * (end - start))
    _, at, known, cents = books.revenue
    inside = (at >= start) & (at < end)
    then = inside & (at <= point) & (known <= point)
    return PastPeriod(period.name, int(cents[then].sum()), int(cents[inside].sum()))
