"""The table that every sales manual asks for: stage by stage, how deals fare and how long it takes.

And what is typical of deals that were won: from there on, a deal that lingers is told as stalled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.events import rank_within, spread
from data.history import WON
from data.pipeline import OpenStages, open_stages
from data.timelines import DAY, NEVER
from models.arrivals import aalen_johansen
from scoring.books import LOST_HERE, ON, WON_HERE, Books

__all__ = ["Limits", "StageRow", "limits", "stage_table"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_LEAST = 10  # stays from which something typical of a stage is learnt
_TYPICAL = 0.9  # share of won deals that are faster than a limit
UNKNOWN = "unknown"


@dataclass(frozen=True)
class StageRow:
    """One stage of one pipeline, as of a moment.

    Attributes
    ----------
    win_probability, low, high : float or None
        Learnt chance that a deal in the stage is won, with its 80 % range; None without a model.
    closed : int or None
        Closed deals behind it.
    conversion : float or None
        Share of deals that came into the stage and later reach a later one, or are won; deals of
        which that is still open are allowed for.
    decided : int
        Deals that have gone on, or were lost before, behind the conversion.
    median_days : float or None
        Days after which half of the deals have left the stage, deals that are still there
        allowed for; None where fewer than half have.
    stays : int
        Stays that have ended, behind the days: a deal may come back.
    open_deals, open_cents : int
        What is in it now.
    """

    pipeline_id: str
    stage_id: str
    name: str
    win_probability: float | None
    low: float | None
    high: float | None
    closed: int | None
    conversion: float | None
    decided: int
    median_days: float | None
    stays: int
    open_deals: int
    open_cents: int


def stage_table(books: Books) -> tuple[StageRow, ...]:
    """Every open stage, pipeline by pipeline in order; last, deals whose stage is not known."""
    stage = books.history.tables["stage"]
    levels = [str(s) for s in books.history.deals.stage_levels]
    declared = open_stages(stage, levels)
    pipelines = [*np.unique(stage["pipeline_id"].astype(str)).tolist(), UNKNOWN]
    labels = {str(s): n for s, n in zip(stage["stage_id"], stage["name"], strict=True) if n}
    code_of = {level: code for code, level in enumerate(levels)}
    place = _places(levels, declared)
    now = books.open.stage
    rows = []
    for i, name in enumerate(declared.names):
        code = code_of.get(name, -2)
        conversion, decided = _conversion(books, code, place)
        days, stays = _days(books, code)
        rate = {} if books.bundle is None else books.bundle.stage_rates.get(name, {})
        here = now == code
        rows.append(
            StageRow(
                pipelines[declared.pipeline[i]],
                name,
                labels.get(name, name),
                rate.get("rate"),
                rate.get("low"),
                rate.get("high"),
                int(rate["n"]) if rate else None,
                conversion,
                decided,
                days,
                stays,
                int(here.sum()),
                int(books.open_cents[here].sum()),
            )
        )
    lost = now < 0
    if lost.any():
        cents = int(books.open_cents[lost].sum())
        none = (None,) * 5
        rows.append(StageRow(UNKNOWN, UNKNOWN, UNKNOWN, *none, 0, None, 0, int(lost.sum()), cents))
    return tuple(rows)


def _places(levels: list[str], declared: OpenStages) -> IntArray:
    """Place of each stage level in its pipeline; -1 for one that no pipeline declares."""
    order = {name: i for i, name in enumerate(declared.names)}
    return np.array([order.get(level, -1) for level in levels], dtype=np.int64)


def _days(books: Books, code: int) -> tuple[float | None, int]:
    """Median days of a stay in a stage, and how many stays have ended."""
    stays = books.stays
    mine = stays.stage == code
    left = (stays.to[mine] != ON).astype(np.int64)
    begin, end = stays.begin[mine], stays.end[mine]
    ages, curve = aalen_johansen(_unseen(books, begin), (end - begin) / DAY, left)
    reached = len(ages) > 0 and curve[-1, 0] >= 0.5
    return float(ages[np.searchsorted(curve[:, 0], 0.5)]) if reached else None, int(left.sum())


def _conversion(books: Books, code: int, place: IntArray) -> tuple[float | None, int]:
    """Share of deals that go on from a stage, and how many have, or were lost before."""
    stays = books.stays
    own = place[code] if code >= 0 else -1
    begin = np.full(len(books.history.deals), NEVER, dtype=np.int64)
    mine = stays.stage == code
    np.minimum.at(begin, stays.row[mine], stays.begin[mine])
    entered = np.flatnonzero(begin != NEVER)
    since = begin[stays.row]
    moved = (np.append(place, -1)[stays.stage] > own) & (stays.begin > since)
    forward = _first(stays.row[moved], stays.begin[moved], len(begin))
    won = (stays.to == WON_HERE) & (stays.end >= since)
    forward = np.minimum(forward, _first(stays.row[won], stays.end[won], len(begin)))[entered]
    lost = (stays.to == LOST_HERE) & (stays.end >= since)
    lost_at = _first(stays.row[lost], stays.end[lost], len(begin))[entered]
    gone = np.minimum(books.history.deals.gone_at[entered], books.now)
    end = np.minimum(np.minimum(forward, lost_at), gone)
    outcome = np.where(end == forward, 1, np.where(end == lost_at, 2, 0))
    start = begin[entered]
    ages, curve = aalen_johansen(_unseen(books, start), (end - start) / DAY, outcome)
    decided = int((outcome > 0).sum())
    if not len(ages):
        return None, decided
    return float(curve[-1, 0] / curve[-1].sum()), decided


def _unseen(books: Books, begin: IntArray) -> FloatArray:
    """Days from each beginning until closings are recorded at all."""
    return np.asarray((np.maximum(begin, books.history.observed_from) - begin) / DAY)


def _first(row: IntArray, at: IntArray, n: int) -> IntArray:
    """The first of some moments of each of `n` records; NEVER for none."""
    found = np.full(n, NEVER, dtype=np.int64)
    np.minimum.at(found, row, at)
    return found


@dataclass(frozen=True)
class Limits:
    """After how long a deal is stalled, by stage code; NaN where nothing says. Shape (levels,).

    Attributes
    ----------
    days : float64
        In the stage: nine in ten stays of deals that were won were shorter.
    idle : float64
        Without any activity: `rotten_after_days` where the stage declares it, else what nine in
        ten stays of deals that were won never reached. Nothing is learnt where no activities of
        deals are recorded.
    """

    days: FloatArray
    idle: FloatArray


def limits(books: Books) -> Limits:
    """What is typical of deals that were won, as known now; ten stays tell, fewer do not."""
    levels = [str(s) for s in books.history.deals.stage_levels]
    stage = books.history.tables["stage"]
    declared = dict(
        zip(stage["stage_id"].astype(str), stage["rotten_after_days"].tolist(), strict=True)
    )
    stays = books.stays
    won = books.closed.deals.rows[books.closed.deals.outcome == WON]
    mine = np.flatnonzero((stays.to != ON) & np.isin(stays.row, won))
    length = (stays.end[mine] - stays.begin[mine]) / DAY
    worked = bool((books.history.deals.activities.known_at <= books.now).any())
    quiet = _longest_pause(books, stays.row[mine], stays.begin[mine], stays.end[mine])
    days, idle = np.full(len(levels), np.nan), np.full(len(levels), np.nan)
    for code, level in enumerate(levels):
        here = stays.stage[mine] == code
        idle[code] = declared.get(level, np.nan)
        if here.sum() >= _LEAST:
            days[code] = np.quantile(length[here], _TYPICAL)
            if worked and np.isnan(idle[code]):
                idle[code] = np.quantile(quiet[here], _TYPICAL)
    return Limits(days, idle)


def _longest_pause(books: Books, row: IntArray, begin: IntArray, end: IntArray) -> FloatArray:
    """Longest time without activity inside each stay, in days."""
    activities = books.history.deals.activities
    known = np.flatnonzero(activities.known_at <= books.now)
    known = known[np.lexsort((activities.at[known], activities.row[known]))]
    who, at = activities.row[known], activities.at[known]
    lo, hi = np.searchsorted(who, row), np.searchsorted(who, row, side="right")
    lo, hi = rank_within(at, lo, hi, begin, "left"), rank_within(at, lo, hi, end, "right")
    which, position = spread(lo, hi)
    stay = np.concatenate([np.arange(len(row)), np.arange(len(row)), which])
    moment = np.concatenate([begin, end, at[position]])
    order = np.lexsort((moment, stay))
    stay, moment = stay[order], moment[order]
    longest = np.zeros(len(row), dtype=np.int64)
    same = stay[1:] == stay[:-1]
    np.maximum.at(longest, stay[1:][same], np.diff(moment)[same])
    return longest / DAY
