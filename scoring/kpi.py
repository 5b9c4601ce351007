"""A KPI: its value, what it was counted from, and why where there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

__all__ = ["Kpi", "Part", "money", "untold"]


@dataclass(frozen=True)
class Part:
    """A KPI of one part: a lead source, a method."""

    name: str
    value: float | None
    n: int


@dataclass(frozen=True)
class Kpi:
    """One figure.

    Attributes
    ----------
    name : str
        As `docs/kpis.md` defines it.
    window : str
        The period's name ("to date"), "365 days", or "now".
    value : float or None
        None where the records cannot tell; money in units of the base currency.
    unit : str
        share, days, hours, money, money a day, ratio, or count.
    n : int
        The records behind it.
    reason : str
        Why there is no value, or what to know about it.
    parts : tuple of Part
    """

    name: str
    window: str
    value: float | None
    unit: str
    n: int
    reason: str = ""
    parts: tuple[Part, ...] = ()


def untold(name: str, window: str, unit: str, reason: str) -> Kpi:
    """A KPI that the records cannot tell."""
    return Kpi(name, window, None, unit, 0, reason)


@overload
def money(cents: float) -> float: ...


@overload
def money(cents: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]: ...


def money(
    cents: float | npt.NDArray[np.int64],
) -> float | npt.NDArray[np.float64]:
    """Cents as units of the currency.

    >>> money(1234567)
    12345.67
    """
    return cents / 100.0
