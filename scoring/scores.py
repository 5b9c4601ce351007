"""Scores of leads and deals: probability, 1-99 score, grade, curve, reasons, evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data.features import Feature, compute
from data.history import OPEN, WON, Snapshot
from models.calibration import logit
from models.deal_arms import AHEAD
from scoring.bundles import DealBundle, LeadBundle
from scoring.curves import QUANTILES, CurvePoint, Curves, Range
from scoring.reasons import Comparison, Reason, tell
from scoring.stand_ins import deal_columns, stand_ins
from scoring.words import WEEKDAYS

__all__ = [
    "GRADES",
    "CurvePoint",
    "DealScore",
    "LeadScore",
    "Range",
    "qualified_within",
    "score_deals",
    "score_leads",
    "won_within",
]

FloatArray = npt.NDArray[np.float64]

# Probability from which each grade begins: configuration, never moved by training.
GRADES = (("A", 0.6), ("B", 0.3), ("C", 0.1), ("D", 0.0))
_QUARTER = 92.0  # days
_LEVELS_ABOVE = ("pipeline", "organisation", "preset")
_UNKNOWN_STAGE = {"n": 0.0, "own": 0.0, "pipeline": 0.0, "organisation": 0.0, "preset": 1.0}
_LEVELS = 20  # points of the amount's quantile function behind its mean


@dataclass(frozen=True)
class LeadScore:
    """Answer for one lead; probabilities 0-1, reasons on the log-odds."""

    lead_id: str
    as_of: np.datetime64
    probability: float
    probability_won: float
    score: int
    grade: str
    percentile: float | None
    reasons: tuple[Reason, ...]
    base: float | None
    evidence: dict[str, Any]
    warnings: tuple[str, ...]
    model: dict[str, str]


@dataclass(frozen=True)
class DealScore:
    """Answer for one deal; probabilities 0-1, money in the base currency.

    `close_date` is the date of winning, given that the deal is won; `probability_slip` the
    chance that it is still open after its expected close date.
    """

    deal_id: str
    as_of: np.datetime64
    probability_won: float
    probability_lost: float
    curve: tuple[CurvePoint, ...]
    close_date: Range | None
    probability_slip: float | None
    amount: Range | None
    expected_revenue: float | None
    stage_win_probability: float | None
    score: int
    grade: str
    percentile: float | None
    reasons: tuple[Reason, ...]
    base: float | None
    evidence: dict[str, Any]
    warnings: tuple[str, ...]
    model: dict[str, str]


def won_within(snapshot: Snapshot, bundle: DealBundle, days: FloatArray) -> FloatArray:
    """Chance of each deal to be won within `days` (shape (m,)) after its moment; closed: 0 or 1."""
    out = np.empty(len(snapshot))
    is_open = snapshot.outcome == OPEN
    out[~is_open] = snapshot.outcome[~is_open] == WON
    part = snapshot.take(np.flatnonzero(is_open))
    if len(part):
        curves = Curves.of(part, bundle, deal_columns(part, bundle))
        out[is_open] = curves.won_within(days[is_open])
    return out


def qualified_within(snapshot: Snapshot, bundle: LeadBundle, days: FloatArray) -> FloatArray:
    """Chance of each lead to be qualified within `days` (shape (m,)); closed: 0 or 1."""
    p = bundle.model.predict(compute(snapshot, bundle.features))
    shown = _within(snapshot, bundle, p, days)
    closed = snapshot.outcome != OPEN
    return np.where(closed, (snapshot.outcome == WON).astype(np.float64), shown)


def score_deals(
    snapshot: Snapshot,
    bundle: DealBundle,
    *,
    explain: bool = True,
    context: Mapping[str, Any] | None = None,
) -> list[DealScore]:
    """Score deals, each as known at its moment, in order."""
    is_open = snapshot.outcome == OPEN
    scores: list[DealScore | None] = [None] * len(snapshot)
    for i in np.flatnonzero(~is_open):
        scores[i] = _closed_deal(snapshot, int(i), bundle)
    rows = np.flatnonzero(is_open)
    if len(rows):
        for i, score in zip(
            rows, _score_open(snapshot.take(rows), bundle, explain, context), strict=True
        ):
            scores[i] = score
    return [s for s in scores if s is not None]


def _score_open(
    snapshot: Snapshot, bundle: DealBundle, explain: bool, context: Mapping[str, Any] | None
) -> list[DealScore]:
    columns = deal_columns(snapshot, bundle, context)
    curves = Curves.of(snapshot, bundle, columns)
    final = curves.incidence[:, -1]
    p_won, p_lost = final[:, 0], final[:, 1]
    stage = columns["stage"]
    current = snapshot.amount
    amounts = np.stack(
        [bundle.amount.final(stage, current, np.full(len(current), q)) for q in QUANTILES]
    )
    # The mean over the amount's own distribution, read off its quantile function; added one by one,
    # so that a row alone gives the same bits as in a batch.
    mean_amount = np.zeros(len(current))
    for i in range(_LEVELS):
        level = np.full(len(current), (i + 0.5) / _LEVELS)
        mean_amount += bundle.amount.final(stage, current, level) / _LEVELS
    dates = curves.close_dates()
    slip = curves.slip(snapshot.value("expected_close_date").numbers())
    told = _deal_reasons(bundle, columns, curves) if explain else None
    percentile = bundle.reference.percentile(p_won)
    has_amount = bool(len(bundle.amount.log_final))
    names = [None if s < 0 else str(snapshot.ledger.stage_levels[s]) for s in snapshot.stage]
    instead = stand_ins(snapshot, bundle, {n for n in names if n is not None})
    out = []
    for i, stage_name in enumerate(names):
        known = ~np.isnan(current[i])
        out.append(
            DealScore(
                deal_id=str(snapshot.ids[i]),
                as_of=np.datetime64(int(snapshot.at[i]), "us"),
                probability_won=float(p_won[i]),
                probability_lost=float(p_lost[i]),
                curve=curves.points(i),
                close_date=dates[i],
                probability_slip=slip[i],
                amount=Range(*(float(a) for a in amounts[:, i])) if known or has_amount else None,
                expected_revenue=(
                    float(p_won[i] * mean_amount[i]) if known or has_amount else None
                ),
                stage_win_probability=_rate(bundle, stage_name),
                score=_score(float(p_won[i])),
                grade=_grade(float(p_won[i])),
                percentile=_or_none(percentile[i]),
                reasons=() if told is None else told[1][i],
                base=None if told is None else float(told[0][i]),
                evidence=_deal_evidence(bundle, stage_name),
                warnings=_deal_warnings(bundle, stage_name, instead, bool(known)),
                model=bundle.manifest.answer,
            )
        )
    return out


def _deal_reasons(
    bundle: DealBundle, columns: Mapping[str, Any], curves: Curves
) -> tuple[FloatArray, list[tuple[Reason, ...]]]:
    """Where the reasons of each deal start, and what they are."""
    attribution = bundle.attribution
    base, found = attribution.contributions(columns, curves.cells)
    rest = logit(curves.incidence[:, -1, 0]) - (base + found.sum(axis=1))
    parts = dict(zip(attribution.names, found.T, strict=True))
    # A deal that is compared with its own stage is not told its stage.
    start = attribution.start_of(columns)
    own = start < len(attribution.stages)
    for feature in bundle.features:
        if feature.group == "stage" and feature.name in parts:
            rest += np.where(own, parts[feature.name], 0.0)
            parts[feature.name] = np.where(own, 0.0, parts[feature.name])
    reference = bundle.reference
    row = np.array([*(reference.keys.index(s) for s in attribution.stages), len(reference.keys)])
    ahead, values, usual = _time_ahead(bundle, curves, len(reference.keys) + 1)
    compare = Comparison(
        {**columns, AHEAD: values},
        {**reference.columns, AHEAD: usual},
        row[start],
        ["this stage"] * len(reference.keys) + ["all deals"],
    )
    return base, tell([*bundle.features, ahead], parts, rest, compare)


def _time_ahead(bundle: DealBundle, curves: Curves, typical: int) -> tuple[Feature, Any, Any]:
    """What is said of the calendar: the time to the quarter's end, or else the weekday.

    Returns
    -------
    feature : Feature
    column : of each deal
    column : of each of the `typical` records: the middle of a quarter, or any day
    """
    cells = curves.cells
    if "days_to_quarter_end" in bundle.model.calendar:
        ends = cells.calendar["days_to_quarter_end"] + (cells.begin + cells.end) / 2
        feature = Feature(
            AHEAD, "number", "days", "time to the end of the quarter", group="calendar"
        )
        return feature, ends[:, 0], np.full(typical, _QUARTER / 2)
    feature = Feature(AHEAD, "category", "", "weekday of the score", group="calendar")
    days = (np.floor(curves.local).astype(np.int64) + 3) % 7
    names = np.array([*WEEKDAYS, "any"], dtype=object)
    return (
        feature,
        (days.astype(np.int32), names),
        (np.full(typical, len(WEEKDAYS), np.int32), names),
    )


def _lead_reasons(
    bundle: LeadBundle, columns: Mapping[str, Any]
) -> tuple[float, list[tuple[Reason, ...]]]:
    """Contributions of the lead model, from the organisation's base rate on."""
    base, found, names = bundle.model.contributions(columns)
    parts = dict(zip(names[:-1], found.T, strict=False))
    row = np.zeros(len(found), dtype=np.int64)
    compare = Comparison(columns, bundle.reference.columns, row, ["all leads"])
    return base, tell(bundle.features, parts, found[:, -1], compare)


def score_leads(
    snapshot: Snapshot,
    bundle: LeadBundle,
    *,
    explain: bool = True,
    context: Mapping[str, Any] | None = None,
) -> list[LeadScore]:
    """Score leads, each as known at its moment, in order."""
    columns = compute(snapshot, bundle.features, context)
    p = bundle.model.predict(columns)
    p_win = np.full(len(p), bundle.win_rate) if bundle.win is None else bundle.win.predict(columns)
    told = _lead_reasons(bundle, columns) if explain and len(p) else None
    percentile = bundle.reference.percentile(p)
    scores = []
    for i in range(len(snapshot)):
        closed = snapshot.outcome[i] != OPEN
        qualified = snapshot.outcome[i] == WON
        shown = float(qualified) if closed else float(p[i])
        scores.append(
            LeadScore(
                lead_id=str(snapshot.ids[i]),
                as_of=np.datetime64(int(snapshot.at[i]), "us"),
                probability=shown,
                probability_won=shown * float(p_win[i]),
                score=int(100 * shown) if closed else _score(shown),
                grade=_grade(shown),
                percentile=None if closed else _or_none(percentile[i]),
                reasons=() if closed or told is None else told[1][i],
                base=None if closed or told is None else told[0],
                evidence={"method": "closed"} if closed else _lead_evidence(bundle),
                warnings=(),
                model=bundle.manifest.answer,
            )
        )
    return scores


def _within(snapshot: Snapshot, bundle: LeadBundle, p: FloatArray, days: FloatArray) -> FloatArray:
    """P(qualified within another horizon), by the share of qualifications that are that fast."""
    if bundle.horizon == 0:
        return p
    age = snapshot.age
    grid = np.arange(len(bundle.delay), dtype=np.float64)

    def share(t: FloatArray) -> FloatArray:
        return np.interp(age + t, grid, bundle.delay) - np.interp(age, grid, bundle.delay)

    full = share(np.full(len(p), float(bundle.horizon)))
    part = np.where(full > 0, share(days) / np.where(full > 0, full, 1.0), days / bundle.horizon)
    return np.clip(p * part, 0.0, 1.0)


def _closed_deal(snapshot: Snapshot, i: int, bundle: DealBundle) -> DealScore:
    won = bool(snapshot.outcome[i] == WON)
    return DealScore(
        deal_id=str(snapshot.ids[i]),
        as_of=np.datetime64(int(snapshot.at[i]), "us"),
        probability_won=float(won),
        probability_lost=float(not won),
        curve=(),
        close_date=None,
        probability_slip=None,
        amount=None,
        expected_revenue=None,
        stage_win_probability=None,
        score=100 if won else 0,
        grade="A" if won else "D",
        percentile=None,
        reasons=(),
        base=None,
        evidence={"method": "closed"},
        warnings=(),
        model=bundle.manifest.answer,
    )


def _deal_evidence(bundle: DealBundle, stage: str | None) -> dict[str, Any]:
    """How much is behind a score: deals, and how its stage's rate leans on each level."""
    names = ("table", "ridge", "trees")
    used = [n for n, w in zip(names, bundle.model.weights, strict=True) if w > 0]
    rates = bundle.stage_rates.get(stage or "", _UNKNOWN_STAGE)
    return {
        "method": " + ".join(used),
        "examples": bundle.model.closed,
        "won": bundle.model.won,
        "stage_examples": int(rates["n"]),
        "prior_share": rates["preset"],
        "shares": {
            level: round(rates[key], 3)
            for level, key in zip(("stage", *_LEVELS_ABOVE), ("own", *_LEVELS_ABOVE), strict=True)
        },
    }


def _deal_warnings(
    bundle: DealBundle, stage: str | None, instead: Mapping[str, str], has_amount: bool
) -> tuple[str, ...]:
    found: list[str] = []
    if stage is not None and stage in instead:
        found.append(
            f"stage {stage!r} was not seen in training; it is read as {instead[stage]!r}, whose "
            "believed chance is nearest"
        )
    elif stage not in bundle.model.table.stages:
        found.append(f"stage {stage!r} was not seen in training; the average of all stages is used")
    if not has_amount:
        drawn = len(bundle.amount.log_final) > 0
        found.append(
            "no amount: drawn from the amounts of won deals"
            if drawn
            else "no amount, and no deal was won with one: nothing is said of its value"
        )
    return tuple(found)


def _lead_evidence(bundle: LeadBundle) -> dict[str, Any]:
    evidence = bundle.model.evidence
    return {
        "method": evidence.method,
        "examples": evidence.examples,
        "minority": evidence.minority,
        "prior_share": evidence.prior_share,
        "horizon_days": bundle.horizon,
    }


def _rate(bundle: DealBundle, stage: str | None) -> float | None:
    rates = bundle.stage_rates.get(stage or "")
    return None if rates is None else float(rates["rate"])


def _score(probability: float) -> int:
    """1-99: 0 and 100 are for closed records only."""
    return min(max(round(100 * probability), 1), 99)


def _grade(probability: float) -> str:
    return next(grade for grade, least in GRADES if probability >= least)


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
