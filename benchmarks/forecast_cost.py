"""What a forecast costs: time and memory by open deals, beside a plain implementation.

The plain one predicts every interval of every deal with LightGBM, and then draws with numpy,
vectorised over deals and draws: a uniform for each of them in each interval. Both start from the
same records of one moment and end with ranges of three months by owner; one thread each. The
curve is of whole forecasts on two threads, each size in a process of its own.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
from _published import Row, publish, table

from data.history import History
from data.pipeline import FiscalCalendar, Period
from data.records import Table
from data.synthetic import Synthetic, make_history
from models import deal as deal_model
from scoring.bundles import DealBundle
from scoring.forecast import Forecast, forecast
from scoring.grouping import WHOLE, group_of
from scoring.simulation import Shocks, levelled
from scoring.stand_ins import deal_columns
from training.fitting import Recipe, fit_deals

FloatArray = npt.NDArray[np.float64]

SEED = 5
END = np.datetime64("2026-02-16", "us")
CALENDAR = FiscalCalendar()
PERIODS: Sequence[Period] = CALENDAR.periods("month", END, 3)
SIZES, CURVE_DRAWS = (1_000, 5_000, 50_000, 250_000, 1_000_000), 2_000
BESIDE, DRAWS = 50_000, 10_000
BAR, MOST_MEMORY = 0.25, 8.0
_KEYS = {  # of records that belong to a deal: the column that names it, and their own
    "deal": ("deal_id", "deal_id"),
    "stage_change": ("entity_id", "stage_change_id"),
    "field_change": ("entity_id", "field_change_id"),
}
_DEALS_AT_ONCE = 16


def company() -> tuple[Synthetic, DealBundle]:
    """A synthetic company, and a model of it."""
    crm = make_history(6_000, SEED, end=END, days=900)
    history = History(crm.tables, [crm.facts])
    return crm, fit_deals(history, int(END.astype(np.int64)), Recipe(CALENDAR, seed=SEED))


def copied(crm: Synthetic, size: int) -> History:
    """Its open deals so many times over that there are `size`, with their stages and changes."""
    now = History(crm.tables, [crm.facts]).as_of("deal", END)
    mine = {str(i) for i in now.ids}
    times = -(-size // len(mine))
    tables = dict(crm.tables)
    for name, (deal, own) in _KEYS.items():
        rows = [i for i, key in enumerate(tables[name][deal].tolist()) if str(key) in mine]
        tables[name] = _repeated(tables[name], rows, times, {deal, own})
    tables["activity"] = _repeated(tables["activity"], [], 1, set())
    return History(tables, [crm.facts])


def _repeated(found: Table, rows: Sequence[int], times: int, keys: set[str]) -> Table:
    place = np.tile(np.array(rows, dtype=np.int64), times)
    copy = np.repeat(np.arange(times), len(rows)).tolist()
    columns, attributes = (
        {name: column[place] for name, column in part.items()}
        for part in (found.columns, found.attributes)
    )
    for name in keys & set(columns):
        named = [f"{key}~{c}" for key, c in zip(columns[name].tolist(), copy, strict=True)]
        columns[name] = np.array(named, dtype=object)
    return Table(found.entity, columns, attributes)


def plain(history: History, bundle: DealBundle) -> FloatArray:
    """Means and ranges of the months by owner, the plain way: (4, owners, months)."""
    rng = np.random.default_rng(SEED)
    snapshot = history.as_of("deal", END)
    columns = deal_columns(snapshot, bundle)
    local = CALENDAR.local_days(np.array([END.astype(np.int64)]))
    cells = bundle.model.grid.cells(local, CALENDAR.marks).within(92.0)
    with patch.object(deal_model, "_GRID_FROM", np.inf):
        hazards = bundle.model.hazards(columns, cells.repeated(len(snapshot)))
    shocks = Shocks.draw(bundle.shocks, 0.0, DRAWS, 14, rng)
    begin, end = cells.begin[0], cells.end[0]
    hazards = levelled(hazards, shocks.level_over(begin, end))
    tilt = np.exp(shocks.over(begin, end)).T
    ends = np.array([(p.end - END) / np.timedelta64(1, "D") for p in PERIODS])
    period = np.searchsorted(ends, (begin + end) / 2)
    owners, group = np.unique(group_of(snapshot, "owner").astype(str), return_inverse=True)
    total = np.zeros((len(owners), len(PERIODS), DRAWS))
    codes, levels = columns["stage"]
    for first in range(0, len(snapshot), _DEALS_AT_ONCE):
        some = slice(first, first + _DEALS_AT_ONCE)
        shape = (len(group[some]), DRAWS)
        worth = bundle.amount.final(
            (np.repeat(codes[some], DRAWS), levels), np.repeat(snapshot.amount[some], DRAWS),
            rng.random(shape[0] * DRAWS),
        ).reshape(shape)  # fmt: skip
        still = np.ones(shape, dtype=bool)
        for k in np.flatnonzero(period < len(PERIODS)):
            won, lost = hazards[some, k, 0, None], hazards[some, k, 1, None]
            odds = won * tilt[k]
            scale = odds + 1.0 - won
            level = rng.random(shape) * scale
            wins = still & (level < odds)
            still &= level >= odds + lost
            np.add.at(total[:, period[k]], group[some], np.where(wins, worth, 0.0))
    ranges = np.quantile(total, [0.1, 0.5, 0.9], axis=2)
    return np.concatenate([total.mean(2)[None], ranges])


def served(history: History, bundle: DealBundle, draws: int, threads: int) -> Forecast:
    """The same from the product."""
    return forecast(
        history, bundle, END, PERIODS, "owner", draws=draws, seed=SEED, threads=threads
    )  # fmt: skip


def beside() -> dict[str, float]:
    """Seconds of both, one thread each, and how far apart the means of open deals are."""
    crm, bundle = company()
    history = copied(crm, BESIDE)
    history.as_of("deal", END)  # what both share: the ledger of the records
    begin = time.perf_counter()
    found = served(history, bundle, DRAWS, 1)
    ours = time.perf_counter()
    means = plain(history, bundle)[0]
    plainly = time.perf_counter()
    due = sum(c.components["open"] for c in found.cells if c.group != WHOLE)
    return {"ours": ours - begin, "plain": plainly - ours, "apart": float(means.sum() / due - 1.0)}


def one(size: int) -> dict[str, float]:
    """Seconds of a whole forecast, the reading of the records included, and peak memory."""
    crm, bundle = company()
    history = copied(crm, size)
    begin = time.perf_counter()
    served(history, bundle, CURVE_DRAWS, 2)
    took = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    return {"seconds": took, "gibibytes": peak}


def main() -> None:
    """Time both, then the curve, and publish."""
    # A process for each measurement: its peak of memory is its own.
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as alone:
        print("beside the plain implementation ...", file=sys.stderr)
        both = alone.submit(beside).result()
        curve = []
        for size in SIZES:
            print(f"{size:,} open deals ...", file=sys.stderr)
            curve.append(alone.submit(one, size).result())
    ratio = both["ours"] / both["plain"]
    each = [c["seconds"] / size for c, size in zip(curve, SIZES, strict=True)]
    middle = each[SIZES.index(BESIDE)]
    cells = [
        [f"{size:,}", f"{e / middle:.2f}", f"{c['gibibytes']:.2f}"]
        for size, c, e in zip(SIZES, curve, each, strict=True)
    ]
    lines = [
        f"{BESIDE:,} open deals, {DRAWS:,} draws, ranges of three months by owner, one thread: "
        f"{ratio:.3f} of the time of the plain implementation (bar {BAR}). The plain one's means "
        f"of open deals are {both['apart']:+.1%} apart: it lets shocks move them.", "",
        f"The curve: whole forecasts of {CURVE_DRAWS:,} draws on two threads, from the records to "
        "the answer.", "",
        *table(
            ["open deals", f"time a deal, that of {BESIDE:,} = 1", "peak memory, GiB"], cells
        ),
    ]  # fmt: skip
    rows = [
        Row(f"forecast of {BESIDE:,} open deals, {DRAWS:,} draws",
            "time over that of the plain implementation, same run", ratio, BAR, "bar", BESIDE),
        Row(f"forecast of {SIZES[-1]:,} open deals", "peak memory, GiB", curve[-1]["gibibytes"],
            MOST_MEMORY, "bar", SIZES[-1]),
        Row(f"forecast of {SIZES[-1]:,} open deals", f"time a deal over that of {BESIDE:,}",
            each[-1] / middle, 1.0, "linear", SIZES[-1]),
    ]  # fmt: skip
    publish(__file__, "What a forecast costs", lines, rows, seed=SEED)


if __name__ == "__main__":
    main()
