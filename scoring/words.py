"""Values of features in plain English, beside what is typical.

"no activity for 34 days; typical for this stage: 6 days". A text states two facts and claims
neither a cause nor a cure.
"""

from __future__ import annotations

import numpy as np

from data.features import Feature

__all__ = ["WEEKDAYS", "Value", "compared", "shown"]

Value = float | str | None
"""A number, a category, or None for what is not known."""

# Sentences for what "meaning: value" would say badly: with a value, and without one.
_PHRASES = {
    "days_since_activity": ("no activity for {}", "no activity yet"),
    "last_activity": ("last activity: {}", "no activity yet"),
    "days_in_stage": ("in this stage for {}", "time in the stage not known"),
    "days_to_first_activity": ("wait for the first activity: {}", "no activity yet"),
    "days_to_next_planned": ("next activity planned {}", "no activity planned"),
    "days_to_expected_close": ("expected close date {}", "no expected close date"),
    "close_date_pushed_days": ("expected close date moved by {}", "no expected close date"),
    "amount_log": ("amount {}", "no amount"),
    "amount_growth": ("amount {} since the first one", "no amount"),
}
_AHEAD = ("days_to_expected_close", "days_to_next_planned", "days_until")
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_UNCHANGED = 0.005  # changes that round to no percent


def compared(feature: Feature, value: Value, usual: Value, against: str) -> str:
    """What a record has, and what is typical for `against`: "this stage", "all leads"."""
    mine, typical = _sentence(feature, value), _sentence(feature, usual)
    if mine == typical:
        return f"{mine}, as is typical for {against}"
    # A whole sentence where a bare value would not be understood.
    whole = feature.name in _PHRASES and (value is None or usual is None)
    if not whole:
        typical = "not known" if usual is None else shown(feature, usual)
    return f"{mine}; typical for {against}: {typical}"


def shown(feature: Feature, value: float | str) -> str:
    """A value with its unit."""
    if isinstance(value, str):
        return value
    kernel, unit = feature.name.partition("[")[0], feature.unit
    if kernel in _AHEAD:
        return _ahead(value)
    if unit == "days":
        return _duration(value)
    if unit == "log(1 + currency)":
        return f"{np.expm1(value):,.0f}"
    if unit == "log ratio":
        return _change(float(np.expm1(value)))
    if unit == "0 or 1":
        return f"{value:.0%} yes" if 0 < value < 1 else "yes" if value else "no"
    if unit == "0 = Monday":
        return WEEKDAYS[int(value) % 7]
    if unit == "hours UTC":
        return f"{int(value):02d}:{int(value % 1 * 60):02d} UTC"
    if unit == "share":
        return f"{value:.0%}"
    if unit in ("minutes", "persons"):
        return f"{_number(value)} {unit[:-1] if value == 1 else unit}"
    return _number(value)


def _sentence(feature: Feature, value: Value) -> str:
    with_value, without = _PHRASES.get(
        feature.name, (f"{feature.meaning}: {{}}", f"{feature.meaning}: not known")
    )
    return without if value is None else with_value.replace("{}", shown(feature, value))


def _number(value: float) -> str:
    if abs(value) >= 10 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.2g}"


def _duration(days: float) -> str:
    """Days, or hours and minutes where they are few: "6 days", "1.5 days", "5 hours"."""
    size, sign = abs(days), "-" if days < 0 else ""
    for length, unit in ((1.0, "day"), (1 / 24, "hour"), (1 / 1440, "minute")):
        if size >= length:
            # Whole but for a first decimal below ten days, where half a day tells.
            count = round(size / length, 1 if unit == "day" and size < 9.95 else 0)
            return f"{sign}{count:,.4g} {unit}" + ("" if count == 1 else "s")
    return "0 days"


def _ahead(days: float) -> str:
    if abs(days) < 1 / 1440:
        return "now"
    return f"in {_duration(days)}" if days > 0 else f"{_duration(-days)} ago"


def _change(ratio: float) -> str:
    if abs(ratio) < _UNCHANGED:
        return "unchanged"
    return f"{'up' if ratio > 0 else 'down'} {abs(ratio):.0%}"
