"""Back-test: the served forecast, replayed at past dates with models of those dates.

At each origin everything is learnt from what was known then; the forecast runs the code that
serves; what really closed is read afterwards. Beside it stand the methods a spreadsheet or a CRM
would use, scored by the same measures on the same origins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed

from data.history import History
from data.pipeline import Period, PeriodKind
from data.timelines import DAY, NEVER
from models import measures
from scoring.bundles import DealBundle
from scoring.forecast import Simulation, simulate
from scoring.grouping import UNASSIGNED, WHOLE, group_of
from training.fitting import Recipe, TrainingError, fit_deals
from training.kept import Kept
from training.replayed import LEVELS, SERVED, Issued
from training.rivals import POINTS, RIVALS, Outlook
from training.windows import Window, calendar_windows, day_windows

__all__ = ["EACH", "LEVELS", "METHODS", "BacktestError", "Issued", "backtest", "beside",
           "selected", "summary"]  # fmt: skip

FloatArray = npt.NDArray[np.float64]

METHODS = {
    SERVED: "open deals, new business and shared shocks, drawn together",
    **RIVALS,
}
EACH = "each group"  # all groups but the whole, pooled


class BacktestError(ValueError):
    """Origins that cannot be judged; the message says which, and what is allowed."""


def backtest(
    history: History,
    origins: Sequence[np.datetime64],
    horizons: Sequence[float],
    recipe: Recipe,
    *,
    period: PeriodKind | None = None,
    ahead: int = 2,
    by: str | None = None,
    refit_days: float = 7.0,
    draws: int = 4000,
    jobs: int = 1,
    progress: Callable[[Iterator[Any], int], Iterator[Any]] | None = None,
    bundles: Callable[[int], DealBundle | None] | None = None,
    until: int | None = None,
    kept: Kept | None = None,
) -> list[Issued]:
    """Replay the forecast.

    Parameters
    ----------
    origins : sequence of datetime64[us]
        Moments to forecast from; sorted here.
    horizons : sequence of float
        Days ahead.
    period : str, optional
        Forecast calendar periods of this kind instead of `horizons`: the one that each origin
        lies in, what was won in it to date inside, and those after it, `ahead` in all.
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
    kept : Kept, optional
        Where finished origins are taken from and written to; not with `bundles`.

    Raises
    ------
    BacktestError
        If the records end before the last horizon does, or there are no origins.
    """
    ordered = sorted(o.astype("datetime64[us]") for o in origins)
    spans = () if period is not None else tuple(sorted(float(h) for h in horizons))
    end = _records_end(history) if until is None else min(until, history.observed_until)
    asked = _Asked(spans, period, ahead, by, draws, end, None if bundles is not None else kept)
    _check(ordered, asked, recipe)
    blocks = _blocks(ordered, refit_days)
    taken = {i: rows for i, block in enumerate(blocks) if (rows := _taken(block, asked))}
    rest = [i for i in range(len(blocks)) if i not in taken]
    tasks = (
        delayed(_block)(history, blocks[i], asked, recipe,
                        None if bundles is None else bundles(_micros(blocks[i][0])))
        for i in rest
    )  # fmt: skip
    if rest:
        done: Iterator[list[Issued]] = Parallel(n_jobs=jobs, return_as="generator")(tasks)
        shown = done if progress is None else progress(done, len(rest))
        taken |= dict(zip(rest, shown, strict=True))
    return [issued for i in range(len(blocks)) for issued in taken[i]]


def _taken(block: Sequence[np.datetime64], asked: _Asked) -> list[Issued] | None:
    """A block of which every origin is kept; None where one is missing."""
    if asked.kept is None:
        return None
    found = [asked.kept.load(asked.key(block, origin)) for origin in block]
    return (
        None if any(rows is None for rows in found) else [i for rows in found for i in rows or ()]
    )


@dataclass(frozen=True)
class _Asked:
    """What is asked of every origin; `end` is what is known of what happened (microseconds)."""

    horizons: tuple[float, ...]
    period: PeriodKind | None
    ahead: int
    by: str | None
    draws: int
    end: int
    kept: Kept | None

    def windows(self, origin: np.datetime64, recipe: Recipe, first: np.datetime64) -> list[Window]:
        """The windows of an origin, in order of their ends."""
        if self.period is None:
            return day_windows(origin, list(self.horizons), first)
        return calendar_windows(recipe.calendar, self.period, origin, self.ahead, first)

    def key(self, block: Sequence[np.datetime64], origin: np.datetime64) -> tuple[Any, ...]:
        """All that the figures of an origin follow from, besides records, recipe and code.

        The fits of a block build on each other, so the origins before count.
        """
        upto = [str(o) for o in block if o <= origin]
        return (upto, self.horizons, self.period, self.ahead, self.by, self.draws, self.end)


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


def _check(origins: Sequence[np.datetime64], asked: _Asked, recipe: Recipe) -> None:
    spans = asked.horizons
    if not origins or (asked.period is None and (not spans or min(spans) <= 0)):
        raise BacktestError(
            f"{len(origins)} origins and horizons {list(spans)}; give at least one origin and "
            "horizons above 0 days"
        )
    last = asked.windows(origins[-1], recipe, origins[-1])[-1]
    if _micros(last.stretch.end) <= asked.end:
        return
    told = f"the records end at {np.datetime64(asked.end, 'us').astype('datetime64[s]')}"
    if asked.period is not None:
        raise BacktestError(
            f"origin {origins[-1].astype('datetime64[s]')} looks ahead to the end of "
            f"{last.period}, but {told}: what happened is only partly known. Give earlier origins, "
            f"or fewer than {asked.ahead} periods"
        )
    latest = np.datetime64(asked.end - int(spans[-1] * DAY), "us").astype("datetime64[D]")
    raise BacktestError(
        f"origin {origins[-1].astype('datetime64[s]')} looks {spans[-1]:g} days ahead, but {told}: "
        f"what happened is only partly known. The last origin allowed is {latest}"
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
    history: History, block: Sequence[np.datetime64], asked: _Asked, recipe: Recipe,
    like: DealBundle | None,
) -> list[Issued]:  # fmt: skip
    """The origins of one fit, as far as they are not kept."""
    kept = asked.kept
    found = [None if kept is None else kept.load(asked.key(block, o)) for o in block]
    missing = [i for i, rows in enumerate(found) if rows is None]
    for i, origin in enumerate(block[: missing[-1] + 1 if missing else 0]):
        try:
            bundle = fit_deals(history, _micros(origin), recipe, like=like)
        except TrainingError as error:
            raise BacktestError(f"origin {origin}: {error}") from error
        like = bundle
        if i in missing:
            rows = _origin(history, bundle, origin, asked, recipe)
            found[i] = rows
            if kept is not None:
                kept.save(asked.key(block, origin), rows)
    return [issued for rows in found for issued in rows or []]


def _origin(
    history: History, bundle: DealBundle, origin: np.datetime64, asked: _Asked, recipe: Recipe
) -> list[Issued]:
    first = np.datetime64(
        max(int(history.deals.known_from.min()), history.observed_from), "us"
    )  # fmt: skip
    windows = asked.windows(origin, recipe, first)
    drawn = simulate(
        history, bundle, origin, _periods(windows), asked.by, draws=asked.draws, seed=recipe.seed
    )
    total = drawn.total
    outlook = Outlook(
        history, bundle, drawn, origin, asked.by, first, asked.draws,
        np.random.default_rng([recipe.seed, 1, _micros(origin) // DAY]),
    )  # fmt: skip
    issued = []
    for j, window in enumerate(windows):
        # Windows of so many days begin at the origin: they hold all the periods up to theirs.
        cells = [j] if window.period else list(range(j + 1))
        actual = _actual(history, drawn, window, asked.by, asked.end)
        for group, place in _members(drawn, asked.by):
            members = list(range(len(drawn.groups))) if place is None else [place]
            here = np.ix_(members, cells)
            happened = sum(actual.values()) if place is None else actual.get(group, 0.0)
            parts = {
                "won": float(drawn.won[here].sum()),
                "open": float(drawn.open.value.mean(0)[here].sum()),
                "new": float(drawn.new.value.mean(0)[here].sum()),
            }
            where = {"origin": origin, "horizon": window.days, "group": group,
                     "window": window.name, "period": window.period}  # fmt: skip
            ours = total[:, members][:, :, cells].sum(axis=(1, 2))
            issued.append(Issued.of(ours, happened, parts, method=SERVED, **where))
            for method, values in outlook.forecasts(window, place).items():
                ranged = method not in POINTS or bool(np.ptp(values) > 0)
                issued.append(
                    Issued.of(values, happened, {}, method=method, ranged=ranged, **where)
                )
    return issued


def _periods(windows: Sequence[Window]) -> list[Period]:
    """Consecutive periods of which every window is made."""
    found: list[Period] = []
    for window in windows:
        start = found[-1].end if found else window.stretch.start
        found.append(Period(start, window.stretch.end, window.period))
    return found


def _members(drawn: Simulation, by: str | None) -> list[tuple[str, int | None]]:
    """The whole, which has no place among the groups, and each group with its place."""
    if by is None:
        return [(WHOLE, None)]
    return [(WHOLE, None), *((g, i) for i, g in enumerate(drawn.groups))]


def _actual(
    history: History, drawn: Simulation, window: Window, by: str | None, known: int
) -> dict[str, float]:
    """Won in the window by group, as known at `known`.

    What was won before the origin counts for its group at the closing. A deal open at the origin
    counts for its group then, a later one for its group at creation; groups that nobody had heard
    of at the origin count as unassigned.
    """
    start, end = window.stretch.start, window.stretch.end
    rows, at, since, value = history.wins
    here = np.flatnonzero((at >= _micros(start)) & (at < _micros(end)) & (since <= known))
    rows, at, value = rows[here], at[here], value[here]
    then = dict(zip(drawn.open_deals.rows.tolist(), drawn.open_groups.tolist(), strict=True))
    past = at < _micros(window.stretch.mark)
    moment = np.where(past, at, history.deals.known_from[rows])
    own = group_of(history.landmarks("deal", rows, moment), by)
    out: dict[str, float] = {}
    for row, over, group, amount in zip(rows.tolist(), past, own, value, strict=True):
        name = str(group if over else then.get(row, group))
        name = name if name in drawn.groups else UNASSIGNED
        out[name] = out.get(name, 0.0) + float(amount)
    return out


def selected(issued: Sequence[Issued], group: str = WHOLE) -> list[Issued]:
    """The forecasts of one group, or of `EACH` of them but the whole."""
    if group == EACH:
        return [i for i in issued if i.group != WHOLE]
    return [i for i in issued if i.group == group]


def summary(issued: Sequence[Issued], group: str = WHOLE) -> list[dict[str, Any]]:
    """Measures by method and window, and over all windows (`horizon` and `window` None).

    Returns
    -------
    list of dict
        method, window, horizon (mean days to its end), n, mean_actual; as shares of the mean
        actual: crps, pinball (mean over the quantiles), bias (mean forecast less actual) and
        wape (of the mean forecasts); of the `ranged` forecasts that have ranges: width (of the
        80 % range, as a share of the mean forecast) and coverage by level, None without any.
    """
    rows = selected(issued, group)
    horizons: dict[str | None, float | None] = {
        name: float(np.mean([i.horizon for i in rows if i.window == name]))
        for name in dict.fromkeys(i.window for i in sorted(rows, key=lambda i: i.horizon))
    }
    table = []
    for method in dict.fromkeys([*METHODS, *(i.method for i in rows)]):
        mine = [i for i in rows if i.method == method]
        for window in (*horizons, None):
            part = [i for i in mine if window is None or i.window == window]
            if part:
                place = {"method": method, "window": window, "horizon": horizons.get(window)}
                table.append({**place, **_measured(part)})
    return table


def _measured(part: Sequence[Issued]) -> dict[str, Any]:
    """The measures of `summary`; those of ranges from the forecasts that have one."""
    actual = np.array([i.actual for i in part])
    mean = np.array([i.mean for i in part])
    scale = abs(actual.mean()) or 1.0
    ranged = [i for i in part if i.ranged]
    width = [i.quantiles["0.9"] - i.quantiles["0.1"] for i in ranged]
    middle = abs(float(np.mean([i.mean for i in ranged]))) if ranged else 0.0
    return {
        "n": len(part),
        "mean_actual": float(actual.mean()),
        "crps": float(np.mean([i.crps for i in part]) / scale),
        "pinball": float(np.mean([i.pinball for i in part]) / scale),
        "bias": float((mean.mean() - actual.mean()) / scale),
        "wape": measures.wape(mean, actual),
        "ranged": len(ranged),
        "width": float(np.mean(width)) / (middle or 1.0) if ranged else None,
        "coverage": {f"{v:g}": _covered(ranged, v) for v in LEVELS} if ranged else None,
    }


def _covered(part: Sequence[Issued], level: float) -> float:
    return float(np.mean([i.holds(level) for i in part]))


def beside(issued: Sequence[Issued], method: str) -> tuple[float, float] | None:
    """CRPS / mean actual of the served forecast and of a method, where both forecast the whole.

    None where they never did.
    """
    whole = selected(issued)
    theirs = {(i.origin, i.window): i for i in whole if i.method == method}
    pairs = [
        (i, theirs[i.origin, i.window])
        for i in whole
        if i.method == SERVED and (i.origin, i.window) in theirs
    ]
    if not pairs:
        return None
    scale = abs(float(np.mean([i.actual for i, _ in pairs]))) or 1.0
    ours, other = np.mean([[i.crps, j.crps] for i, j in pairs], axis=0) / scale
    return float(ours), float(other)


def _micros(moment: np.datetime64) -> int:
    return int(moment.astype("datetime64[us]").astype(np.int64))
