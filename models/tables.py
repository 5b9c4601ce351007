"""Tables from outside as the columns that learners know: arrays, or data frames of any library.

Only the estimators for data scientists need it; the house itself hands over columns. A data frame
is known by its names and dtypes alone, so that no library of frames is imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from models.encoding import Column, Columns, FloatArray

__all__ = ["categorical_columns", "place_of", "table_columns"]

AnyArray = npt.NDArray[Any]


def place_of(names: Sequence[str], column: str | int) -> int:
    """Position of a column given by name or position.

    Examples
    --------
    >>> place_of(["age", "source"], "source"), place_of(["age", "source"], 0)
    (1, 0)
    """
    if isinstance(column, str) and column in names:
        return list(names).index(column)
    if isinstance(column, int) and 0 <= column < len(names):
        return column
    raise ValueError(f"no column {column!r}; there are {', '.join(names)}")


def categorical_columns(
    table: AnyArray, names: Sequence[str], declared: Iterable[str | int], frame: Any = None
) -> npt.NDArray[np.bool_]:
    """Which columns are categories: declared, of that dtype in the frame, or with text in them.

    Parameters
    ----------
    table : ndarray of shape (n, p)
        Of numbers, of text, or of objects.
    declared : iterable of str or int
        Names or positions.
    frame : object, optional
        What the table was made from; its `dtypes` are looked at, where it has any.
    """
    found = np.array(
        [table.dtype.kind in "US" or _has_text(column) for column in table.T], dtype=np.bool_
    )
    kinds = getattr(frame, "dtypes", None)
    if kinds is not None and len(kinds) == len(found):
        found |= np.array([str(kind) == "category" for kind in kinds])
    for column in declared:
        found[place_of(names, column)] = True
    return found


def table_columns(
    table: AnyArray, names: Sequence[str], categorical: npt.NDArray[np.bool_]
) -> Columns:
    """Named columns of a table of shape (n, p): numbers with NaN, or codes with levels.

    Raises
    ------
    ValueError
        If a column of numbers holds text or infinity.
    TypeError
        If a cell holds neither text nor a number nor nothing.
    """
    return {
        name: _levels(values, name) if is_category else _numbers(values, name)
        for name, values, is_category in zip(names, table.T, categorical, strict=True)
    }


def _has_text(column: AnyArray) -> bool:
    return column.dtype.kind == "O" and any(isinstance(value, str) for value in column)


def _levels(values: AnyArray, name: str) -> Column:
    texts = [_text(value, name) for value in values]
    known = np.array([text is not None for text in texts], dtype=np.bool_)
    levels, code = np.unique([text for text in texts if text is not None], return_inverse=True)
    codes = np.full(len(texts), -1, dtype=np.int32)
    codes[known] = code
    return codes, levels.astype(object)


def _numbers(values: AnyArray, name: str) -> FloatArray:
    if values.dtype.kind in "biuf":
        numbers = values.astype(np.float64)
    else:
        numbers = np.array([_number(value, name) for value in values], dtype=np.float64)
    if np.isinf(numbers).any():
        raise ValueError(f"column {name} holds infinity; give numbers, or NaN where missing")
    return numbers


def _text(value: Any, name: str) -> str | None:
    """A level; 1, 1.0 and True are one level."""
    if isinstance(value, str):
        return str(value)
    number = _number(value, name)
    return None if np.isnan(number) else f"{number:.15g}"


def _number(value: Any, name: str) -> float:
    # pandas has a missing value of its own; its name is all that is known of it here.
    if value is None or type(value).__name__ == "NAType":
        return float("nan")
    if isinstance(value, str):
        raise ValueError(f"column {name} held numbers when fitted, and now {value!r}")
    if not isinstance(value, Real | np.bool_):
        raise TypeError(
            f"column {name} holds a {type(value).__name__}; argument must be a string or a number"
        )
    return float(value)
