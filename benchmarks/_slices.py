"""Later time, data set by data set: what was fitted before a cut, and what happened after it.

The served learners see what was known at the cut; landmarks, outcomes and baselines lie after it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from _public import datasets, read_public

from data.features import compute
from data.history import WON, History, Side, Snapshot
from data.pipeline import FiscalCalendar
from data.synthetic import make_history
from data.timelines import DAY
from models import measures
from models.hazard_table import read_curve
from scoring.bundles import DealBundle, LeadBundle
from training.examples import deal_rows, landmarks, lead_rows
from training.fitting import Recipe, fit_deals, fit_leads

__all__ = ["RECIPE", "Later", "arm_figures", "histories", "later_deals", "later_leads", "micros"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

RECIPE = Recipe(FiscalCalendar(), seed=0)


@dataclass(frozen=True)
class Later:
    """Landmarks after a cut, with what the served model says of them and what happened.

    Attributes
    ----------
    name, question : str
    cut : int
        int64 microseconds: all that was learnt was known by then.
    snapshot : Snapshot
        The n landmarks.
    y : float64, shape (n,)
    end : int64 microseconds, shape (n,)
        When each record closed, or was last seen open.
    served : float64, shape (n,)
    before : float64, shape (m,)
        The same outcome at the landmarks that had matured by the cut.
    """

    name: str
    question: str
    history: History
    side: Side
    bundle: DealBundle | LeadBundle
    cut: int
    snapshot: Snapshot
    y: FloatArray
    end: IntArray
    served: FloatArray
    before: FloatArray

    @property
    def record(self) -> IntArray:
        """Which record each landmark belongs to."""
        return self.snapshot.rows


@dataclass(frozen=True)
class _Deals:
    """A protocol for deals: landmarks in [start, stop), won within `days`."""

    name: str
    history: History
    start: str
    stop: str
    days: float


def histories(*, maven: bool) -> Iterator[_Deals]:
    """The deal histories that can be had here, with their protocols; `maven` on demand."""
    end = np.datetime64("2026-02-16", "us")
    crm = make_history(4_000, seed=1, end=end)
    yield _Deals(
        "synthetic CRM (4,000 deals, seed 1)", History(crm.tables, [crm.facts]),
        "2025-08-30", "2025-12-18", 60.0,
    )  # fmt: skip
    folder = datasets()
    if folder is None:
        return
    yield _Deals("BPIC 2012", read_public("bpic2012", folder), "2012-01-09", "2012-02-09", 35.0)
    if maven:
        yield _Deals(
            "Maven CRM", read_public("maven_crm", folder), "2017-07-31", "2017-10-02", 90.0
        )


def later_deals(protocol: _Deals) -> Later:
    """Fit on what was known at the first landmark, and look at all of them."""
    history, cut = protocol.history, micros(protocol.start)
    print(f"{protocol.name}: fitting as of {protocol.start} ...", file=sys.stderr)
    bundle = fit_deals(history, cut, RECIPE)
    rows, snapshot = deal_rows(
        history, bundle.features, bundle.model.grid, bundle.calendar, cut, micros(protocol.stop),
        history.observed_until, entry=False,
    )  # fmt: skip
    curve = bundle.model.incidence(rows.columns, rows.cells)[:, :, 0]
    ripe = cut - int(protocol.days * DAY)
    every = int(bundle.model.grid.edges[1]) * DAY
    past = landmarks(history, "deal", -DAY, ripe, cut, every, entry=False)
    return Later(
        protocol.name, f"won within {protocol.days:g} days", history, "deal", bundle, cut, snapshot,
        ((rows.outcome == WON) & (rows.time <= protocol.days)).astype(np.float64),
        snapshot.at + (rows.time * DAY).round().astype(np.int64),
        read_curve(curve, rows.cells, np.array([[protocol.days]]))[:, 0],
        ((past.outcome == WON) & (past.end - past.at <= protocol.days * DAY)).astype(np.float64),
    )  # fmt: skip


def later_leads(name: str, title: str, share: float = 0.8) -> Later | None:
    """Fit on the first part of leads in their order of entry, and look at the rest."""
    folder = datasets()
    if folder is None:
        return None
    print(f"{title}: fitting on the first {share:.0%} ...", file=sys.stderr)
    history = read_public(name, folder)
    entry = np.sort(history.leads.known_from)
    cut = int(entry[int(share * len(entry))])
    bundle = fit_leads(history, cut, 0, RECIPE)
    until = history.observed_until + DAY
    later, past = lead_rows(history, cut, until, until, 0), lead_rows(history, -DAY, cut, cut, 0)
    served = bundle.model.predict(compute(later.snapshot, bundle.features))
    return Later(
        title, "outcome, in order of entry", history, "lead", bundle, cut, later.snapshot,
        later.label, later.snapshot.at, served, past.label,
    )  # fmt: skip


def arm_figures(p: FloatArray, later: Later) -> dict[str, Any]:
    """Log loss, Brier, AUC, mean p and the calibration slope of one arm.

    `log loss interval` and `Brier interval` are of 95 %, each record counted once.
    """
    y, q = later.y, np.clip(p, 1e-15, 1 - 1e-15)
    line = measures.calibration_slope_intercept(p, y, groups=later.record)
    return {
        "log loss": measures.log_loss(p, y),
        "log loss interval": _interval(-(y * np.log(q) + (1 - y) * np.log1p(-q)), later.record),
        "Brier": measures.brier(p, y),
        "Brier interval": _interval((p - y) ** 2, later.record),
        "AUC": measures.auc(p, y),
        "AUC interval": None,
        "mean p": float(p.mean()),
        "slope": line.slope,
        "slope error": line.slope_error,
    }


def _interval(values: FloatArray, record: IntArray) -> tuple[float, float]:
    """95 % interval of a mean over landmarks, clustered by record."""
    mean = float(values.mean())
    _, place = np.unique(record, return_inverse=True)
    half = 1.96 * float(np.sqrt((np.bincount(place, values - mean) ** 2).sum())) / len(values)
    return mean - half, mean + half


def micros(moment: str) -> int:
    """A date in UTC as int64 microseconds."""
    return int(np.datetime64(moment, "us").astype(np.int64))
