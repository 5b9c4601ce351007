"""Groupings: bands of amounts, their order, and groups that do not exist."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.grouping import BANDS, UNASSIGNED, band_of, in_order


@pytest.mark.parametrize(
    ("amount", "band"),
    [
        (0.0, "under 100"),
        (99.99, "under 100"),
        (100.0, "100 to 200"),
        (4_999.99, "2,000 to 5,000"),
        (5_000.0, "5,000 to 10,000"),
        (9_999_999.0, "5,000,000 to 10,000,000"),
        (1e7, "10,000,000 and more"),
        (np.nan, UNASSIGNED),
    ],
)
def test_an_amount_has_a_band(amount: float, band: str) -> None:
    assert band_of(np.array([amount])).tolist() == [band]


@given(st.lists(st.floats(0, 1e9), min_size=2, max_size=20))
def test_larger_amounts_come_in_later_bands(amounts: list[float]) -> None:
    bands = band_of(np.sort(np.array(amounts))).tolist()
    place = [BANDS.index(b) for b in bands]
    assert place == sorted(place)
    assert list(in_order(bands, "amount")) == list(dict.fromkeys(bands))


def test_bands_come_by_size_and_all_else_by_the_alphabet() -> None:
    names = ["unassigned", "10,000 to 20,000", "under 100", "2,000 to 5,000", "under 100"]
    ordered = ("under 100", "2,000 to 5,000", "10,000 to 20,000", "unassigned")
    assert in_order(names, "amount") == ordered
    assert in_order(["b", "a", "b"], "owner") == ("a", "b")
