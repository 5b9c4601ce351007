"""Reasons: the largest contributions to the served log-odds, in words that add up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data.features import Feature
from scoring.words import Value, compared

__all__ = ["Comparison", "Reason", "tell"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Columns = Mapping[str, Any]

_TOP = 5
_NEGLIGIBLE = 1e-9


@dataclass(frozen=True, slots=True)
class Reason:
    """A contribution to the log-odds, in words."""

    feature: str
    text: str
    contribution: float


@dataclass(frozen=True)
class Comparison:
    """Records beside what is typical.

    Attributes
    ----------
    columns : Columns
        Of the m records.
    typical : Columns
        Typical records, a few rows.
    row : int64, shape (m,)
        Which typical record each record is compared with.
    against : sequence of str
        What each typical record is typical of: "this stage", "all leads".
    """

    columns: Columns
    typical: Columns
    row: IntArray
    against: Sequence[str]


def tell(
    features: Sequence[Feature],
    parts: Mapping[str, FloatArray],
    rest: FloatArray,
    compare: Comparison,
) -> list[tuple[Reason, ...]]:
    """The largest contributions of each record; all others as one reason, so that they add up.

    Features of a group are told as one, in the words of the one that brought most.

    Parameters
    ----------
    parts : mapping of str to float64, shape (m,)
        Contributions by feature.
    rest : float64, shape (m,)
        What no feature explains.
    """
    groups: dict[str, list[Feature]] = {}
    for feature in features:
        if feature.name in parts:
            groups.setdefault(feature.group or feature.name, []).append(feature)
    total = np.zeros((len(rest), len(groups)))
    for g, members in enumerate(groups.values()):
        for feature in members:
            total[:, g] += parts[feature.name]
    speaks = [
        _speakers(members, parts, total[:, g], compare) for g, members in enumerate(groups.values())
    ]
    names, members_of, words = list(groups), list(groups.values()), _Words(compare)
    order = np.argsort(-np.abs(total), axis=1, kind="stable")[:, :_TOP]
    every = (total.sum(axis=1) + rest).tolist()
    told = []
    for i, (largest, sizes) in enumerate(zip(order.tolist(), total.tolist(), strict=True)):
        found = [
            Reason(names[g], words.of(members_of[g][speaks[g][i]], i), sizes[g])
            for g in largest
            if abs(sizes[g]) > _NEGLIGIBLE
        ]
        left = every[i] - sum(r.contribution for r in found)
        if abs(left) > _NEGLIGIBLE:
            found.append(Reason("other", "everything else together", left))
        told.append(tuple(found))
    return told


def _speakers(
    members: Sequence[Feature], parts: Mapping[str, FloatArray], total: FloatArray,
    compare: Comparison,
) -> list[int]:  # fmt: skip
    """Which feature of a group speaks for it: the one that brought most of what it brought.

    One that is not as is typical goes first: a value that is can only have brought something
    together with others.
    """
    if len(members) == 1:
        return [0] * len(total)
    brought = np.column_stack([parts[f.name] for f in members]) * np.sign(total)[:, None]
    differs = np.column_stack([_differs(f.name, compare) for f in members])
    rank = np.where((brought > 0) & differs, brought + np.abs(total)[:, None] * 2 + 1, brought)
    return list(np.argmax(rank, axis=1).tolist())


def _differs(name: str, compare: Comparison) -> npt.NDArray[np.bool_]:
    mine, usual = compare.columns[name], compare.typical[name]
    if isinstance(mine, tuple):
        known = {str(level): code for code, level in enumerate(mine[1].tolist())}
        levels = [known.get(str(v), -2) for v in usual[1].tolist()]
        codes = np.array([*levels, -1], dtype=np.int64)[usual[0]]
        return np.asarray(mine[0] != codes[compare.row])
    typical = usual[compare.row]
    return np.asarray((mine != typical) & ~(np.isnan(mine) & np.isnan(typical)))


class _Words:
    """Texts of a batch: equal values are put into words once."""

    def __init__(self, compare: Comparison) -> None:
        self._compare = compare
        self._row: list[int] = compare.row.tolist()
        self._values: dict[str, tuple[list[Value], list[Value]]] = {}
        self._known: dict[tuple[str, Value, int], str] = {}

    def of(self, feature: Feature, i: int) -> str:
        """What record i has, beside what is typical."""
        if feature.name not in self._values:
            self._values[feature.name] = (
                _values(self._compare.columns[feature.name]),
                _values(self._compare.typical[feature.name]),
            )
        mine, usual = self._values[feature.name]
        key = feature.name, mine[i], self._row[i]
        if key not in self._known:
            against = self._compare.against[self._row[i]]
            self._known[key] = compared(feature, mine[i], usual[self._row[i]], against)
        return self._known[key]


def _values(column: Any) -> list[Value]:
    if isinstance(column, tuple):
        levels: list[Value] = [*(str(v) for v in column[1].tolist()), None]
        return [levels[code] for code in column[0].tolist()]
    return [None if v != v else v for v in column.tolist()]
