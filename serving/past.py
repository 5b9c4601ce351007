"""What was said before, beside what happened: the answers about issued numbers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from data.columns import DAY
from data.history import WON, History, Side
from data.pipeline import FiscalCalendar
from data.store import ForecastFilter, IssuedCell, IssuedForecast, IssuedScore, Store
from scoring.overrides import (
    Comparison,
    DealClaim,
    compare_commits,
    compare_overrides,
    value_added,
)
from scoring.verify import (
    Claim,
    ScoreClaims,
    Verdict,
    deal_outcomes,
    forecast_summary,
    score_summary,
    verify_forecasts,
    verify_scores,
)
from serving.answers import time_text

__all__ = ["deal_past", "forecast_history", "score_performance"]

# Of more cells than these, the newest are judged: a second's work.
_MOST_JUDGED = 10_000
_MOST_SCORES = 200_000
_DAYS_AHEAD = (7.0, 28.0, 91.0)  # at which the curve of a deal is held against what happened


def forecast_history(
    store: Store,
    history: History,
    calendar: FiscalCalendar,
    asked: ForecastFilter,
    now: np.datetime64,
) -> dict[str, Any]:
    """Cells of forecasts as issued, newest first, and what happened; plain JSON values.

    `summary` and `value_added` are of all cells that pass the filters, not of the page alone.
    """
    page, total = store.forecasts_issued(asked)
    whole, _ = store.forecasts_issued(
        ForecastFilter(
            asked.period, asked.measure, asked.group, asked.by, asked.start, asked.end,
            "newest", _MOST_JUDGED, brief=True,
        )
    )  # fmt: skip
    claims = [_claim(f, c) for f in whole for c in f.cells]
    verdicts = verify_forecasts(history, claims, now)
    compared, alone = compare_commits(history, calendar, claims, now)
    commits: dict[Any, list[Comparison]] = {}
    for made in compared:
        if made.claim is not None:
            commits.setdefault(made.claim.key, []).append(made)
    shown = [(f, c, _claim(f, c)) for f in page for c in f.cells]
    judged = verify_forecasts(history, [claim for _, _, claim in shown], now)
    return {
        "total": total,
        "limit": asked.limit,
        "offset": asked.offset,
        "items": [
            _item(f, c, verdict, commits.get(claim.key, ()), calendar)
            for (f, c, claim), verdict in zip(shown, judged, strict=True)
        ],
        "summary": {"cells": len(claims), **forecast_summary(claims, verdicts)},
        "value_added": value_added(compared),
        "commits_without_forecast": alone,
    }


def _claim(forecast: IssuedForecast, cell: IssuedCell) -> Claim:
    return Claim(
        forecast.as_of,
        forecast.issued_at,
        cell.start,
        cell.end,
        forecast.by,
        cell.group,
        forecast.groups,
        forecast.measure,
        cell.mean,
        cell.quantiles,
        cell.target,
        cell.probability_of_target,
        forecast.hindsight,
    )


def _item(
    forecast: IssuedForecast, cell: IssuedCell, verdict: Verdict | None,
    commits: Sequence[Comparison], calendar: FiscalCalendar,
) -> dict[str, Any]:  # fmt: skip
    return {
        "issued_at": time_text(forecast.issued_at),
        "as_of": time_text(forecast.as_of),
        "kind": forecast.period,
        "period": cell.detail.get("period", ""),
        "start": calendar.day_of(cell.start).isoformat(),
        "end": calendar.day_of(cell.end).isoformat(),
        "by": forecast.by,
        "group": cell.group,
        "measure": forecast.measure,
        "currency": forecast.detail.get("currency"),
        "mean": cell.mean,
        "quantiles": cell.quantiles,
        "components": cell.components,
        "target": cell.target,
        "probability_of_target": cell.probability_of_target,
        "hindsight": forecast.hindsight,
        "model": forecast.model,
        "draws": forecast.draws,
        "seed": forecast.seed,
        "inputs": forecast.inputs,
        "outcome": None if verdict is None else _outcome(verdict),
        "commits": [_compared(c) for c in commits],
    }


def _outcome(verdict: Verdict) -> dict[str, Any]:
    return {
        "actual": round(verdict.actual, 2),
        "error": round(verdict.error, 2),
        "crps": round(verdict.crps, 2),
        "held": [{"level": level, "held": held} for level, held in verdict.held.items()],
        "target_reached": verdict.reached,
    }


def _compared(made: Comparison) -> dict[str, Any]:
    """A person's number beside the model's."""
    shown = made.human, made.model, made.actual
    if made.kind == "close_date":
        human, model, actual = (
            None if v is None else str(np.datetime64(int(v), "D")) for v in shown
        )
        values: dict[str, Any] = {"human": human, "model": model, "actual": actual}
    else:
        values = dict(zip(("human", "model", "actual"), shown, strict=True))
    return {
        "kind": made.kind,
        "author_id": made.author_id,
        "at": time_text(made.at),
        "reason": made.reason,
        **values,
        "model_issued_at": time_text(made.model_issued_at),
        "errors": [
            {"measure": name, "human": human, "model": model, "added": model - human}
            for name, (human, model) in made.errors.items()
        ],
    }


# --- scores


def deal_past(
    history: History, deal: str, scores: Sequence[IssuedScore], now: np.datetime64
) -> dict[str, Any]:
    """How one deal ended, if it did, and what people said of it beside its scores as issued."""
    (outcome,) = deal_outcomes(history, [deal], now)
    found, _ = compare_overrides(history, {deal: _deal_claims(scores)}, now)
    return {
        "outcome": None
        if outcome is None
        else {
            "outcome": "won" if outcome.outcome == WON else "lost",
            "closed_at": time_text(outcome.closed_at),
            "amount": round(outcome.amount, 2),
        },
        "overrides": [_compared(c) for c in found if c.about["deal_id"] == deal],
    }


def score_performance(
    store: Store, history: History, calendar: FiscalCalendar, kind: Side, now: np.datetime64
) -> dict[str, Any]:
    """How the scores of leads or deals as issued compare with what happened since.

    A lead's is held against its being qualified within the model's horizon, a deal's curve
    against its being won within 7, 28 and 91 days. Of more than 200,000 scores, the newest count.
    """
    scores = store.scores_issued(kind, limit=_MOST_SCORES)
    claims = _score_claims(kind, scores, calendar)
    said: dict[str, list[DealClaim]] = {}
    if kind == "deal":
        overridden = set(history.tables["override"]["deal_id"].tolist())
        for score in scores:
            if score.entity_id in overridden:
                said.setdefault(score.entity_id, []).extend(_deal_claims([score]))
    compared, alone = compare_overrides(history, said, now) if kind == "deal" else ([], 0)
    return {
        "kind": kind,
        "issued": len(scores),
        "by_days": score_summary(claims, verify_scores(history, claims, now)),
        "value_added": value_added(compared),
        "overrides_without_score": alone,
    }


def _score_claims(
    kind: Side, scores: Sequence[IssuedScore], calendar: FiscalCalendar
) -> ScoreClaims:
    end_of = cache(lambda day: calendar.midnight(dt.date.fromisoformat(day) + dt.timedelta(1)))
    rows = [
        (s.entity_id, s.as_of, s.issued_at, days, p, bool(s.detail.get("hindsight")))
        for s in scores
        if s.detail.get("evidence", {}).get("method") != "closed"
        for days, p in _chances(s, end_of)
    ]
    ids, as_of, issued_at, days, p, hindsight = zip(*rows, strict=True) if rows else ((),) * 6
    named = np.empty(len(rows), dtype=object)
    named[:] = ids
    return ScoreClaims(
        kind,
        named,
        np.array(as_of, dtype="datetime64[us]").astype(np.int64),
        np.array(issued_at, dtype="datetime64[us]").astype(np.int64),
        np.array(days, dtype=np.float64),
        np.array(p, dtype=np.float64),
        np.array(hindsight, dtype=bool),
    )


def _chances(
    score: IssuedScore, end_of: Callable[[str], np.datetime64]
) -> list[tuple[float, float]]:
    """Days ahead, and the chance as issued of having happened by then."""
    if score.entity == "lead":
        known = score.horizon is not None and score.probability is not None
        return [(score.horizon, score.probability)] if known else []  # type: ignore[list-item]
    curve = score.detail.get("curve") or []
    if not curve:
        return []
    ends = np.array([end_of(p["date"]) for p in curve], dtype="datetime64[us]")
    ahead = (ends - score.as_of).astype(np.int64) / DAY
    won = np.array([p["won"] for p in curve], dtype=np.float64)
    read = np.interp(_DAYS_AHEAD, np.r_[0.0, ahead], np.r_[0.0, won])
    return [(d, float(p)) for d, p in zip(_DAYS_AHEAD, read, strict=True) if d <= ahead[-1]]


def _deal_claims(scores: Sequence[IssuedScore]) -> list[DealClaim]:
    found = []
    for score in scores:
        amount, close = score.detail.get("amount"), score.detail.get("close_date")
        found.append(
            DealClaim(
                score.issued_at,
                score.probability,
                None if amount is None else amount["p50"],
                None if close is None else np.datetime64(close["p50"], "D"),
            )
        )
    return found
