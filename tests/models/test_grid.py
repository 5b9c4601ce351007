"""The grid: intervals that tile the future, cut at month ends, with their calendar."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.grid import CALENDAR_COLUMNS, CALENDAR_YEAR, HazardGrid, Marks

GRID = HazardGrid.for_durations(20.0, 120.0)
WEEKLY = HazardGrid.for_durations(90.0, 400.0)


def from_month(first: int) -> Marks:
    """Months of the calendar, in fiscal years from a month on."""
    months, _ = CALENDAR_YEAR
    return months, months[(first - 1) % 3 :: 3]


def day(text: str) -> float:
    """Days since 1970."""
    return float(np.datetime64(text, "s").astype(np.int64)) / 86_400


@given(
    st.lists(st.floats(8_000, 25_000), min_size=1, max_size=4),
    st.floats(1, 300),
    st.floats(1, 700),
    st.integers(1, 12),
)
def test_intervals_tile_the_future(
    local: list[float], median: float, longest: float, first_month: int
) -> None:
    grid = HazardGrid.for_durations(median, longest)
    cells = grid.cells(np.array(local), from_month(first_month))
    edges = np.array(grid.edges)
    assert grid.t_max >= longest
    assert (cells.begin[:, 0] == 0).all() and (cells.end[:, -1] == grid.t_max).all()
    np.testing.assert_array_equal(cells.begin[:, 1:], cells.end[:, :-1])
    real = cells.end > cells.begin
    assert (edges[cells.step][real] <= cells.begin[real]).all()
    assert (cells.end[real] <= edges[cells.step + 1][real]).all()
    for name in CALENDAR_COLUMNS:
        assert np.isfinite(cells.calendar[name]).all()
    share = cells.calendar["weekday_share"]
    assert (share >= -1e-6).all() and (share <= 1 + 1e-6).all()


def test_steps_are_days_for_short_cycles_and_weeks_for_long_ones() -> None:
    assert GRID.edges[:9] == tuple(float(i) for i in range(9))
    assert WEEKLY.edges[:9] == tuple(7.0 * i for i in range(9))
    growth = np.diff(np.diff(GRID.edges)[7:])
    np.testing.assert_allclose(np.diff(GRID.edges)[8:] / np.diff(GRID.edges)[7:-1], 1.25)
    assert (growth > 0).all()


def test_month_ends_are_cuts_also_from_the_middle_of_a_day() -> None:
    for start in ("2024-01-25T00:00:00", "2024-01-25T13:45:00"):
        cells = GRID.cells(np.array([day(start)]))
        ends = set(np.round(cells.end[0] + day(start), 6).tolist())
        for month in ("2024-02-01T00", "2024-03-01T00", "2024-04-01T00", "2024-05-01T00"):
            assert day(month) in ends
        # Inside an interval the quarter never changes.
        assert set(cells.calendar["last_month_of_quarter"][0]) == {0.0, 1.0}


def test_periods_of_weeks_are_cuts_and_their_quarters_end_with_them() -> None:
    first = day("2024-01-29T00:00:00")
    months = first + 7.0 * np.cumsum([0, 4, 4, 5, 4, 4, 5, 4, 4, 5])
    marks = np.r_[first - 28.0, months], np.r_[first - 91.0, months[::3]]
    start = first + 3.25
    cells = HazardGrid((0.0, 1.0, 50.0, 100.0)).cells(np.array([start]), marks)
    real = cells.end[0] > cells.begin[0]
    ends = (cells.end[0][real] + start).tolist()
    assert ends == sorted([start + 1, start + 50, start + 100, *months[1:4]])
    last = cells.calendar["last_month_of_quarter"][0][real]
    assert last.tolist() == [0, 0, 0, 0, 1, 0]
    left = cells.calendar["days_to_quarter_end"][0][real]
    assert left[-1] == months[6] - (start + 100 + months[3]) / 2 and (left > 0).all()


def test_a_midnight_that_misses_by_rounding_leaves_no_crumbs() -> None:
    exact = day("2024-01-25T00:00:00")
    near = GRID.cells(np.array([exact - 3.6e-12, exact, exact + 3.6e-12]))
    np.testing.assert_array_equal(near.begin[0], near.begin[1])
    np.testing.assert_array_equal(near.begin[2], near.begin[1])
    length = near.end - near.begin
    assert length[length > 0].min() > 0.5


def test_the_calendar_tells_weekends_quarters_and_seasons() -> None:
    friday = day("2024-03-29T00:00:00")  # the quarter ends on Sunday night
    cells = GRID.cells(np.array([friday]))
    real = cells.end[0] > cells.begin[0]  # the cut falls on an edge: an interval of no length

    def first_days(name: str, first_month: int = 1) -> list[float]:
        calendar = GRID.cells(np.array([friday]), from_month(first_month)).calendar
        return [float(v) for v in calendar[name][0][real][:4]]

    assert first_days("weekday_share") == [1, 0, 0, 1]
    assert first_days("days_to_quarter_end") == [2.5, 1.5, 0.5, 90.5]
    assert first_days("last_month_of_quarter") == [1, 1, 1, 0]
    assert first_days("last_month_of_quarter", first_month=2) == [0, 0, 0, 1]
    angle = 2 * np.pi * (friday + 0.5 - day("2024-01-01T00:00:00")) / 365.25
    assert cells.calendar["season_sin"][0, 0] == pytest.approx(np.sin(angle))
    assert cells.calendar["season_cos"][0, 0] == pytest.approx(np.cos(angle))


def test_the_turn_of_the_year_lasts_from_christmas_eve_to_new_years_day() -> None:
    days = HazardGrid((0.0, 1.0, 2.0, 7.0)).cells(np.array([day("2024-12-20T00:00:00")]))
    np.testing.assert_allclose(days.calendar["turn_of_year"][0, :3], [0, 0, 0.6])
    weeks = HazardGrid((0.0, 7.0, 14.0, 21.0)).cells(np.array([day("2024-12-25T00:00:00")]))
    real = weeks.end[0] > weeks.begin[0]
    np.testing.assert_allclose(weeks.calendar["turn_of_year"][0, real], [1, 1 / 7, 0], atol=1e-12)
    late = HazardGrid((0.0, 1.0)).cells(np.array([day("2025-01-01T00:00:00")]))
    assert late.calendar["turn_of_year"][0, 0] == 1.0


def test_half_a_saturday_is_no_working_time() -> None:
    cells = GRID.cells(np.array([day("2024-03-29T12:00:00")]))  # noon on a Friday
    assert cells.calendar["weekday_share"][0, 0] == pytest.approx(0.5)


def test_one_moment_serves_many_landmarks_without_room() -> None:
    cells = GRID.cells(np.array([20_000.4]))
    many, copied = cells.repeated(5), cells.take(np.zeros(5, dtype=np.int64))
    for name in ("begin", "end", "step"):
        np.testing.assert_array_equal(getattr(many, name), getattr(copied, name))
        assert np.shares_memory(getattr(many, name), getattr(cells, name))
    for name, column in copied.calendar.items():
        np.testing.assert_array_equal(many.calendar[name], column)
    assert many.of_one_moment and len(cells.repeated(0).begin) == 0


def test_take_picks_landmarks() -> None:
    cells = GRID.cells(np.array([20_000.0, 20_001.5]))
    part = cells.take(np.array([1, 1, 0]))
    np.testing.assert_array_equal(part.begin, cells.begin[[1, 1, 0]])
    np.testing.assert_array_equal(part.step, cells.step[[1, 1, 0]])
    for name, values in cells.calendar.items():
        np.testing.assert_array_equal(part.calendar[name], values[[1, 1, 0]])
