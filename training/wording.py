"""Figures as people read them: three significant digits, thousands separators, a unit on each."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["compact", "count", "day", "moment", "money", "number", "percent", "ratio_error"]

_MISSING = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SUFFIXES = ((1e9, "bn"), (1e6, "M"), (1e3, "k"))


def number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """A number with `digits` significant digits; a dash where there is none.

    Examples
    --------
    >>> number(1543421.3), number(0.48373), number(2.5, sign=True), number(9.996)
    ('1,540,000', '0.484', '+2.50', '10.0')
    """
    if value is None or not math.isfinite(value):
        return _MISSING
    if abs(value) < 1e-9:  # what arithmetic leaves of nothing
        return "0"
    if abs(value) < 1e-4:
        return "<0.0001" if value > 0 else f">{_MINUS}0.0001"
    rounded = float(f"{value:.{digits - 1}e}")
    places = max(digits - 1 - math.floor(math.log10(abs(rounded))), 0)
    mark = _MINUS if rounded < 0 else "+" if sign else ""
    return f"{mark}{abs(rounded):,.{places}f}"


def count(value: float | None) -> str:
    """A whole number, exact.

    Examples
    --------
    >>> count(16255.0)
    '16,255'
    """
    return _MISSING if value is None or not math.isfinite(value) else f"{round(value):,}"


def percent(share: float | None, digits: int = 3, *, sign: bool = False) -> str:
    r"""A share as per cent, with a space that does not break.

    Examples
    --------
    >>> percent(0.31117), percent(0.00134), percent(0.0939, sign=True), percent(1.0)
    ('31.1\xa0%', '0.134\xa0%', '+9.39\xa0%', '100\xa0%')
    """
    if share is None or not math.isfinite(share):
        return _MISSING
    return f"{number(100.0 * share, digits, sign=sign)}\u00a0%"


def ratio_error(ratio: float | None) -> str:
    r"""Predicted / actual as what was predicted too much or too little.

    Examples
    --------
    >>> ratio_error(1.44), ratio_error(0.9), ratio_error(1.001)
    ('44\xa0% too much', '10\xa0% too little', 'about right')
    """
    if ratio is None or not math.isfinite(ratio):
        return _MISSING
    off = abs(ratio - 1.0)
    if off < 0.02:
        return "about right"
    return f"{round(100 * off):,}\u00a0% too {'much' if ratio > 1 else 'little'}"


def money(value: float | None, currency: str = "") -> str:
    r"""An amount with its currency, where that is known.

    Examples
    --------
    >>> money(1543421.3, "EUR")
    '1,540,000\xa0EUR'
    """
    text = number(value)
    return f"{text}\u00a0{currency}" if currency and text != _MISSING else text


def compact(value: float, digits: int = 3) -> str:
    r"""A short number for an axis.

    Examples
    --------
    >>> compact(1_500_000), compact(2_000), compact(0)
    ('1.5\xa0M', '2\xa0k', '0')
    """
    size = abs(value)
    scale, suffix = next(((s, n) for s, n in _SUFFIXES if size >= s), (1.0, ""))
    text = f"{size / scale:.{digits}g}"
    return f"{_MINUS if value < 0 else ''}{text}" + (f"\u00a0{suffix}" if suffix else "")


def day(at: np.datetime64 | str) -> str:
    r"""A date, whatever the machine's language.

    Examples
    --------
    >>> day(np.datetime64("2012-01-15T08:30"))
    '15\xa0Jan\xa02012'
    """
    year, month, number_of_day = str(_parsed(at).astype("datetime64[D]")).rsplit("-", 2)
    return f"{int(number_of_day)}\u00a0{_MONTHS[int(month) - 1]}\u00a0{year}"


def moment(at: np.datetime64 | str) -> str:
    r"""A date with its time of day in UTC; a dash where there is none.

    Examples
    --------
    >>> moment("2012-01-15T08:30:00Z")
    '15\xa0Jan\xa02012, 08:30\xa0UTC'
    """
    if isinstance(at, str) and not at:
        return _MISSING
    clock = str(_parsed(at).astype("datetime64[m]"))[-5:]
    return f"{day(at)}, {clock}\u00a0UTC"


def _parsed(at: np.datetime64 | str) -> np.datetime64:
    if not isinstance(at, str):
        return at
    # An offset other than Z is written with a sign after the time; all of ours are UTC.
    return np.datetime64(at.removesuffix("Z").removesuffix("+00:00"), "us")
