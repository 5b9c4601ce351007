"""Lead probabilities as refits through time would have given them, and what they teach.

A model judged once, long after it was fitted, shows how a recipe ages; refits within the same
time show what it can do. Recalibration learns from the refits: their errors are those that the
next fit will make too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.features import compute
from data.history import History
from data.timelines import DAY
from models import measures
from models.lead import LeadModel
from scoring.bundles import LeadBundle
from training.examples import LeadRows, lead_rows
from training.fitting import Recipe, fit_leads

__all__ = ["OutOfTime", "Refit", "ageing_note", "drift_note", "out_of_time", "refits_between"]

FloatArray = npt.NDArray[np.float64]

_LATE_DAYS = 30  # from this lead horizon on the newest known labels are old news
_AGES = 0.005  # log loss that refits must save for a word about it
_DRIFTS = 0.05  # change of the base rate that is worth a word, beyond its noise
_NOISE = 3.0


@dataclass(frozen=True)
class Refit:
    """A bundle and the moment, int64 microseconds, of what it knows."""

    at: int
    bundle: LeadBundle


@dataclass(frozen=True)
class OutOfTime:
    """Uncalibrated predictions of leads by the newest fit before each, oldest first.

    Attributes
    ----------
    p, y : float64, shape (m,)
        Probabilities, and outcomes 0 or 1.
    at : float64, shape (m,)
        When each was predicted, in days.
    """

    p: FloatArray
    y: FloatArray
    at: FloatArray

    def recalibrate(self, model: LeadModel, horizon: int) -> LeadModel:
        """The model with the line that these teach, where such lines helped among them."""
        return model.recalibrate(
            self.p, self.y, at=self.at, wait=float(horizon), late=horizon >= _LATE_DAYS
        )


def refits_between(
    history: History, start: int, stop: int, horizon: int, recipe: Recipe, count: int,
    first: LeadBundle,
) -> list[Refit]:  # fmt: skip
    """`count` fits at even distances over [start, stop), int64 microseconds; `first` at start."""
    moments = np.linspace(start, stop, count, endpoint=False).astype(np.int64)[1:].tolist()
    later = [Refit(m, fit_leads(history, m, horizon, recipe)) for m in moments if m > start]
    return [Refit(start, first), *later]


def out_of_time(
    history: History, refits: Sequence[Refit], stop: int, until: int, horizon: int, limit: int
) -> OutOfTime:
    """Leads between the first refit and `stop` whose outcome was known by `until`.

    `limit` is the most landmarks a refit is asked about.
    """
    ends = [*(r.at for r in refits[1:]), stop]
    parts = [
        (refit.bundle, _in_order(lead_rows(history, refit.at, end, until, horizon, limit=limit)))
        for refit, end in zip(refits, ends, strict=True)
    ]
    return OutOfTime(
        np.concatenate(
            [
                b.model.predict(compute(rows.snapshot, b.features), calibrated=False)
                for b, rows in parts
            ]
        ),
        np.concatenate([rows.label for _, rows in parts]),
        np.concatenate([rows.snapshot.at / DAY for _, rows in parts]),
    )


def _in_order(rows: LeadRows) -> LeadRows:
    """The same landmarks, oldest first: calibrators look at the newest."""
    order = np.argsort(rows.snapshot.at, kind="stable")
    return LeadRows(rows.snapshot.take(order), rows.label[order], rows.lead[order])


def ageing_note(once: OutOfTime, again: OutOfTime, count: int, made_times: bool) -> str | None:
    """A word where one fit for the whole slice does worse than `count` fits within it.

    `made_times`: days mean nothing in these records.
    """
    if len(once.y) == 0 or len(again.y) == 0:
        return None
    stale, fresh = measures.log_loss(once.p, once.y), measures.log_loss(again.p, again.y)
    if stale - fresh < _AGES:
        return None
    leads, days = len(once.y) / count, float(np.ptp(once.at)) / count
    often = f"{leads:,.0f} leads" if made_times else f"{max(days, 1):.0f} days"
    return (
        f"This model ages: fitted once for the whole newest slice its log loss is {stale:.3f}, "
        f"with {count} fits within the slice {fresh:.3f}. Train at least every {often}"
    )


def drift_note(before: LeadRows, later: LeadRows) -> str | None:
    """A word where the share of qualified leads has moved by more than noise."""
    if len(before.label) == 0 or len(later.label) == 0:
        return None
    was, now = float(before.label.mean()), float(later.label.mean())
    noise = sum(
        r * (1 - r) / len(np.unique(rows.lead)) for r, rows in ((was, before), (now, later))
    )
    if abs(now - was) < max(_DRIFTS, _NOISE * float(np.sqrt(noise))):
        return None
    return (
        f"The share of qualified leads moved from {was:.1%} before the newest slice to {now:.1%} "
        "in it: probabilities lag behind such a move until the next training"
    )
