"""Expressions of a mapping file, read from TOML and checked.

An expression is a column's name, or a table with one of the keys `column`, `const`,
`template`, `lookup`, `first`, `order`, `shift`, `if`.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from data.mapping.expressions import (
    BRACES,
    Choose,
    ColumnOf,
    Condition,
    Const,
    Context,
    Expression,
    First,
    How,
    Lookup,
    Order,
    Shift,
    Template,
    ValueMap,
)
from data.mapping.sections import MappingError, Section, did_you_mean, plain_text, shorten

__all__ = [
    "ATTRIBUTE_KINDS",
    "DATE_ORDERS",
    "DECIMALS",
    "read_condition",
    "read_expression",
    "read_map",
]

ATTRIBUTE_KINDS = ("text", "number", "boolean", "date", "time", "list")
DATE_ORDERS = ("dmy", "mdy", "ymd")
DECIMALS = (".", ",")
_STEP = re.compile(r"(\d+)\s*(us|ms|s|m|h|d)")
_UNITS = {
    "m": "minutes",
    "h": "hours",
    "d": "days",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
}


def read_map(name: str, place: str, content: object) -> ValueMap:
    """Read a value map: {Won = "won", "*" = ""}."""
    section = Section(place, content)
    entries = {k: plain_text(section.at(k), v) for k, v in section.items()}
    otherwise = entries.pop("*", None)
    return ValueMap(name, entries, otherwise)


def read_expression(
    place: str, content: object, context: Context, *, attribute: bool = False
) -> Expression:
    """Read one expression.

    Parameters
    ----------
    place : str
        Where it stands, for messages: "table 2, fields.amount".
    attribute : bool
        True for attributes, which may say their kind with `as`; a field has its own.

    Raises
    ------
    MappingError
        If it is not an expression.
    """
    if isinstance(content, str):
        if not content:
            raise MappingError(place, "is empty; it must be a column's name")
        return ColumnOf(How(place), content)
    if not isinstance(content, Mapping):
        message = f"is {shorten(content)}; write a column's name, or {{const = ...}} for a value"
        raise MappingError(place, message)
    section = Section(place, content)
    form = next((f for f in _FORMS if f in section), None)
    if form is None:
        seen = ", ".join(content) or "nothing"
        raise MappingError(
            place, f"has {seen}; one of these must say what it is: " + ", ".join(_FORMS)
        )
    how = _read_how(section, context, attribute, reads=form in ("column", "template", "lookup"))
    expression: Expression = _FORMS[form](section, how, context)
    section.finish()
    if attribute and how.kind is None:
        expression = _with_default_kind(expression)
    return expression


def _read_how(section: Section, context: Context, attribute: bool, *, reads: bool) -> How:
    """What stands beside the form; the words about reading only where cells are read."""
    kind = section.choice("as", ATTRIBUTE_KINDS) if attribute else None
    if not reads:
        return How(section.place, kind)
    scale = section.number("scale")
    if scale is not None and attribute and kind not in (None, "number"):
        raise section.fail("scale", f'is for numbers, and as is "{kind}"')
    return How(
        place=section.place,
        kind="number" if attribute and scale is not None else kind,
        missing=section.texts("missing") if "missing" in section else None,
        map=_map_of(section, context),
        scale=scale,
        decimal=section.choice("decimal", DECIMALS),
        date_order=section.choice("date_order", DATE_ORDERS),
        time_format=section.text("time_format"),
        separator=section.text("separator", ";") or ";",
        extract=_extract(section),
    )


def _extract(section: Section) -> str | None:
    pattern = section.text("extract")
    try:
        if pattern is not None and re.compile(pattern).groups != 1:
            raise section.fail("extract", f"is {shorten(pattern)}; put one part in round brackets")
    except re.error as error:
        raise section.fail("extract", f"is no regular expression: {error}") from error
    return pattern


def _map_of(section: Section, context: Context) -> ValueMap | None:
    value = section.take("map")
    if value is None:
        return None
    if isinstance(value, Mapping):
        return read_map("here", section.at("map"), value)
    maps = context.maps or {}
    if not isinstance(value, str) or value not in maps:
        raise section.fail("map", f"is {shorten(value)}; {did_you_mean(str(value), maps)}")
    return maps[value]


def _with_default_kind(expression: Expression) -> Expression:
    """Attributes whose kind cannot be seen in a column must have one."""
    match expression:
        case First() | Choose():
            kinds = ", ".join(f'"{k}"' for k in ATTRIBUTE_KINDS)
            raise MappingError(expression.how.place, f"needs as = one of {kinds}")
        case Template():
            return replace(expression, how=replace(expression.how, kind="text"))
        case Order() | Shift():
            return replace(expression, how=replace(expression.how, kind="time"))
    return expression


def _read_column(section: Section, how: How, context: Context) -> ColumnOf:
    return ColumnOf(how, section.required_text("column"))


def _read_const(section: Section, how: How, context: Context) -> Const:
    value = section.take("const")
    if isinstance(value, dt.date):  # TOML has dates and times of its own
        value = value.isoformat()
    return Const(how, plain_text(section.at("const"), value))


def _read_template(section: Section, how: How, context: Context) -> Template:
    template = section.required_text("template")
    columns = tuple(BRACES.findall(template))
    if not columns:
        message = f"is {shorten(template)}; it must name columns in braces, like {{Id}}"
        raise section.fail("template", message)
    return Template(how, template, columns)


def _read_lookup(section: Section, how: How, context: Context) -> Lookup:
    file = _read_file(section, "lookup", context)
    # A map beside a lookup corrects the spelling of the key; the value keeps the other words.
    key = read_expression(section.at("key"), section.take("key"), context)
    if how.map is not None:
        key = replace(key, how=replace(key.how, map=how.map))
        how = replace(how, map=None)
    value = read_expression(section.at("value"), section.take("value"), context)
    default = section.take("default")
    return Lookup(
        how,
        file,
        key,
        section.required_text("match"),
        _inherit(value, how),
        None if default is None else plain_text(section.at("default"), default),
    )


def _inherit(value: Expression, how: How) -> Expression:
    """Hand what is said beside a lookup about reading its values to the value itself."""
    return replace(
        value,
        how=replace(
            value.how,
            missing=value.how.missing if value.how.missing is not None else how.missing,
            decimal=value.how.decimal or how.decimal,
            date_order=value.how.date_order or how.date_order,
            time_format=value.how.time_format or how.time_format,
            separator=how.separator,
        ),
    )


def _read_file(section: Section, key: str, context: Context) -> str:
    name = section.required_text(key)
    if name not in context.files:
        message = f"is {shorten(name)}, no file of this mapping; "
        raise section.fail(key, message + did_you_mean(name, context.files))
    return name


def _read_first(section: Section, how: How, context: Context) -> First:
    value = section.take("first")
    if not isinstance(value, list) or not value:
        raise section.fail("first", f"is {shorten(value)}; it must be a list of expressions")
    return First(
        how,
        tuple(
            read_expression(f"{section.at('first')} {i}", v, context)
            for i, v in enumerate(value, 1)
        ),
    )


def _read_order(section: Section, how: How, context: Context) -> Order:
    start = section.time("start", context.zone)
    if np.isnat(start):
        raise section.fail("start", "is missing; write a time like 2008-05-01T00:00:00Z")
    step = section.required_text("step")
    parts = _STEP.fullmatch(step)
    if parts is None or int(parts[1]) == 0:
        raise section.fail("step", f'is {shorten(step)}; write one like "10m", "1h" or "1d"')
    span = dt.timedelta(**{_UNITS[parts[2]]: int(parts[1])})
    return Order(how, section.required_text("order"), start, np.timedelta64(span, "us"))


def _read_shift(section: Section, how: How, context: Context) -> Shift:
    unit = section.choice("unit", _UNITS)
    if unit is None:
        raise section.fail("unit", f"is missing; write one of {', '.join(_UNITS)}")
    return Shift(
        how,
        read_expression(section.at("shift"), section.take("shift"), context),
        read_expression(section.at("by"), section.take("by"), context),
        np.timedelta64(dt.timedelta(**{_UNITS[unit]: 1}), "us"),
    )


def _read_choose(section: Section, how: How, context: Context) -> Choose:
    then = section.take("then")
    if then is None:
        raise section.fail("then", "is missing; it must be an expression")
    otherwise = section.take("else")
    return Choose(
        how,
        read_condition(section.at("if"), section.take("if")),
        read_expression(section.at("then"), then, context),
        None if otherwise is None else read_expression(section.at("else"), otherwise, context),
    )


def read_condition(place: str, content: object) -> Condition:
    """Read {column = "Stage", in = ["Won"]} or {column = "Stage", not_in = ["", "Lost"]}."""
    section = Section(place, content)
    column = section.required_text("column")
    if ("in" in section) == ("not_in" in section):
        raise MappingError(place, 'needs either in = ["..."] or not_in = ["..."]')
    negated = "not_in" in section
    values = section.texts("not_in" if negated else "in")
    section.finish()
    return Condition(place, column, values, negated)


_FORMS: dict[str, Any] = {
    "column": _read_column,
    "const": _read_const,
    "template": _read_template,
    "lookup": _read_lookup,
    "first": _read_first,
    "order": _read_order,
    "shift": _read_shift,
    "if": _read_choose,
}
