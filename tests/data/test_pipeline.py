"""Weeks, months and fiscal quarters in any zone, and presets."""

from __future__ import annotations

import datetime as dt
import itertools
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.pipeline import (
    PRESETS,
    WEEKDAYS,
    CalendarError,
    FiscalCalendar,
    Period,
    PeriodKind,
    preset_probability,
)

KINDS: tuple[PeriodKind, ...] = ("week", "month", "quarter")
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "America/Sao_Paulo",
         "Australia/Lord_Howe", "Pacific/Kiritimati", "America/Havana")  # fmt: skip
DAY_US = 86_400_000_000


def us(text: str) -> np.datetime64:
    return np.datetime64(text, "us")


def names(periods: list[Period]) -> list[str]:
    return [p.name for p in periods]


# --- names and bounds ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("day", "name", "start"),
    [
        ("2024-12-30", "2025-W01", "2024-12-30"),
        ("2020-12-31", "2020-W53", "2020-12-28"),
        ("2021-01-03", "2020-W53", "2020-12-28"),
        ("2021-01-04", "2021-W01", "2021-01-04"),
        ("2026-12-31", "2026-W53", "2026-12-28"),
        ("2023-01-01", "2022-W52", "2022-12-26"),
    ],
)
def test_weeks_are_iso_weeks(day: str, name: str, start: str) -> None:
    [week] = FiscalCalendar().periods("week", us(day), 1)
    assert week.name == name
    assert week.start == us(start)
    assert week.end == us(start) + np.timedelta64(7, "D")


def test_a_year_of_53_weeks_has_all_of_them() -> None:
    weeks = FiscalCalendar().periods("week", us("2020-01-01"), 54)
    assert names(weeks) == [f"2020-W{i:02d}" for i in range(1, 54)] + ["2021-W01"]


@pytest.mark.parametrize(
    ("first", "day", "name", "start", "end"),
    [
        (1, "2026-02-16", "2026-Q1", "2026-01-01", "2026-04-01"),
        (1, "2026-12-31", "2026-Q4", "2026-10-01", "2027-01-01"),
        (4, "2026-02-16", "2026-Q4", "2026-01-01", "2026-04-01"),
        (4, "2026-04-01", "2027-Q1", "2026-04-01", "2026-07-01"),
        (2, "2026-01-31", "2026-Q4", "2025-11-01", "2026-02-01"),
        (2, "2026-02-01", "2027-Q1", "2026-02-01", "2026-05-01"),
        (12, "2025-12-01", "2026-Q1", "2025-12-01", "2026-03-01"),
        (10, "2025-09-30", "2025-Q4", "2025-07-01", "2025-10-01"),
    ],
)
def test_fiscal_quarters_carry_the_year_they_end_in(
    first: int, day: str, name: str, start: str, end: str
) -> None:
    [quarter] = FiscalCalendar(first_month=first).periods("quarter", us(day), 1)
    assert quarter == Period(us(start), us(end), name)


@pytest.mark.parametrize("first", range(1, 13))
def test_a_fiscal_year_has_four_quarters_from_its_first_month(first: int) -> None:
    begin = us(f"2025-{first:02d}-01")
    quarters = FiscalCalendar(first_month=first).periods("quarter", begin, 5)
    year = 2025 if first == 1 else 2026
    assert names(quarters) == [*(f"{year}-Q{i}" for i in range(1, 5)), f"{year + 1}-Q1"]
    months = [p.start.astype("datetime64[M]").astype(int) for p in quarters]
    assert np.diff(months).tolist() == [3] * 4
    assert quarters[0].start == begin


def test_months_do_not_depend_on_the_fiscal_year() -> None:
    months = FiscalCalendar(first_month=7).periods("month", us("2025-12-15"), 3)
    assert names(months) == ["2025-12", "2026-01", "2026-02"]
    assert months[2].end == us("2026-03-01")


CALENDARS = st.builds(
    FiscalCalendar,
    st.integers(1, 12),
    st.sampled_from(ZONES),
    st.sampled_from(["", "4-4-5", "4-5-4", "5-4-4"]),
    st.sampled_from(WEEKDAYS),
    st.sampled_from(["nearest", "last"]),
)


@given(
    CALENDARS, st.sampled_from(KINDS), st.integers(0, 60 * 365 * 24), st.integers(1, 9),
)  # fmt: skip
def test_periods_follow_each_other_and_the_first_holds_as_of(
    calendar: FiscalCalendar, kind: PeriodKind, hours: int, horizon: int
) -> None:
    as_of = us("1990-01-01") + np.timedelta64(hours, "h")
    periods = calendar.periods(kind, as_of, horizon)
    assert len(periods) == horizon
    assert periods[0].start <= as_of < periods[0].end
    assert all(a.end == b.start for a, b in itertools.pairwise(periods))
    assert len(set(names(periods))) == horizon
    for period in periods:
        day = calendar.day_of(period.start)
        assert calendar.start_of(kind, day) == day
        assert calendar.periods(kind, period.start, 1) == [period]
        assert calendar.periods(kind, period.end - np.timedelta64(1, "us"), 1) == [period]
    between = calendar.periods_between(kind, periods[0].start, periods[-1].end)
    assert between == periods
    assert calendar.periods_between(kind, periods[0].start + 1, periods[-1].end) == periods[1:]
    assert calendar.periods_between(kind, periods[0].start, periods[-1].end - 1) == periods[:-1]


# --- years of weeks ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("calendar", "starts"),
    [
        # A retailer's 4-5-4 year: ends on the Saturday nearest to 31 January.
        (
            FiscalCalendar(2, weeks="4-5-4", week_start="sunday"),
            ["2022-01-30", "2023-01-29", "2024-02-04", "2025-02-02", "2026-02-01"],
        ),
        # A year that ends on the last Saturday of September.
        (
            FiscalCalendar(10, weeks="4-4-5", week_start="sunday", year_start="last"),
            ["2021-09-26", "2022-09-25", "2023-10-01", "2024-09-29", "2025-09-28"],
        ),
        (
            FiscalCalendar(1, weeks="5-4-4"),
            ["2021-01-04", "2022-01-03", "2023-01-02", "2024-01-01", "2024-12-30"],
        ),
    ],
)
def test_years_of_weeks_begin_where_they_are_known_to(
    calendar: FiscalCalendar, starts: list[str]
) -> None:
    quarters = calendar.periods("quarter", us(starts[0]), 17)
    assert [p.start for p in quarters[::4]] == [us(s) for s in starts]


def test_the_53rd_week_belongs_to_the_last_month() -> None:
    retail = FiscalCalendar(2, weeks="4-5-4", week_start="sunday")
    months = retail.periods("month", us("2023-01-29"), 13)
    assert names(months) == [*(f"2024-P{i:02d}" for i in range(1, 13)), "2025-P01"]
    weeks = [int((m.end - m.start) / np.timedelta64(7, "D")) for m in months]
    assert weeks == [4, 5, 4] * 3 + [4, 5, 5, 4]
    year = retail.periods("week", us("2023-01-29"), 54)
    assert names(year) == [*(f"2024-W{i:02d}" for i in range(1, 54)), "2025-W01"]
    assert names(retail.periods("quarter", us("2024-02-03"), 2)) == ["2024-Q4", "2025-Q1"]


@given(CALENDARS.filter(lambda c: c.weeks != ""), st.integers(1960, 2100))
def test_quarters_months_and_weeks_of_weeks_fit_into_each_other(
    calendar: FiscalCalendar, year: int
) -> None:
    first = calendar.start_of("quarter", dt.date(year, 6, 15))
    quarters = calendar.periods("quarter", calendar.midnight(first), 4)
    ends = {q.start for q in quarters} | {quarters[-1].end}
    months = calendar.periods_between("month", quarters[0].start, quarters[-1].end)
    weeks = calendar.periods_between("week", quarters[0].start, quarters[-1].end)
    assert len(months) == 12 and len(weeks) in (52, 53)
    bounds = {m.start for m in months} | {months[-1].end}
    assert ends <= bounds <= {w.start for w in weeks} | {weeks[-1].end}
    # Rounded: Kiribati had no 31 December 1994.
    in_weeks = [round((calendar.day_of(m.end) - calendar.day_of(m.start)).days / 7) for m in months]
    assert sum(in_weeks) == len(weeks) and set(in_weeks) <= {4, 5, 6}
    # A year of weeks begins within six days of its first month.
    start = next(q for q in quarters if q.name.endswith("Q1"))
    day = calendar.day_of(start.start)
    nominal = dt.date((day + dt.timedelta(days=6)).year, calendar.first_month, 1)
    assert -6 <= (day - nominal).days <= (3 if calendar.year_start == "nearest" else 0)


@given(CALENDARS, st.integers(0, 2**31))
def test_names_are_unique_and_sort_like_time(calendar: FiscalCalendar, seconds: int) -> None:
    moment = np.datetime64(seconds, "s").astype("datetime64[us]")
    for kind in KINDS:
        periods = calendar.periods(kind, moment, 60)
        assert len(set(names(periods))) == 60
        assert names(periods) == sorted(names(periods))


@given(CALENDARS, st.integers(0, 80 * 365))
def test_the_marks_are_the_starts_of_months_and_quarters(
    calendar: FiscalCalendar, days: int
) -> None:
    day = dt.date(1970, 1, 1) + dt.timedelta(days=days)
    for kind, marks in zip(("month", "quarter"), calendar.marks, strict=True):
        start = calendar.start_of(kind, day)  # type: ignore[arg-type]
        place = int(np.searchsorted(marks, days, side="right")) - 1
        assert marks[place] == (start - dt.date(1970, 1, 1)).days
    months, quarters = calendar.marks
    assert set(quarters) <= set(months) and np.diff(months).min() >= 28


@pytest.mark.parametrize(("start", "first"), [("sunday", "2026-02-15"), ("saturday", "2026-02-14"),
                                              ("tuesday", "2026-02-10")])  # fmt: skip
def test_plain_weeks_begin_on_any_day(start: str, first: str) -> None:
    [week] = FiscalCalendar(week_start=start).periods("week", us("2026-02-16"), 1)
    assert (week.start, week.name) == (us(first), "2026-W07")


@pytest.mark.parametrize(
    "wrong", [{"weeks": "4-4-4"}, {"week_start": "Monday"}, {"year_start": "first"}]
)
def test_a_calendar_that_is_none_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(CalendarError, match="allowed: "):
        FiscalCalendar(**wrong)  # type: ignore[arg-type]


# --- zones -----------------------------------------------------------------------------------


def test_a_month_with_summer_time_is_an_hour_off() -> None:
    calendar = FiscalCalendar(zone="Europe/Berlin")
    march, october = (
        calendar.periods("month", us(day), 1)[0] for day in ("2025-03-15", "2025-10-15")
    )
    assert (march.start, march.end) == (us("2025-02-28T23:00"), us("2025-03-31T22:00"))
    assert march.end - march.start == np.timedelta64(31 * 24 - 1, "h")
    assert october.end - october.start == np.timedelta64(31 * 24 + 1, "h")


def test_a_midnight_that_the_clock_skips_is_the_first_moment_of_its_day() -> None:
    # Sao Paulo went from 23:59:59 to 01:00 on 2018-11-04, Havana repeats 00:00 on 2025-11-02.
    for zone, day, first in (
        ("America/Sao_Paulo", dt.date(2018, 11, 4), "2018-11-04T03:00"),
        ("America/Havana", dt.date(2025, 11, 2), "2025-11-02T04:00"),
    ):
        calendar = FiscalCalendar(zone=zone)
        assert calendar.midnight(day) == us(first)
        assert calendar.day_of(us(first)) == day
        assert calendar.day_of(us(first) - 1) == day - dt.timedelta(days=1)


@given(st.sampled_from(ZONES), st.lists(st.integers(0, 60 * 365 * 24 * 60), min_size=1, max_size=8))
def test_local_days_are_the_local_clock(zone: str, minutes: list[int]) -> None:
    calendar = FiscalCalendar(zone=zone)
    at = np.array([int(us("1990-01-01").astype(np.int64)) + m * 60_000_000 for m in minutes])
    got = calendar.local_days(at)
    for moment, days in zip(at.tolist(), got.tolist(), strict=True):
        utc = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=moment)
        local = utc.astimezone(ZoneInfo(zone)).replace(tzinfo=dt.UTC)
        expected = (local - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) / dt.timedelta(days=1)
        assert days == pytest.approx(expected, abs=1e-9)
        assert local.date() == calendar.day_of(np.datetime64(moment, "us"))
    assert calendar.local_days(np.zeros(0, dtype=np.int64)).shape == (0,)


def test_in_utc_local_days_are_the_days() -> None:
    at = np.array([0, DAY_US // 2, -DAY_US], dtype=np.int64)
    assert FiscalCalendar().local_days(at).tolist() == [0.0, 0.5, -1.0]


# --- refusals and presets --------------------------------------------------------------------


@pytest.mark.parametrize("first", [1, 4, 12])
@pytest.mark.parametrize("kind", KINDS)
def test_a_period_is_found_by_its_name(kind: PeriodKind, first: int) -> None:
    calendar = FiscalCalendar(first, "Europe/Berlin")
    for period in calendar.periods(kind, us("2023-11-20"), 30):
        assert calendar.named(period.name, us("2020-01-01")) == (kind, period)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_alone_names_the_period_that_holds_the_moment(kind: PeriodKind) -> None:
    calendar, at = FiscalCalendar(), us("2026-02-16T12:00")
    assert calendar.named(kind, at) == (kind, calendar.periods(kind, at, 1)[0])


@pytest.mark.parametrize("name", ["2026-Q5", "2026-13", "2025-W53", "2026", "", "9999-Q1", "year"])
def test_a_period_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(CalendarError, match="2026-Q1, 2026-03 or 2026-W09"):
        FiscalCalendar().named(name, us("2026-01-01"))


@pytest.mark.parametrize("month", [0, 13, -1])
def test_a_month_that_is_none_is_refused(month: int) -> None:
    with pytest.raises(CalendarError, match=f"first_month is {month}; allowed: 1 to 12"):
        FiscalCalendar(first_month=month)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "europe berlin"])
def test_a_zone_that_is_none_is_refused(zone: str) -> None:
    with pytest.raises(CalendarError, match="allowed: an IANA name such as Europe/Berlin"):
        FiscalCalendar(zone=zone)


def test_a_period_or_horizon_that_is_none_is_refused() -> None:
    calendar = FiscalCalendar()
    for horizon in (0, -1, 261):
        with pytest.raises(CalendarError, match=f"horizon is {horizon} periods; allowed: 1 to 260"):
            calendar.periods("week", us("2025-01-01"), horizon)
    with pytest.raises(CalendarError, match="period is 'year'; allowed: week, month, quarter"):
        calendar.periods("year", us("2025-01-01"), 1)  # type: ignore[arg-type]


def test_presets_are_probabilities_in_order() -> None:
    for stages in PRESETS.values():
        chances = [p for _, p in stages]
        assert chances == sorted(chances)
        assert 0 < chances[0] <= chances[-1] < 1


def test_a_stage_is_known_by_its_vendors_name_or_by_its_place() -> None:
    assert preset_probability(" contract SENT ", 0.0) == 0.9
    # Salesforce says 75, SuiteCRM 65 per cent.
    assert preset_probability("Proposal/Price Quote", 0.0) == pytest.approx(0.7)
    steps = [preset_probability("our own", p) for p in (-1.0, 0.0, 0.5, 1.0, 2.0)]
    assert steps == pytest.approx([0.1, 0.1, 0.4, 0.7, 0.7])
