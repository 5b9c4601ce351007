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
    log_odds: Callable[[Columns], FloatArray],
    columns: Columns,
    typical: Columns,
    groups: Sequence[Sequence[str]],
) -> tuple[FloatArray, FloatArray]:
    """Contributions of groups of features.

    Parameters
    ----------
    log_odds : callable
        Columns of shape (m,) -> served log-odds, shape (m,).
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
    steps = []
    for start, goal, order in (
        (typical, columns, list(groups)),
        (columns, typical, list(groups)),
    ):
        current = dict(start)
        steps.append(dict(current))
        for group in order:
            current.update({name: goal[name] for name in group})
            steps.append(dict(current))
    values = log_odds(_stack(steps)).reshape(len(steps), -1)
    half = len(steps) // 2
    forward = np.diff(values[:half], axis=0)  # typical -> record
    backward = -np.diff(values[half:], axis=0)  # record -> typical: the reverse order
    return values[0], ((forward + backward) / 2).T


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


def _stack(steps: Sequence[Columns]) -> dict[str, Any]:
    """Columns of several versions of the same records, one after the other."""
    stacked: dict[str, Any] = {}
    for name, first in steps[0].items():
        versions = [step[name] for step in steps]
        if isinstance(first, tuple):
            stacked[name] = _stack_categories(versions)
        else:
            stacked[name] = np.concatenate(versions)
    return stacked


def _stack_categories(versions: Sequence[Any]) -> Any:
    """Categories of different dictionaries under one."""
    levels: list[Any] = []
    offsets: dict[int, int] = {}
    codes = []
    for version_codes, version_levels in versions:
        if id(version_levels) not in offsets:
            offsets[id(version_levels)] = len(levels)
            levels.extend(version_levels)
        shift = offsets[id(version_levels)]
        codes.append(np.where(version_codes >= 0, version_codes + shift, -1))
    # A level may stand twice; learners look at its text.
    joined = np.empty(len(levels), dtype=object)
    joined[:] = levels
    return np.concatenate(codes).astype(np.int32), joined
