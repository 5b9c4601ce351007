"""The forecast on synthetic companies, beside an oracle that knows how they work.

Each world is a company of its own, its hazards known; every forecast is made by a model of its
date, and held against what came. What the engine leaves on the table is the distance to the
oracle's CRPS; whether its ranges hold what they say is measured beside the oracle's own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from _oracle import Population, oracle_draws
from _published import Row, publish, table
from joblib import Parallel, delayed

from data.history import History
from data.pipeline import FiscalCalendar, Period
from data.synthetic import World, make_history
from models.measures import crps_sample
from models.shocks import ShockModel
from scoring.forecast import simulate
from training.fitting import Recipe, fit_deals

FloatArray = npt.NDArray[np.float64]

SEED, WORLDS = 2_000, 48
DEALS, DAYS = 20_000, 234 * 7
END = np.datetime64("2026-02-16", "us")
ORIGINS = (91, 126, 161)  # days before the end
WEEKS, HORIZONS = 13, (4, 13)
DRAWS = 2_000
RECIPE = Recipe(FiscalCalendar(), landmarks=12_000, seed=0)
ARMS = ("oracle", "dealcast", "independent", "past mean")
_PAST_WINDOWS = 8


@dataclass(frozen=True)
class Told:
    """One forecast: how far off, and whether its 80 % range held."""

    seed: int
    weeks: int
    arm: str
    mean: float
    crps: float
    held: bool
    actual: float


def measured(seed: int, deals: int, days: int, origins: Sequence[int]) -> list[Told]:
    """All forecasts of one world."""
    population = Population.of(World(), END, days, seed)
    crm = make_history(deals, seed, end=END, days=days)
    history = History(crm.tables, [crm.facts])
    told = []
    for back in sorted(origins, reverse=True):
        at = END - np.timedelta64(back, "D")
        fitted = fit_deals(history, int(at.astype(np.int64)), RECIPE)
        ends = at + 7 * np.arange(WEEKS + 1) * np.timedelta64(1, "D")
        periods = [Period(a, b, "") for a, b in pairwise(ends)]
        calm = replace(
            fitted, shocks=ShockModel.known(0.0, 0.0),
            arrivals=replace(fitted.arrivals, spread=0.0, weeks=1e9),
        )  # fmt: skip
        draws = {
            "oracle": oracle_draws(crm, history, population, at, WEEKS, DRAWS, seed, deals),
            **{
                arm: simulate(history, b, at, periods, draws=DRAWS, seed=seed).total[:, 0]
                for arm, b in (("dealcast", fitted), ("independent", calm))
            },
        }
        for weeks in HORIZONS:
            span = np.timedelta64(7 * weeks, "D")
            actual = float(history.won_between(at, at + span)[1].sum())
            past = [
                history.won_between(at - span - k * span / 2, at - k * span / 2, as_of=at)[1].sum()
                for k in range(_PAST_WINDOWS)
            ]
            sums = {arm: np.asarray(d[:, :weeks].sum(1)) for arm, d in draws.items()}
            sums["past mean"] = np.random.default_rng(seed).normal(
                np.mean(past), np.std(past, ddof=1), DRAWS
            )
            told += [_told(seed, weeks, arm, values, actual) for arm, values in sums.items()]
    return told


def _told(seed: int, weeks: int, arm: str, values: FloatArray, actual: float) -> Told:
    low, high = np.quantile(values, [0.1, 0.9])
    crps = float(crps_sample(values, actual))
    return Told(seed, weeks, arm, float(values.mean()), crps, bool(low <= actual <= high), actual)


def interval(values: FloatArray) -> tuple[float, float]:
    """95 % interval of a mean over worlds, drawn anew."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (4_000, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def by_world(told: Sequence[Told], arm: str, what: str, weeks: int | None = None) -> FloatArray:
    """Mean of a field over the forecasts of each world, in order of seed."""
    seeds = sorted({t.seed for t in told})
    mine = [t for t in told if t.arm == arm and weeks in (None, t.weeks)]
    return np.array([np.mean([getattr(t, what) for t in mine if t.seed == s]) for s in seeds])


def gap(told: Sequence[Told], arm: str, weeks: int) -> tuple[float, float, float]:
    """CRPS above the oracle's, as a share of it, with its 95 % interval over worlds."""
    ours, oracle = (by_world(told, a, "crps", weeks) for a in (arm, "oracle"))
    rng = np.random.default_rng(0)
    some = rng.integers(0, len(ours), (4_000, len(ours)))
    ratios = ours[some].mean(1) / oracle[some].mean(1) - 1.0
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(ours.mean() / oracle.mean() - 1.0), float(low), float(high)


def report(told: Sequence[Told]) -> tuple[list[str], list[Row]]:
    """The table, and its rows."""
    worlds = len({t.seed for t in told})
    cells, rows = [], []
    for weeks in HORIZONS:
        scale = np.mean([t.actual for t in told if t.weeks == weeks and t.arm == "oracle"])
        for arm in ARMS:
            held = by_world(told, arm, "held", weeks)
            off = by_world(told, arm, "mean", weeks) - by_world(told, arm, "actual", weeks)
            bias = off / scale
            above = gap(told, arm, weeks)
            cells.append(
                [
                    weeks, arm, by_world(told, arm, "crps", weeks).mean() / scale,
                    f"{above[0]:+.1%} ({above[1]:+.1%} to {above[2]:+.1%})",
                    f"{bias.mean():+.3f} ({interval(bias)[0]:+.3f} to {interval(bias)[1]:+.3f})",
                    f"{held.mean():.3f} ({interval(held)[0]:.3f} to {interval(held)[1]:.3f})",
                ]
            )  # fmt: skip
            if arm == "dealcast":
                rows.append(
                    Row(
                        f"synthetic worlds, {weeks} weeks: forecast",
                        "CRPS above the oracle's, share", above[0], 0.0, "oracle, same run",
                        worlds, above[1:],
                    )
                )  # fmt: skip
    pooled = {arm: by_world(told, arm, "held") for arm in ARMS}
    apart = pooled["dealcast"] - pooled["oracle"]
    rows.append(
        Row(
            "synthetic worlds, pooled", "80 % ranges hold; interval of the difference",
            float(pooled["dealcast"].mean()), float(pooled["oracle"].mean()), "oracle, same run",
            worlds, interval(apart),
        )
    )  # fmt: skip
    low, high = interval(apart)
    head = ["weeks", "arm", "CRPS / mean", "above the oracle's", "bias", "80 % range holds"]
    shares = ", ".join(f"{arm} {values.mean():.3f}" for arm, values in pooled.items())
    return [
        *table(head, cells), "",
        f"80 % ranges, both horizons pooled: {shares}; dealcast less oracle {apart.mean():+.3f} "
        f"({low:+.3f} to {high:+.3f}, paired by world).",
    ], rows  # fmt: skip


def main() -> None:
    """Play the worlds on two processes, and publish."""
    jobs = Parallel(n_jobs=2, return_as="generator_unordered")(
        delayed(measured)(SEED + i, DEALS, DAYS, ORIGINS) for i in range(WORLDS)
    )
    told: list[Told] = []
    for i, part in enumerate(jobs):
        print(f"world {i + 1} of {WORLDS}", file=sys.stderr)
        told += part
    lines, rows = report(told)
    lead = (
        f"{WORLDS} companies (seeds {SEED} to {SEED + WORLDS - 1}), about {DEALS:,} deals in "
        f"{DAYS // 7} weeks each, {len(ORIGINS)} origins a company, "
        f"{RECIPE.landmarks:,} landmarks a fit, a fit an origin. The oracle "
        "knows the hazards of every open deal, hidden effects included, and the law of shocks and "
        "arrivals; not the shocks, nor how the running quarter went. Independent: the same model "
        "without shared shocks and with the level of arrivals known. Intervals of 95 %, worlds "
        "drawn anew."
    )
    publish(
        __file__, "The forecast beside the truth", [lead, "", *lines], rows, seed=SEED
    )  # fmt: skip


if __name__ == "__main__":
    main()
