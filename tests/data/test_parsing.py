from __future__ import annotations

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.mapping.parsing import (
    Ambiguous,
    Cells,
    Parsed,
    Reading,
    as_attribute,
    detect_kind,
    parse_cells,
)

DAYS = st.dates(dt.date(1950, 1, 1), dt.date(2150, 1, 1))


def cells(*texts: str | None) -> Cells:
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    return Cells(array)


def parse(kind: str, *texts: str | None, **reading: Any) -> Parsed:
    return parse_cells(cells(*texts), kind, Reading(**reading))


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (["1.234,50", "7", "1.000"], [1234.5, 7, 1000]),
        (["1,234.50", "7", "1,000"], [1234.5, 7, 1000]),
        (["1,234,567", "1,000"], [1234567, 1000]),
        (["1.234.567", "1.000"], [1234567, 1000]),
        (["12,34,567.5"], [1234567.5]),
        (["1 234,5", "1\u00a0000,25"], [1234.5, 1000.25]),
        (["1'234.50", "-3"], [1234.5, -3]),
        (["$1,234.00", "($5.00)", "-$6", "7"], [1234, -5, -6, 7]),
        (["1.234,5 EUR", "EUR 7"], [1234.5, 7]),
        (["0.123", "1.234"], [0.123, 1.234]),
        (["1e6", "2.5E-3", "+4", "\u22125", ".5"], [1e6, 0.0025, 4, -5, 0.5]),
        (["20 %", "7.5%"], [20, 7.5]),
    ],
)
def test_numbers_as_people_write_them(texts: list[str], numbers: list[float]) -> None:
    parsed = parse("number", *texts)
    assert not parsed.bad
    np.testing.assert_allclose(parsed.values, numbers)


@pytest.mark.parametrize(
    "text", ["x", "1.2.3", "12 34", "1,2,3", "--5", "5-", "nan", "inf", "1e999"]
)
def test_what_is_no_number_is_told(text: str) -> None:
    parsed = parse("number", text, "5", None)
    assert list(parsed.bad) == [0] and text in parsed.bad[0]
    np.testing.assert_array_equal(parsed.values, [np.nan, 5, np.nan])


@pytest.mark.parametrize(
    ("kind", "texts", "asks"),
    [
        ("number", ["1,234", "5"], "decimal"),
        ("number", ["1.234"], "decimal"),
        ("number", ["1,5", "1.5"], "two ways"),
        ("number", ["$5", "\u20ac5"], "several currencies"),
        ("time", ["1/2/2020", "3/3/2020"], "date_order"),
        ("time", ["31/12/2020", "12/31/2020"], "two ways"),
        ("date", ["31.12.20"], "two digits"),
    ],
)
def test_what_can_be_read_in_two_ways_asks(kind: str, texts: list[str], asks: str) -> None:
    with pytest.raises(Ambiguous, match=asks):
        parse(kind, *texts)


def test_a_declaration_answers() -> None:
    assert parse("number", "1,234", decimal=".").values[0] == 1234
    assert parse("number", "1,234", decimal=",").values[0] == 1.234
    assert parse("number", "1.5", decimal=",").bad
    assert str(parse("date", "1/2/2020", date_order="dmy").values[0]) == "2020-02-01"
    assert str(parse("date", "1/2/2020", date_order="mdy").values[0]) == "2020-01-02"
    assert str(parse("date", "31.12.99", date_order="dmy").values[0]) == "1999-12-31"
    assert parse("number", "20 %", share=True).values[0] == 0.2


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20))
def test_a_column_of_either_style_reads_back(numbers: list[float]) -> None:
    point = [f"{x:,.2f}" for x in numbers]
    comma = [p.translate(str.maketrans(",.", ".,")) for p in point]
    for texts in (point, comma):
        parsed = parse("number", *texts)
        assert not parsed.bad
        np.testing.assert_allclose(parsed.values, [float(f"{x:.2f}") for x in numbers])


@given(st.lists(DAYS, min_size=1, max_size=20))
def test_dates_are_read_as_written_or_not_at_all(days: list[dt.date]) -> None:
    for form in ("%d/%m/%Y", "%m/%d/%Y"):
        try:
            parsed = parse("date", *(d.strftime(form) for d in days))
        except Ambiguous:
            assert all(d.day <= 12 for d in days)  # nothing told day from month
            continue
        assert [v.item() for v in parsed.values] == days


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2020-07-01", "2020-06-30T22:00"),
        ("2020-07-01 08:30", "2020-07-01T06:30"),
        ("2020-07-01T08:30:00.250Z", "2020-07-01T08:30:00.250"),
        ("2020-07-01 08:30:00 UTC", "2020-07-01T08:30"),
        ("2020-07-01 08:30:00 +0530", "2020-07-01T03:00"),
        ("20200701", "2020-06-30T22:00"),
        ("2020/07/01 08:30", "2020-07-01T06:30"),
        ("1 Jul 2020", "2020-06-30T22:00"),
        ("July 1st, 2020 8:30 PM", "2020-07-01T18:30"),
        ("Wed, 01 Jul 2020 08:30:00 GMT", "2020-07-01T08:30"),
        ("31/07/2020 12:05 am", "2020-07-30T22:05"),
    ],
)
def test_times_as_systems_write_them(text: str, utc: str) -> None:
    parsed = parse("time", text, zone=ZoneInfo("Europe/Paris"))
    assert not parsed.bad and parsed.values[0] == np.datetime64(utc)
    assert parsed.bare is not None and parsed.bare[0] == (len(text) <= 10)


@pytest.mark.parametrize(
    "text", ["2020-02-30", "20111001000", "1800-01-01", "1325376000", "tomorrow", "31 Foo 2020"]
)
def test_what_is_no_time_is_told(text: str) -> None:
    assert parse("time", text).bad == {0: f'"{text}" is not a time'}


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("epoch_s", "1577934000"),
        ("epoch_ms", "1577934000000"),
        ("excel", "43832.125"),
        ("%d.%m.%y %Hh", "02.01.20 03h"),
    ],
)
def test_declared_forms_of_time(form: str, text: str) -> None:
    parsed = parse("time", text, time_format=form)
    assert parsed.values[0] == np.datetime64("2020-01-02T03:00")


def test_a_time_becomes_the_date_of_its_zone() -> None:
    late = "2020-01-01T23:30:00Z"
    assert str(parse("date", late).values[0]) == "2020-01-01"
    assert str(parse("date", late, zone=ZoneInfo("Europe/Paris")).values[0]) == "2020-01-02"


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["1", "2.5", None], "number"),
        (["007", "12"], "text"),
        (["+49 30 1234567"], "text"),
        (["1234567890123456"], "text"),
        (["Yes", "no"], "boolean"),
        (["0", "1"], "number"),
        (["2020-01-01", "2020-02-01"], "date"),
        (["2020-01-01", "2020-02-01T10:00"], "time"),
        (["10.0.12", "10.0.13"], "text"),
        (["ABC 123"], "text"),
        ([None], "text"),
    ],
)
def test_the_kind_that_values_show(texts: list[str | None], kind: str) -> None:
    assert detect_kind(cells(*texts), Reading())[0] == kind


def test_attributes_are_plain_values() -> None:
    for kind, text, value in [
        ("number", "2", 2.0),
        ("boolean", "no", False),
        ("date", "20200102", "2020-01-02"),
        ("time", "2020-01-02 03:04:05.5", "2020-01-02T03:04:05.500000Z"),
        ("list", "a; b;", ["a", "b"]),
        ("text", "x", "x"),
    ]:
        assert list(as_attribute(parse(kind, text, None), kind)) == [value, None]
