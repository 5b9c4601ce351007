"""Columns put together: mapped, taken by position, first of several, one or the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.mapping.expressions import ValueMap
from data.mapping.parsing import Parsed
from data.mapping.sections import did_you_mean, shorten

__all__ = ["apply_map", "filled", "first_of", "merge_bare", "missing_of", "objects", "take"]

BoolArray = npt.NDArray[np.bool_]


def apply_map(
    value_map: ValueMap, texts: list[str]
) -> tuple[list[str | None], list[bool], dict[int, str]]:
    """New texts, whether they are the map's own words, and those that it does not know."""
    new: list[str | None] = []
    own: list[bool] = []
    bad: dict[int, str] = {}
    for i, text in enumerate(texts):
        known = value_map.entries.get(text)
        if known is None and text == "":
            known = ""
        if known is None and value_map.otherwise not in (None, "*"):
            known = value_map.otherwise
        if known is None and value_map.otherwise is None:
            names = did_you_mean(text, value_map.entries)
            bad[i] = f'{shorten(text)} is not in the map "{value_map.name}"; {names}'
            known = ""
        own.append(known is not None)
        new.append((text if known is None else known) or None)
    return new, own, bad


def filled(texts: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    """The texts with "" for missing."""
    filled = texts.copy()
    filled[pd.isna(texts)] = ""
    return filled


def objects(values: list[Any]) -> npt.NDArray[np.object_]:
    """A list as an array of objects, whatever they are."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def missing_of(values: npt.NDArray[Any]) -> Any:
    """What stands for missing in an array of this dtype."""
    match values.dtype.kind:
        case "f":
            return np.nan
        case "M":
            return np.datetime64("NaT")
    return None


def take(values: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """The values at positions, missing where the position is -1."""
    longer = np.empty(len(values) + 1, dtype=values.dtype)
    longer[:-1] = values
    longer[-1] = missing_of(values)
    return longer[rows]


def first_of(parts: list[Parsed]) -> Parsed:
    """Row by row, the first value that is not missing; a fault counts as a value."""
    values, bad = parts[0].values.copy(), dict(parts[0].bad)
    bare = parts[0].bare
    for part in parts[1:]:
        open_ = np.asarray(pd.isna(values), dtype=bool)
        open_[list(bad)] = False
        values[open_] = part.values[open_]
        bad |= {r: why for r, why in part.bad.items() if open_[r]}
        if bare is not None and part.bare is not None:
            bare = np.where(open_, part.bare, bare)
    return Parsed(values, bad, (), bare)


def merge_bare(yes: Parsed, no: Parsed, holds: BoolArray) -> BoolArray | None:
    """The bare dates of an either-or."""
    if yes.bare is None and no.bare is None:
        return None
    nothing = np.zeros(len(holds), dtype=bool)
    first = nothing if yes.bare is None else yes.bare
    second = nothing if no.bare is None else no.bare
    merged: BoolArray = np.where(holds, first, second)
    return merged
