"""The stretches of time that a back-test forecasts, and the same stretches earlier.

A window lies ahead of its origin: so many days from it on, or a calendar period that may have
begun before. Naive methods look at the same window earlier, seen from the same point: as far into
the period, as far ahead of it. All of this is arithmetic of dates; nothing here reads a record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data.pipeline import FiscalCalendar, Period, PeriodKind

__all__ = ["Season", "Stretch", "Window", "WindowError", "calendar_windows", "day_windows"]

_DAY = np.timedelta64(1, "D")
_PAST = 8  # past stretches that the naive methods look at
_LEAST_PAIRS = 2  # that the size of seasonal differences is read off
_LEAST_STEP = 7  # days between past stretches
# Steps after which a rhythm repeats, the longer first: days (whole weeks, so that weekdays keep
# their place), or periods.
_SEASONS: dict[str, tuple[tuple[str, int], ...]] = {
    "day": (("year", 364), ("quarter", 91)),
    "week": (("year", 52), ("quarter", 13)),
    "month": (("year", 12), ("quarter", 3)),
    "quarter": (("year", 4), ("quarter", 1)),
}


class WindowError(ValueError):
    """A window that does not exist; the message says what is allowed."""


@dataclass(frozen=True)
class Stretch:
    """A stretch of time seen from a moment; datetime64[us].

    Attributes
    ----------
    mark : datetime64[us]
        The moment it is seen from: what was won between `start` and it is won to date.
    start, end : datetime64[us]
        `end` is excluded.
    """

    mark: np.datetime64
    start: np.datetime64
    end: np.datetime64

    @property
    def rest(self) -> tuple[np.datetime64, np.datetime64]:
        """What is not yet over at the mark."""
        return max(self.mark, self.start), self.end


@dataclass(frozen=True)
class Season:
    """The same stretch a season earlier.

    Attributes
    ----------
    name : str
        "year" or "quarter": the longest that was seen often enough.
    earlier : Stretch
    pairs : tuple of (Stretch, Stretch)
        Past stretches with those a season before them, newest first; empty where there are too
        few to tell how much seasons differ.
    """

    name: str
    earlier: Stretch
    pairs: tuple[tuple[Stretch, Stretch], ...]


@dataclass(frozen=True)
class Window:
    """A stretch ahead of an origin.

    Attributes
    ----------
    name : str
        What windows of all origins are compared under: "28 days", "this month", "next month".
    period : str
        Name of the calendar period, "2017-07"; empty for so many days.
    stretch : Stretch
        Its mark is the origin.
    past : tuple of Stretch
        The same earlier, over by the origin, newest first.
    season : Season or None
        None where the records do not reach back far enough.
    """

    name: str
    period: str
    stretch: Stretch
    past: tuple[Stretch, ...]
    season: Season | None

    @property
    def days(self) -> float:
        """Days from the origin to the window's end."""
        return float((self.stretch.end - self.stretch.mark) / _DAY)


def day_windows(origin: np.datetime64, horizons: list[float], first: np.datetime64) -> list[Window]:
    """Windows of so many days from the origin on, shortest first.

    Parameters
    ----------
    first : datetime64[us]
        Earliest moment from which the records tell everything.
    """
    found = []
    for days in sorted(horizons):
        length = np.timedelta64(int(days * 86_400_000_000), "us")

        def back(steps: int, length: np.timedelta64 = length) -> Stretch | None:
            mark = origin - steps * _DAY
            return Stretch(mark, mark, mark + length) if mark >= first else None

        newest = int(np.ceil(days))
        found.append(
            Window(
                f"{days:g} {'day' if days == 1 else 'days'}", "",
                Stretch(origin, origin, origin + length),
                *_earlier(back, newest, max(newest // 2, _LEAST_STEP), _SEASONS["day"]),
            )
        )  # fmt: skip
    return found


def calendar_windows(
    calendar: FiscalCalendar, kind: PeriodKind, origin: np.datetime64, count: int,
    first: np.datetime64,
) -> list[Window]:  # fmt: skip
    """`count` calendar periods: the one that holds the origin, and those after it.

    Raises
    ------
    WindowError
        If there is no such kind of period, or the count is below 1.
    """
    kinds = [k for k in _SEASONS if k != "day"]
    if kind not in kinds or count < 1:
        raise WindowError(
            f"{count} periods of kind {kind!r}; allowed: 1 or more, of kind {', '.join(kinds)}"
        )
    ahead = calendar.periods(kind, origin, count)
    # The running one is whole only afterwards; the first one before may not be whole at all.
    before = calendar.periods_between(kind, first, ahead[0].start)
    share = (origin - ahead[0].start) / (ahead[0].end - ahead[0].start)
    periods = [*before, *ahead]
    found = []
    for k, period in enumerate(ahead):

        def back(steps: int, k: int = k) -> Stretch | None:
            at = len(before) - steps
            return _seen(periods[at], periods[at + k], share) if at >= 0 else None

        found.append(
            Window(
                _name(kind, k), period.name, Stretch(origin, period.start, period.end),
                *_earlier(back, k + 1, 1, _SEASONS[kind]),
            )
        )  # fmt: skip
    return found


def _seen(running: Period, period: Period, share: float) -> Stretch:
    """A period seen from as far into the running one, in shares of its length."""
    length = (running.end - running.start).astype("timedelta64[us]")
    into = np.timedelta64(round(float(share) * int(length.astype(np.int64))), "us")
    return Stretch(running.start + into, period.start, period.end)


def _name(kind: str, ahead: int) -> str:
    return (f"this {kind}", f"next {kind}", f"{ahead} {kind}s ahead")[min(ahead, 2)]


def _earlier(
    back: Callable[[int], Stretch | None], newest: int, apart: int,
    seasons: tuple[tuple[str, int], ...],
) -> tuple[tuple[Stretch, ...], Season | None]:  # fmt: skip
    """Past stretches, from the newest that is over on, and the same a season earlier.

    `back` gives the stretch so many steps earlier, None where the records do not reach it.
    """
    steps = [newest + i * apart for i in range(_PAST)]
    past = tuple(s for n in steps if (s := back(n)) is not None)
    found: list[Season] = []
    for name, season in seasons:
        lag = season * -(-newest // season)  # over by the origin
        earlier = back(lag)
        pairs = tuple(
            (late, early)
            for n in steps
            if (late := back(n)) is not None and (early := back(n + lag)) is not None
        )
        if earlier is not None:
            found.append(Season(name, earlier, pairs if len(pairs) >= _LEAST_PAIRS else ()))
    judged = [season for season in found if season.pairs]
    return past, next(iter(judged + found), None)
