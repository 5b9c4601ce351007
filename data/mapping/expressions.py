"""What may stand behind a field of a mapping file: the expressions, as values.

`data.mapping.expression_reader` reads them from TOML, `data.mapping.evaluation` turns them into
columns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import numpy as np

__all__ = [
    "BRACES",
    "Choose",
    "ColumnOf",
    "Condition",
    "Const",
    "Context",
    "Expression",
    "First",
    "How",
    "Lookup",
    "Order",
    "Shift",
    "Template",
    "ValueMap",
    "columns_used",
]

BRACES = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True)
class ValueMap:
    """Values as the source spells them -> values as dealcast spells them.

    Attributes
    ----------
    entries : dict of str to str
        "" as a key stands for the missing value, "" as a value for none.
    otherwise : str or None
        What becomes of a value that is not listed: None rejects the row, "*" keeps it.
    """

    name: str
    entries: Mapping[str, str]
    otherwise: str | None = None


@dataclass(frozen=True)
class How:
    """What every expression may say about its values."""

    place: str
    kind: str | None = None
    missing: tuple[str, ...] | None = None
    map: ValueMap | None = None
    scale: float | None = None
    decimal: str | None = None
    date_order: str | None = None
    time_format: str | None = None
    separator: str = ";"
    extract: str | None = None


@dataclass(frozen=True)
class ColumnOf:
    """The values of a column."""

    how: How
    column: str


@dataclass(frozen=True)
class Const:
    """The same value in every row."""

    how: How
    text: str


@dataclass(frozen=True)
class Template:
    """Text with columns in braces; missing where one of them is missing."""

    how: How
    template: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Lookup:
    """A value from the row of another file whose `match` equals this row's `key`."""

    how: How
    file: str
    key: Expression
    match: str
    value: Expression
    default: str | None


@dataclass(frozen=True)
class First:
    """The first of several expressions that is not missing."""

    how: How
    choices: tuple[Expression, ...]


@dataclass(frozen=True)
class Order:
    """Times made from the order of the rows: `start` + rank x `step`."""

    how: How
    by: str
    start: np.datetime64
    step: np.timedelta64


@dataclass(frozen=True)
class Shift:
    """A time moved by a number of units: a closing from a creation and a duration in days."""

    how: How
    start: Expression
    by: Expression
    unit: np.timedelta64


@dataclass(frozen=True)
class Condition:
    """Whether a column holds one of some values ("" = missing), or, negated, none of them."""

    place: str
    column: str
    values: tuple[str, ...]
    negated: bool = False


@dataclass(frozen=True)
class Choose:
    """One expression where a condition holds, another (or missing) where not."""

    how: How
    condition: Condition
    then: Expression
    otherwise: Expression | None


Expression = ColumnOf | Const | Template | Lookup | First | Order | Shift | Choose


@dataclass(frozen=True)
class Context:
    """What expressions may refer to: the files, the maps, the time zone."""

    zone: ZoneInfo
    files: tuple[str, ...] = ()
    maps: Mapping[str, ValueMap] | None = None


def columns_used(expression: Expression | None) -> set[str]:
    """The columns of its own file that an expression reads."""
    match expression:
        case ColumnOf():
            return {expression.column}
        case Template():
            return set(expression.columns)
        case Lookup():
            return columns_used(expression.key)
        case First():
            return set().union(*(columns_used(c) for c in expression.choices))
        case Order():
            return {expression.by} - {"row"}
        case Shift():
            return columns_used(expression.start) | columns_used(expression.by)
        case Choose():
            inner = columns_used(expression.then) | columns_used(expression.otherwise)
            return inner | {expression.condition.column}
    return set()
