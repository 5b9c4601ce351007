"""The sales process as configuration: stages in order, fiscal calendar, stage presets."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt

from data.records import Table

__all__ = [
    "PRESETS",
    "WEEKDAYS",
    "CalendarError",
    "FiscalCalendar",
    "OpenStages",
    "Period",
    "PeriodKind",
    "open_stages",
    "preset_probability",
]

PeriodKind = Literal["week", "month", "quarter"]

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_WEEKS = ("4-4-5", "4-5-4", "5-4-4")
_YEAR_STARTS = ("nearest", "last")
_MARKED = 1890, 2260  # years; records are from 1900 to 2200
_DAY = 86_400_000_000  # microseconds
_PERIOD_NAME = re.compile(r"(19|20|21)\d\d-\w{2,4}")
_LEAST, _MOST = 0.02, 0.95  # what a believed chance to be won is kept within


class CalendarError(ValueError):
    """A calendar setting or period that does not exist; the message says what is allowed."""


@dataclass(frozen=True, slots=True)
class Period:
    """A fiscal bucket: start included, end excluded, both datetime64[us] in UTC."""

    start: np.datetime64
    end: np.datetime64
    name: str


@dataclass(frozen=True)
class FiscalCalendar:
    """Where weeks, months and fiscal quarters begin.

    A fiscal year is made of calendar months, or of whole weeks: four quarters of 13 weeks, split
    into months of 4, 4 and 5 (or 4, 5, 4; 5, 4, 4) weeks. A year of weeks begins near the first
    of its first month, so now and then it has a 53rd week, which belongs to its last month.

    Attributes
    ----------
    first_month : int
        First month of the fiscal year, 1-12.
    zone : str
        IANA time zone of the organisation; a bare date is 00:00 there.
    weeks : str
        How many weeks the months of a quarter have: "4-4-5", "4-5-4" or "5-4-4"; "" for months of
        the calendar.
    week_start : str
        The day on which weeks begin, and with them years of weeks: "monday" to "sunday".
    year_start : str
        Which such day begins a year of weeks: the one "nearest" to the first of the first month
        (at most three days away), or the "last" one up to it.
    """

    first_month: int = 1
    zone: str = "UTC"
    weeks: str = ""
    week_start: str = "monday"
    year_start: str = "nearest"

    def __post_init__(self) -> None:
        if not 1 <= self.first_month <= 12:
            raise CalendarError(f"first_month is {self.first_month}; allowed: 1 to 12")
        for name, allowed in (
            ("weeks", ("", *_WEEKS)),
            ("week_start", WEEKDAYS),
            ("year_start", _YEAR_STARTS),
        ):
            if getattr(self, name) not in allowed:
                words = ", ".join(repr(v) for v in allowed)
                raise CalendarError(f"{name} is {getattr(self, name)!r}; allowed: {words}")
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise CalendarError(
                f"time zone is {self.zone!r}; allowed: an IANA name such as Europe/Berlin"
            ) from error

    def midnight(self, day: dt.date) -> np.datetime64:
        """00:00 of a day in the organisation's zone, as UTC datetime64[us]."""
        local = dt.datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(self.zone))
        return np.datetime64(local.astimezone(dt.UTC).replace(tzinfo=None), "us")

    def day_of(self, moment: np.datetime64) -> dt.date:
        """The calendar day of a UTC moment in the organisation's zone."""
        utc: dt.datetime = moment.astype("datetime64[us]").astype(dt.datetime)
        return utc.replace(tzinfo=dt.UTC).astimezone(ZoneInfo(self.zone)).date()

    def local_days(self, at: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Local times in days since 1970, shape (m,), of UTC microseconds `at`."""
        if self.zone == "UTC":
            return at / _DAY
        moments, place = np.unique(at, return_inverse=True)
        zone = ZoneInfo(self.zone)
        utc = [np.datetime64(int(m), "us").astype(dt.datetime) for m in moments]
        ahead = [
            dt.datetime.astimezone(u.replace(tzinfo=dt.UTC), zone).utcoffset() or dt.timedelta()
            for u in utc
        ]
        local = moments / _DAY + np.array([a / dt.timedelta(days=1) for a in ahead])
        return np.asarray(local[place], dtype=np.float64)

    def start_of(self, kind: PeriodKind, day: dt.date) -> dt.date:
        """First day of the week, month or fiscal quarter that holds `day`."""
        if kind not in get_args(PeriodKind):
            raise CalendarError(f"period is {kind!r}; allowed: {', '.join(get_args(PeriodKind))}")
        if kind == "week":
            return day - dt.timedelta(days=(day.weekday() - WEEKDAYS.index(self.week_start)) % 7)
        if self.weeks:
            first, places = self._fiscal_year(day)[1], self._places(kind)
            passed = (day - first).days // 7
            return first + dt.timedelta(weeks=max(p for p in places if p <= passed))
        if kind == "month":
            return day.replace(day=1)
        back = (day.month - self.first_month) % 3
        return _add_months(day.replace(day=1), -back)

    def _next(self, kind: PeriodKind, start: dt.date) -> dt.date:
        """First day of the period after the one that begins at `start`."""
        if kind == "week":
            return start + dt.timedelta(days=7)
        if not self.weeks:
            return _add_months(start, 1 if kind == "month" else 3)
        year, first = self._fiscal_year(start)
        passed = (start - first).days // 7
        later = [p for p in self._places(kind) if p > passed]
        return first + dt.timedelta(weeks=later[0]) if later else self._first_day(year + 1)

    def _first_day(self, year: int) -> dt.date:
        """The first day of the year of weeks whose first month is in a calendar year."""
        first = dt.date(year, self.first_month, 1)
        since = (first.weekday() - WEEKDAYS.index(self.week_start)) % 7
        ahead = 7 if self.year_start == "nearest" and since > 3 else 0
        return first + dt.timedelta(days=ahead - since)

    def _fiscal_year(self, day: dt.date) -> tuple[int, dt.date]:
        """The year of weeks that holds a day: the calendar year of its first month, its start."""
        year = day.year + 1
        while self._first_day(year) > day:
            year -= 1
        return year, self._first_day(year)

    def _places(self, kind: str) -> list[int]:
        """The weeks of a year, from 0, in which months or quarters begin."""
        months = [0, *accumulate(int(n) for n in self.weeks.split("-"))][:3]
        return [13 * q + m for q in range(4) for m in (months if kind == "month" else [0])]

    @property
    def marks(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Days since 1970 on which fiscal months begin, and fiscal quarters, from 1890 to 2260."""
        return _marks(self)

    def periods(self, kind: PeriodKind, as_of: np.datetime64, horizon: int) -> list[Period]:
        """`horizon` periods in order, the one that holds `as_of` first.

        Raises
        ------
        CalendarError
            If the kind is unknown or the horizon is not from 1 to 260.
        """
        if not 1 <= horizon <= 260:
            raise CalendarError(f"horizon is {horizon} periods; allowed: 1 to 260")
        start = self.start_of(kind, self.day_of(as_of))
        found = []
        for _ in range(horizon):
            end = self._next(kind, start)
            found.append(Period(self.midnight(start), self.midnight(end), self._name(kind, start)))
            start = end
        return found

    def periods_between(
        self, kind: PeriodKind, start: np.datetime64, end: np.datetime64
    ) -> list[Period]:
        """Whole periods inside [start, end), in order."""
        day = self.start_of(kind, self.day_of(start))
        found = []
        while self.midnight(day) < end:
            following = self._next(kind, day)
            if self.midnight(day) >= start and self.midnight(following) <= end:
                found.append(
                    Period(self.midnight(day), self.midnight(following), self._name(kind, day))
                )
            day = following
        return found

    def named(self, name: str, as_of: np.datetime64) -> tuple[PeriodKind, Period]:
        """The period of a name like 2026-Q1, 2026-03 or 2026-W09, and its kind.

        The kind alone ("week", "month", "quarter") names the period that holds `as_of`.

        Raises
        ------
        CalendarError
            If no period has that name.
        """
        for kind in get_args(PeriodKind):
            if name == kind:
                return kind, self.periods(kind, as_of, 1)[0]
        if _PERIOD_NAME.fullmatch(name):
            # Two years around: a fiscal year may begin in the calendar year before its name.
            first = self.midnight(dt.date(int(name[:4]) - 1, 1, 1))
            last = self.midnight(dt.date(int(name[:4]) + 1, 2, 1))
            for kind in get_args(PeriodKind):
                for period in self.periods_between(kind, first, last):
                    if period.name == name:
                        return kind, period
        raise CalendarError(
            f"period is {name!r}; allowed: {', '.join(get_args(PeriodKind))}, or a name like "
            "2026-Q1, 2026-03 or 2026-W09"
        )

    def _name(self, kind: PeriodKind, start: dt.date) -> str:
        """The name of a period, the only one of its kind to have it.

        A fiscal year carries the calendar year it ends in, the commonest convention.
        """
        if self.weeks:
            year, first = self._fiscal_year(start)
            year += self.first_month > 1
            week = (start - first).days // 7
            if kind == "week":
                return f"{year}-W{week + 1:02d}"
            number = self._places(kind).index(week) + 1
            return f"{year}-P{number:02d}" if kind == "month" else f"{year}-Q{number}"
        if kind == "week":
            # A week belongs to the year that holds its fourth day: from Mondays on, ISO's weeks.
            fourth = start + dt.timedelta(days=3)
            return f"{fourth.year}-W{(fourth.timetuple().tm_yday - 1) // 7 + 1:02d}"
        if kind == "month":
            return f"{start:%Y-%m}"
        quarter = ((start.month - self.first_month) % 12) // 3 + 1
        year = start.year + (self.first_month > 1 and start.month >= self.first_month)
        return f"{year}-Q{quarter}"


@lru_cache(maxsize=8)
def _marks(
    calendar: FiscalCalendar,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    years = range(_MARKED[0], _MARKED[1])
    if calendar.weeks:
        firsts = np.array([calendar._first_day(year) for year in years], dtype="datetime64[D]")
        starts = [
            (firsts[:, None] + 7 * np.array(calendar._places(kind))).ravel()
            for kind in ("month", "quarter")
        ]
    else:
        months = np.arange(f"{years.start}-01", f"{years.stop}-01", dtype="datetime64[M]")
        starts = [months, months[(calendar.first_month - 1) % 3 :: 3]]
    found = [s.astype("datetime64[D]").astype(np.float64) for s in starts]
    for days in found:
        days.flags.writeable = False  # shared by all who ask
    return found[0], found[1]


def _add_months(day: dt.date, months: int) -> dt.date:
    years, month = divmod(day.month - 1 + months, 12)
    return day.replace(year=day.year + years, month=month + 1)


# Win probability by stage as vendors ship them, or even steps where they document none.
# Priors with a small weight, never the forecast.
PRESETS: dict[str, tuple[tuple[str, float], ...]] = {
    "salesforce": (
        ("Prospecting", 0.10),
        ("Qualification", 0.10),
        ("Needs Analysis", 0.20),
        ("Value Proposition", 0.50),
        ("Id. Decision Makers", 0.60),
        ("Perception Analysis", 0.70),
        ("Proposal/Price Quote", 0.75),
        ("Negotiation/Review", 0.90),
    ),
    "hubspot": (
        ("Appointment scheduled", 0.20),
        ("Qualified to buy", 0.40),
        ("Presentation scheduled", 0.60),
        ("Decision maker bought-in", 0.80),
        ("Contract sent", 0.90),
    ),
    "suitecrm": (
        ("Prospecting", 0.10),
        ("Qualification", 0.20),
        ("Needs Analysis", 0.25),
        ("Value Proposition", 0.30),
        ("Id. Decision Makers", 0.40),
        ("Perception Analysis", 0.50),
        ("Proposal/Price Quote", 0.65),
        ("Negotiation/Review", 0.80),
    ),
    "frappe": (
        ("Qualification", 0.10),
        ("Demo/Making", 0.25),
        ("Proposal/Quotation", 0.50),
        ("Negotiation", 0.70),
        ("Ready to close", 0.90),
    ),
    "dynamics": (("Qualify", 0.20), ("Develop", 0.40), ("Propose", 0.60), ("Close", 0.80)),
}


def preset_probability(stage_name: str, position: float) -> float:
    """Prior win probability of a stage nobody has closed a deal from yet.

    Parameters
    ----------
    stage_name : str
        What people call the stage; matched against the vendors' names.
    position : float
        Place in the pipeline, 0 for the first stage to 1 for the last open one: even steps
        stand in for a name that no vendor ships.
    """
    wanted = stage_name.strip().casefold()
    found = [p for stages in PRESETS.values() for name, p in stages if name.casefold() == wanted]
    if found:
        return float(np.mean(found))
    return 0.1 + 0.6 * min(max(position, 0.0), 1.0)


@dataclass(frozen=True)
class OpenStages:
    """The stages that leave a deal open, pipeline by pipeline in order.

    Attributes
    ----------
    names : tuple of str
        Their ids: declared ones first, then those that were only seen.
    chance : float64, shape (s,)
        Win probability believed before any deal has closed: the CRM's own, a preset's by name,
        or an even step by place in the pipeline.
    pipeline : int64, shape (s,)
        Which pipeline each belongs to, from 0; stages only seen share one of their own.
    follows : int64, shape (s,)
        Place of the stage that comes next; -1 after the last one, and where nobody says.
    """

    names: tuple[str, ...]
    chance: npt.NDArray[np.float64]
    pipeline: npt.NDArray[np.int64]
    follows: npt.NDArray[np.int64]


def open_stages(stage: Table, seen: Iterable[str] = ()) -> OpenStages:
    """The open stages that a stage table declares, and others that deals were seen in.

    A stage id that two pipelines share counts as the first one's.
    """
    ids = [str(i) for i in stage["stage_id"]]
    owners, owner = np.unique(stage["pipeline_id"].astype(str), return_inverse=True)
    closing = np.isin(stage["kind"].astype(str), ("won", "lost"))
    order = np.lexsort((stage["sort_order"], owner))
    row_of: dict[str, int] = {}
    for r in order[~closing[order]].tolist():
        row_of.setdefault(ids[r], r)
    others = sorted(set(seen) - set(row_of) - {ids[r] for r in np.flatnonzero(closing)})
    rows = np.array(list(row_of.values()), dtype=np.int64)
    place, follows = _places(owner[rows], np.isnan(stage["sort_order"][rows]))
    chance = [_believed(stage, r, p) for r, p in zip(rows.tolist(), place, strict=True)]
    chance += [_kept(preset_probability(name, 0.5)) for name in others]
    return OpenStages(
        (*row_of, *others),
        np.array(chance, dtype=np.float64),
        np.r_[owner[rows], np.full(len(others), len(owners))].astype(np.int64),
        np.r_[follows, np.full(len(others), -1)].astype(np.int64),
    )


def _places(
    owner: npt.NDArray[np.int64], unplaced: npt.NDArray[np.bool_]
) -> tuple[list[float], list[int]]:
    """Place of each stage in its pipeline, 0 to 1, and the stage that follows it (-1: none)."""
    place, follows = [0.5] * len(owner), [-1] * len(owner)
    for pipeline in np.unique(owner):
        mine = np.flatnonzero((owner == pipeline) & ~unplaced).tolist()
        for k, i in enumerate(mine):
            place[i] = k / (len(mine) - 1) if len(mine) > 1 else 0.5
            follows[i] = mine[k + 1] if k + 1 < len(mine) else -1
    return place, follows


def _believed(stage: Table, row: int, place: float) -> float:
    given = float(stage["default_probability"][row])
    label = stage["name"][row] or str(stage["stage_id"][row])
    return _kept(preset_probability(label, place) if np.isnan(given) else given)


def _kept(chance: float) -> float:
    return float(np.clip(chance, _LEAST, _MOST))
