"""Geometry of the report's plots: where bars, dots and ticks lie on the page.

The templates draw it as inline SVG, so that text stays text, every mark carries its figures in a
tooltip, and the page needs neither scripts nor pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from training import wording
from training.replayed import LEVELS, Issued

__all__ = ["FanBar", "FanChart", "Frame", "Histogram", "ReliabilityChart", "ReliabilityDot", "Tick",
           "fan_chart", "nice_ticks", "pit_chart", "reliability_chart"]  # fmt: skip

_DAY = np.timedelta64(1, "D")
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0, 20.0, 50.0)


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis, in pixels."""

    at: float
    label: str


@dataclass(frozen=True)
class Frame:
    """A plot's size and the box its data lie in; pixels, y downwards."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float


@dataclass(frozen=True)
class FanBar:
    """One forecast as issued and what happened: pixel places, and its figures in words.

    `ranges` are those of 95, 80 and 50 %, top and bottom of each: the widest is drawn first.
    """

    x: float
    ranges: tuple[tuple[float, float], ...]
    mean: float
    actual: float
    inside: bool
    text: str


@dataclass(frozen=True)
class FanChart:
    """Forecasts of one window by origin.

    Attributes
    ----------
    bars : tuple of FanBar
        One per origin, oldest first.
    bar_width : float
        Pixels.
    line : str
        The means, as the points of an SVG polyline.
    """

    frame: Frame
    bars: tuple[FanBar, ...]
    bar_width: float
    line: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    label: str


@dataclass(frozen=True)
class Histogram:
    """Counts in bins of equal width.

    Attributes
    ----------
    bars : tuple of (x, y, height, text)
    even : float
        Where each bar would end if all were equal.
    """

    frame: Frame
    bars: tuple[tuple[float, float, float, str], ...]
    bar_width: float
    even: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    label: str


@dataclass(frozen=True)
class ReliabilityDot:
    """One band of probabilities: said against happened, with the range of the latter."""

    x: float
    y: float
    band: tuple[float, float]
    text: str


@dataclass(frozen=True)
class ReliabilityChart:
    """Said against happened, both from 0 to 100 %."""

    frame: Frame
    dots: tuple[ReliabilityDot, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    label: str


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most `most` + 1 round values that cover [low, high].

    Examples
    --------
    >>> nice_ticks(0, 2_300_000)
    [0.0, 500000.0, 1000000.0, 1500000.0, 2000000.0, 2500000.0]
    """
    power = 10.0 ** math.floor(math.log10(max(high - low, 1e-9) / most))
    step = next(
        power * s
        for s in _STEPS
        if math.ceil(high / (power * s)) - math.floor(low / (power * s)) <= most
    )
    first, last = math.floor(low / step), math.ceil(high / step)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def fan_chart(issued: Sequence[Issued], currency: str = "") -> FanChart:
    """Place the forecasts of one method, group and window; at least one."""
    rows = sorted(issued, key=lambda i: i.origin)
    frame = Frame(940, 300, 64, 926, 16, 250)
    values = [v for i in rows for v in (i.quantiles["0.025"], i.quantiles["0.975"], i.actual)]
    grid = nice_ticks(min(0.0, *values), max(values) if max(values) > 0 else 1.0)
    days = [float((i.origin - rows[0].origin) / _DAY) for i in rows]
    gap = min((b - a for a, b in pairwise(days) if b > a), default=1.0)
    per_day = (frame.right - frame.left) / (days[-1] + gap)
    width = min(0.8 * gap * per_day, 38.0)

    def across(days_in: float) -> float:
        return round(frame.left + (days_in + gap / 2) * per_day, 1)

    def up(value: float) -> float:
        share = (value - grid[0]) / (grid[-1] - grid[0])
        return round(frame.bottom - share * (frame.bottom - frame.top), 1)

    bars = tuple(
        FanBar(
            across(d),
            tuple((up(i.quantiles[f"{(1 + v) / 2:g}"]), up(i.quantiles[f"{(1 - v) / 2:g}"]))
                  for v in sorted(LEVELS, reverse=True)),
            up(i.mean), up(i.actual), i.holds(0.8), _fan_text(i, currency),
        )
        for d, i in zip(days, rows, strict=True)
    )  # fmt: skip
    return FanChart(
        frame, bars, round(max(width, 2.0), 1),
        " ".join(f"{b.x},{b.mean}" for b in bars),
        tuple(Tick(bars[k].x, wording.day(rows[k].origin)) for k in _labelled([b.x for b in bars])),
        tuple(Tick(up(v), wording.compact(v)) for v in grid),
        f"Forecasts of {rows[0].window} by date of issue, with what was won: "
        f"{sum(b.inside for b in bars)} of {len(bars)} inside the 80 % range",
    )  # fmt: skip


def pit_chart(counts: Sequence[int], name: str) -> Histogram:
    """Place how many forecasts saw what happened in each part of their distribution."""
    frame = Frame(300, 178, 34, 284, 12, 142)
    total, n = sum(counts), len(counts)
    grid = nice_ticks(0.0, max(max(counts), 1), 4)
    grid = [g for g in grid if g == round(g)]
    width = (frame.right - frame.left) / n

    def up(value: float) -> float:
        return round(frame.bottom - value / grid[-1] * (frame.bottom - frame.top), 1)

    bars = tuple(
        (
            round(frame.left + k * width, 1), up(count), round(frame.bottom - up(count), 1),
            f"{count} of {total} forecasts saw what happened between {100 * k // n} and "
            f"{100 * (k + 1) // n} % of their distribution",
        )
        for k, count in enumerate(counts)
    )  # fmt: skip
    return Histogram(
        frame, bars, round(width, 1), up(total / n),
        tuple(Tick(round(frame.left + s * (frame.right - frame.left), 1), f"{100 * s:.0f}")
              for s in (0.0, 0.5, 1.0)),
        tuple(Tick(up(g), f"{g:.0f}") for g in grid),
        f"{name}: where in the forecast distribution what happened fell, {total} forecasts",
    )  # fmt: skip


def reliability_chart(
    bands: Sequence[Mapping[str, Any]], name: str = "", *, small: bool = False
) -> ReliabilityChart:
    """Place the bands of a reliability table (shares, 0-1); `small` to stand among others."""
    frame = Frame(236, 214, 50, 212, 10, 182) if small else Frame(430, 400, 60, 404, 12, 350)

    def across(share: float) -> float:
        return round(frame.left + share * (frame.right - frame.left), 1)

    def up(share: float) -> float:
        return round(frame.bottom - share * (frame.bottom - frame.top), 1)

    dots = tuple(
        ReliabilityDot(
            across(b["predicted"]), up(b["observed"]), (up(b["band_high"]), up(b["band_low"])),
            f"said {wording.percent(b['predicted'])}, happened {wording.percent(b['observed'])} "
            f"(90 % range {wording.percent(b['band_low'])} to {wording.percent(b['band_high'])}), "
            f"{wording.count(b['n'])} landmarks of {wording.count(b['records'])} records",
        )
        for b in bands
    )  # fmt: skip
    shares = (0.0, 0.5, 1.0) if small else (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    labels = [wording.percent(s, 2) for s in shares]
    return ReliabilityChart(
        frame, dots,
        tuple(Tick(across(s), t) for s, t in zip(shares, labels, strict=True)),
        tuple(Tick(up(s), t) for s, t in zip(shares, labels, strict=True)),
        f"{name + ': w' if name else 'W'}hat the model said against what happened, in {len(dots)} "
        "bands of probability",
    )  # fmt: skip


def _fan_text(i: Issued, currency: str) -> str:
    q, place = i.quantiles, "inside" if i.holds(0.8) else "outside"
    return (
        f"Issued {wording.day(i.origin)} for {i.period or i.window}: mean "
        f"{wording.money(i.mean, currency)}; 80 % range {wording.number(q['0.1'])} to "
        f"{wording.money(q['0.9'], currency)}; actually won {wording.money(i.actual, currency)}, "
        f"{place} the 80 % range"
    )


def _labelled(places: Sequence[float], apart: float = 118.0) -> list[int]:
    """Which of the places in pixels, ascending, carry a label without touching another."""
    chosen: list[int] = []
    for k, x in enumerate(places):
        if not chosen or x - places[chosen[-1]] >= apart:
            chosen.append(k)
    return chosen
