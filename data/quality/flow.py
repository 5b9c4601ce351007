"""Checks of the flow: how records arrive, wait and close, and what of it the source can show."""

from __future__ import annotations

import numpy as np

from data.history import LOST, OPEN, WON
from data.quality.findings import (
    Check,
    Finding,
    View,
    date_text,
    number_text,
    share_text,
)
from data.timelines import DAY, NEVER, BoolArray, IntArray

__all__ = ["FLOW_CHECKS"]

_MINUTE = 60_000_000  # microseconds
_FEW_OUTCOMES = 30
_INSTANT = 10 / 1440  # days


def _bursts(view: View, times: IntArray) -> tuple[BoolArray, IntArray, IntArray] | None:
    """Moments at which far more happened than usual.

    A moment is five minutes, or a day where times have no clock.

    Returns
    -------
    (inside (n,), start of each burst, size of each burst), largest first; None for no burst.
    """
    tick = view.tick(times)
    step, least = (DAY, 20) if tick == DAY else (5 * _MINUTE, 10)
    known = np.flatnonzero(times != NEVER)
    if len(known) == 0:
        return None
    cells, place, counts = np.unique(times[known] // step, return_inverse=True, return_counts=True)
    big = counts >= max(least, 10 * float(np.median(counts)))
    if not big.any():
        return None
    inside = np.zeros(len(times), dtype=bool)
    inside[known[big[place]]] = True
    order = np.argsort(-counts[big], kind="stable")
    return inside, (cells[big] * step)[order], counts[big][order]


def _moment_text(view: View, moment: int, times: IntArray) -> str:
    if view.tick(times) == DAY:
        return date_text(moment)
    minute = np.datetime64(int(moment), "us").astype("datetime64[m]")
    return str(minute).replace("T", " ") + " UTC"


def _bulk_closings(view: View) -> Finding | None:
    # What closes within minutes of its creation came in as it is: no bulk closing.
    slow = np.where(view.cycles < _INSTANT, NEVER, view.closed_at)
    found = _bursts(view, slow)
    if found is None:
        return None
    inside, starts, sizes = found
    closed = int(view.closed.sum())
    step = DAY if view.tick(view.closed_at) == DAY else 5 * _MINUTE
    at = np.where(view.closed, view.closed_at, 0)
    largest = inside & (at // step == starts[0] // step)
    n, lost = int(inside.sum()), int((inside & (view.last_event == LOST)).sum())
    hours, times = np.unique(starts % DAY // (DAY // 24), return_counts=True)
    daily = step < DAY and len(starts) >= 5 and times.max() >= 0.8 * len(starts)
    owners = {o for o in view.table["owner_id"][largest] if o is not None}
    return view.finding(
        "warning" if n >= 0.01 * closed else "info",
        f"{view.count(n)} closed in {len(starts)} bulk actions ({number_text(lost)} of them "
        f"{view.words[1]}), the largest of {number_text(int(sizes[0]))} on "
        f"{_moment_text(view, int(starts[0]), view.closed_at)}"
        + (f", mostly around {hours[times.argmax()]:02d}:00 UTC, as by a job" if daily else "")
        + ": probably decided some time before",
        "if a rule closes what has been silent for long, all is well as long as it stays; else "
        "close records when they are decided, or import the true time: until then cycles look too "
        "long, and the model learns from a wave that will not come again",
        examples=largest,
        records=n,
        moments=len(starts),
        owners_in_largest=len(owners),
    )


def _mass_creation(view: View) -> Finding | None:
    found = _bursts(view, view.created)
    if found is None:
        return None
    inside, starts, sizes = found
    return view.finding(
        "warning" if inside.sum() >= 0.01 * len(view) else "info",
        f"{view.count(int(inside.sum()))} created in {len(starts)} bulk actions, the largest of "
        f"{number_text(int(sizes[0]))} on "
        f"{_moment_text(view, int(starts[0]), view.created)}: probably imports into the CRM, so "
        "that their age is wrong and their arrival is no demand",
        "map the original creation time, which most CRMs keep in a field of their own",
        examples=inside,
        records=int(inside.sum()),
        moments=len(starts),
    )


def _instant_closings(view: View) -> Finding | None:
    cycles = view.cycles
    closed = int((~np.isnan(cycles)).sum())
    quick = cycles < _INSTANT
    if view.tick(view.closed_at) == DAY or quick.sum() < max(10, 0.05 * closed):
        return None
    n, won = int(quick.sum()), int((quick & (view.last_event == WON)).sum())
    return view.finding(
        "info",
        f"{number_text(n)} of {number_text(closed)} closed {view.noun} closed within ten minutes "
        f"of their creation ({share_text(n, closed)}; {number_text(won)} of them {view.words[0]}): "
        "no score can come in time for them",
        "judge scores on the others; if they were typed in only once decided, ask the team to "
        "enter records when work begins",
        examples=quick,
        records=n,
        won=won,
    )


def _zombies(view: View) -> Finding | None:
    known = view.cycles[~np.isnan(view.cycles)]
    if len(known) < 50:
        return None
    limit = float(np.quantile(known, 0.99))
    waiting = view.still_open & view.timed
    age = np.where(waiting, view.until - np.where(waiting, view.created, 0), 0) / DAY
    old = age > 1.25 * max(limit, 1.0)
    n = int(old.sum())
    if n < 3:
        return None
    return view.finding(
        "warning" if n >= 0.05 * waiting.sum() else "info",
        f"{number_text(n)} of {number_text(int(waiting.sum()))} open {view.noun} are older than "
        f"nearly all that ever closed (99 % closed within {limit:.0f} days; these are "
        f"{age[old].min():.0f} to {age[old].max():.0f} days old)",
        "close what is dead, at the date it died; nothing in the data says how such records end, "
        "so their probability is a guess",
        examples=np.flatnonzero(old)[np.argsort(-age[old], kind="stable")],
        records=n,
        closed_within_days=round(limit, 1),
    )


def _left_truncated(view: View) -> Finding | None:
    since = view.history.observed_from
    older = view.timed & (view.created < since)
    n = int(older.sum())
    if since == -NEVER or n == 0:
        return None
    return view.finding(
        "info",
        f"closings before {date_text(since)} are not in the source: {number_text(n)} {view.noun} "
        "created earlier are there only because they lasted, and count from that day on",
        "nothing to do; import older closings if there are any",
        examples=older,
        records=n,
    )


def _truncation_suspected(view: View) -> Finding | None:
    if view.history.observed_from != -NEVER or not view.closed.any():
        return None
    first = int(view.closed_at[view.closed].min())
    # How long records last is read from those that could be seen to close at any age.
    fair = view.cycles[view.timed & (view.created >= first)]
    fair = np.sort(fair[~np.isnan(fair)])
    before = view.created[view.timed & (view.created < first)]
    if len(fair) < 50 or len(before) < 20:
        return None
    expected = float((np.searchsorted(fair, (first - before) / DAY) / len(fair)).sum())
    if expected < 10:
        return None
    return view.finding(
        "warning",
        f"no {view.side} closed before {date_text(first)}, although "
        f"{number_text(len(before))} were created before and about {number_text(expected)} of "
        "them should have: closed records of that time seem to be missing",
        f"set observed_from = {date_text(first)} in the [source] of the mapping, or import the "
        "older closings; else the survivors make cycles look long",
        records=len(before),
        closings_expected=round(expected, 1),
    )


def _last_period(view: View) -> Finding | None:
    # Both sides end at the same moment: told once.
    if view.until == 0 or (view.side == "lead" and len(view.history.deals)):
        return None
    until = np.datetime64(view.until, "us")
    cut = {}
    for kind in ("week", "month", "quarter"):
        period = view.calendar.periods(kind, until, 1)[0]
        if period.start < until:
            cut[kind] = period.name
    if not cut:
        return None
    names = ", ".join(f"{kind} {name}" for kind, name in cut.items())
    return view.finding(
        "info",
        f"the data end on {date_text(view.until)}, inside {names}: what these show is partial",
        "nothing to do; do not read the totals of these periods as a decline",
        observed_until=str(until) + "Z",
    )


def _ends_before_export(view: View) -> Finding | None:
    events = view.ledger
    times = np.concatenate([view.created, view.closed_at, events.stages.at, events.activities.at])
    days = np.unique(times[(times != NEVER) & (times <= view.until)] // DAY)
    if len(days) < 10:
        return None
    silence = view.until // DAY - int(days[-1])
    usual = int(np.diff(days).max())
    if silence <= max(14, 2 * usual):
        return None
    return view.finding(
        "warning",
        f"nothing happened to {view.noun} in the last {silence} days before the export: the data "
        "seem to end earlier than they say",
        "set exported_at to when the data were really written; else open records look "
        f"{silence} days more stale than they are",
        last_event=date_text(int(days[-1]) * DAY),
        observed_until=date_text(view.until),
    )


def _empty_weeks(view: View) -> Finding | None:
    known = view.created[view.timed]
    if len(known) == 0:
        return None
    weeks = np.floor((view.calendar.local_days(known) + 3) / 7).astype(np.int64)
    found, counts = np.unique(weeks, return_counts=True)
    missing = np.setdiff1d(np.arange(found[0], found[-1] + 1), found)
    if len(missing) == 0 or np.median(counts) < 8:
        return None
    starts = [date_text(int(w * 7 - 3) * DAY) for w in missing[:3]]
    return view.finding(
        "warning",
        f"{len(missing)} of {found[-1] - found[0] + 1} weeks have no new {view.side} at all, "
        f"although {np.median(counts):.0f} a week are usual (weeks of {', '.join(starts)}"
        f"{', ...' if len(missing) > 3 else ''})",
        "see whether a part of the export is missing; if the pause was real, it counts as a slow "
        "time for new business",
        weeks=len(missing),
        usual_per_week=float(np.median(counts)),
    )


def _one_outcome(view: View) -> Finding | None:
    won, lost = int((view.outcome == WON).sum()), int((view.outcome == LOST).sum())
    if (won and lost) or won + lost < 10:
        return None
    there, absent = view.words if won else view.words[::-1]
    return view.finding(
        "severe",
        f"all {number_text(won + lost)} closed {view.noun} are {there}, none is {absent}: nothing "
        "can be learned about what tells them apart",
        f"export {absent} {view.noun} too, and check how the outcome is mapped",
        closed=won + lost,
    )


def _few_outcomes(view: View) -> Finding | None:
    won, lost = int((view.outcome == WON).sum()), int((view.outcome == LOST).sum())
    rarer = min(won, lost)
    if rarer >= _FEW_OUTCOMES or (rarer == 0 and max(won, lost) >= 10):
        return None
    return view.finding(
        "warning",
        f"only {won} {view.words[0]} and {lost} {view.words[1]} {view.noun}: rates can be learned, "
        "leaning on priors; the effect of single fields hardly",
        "import older records if there are any; scores say how much of them is prior, and sharpen "
        f"from about {_FEW_OUTCOMES} of each on",
        won=won,
        lost=lost,
    )


def _mature_cohorts(view: View) -> tuple[IntArray, IntArray]:
    """Ten groups of records in order of creation, old enough to have closed: (wins, closed)."""
    fair = view.timed & view.closed & (view.created >= view.history.observed_from)
    if not view.ledger.pseudo_times:
        known = view.cycles[~np.isnan(view.cycles)]
        wait = float(np.quantile(known, 0.95)) if len(known) else 0.0
        fair &= view.created <= view.until - wait * DAY
    rows = np.flatnonzero(fair)
    rows = rows[np.argsort(view.created[rows], kind="stable")]
    parts = np.array_split(view.last_event[rows] == WON, 10)
    return np.array([p.sum() for p in parts]), np.array([len(p) for p in parts])


def _drift(view: View) -> Finding | None:
    wins, closed = _mature_cohorts(view)
    if closed.min() < 50:
        return None
    rates = wins / closed
    low, high = float(rates.min()), float(rates.max())
    error = np.sqrt((rates * (1 - rates) / closed)[[rates.argmin(), rates.argmax()]].sum())
    if high < 2 * low or high - low < max(0.05, 4 * error):
        return None
    shown = ", ".join(f"{100 * r:.0f}" for r in rates)
    return view.finding(
        "warning",
        f"the share of {view.words[0]} among closed {view.noun} moved between {100 * low:.0f} % "
        f"and {100 * high:.0f} % over time (by tenth, oldest first: {shown} %)",
        "retrain often and judge on the newest records; look for a change of process, market or "
        "definition that explains it",
        rates=[round(float(r), 4) for r in rates],
    )


def _none_open_yet(view: View) -> Finding | None:
    rows = np.flatnonzero(view.timed)
    newest = rows[np.argsort(view.created[rows], kind="stable")][-(len(rows) // 10) :]
    if len(rows) < 100 or (view.outcome[newest] == OPEN).any():
        return None
    if not view.ledger.pseudo_times:
        slow = view.cycles[(view.last_event == WON) & ~np.isnan(view.cycles)]
        if len(slow) < 10 or view.until - view.created[newest[0]] > np.quantile(slow, 0.9) * DAY:
            return None
    return view.finding(
        "info" if view.ledger.pseudo_times else "warning",
        "not even the newest leads are open: if `disqualified` only means `not qualified yet`, "
        "they are counted as failures before their time",
        "map outcome to `open` for leads that nobody has decided; if each one is decided at once, "
        "all is well",
        newest=len(newest),
    )


def _quarter_end(view: View) -> Finding | None:
    if view.closed.sum() < 200:
        return None
    days = np.floor(view.calendar.local_days(view.closed_at[view.closed])).astype(np.int64)
    months, quarters = view.calendar.marks
    quarter_of = np.searchsorted(quarters, days, side="right")
    place = np.searchsorted(months, days, side="right") - 1
    place -= np.searchsorted(months, quarters[quarter_of - 1])
    won = view.last_event[view.closed] == WON
    gaps = []
    for quarter in np.unique(quarter_of):
        last = (quarter_of == quarter) & (place == 2)
        others = (quarter_of == quarter) & (place < 2)
        if last.sum() >= 20 and min((others & (place == p)).sum() for p in (0, 1)) >= 20:
            gaps.append(won[last].mean() - won[others].mean())
    if len(gaps) < 3 or min(gaps) <= 0.0 or np.median(gaps) < 0.1:
        return None
    gap = float(np.median(gaps))
    return view.finding(
        "info",
        f"of the {view.noun} that close in the last month of a fiscal quarter, more are won: by "
        f"{100 * gap:.0f} points, in each of {len(gaps)} quarters",
        "make sure that the fiscal calendar in the settings is right: the model knows the place of "
        "a day in its quarter from it",
        quarters=len(gaps),
        median_gap=round(gap, 3),
    )


def _reopened(view: View) -> Finding | None:
    events = view.ledger.outcomes
    again = np.bincount(events.row[events.value == OPEN], minlength=len(view)) > 0
    n = int(again.sum())
    if n < max(3, 0.005 * len(view)):
        return None
    return view.finding(
        "info",
        f"{view.count(n)} reopened after closing ({share_text(n, len(view))})",
        "nothing to do: won revenue is taken back on the day of the reopening; many of them "
        "suggest that closing is used for something else",
        examples=again,
        records=n,
    )


FLOW_CHECKS = (
    Check("DQ201", _bulk_closings),
    Check("DQ202", _mass_creation),
    Check("DQ203", _instant_closings),
    Check("DQ204", _zombies),
    Check("DQ205", _left_truncated),
    Check("DQ206", _truncation_suspected),
    Check("DQ207", _last_period),
    Check("DQ208", _ends_before_export),
    Check("DQ209", _empty_weeks),
    Check("DQ210", _one_outcome, timed=False),
    Check("DQ211", _few_outcomes, timed=False),
    Check("DQ212", _drift, timed=False),
    Check("DQ213", _none_open_yet, sides=("lead",), timed=False),
    Check("DQ214", _quarter_end, sides=("deal",)),
    Check("DQ215", _reopened),
)
