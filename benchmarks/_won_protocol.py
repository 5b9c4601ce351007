"""BPIC 2012, the protocol of the deal model: trained as of 2012-01-09, judged on what came then.

Judged are the midnights (UTC) from 9 January to 8 February 2012 of all deals open at them: 26,347
landmarks, every outcome of the next 35 days known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from _public import read_public

from data.history import WON, History
from data.pipeline import FiscalCalendar
from models.deal import DealRows
from models.hazard_table import read_curve
from scoring.bundles import DealBundle
from training.examples import deal_rows
from training.fitting import Recipe, fit_deals

__all__ = ["CUTOFF", "DAYS", "HORIZON", "RECIPE", "Judged", "judged", "resampled"]

FloatArray = npt.NDArray[np.float64]

RECIPE = Recipe(FiscalCalendar(), seed=0)
CUTOFF = int(np.datetime64("2012-01-09", "us").astype(np.int64))
_STOP = int(np.datetime64("2012-02-08T00:00:01", "us").astype(np.int64))
HORIZON = 35.0
DAYS = np.arange(1.0, HORIZON + 1.0)
_RESAMPLES = 400


@dataclass(frozen=True)
class Judged:
    """What the arms are judged on.

    Attributes
    ----------
    history : History
    bundle : DealBundle
        Fitted on what was known at the cutoff.
    rows : DealRows
        The landmarks, m of them, with what became of them.
    amount : float64, shape (m,)
        Amount known at the landmark.
    """

    history: History
    bundle: DealBundle
    rows: DealRows
    amount: FloatArray

    @property
    def won(self) -> FloatArray:
        """1.0 where won within the horizon, shape (m,)."""
        return self.won_by(HORIZON)

    def won_by(self, days: float) -> FloatArray:
        """1.0 where won within so many days, shape (m,)."""
        happened = (self.rows.outcome == WON) & (self.rows.time <= days)
        return np.asarray(happened, dtype=np.float64)

    def read(self, curve: FloatArray) -> FloatArray:
        """A curve over the intervals (m, k), read at the end of every day: (m, 35)."""
        every: FloatArray = np.broadcast_to(DAYS, (len(self.rows), len(DAYS)))
        return read_curve(curve, self.rows.cells, every)


def judged(folder: Path) -> Judged:
    """Fit as of the cutoff, and lay out the landmarks."""
    history = read_public("bpic2012", folder)
    bundle = fit_deals(history, CUTOFF, RECIPE)
    rows, snapshot = deal_rows(
        history, bundle.features, bundle.model.grid, RECIPE.calendar, CUTOFF, _STOP,
        history.observed_until, entry=False,
    )  # fmt: skip
    return Judged(history, bundle, rows, np.nan_to_num(snapshot.amount))


def resampled(
    figure: Callable[[FloatArray], float], deal: npt.NDArray[np.int64], seed: int = 0
) -> tuple[float, float]:
    """95 % interval of a figure of row weights, deals drawn anew with all their landmarks."""
    _, place = np.unique(deal, return_inverse=True)
    rng, n = np.random.default_rng(seed), int(place.max()) + 1
    drawn = [
        figure(np.bincount(rng.integers(0, n, n), minlength=n)[place].astype(np.float64))
        for _ in range(_RESAMPLES)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)
