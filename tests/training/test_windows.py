"""Windows ahead of an origin, and the same windows earlier."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from data.pipeline import FiscalCalendar, PeriodKind
from tests.small_crm import moment
from training.windows import Stretch, Window, WindowError, calendar_windows, day_windows

LONG_AGO = moment("2019-01-01")


def months(at: str, first: np.datetime64 = LONG_AGO, kind: PeriodKind = "month") -> list[Window]:
    return calendar_windows(FiscalCalendar(), kind, moment(at), 3, first)


def span(stretch: Stretch) -> tuple[str, str, str]:
    mark, start, end = (str(t)[:10] for t in (stretch.mark, stretch.start, stretch.end))
    return mark, start, end


def test_days_begin_at_the_origin() -> None:
    week, month = day_windows(moment("2024-03-04"), [28, 7], LONG_AGO)
    assert (week.name, month.name, week.days, month.days) == ("7 days", "28 days", 7.0, 28.0)
    assert span(week.stretch) == ("2024-03-04", "2024-03-04", "2024-03-11")
    # Eight past windows, the newest just over, overlapping by half but never by under a week.
    assert [span(s)[1] for s in week.past[:2]] == ["2024-02-26", "2024-02-19"]
    assert [span(s)[1] for s in month.past[:2]] == ["2024-02-05", "2024-01-22"]
    assert len(week.past) == len(month.past) == 8


def test_weekdays_keep_their_place_in_the_season() -> None:
    (week,) = day_windows(moment("2024-03-04"), [7], LONG_AGO)
    assert week.season is not None and week.season.name == "year"
    assert span(week.season.earlier) == ("2023-03-06", "2023-03-06", "2023-03-13")
    assert all(
        late.start - early.start == np.timedelta64(364, "D") for late, early in week.season.pairs
    )


def test_a_season_is_over_by_the_origin() -> None:
    (window,) = day_windows(moment("2024-03-04"), [100], moment("2023-06-01"))
    assert window.season is not None and window.season.name == "quarter"
    assert window.season.earlier.end <= moment("2024-03-04")
    assert window.season.earlier.start == moment("2024-03-04") - np.timedelta64(182, "D")


def test_a_short_history_knows_less_and_less() -> None:
    def at(first: str) -> Window:
        return day_windows(moment("2024-03-04"), [7], moment(first))[0]

    assert at("2023-11-01").season is not None
    few = at("2023-12-01").season
    assert few is not None and few.name == "quarter" and few.pairs == ()  # a number, no range
    none = at("2024-02-20")
    assert none.season is None and len(none.past) == 1
    assert at("2024-03-01").past == ()


def test_a_year_gives_way_to_a_quarter_that_was_seen_more_often() -> None:
    (window,) = day_windows(moment("2024-03-04"), [7], moment("2023-03-01"))
    assert window.season is not None and window.season.name == "quarter"
    assert len(window.season.pairs) == 8


def test_calendar_periods_hold_what_was_won_to_date() -> None:
    this, following, third = months("2024-03-16")
    assert (this.name, following.name, third.name) == ("this month", "next month", "2 months ahead")
    assert (this.period, following.period) == ("2024-03", "2024-04")
    assert span(this.stretch) == ("2024-03-16", "2024-03-01", "2024-04-01")
    assert [str(t)[:10] for t in this.stretch.rest] == ["2024-03-16", "2024-04-01"]
    assert [str(t)[:10] for t in following.stretch.rest] == ["2024-04-01", "2024-05-01"]


def test_past_periods_are_seen_from_the_same_point() -> None:
    this, following, _ = months("2024-03-16T12:00")  # half of the 31 days
    assert [str(s.mark)[:16] for s in this.past[:2]] == ["2024-02-15T12:00", "2024-01-16T12:00"]
    assert [span(s)[1:] for s in this.past[:2]] == [
        ("2024-02-01", "2024-03-01"), ("2024-01-01", "2024-02-01"),
    ]  # fmt: skip
    # The newest whole month seen from a month before: the running one is not over.
    assert str(following.past[0].mark)[:16] == "2024-01-16T12:00"
    assert span(following.past[0])[1:] == ("2024-02-01", "2024-03-01")


def test_months_keep_their_place_in_the_quarter() -> None:
    this, _, third = months("2024-03-16", first=moment("2023-08-10"))
    assert this.season is not None and this.season.name == "quarter"
    assert span(this.season.earlier)[1:] == ("2023-12-01", "2024-01-01")
    assert len(this.season.pairs) == 3  # February to December; July is not whole
    assert third.season is not None  # May: as February was
    assert span(third.season.earlier)[1:] == ("2024-02-01", "2024-03-01")


def test_quarters_look_a_quarter_back_and_the_next_one_two() -> None:
    this, following, _ = months("2024-05-15", first=moment("2023-08-01"), kind="quarter")
    assert this.season is not None and following.season is not None
    assert span(this.season.earlier)[1:] == ("2024-01-01", "2024-04-01")
    assert span(following.season.earlier)[1:] == ("2024-01-01", "2024-04-01")
    # Where neither season was seen often enough to tell its error, the longer one gives a number.
    _, following, _ = months("2024-05-15", first=moment("2023-02-01"), kind="quarter")
    assert following.season is not None and following.season.name == "year"
    assert span(following.season.earlier)[1:] == ("2023-07-01", "2023-10-01")
    assert following.season.pairs == ()


def test_an_origin_on_the_first_day_lies_in_the_new_period() -> None:
    this = months("2024-04-01")[0]
    assert this.period == "2024-04" and this.stretch.rest == (this.stretch.start, this.stretch.end)


def test_other_kinds_of_period_are_refused() -> None:
    with pytest.raises(WindowError, match=r"'fortnight'; allowed: .*week, month, quarter"):
        months("2024-04-01", kind=cast(PeriodKind, "fortnight"))
    with pytest.raises(WindowError, match="0 periods"):
        calendar_windows(FiscalCalendar(), "month", moment("2024-04-01"), 0, LONG_AGO)
