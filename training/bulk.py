"""Bulk closings: many losses told in one moment were decided some time before it.

A clean-up of the pipeline says when it was done, not when each deal was lost: the loss lies
somewhere between the deal's last sign of life and the clean-up. Learnt as it stands, such a wave
would teach that losses come in waves on a date that will not come again, and that silent deals
stay open until then.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from data.history import LOST, Snapshot
from data.timelines import DAY
from models.deal import DealRows

__all__ = ["spread_bulk_losses"]

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_MOMENT = 5 * 60 * 1_000_000  # five minutes, in microseconds
_LEAST, _LEAST_A_DAY = 10, 20  # losses in one moment, in one day where times have no clock
_TIMES_USUAL = 10.0
# On so many days it is a rule that lasts, such as a nightly job: its moments will come again.
_LASTING = 5


def spread_bulk_losses(rows: DealRows, snapshot: Snapshot, seed: int = 0) -> DealRows:
    """The same landmarks, with losses of single bulk actions drawn back in time.

    For a landmark of a deal lost in a bulk action the time of loss is drawn uniformly between the
    deal's last sign of life (an activity or a move), or the landmark where that is later, and the
    action. Wins, other losses and lasting rules are left as they are.

    Parameters
    ----------
    snapshot : Snapshot
        Where the landmarks stand, row by row.
    """
    end = snapshot.at + np.round(rows.time * DAY).astype(np.int64)
    lost = rows.outcome == LOST
    _, first = np.unique(rows.deal[lost], return_index=True)
    bulk = lost & _in_bulk(end, end[lost][first])
    if not bulk.any():
        return rows
    part, until = snapshot.take(np.flatnonzero(bulk)), end[bulk]
    since = np.maximum(_last_sign(part, until), part.at)
    # One draw a deal: its landmarks tell one story.
    deals, place = np.unique(rows.deal[bulk], return_inverse=True)
    u = np.random.default_rng(seed).random(len(deals))[place]
    time = rows.time.copy()
    time[bulk] = (since + u * (until - since) - part.at) / DAY
    return replace(rows, time=time)


def _in_bulk(end: IntArray, losses: IntArray) -> BoolArray:
    """Which ends lie in a moment of far more losses than usual; `losses` has one end a deal."""
    daily = len(losses) > 0 and bool((losses % DAY == losses[0] % DAY).all())
    step, least = (DAY, _LEAST_A_DAY) if daily else (_MOMENT, _LEAST)
    cells, counts = np.unique(losses // step, return_counts=True)
    usual = float(np.median(counts)) if len(counts) else 0.0
    big = cells[counts >= max(least, _TIMES_USUAL * usual)]
    if len(np.unique(big * step // DAY)) >= _LASTING:
        return np.zeros(len(end), dtype=bool)
    return np.isin(end // step, big)


def _last_sign(snapshot: Snapshot, until: IntArray) -> IntArray:
    """When each deal last did anything before its end, int64 microseconds."""
    before = snapshot.history.landmarks("deal", snapshot.rows, until - 1)
    events = before.ledger.activities
    last = events.latest(*before.seen(events))
    active = np.where(last >= 0, np.append(events.at, 0)[last], snapshot.at)
    # An activity may be dated after the moment it was recorded, a stage is never unknown later.
    return np.minimum(np.maximum(active, np.minimum(before.stage_began, until)), until)
