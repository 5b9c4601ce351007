"""What the command line prints: tables for people, JSON for programs, bars for long work."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

__all__ = ["bar", "error", "lines", "money", "note", "share", "table", "to_json"]

_out = Console(highlight=False)
_err = Console(stderr=True, highlight=False)


def to_json(value: Any) -> None:
    """Print one JSON document."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; numbers come formatted."""
    shown = Table(title=title or None, title_justify="left", title_style="bold")
    for i, name in enumerate(columns):
        shown.add_column(name, justify="left" if i == 0 else "right")
    for row in rows:
        shown.add_row(*("" if v is None else str(v) for v in row))
    _out.print(shown)


def note(text: str) -> None:
    """Tell what is going on, apart from the answer."""
    _err.print(text, markup=False)


def error(text: str) -> None:
    """Say what went wrong."""
    _err.print(f"error: {text}", style="red", markup=False)


def lines(texts: Iterable[str]) -> None:
    """Print lines as they are."""
    for text in texts:
        _out.print(text, markup=False)


def bar(steps: Iterator[Any], total: int, what: str) -> Iterator[Any]:
    """The same steps, with a progress bar where a person watches."""
    return iter(tqdm(steps, total=total, desc=what, disable=not sys.stderr.isatty()))


def money(value: float | None) -> str:
    """Whole units of a currency, with separators."""
    return "" if value is None else f"{value:,.0f}"


def share(value: float | None) -> str:
    """A probability or rate in per cent."""
    return "" if value is None else f"{100 * value:.0f} %"
