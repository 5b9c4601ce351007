"""Events by record and values through time, against plain loops over the same rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.columns import (
    DAY,
    NEVER,
    Column,
    codes_in,
    dates_in,
    dictionary,
    micros,
    number_of,
    places,
    to_column,
)
from data.events import group_events, rank_within, runs_of, spread
from data.timelines import Changes, Timeline


def objects(*values: Any) -> np.ndarray[Any, Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


# --- columns ---------------------------------------------------------------------------------


def test_moments_become_whole_microseconds_and_nat_becomes_never() -> None:
    times = np.array(["1970-01-02", "NaT", "1969-12-31"], dtype="datetime64[D]")
    assert micros(times).tolist() == [DAY, NEVER, -DAY]


def test_texts_get_codes_in_order_of_appearance() -> None:
    codes, levels = dictionary(objects("b", None, "a", "b"))
    assert codes.tolist() == [0, -1, 1, 0]
    assert levels.tolist() == ["b", "a"]
    assert codes_in(levels, codes, {"a"}).tolist() == [False, False, True, False]


def test_places_are_found_or_minus_one() -> None:
    assert places(objects("a", "b"), objects("b", "x", None)).tolist() == [1, -1, -1]


@pytest.mark.parametrize(
    ("values", "kind", "texts"),
    [
        ((1.0, None, True), "number", ["1", None, "1"]),
        ((1.5, "x", True, ["b", "a"], None), "text", ["1.5", "x", "true", "a;b", None]),
        ((1234567.0, "x"), "text", ["1234567", "x"]),
        ((None, None), "number", [None, None]),
    ],
)
def test_attributes_are_numbers_only_if_all_are(
    values: tuple[Any, ...], kind: str, texts: list[str | None]
) -> None:
    column = to_column(objects(*values))
    assert column.kind == kind
    assert column.texts().tolist() == texts
    assert column.as_text().kind == "text"
    assert column.present().tolist() == [t is not None for t in texts]
    numbers = [float(v) if isinstance(v, bool | float) else np.nan for v in values]
    assert np.array_equal(column.numbers(), numbers, equal_nan=True)


def test_dates_are_days_where_every_text_is_one() -> None:
    found = dates_in(objects("1970-01-02", None, "1970-01-01T12:00:00Z"))
    assert found is not None
    assert np.array_equal(found, [1.0, np.nan, 0.5], equal_nan=True)
    for no_date in ("2024-02-30", "soon", 3.0):
        assert dates_in(objects("1970-01-02", no_date)) is None
    assert dates_in(objects(None)) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [("12.5", 12.5), ("true", 1.0), ("false", 0.0), ("1970-01-02", 1.0),
     ("1970-01-01T12:00:00Z", 0.5), ("1970-01-01T12:00:00+06:00", 0.25),
     (None, np.nan), ("", np.nan), ("lots", np.nan), ("inf", np.nan), ("nan", np.nan)],
)  # fmt: skip
def test_the_text_of_a_change_is_a_number_where_it_can_be(text: str | None, number: float) -> None:
    assert np.array_equal([number_of(text)], [number], equal_nan=True)


def test_taking_from_an_empty_column_gives_missing() -> None:
    none = np.zeros(2, dtype=np.int64), np.zeros(2, dtype=bool)
    assert to_column(objects(), "text").take(*none).texts().tolist() == [None, None]
    assert np.isnan(Column.missing(0).take(*none).numbers()).all()


# --- events ----------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(0, 9), max_size=7), max_size=5),
       st.lists(st.integers(-1, 10), min_size=1, max_size=6))  # fmt: skip
def test_ranks_are_those_of_searchsorted(segments: list[list[int]], queries: list[int]) -> None:
    ordered = [sorted(s) for s in segments]
    values = np.array([v for s in ordered for v in s], dtype=np.int64)
    start = np.cumsum([0, *(len(s) for s in ordered)])
    for i, segment in enumerate(ordered):
        lo = np.full(len(queries), start[i])
        hi = np.full(len(queries), start[i + 1])
        for side in ("left", "right"):
            got = rank_within(values, lo, hi, np.array(queries), side)
            assert (got - start[i]).tolist() == np.searchsorted(segment, queries, side).tolist()


def test_all_positions_of_segments_are_spread_out() -> None:
    which, position = spread(np.array([3, 0, 7]), np.array([5, 0, 8]))
    assert which.tolist() == [0, 0, 2]
    assert position.tolist() == [3, 4, 7]


ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(0, 4), st.integers(0, 2)),
    max_size=25,
)


class Plain:
    """Events of a record as a list of (known, at, value), in the order they were known."""

    def __init__(self, rows: list[tuple[int, int, int, int]], record: int) -> None:
        mine = [(at + late, at, v) for r, at, late, v in rows if r == record]
        self.known = sorted(mine, key=lambda e: (e[0], e[1]))

    def line(self, t: int) -> list[tuple[int, int, int]]:
        """Those known at t, in the order they happened."""
        return sorted((e for e in self.known if e[0] <= t), key=lambda e: e[1])

    def runs(self, t: int, first: int | None) -> list[tuple[int, int, int]]:
        """Those of them that changed the value."""
        found, before = [], first
        for event in self.line(t):
            if event[2] != before:
                found.append(event)
            before = event[2]
        return found


def grouped(rows: list[tuple[int, int, int, int]]) -> Any:
    row, at, late, value = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    return group_events(4, row, at, at + late, np.full(len(row), np.nan), value)[0]


@settings(deadline=None, max_examples=150)
@given(ROWS)
def test_what_is_current_first_and_recent_is_that_of_what_was_known(
    rows: list[tuple[int, int, int, int]],
) -> None:
    events = grouped(rows)
    records = np.arange(4)
    for t in range(-1, 12):
        lo, hi = events.known(records, np.full(4, t))
        last, first = events.latest(lo, hi), events.earliest(lo, hi)
        recent = events.count_since(records, lo, hi, np.full(4, 3))
        ones = events.only(1)
        of_one = ones.count_since(records, *ones.known(records, np.full(4, t)), np.full(4, 3))
        for record in range(4):
            line = Plain(rows, record).line(t)
            assert hi[record] - lo[record] == len(line)
            assert (last[record] >= 0) == bool(line)
            if line:
                assert events.value[last[record]] == line[-1][2]
                assert events.at[first[record]] == line[0][1]
            assert recent[record] == sum(e[1] >= 3 for e in line)
            assert of_one[record] == sum(e[1] >= 3 and e[2] == 1 for e in line)


@settings(deadline=None, max_examples=150)
@given(ROWS, st.sampled_from([None, 0, 1]))
def test_dropping_repeats_changes_nothing_at_any_moment(
    rows: list[tuple[int, int, int, int]], first: int | None
) -> None:
    events = grouped(rows).without_repeats(first)
    before = None if first is None else np.full(4, first)
    runs = runs_of(events, before)
    records = np.arange(4)
    for t in range(-1, 12):
        lo, hi = events.known(records, np.full(4, t))
        last = events.latest(lo, hi)
        for record in range(4):
            want = Plain(rows, record).runs(t, first)
            if hi[record] == lo[record]:
                assert not want
                continue
            assert runs.count[hi[record] - 1] == len(want)
            if want:
                assert events.value[last[record]] == want[-1][2]
                assert events.at[runs.began[hi[record] - 1]] == want[-1][1]


def test_events_of_one_moment_follow_their_number() -> None:
    at = np.array([5, 5, 5])
    number = np.array([3.0, np.nan, 1.0])  # no number counts as 0
    events, order = group_events(1, np.zeros(3, np.int64), at, at, number, np.arange(3))
    assert events.value.tolist() == order.tolist() == [1, 2, 0]


# --- values through time ---------------------------------------------------------------------


def line(now: Column, base_at: int, *changes: tuple[int, int, str | None, str | None]) -> Timeline:
    at, known = (np.array([c[i] for c in changes], dtype=np.int64) for i in (0, 1))
    return Timeline.with_changes(
        now, np.array([base_at]),
        Changes(np.zeros(len(at), np.int64), at, known, np.full(len(at), np.nan),
                objects(*(c[2] for c in changes)), objects(*(c[3] for c in changes))),
    )  # fmt: skip


def read(timeline: Timeline, *moments: int) -> list[str | None]:
    rows = np.zeros(len(moments), dtype=np.int64)
    return list(timeline.at(rows, np.array(moments)).texts())


def count(timeline: Timeline, *moments: int) -> list[int]:
    return list(timeline.count(np.zeros(len(moments), dtype=np.int64), np.array(moments)))


AMOUNT = to_column(np.array([30.0]))
SIZE = to_column(objects("L"), "text")


@pytest.mark.parametrize(("now", "values"), [(AMOUNT, ("10", "20", "30")), (SIZE, ("S", "M", "L"))])
def test_a_value_is_the_last_one_told(now: Column, values: tuple[str, str, str]) -> None:
    a, b, c = values
    told = line(now, 2, (5, 5, a, b), (8, 9, b, c))
    assert read(told, 1, 2, 4, 5, 8, 9) == [None, a, a, b, b, c]
    assert count(told, 1, 4, 5, 8, 9) == [0, 0, 1, 1, 2]


def test_a_change_told_late_does_not_undo_a_later_one() -> None:
    told = line(AMOUNT, 0, (8, 8, "10", "30"), (5, 11, "10", "20"))
    assert read(told, 7, 8, 10, 11) == ["10", "30", "30", "30"]
    assert count(told, 7, 8, 10, 11) == [0, 1, 1, 2]


def test_a_change_that_changes_nothing_is_none_but_tells_the_value() -> None:
    told = line(AMOUNT, 20, (5, 5, "30", "30"), (8, 8, "30", "30.0"))
    assert count(told, 4, 5, 9, 25) == [0, 0, 0, 0]
    assert read(told, 4, 5, 9, 25) == [None, "30", "30", "30"]


def test_a_value_may_become_missing_and_come_back() -> None:
    told = line(AMOUNT, 0, (3, 3, "10", None), (6, 6, None, "10"))
    assert read(told, 2, 3, 6) == ["10", None, "10"]
    assert count(told, 2, 3, 6) == [0, 1, 2]


def test_a_value_of_the_beginning_may_be_believed_before_it_was_shown() -> None:
    told = line(AMOUNT, 20, (25, 25, "10", "30"))
    row, early = np.zeros(1, dtype=np.int64), np.array([1])
    assert read(told, 1) == [None]
    assert told.believed(row, early).numbers().tolist() == [10.0]


def test_a_stray_text_does_not_hide_the_numbers() -> None:
    seats = to_column(objects(30.0, "many"))
    told = Timeline.with_changes(
        seats, np.zeros(2, np.int64),
        Changes(np.array([0, 1]), np.array([5, 5]), np.array([5, 5]), np.full(2, np.nan),
                objects("20", "8"), objects("30", "many")),
    )  # fmt: skip
    rows = np.arange(2)
    assert told.at(rows, np.full(2, 4)).numbers().tolist() == [20.0, 8.0]
    late = told.at(rows, np.full(2, 5))
    assert late.texts().tolist() == ["30", "many"]
    assert np.array_equal(late.numbers(), [30.0, np.nan], equal_nan=True)


def test_a_field_nobody_has_seen_is_missing() -> None:
    assert read(Timeline.nothing(1), 0, NEVER - 1) == [None, None]
    assert count(Timeline.nothing(1), 0) == [0]
