"""Reliability part by part: who is in which, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from training.reliability import grade_split, level_split, segments

LEAD_SOURCE = ["lead source", "full"]


def column(values: Sequence[str | None]) -> tuple[Any, Any]:
    levels = sorted({v for v in values if v is not None})
    codes = [-1 if v is None else levels.index(v) for v in values]
    return np.array(codes, np.int32), np.array(levels, object)


def flat(n: int) -> tuple[Any, Any, Any]:
    return np.full(n, 0.3), (np.arange(n) % 10 < 3).astype(float), np.arange(n)


def test_parts_come_in_order_then_what_is_left() -> None:
    stage = column(["offer"] * 20 + ["new"] * 60 + ["old"] * 30 + [None] * 10)
    split = level_split("stage", stage, *flat(120), order=["new", "offer", "never"])
    told = [(part.name, part.n) for part in split.parts]
    assert told == [("new", 60), ("offer", 20), ("all others", 30), ("not known", 10)]
    largest = level_split("source", stage, *flat(120))
    assert [part.name for part in largest.parts] == ["new", "old", "offer", "not known"]


def test_rare_levels_are_told_together() -> None:
    names: list[str | None] = [f"s{i:02}" for i in range(20) for _ in range(30 - i)]
    split = level_split("source", column(names), *flat(len(names)))
    assert [part.name for part in split.parts[:2]] == ["s00", "s01"]
    assert len(split.parts) == 13 and split.parts[-1].name == "all others"
    assert split.parts[-1].n == sum(range(11, 19))
    source = column(["web"] * 30 + ["fair"] * 20 + ["radio"] * 9)
    few = level_split("source", source, *flat(59)[:2], np.r_[np.arange(30), np.arange(29) // 5])
    assert [(part.name, part.records) for part in few.parts] == [("web", 30), ("all others", 6)]


def test_bands_are_shown_where_records_are_enough() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0, 1, 900)
    y, team = (rng.random(900) < p).astype(float), column(["a"] * 800 + ["b"] * 100)
    by_row = level_split("team", team, p, y, np.arange(900))
    by_deal = level_split("team", team, p, y, np.arange(900) // 10)
    assert [len(part.bands) for part in by_row.parts] == [6, 2]
    assert [len(part.bands) for part in by_deal.parts] == [2, 0]
    wide, narrow = by_deal.parts[0], by_row.parts[0]
    assert wide.records == 80 and wide.n == narrow.n == 800
    assert sum(band.n for band in narrow.bands) == 800


def test_a_part_in_which_all_ended_alike_is_told() -> None:
    (part,) = level_split("team", column(["a"] * 90), np.full(90, 0.2), np.zeros(90),
                          np.arange(90) // 30).parts  # fmt: skip
    assert (part.observed, part.records, part.band_low) == (0.0, 3, 0.0) and part.band_high > 0.3


def test_grades_follow_their_bands_best_first() -> None:
    p = np.array([0.05, 0.1, 0.29, 0.3, 0.59, 0.6, 0.99])
    split = grade_split(p, np.zeros(7), np.arange(7))
    assert [(part.name, part.n) for part in split.parts] == [
        ("A: from 60 %", 2), ("B: 30 to 60 %", 2), ("C: 10 to 30 %", 2), ("D: below 10 %", 1),
    ]  # fmt: skip
    few = grade_split(np.array([0.05, 0.7]), np.zeros(2), np.arange(2))
    assert [part.name[0] for part in few.parts] == ["A", "D"]


def _columns() -> dict[str, Any]:
    n = 100
    return {
        "age": np.zeros(n),
        "stage": column(["new", "offer"] * 50),
        "last_activity": column(["call", "mail"] * 50),
        "field[city]": column([f"c{i}" for i in range(n)]),
        "field[kind]": column(["x", "y", "z", None] * 25),
        "field[rare]": column(["x", "y"] * 10 + [None] * 80),
        "field[one]": column(["x"] * 99 + ["y"]),
        "field[full]": column(["x", "y"] * 50),
    }


@pytest.mark.parametrize(
    ("more", "less", "chosen"),
    [
        ({}, (), ["full", "kind"]),
        ({}, ("field[full]",), ["kind", "last activity"]),
        # Known for half of the rows, but of one level only: no segment.
        ({"field[lead_source]": column(["w", None] * 50)}, (), ["full", "kind"]),
        ({"field[lead_source]": column(["w", "f"] * 30 + [None] * 40)}, (), LEAD_SOURCE),
        (
            dict.fromkeys(("field[lead_source]", "field[team_id]"), column(["n", "s"] * 50)),
            (), ["team", "lead source"],
        ),
        ({}, ("field[full]", "field[kind]", "last_activity"), []),
    ],
)  # fmt: skip
def test_segments_are_fields_that_part_the_records(
    more: dict[str, Any], less: tuple[str, ...], chosen: list[str]
) -> None:
    columns = {k: v for k, v in {**_columns(), **more}.items() if k not in less}
    assert list(segments(columns)) == chosen
