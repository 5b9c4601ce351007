"""The forecast on BPIC 2012 beside all plain methods, and what each of its parts adds.

21 origins, Mondays and Thursdays from 2011-12-05 to 2012-02-13, refitted each Monday, 7, 14 and
28 days ahead. Neighbouring origins share most of what happens after them: about ten, five and
three of them are independent, and intervals draw them in blocks of one horizon.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from _public import datasets, read_public
from _published import Row, publish, table
from joblib import Parallel, delayed

from data.history import History
from data.pipeline import FiscalCalendar, Period
from models.amount import AmountModel
from models.shocks import ShockModel
from scoring.bundles import DealBundle
from scoring.forecast import simulate
from scoring.grouping import WHOLE
from training.backtest import EACH, backtest
from training.comparison import compare
from training.fitting import Recipe, fit_deals
from training.replayed import SERVED, Issued

RECIPE = Recipe(FiscalCalendar(), seed=0)
FIRST = np.datetime64("2011-12-05", "us")
ORIGINS = [FIRST + np.timedelta64(d, "D") for d in range(71) if d % 7 in (0, 3)]
HORIZONS = [7.0, 14.0, 28.0]
GROUPS = ("owner",)
DRAWS = 4_000
BAR, COVERED, WIDTH = 0.064, (0.70, 0.90), 0.35


def _without(bundle: DealBundle, part: str) -> DealBundle:
    """The bundle without one of its parts."""
    nothing = np.zeros(0)
    usual = ShockModel.fit(nothing, nothing)
    if part == "changes of amounts":
        flat = AmountModel((), np.zeros((1, 101)), bundle.amount.log_final, bundle.amount.won)
        return replace(bundle, amount=flat)
    if part == "shared shocks":
        even = replace(bundle.arrivals, spread=0.0, weeks=1e9)
        return replace(bundle, shocks=ShockModel.known(0.0, 0.0), arrivals=even)
    if part == "learnt sizes of shocks":
        return replace(bundle, shocks=usual)
    if part == "the level of late":
        # Of a model that is old, only the sizes are left.
        aged = replace(bundle.manifest, trained_through="1990-01-01T00:00:00Z")
        return replace(bundle, manifest=aged)
    return bundle


PARTS = (
    "nothing", "new business", "changes of amounts", "shared shocks", "learnt sizes of shocks",
    "the level of late",
)  # fmt: skip


def ablation(history: History) -> list[Issued]:
    """The forecast without each of its parts, on the same origins."""
    weeks = [ORIGINS[i : i + 2] for i in range(0, len(ORIGINS), 2)]
    done = Parallel(n_jobs=2)(delayed(_week)(history, origins) for origins in weeks)
    return [issued for part in done for issued in part]


def _week(history: History, origins: Sequence[np.datetime64]) -> list[Issued]:
    issued = []
    like: DealBundle | None = None
    for origin in origins:
        like = fit_deals(history, int(origin.astype(np.int64)), RECIPE, like=like)
        ends = [origin + np.timedelta64(int(h), "D") for h in HORIZONS]
        periods = [Period(a, b, "") for a, b in pairwise([origin, *ends])]
        for part in PARTS:
            drawn = simulate(history, _without(like, part), origin, periods, draws=DRAWS)
            values = drawn.open.value if part == "new business" else drawn.total
            sums = np.cumsum(values[:, 0], axis=1)
            for j, (days, end) in enumerate(zip(HORIZONS, ends, strict=True)):
                issued.append(
                    Issued.of(
                        sums[:, j], float(history.won_between(origin, end)[1].sum()), {},
                        origin=origin, horizon=days, group=WHOLE, window=f"{days:g} days",
                        method=SERVED if part == "nothing" else f"without {part}",
                    )
                )  # fmt: skip
    return issued


def lines_of(found: Sequence[dict[str, Any]], windows: Callable[[Any], bool]) -> list[str]:
    """Methods by window, as a table."""
    rows = []
    for r in found:
        if not windows(r["window"]):
            continue
        held, against = r["coverage"], r["against"]
        rows.append(
            [
                r["method"], r["window"] or "all", r["n"],
                f"{r['crps']:.4f} ({_between(r['interval']['crps'])})",
                "" if against is None else f"{against['value']:+.1%} ({_between(against)})",
                f"{r['bias']:+.3f} ({_between(r['interval']['bias'])})",
                "" if held is None else
                f"{held['0.8']:.2f} ({_between(r['interval']['coverage']['0.8'])})",
                "" if held is None else f"{r['width']:.2f}",
            ]
        )  # fmt: skip
    head = ["method", "window", "n", "CRPS / mean won", "served CRPS above it", "bias",
            "80 % range holds", "width / mean"]  # fmt: skip
    return table(head, rows)


def _between(bounds: dict[str, float]) -> str:
    low, high = bounds["low"], bounds["high"]
    return "" if np.isnan(low) else f"{low:+.3f} to {high:+.3f}"


def rows_of(found: Sequence[dict[str, Any]]) -> list[Row]:
    """The bars, and the served forecast against each method."""
    every = {r["method"]: r for r in found if r["window"] is None}
    served = every.pop(SERVED)
    held, n = served["interval"]["coverage"]["0.8"], served["n"]
    crps = served["interval"]["crps"]
    rows = [
        Row("BPIC 2012: forecast, 7, 14 and 28 days", "CRPS / mean won", served["crps"], BAR,
            "bar", n, (crps["low"], crps["high"])),
        Row("BPIC 2012: forecast, 7, 14 and 28 days", "80 % ranges hold", served["coverage"]["0.8"],
            0.8, f"nominal; {COVERED[0]} to {COVERED[1]} is what they can show", n,
            (held["low"], held["high"])),
        Row("BPIC 2012: forecast, 7, 14 and 28 days", "width of 80 % ranges / mean",
            served["width"], WIDTH, "bar", n),
    ]  # fmt: skip
    for name, r in every.items():
        against = r["against"]
        rows.append(
            Row(
                f"BPIC 2012: forecast beside {name}", "CRPS over the method's, less 1",
                against["value"], 0.0, "the method on the same forecasts", against["n"],
                None if np.isnan(against["low"]) else (against["low"], against["high"]),
            )
        )  # fmt: skip
    return rows


def main() -> None:
    """Replay the whole and the groups, then without each part."""
    folder = datasets()
    if folder is None:
        return
    history = read_public("bpic2012", folder)
    lines: list[str] = []
    rows: list[Row] = []
    for by in GROUPS:
        print(f"by {by} ...", file=sys.stderr)
        issued = backtest(history, ORIGINS, HORIZONS, RECIPE, by=by, jobs=2)
        if not rows:
            found = compare(issued)
            lines += ["### The whole", "", *lines_of(found, lambda _: True), ""]
            rows += rows_of(found)
        found = compare(issued, EACH, together=True)
        lines += [f"### Each {by}, pooled", "", *lines_of(found, lambda w: w is None), ""]
    print("without each part ...", file=sys.stderr)
    found = compare(ablation(history))
    lines += ["### Without each part", "", *lines_of(found, lambda _: True)]
    publish(__file__, "The forecast on BPIC 2012", lines, rows, seed=RECIPE.seed)


if __name__ == "__main__":
    main()
