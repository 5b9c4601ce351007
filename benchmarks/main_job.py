"""The main job, measured: deal model and forecast beside their baselines.

On the synthetic CRM always, and on BPIC 2012 and Maven where DEALCAST_DATASETS names the folder
that has them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from _public import datasets, read_public
from _published import Row, publish

from data.history import History
from data.pipeline import FiscalCalendar
from data.synthetic import make_history
from training.backtest import Issued, backtest, summary
from training.evaluation import Evaluation
from training.fitting import Recipe
from training.run import train_deals

RECIPE = Recipe(FiscalCalendar(), seed=0)


@dataclass(frozen=True)
class World:
    """One history, when to train, and from where to replay the forecast."""

    name: str
    history: History
    train_at: np.datetime64
    origins: list[np.datetime64]
    horizons: list[float]


def worlds() -> list[World]:
    """The histories that can be had here."""
    end = np.datetime64("2026-02-16", "us")
    crm = make_history(4_000, seed=1, end=end)
    found = [
        World(
            "synthetic CRM (4,000 deals, 730 days, seed 1)",
            History(crm.tables, [crm.facts]),
            end,
            [end - np.timedelta64(91 + 14 * i, "D") for i in range(10)],
            [7.0, 28.0, 91.0],
        )
    ]
    folder = datasets()
    if folder is None:
        return found
    first = np.datetime64("2011-12-05", "us")
    found.append(
        World(
            "BPIC 2012",
            read_public("bpic2012", folder),
            np.datetime64("2012-01-15", "us"),
            [first + np.timedelta64(d, "D") for d in range(71) if d % 7 in (0, 3)],
            [7.0, 14.0, 28.0],
        )
    )
    months = FiscalCalendar().periods_between(
        "month", np.datetime64("2017-07-01", "us"), np.datetime64("2017-11-01", "us")
    )
    found.append(
        World(
            "Maven CRM",
            read_public("maven_crm", folder),
            np.datetime64("2017-12-31", "us"),
            [m.start for m in months],
            [30.0, 91.0],
        )
    )
    return found


def model_table(evaluation: Evaluation) -> list[str]:
    """The deal model beside its baselines."""
    lines = [
        f"{evaluation.what}; landmarks {evaluation.start[:10]} to {evaluation.stop[:10]}, "
        f"n = {evaluation.n:,} of {evaluation.records:,} deals, base rate "
        f"{evaluation.base_rate:.3f}; standard errors clustered by deal.",
        "",
        "| arm | log loss | Brier | AUC | mean p | calibration slope | intercept |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for arm in evaluation.arms:
        line = arm["calibration"]
        shown = [
            "" if line[k] is None else f"{line[k]:.2f} ± {line[k + '_error']:.2f}"
            for k in ("slope", "intercept")
        ]
        lines.append(
            f"| {arm['name']} | {arm['log_loss']:.4f} | {arm['brier']:.4f} | {arm['auc']:.3f} | "
            f"{arm['mean_probability']:.3f} | {shown[0]} | {shown[1]} |"
        )
    levels = ", ".join(
        f"{row['days']:g} d {row['count']:.2f} / {row['value']:.2f}"
        for row in evaluation.levels
        if row["value"] is not None
    )
    return [*lines, "", f"Predicted / actual wins and value by lead time: {levels}."]


def forecast_table(issued: Sequence[Issued], origins: int) -> list[str]:
    """The forecast beside the naive methods."""
    lines = [
        f"{origins} origins, refitted weekly; CRPS as a share of the mean actual.",
        "",
        "| method | horizon, days | n | CRPS | bias | 80 % range holds | width / mean |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in summary(issued):
        horizon = "all" if row["horizon"] is None else f"{row['horizon']:g}"
        lines.append(
            f"| {row['method']} | {horizon} | {row['n']} | {row['crps']:.3f} | "
            f"{row['bias']:+.3f} | "
            + (f"{row['coverage']['0.8']:.2f} | {row['width']:.2f} |" if row["ranged"] else "| |")
        )
    return lines


def model_rows(world: World, evaluation: Evaluation) -> list[Row]:
    """The deal model's figures beside those of the better baseline."""
    served, *others = evaluation.arms
    return [
        Row(
            f"{world.name}: {evaluation.what}", metric, served[key], min(a[key] for a in others),
            "the better of the table and the stage rate, same run", evaluation.n,
        )
        for metric, key in (("log loss", "log_loss"), ("Brier", "brier"))
    ]  # fmt: skip


def forecast_rows(world: World, issued: Sequence[Issued]) -> list[Row]:
    """The forecast's CRPS over all horizons beside that of the best naive method."""
    every = {r["method"]: r for r in summary(issued) if r["horizon"] is None}
    ours = every.pop("dealcast")
    return [
        Row(
            f"{world.name}: forecast, all horizons", "CRPS / mean actual", ours["crps"],
            min(r["crps"] for r in every.values()), "the best naive method, same run", ours["n"],
        )
    ]  # fmt: skip


def main() -> None:
    """Measure every world."""
    lines: list[str] = []
    rows: list[Row] = []
    for world in worlds():
        print(f"{world.name} ...", file=sys.stderr)
        lines += [f"### {world.name}", ""]
        run = train_deals(world.history, world.train_at, RECIPE)
        if run.evaluation is not None:
            lines += [*model_table(run.evaluation), ""]
            rows += model_rows(world, run.evaluation)
        issued = backtest(world.history, world.origins, world.horizons, RECIPE, jobs=2)
        lines += [*forecast_table(issued, len(world.origins)), ""]
        rows += forecast_rows(world, issued)
    publish(__file__, "The main job", lines, rows, seed=RECIPE.seed)


if __name__ == "__main__":
    main()
