"""The value that a person's number adds to the model's, measured as the model itself is.

A commit is a person's number for a period and group, an override one for a deal. Each is held
against what the model had last said when the person spoke, and both against what happened: the
person's number adds value where its error is the smaller one.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from data.chronicle import known_times
from data.history import LOST, WON, History
from data.pipeline import FiscalCalendar
from data.records import Table
from scoring.grouping import WHOLE
from scoring.verify import Claim, DealOutcome, deal_outcomes, verify_forecasts

__all__ = [
    "Comparison",
    "DealClaim",
    "compare_commits",
    "compare_overrides",
    "value_added",
]

# How old the model's number may be to count as said at the same time, in days.
_SAME_TIME = np.timedelta64(7, "D")
_RESAMPLES = 2000
# A person may say 0 or 100 %: the log loss takes that as what the scores 1 and 99 say.
_SURE = 0.01


@dataclass(frozen=True)
class DealClaim:
    """What the model said of a deal: its chance to be won, and the middle of amount and date."""

    issued_at: np.datetime64
    probability: float | None
    amount: float | None
    close_date: np.datetime64 | None


_Said = TypeVar("_Said", Claim, DealClaim)


@dataclass(frozen=True)
class Comparison:
    """A person's number beside the model's.

    Attributes
    ----------
    kind : str
        "forecast", "probability", "amount" or "close_date".
    author_id : str
    at : datetime64[us], UTC
        When the person's number was known.
    reason : str or None
    about : dict
        What it is about: period and group, or deal_id.
    human, model : float
        Money, a probability, or days since 1970.
    model_issued_at : datetime64[us]
    actual : float or None
        None where it is not known yet.
    errors : dict of str to (float, float)
        By measure, the person's error and the model's; empty without an actual.
    claim : Claim or None
        The model's forecast, of a commit.
    """

    kind: str
    author_id: str
    at: np.datetime64
    reason: str | None
    about: dict[str, str]
    human: float
    model: float
    model_issued_at: np.datetime64
    actual: float | None = None
    errors: dict[str, tuple[float, float]] = field(default_factory=dict)
    claim: Claim | None = None


def compare_commits(
    history: History, calendar: FiscalCalendar, claims: Sequence[Claim], now: np.datetime64
) -> tuple[list[Comparison], int]:
    """Commits beside the forecast of the same period and group last issued before them.

    Returns
    -------
    list of Comparison
        In the order the commits were known.
    int
        Commits before which, for seven days, no forecast of their period and group was issued.
    """
    said: dict[tuple[Any, ...], list[Claim]] = defaultdict(list)
    for claim in sorted(claims, key=lambda c: c.issued_at):
        if claim.foretold and claim.measure == "amount":
            scope = "all" if claim.group == WHOLE else str(claim.by)
            said[claim.start, claim.end, scope, claim.group].append(claim)
    commits, alone, found = history.tables["commit"], 0, []
    for i, at in _in_order(commits):
        start, end = (
            calendar.midnight(commits[n][i].item()) for n in ("period_start", "period_end")
        )
        scope, group = str(commits["scope"][i]), str(commits["scope_id"][i])
        key = (start, end, scope, WHOLE if scope == "all" else group)
        model = _last_before(said.get(key, []), at)
        if model is None or at >= end:
            alone += 1
            continue
        found.append(_commit(commits, i, at, model))
    verdicts = verify_forecasts(history, [c.claim for c in found if c.claim], now)
    return [
        c if v is None else _judged(c, v.actual) for c, v in zip(found, verdicts, strict=True)
    ], alone


def _commit(commits: Table, i: int, at: np.datetime64, claim: Claim) -> Comparison:
    about = {
        "start": str(commits["period_start"][i]),
        "end": str(commits["period_end"][i]),
        "group": claim.group,
    }
    return Comparison(
        "forecast",
        str(commits["author_id"][i]),
        at,
        commits["reason"][i],
        about,
        float(commits["amount"][i]),
        claim.mean,
        claim.issued_at,
        claim=claim,
    )


def compare_overrides(
    history: History, said: Mapping[str, Sequence[DealClaim]], now: np.datetime64
) -> tuple[list[Comparison], int]:
    """Overrides of deals beside the score of the deal last issued before them.

    Parameters
    ----------
    said : mapping of str to sequence of DealClaim
        By deal, oldest first.

    Returns
    -------
    list of Comparison
        In the order the overrides were known. An override made after its deal closed is none.
    int
        Overrides before which, for seven days, no score was issued, or whose value cannot be
        read as a probability (0 to 1), an amount or a date.
    """
    overrides, alone, found = history.tables["override"], 0, []
    outcomes = deal_outcomes(history, [str(d) for d in overrides["deal_id"]], now)
    for i, at in _in_order(overrides):
        outcome = outcomes[i]
        if outcome is not None and outcome.closed_at <= at:
            continue
        deal, kind = str(overrides["deal_id"][i]), str(overrides["field"][i])
        claim = _last_before(said.get(deal, ()), at)
        human = _number(kind, str(overrides["value"][i]))
        model = None if claim is None else _of(claim, kind)
        if claim is None or human is None or model is None:
            alone += 1
            continue
        author, reason = str(overrides["author_id"][i]), overrides["reason"][i]
        made = Comparison(
            kind, author, at, reason, {"deal_id": deal}, human, model, claim.issued_at
        )
        actual = None if outcome is None else _actual(kind, outcome)
        found.append(made if actual is None else _judged(made, actual))
    return found, alone


def _in_order(table: Table) -> Iterator[tuple[int, np.datetime64]]:
    """Rows and the moments they were known, in that order: later entries of an old number."""
    known = known_times(table)
    for i in np.argsort(known, kind="stable").tolist():
        yield i, np.datetime64(int(known[i]), "us")


def _last_before(said: Sequence[_Said], at: np.datetime64) -> _Said | None:
    """The newest of some claims, oldest first, that was issued by a moment, and not long ago."""
    place = bisect_right(said, at, key=lambda c: c.issued_at)
    if place == 0 or at - said[place - 1].issued_at > _SAME_TIME:
        return None
    return said[place - 1]


def _number(kind: str, text: str) -> float | None:
    """The person's value as a number; a date in days since 1970; None if it is not one."""
    try:
        if kind == "close_date":
            return float(np.datetime64(text[:10], "D").astype(np.int64))
        value = float(text)
    except ValueError:
        return None
    allowed = 0.0 <= value <= 1.0 if kind == "probability" else math.isfinite(value)
    return value if allowed and kind in ("probability", "amount") else None


def _of(claim: DealClaim, kind: str) -> float | None:
    if kind == "close_date":
        date = claim.close_date
        return None if date is None else float(date.astype("datetime64[D]").astype(np.int64))
    return claim.probability if kind == "probability" else claim.amount


def _actual(kind: str, outcome: DealOutcome) -> float | None:
    """What an override is held against; amount and date of deals that were won alone."""
    if kind == "probability":
        return float(outcome.outcome == WON) if outcome.outcome in (WON, LOST) else None
    if outcome.outcome != WON:
        return None
    return outcome.amount if kind == "amount" else outcome.closed_day


def _judged(made: Comparison, actual: float) -> Comparison:
    if made.kind == "probability":
        errors = {
            "brier": ((made.human - actual) ** 2, (made.model - actual) ** 2),
            "log_loss": (_log_loss(made.human, actual), _log_loss(made.model, actual)),
        }
    else:
        errors = {"absolute": (abs(made.human - actual), abs(made.model - actual))}
    kept = {**vars(made), "actual": actual, "errors": errors}
    return Comparison(**kept)


def _log_loss(p: float, y: float) -> float:
    p = min(max(p, _SURE), 1.0 - _SURE)
    return -math.log(p if y == 1.0 else 1.0 - p)


def value_added(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """By kind and measure of error, what people's numbers added to the model's.

    Returns
    -------
    list of dict
        kind, measure, n, subjects (different periods, or deals), pending, human_error and
        model_error (means), added (model - human: above 0 the person was better), low and high
        (95 % interval by a bootstrap over the subjects; None below two of them).
    """
    found = []
    kinds = ("forecast", "probability", "amount", "close_date")
    for kind in kinds:
        mine = [c for c in comparisons if c.kind == kind]
        judged = [c for c in mine if c.errors]
        for measure in judged[0].errors if judged else ("none yet",) if mine else ():
            found.append(
                {
                    "kind": kind,
                    "measure": measure,
                    "pending": len(mine) - len(judged),
                    **_added([(_subject(c), *c.errors[measure]) for c in judged]),
                }
            )
    return found


def _subject(made: Comparison) -> str:
    """What the errors of two numbers share: the period, or the deal."""
    return made.about.get("deal_id") or f"{made.about['start']} {made.about['end']}"


def _added(errors: Sequence[tuple[str, float, float]]) -> dict[str, Any]:
    names, place = np.unique([subject for subject, _, _ in errors], return_inverse=True)
    human = np.array([h for _, h, _ in errors], dtype=np.float64)
    model = np.array([m for _, _, m in errors], dtype=np.float64)
    low = high = None
    if len(names) > 1:
        gain = np.bincount(place, model - human)
        count = np.bincount(place)
        drawn = np.random.default_rng(0).integers(0, len(names), (_RESAMPLES, len(names)))
        means = gain[drawn].sum(axis=1) / count[drawn].sum(axis=1)
        low, high = (float(v) for v in np.quantile(means, (0.025, 0.975)))
    return {
        "n": len(errors),
        "subjects": len(names),
        "human_error": float(human.mean()) if len(human) else None,
        "model_error": float(model.mean()) if len(model) else None,
        "added": float((model - human).mean()) if len(human) else None,
        "low": low,
        "high": high,
    }
