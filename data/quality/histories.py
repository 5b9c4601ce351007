"""Checks of what was known when: the histories of stages and fields."""

from __future__ import annotations

import numpy as np

from data.quality.findings import (
    Check,
    Finding,
    View,
    date_text,
    listed,
    number_text,
    share_text,
)
from data.quality.leaks import field_names, judge_today, unseen
from data.timelines import NEVER, micros

__all__ = ["HISTORY_CHECKS"]

# The CRM's or the rep's running judgement: it changes by nature, and never is static.
_CHANGING = {"probability", "forecast_category", "expected_close_date", "competitor", "rating"}


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


def _invisible_fields(view: View) -> Finding | None:
    knowing = {j.name for j in judge_today(view) if j.verdicts}
    silent = [
        name
        for name in field_names(view)
        if not view.fact(name, "excluded")
        and name not in knowing
        and _levels(view, name) > 1
        and unseen(view, name)
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
    column = view.ledger.timeline(name).at(
        np.arange(len(view)), np.full(len(view), NEVER - 1, dtype=np.int64)
    )
    return len(np.unique(column.values[column.present()]))


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


HISTORY_CHECKS = (
    Check("DQ301", _no_stage_history, sides=("deal",)),
    Check("DQ302", _partial_stage_history, sides=("deal",)),
    Check("DQ303", _invisible_fields, timed=False),
    Check("DQ304", _static_but_changed, timed=False),
)
