"""`dealcast check`: what can be learned from these data, what cannot, and what to fix.

Each check is a small function with a code, registered in `CHECKS`; `docs/checks.md` tells them
all. None needs a label or a model, except the LK ones, which hold fields against outcomes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.history import LOST, OPEN, WON, History, Side
from data.pipeline import FiscalCalendar
from data.quality.clocks import CLOCK_CHECKS
from data.quality.content import CONTENT_CHECKS
from data.quality.findings import (
    SEVERITIES,
    Check,
    Finding,
    View,
    date_text,
    has_value,
    listed,
    number_text,
    share_text,
)
from data.quality.flow import FLOW_CHECKS
from data.quality.histories import HISTORY_CHECKS
from data.quality.leaks import LEAK_CHECKS, field_names
from data.quality.values import VALUE_CHECKS
from data.timelines import NEVER, IntArray

__all__ = ["CHECKS", "Learnable", "QualityReport", "examine"]

CHECKS: tuple[Check, ...] = (
    *CLOCK_CHECKS,
    *FLOW_CHECKS,
    *HISTORY_CHECKS,
    *LEAK_CHECKS,
    *VALUE_CHECKS,
    *CONTENT_CHECKS,
)

_WIDTH = 100
_LABELS = {"severe": "SEVERE", "warning": "WARNING", "info": "INFO"}


@dataclass(frozen=True)
class Learnable:
    """What can be learned about the leads or the deals, and what cannot.

    Attributes
    ----------
    side : {"deal", "lead"}
    facts : mapping of str to object
        Counts, first and last dates, cycle in days: plain JSON.
    can, cannot : tuple of str
        The same in sentences.
    """

    side: Side
    facts: Mapping[str, Any]
    can: tuple[str, ...]
    cannot: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain JSON."""
        return {"facts": dict(self.facts), "can": list(self.can), "cannot": list(self.cannot)}


@dataclass(frozen=True)
class QualityReport:
    """What `examine` found.

    Attributes
    ----------
    learnable : tuple of Learnable
        One for the deals and one for the leads, where there are any.
    findings : tuple of Finding
        The gravest first; within a severity in order of code.
    """

    learnable: tuple[Learnable, ...]
    findings: tuple[Finding, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many findings there are of each severity."""
        return {s: sum(f.severity == s for f in self.findings) for s in SEVERITIES}

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON."""
        return {
            "counts": self.counts,
            "learnable": {part.side: part.to_dict() for part in self.learnable},
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def lines(self) -> list[str]:
        """The report for a terminal, lines of up to 100 characters."""
        shown: list[str] = []
        for part in self.learnable:
            shown += [f"What can be learned: {part.side}s", *_learnable_lines(part), ""]
        if not self.learnable:
            return ["There are no leads and no deals yet: import some (dealcast import)."]
        counts = ", ".join(f"{n} {_plural(s, n)}" for s, n in self.counts.items())
        shown.append(f"Findings: {counts}")
        for finding in self.findings:
            shown += ["", *_finding_lines(finding)]
        return shown


def examine(
    history: History, calendar: FiscalCalendar | None = None, checks: Sequence[Check] = CHECKS
) -> QualityReport:
    """Run checks on a history.

    Parameters
    ----------
    calendar : FiscalCalendar, optional
        Where weeks and fiscal quarters begin; calendar quarters in UTC by default.
    checks : sequence of Check
        All of them by default.
    """
    calendar = calendar or FiscalCalendar()
    sides: tuple[Side, ...] = ("deal", "lead")
    views = [View(history, side, calendar) for side in sides if len(history.ledger(side))]
    findings = [
        found
        for view in views
        for check in checks
        if check.applies(view)
        for found in check.findings(view)
    ]
    findings.sort(key=lambda f: (SEVERITIES.index(f.severity), f.code, f.side))
    return QualityReport(tuple(_learnable(view) for view in views), tuple(findings))


# --- what can be learned ---------------------------------------------------------------------


def _learnable(view: View) -> Learnable:
    can, cannot = _sentences(view)
    return Learnable(view.side, _facts(view), tuple(can), tuple(cannot))


def _facts(view: View) -> dict[str, Any]:
    good, bad = view.words
    cycles = view.cycles[~np.isnan(view.cycles)]
    created = view.created[view.timed]
    closed = view.closed_at[view.closed]
    real = not view.ledger.pseudo_times
    facts: dict[str, Any] = {
        "records": len(view),
        "open": int((view.outcome == OPEN).sum()),
        good: int((view.outcome == WON).sum()),
        bad: int((view.outcome == LOST).sum()),
        "without_creation_time": int((~view.timed).sum()),
        "gone": int((view.ledger.gone_at != NEVER).sum()),
        "first_created": _day(created.min()) if real and len(created) else None,
        "last_created": _day(created.max()) if real and len(created) else None,
        "first_closed": _day(closed.min()) if real and len(closed) else None,
        "last_closed": _day(closed.max()) if real and len(closed) else None,
        "observed_until": _day(view.until) if real and view.until else None,
        "span_days": _days(created.min(), view.until) if real and len(created) else None,
        "median_cycle_days": _rounded(np.median(cycles)) if real and len(cycles) else None,
        "stages_with_history": _stages_with_history(view),
        "stage_moves": len(view.ledger.stages.at),
        "activities": len(view.ledger.activities.at),
        "fields_with_history": _fields_with_history(view),
    }
    if view.side == "deal":
        for name in ("amount", "expected_close_date"):
            facts[f"{name}_known"] = _rounded(_share_known(view, name))
    return facts


def _day(moment: np.int64 | int) -> str:
    return date_text(int(moment))


def _days(start: np.int64, end: int) -> float:
    return _rounded((end - int(start)) / 86_400_000_000)


def _rounded(value: Any) -> float:
    return round(float(value), 3)


def _share_known(view: View, name: str) -> float:
    return float(np.mean(has_value(view.table[name])))


def _stages_with_history(view: View) -> int:
    """Stages that records were seen to move into or out of."""
    stages = view.ledger.stages
    moved: IntArray = np.diff(stages.start)
    return len(np.unique(stages.value[moved[stages.row] >= 2])) if len(stages.row) else 0


def _fields_with_history(view: View) -> list[str]:
    changed = {str(name) for name in view.ledger.changes["field"]}
    return [name for name in field_names(view) if name in changed]


def _sentences(view: View) -> tuple[list[str], list[str]]:
    """What can be learned, and what cannot."""
    can, cannot = [], []
    rarer = int(min((view.outcome == WON).sum(), (view.outcome == LOST).sum()))
    can.append(_deal_method(view) if view.side == "deal" else _lead_method(rarer))
    if view.ledger.pseudo_times:
        cannot.append("when anything happens: the times were made from the order of the rows")
    elif view.side == "deal":
        _deal_sentences(view, can, cannot)
    history = _fields_with_history(view)
    if history:
        can.append(f"how {listed(history)} changed on the way, from their history")
    if view.side == "lead":
        origins = view.history.deals.table["originating_lead_id"]
        came = sum(origin is not None for origin in origins)
        if came:
            can.append(
                f"the chance to be won in the end: {number_text(came)} deals came from leads"
            )
        else:
            cannot.append("the chance to be won in the end: no deal says which lead it came from")
    if view.side == "lead" and not view.ledger.pseudo_times:
        known = view.cycles[(view.last_event == WON) & ~np.isnan(view.cycles)]
        if len(known):
            can.append(f"how long qualifying takes: half of it within {np.median(known):.1f} days")
    return can, cannot


def _deal_sentences(view: View, can: list[str], cannot: list[str]) -> None:
    cycles = view.cycles[~np.isnan(view.cycles)]
    if len(cycles):
        can.append(f"when deals close: half of them within {np.median(cycles):.1f} days")
    stages = _stages_with_history(view)
    if stages:
        can.append(f"what {stages} stages and the time spent in them say")
    else:
        cannot.append("what a stage is worth: no deal was seen to move between stages")
    for name, what in (
        ("amount", "how amounts change until closing"),
        ("expected_close_date", "how far expected close dates slip"),
    ):
        if name in _fields_with_history(view):
            continue  # told with the other histories
        if _share_known(view, name) == 0.0:
            cannot.append(f"{what}: there is no {name}")
        elif not (name == "amount" and view.fact(name, "static")):
            cannot.append(f"{what}: {name} has no history")
    if not view.timed.any():
        cannot.append("anything about the past: no deal has a creation time")
    elif _share_known(view, "amount") > 0.0:
        can.append(_revenue(view))
    else:
        cannot.append("revenue: there are no amounts, only numbers of deals")


def _revenue(view: View) -> str:
    span = (view.until - int(view.created[view.timed].min())) / 86_400_000_000
    return (
        f"revenue: {number_text(int((view.outcome == WON).sum()))} won deals in {span / 30.44:.0f} "
        "months, so forecasts can be back-tested over "
        + ("several quarters" if span > 730 else "months" if span > 180 else "weeks")
    )


def _deal_method(view: View) -> str:
    won = int((view.outcome == WON).sum())
    if won == 0:
        return "the chance to win: from the presets only, as no deal is won yet"
    if won <= 60:
        return f"the chance to win by any date: shrunken rates by stage and time ({won} won deals)"
    how = (
        "an even mean of shrunken rates, a linear model and boosted trees"
        if won >= 200
        else "mostly shrunken rates, blended with a linear model and boosted trees"
    )
    return f"the chance to win by any date: {how} ({number_text(won)} won deals)"


def _lead_method(rarer: int) -> str:
    if rarer < 30:
        how = "shrunken rates, as there are few outcomes"
    elif rarer < 100:
        how = "a linear model of a few inputs"
    elif rarer < 500:
        how = "a linear model"
    else:
        how = "a linear model and boosted trees, half and half"
    return f"the chance to qualify: {how} ({number_text(rarer)} of the rarer outcome)"


# --- words -----------------------------------------------------------------------------------


def _plural(severity: str, n: int) -> str:
    return severity + "s" if severity == "warning" and n != 1 else severity


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _learnable_lines(part: Learnable) -> list[str]:
    f = part.facts
    good, bad = ("won", "lost") if part.side == "deal" else ("qualified", "disqualified")
    counts = (
        f"{number_text(f['records'])} {part.side}s: {number_text(f[good])} {good}, "
        f"{number_text(f[bad])} {bad}, {number_text(f['open'])} open"
    )
    if f[good] + f[bad]:
        counts += f"; {share_text(f[good], f[good] + f[bad])} of the closed ones {good}"
    shown = _wrapped(counts, "  ", "    ")
    if f["first_created"]:
        dates = f"created {f['first_created']} to {f['last_created']}"
        if f["first_closed"]:
            dates += f", closed {f['first_closed']} to {f['last_closed']}"
        shown += _wrapped(f"{dates}, seen until {f['observed_until']}", "  ", "    ")
    for mark, sentences in (("can", part.can), ("cannot", part.cannot)):
        for sentence in sentences:
            shown += _wrapped(sentence, f"  {mark:<7} ", " " * 10)
    return shown


def _finding_lines(finding: Finding) -> list[str]:
    indent = " " * 15
    shown = _wrapped(finding.title, f"{_LABELS[finding.severity]:<8}{finding.code}  ", indent)
    if found := finding.evidence.get("examples"):
        shown += _wrapped("for example " + ", ".join(found), indent, indent)
    return shown + _wrapped(f"-> {finding.cure}", indent, indent + "   ")
