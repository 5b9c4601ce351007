"""Back-test: the served forecast, replayed at past dates with models of those dates.

At each origin everything is learnt from what was known then; the forecast runs the code that
serves; what really closed is read afterwards. Beside it stand the methods a spreadsheet or a CRM
would use, scored by the same measures on the same origins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed

from data.history import History
from data.pipeline import Period
from data.timelines import DAY, NEVER
from models import baseline, measures
from scoring.bundles import DealBundle
from scoring.forecast import UNASSIGNED, WHOLE, Simulation, group_of, simulate
from training.fitting import Recipe, TrainingError, fit_deals

__all__ = ["LEVELS", "METHODS", "BacktestError", "Issued", "backtest", "coverage_of", "summary"]

FloatArray = npt.NDArray[np.float64]

LEVELS = (0.5, 0.8, 0.95)
METHODS = {
    "dealcast": "open deals, new business and shared shocks, drawn together",
    "stage-weighted": "open pipeline x stage win rate, no timing: what most CRMs show",
    "conversion": "open pipeline x the share that past pipelines brought in the same time",
    "past mean": "mean of past periods of the same length",
}
_PAST = 8  # past windows that the naive methods look at
_POINTS = tuple(sorted({0.5, *((1 - v) / 2 for v in LEVELS), *((1 + v) / 2 for v in LEVELS)}))


class BacktestError(ValueError):
    """Origins that cannot be judged; the message says which, and what is allowed."""


@dataclass(frozen=True)
class Issued:
    """One forecast as it would have been issued, and what happened; money in base currency.

    Attributes
    ----------
    origin : datetime64[us]
    horizon : float
        Days.
    group, method : str
    mean, crps, actual : float
    quantiles : dict of str to float
    components : dict of str to float
        Means of the parts from open deals and from new business ("dealcast" only).
    """

    origin: np.datetime64
    horizon: float
    group: str
    method: str
    mean: float
    quantiles: dict[str, float]
    crps: float
    actual: float
    components: dict[str, float]


def backtest(
    history: History,
    origins: Sequence[np.datetime64],
    horizons: Sequence[float],
    recipe: Recipe,
    *,
    by: str | None = None,
    refit_days: float = 7.0,
    draws: int = 4000,
    jobs: int = 1,
    progress: Callable[[Iterator[Any], int], Iterator[Any]] | None = None,
    bundles: Callable[[int], DealBundle | None] | None = None,
    until: int | None = None,
) -> list[Issued]:
    """Replay the forecast.

    Parameters
    ----------
    origins : sequence of datetime64[us]
        Moments to forecast from; sorted here.
    horizons : sequence of float
        Days ahead.
    refit_days : float
        Hazards are refitted when the last fit is this old; amounts, arrivals and rates are
        learnt anew at every origin.
    jobs : int
        Processes that work side by side.
    progress : callable, optional
        Wraps the iterator over (blocks of) origins and their number, to show a bar.
    bundles : callable, optional
        Gives the hazards to use at an origin (int64 microseconds), instead of refitting.
    until : int, optional
        What became known later than this (int64 microseconds) does not count as having happened;
        by default everything the records hold.

    Raises
    ------
    BacktestError
        If the records end before the last horizon does, or there are no origins.
    """
    ordered = sorted(o.astype("datetime64[us]") for o in origins)
    spans = sorted(float(h) for h in horizons)
    end = _records_end(history) if until is None else min(until, history.observed_until)
    _check(ordered, spans, end)
    blocks = _blocks(ordered, refit_days)
    tasks = (
        delayed(_block)(history, block, spans, recipe, by, draws, end,
                        None if bundles is None else bundles(_micros(block[0])))
        for block in blocks
    )  # fmt: skip
    done: Iterator[list[Issued]] = Parallel(n_jobs=jobs, return_as="generator")(tasks)
    shown = done if progress is None else progress(done, len(blocks))
    return [issued for block in shown for issued in block]


def _records_end(history: History) -> int:
    """The last moment of which the records tell, int64 microseconds.

    Where no source says until when it was exported, that is the newest thing that happened to a
    deal.
    """
    if history.observed_until != NEVER:
        return history.observed_until
    deals = history.deals
    moments = np.concatenate([deals.known_from, deals.outcomes.at, deals.stages.at])
    moments = moments[moments != NEVER]
    return int(moments.max()) if len(moments) else NEVER


def _check(origins: Sequence[np.datetime64], horizons: Sequence[float], end: int) -> None:
    if not origins or not horizons or min(horizons) <= 0:
        raise BacktestError(
            f"{len(origins)} origins and horizons {list(horizons)}; give at least one origin and "
            "horizons above 0 days"
        )
    if _micros(origins[-1]) + int(horizons[-1] * DAY) > end:
        latest = np.datetime64(end - int(horizons[-1] * DAY), "us").astype("datetime64[D]")
        raise BacktestError(
            f"origin {origins[-1].astype('datetime64[s]')} looks {horizons[-1]:g} days ahead, but "
            f"the records end at {np.datetime64(end, 'us').astype('datetime64[s]')}: what happened "
            f"is only partly known. The last origin allowed is {latest}"
        )


def _blocks(origins: Sequence[np.datetime64], refit_days: float) -> list[list[np.datetime64]]:
    """Origins that share one fit, made at the first of them."""
    blocks: list[list[np.datetime64]] = []
    for origin in origins:
        if blocks and _micros(origin) - _micros(blocks[-1][0]) < refit_days * DAY:
            blocks[-1].append(origin)
        else:
            blocks.append([origin])
    return blocks


def _block(
    history: History, origins: Sequence[np.datetime64], horizons: Sequence[float], recipe: Recipe,
    by: str | None, draws: int, end: int, like: DealBundle | None,
) -> list[Issued]:  # fmt: skip
    issued: list[Issued] = []
    for origin in origins:
        try:
            bundle = fit_deals(history, _micros(origin), recipe, like=like)
        except TrainingError as error:
            raise BacktestError(f"origin {origin}: {error}") from error
        like = bundle
        issued += _origin(history, bundle, origin, horizons, by, draws, end, recipe.seed)
    return issued


def _origin(
    history: History, bundle: DealBundle, origin: np.datetime64, horizons: Sequence[float],
    by: str | None, draws: int, known: int, seed: int,
) -> list[Issued]:  # fmt: skip
    ends = [origin + np.timedelta64(int(h * DAY), "us") for h in horizons]
    periods = [Period(a, b, "") for a, b in pairwise([origin, *ends])]
    drawn = simulate(history, bundle, origin, periods, by, draws=draws, seed=seed)
    # Horizons start at the origin: they are running sums of the periods between them.
    total = np.cumsum(drawn.total, axis=2)
    parts = {
        "open": np.cumsum(drawn.open.value.mean(0), axis=1),
        "new": np.cumsum(drawn.new.value.mean(0), axis=1),
    }
    rng = np.random.default_rng([seed, 1, _micros(origin) // DAY])
    issued = []
    for j, (horizon, end) in enumerate(zip(horizons, ends, strict=True)):
        actual = _actual(history, drawn, origin, end, by, known)
        past = _past(history, origin, horizon, by)
        for group, members in _members(drawn, by):
            happened = sum(actual.values()) if group == WHOLE else actual.get(group, 0.0)
            issued.append(
                _issued(
                    origin, horizon, group, "dealcast", total[:, members, j].sum(1), happened,
                    {name: float(part[members, j].sum()) for name, part in parts.items()},
                )
            )  # fmt: skip
            for method, values in _naive(bundle, drawn, past, group, draws, rng).items():
                issued.append(_issued(origin, horizon, group, method, values, happened, {}))
    return issued


def _members(drawn: Simulation, by: str | None) -> list[tuple[str, list[int]]]:
    everyone = list(range(len(drawn.groups)))
    if by is None:
        return [(WHOLE, everyone)]
    return [(WHOLE, everyone), *((g, [i]) for i, g in enumerate(drawn.groups))]


def _issued(
    origin: np.datetime64, horizon: float, group: str, method: str, values: FloatArray,
    actual: float, components: dict[str, float],
) -> Issued:  # fmt: skip
    quantiles = np.quantile(values, _POINTS)
    return Issued(
        origin, horizon, group, method, float(values.mean()),
        {f"{q:g}": float(v) for q, v in zip(_POINTS, quantiles, strict=True)},
        float(measures.crps_sample(values, actual)), float(actual), components,
    )  # fmt: skip


def _actual(
    history: History, drawn: Simulation, origin: np.datetime64, end: np.datetime64,
    by: str | None, known: int,
) -> dict[str, float]:  # fmt: skip
    """Won in [origin, end) by group, as known at `known`.

    A deal open at the origin counts for its group then, a later one for its group at creation;
    groups that nobody had heard of at the origin count as unassigned.
    """
    rows, value = history.won_between(origin, end, as_of=np.datetime64(known, "us"))
    then = dict(zip(drawn.open_deals.rows.tolist(), drawn.open_groups.tolist(), strict=True))
    created = history.deals.known_from[rows]
    at_creation = group_of(history.landmarks("deal", rows, created), by)
    out: dict[str, float] = {}
    for row, group, amount in zip(rows.tolist(), at_creation, value, strict=True):
        name = str(then.get(row, group))
        name = name if name in drawn.groups else UNASSIGNED
        out[name] = out.get(name, 0.0) + float(amount)
    return out


def _naive(
    bundle: DealBundle, drawn: Simulation, past: Sequence[_Window], group: str, draws: int,
    rng: np.random.Generator,
) -> dict[str, FloatArray]:  # fmt: skip
    """Draws of the naive methods, from what was known at the origin."""
    now = drawn.open_deals
    inside = np.ones(len(now), bool) if group == WHOLE else drawn.open_groups == group
    amount = np.nan_to_num(now.amount)
    rates = {stage: found["rate"] for stage, found in bundle.stage_rates.items()}
    average = float(np.mean(list(rates.values()))) if rates else 0.0
    stages = [str(now.ledger.stage_levels[s]) if s >= 0 else "" for s in now.stage]
    rate = np.array([rates.get(s, average) for s in stages])
    pipeline = float(amount[inside].sum())
    windows = [(w.won.get(group, 0.0), w.pipeline.get(group, 0.0)) for w in past]
    return {
        "stage-weighted": baseline.stage_weighted(amount[inside], rate[inside], draws, rng),
        "conversion": baseline.conversion_ratio(
            # A pipeline that was still filling up says nothing of a full one.
            np.array([won / value for won, value in windows if value > 0.5 * pipeline]),
            pipeline, draws, rng,
        ),
        "past mean": baseline.past_mean(np.array([won for won, _ in windows]), draws, rng),
    }  # fmt: skip


@dataclass(frozen=True)
class _Window:
    """A past window: won in it, and the open pipeline at its start, by group."""

    won: dict[str, float]
    pipeline: dict[str, float]


def _past(history: History, origin: np.datetime64, horizon: float, by: str | None) -> list[_Window]:
    """Past windows of the same length, newest first, as known at the origin."""
    first = max(int(history.deals.known_from.min()), history.observed_from)
    step = max(int(horizon * DAY) // 2, 7 * DAY)
    found = []
    for i in range(_PAST):
        end = _micros(origin) - i * step
        start = end - int(horizon * DAY)
        if start < first:
            break
        window = np.datetime64(start, "us"), np.datetime64(end, "us")
        rows, value = history.won_between(*window, as_of=origin)
        closed = history.landmarks("deal", rows, np.full(len(rows), _micros(origin)))
        then = history.as_of("deal", window[0])
        found.append(
            _Window(
                _sums(group_of(closed, by), value),
                _sums(group_of(then, by), np.nan_to_num(then.amount)),
            )
        )
    return found


def _sums(group: npt.NDArray[np.object_], value: FloatArray) -> dict[str, float]:
    """Sums by group, and of all."""
    names, place = np.unique(group.astype(str), return_inverse=True)
    sums = {str(n): float(value[place == i].sum()) for i, n in enumerate(names)}
    return sums | {WHOLE: float(value.sum())}


def summary(issued: Sequence[Issued], group: str = WHOLE) -> list[dict[str, Any]]:
    """Measures by method and horizon, and over all horizons (`horizon` None).

    Returns
    -------
    list of dict
        method, horizon, n, crps (mean CRPS / mean actual), bias (mean forecast / mean actual
        - 1), width (mean width of the 80 % range / mean forecast) and coverage by level.
    """
    rows = [i for i in issued if i.group == group]
    horizons: list[float | None] = [*sorted({i.horizon for i in rows}), None]
    table = []
    for method in METHODS:
        for horizon in horizons:
            part = [
                i for i in rows if i.method == method and (horizon is None or i.horizon == horizon)
            ]
            if part:
                table.append({"method": method, "horizon": horizon, **_measured(part)})
    return table


def _measured(part: Sequence[Issued]) -> dict[str, Any]:
    actual = np.array([i.actual for i in part])
    mean = np.array([i.mean for i in part])
    scale = abs(actual.mean()) or 1.0
    low, high = (np.array([i.quantiles[q] for i in part]) for q in ("0.1", "0.9"))
    return {
        "n": len(part),
        "mean_actual": float(actual.mean()),
        "crps": float(np.mean([i.crps for i in part]) / scale),
        "bias": float((mean.mean() - actual.mean()) / scale),
        "width": float((high - low).mean() / (abs(mean.mean()) or 1.0)),
        "coverage": {f"{level:g}": _covered(part, level) for level in LEVELS},
    }


def _covered(part: Sequence[Issued], level: float) -> float:
    low, high = f"{(1 - level) / 2:g}", f"{(1 + level) / 2:g}"
    inside = [i.quantiles[low] <= i.actual <= i.quantiles[high] for i in part]
    return float(np.mean(inside))


def coverage_of(issued: Sequence[Issued]) -> list[dict[str, Any]]:
    """Measured coverage of the served ranges, by horizon and level, for the bundle's manifest."""
    served = [i for i in issued if i.method == "dealcast" and i.group == WHOLE]
    return [
        {
            "horizon_days": horizon,
            "level": level,
            "measured": _covered([i for i in served if i.horizon == horizon], level),
            "n": sum(i.horizon == horizon for i in served),
        }
        for horizon in sorted({i.horizon for i in served})
        for level in LEVELS
    ]


def _micros(moment: np.datetime64) -> int:
    return int(moment.astype("datetime64[us]").astype(np.int64))
