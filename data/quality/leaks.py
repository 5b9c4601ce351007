"""Fields that know the outcome: which they are, by what evidence, and what to do about them.

`judge_today` holds the present values of every field against the outcomes, whatever the mapping
says of them: nobody who maps a new source knows which columns were written after the fact.
`judge_at_entry` does the same with what a model would believe at the entry of a record, from
outcomes known by a moment: training leaves out what it finds severe. `docs/checks.md` tells the
codes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from data.history import History, Side
from data.quality.evidence import Sample, sample_as_of, sample_today, weigh
from data.quality.findings import (
    SEVERITIES,
    Check,
    Finding,
    Severity,
    View,
    listed,
    number_text,
)
from data.quality.verdicts import Verdict, verdicts
from data.timelines import DAY, IntArray, micros

__all__ = [
    "LEAK_CHECKS",
    "Judgement",
    "field_names",
    "judge_at_entry",
    "judge_today",
    "leak_findings",
    "unseen",
]

_BULK_RECORDS, _BULK_SHARE = 20, 0.3

# Known afterwards by definition, or moments and states that the ledger keeps a history of.
_AFTERWARDS = {
    "closed_amount", "loss_reason", "disqualification_reason", "converted_deal_id", "status",
    "merged_into_id",
}  # fmt: skip

# The CRM's or the rep's running judgement, by definition. It changes with the outcome; where the
# past does not see it, that is no news.
_JUDGEMENTS = {"probability", "forecast_category", "expected_close_date"}

Use = Literal["static", "invisible", "history", "excluded"]
Moment = Literal["today", "entry"]


@dataclass(frozen=True)
class Judgement:
    """What is to be thought of one field.

    Attributes
    ----------
    use : {"static", "invisible", "history", "excluded"}
        What the models may do with it: believe it from the entry on; not see it in the past;
        read its history; nothing.
    trusted : bool
        Whether the user vouches for it: then nothing about it is severe.
    verdicts : tuple of Verdict
        Empty where nothing speaks against it.
    """

    name: str
    use: Use
    trusted: bool
    verdicts: tuple[Verdict, ...]

    @property
    def severity(self) -> Severity:
        """The gravest verdict; info where there is none."""
        found = [v.severity for v in self.verdicts]
        return min(found, key=SEVERITIES.index, default="info")

    @property
    def left_out(self) -> bool:
        """Whether training leaves it out, though the mapping would let it be read."""
        return self.severity == "severe" and self.use in ("static", "history")


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


def unseen(view: View, name: str) -> bool:
    """Whether the field's values were invisible while most of the closed records were open."""
    line = view.ledger.timeline(name)
    told = view.closed & view.timed & line.base.present()
    late = told & (line.base_at >= view.closed_at)
    if line.changes is not None:  # what was seen to change was known in between
        late &= np.diff(line.changes.start) == 0
    return bool(told.any() and late.sum() >= 0.5 * told.sum())


def judge_today(view: View) -> list[Judgement]:
    """Every field by its present values; one with a history by what it was at entry."""
    if "judgements" not in view.memory:
        sample = sample_today(view)
        uses = {name: _use(view, name) for name in field_names(view)}
        view.memory["judgements"] = [
            _judge(view, sample, name, use, "entry" if use == "history" else "today")
            for name, use in uses.items()
        ]
    found: list[Judgement] = view.memory["judgements"]
    return found


def judge_at_entry(
    history: History, side: Side, until: int, trusted: Iterable[str] = ()
) -> list[Judgement]:
    """Every field by what a model believes of it at the entry of a record.

    Parameters
    ----------
    until : int
        Int64 microseconds; outcomes known later are not looked at.
    trusted : iterable of str
        Fields the user vouches for, besides those of the mapping.
    """
    view, sample = View(history, side), sample_as_of(history, side, until)
    vouched = frozenset(trusted)
    return [
        _judge(view, sample, name, _declared(view, name), "entry", vouched)
        for name in field_names(view)
        if sample.column(name, "entry").present().any()
    ]


def _judge(
    view: View, sample: Sample, name: str, use: Use, moment: Moment,
    trusted: frozenset[str] = frozenset(),
) -> Judgement:  # fmt: skip
    vouched = name in trusted or view.fact(name, "trusted")
    given = verdicts(weigh(sample, name, moment), view.words)
    if vouched:
        given = [replace(v, severity="warning", words=f"{v.words}, trusted") for v in given]
    if use == "invisible" and name in _JUDGEMENTS:
        mild: dict[str, Severity] = {"LK105": "warning"}  # that the CRM overwrites it is news
        given = [replace(v, severity=mild.get(v.code, "info")) for v in given]
    return Judgement(name, use, vouched, tuple(given))


def _use(view: View, name: str) -> Use:
    """What the models may do with a field, as the closed records show it."""
    told = _declared(view, name)
    return "invisible" if told == "static" and unseen(view, name) else told


def _declared(view: View, name: str) -> Use:
    """The same, by what is said of the field alone."""
    if view.fact(name, "excluded"):
        return "excluded"
    if view.ledger.timeline(name).changes is not None:
        return "history"
    return "static" if view.fact(name, "static") else "invisible"


# --- findings --------------------------------------------------------------------------------

_TITLES: dict[str, str] = {
    "LK101": "alone, among records of the same time, a field tells {good} from {bad} {noun}: ",
    "LK102": "an empty field gives the outcome of {noun} away; missing: ",
    "LK105": "a date is the day of closing, so the CRM writes it when a record closes; share of "
    "the closed {noun}: ",
    "LK106": "some values of a field are almost certain to be {good} or {bad}: ",
    "LK107": "a field is filled in for some stretches of {noun} and empty after them, so a "
    "process writes it in bulk, and not the entry: ",
    "LK108": "a field looks like a total that grows until the export, and tells something about "
    "the outcome of {noun}: ",
    "LK109": "a date lies later than the day of entry, so it was hardly known then; share of the "
    "closed {noun}: ",
}
_SEVERE_CURE = (
    "it was most likely written with or after the outcome: take it out of `static`, and list it "
    "under `exclude`. If it surely was there, unchanged, at entry, list it under `trusted`"
)
_CHANGING_CURE = (
    "nothing to do: it changes by its nature. Import its history; never declare it static"
)
_MILD_CURE = (
    "ask whether the value was there, unchanged, when the record came in; if it is written or "
    "grows while the record is worked, take it out of `static`, and list it under `exclude`"
)

_CURES: dict[Severity, str] = {
    "severe": _SEVERE_CURE, "warning": _MILD_CURE, "info": _CHANGING_CURE
}  # fmt: skip


def leak_findings(
    judgements: Sequence[Judgement], view: View, code: str | None = None
) -> list[Finding]:
    """One finding for each code and severity; with `code`, those of one code, and without it."""
    good, bad = view.words
    found = []
    for each in _TITLES if code is None else (code,):
        for severity in SEVERITIES:
            told = [
                (j, v)
                for j in judgements
                if j.use != "excluded"
                for v in j.verdicts
                if (v.code, v.severity) == (each, severity)
            ]
            if told:
                title = _TITLES[each].format(good=good, bad=bad, noun=view.noun)
                found.append(replace(_finding(view, title, severity, told), code=each))
    return found


def _finding(
    view: View, title: str, severity: Severity, told: list[tuple[Judgement, Verdict]]
) -> Finding:
    left_out = [j.name for j, _ in told if severity == "severe" and j.left_out]
    silent = [j.name for j, _ in told if severity == "severe" and j.use == "invisible"]
    title += "; ".join(f"{j.name} ({v.words})" for j, v in told)
    if left_out:
        title += f". Training leaves out {listed(left_out)}"
    if silent:
        title += f". Not declared static, so that no model sees it in the past: {listed(silent)}"
    return view.finding(
        severity,
        title,
        _CURES[severity],
        fields={j.name: {**v.figures, "use": j.use, "trusted": j.trusted} for j, v in told},
        training_leaves_out=left_out,
    )


def _check_of(code: str) -> Callable[[View], list[Finding]]:
    def run(view: View) -> list[Finding]:
        return leak_findings(judge_today(view), view, code)

    return run


def _rightly_excluded(view: View) -> Finding | None:
    found = [j for j in judge_today(view) if j.use == "excluded" and j.verdicts]
    if not found:
        return None
    return view.finding(
        "info",
        f"excluded, and rightly so, as they give the outcome of {view.noun} away: "
        f"{listed([j.name for j in found])}",
        "nothing to do",
        fields={j.name: {v.code: {"severity": v.severity, **v.figures} for v in j.verdicts}
                for j in found},
    )  # fmt: skip


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


def _changed_in_bulk(view: View) -> Finding | None:
    changes = view.ledger.changes
    rows, at = view.rows_of(changes["entity_id"]), micros(changes["changed_at"])
    if view.tick(at) == DAY:  # a day of changes is no moment
        return None
    found: dict[str, Any] = {}
    for name in np.unique(changes["field"][rows >= 0].astype(str)):
        here = (rows >= 0) & (changes["field"] == name)
        bulk = _in_bulk(rows[here], at[here])
        if name not in ("outcome", "stage_id", "closed_at") and bulk >= _BULK_SHARE * here.sum():
            found[str(name)] = {"changes": int(here.sum()), "in_bulk": bulk}
    if not found:
        return None
    names = ", ".join(
        f"{name} ({number_text(f['in_bulk'])} of {number_text(f['changes'])} changes)"
        for name, f in found.items()
    )
    return view.finding(
        "warning",
        f"fields that change in {_BULK_RECORDS} and more {view.noun} within the same minute: "
        f"{names}",
        "a rule or an import wrote them: their times are those of the writing, not of the facts. "
        "Leave such changes out, or list the field under `exclude`",
        fields=found,
    )


def _in_bulk(rows: IntArray, at: IntArray) -> int:
    """Changes in minutes in which many records change."""
    pairs = np.unique(np.stack([at // 60_000_000, rows]), axis=1)
    _, minute, size = np.unique(pairs[0], return_inverse=True, return_counts=True)
    return int((size[minute] >= _BULK_RECORDS).sum())


LEAK_CHECKS = (
    Check("LK101", _check_of("LK101"), timed=False),
    Check("LK102", _check_of("LK102"), timed=False),
    Check("LK103", _written_at_closing),
    Check("LK104", _rightly_excluded, timed=False),
    Check("LK105", _check_of("LK105")),
    Check("LK106", _check_of("LK106"), timed=False),
    Check("LK107", _check_of("LK107"), timed=False),
    Check("LK108", _check_of("LK108"), timed=False),
    Check("LK109", _check_of("LK109")),
    Check("LK110", _changed_in_bulk),
)
