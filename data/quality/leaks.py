"""Checks of what was known when: stage and field histories, and fields that know the outcome.

The leak checks look at values as they stand today, closed records against each other: a first,
simple sign. `training.leaks` judges fields as they were known at the moment of scoring.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.history import LOST, OPEN, WON
from data.quality.findings import (
    Check,
    Finding,
    Severity,
    View,
    date_text,
    listed,
    number_text,
    share_text,
)
from data.timelines import DAY, NEVER, BoolArray, Column, FloatArray, IntArray, micros

__all__ = ["LEAK_CHECKS", "field_names"]

_DECIDES, _SUSPECT = 0.9, 0.8  # AUC of one field alone
_MISSING_GAP = 0.3
_LEAST = 20  # records of each outcome
_BINS = 20

# Known afterwards by definition, or moments and states that the ledger keeps a history of.
_AFTERWARDS = {
    "closed_amount", "loss_reason", "disqualification_reason", "converted_deal_id", "status",
    "merged_into_id",
}  # fmt: skip
# The CRM's or the rep's running judgement: it changes by nature, and never is static.
_CHANGING = {"probability", "forecast_category", "expected_close_date", "competitor", "rating"}


def field_names(view: View) -> list[str]:
    """Fields and attributes with values that tell something about a record beforehand."""
    columns = view.table.entity.by_name
    return [
        name
        for name in view.ledger.fields
        if name not in _AFTERWARDS
        and not (name in columns and columns[name].personal)
        # A lead gets its account when it is qualified; no feature reads it.
        and (view.side, name) != ("lead", "account_id")
    ]


# --- histories -------------------------------------------------------------------------------


def _no_stage_history(view: View) -> Finding | None:
    stages = view.ledger.stages
    moves = np.diff(stages.start)
    if (moves >= 2).any():
        return None
    names = len(np.unique(stages.value))
    said = f"no {view.side} is seen in more than one" if names else "no stages at all"
    return view.finding(
        "warning",
        f"there is no stage history ({said}): a past pipeline can be rebuilt with one stage only, "
        "and the current stage teaches nothing",
        "import the CRM's stage history (stage_change); if it keeps none, import an export every "
        "week: dealcast then records the moves it sees",
        stages=names,
    )


def _partial_stage_history(view: View) -> Finding | None:
    moved = np.diff(view.ledger.stages.start)
    if not (moved >= 2).any() or view.closed.sum() < 50:
        return None
    table = view.events("stage_change")
    rows, at = view.rows_of(table["entity_id"]), micros(table["changed_at"])
    told = np.zeros(len(view), dtype=bool)
    told[rows[rows >= 0]] = True
    fair = view.closed & view.timed
    if not fair.any():
        return None
    share = float(told[fair].mean())
    first, begin = int(at.min()), int(view.created[view.timed].min())
    span = max(view.until - begin, 1)
    if share >= 0.8 and first - begin <= 0.2 * span:
        return None
    return view.finding(
        "warning",
        f"stage history covers {share_text(share, 1.0)} of the closed {view.noun} and begins on "
        f"{date_text(first)}; the first {view.side} is of {date_text(begin)}",
        "import the stage history for all records, or only records created since it is kept",
        examples=fair & ~told,
        covered=round(share, 4),
    )


def _present(column: Column) -> BoolArray:
    """Where a column has a value."""
    found = column.values >= 0 if column.kind == "text" else ~np.isnan(column.values)
    return np.asarray(found)


def _unseen(view: View, name: str) -> bool:
    """Whether the field's values were invisible while most of the closed records were open."""
    line = view.ledger.timeline(name)
    told = view.closed & view.timed & _present(line.base)
    late = told & (line.base_at >= view.closed_at)
    if line.changes is not None:  # what was seen to change was known in between
        late &= np.diff(line.changes.start) == 0
    return bool(told.any() and late.sum() >= 0.5 * told.sum())


def _invisible_fields(view: View) -> Finding | None:
    knowing = {s.name for s in _separations(view) if s.auc >= _SUSPECT or s.gap >= _MISSING_GAP}
    silent = [
        name
        for name in field_names(view)
        if not view.fact(name, "excluded")
        and name not in knowing
        and _levels(view, name) > 1
        and _unseen(view, name)
    ]
    if not silent:
        return None
    return view.finding(
        "info" if _CHANGING.issuperset(silent) else "warning",
        f"nothing can be learned from fields of {view.noun} that have neither a history nor the "
        f"word that they never change: {listed(silent)}",
        "list under `static` in the [source] of the mapping those that are known at creation and "
        "never change; import the history of the others, or an export every week",
        fields=silent,
    )


def _levels(view: View, name: str) -> int:
    """How many different values a field has today, missing not counted."""
    column = _today(view, name)
    return len(np.unique(column.values[_present(column)]))


def _today(view: View, name: str) -> Column:
    """A field's values as the rows say them now."""
    return view.ledger.timeline(name).at(
        np.arange(len(view)), np.full(len(view), NEVER - 1, dtype=np.int64)
    )


def _static_but_changed(view: View) -> Finding | None:
    changes = view.ledger.changes
    found: dict[str, int] = {}
    rows = []
    for name in np.unique(changes["field"].astype(str)):
        sources = {f.name for f in view.history.facts if name in f.static.get(view.side, ())}
        picked = (changes["field"] == name) & np.isin(changes["source"].astype(str), list(sources))
        if sources and picked.any():
            found[str(name)] = int(picked.sum())
            rows.append(view.rows_of(changes["entity_id"][picked]))
    if not found:
        return None
    concerned = np.unique(np.concatenate(rows))
    names = ", ".join(f"{name} ({number_text(n)} times)" for name, n in found.items())
    return view.finding(
        "warning",
        f"fields that are declared never to change did change: {names}",
        "take them out of `static`; their history is used instead, from the day it is kept",
        examples=concerned[concerned >= 0],
        changes=found,
    )


# --- fields that know the outcome ------------------------------------------------------------


@dataclass(frozen=True)
class _Separation:
    """How well one field alone tells the outcomes of closed records apart.

    Attributes
    ----------
    auc : float
        Of a table of win rates by value, learnt on one half and judged on the other; less 1.64
        standard errors, so that few records prove nothing. 0.5 where it cannot be told.
    gap : float
        Largest difference of the share of missing values between two of won, lost and open.
    missing : tuple of float
        Share missing among won, lost and open; NaN where there are none.
    use : {"static", "invisible", "history", "excluded"}
        What the models may do with the field.
    """

    name: str
    auc: float
    gap: float
    missing: tuple[float, float, float]
    use: str


def _separations(view: View) -> list[_Separation]:
    if "separations" not in view.memory:
        enough = min((view.outcome == WON).sum(), (view.outcome == LOST).sum()) >= _LEAST
        names = field_names(view) if enough else []
        view.memory["separations"] = [_separate(view, name) for name in names]
    found: list[_Separation] = view.memory["separations"]
    return found


def _separate(view: View, name: str) -> _Separation:
    column = _today(view, name)
    present = _present(column)
    shares = tuple(
        float(1.0 - present[rows].mean()) if rows.sum() >= _LEAST else float("nan")
        for rows in (view.outcome == WON, view.outcome == LOST, view.still_open)
    )
    won, lost, still = shares
    # Missing more often while open: the field is filled in on closing. The other way round it
    # is a young field, which is no sign.
    gap = max(abs(won - lost), 0.0 if np.isnan(still) else still - max(won, lost))
    codes = _binned(column)
    decided = np.flatnonzero(view.outcome != OPEN)
    auc = _crossed_auc(codes[decided], view.outcome[decided] == WON)
    return _Separation(name, auc, gap, (won, lost, still), _use(view, name))


def _use(view: View, name: str) -> str:
    if view.fact(name, "excluded"):
        return "excluded"
    line = view.ledger.timeline(name)
    if view.fact(name, "static") and not _unseen(view, name):
        return "static"
    return "invisible" if line.changes is None else "history"


def _binned(column: Column) -> IntArray:
    """Codes of values: levels of a text, quantile bins of a number, the last code for missing."""
    if column.kind == "text":
        return np.where(column.values >= 0, column.values, len(column.levels)).astype(np.int64)
    present = ~np.isnan(column.values)
    values = column.values[present]
    if len(values) == 0:
        return np.zeros(len(column.values), dtype=np.int64)
    found = np.unique(values)
    edges = (
        found
        if len(found) <= _BINS
        else np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[:-1]))
    )
    codes = np.full(len(column.values), len(edges) + 1, dtype=np.int64)
    codes[present] = np.searchsorted(edges, values, side="right")
    return codes


def _crossed_auc(codes: IntArray, won: BoolArray) -> float:
    """AUC of shrunken win rates by code, each half judged by the other; the lower bound of it."""
    half = np.random.default_rng(0).permutation(len(codes)) % 2 == 0
    size = int(codes.max()) + 1 if len(codes) else 1
    scores: FloatArray = np.zeros(len(codes))
    for learn in (half, ~half):
        base = won[learn].mean() if learn.any() else 0.5
        n = np.bincount(codes[learn], minlength=size)
        k = np.bincount(codes[learn], weights=won[learn], minlength=size)
        scores[~learn] = ((k + 5.0 * base) / (n + 5.0))[codes[~learn]]
    bounds = []
    for judge in (half, ~half):
        here, there = int(won[judge].sum()), int((~won[judge]).sum())
        if min(here, there) < _LEAST // 2:
            return 0.5
        auc = _auc(scores[judge], won[judge])
        bounds.append(auc - 1.64 * np.sqrt(max(auc * (1 - auc), 0.0) / (2 * min(here, there))))
    return float(np.mean(bounds))


def _auc(scores: FloatArray, won: BoolArray) -> float:
    """Chance that a won record scores above a lost one, ties counting half."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2
    n = int(won.sum())
    return float((rank[place][won].sum() - n * (n + 1) / 2) / (n * (len(won) - n)))


def _value_knows(view: View) -> Finding | None:
    found = [
        s for s in _separations(view) if s.auc >= _SUSPECT and s.use in ("static", "invisible")
    ]
    if not found:
        return None
    static = [s for s in found if s.use == "static"]
    names = ", ".join(f"{s.name} (AUC {s.auc:.2f})" for s in static or found)
    good, bad = view.words
    decides = any(s.auc >= _DECIDES for s in static)
    told = f"tells {good} from {bad} {view.noun}: {names}"
    return view.finding(
        "severe" if decides else "warning" if static else "info",
        f"alone, a field that is declared static, so that the models believe it, {told}"
        if static
        else f"alone, the present value {told}; not declared static, so the past does not see it",
        "ask whether the value was there, unchanged, when the record was created: if it was "
        "written with or after the outcome, take it out of `static` and list it under `exclude`"
        if static
        else "never declare it static; to be safe, list it under `exclude`",
        fields={s.name: {"auc": round(s.auc, 3), "use": s.use} for s in found},
    )


def _absence_knows(view: View) -> Finding | None:
    found = [
        s for s in _separations(view) if s.gap >= _MISSING_GAP and s.use in ("static", "invisible")
    ]
    if not found:
        return None
    static = [s for s in found if s.use == "static"]
    good, bad = view.words
    told = "; ".join(
        f"{s.name} ({_percent(s.missing[0])} of {good}, {_percent(s.missing[1])} of {bad}, "
        f"{_percent(s.missing[2])} of open)"
        for s in found
    )
    mild: Severity = "warning" if static else "info"
    return view.finding(
        "severe" if any(s.gap >= 0.6 for s in static) else mild,
        f"an empty field gives the outcome of {view.noun} away; missing: {told}",
        "such a field is filled in while the record is worked, or when it closes: unless it was "
        "there at creation, take it out of `static`, and list it under `exclude`",
        fields={
            s.name: {
                "missing": dict(zip((good, bad, "open"), map(_plain, s.missing), strict=True)),
                "use": s.use,
            }
            for s in found
        },
    )


def _percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{100 * share:.0f} %"


def _plain(share: float) -> float | None:
    return None if np.isnan(share) else round(share, 4)


def _written_at_closing(view: View) -> Finding | None:
    changes = view.ledger.changes
    rows, at = view.rows_of(changes["entity_id"]), micros(changes["changed_at"])
    ok = (rows >= 0) & view.closed[rows]
    slack = DAY - 1 if view.tick(at) == DAY else 60_000_000
    near = ok & (np.abs(at - np.where(ok, view.closed_at[rows], 0)) <= slack)
    total = max(int(view.closed.sum()), 1)
    found = {}
    for name in np.unique(changes["field"][near].astype(str)):
        here = changes["field"] == name
        share = len(np.unique(rows[near & here])) / total
        if share >= 0.2 and name not in ("outcome", "stage_id", "closed_at", *_AFTERWARDS):
            found[str(name)] = round(share, 4)
    if not found:
        return None
    names = ", ".join(f"{name} ({100 * share:.0f} %)" for name, share in found.items())
    return view.finding(
        "info",
        f"fields that change in the moment of closing, and in how many of the closed {view.noun}: "
        f"{names}",
        "nothing to do as long as their history is imported; never declare them static, and "
        "never train on their present value",
        fields=found,
    )


def _rightly_excluded(view: View) -> Finding | None:
    found = [
        s
        for s in _separations(view)
        if s.use == "excluded" and (s.auc >= _SUSPECT or s.gap >= _MISSING_GAP)
    ]
    if not found:
        return None
    return view.finding(
        "info",
        f"excluded, and rightly so, as they give the outcome of {view.noun} away: "
        f"{listed([s.name for s in found])}",
        "nothing to do",
        fields={s.name: {"auc": round(s.auc, 3), "gap": round(s.gap, 3)} for s in found},
    )


def _close_date_overwritten(view: View) -> Finding | None:
    expected = micros(view.table["expected_close_date"])
    both = view.closed & (expected != NEVER)
    n = int(both.sum())
    if n < _LEAST or view.ledger.timeline("expected_close_date").changes is not None:
        return None
    gap = np.abs(np.where(both, expected, 0) - np.where(both, view.closed_at, 0))
    same = both & (gap <= DAY)
    if same.sum() < 0.8 * n:
        return None
    return view.finding(
        "severe" if view.fact("expected_close_date", "static") else "warning",
        f"{share_text(int(same.sum()), n)} of the closed deals closed on their expected date: "
        "the CRM overwrites it when a deal closes",
        "import the history of the field (field_change); never declare it static",
        examples=same,
        records=int(same.sum()),
    )


LEAK_CHECKS = (
    Check("DQ301", _no_stage_history, sides=("deal",)),
    Check("DQ302", _partial_stage_history, sides=("deal",)),
    Check("DQ303", _invisible_fields, timed=False),
    Check("DQ304", _static_but_changed, timed=False),
    Check("LK101", _value_knows, timed=False),
    Check("LK102", _absence_knows, timed=False),
    Check("LK103", _written_at_closing),
    Check("LK104", _rightly_excluded, timed=False),
    Check("LK105", _close_date_overwritten, sides=("deal",)),
)
