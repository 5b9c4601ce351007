"""Where benchmarks publish: one section of `docs/benchmarks.md` and rows of `docs/benchmarks.json`.

Every script measures, then calls `publish` once. Its section and its rows replace those of its
last run, so that scripts can be run one by one; all are kept in the order of their names.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

__all__ = ["Row", "publish", "table"]

_DOCS = Path(__file__).parents[1] / "docs"
_LIBRARIES = ("numpy", "scikit-learn", "lightgbm")
_TITLE = """# Benchmarks

`make benchmarks` writes this page, and `benchmarks.json` beside it with one row a figure.
Everything is judged on later time than it was learnt from. Times are ratios in one run, two cores.
"""


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes
    ----------
    name : str
        Data set, question and arm: "BPIC 2012 outcome, accepted: served".
    metric : str
        "log loss", "Brier", "case-weighted AUC", with its unit where it has one.
    value : float
    reference : float or None
        The figure to beat, where there is one.
    source : str
        Where the reference comes from: a paper, the prototype, an arm of the same run.
    n : int
        What the figure rests on: rows, cases, periods.
    interval : (float, float) or None
        95 % interval of the value, or of what `metric` says.
    """

    name: str
    metric: str
    value: float
    reference: float | None = None
    source: str = ""
    n: int = 0
    interval: tuple[float, float] | None = None


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table; floats with four digits, None empty."""
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    return lines + ["| " + " | ".join(_cell(c) for c in row) + " |" for row in rows]


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def publish(
    script: str, title: str, lines: Sequence[str], rows: Sequence[Row], *, seed: int = 0
) -> None:
    """Print a section, and write it to the docs unless `--dry-run` is given.

    Parameters
    ----------
    script : str
        Path of the script, `__file__`.
    title : str
        Heading of the section.
    lines : sequence of str
        Markdown, without the heading.
    """
    name = Path(script).stem
    libraries = ", ".join(f"{n} {version(n)}" for n in _LIBRARIES)
    today = dt.datetime.now(dt.UTC).date().isoformat()
    stamp = f"`benchmarks/{name}.py`, {today}, {libraries}; seed {seed}."
    section = "\n".join([f"## {title}", "", stamp, "", *lines]).strip() + "\n"
    print(section)
    if _arguments().dry_run:
        return
    page, figures = _DOCS / "benchmarks.md", _DOCS / "benchmarks.json"
    found = dict(_sections(page.read_text(encoding="utf-8"))) if page.exists() else {}
    found[name] = section
    body = "\n".join(f"<!-- {key} -->\n{found[key]}" for key in sorted(found))
    page.write_text(f"{_TITLE}\n{body}", encoding="utf-8")
    kept = json.loads(figures.read_text(encoding="utf-8")) if figures.exists() else []
    mine = [{"benchmark": name, "date": today, "seed": seed, **asdict(row)} for row in rows]
    every = [row for row in kept if row["benchmark"] != name] + mine
    every.sort(key=lambda row: row["benchmark"])
    figures.write_text(json.dumps(every, indent=1) + "\n", encoding="utf-8")


def _sections(page: str) -> list[tuple[str, str]]:
    parts = re.split(r"^<!-- (\w+) -->\n", page, flags=re.MULTILINE)[1:]
    return [(key, text.strip() + "\n") for key, text in zip(parts[::2], parts[1::2], strict=True)]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure, print, and publish under docs/.")
    parser.add_argument("--dry-run", action="store_true", help="print only; change no file")
    return parser.parse_args()
