"""What the command line prints: tables for people, JSON for programs, bars for long work."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

__all__ = ["bar", "error", "lines", "money", "note", "share", "table", "to_json"]

_LEAST_WIDTH = 120  # a number is never cut: a narrow window wraps the line instead

_out = Console(highlight=False)
_out.width = max(_out.width, _LEAST_WIDTH)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


def to_json(value: Any) -> None:
    """Print one JSON document."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    texts: Collection[str] = (),
) -> None:
    """Print a table; numbers come formatted. The first column and `texts` begin at the left."""
    cells = [
        ["" if v is None else f"{v:,}" if isinstance(v, int) else str(v) for v in row]
        for row in rows
    ]
    # A column that says nothing in any row is left out.
    used = [i for i in range(len(columns)) if i == 0 or any(row[i] for row in cells)]
    if title:
        _out.print(title, style="bold", markup=False, soft_wrap=True)
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for i in used:
        left = i == 0 or columns[i] in texts
        shown.add_column(columns[i], justify="left" if left else "right")
    for cell in cells:
        shown.add_row(*(cell[i] for i in used))
    _out.print(shown)
    _out.print()


def note(text: str) -> None:
    """Tell what is going on, apart from the answer."""
    _err.print(text, markup=False)


def error(text: str) -> None:
    """Say what went wrong."""
    _err.print(f"error: {text}", style="red", markup=False)


def lines(texts: Iterable[str]) -> None:
    """Print lines as they are."""
    for text in texts:
        _out.print(text, markup=False, soft_wrap=True)


def bar(steps: Iterator[Any], total: int, what: str) -> Iterator[Any]:
    """The same steps, with a progress bar where a person watches."""
    return iter(tqdm(steps, total=total, desc=what, disable=not sys.stderr.isatty()))


def money(value: float | None) -> str:
    """Whole units of a currency, with separators."""
    return "" if value is None else f"{value:,.0f}"


def share(value: float | None) -> str:
    """A probability or rate in per cent."""
    return "" if value is None else f"{100 * value:.0f} %"
