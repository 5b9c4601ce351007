"""What the command line says of numbers given out before: forecasts and scores, and how good."""

from __future__ import annotations

from typing import Any

from data.revenue import MEASURES
from data.store import ForecastFilter
from dealcast import show
from dealcast.doors import Doors, Kind, UsageError
from serving.past import forecast_history, score_performance

__all__ = [
    "asked_for",
    "history_of_forecasts",
    "score_history",
    "show_forecasts",
    "show_renewals",
    "show_scores",
]

_KINDS = ("week", "month", "quarter", "days")
_MOST = 1000


def asked_for(
    doors: Doors,
    period: str | None,
    measure: str | None,
    by: str | None,
    group: str | None,
    first: str | None,
    last: str | None,
    limit: int,
) -> ForecastFilter:
    """The filters of a look at past forecasts.

    Raises
    ------
    UsageError
        If one of them is not allowed.
    """
    if period is not None and period not in _KINDS:
        raise UsageError(f"period is {period!r}; allowed: {', '.join(_KINDS)}")
    if measure is not None and measure not in MEASURES:
        raise UsageError(f"measure is {measure!r}; allowed: {', '.join(MEASURES)}")
    if not 1 <= limit <= _MOST:
        raise UsageError(f"limit is {limit}; allowed: 1 to {_MOST:,}")
    return ForecastFilter(
        period=period,
        measure=measure,
        by=by,
        group=group,
        start=None if first is None else doors.moment(first),
        end=None if last is None else doors.moment(last),
        order="newest",
        limit=limit,
    )


def history_of_forecasts(doors: Doors, asked: ForecastFilter) -> dict[str, Any]:
    """Forecasts as issued, and what happened."""
    return forecast_history(doors.store, doors.history, doors.calendar, asked, doors.clock)


def score_history(doors: Doors, kind: Kind) -> dict[str, Any]:
    """How the scores as issued compare with what happened."""
    return score_performance(doors.store, doors.history, doors.calendar, kind, doors.clock)


def show_forecasts(answer: dict[str, Any], as_json: bool) -> None:
    """Print past forecasts."""
    if as_json:
        show.to_json(answer)
        return
    show.table(
        f"Forecasts as issued, the newest {len(answer['items']):,} of {answer['total']:,}",
        ["issued at", "period", "group", "counts", "low 10 %", "expected", "high 90 %", "actual",
         "error", "80 % range", "commits"],
        [_forecast_row(item) for item in answer["items"]],
    )  # fmt: skip
    _show_summary(answer["summary"])
    _show_added(answer["value_added"])
    alone = answer["commits_without_forecast"]
    if alone:
        show.note(f"{alone:,} commits had no forecast of the seven days before beside them")


def _forecast_row(item: dict[str, Any]) -> list[Any]:
    outcome, quantiles = item["outcome"], item["quantiles"]
    held = {h["level"]: h["held"] for h in outcome["held"]} if outcome else {}
    return [
        item["issued_at"][:16],
        item["period"],
        item["group"],
        None if item["measure"] == "amount" else item["measure"],
        show.money(quantiles.get("0.1")),
        show.money(item["mean"]),
        show.money(quantiles.get("0.9")),
        show.money(outcome["actual"]) if outcome else "not yet known",
        f"{outcome['error']:+,.0f}" if outcome else None,
        {True: "held", False: "missed"}.get(held.get(0.8, "")),
        "; ".join(f"{c['author_id']}: {show.money(c['human'])}" for c in item["commits"]),
    ]


def _show_summary(summary: dict[str, Any]) -> None:
    n = summary["n"]
    show.note(
        f"{n:,} numbers about {summary['periods']:,} periods that are over; {summary['pending']:,} "
        f"not over yet; {summary['excluded']:,} left out (given afterwards, or with hindsight)"
    )
    if n and summary["bias"] is not None:
        show.note(
            f"bias {summary['bias']:+.1%}, absolute error {summary['mae']:.1%}, CRPS "
            f"{summary['crps']:.1%} of the mean actual"
        )
    for c in summary["coverage"]:
        show.note(
            f"ranges of {show.share(c['level'])} held {show.share(c['measured'])} of {c['n']:,} "
            f"(95 % interval {show.share(c['low'])} to {show.share(c['high'])}, were they "
            "independent)"
        )


def _show_added(rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    show.table(
        "People's numbers beside the model's (added: above 0 people were nearer)",
        ["number", "error", "n", "periods or deals", "not yet known", "people", "model", "added",
         "95 % from", "to"],
        [
            [r["kind"], r["measure"], r["n"], r["subjects"], r["pending"]]
            + [_figure(r[k]) for k in ("human_error", "model_error", "added", "low", "high")]
            for r in rows
        ],
    )  # fmt: skip


def _figure(value: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def show_scores(answer: dict[str, Any], as_json: bool) -> None:
    """Print how good past scores were."""
    if as_json:
        show.to_json(answer)
        return
    show.table(
        f"{answer['issued']:,} scores of {answer['kind']}s as issued, against what happened",
        ["days ahead", "n", "records", "pending", "left out", "mean p", "happened", "log loss",
         "Brier"],
        [
            [
                f"{r['days']:g}", r["n"], r["records"], r["pending"], r["excluded"],
                show.share(r["mean_probability"]), show.share(r["rate"]),
                *(None if r[k] is None else f"{r[k]:.4f}" for k in ("log_loss", "brier")),
            ]
            for r in answer["by_days"]
        ],
    )  # fmt: skip
    _show_added(answer["value_added"])
    alone = answer["overrides_without_score"]
    if alone:
        show.note(
            f"{alone:,} overrides had no score of the seven days before beside them, or no value "
            "that can be read"
        )


def show_renewals(answer: dict[str, Any]) -> None:
    """Print what the renewal pipelines keep."""
    show.table(
        f"Renewals, {answer['currency']}, as of {answer['as_of']}",
        ["period", "pipeline", "due", "value up", "renewed", "churned", "kept at last",
         "lost at last", "still open", "gross", "net"],
        [
            [r["period"], r["pipeline"], r["due"]]
            + [
                show.money(r[k])
                for k in (
                    "up_for_renewal", "renewed_to_date", "churned_to_date", "expected_renewed",
                    "expected_churn", "undecided",
                )
            ]
            + [show.share(r["gross_retention"]), show.share(r["net_retention"])]
            for r in answer["items"]
        ],
    )  # fmt: skip
    show.note(
        "renewed, churned: so far; gross, net: kept at its value before, and after, over what is up"
    )
    for warning in answer["warnings"]:
        show.note(f"note: {warning}")
