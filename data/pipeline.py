"""The sales process as configuration: stages in order, fiscal calendar, stage presets."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt

from data.records import Table

__all__ = [
    "PRESETS",
    "CalendarError",
    "FiscalCalendar",
    "OpenStages",
    "Period",
    "PeriodKind",
    "open_stages",
    "preset_probability",
]

PeriodKind = Literal["week", "month", "quarter"]

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

    Attributes
    ----------
    first_month : int
        First month of the fiscal year, 1-12.
    zone : str
        IANA time zone of the organisation; a bare date is 00:00 there.
    """

    first_month: int = 1
    zone: str = "UTC"

    def __post_init__(self) -> None:
        if not 1 <= self.first_month <= 12:
            raise CalendarError(f"first_month is {self.first_month}; allowed: 1 to 12")
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
        """First day of the week (Monday), month or fiscal quarter that holds `day`."""
        if kind == "week":
            return day - dt.timedelta(days=day.weekday())
        if kind == "month":
            return day.replace(day=1)
        if kind == "quarter":
            back = (day.month - self.first_month) % 3
            return _add_months(day.replace(day=1), -back)
        raise CalendarError(f"period is {kind!r}; allowed: {', '.join(get_args(PeriodKind))}")

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
            end = _next(kind, start)
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
            following = _next(kind, day)
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
        if kind == "week":
            year, week, _ = start.isocalendar()
            return f"{year}-W{week:02d}"
        if kind == "month":
            return f"{start:%Y-%m}"
        quarter = ((start.month - self.first_month) % 12) // 3 + 1
        # A fiscal year carries the calendar year it ends in, the commonest convention.
        year = start.year + (self.first_month > 1 and start.month >= self.first_month)
        return f"{year}-Q{quarter}"


def _add_months(day: dt.date, months: int) -> dt.date:
    years, month = divmod(day.month - 1 + months, 12)
    return day.replace(year=day.year + years, month=month + 1)


def _next(kind: PeriodKind, start: dt.date) -> dt.date:
    if kind == "week":
        return start + dt.timedelta(days=7)
    return _add_months(start, 1 if kind == "month" else 3)


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
