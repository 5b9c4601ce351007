"""The forecast of calendar periods beside all plain methods: Maven, whose quarters end with a rush.

Weekly origins; at each the running period, with what was won in it to date, and the next one. Ten
months are on record, so the quarters carry one or two independent stretches of time and no
interval; the months five.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from _public import datasets, read_public
from _published import Row, publish, table

from data.pipeline import FiscalCalendar, PeriodKind
from training.backtest import backtest
from training.comparison import compare
from training.fitting import Recipe
from training.replayed import SERVED

RECIPE = Recipe(FiscalCalendar(), seed=0)
# From the first origins that know a whole quarter to the last whose next period is over.
ORIGINS: dict[PeriodKind, tuple[str, str]] = {
    "month": ("2017-06-05", "2017-11-27"),
    "quarter": ("2017-06-05", "2017-09-25"),
}
HEAD = ("method", "window", "n", "CRPS / mean won", "95 % interval", "served CRPS beside it",
        "95 % interval", "bias", "WAPE", "80 % range holds", "interval")  # fmt: skip


def lines_of(found: list[dict[str, Any]]) -> list[str]:
    """All methods and windows, as a table."""
    rows = []
    for r in found:
        against, held = r["against"], r["coverage"]
        rows.append(
            [
                r["method"], r["window"] or "all", r["n"], f"{r['crps']:.3f}",
                _between(r["interval"]["crps"]),
                "" if against is None else f"{against['value']:+.0%}",
                "" if against is None else _between(against),
                f"{r['bias']:+.3f}", f"{r['wape']:.3f}",
                "" if held is None else f"{held['0.8']:.2f}",
                "" if held is None else _between(r["interval"]["coverage"]["0.8"]),
            ]
        )  # fmt: skip
    return table(HEAD, rows)


def _between(bounds: dict[str, float]) -> str:
    low, high = bounds["low"], bounds["high"]
    return "" if np.isnan(low) else f"{low:.3f} to {high:.3f}"


def rows_of(kind: str, found: list[dict[str, Any]]) -> list[Row]:
    """The served forecast against each method, on the forecasts that both made."""
    rows = []
    for r in found:
        against = r["against"]
        if r["window"] is not None or against is None:
            continue
        known = not np.isnan(against["low"])
        rows.append(
            Row(
                f"Maven CRM by {kind}: {SERVED} beside {r['method']}",
                "CRPS of the forecast over the method's, less 1", against["value"], 0.0,
                "the method on the same forecasts", against["n"],
                (against["low"], against["high"]) if known else None,
            )
        )  # fmt: skip
    return rows


def main() -> None:
    """Replay by month and by quarter."""
    folder = datasets()
    if folder is None:
        return
    history = read_public("maven_crm", folder)
    lines: list[str] = []
    rows: list[Row] = []
    for kind, (first, last) in ORIGINS.items():
        start, stop = np.datetime64(first, "us"), np.datetime64(last, "us")
        weeks = int((stop - start) / np.timedelta64(7, "D")) + 1
        origins = [start + np.timedelta64(7 * i, "D") for i in range(weeks)]
        print(f"by {kind}, {weeks} origins ...", file=sys.stderr)
        found = compare(backtest(history, origins, [], RECIPE, period=kind, jobs=2))
        lines += [f"### By {kind}, {weeks} weekly origins from {first} to {last}", ""]
        lines += [*lines_of(found), ""]
        rows += rows_of(kind, found)
    publish(__file__, "Calendar periods", lines, rows, seed=RECIPE.seed)


if __name__ == "__main__":
    main()
