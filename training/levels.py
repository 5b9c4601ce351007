"""How past weeks went: wins that the deal model expected of open deals, and those that came."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from data.history import WON, History
from data.timelines import DAY
from models.hazard_table import incidence, read_curve
from scoring.bundles import DealBundle
from scoring.stand_ins import deal_columns
from training.examples import landmarks

__all__ = ["wins_by_week"]

FloatArray = npt.NDArray[np.float64]

_WEEKS = 26  # how far back shocks are learnt from
_WEEK = 7
_MOST_LANDMARKS = 8_000


def wins_by_week(
    history: History, bundle: DealBundle, until: int, seed: int = 0
) -> tuple[FloatArray, FloatArray]:
    """Wins that were expected, and that came, in the 26 weeks before `until`.

    Each deal is looked at every seventh midnight, on a weekday of its own: what the deals of a
    Monday have in common is no shock. Each look sees what was known then, and the seven days
    after it, day by day. Of more than 8,000 looks those of a random part of the deals are taken.

    Parameters
    ----------
    until : int
        int64 microseconds; what became known later does not count.

    Returns
    -------
    expected, won : float64, shape (26,)
        Oldest week first; only deals that were open at their look count in either.
    """
    start = until - _WEEK * _WEEKS * DAY
    marks = landmarks(history, "deal", start, until, until, DAY, entry=False)
    looked = np.flatnonzero(marks.at // DAY % _WEEK == marks.row % _WEEK)
    if len(looked) > _MOST_LANDMARKS:
        share = _MOST_LANDMARKS / len(looked)
        taken = np.random.default_rng(seed).random(len(history.deals)) < share
        looked = looked[taken[marks.row[looked]]]
    expected, won = np.zeros(_WEEKS), np.zeros(_WEEKS)
    if len(looked) == 0:
        return expected, won
    row, at, end = marks.row[looked], marks.at[looked], marks.end[looked]
    local = bundle.calendar.local_days(at)
    cells = bundle.model.grid.cells(local, bundle.calendar.first_month).within(_WEEK)
    columns = deal_columns(history.landmarks("deal", row, at), bundle)
    curve = incidence(bundle.model.hazards(columns, cells))[:, :, 0]
    days = np.arange(1.0, _WEEK + 1.0)
    chance = np.diff(read_curve(curve, cells, days[None, :]), axis=1, prepend=0.0)
    day = at[:, None] + (days * DAY).astype(np.int64)  # the end of each day
    seen = day <= until
    np.add.at(expected, (day[seen] - start - 1) // (_WEEK * DAY), chance[seen])
    closed = (marks.outcome[looked] == WON) & (end - at <= _WEEK * DAY)
    np.add.at(won, np.minimum((end[closed] - start) // (_WEEK * DAY), _WEEKS - 1), 1.0)
    return expected, won
