"""The back-test as the command line runs it: origins, the run itself, its table, JSON and page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.pipeline import PeriodKind
from dealcast import show
from dealcast.doors import Doors, UsageError
from scoring.grouping import WHOLE
from training.backtest import EACH, METHODS, backtest
from training.comparison import compare
from training.evaluation import plain
from training.kept import Kept, fingerprint
from training.replayed import SERVED, Issued
from training.report import backtest_report
from training.rivals import NEEDS

__all__ = [
    "Plan",
    "answer_of",
    "origins_between",
    "read_origins",
    "replay",
    "show_result",
    "write_page",
]

_DAY = np.timedelta64(1, "D")
_WEEKS, _PERIOD_WEEKS = 12, 26  # of origins, where nobody says from when


@dataclass(frozen=True)
class Plan:
    """What is replayed.

    Attributes
    ----------
    horizons : list of float
        Days ahead; not looked at where `period` names a kind of calendar period.
    ahead : int
        Calendar periods from each origin on, the running one included.
    """

    origins: list[np.datetime64]
    horizons: list[float]
    period: PeriodKind | None
    ahead: int
    by: str | None
    refit_days: float
    jobs: int

    @property
    def title(self) -> str:
        """Heading of table and page."""
        what = (
            f"{', '.join(f'{h:g}' for h in self.horizons)} days ahead"
            if self.period is None
            else f"{self.ahead} calendar {self.period}{'s' if self.ahead > 1 else ''} ahead"
        )
        return f"Back-test, {len(self.origins)} origins, {what}"


def origins_between(
    doors: Doors, first: str | None, last: str | None, every: int, plan: Plan
) -> list[np.datetime64]:
    """Origins of a back-test, every so many days; `plan` tells how far each looks ahead.

    By default those of the last 12 weeks (26 for calendar periods) whose outcome is known.
    """
    if every < 1 or plan.ahead < 1:
        raise UsageError(f"every is {every} days, ahead {plan.ahead} periods; allowed: 1 or more")
    stop = _newest(doors, plan) if last is None else doors.moment(last)
    weeks = _WEEKS if plan.period is None else _PERIOD_WEEKS
    start = stop - 7 * weeks * _DAY if first is None else doors.moment(first)
    if first is None:
        start = doors.calendar.midnight(doors.calendar.day_of(start))
    days = np.arange(0, int((stop - start) / _DAY) + 1, every)
    return [start + np.timedelta64(int(d), "D") for d in days]


def _newest(doors: Doors, plan: Plan) -> np.datetime64:
    """The last moment from which all that is asked for is known."""
    end = np.datetime64(min(doors.history.observed_until, int(doors.clock.astype(np.int64))), "us")
    if plan.period is None:
        return end - np.timedelta64(int(max(plan.horizons) * 86_400_000_000), "us")
    known = doors.calendar.periods_between(plan.period, end - 100 * plan.ahead * _DAY, end)
    if len(known) < plan.ahead:
        raise UsageError(
            f"no {plan.ahead} {plan.period}s in a row are known to their end; give --from and "
            "--to, or a smaller --ahead"
        )
    return doors.calendar.midnight(doors.calendar.day_of(known[-plan.ahead].end - _DAY))


def read_origins(doors: Doors, file: Path) -> list[np.datetime64]:
    """Moments of a text file, one a line; a header line "origin" is skipped."""
    if not file.exists():
        raise UsageError(f"there is no file {file}")
    lines = [line.strip().strip('"') for line in file.read_text(encoding="utf-8").splitlines()]
    return [doors.moment(line.split(",")[0]) for line in lines if line and line != "origin"]


def replay(
    doors: Doors, plan: Plan, folder: Path, *, fresh: bool, progress: Callable[[Any, int], Any]
) -> list[Issued]:
    """Forecasts as they would have been issued, and what happened; kept in a folder."""
    recipe = doors.recipe()
    return backtest(
        doors.history,
        plan.origins,
        plan.horizons,
        recipe,
        period=plan.period,
        ahead=plan.ahead,
        by=plan.by,
        refit_days=plan.refit_days,
        jobs=plan.jobs,
        progress=progress,
        kept=Kept(folder, fingerprint(doors.history, recipe), fresh),
    )


def answer_of(issued: Sequence[Issued], currency: str) -> dict[str, Any]:
    """Everything, for programs: measures with intervals, of the whole, of groups, and each row."""
    groups = sorted({i.group for i in issued} - {WHOLE})
    return {
        "currency": currency,
        "summary": plain(compare(issued)),
        "groups": {g: plain(compare(issued, g)) for g in ([EACH, *groups] if groups else [])},
        "methods": METHODS,
        "absent": _absent(issued),
        "issued": plain(issued),
    }


def _absent(issued: Sequence[Issued]) -> dict[str, str]:
    """What the methods that never spoke would have needed."""
    there = {i.method for i in issued}
    return {m: NEEDS[m] for m in METHODS if m not in there and m in NEEDS}


def show_result(issued: Sequence[Issued], plan: Plan, page: Path) -> None:
    """Print how the methods compare, and how the forecast does at each horizon."""
    table = compare(issued)
    everything = [r for r in table if r["window"] is None]
    everything.sort(key=lambda r: -float(r["against"]["value"]) if r["against"] else 0.0)
    show.table(
        f"{plan.title}: all methods, best first",
        ["method", "n", "CRPS, % of mean won", "dealcast's CRPS beside it", "bias", "WAPE",
         "80 % range holds"],
        [
            [r["method"], r["n"], _figure(r, "crps"), _against(r), f"{r['bias']:+.1%}",
             show.share(r["wape"]), _held(r, "0.8")]
            for r in everything
        ],
    )  # fmt: skip
    show.table(
        f"{SERVED} by horizon",
        ["window", "n", "CRPS, % of mean won", "best other", "bias", "50 % holds", "80 % holds",
         "95 % holds"],
        [
            [r["window"], r["n"], _figure(r, "crps"), _best_other(table, r["window"]),
             f"{r['bias']:+.1%}", *(_held(r, q) for q in ("0.5", "0.8", "0.95"))]
            for r in table
            if r["method"] == SERVED and r["window"] is not None
        ],
    )  # fmt: skip
    show.note(
        "in brackets: 95 % intervals, from blocks of neighbouring origins as long as the horizon; "
        f"all of them are worth about {max(r['blocks'] for r in table):.1f} that do not overlap"
    )
    if absent := _absent(issued):
        show.note(f"not there, for want of what they need (see the page): {', '.join(absent)}")
    show.note(f"page: {page}")


def write_page(issued: Sequence[Issued], plan: Plan, page: Path, currency: str) -> None:
    """Write the HTML page."""
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(backtest_report(issued, plan.title, currency=currency), "utf-8")


def _figure(row: dict[str, Any], name: str) -> str:
    low, high = (row["interval"][name][k] for k in ("low", "high"))
    text = f"{100 * row[name]:.1f}"
    return text if np.isnan(low) else f"{text} ({100 * low:.1f} to {100 * high:.1f})"


def _against(row: dict[str, Any]) -> str:
    found = row["against"]
    if found is None:
        return ""
    text = f"{found['value']:+.0%}"
    return (
        text if np.isnan(found["low"]) else f"{text} ({found['low']:+.0%} to {found['high']:+.0%})"
    )


def _held(row: dict[str, Any], level: str) -> str:
    if row["coverage"] is None:
        return "no range"
    low, high = (100 * row["interval"]["coverage"][level][k] for k in ("low", "high"))
    return f"{show.share(row['coverage'][level])} ({low:.0f} to {high:.0f})"


def _best_other(table: Sequence[dict[str, Any]], window: str) -> str:
    """The method that does best beside the served one, on the forecasts that both made."""
    others = [r for r in table if r["window"] == window and r["against"] is not None]
    best = max(others, key=lambda r: float(r["against"]["value"]), default=None)
    return "" if best is None else f"{best['method']} {100 * best['crps']:.1f}"
