"""What the page on a back-test shows: figures chosen, ordered and told in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scoring.grouping import WHOLE
from training import wording
from training.backtest import EACH, METHODS, selected
from training.charts import FanChart, Histogram, fan_chart, pit_chart
from training.comparison import compare
from training.replayed import LEVELS, SERVED, Issued
from training.rivals import NEEDS

__all__ = ["Block", "Forecasts", "Held", "forecasts_view", "title_of"]

_MOST_GROUPS = 40
_TOGETHER = "All windows together"


@dataclass(frozen=True)
class Held:
    """A range's stated level beside the measured one, with what that says in words."""

    level: float
    share: float
    n: int
    low: float
    high: float

    @property
    def hits(self) -> int:
        """How many of the n ranges held."""
        return round(self.share * self.n)

    @property
    def words(self) -> str:
        """Whether the measured share speaks against the stated one."""
        if self.high < self.level:
            return "too narrow"
        return "too wide" if self.low > self.level else "agrees"


@dataclass(frozen=True)
class Block:
    """The methods in one window (all of them: `window` None), best first."""

    title: str
    window: str | None
    mean_actual: float
    n: int
    blocks: float
    rows: list[dict[str, Any]]

    @property
    def served(self) -> dict[str, Any] | None:
        """The row of the forecast itself."""
        return next((r for r in self.rows if r["method"] == SERVED), None)


@dataclass(frozen=True)
class Forecasts:
    """What a back-test shows: tables, charts and sentences.

    Attributes
    ----------
    charts : list of (str, FanChart)
        With what they show in words.
    offs : list of (str, dict, float)
        Bias by window: title, row, and the largest bias or bound of any, for the scale.
    absent : dict of str to str
        Methods that never spoke, and what they would have needed.
    """

    currency: str
    first: str
    last: str
    origins: int
    blocks: list[Block]
    charts: list[tuple[str, FanChart]]
    histograms: list[tuple[str, Histogram]]
    offs: list[tuple[str, dict[str, Any], float]]
    new_business: list[tuple[str, float]]
    groups: list[dict[str, Any]]
    headline: str
    short: list[str]
    methods: dict[str, str]
    absent: dict[str, str]


def forecasts_view(issued: Sequence[Issued], currency: str) -> Forecasts | None:
    """Choose and order what is shown; None where no forecast of the whole was issued."""
    whole = selected(issued)
    if not whole:
        return None
    blocks = _blocks(compare(whole))
    each = blocks[:-1] if len(blocks) > 2 else blocks[:1]
    blocks = blocks if len(blocks) > 2 else each
    served = [i for i in whole if i.method == SERVED]
    parts = [(b, [i for i in served if i.window == b.window]) for b in each]
    parts = [(block, part) for block, part in parts if part]
    origins = sorted({i.origin for i in whole})
    there = {i.method for i in issued}
    return Forecasts(
        currency, wording.day(origins[0]), wording.day(origins[-1]), len(origins), blocks,
        [(_fan_words(b), fan_chart(part, currency)) for b, part in parts],
        [(b.title, pit_chart(b.served["pit"], b.title)) for b, _ in parts if b.served],
        _offs(blocks),
        [(b.title, new) for b, part in parts if (new := _new_share(part)) is not None],
        _groups(issued),
        _headline(blocks[-1]),
        _in_short(blocks),
        {m: text for m, text in METHODS.items() if m in there},
        {m: NEEDS[m] for m in METHODS if m not in there and m in NEEDS},
    )  # fmt: skip


def title_of(window: str | None) -> str:
    """A window as a heading."""
    if window is None:
        return _TOGETHER
    return (
        f"Next {window}" if window[0].isdigit() and "ahead" not in window else window.capitalize()
    )


def _blocks(table: Sequence[Mapping[str, Any]]) -> list[Block]:
    found = []
    for window in dict.fromkeys(r["window"] for r in table):
        rows = [_shown(r) for r in table if r["window"] == window]
        # On the forecasts that each made itself: a method that was not always there is not
        # ranked by easier ones.
        rows.sort(key=lambda r: -(r["against"]["value"] if r["against"] else 0.0))
        most = max(rows, key=lambda r: int(r["n"]))
        found.append(
            Block(title_of(window), window, most["mean_actual"], most["n"], most["blocks"], rows)
        )
    return sorted(found, key=lambda b: b.window is None)


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `compare` with its coverage in words; shares of nothing won are left out."""
    held = None
    if row["coverage"] is not None:
        held = [
            Held(
                v, row["coverage"][f"{v:g}"], row["ranged"], **row["interval"]["coverage"][f"{v:g}"]
            )
            for v in LEVELS
        ]
    gone = {} if row["mean_actual"] else {"crps": np.nan, "bias": np.nan, "wape": np.nan}
    return {**row, **gone, "held": held, "against": _against(row)}


def _against(row: Mapping[str, Any]) -> dict[str, Any] | None:
    found = row["against"]
    if found is None or not np.isfinite(found["value"]):
        return None
    words = "no difference shown" if np.isfinite(found["low"]) else "too few dates"
    if found["high"] < 0:
        words = "smaller"
    elif found["low"] > 0:
        words = "larger"
    return {**found, "words": words}


def _offs(blocks: Sequence[Block]) -> list[tuple[str, dict[str, Any], float]]:
    rows = [(b.title, b.served) for b in blocks if b.served is not None and b.mean_actual]
    ends = [
        abs(v)
        for _, row in rows
        for v in (row["bias"], *row["interval"]["bias"].values())
        if np.isfinite(v)
    ]
    return [(title, row, max(ends, default=0.0) or 1.0) for title, row in rows]


def _new_share(part: Sequence[Issued]) -> float | None:
    """Share of the forecast from deals created later, where the parts are known."""
    new = sum(i.components.get("new", 0.0) for i in part)
    total = sum(sum(i.components.values()) for i in part)
    return new / total if total > 0 else None


def _groups(issued: Sequence[Issued]) -> list[dict[str, Any]]:
    """The served forecast by group over all windows, the largest first; all groups pooled on top.

    Each beside the best of the other methods for the same group.
    """
    won: dict[str, float] = {}
    for i in issued:
        if i.method == SERVED and i.group != WHOLE:
            won[i.group] = won.get(i.group, 0.0) + i.actual
    largest = sorted(won, key=lambda g: -won[g])[:_MOST_GROUPS]
    rows = []
    for group in ([EACH] if len(largest) > 1 else []) + largest:
        shown = [_shown(r) for r in compare(issued, group, together=True)]
        ours = next(r for r in shown if r["method"] == SERVED)
        others = [r for r in shown if r["against"] is not None]
        best = max(others, key=lambda r: float(r["against"]["value"]), default=None)
        rows.append({**ours, "group": group, "best": best, "of": len(won)})
    return rows


def _fan_words(block: Block) -> str:
    """What a fan chart shows, in words."""
    row = block.served
    if row is None:
        return block.title
    held: Held = row["held"][1]
    text = f"{block.title}: {held.hits} of {held.n} inside the 80\u00a0% range"
    return text + (f", on average {_bias_words(row['bias'])}" if block.mean_actual else "")


def _headline(total: Block) -> str:
    """What the back-test found, as a title."""
    ours = total.served
    if ours is None or not total.mean_actual:
        return "Nothing to judge the forecast by"
    others = [r for r in total.rows if r["against"] is not None]
    said = f"The forecast misses by {wording.percent(ours['crps'], 2)} of what is won"
    if others:
        best = others[0]
        change = _change_words(best["against"]["value"]).replace("smaller", "less")
        change = change.replace("larger", "more").replace("as large", "as much")
        tail = "than" if change != "as much" else "as"
        said += f", {change} {tail} the best plain method"
    held: Held = ours["held"][1]
    return f"{said}; its 80\u00a0% ranges held {wording.percent(held.share, 2)}"


def _in_short(blocks: Sequence[Block]) -> list[str]:
    """The back-test in sentences; `blocks` end with all windows together."""
    total = blocks[-1]
    ours = total.served
    if ours is None or not total.mean_actual:
        return []
    each = [b for b in blocks if b.window is not None] or [total]
    first = sum(b.rows[0]["method"] == SERVED for b in each)
    said = [
        f"The error (CRPS) of {SERVED} is {wording.percent(ours['crps'])} of the mean amount won; "
        f"it is the smallest of all methods in {first} of {len(each)} windows."
        if len(total.rows) > 1
        else f"The error (CRPS) of {SERVED} is {wording.percent(ours['crps'])} of the mean amount "
        "won."
    ]
    others = [r for r in total.rows if r["against"] is not None]
    if others:
        best = others[0]
        said.append(
            f"Beside {best['method']}, the best of the others, its error is "
            f"{_change_words(best['against']['value'])} ({_between(best['against'])})."
        )
    held: Held = ours["held"][1]
    said.append(
        f"What was won lay inside the 80\u00a0% range in {held.hits} of {held.n} forecasts "
        f"({wording.percent(held.share, 2)}); they overlap, and are worth about "
        f"{wording.number(total.blocks, 2)} stretches of time that do not."
    )
    said.append(f"It forecast {_bias_words(ours['bias'])} on average.")
    return said


def _change(share: float) -> str:
    return wording.percent(share, 2, sign=True)


def _between(found: Mapping[str, float]) -> str:
    if not np.isfinite(found["low"]):
        return "of too few dates for an interval"
    return f"95\u00a0% interval {_change(found['low'])} to {_change(found['high'])}"


def _change_words(share: float) -> str:
    if abs(share) < 0.0005:
        return "as large"
    return f"{wording.percent(abs(share), 2)} {'smaller' if share < 0 else 'larger'}"


def _bias_words(bias: float) -> str:
    if abs(bias) < 0.0005:
        return "exactly what was won"
    return f"{wording.percent(abs(bias), 2)} {'more' if bias > 0 else 'less'} than was won"
