"""Reasons: contributions of groups of features that add up to the served log-odds.

The typical record (of the stage, for deals) is turned into the scored one group by group, once
in the declared order and once in the reverse; a group's contribution is the mean of the two
changes it made. Along each path the changes telescope, so that base + contributions equals the
served log-odds exactly, whatever the model is. (Two of the orders that a Shapley value averages
over: Strumbelj and Kononenko, JMLR 11, 2010.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data.features import Feature

__all__ = ["Reason", "contributions", "reasons_of"]

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


def contributions(
    log_odds: Callable[[Columns, IntArray], FloatArray],
    columns: Columns,
    typical: Columns,
    groups: Sequence[Sequence[str]],
) -> tuple[FloatArray, FloatArray]:
    """Contributions of groups of features.

    Parameters
    ----------
    log_odds : callable
        Columns of shape (q,), and which of the m records each row is a version of -> served
        log-odds, shape (q,).
    columns, typical : Columns
        The records, and the typical record to compare each with; shape (m,).
    groups : sequence of sequence of str
        Feature names of each group.

    Returns
    -------
    base : shape (m,)
        Log-odds of the typical record.
    parts : shape (m, len(groups))
        base + parts.sum(axis=1) is the served log-odds.
    """
    pairs = {name: _pair(typical[name], columns[name]) for name in typical}
    place = {name: g for g, members in enumerate(groups) for name in members}
    m = len(next(iter(pairs.values()))[0])
    differs = np.zeros((len(groups), m), dtype=bool)
    for name, g in place.items():
        one, other, _ = pairs[name]
        differs[g] |= ~((one == other) | ((one != one) & (other != other)))
    versions = _versions(differs)
    row = np.concatenate([v.rows for v in versions])
    stacked: dict[str, Any] = {}
    for name, (one, other, levels) in pairs.items():
        g = place.get(name, len(groups))
        values = np.concatenate([(other if v.is_new(g) else one)[v.rows] for v in versions])
        stacked[name] = values if levels is None else (values.astype(np.int32), levels)
    found = np.split(log_odds(stacked, row), np.cumsum([len(v.rows) for v in versions])[:-1])
    return _read_off(versions, found, differs)


@dataclass(frozen=True)
class _Version:
    """Records with their groups from `low` up to `high` as they are, the others typical."""

    low: int
    high: int
    rows: IntArray

    def is_new(self, group: int) -> bool:
        return self.low <= group < self.high


def _versions(differs: npt.NDArray[np.bool_]) -> list[_Version]:
    """The versions to ask the model for: one that changes nothing is left out.

    First the typical record, then with ever more groups as they are; then, from the record on,
    with ever more groups typical again.
    """
    groups, m = differs.shape
    forward = [_Version(0, j + 1, np.flatnonzero(differs[j])) for j in range(groups)]
    backward = [_Version(j, groups, np.flatnonzero(differs[j - 1])) for j in range(1, groups)]
    return [_Version(0, 0, np.arange(m)), *forward, *backward]


def _read_off(
    versions: Sequence[_Version], found: Sequence[FloatArray], differs: npt.NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """Base and contributions from the log-odds of the versions."""
    groups, m = differs.shape
    forward, backward = np.empty((groups + 1, m)), np.empty((groups + 1, m))
    forward[0] = found[0]
    for j in range(groups):
        forward[j + 1] = forward[j]
        forward[j + 1, versions[j + 1].rows] = found[j + 1]
    backward[0], backward[groups] = forward[groups], forward[0]
    for j in range(1, groups):
        backward[j] = backward[j - 1]
        backward[j, versions[groups + j].rows] = found[groups + j]
    return forward[0], (np.diff(forward, axis=0) - np.diff(backward, axis=0)).T / 2


def _pair(typical: Any, mine: Any) -> tuple[Any, Any, npt.NDArray[np.object_] | None]:
    """Typical and own values that can be compared, and the levels of a category."""
    if not isinstance(typical, tuple):
        return typical, mine, None
    place: dict[str, int] = {}
    codes = []
    for own, levels in (typical, mine):
        table = [place.setdefault(str(v), len(place)) for v in levels]
        codes.append(np.array([*table, -1], dtype=np.int64)[own])
    joined = np.empty(len(place), dtype=object)
    joined[:] = list(place)
    return codes[0], codes[1], joined


def reasons_of(
    features: Sequence[Feature],
    groups: Mapping[str, Sequence[str]],
    parts: FloatArray,
    columns: Columns,
    typical: Columns,
    row: int,
    against: str,
    rest: float = 0.0,
) -> list[Reason]:
    """The largest contributions of one row in words; the others as one reason, so that they add up.

    Parameters
    ----------
    parts : shape (groups,)
    against : str
        What "typical" is typical of: "this stage", "all leads".
    rest : float
        What no group explains.
    """
    declared = {f.name: f for f in features}
    names = list(groups)
    order = np.argsort(-np.abs(parts), kind="stable")
    shown = [i for i in order[:_TOP] if abs(parts[i]) > _NEGLIGIBLE]
    found = [
        Reason(
            names[i],
            _text([declared[f] for f in groups[names[i]]], columns, typical, row, against),
            float(parts[i]),
        )
        for i in shown
    ]
    rest += float(parts.sum() - sum(r.contribution for r in found))
    if abs(rest) > _NEGLIGIBLE:
        found.append(Reason("other", "everything else together", rest))
    return found


def _text(
    features: Sequence[Feature], columns: Columns, typical: Columns, row: int, against: str
) -> str:
    """The first feature of the group that differs from the typical one, in words."""
    differing = [f for f in features if _value(columns, f, row) != _value(typical, f, row)]
    feature = (differing or list(features))[0]
    mine, usual = _value(columns, feature, row), _value(typical, feature, row)
    return f"{feature.meaning}: {mine}; typical for {against}: {usual}"


def _value(columns: Columns, feature: Feature, row: int) -> str:
    column = columns[feature.name]
    if isinstance(column, tuple):
        code = column[0][row]
        return "not known" if code < 0 else str(column[1][code])
    number = float(column[row])
    if np.isnan(number):
        return "not known"
    if feature.unit.startswith("log(1"):
        return f"{np.expm1(number):,.0f}"
    if feature.unit == "log ratio":
        return f"{np.expm1(number):+.0%}"
    shown = f"{number:,.0f}" if abs(number) >= 10 or number == int(number) else f"{number:.2g}"
    return f"{shown} {feature.unit}" if feature.unit in ("days", "minutes", "persons") else shown
