"""Answers about the pipeline as plain JSON values: what moved, the KPIs, the table of stages."""

from __future__ import annotations

from typing import Any

from data.pipeline import FiscalCalendar, Period
from scoring.books import Books
from scoring.changes import KINDS, Bridge, Change, Changes, Moved, Stock
from scoring.kpi import Kpi, money
from scoring.metrics import Metrics
from scoring.money import base_currency
from scoring.pacing import Pace
from scoring.stage_table import StageRow, stage_table
from serving.answers import time_text

__all__ = ["changes_answer", "metrics_answer", "stages_answer"]

_MONEY = ("money", "money a day")


def changes_answer(found: Changes, calendar: FiscalCalendar) -> dict[str, Any]:
    """What moved: the whole, each group, and the deals that are listed."""
    return {
        "from": time_text(found.start),
        "to": time_text(found.end),
        "by": found.by,
        "period": None if found.period is None else _period(found.period, calendar),
        "currency": found.currency,
        "groups": [_bridge(bridge) for bridge in found.groups],
        "deals": [_moved(deal) for deal in found.moved],
        "deals_in_all": found.moved_in_all,
        "without_close_date": found.without_date,
    }


def _period(period: Period, calendar: FiscalCalendar) -> dict[str, Any]:
    return {
        "period": period.name,
        "start": calendar.day_of(period.start).isoformat(),
        "end": calendar.day_of(period.end).isoformat(),
    }


def _bridge(bridge: Bridge) -> dict[str, Any]:
    return {
        "group": bridge.group,
        "before": _stock(bridge.before),
        "after": _stock(bridge.after),
        "difference": money(bridge.after.cents - bridge.before.cents),
        "changes": [_change(change) for change in bridge.changes],
    }


def _stock(stock: Stock) -> dict[str, Any]:
    return {
        "deals": stock.deals,
        "without_amount": stock.without_amount,
        "amount": money(stock.cents),
    }


def _change(change: Change) -> dict[str, Any]:
    return {
        "kind": change.kind,
        "meaning": KINDS[change.kind],
        "deals": change.deals,
        "effect": money(change.effect),
        "amount": money(change.amount),
        "mean_days": change.days,
    }


def _moved(deal: Moved) -> dict[str, Any]:
    return {
        "deal_id": deal.deal_id,
        "kind": deal.kind,
        "group": deal.group,
        "at": time_text(deal.at),
        "effect": money(deal.effect),
        "amount": money(deal.amount),
        "days": deal.days,
    }


def metrics_answer(found: Metrics) -> dict[str, Any]:
    """The KPIs, the pace, and the deals that want a look."""
    return {
        **_of(found.books),
        "period": _period(found.books.period, found.books.calendar),
        "kpis": [_kpi(kpi) for kpi in found.kpis],
        "pace": _pace(found.pace),
        "attention": [
            {
                "deal_id": deal.deal_id,
                "owner_id": deal.owner_id,
                "stage_id": deal.stage_id,
                "amount": money(deal.cents),
                "flags": list(deal.flags),
                "why": deal.why,
            }
            for deal in found.flagged
        ],
        "attention_in_all": found.flagged_in_all,
    }


def _of(books: Books) -> dict[str, Any]:
    return {
        "as_of": time_text(books.as_of),
        "currency": base_currency(books.history),
        "model": None if books.bundle is None else books.bundle.manifest.answer,
    }


def _kpi(kpi: Kpi) -> dict[str, Any]:
    def shown(value: float | None) -> float | None:
        return round(value, 2) if value is not None and kpi.unit in _MONEY else value

    return {
        "name": kpi.name,
        "window": kpi.window,
        "value": shown(kpi.value),
        "unit": kpi.unit,
        "n": kpi.n,
        "reason": kpi.reason,
        "parts": [{"name": p.name, "value": shown(p.value), "n": p.n} for p in kpi.parts],
    }


def _pace(pace: Pace) -> dict[str, Any]:
    return {
        "elapsed": pace.elapsed,
        "won": money(pace.won),
        "usual_then": None if pace.usual_then is None else round(money(pace.usual_then), 2),
        "share_then": pace.share_then,
        "share_then_lowest": pace.lowest,
        "share_then_highest": pace.highest,
        "implied": None if pace.implied is None else round(money(pace.implied), 2),
        "past": [
            {"period": p.name, "then": money(p.then), "final": money(p.final)} for p in pace.past
        ],
        "reason": pace.reason,
    }


def stages_answer(books: Books) -> dict[str, Any]:
    """The table of stages."""
    return {**_of(books), "stages": [_stage(row) for row in stage_table(books)]}


def _stage(row: StageRow) -> dict[str, Any]:
    return {
        "pipeline_id": row.pipeline_id,
        "stage_id": row.stage_id,
        "name": row.name,
        "win_probability": row.win_probability,
        "low": row.low,
        "high": row.high,
        "closed_deals": row.closed,
        "conversion": row.conversion,
        "decided_deals": row.decided,
        "median_days": row.median_days,
        "stays": row.stays,
        "open_deals": row.open_deals,
        "open_amount": money(row.open_cents),
    }
