"""Answers as plain JSON values: what `product.md` promises, key by key.

Times are ISO 8601 in UTC with a Z, dates are dates, money is rounded to cents, and probabilities
are left as they are, but those of a curve rounded to a millionth: every answer is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data.pipeline import FiscalCalendar
from scoring.forecast import Cell, Forecast
from scoring.reasons import Reason
from scoring.renewals import Renewal
from scoring.scores import DealScore, LeadScore, Range

__all__ = ["deal_answer", "forecast_answer", "lead_answer", "renewals_answer", "time_text"]


def time_text(moment: np.datetime64) -> str:
    """ISO 8601 in UTC; fractions of a second only where there are any.

    >>> time_text(np.datetime64("2026-03-31T14:00:00", "us"))
    '2026-03-31T14:00:00Z'
    """
    return str(moment.astype("datetime64[us]")).removesuffix(".000000") + "Z"


def lead_answer(score: LeadScore, lead_id: str, warnings: tuple[str, ...] = ()) -> dict[str, Any]:
    """The answer for one lead."""
    return {
        "lead_id": lead_id,
        "as_of": time_text(score.as_of),
        "probability": score.probability,
        "probability_won": score.probability_won,
        **_shared(score, warnings),
    }


def deal_answer(score: DealScore, deal_id: str, warnings: tuple[str, ...] = ()) -> dict[str, Any]:
    """The answer for one deal; money in the base currency."""
    return {
        "deal_id": deal_id,
        "as_of": time_text(score.as_of),
        "probability_won": score.probability_won,
        "probability_lost": score.probability_lost,
        "curve": [
            {"date": str(p.date), "won": round(p.won, 6), "lost": round(p.lost, 6)}
            for p in score.curve
        ],
        "close_date": _dates(score.close_date),
        "probability_slip": score.probability_slip,
        "amount": _amounts(score.amount),
        "expected_revenue": _cents(score.expected_revenue),
        "stage_win_probability": score.stage_win_probability,
        **_shared(score, warnings),
    }


def _shared(score: LeadScore | DealScore, warnings: tuple[str, ...]) -> dict[str, Any]:
    return {
        "score": score.score,
        "grade": score.grade,
        "percentile": score.percentile,
        "reasons": [_reason(r) for r in score.reasons],
        "base": score.base,
        "evidence": dict(score.evidence),
        "warnings": [*score.warnings, *warnings],
        "model": dict(score.model),
    }


def _reason(reason: Reason) -> dict[str, Any]:
    return {
        "feature": reason.feature,
        "text": reason.text,
        "contribution": reason.contribution,
    }


def _dates(found: Range | None) -> dict[str, str] | None:
    return None if found is None else {p: str(getattr(found, p)) for p in ("p10", "p50", "p90")}


def _amounts(found: Range | None) -> dict[str, float | None] | None:
    if found is None:
        return None
    return {p: _cents(getattr(found, p)) for p in ("p10", "p50", "p90")}


def _cents(amount: float | None) -> float | None:
    return None if amount is None else round(float(amount), 2)


def forecast_answer(found: Forecast, calendar: FiscalCalendar) -> dict[str, Any]:
    """The answer to a question for a forecast; `end` is the first day after the period."""
    return {
        "as_of": time_text(found.as_of),
        "by": found.by,
        "measure": found.measure,
        "periods": [_cell(cell, calendar) for cell in found.cells],
        "currency": found.currency,
        "warnings": list(found.warnings),
        "model": dict(found.model),
    }


def _cell(cell: Cell, calendar: FiscalCalendar) -> dict[str, Any]:
    return {
        "period": cell.period.name,
        "start": calendar.day_of(cell.period.start).isoformat(),
        "end": calendar.day_of(cell.period.end).isoformat(),
        "group": cell.group,
        "mean": _cents(cell.mean),
        "quantiles": {level: _cents(value) for level, value in cell.quantiles.items()},
        "components": {name: _cents(value) for name, value in cell.components.items()},
        "target": _cents(cell.target),
        "probability_of_target": cell.probability_of_target,
        "coverage": [dict(c) for c in cell.coverage],
        "drivers": [dict(d) for d in cell.drivers],
    }


def renewals_answer(
    found: Sequence[Renewal], answer: Mapping[str, Any], calendar: FiscalCalendar
) -> dict[str, Any]:
    """What renewal pipelines keep, by period and pipeline, beside the forecast it comes from."""
    shared = ("as_of", "period", "horizon", "hindsight", "currency", "warnings", "model")
    return {**{k: answer[k] for k in shared}, "items": _renewals(found, calendar)}


def _renewals(found: Sequence[Renewal], calendar: FiscalCalendar) -> list[dict[str, Any]]:
    return [
        {
            "period": r.cell.period.name,
            "start": calendar.day_of(r.cell.period.start).isoformat(),
            "end": calendar.day_of(r.cell.period.end).isoformat(),
            "pipeline": r.cell.group,
            "due": r.due,
            **{
                name: _cents(getattr(r, name))
                for name in (
                    "up_for_renewal",
                    "renewed_to_date",
                    "churned_to_date",
                    "expected_renewed",
                    "expected_churn",
                    "undecided",
                )
            },
            "gross_retention": r.gross_retention,
            "net_retention": r.net_retention,
            "renewed": {
                "mean": _cents(r.cell.mean),
                "quantiles": {level: _cents(v) for level, v in r.cell.quantiles.items()},
            },
        }
        for r in found
    ]
