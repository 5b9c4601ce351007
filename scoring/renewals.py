"""Renewals: a pipeline in which won is renewed and lost is churned, and what it will keep.

Renewals are a known list, not arrivals: what comes up in a period is the deals that stand in the
pipeline with their due date (the expected close date) in it, and those that closed in it already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

import numpy as np
import numpy.typing as npt

from data.history import LOST, WON, History, Snapshot
from data.pipeline import Period
from scoring.bundles import DealBundle
from scoring.curves import Curves
from scoring.forecast import Cell, Forecast
from scoring.grouping import WHOLE
from scoring.stand_ins import deal_columns
from scoring.worth import mean_final

__all__ = ["Renewal", "renewals"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Renewal:
    """What a renewal pipeline keeps of what is up in a period; money in the base currency.

    Attributes
    ----------
    cell : Cell
        The forecast of the value renewed in the period: won to date and from open deals.
    due : int
        Open deals due in the period; overdue ones, and those without a date, in the first.
    up_for_renewal : float
        Their value now, and what the deals that closed in the period were worth before.
    renewed_to_date, churned_to_date : float
        Closed in the period: what was renewed at, and what was lost.
    expected_renewed, expected_churn, undecided : float
        Of what is up, whenever it closes: what is kept, at the amount that it will close at, what
        is lost, and what stays open beyond the model's reach.
    gross_retention, net_retention : float or None
        Kept at its value before, and at its value after, over what was up; None if nothing was.
    """

    cell: Cell
    due: int
    up_for_renewal: float
    renewed_to_date: float
    churned_to_date: float
    expected_renewed: float
    expected_churn: float
    undecided: float
    gross_retention: float | None
    net_retention: float | None


@dataclass(frozen=True)
class _Open:
    """Open renewals: pipeline, due day, value now, fate in the end, and value if renewed."""

    pipeline: npt.NDArray[np.object_]
    due: FloatArray
    value: FloatArray
    renewed: FloatArray
    churned: FloatArray
    final: FloatArray


@dataclass(frozen=True)
class _Closed:
    """Renewals that closed: pipeline, moment, whether renewed, value before and after."""

    pipeline: npt.NDArray[np.object_]
    at: IntArray
    won: npt.NDArray[np.bool_]
    before: FloatArray
    after: FloatArray


def renewals(
    history: History,
    bundle: DealBundle,
    found: Forecast,
    periods: Sequence[Period],
    pipelines: Sequence[str],
) -> list[Renewal]:
    """What renewal pipelines keep, by period, then pipeline.

    Parameters
    ----------
    found : Forecast
        Of the same periods, by pipeline.
    pipelines : sequence of str
        The ids of the pipelines that are renewals; one without any deal is left out.
    """
    still = _open(history, bundle, found.as_of)
    closed = _closed(history, periods, found.as_of)
    cells = {(c.period.start, c.group): c for c in found.cells}
    seen = {c.group for c in found.cells} | set(still.pipeline) | set(closed.pipeline)
    return [
        _renewal(
            bundle,
            periods,
            p,
            cells.get((period.start, pipeline)) or _none(cells[period.start, WHOLE], pipeline),
            still,
            closed,
        )
        for p, period in enumerate(periods)
        for pipeline in pipelines
        if pipeline in seen
    ]


def _none(whole: Cell, pipeline: str) -> Cell:
    """The cell of a pipeline in which nothing is open or was won."""
    nothing = dict.fromkeys(whole.quantiles, 0.0), dict.fromkeys(whole.components, 0.0)
    return Cell(whole.period, pipeline, 0.0, *nothing, None, None, [], [])


def _open(history: History, bundle: DealBundle, as_of: np.datetime64) -> _Open:
    snapshot = history.as_of("deal", as_of)
    columns = deal_columns(snapshot, bundle)
    fate = Curves.of(snapshot, bundle, columns).incidence[:, -1]
    stage = columns["stage"]
    assert isinstance(stage, tuple)
    final = mean_final(bundle.amount, stage, snapshot.amount)
    return _Open(
        _pipeline(snapshot),
        snapshot.value("expected_close_date").numbers(),
        # A deal without an amount is worth what it will close at.
        np.where(np.isnan(snapshot.amount), final, snapshot.amount),
        fate[:, 0],
        fate[:, 1],
        final,
    )


def _closed(history: History, periods: Sequence[Period], as_of: np.datetime64) -> _Closed:
    """Deals that closed between the start of the periods and as_of, and did not reopen since."""
    ledger = history.deals
    now, start = (
        int(t.astype("datetime64[us]").astype(np.int64)) for t in (as_of, periods[0].start)
    )
    there = np.flatnonzero((ledger.known_from <= now) & (ledger.gone_at > now))
    snapshot = history.landmarks("deal", there, np.full(len(there), now))
    events = ledger.outcomes
    last = events.latest(*snapshot.seen(events))
    at = np.where(last >= 0, events.at[last], 0) if len(events.at) else np.zeros(len(there), int)
    rows = np.flatnonzero(np.isin(snapshot.outcome, (WON, LOST)) & (at >= start))
    before = history.landmarks("deal", there[rows], at[rows] - 1).amount
    won_rows, _, known, value = history.wins
    after = np.zeros(len(ledger))
    np.add.at(after, won_rows[known <= now], value[known <= now])
    won = snapshot.outcome[rows] == WON
    kept = np.where(won, after[there[rows]], 0.0)
    return _Closed(
        _pipeline(snapshot.take(rows)),
        at[rows],
        won,
        # A renewal that came into the records with its closing was worth what it closed at.
        np.where(np.isnan(before), kept, before),
        kept,
    )


def _pipeline(snapshot: Snapshot) -> npt.NDArray[np.object_]:
    return snapshot.value("pipeline_id").texts()


def _renewal(
    bundle: DealBundle,
    periods: Sequence[Period],
    p: int,
    cell: Cell,
    still: _Open,
    closed: _Closed,
) -> Renewal:
    period = periods[p]
    first, end = (
        float(np.datetime64(bundle.calendar.day_of(t), "D").astype(np.int64))
        for t in (period.start, period.end)
    )
    early = np.isnan(still.due) | (still.due < first)
    here = ((still.due >= first) & (still.due < end)) | (early & (p == 0))
    mine = np.flatnonzero(here & (still.pipeline == cell.group))
    lo, hi = (int(t.astype("datetime64[us]").astype(np.int64)) for t in (period.start, period.end))
    done = (closed.pipeline == cell.group) & (closed.at >= lo) & (closed.at < hi)
    before, after = closed.before[done], closed.after[done]
    lost = ~closed.won[done]
    value = still.value[mine]
    kept, churned = still.renewed[mine], still.churned[mine]
    up = fsum([*before, *value])
    renewed = fsum([*after, *(kept * still.final[mine])])
    gross = fsum([*before[~lost], *(kept * value)])
    return Renewal(
        cell,
        len(mine),
        up,
        fsum(after),
        fsum(before[lost]),
        renewed,
        fsum([*before[lost], *(churned * value)]),
        fsum((1.0 - kept - churned) * value),
        gross / up if up > 0 else None,
        renewed / up if up > 0 else None,
    )
