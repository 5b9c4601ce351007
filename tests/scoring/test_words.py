"""Values in plain English, with their units, beside what is typical."""

from __future__ import annotations

import numpy as np
import pytest

from data.features import Feature, declare
from scoring.words import Value, compared, shown
from tests import worlds


def number(name: str, unit: str, meaning: str = "it") -> Feature:
    return Feature(name, "number", unit, meaning)


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        ("days", 34.2, "34 days"),
        ("days", 1.0, "1 day"),
        ("days", 1.46, "1.5 days"),
        ("days", 9.97, "10 days"),
        ("days", 1234.0, "1,234 days"),
        ("days", 0.25, "6 hours"),
        ("days", 1 / 24, "1 hour"),
        ("days", 0.0104, "15 minutes"),
        ("days", 0.0, "0 days"),
        ("days", -3.0, "-3 days"),
        ("log(1 + currency)", float(np.log1p(120_000)), "120,000"),
        ("log ratio", float(np.log(1.25)), "up 25%"),
        ("log ratio", float(np.log(0.9)), "down 10%"),
        ("log ratio", 0.0, "unchanged"),
        ("0 or 1", 1.0, "yes"),
        ("0 or 1", 0.0, "no"),
        ("0 = Monday", 2.0, "Wednesday"),
        ("hours UTC", 14.5, "14:30 UTC"),
        ("share", 0.42, "42%"),
        ("persons", 1.0, "1 person"),
        ("persons", 1500.0, "1,500 persons"),
        ("count", 2.5, "2.5"),
        ("count", 0.0, "0"),
        ("", 0.01234, "0.012"),
        ("", 1e6, "1,000,000"),
    ],
)
def test_numbers_have_their_units(unit: str, value: float, text: str) -> None:
    assert shown(number("it", unit), value) == text


@pytest.mark.parametrize(
    ("feature", "value", "usual", "text"),
    [
        (
            number("days_since_activity", "days"), 34.0, 6.0,
            "no activity for 34 days; typical for this stage: 6 days",
        ),
        (
            number("days_since_activity", "days"), None, 6.0,
            "no activity yet; typical for this stage: no activity for 6 days",
        ),
        (
            number("days_since_activity", "days"), 6.0, None,
            "no activity for 6 days; typical for this stage: no activity yet",
        ),
        (
            number("days_since_activity", "days"), None, None,
            "no activity yet, as is typical for this stage",
        ),
        (
            number("amount_log", "log(1 + currency)"), float(np.log1p(120_000)),
            float(np.log1p(45_000)), "amount 120,000; typical for this stage: 45,000",
        ),
        (
            number("amount_growth", "log ratio"), float(np.log(2)), 0.0,
            "amount up 100% since the first one; typical for this stage: unchanged",
        ),
        (
            number("days_to_expected_close", "days"), -12.0, 20.0,
            "expected close date 12 days ago; typical for this stage: in 20 days",
        ),
        (
            number("days_until[renewal]", "days", "renewal"), 40.0, None,
            "renewal: in 40 days; typical for this stage: not known",
        ),
        (number("seats", "", "seats"), None, 12.0, "seats: not known; typical for this stage: 12"),
        (
            Feature("source", "category", "", "channel it came from"), "fair {x}", "web",
            "channel it came from: fair {x}; typical for this stage: web",
        ),
    ],
)  # fmt: skip
def test_values_are_compared_with_what_is_typical(
    feature: Feature, value: Value, usual: Value, text: str
) -> None:
    assert compared(feature, value, usual, "this stage") == text


def test_every_declared_feature_can_be_told() -> None:
    crm = worlds.company()
    for feature in (*declare(crm, "deal"), *declare(crm, "lead")):
        values: list[Value] = ["web"] if feature.dtype == "category" else [0.0, 0.5, -3.0, 300.0]
        for value in (None, *values):
            text = compared(feature, value, values[0], "this stage")
            assert "typical for this stage" in text and "nan" not in text and "{}" not in text
            assert not {"because", "should", "due"} & set(text.split()), text
