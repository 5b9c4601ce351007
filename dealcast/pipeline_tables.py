"""What moved, the KPIs and the stages, as tables that a sales manager reads."""

from __future__ import annotations

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

from dealcast import show

__all__ = ["show_changes", "show_metrics"]

_KINDS = {
    "created": "created",
    "reopened": "reopened",
    "amount_set": "amount set",
    "amount_up": "amount up",
    "amount_down": "amount down",
    "exchange_rate": "exchange rate",
    "pulled_in": "pulled in",
    "pushed_in": "pushed in",
    "dated": "got a date",
    "pushed_out": "pushed out",
    "pulled_out": "pulled out",
    "undated": "lost its date",
    "moved": "changed hands",
    "moved_in": "moved in",
    "moved_out": "moved out",
    "won": "won",
    "lost": "lost",
    "deleted": "deleted or merged",
}
_KPIS = {
    "open_pipeline": "open pipeline",
    "weighted_pipeline": "weighted by learnt stage rates",
    "weighted_pipeline_crm": "weighted by the CRM's probability",
    "slipped_deals": "slipped deals",
    "stalled_deals": "stalled deals",
    "at_risk_deals": "deals at risk",
    "target_attainment": "target attainment",
    "reps_at_target": "reps at target",
    "pipeline_coverage": "coverage of what is left",
    "pipeline_coverage_expected": "the same, expected in time",
    "pipeline_velocity": "pipeline velocity, a day",
    "closed_value": "closed value",
    "win_rate": "win rate",
    "win_rate_by_value": "win rate by value",
    "deal_size": "deal size, mean",
    "median_deal_size": "deal size, median",
    "mean_sales_cycle": "sales cycle, mean",
    "median_sales_cycle": "sales cycle, median",
    "retention": "renewals kept",
    "churn": "renewals lost",
    "lead_conversion": "leads qualified",
    "lead_response_time": "lead response time, median",
    "meetings": "meetings",
    "forecast_error_commit": "error of the commit",
    "forecast_error_crm_pipeline": "error of the CRM's weighted pipeline",
    "forecast_error_naive": "error of the mean of 4 periods before",
    "forecast_coverage_80": "80 % ranges held",
}


def show_changes(answer: dict[str, Any], zone: str) -> None:
    """The bridge of the whole, the groups side by side, and the largest deals.

    Moments are told on the organisation's clock, in `zone`.
    """
    within = answer["period"]
    what = "Open pipeline" if within is None else f"Pipeline expected in {within['period']}"
    start, end = _when(answer["from"], zone), _when(answer["to"], zone)
    whole, *groups = answer["groups"]
    show.table(
        f"{what}, {answer['currency']}, {start} to {end}",
        ["", "deals", "adds up", "amount moved", "close dates, mean"],
        [
            _stock_row(start, whole["before"]),
            *(_change_row(change) for change in whole["changes"]),
            _stock_row(end, whole["after"]),
        ],
    )
    if groups:
        _show_groups(answer["by"], start, end, groups)
    if answer["deals"]:
        show.table(
            f"Deals, the largest of {answer['deals_in_all']:,} entries",
            ["deal", "what", "group", "when", "effect", "amount", "days"],
            [
                [
                    deal["deal_id"],
                    _KINDS[deal["kind"]],
                    "" if deal["group"] == "all" else deal["group"],
                    _when(deal["at"], zone),
                    _signed(deal["effect"]) if deal["effect"] else "",
                    show.money(deal["amount"]),
                    "" if deal["days"] is None else f"{deal['days']:+.0f}",
                ]
                for deal in answer["deals"]
            ],
            texts=("what", "group", "when"),
        )
    missing = whole["after"]["without_amount"]
    if missing:
        show.note(f"note: {missing:,} of the open deals carry no amount and count as nothing")
    if within is not None and answer["without_close_date"]:
        show.note(
            f"note: {answer['without_close_date']:,} open deals have no expected close date and "
            "count in no period"
        )


def _stock_row(when: str, stock: dict[str, Any]) -> list[Any]:
    return [f"open on {when}", stock["deals"], show.money(stock["amount"]), "", ""]


def _change_row(change: dict[str, Any]) -> list[Any]:
    days = change["mean_days"]
    return [
        f"  {_KINDS[change['kind']]}",
        change["deals"],
        _signed(change["effect"]),
        show.money(change["amount"]),
        "" if days is None else f"{days:+.0f} days",
    ]


def _show_groups(by: str, start: str, end: str, groups: list[dict[str, Any]]) -> None:
    effects = [{c["kind"]: c["effect"] for c in g["changes"]} for g in groups]
    used = [k for k in _KINDS if any(e.get(k) for e in effects)]
    show.table(
        f"By {by}: the effects add up from {start} to {end}",
        [by, start, *(_KINDS[k] for k in used), end],
        [
            [
                g["group"],
                show.money(g["before"]["amount"]),
                *(_signed(e[k]) if e.get(k) else "" for k in used),
                show.money(g["after"]["amount"]),
            ]
            for g, e in zip(groups, effects, strict=True)
        ],
    )


def show_metrics(answer: dict[str, Any], zone: str) -> None:
    """The pipeline now, what closed, the pace, the stages, and the deals that want a look."""
    kpis, period = answer["kpis"], answer["period"]["period"]
    currency = answer["currency"]
    year = "365 days"
    windowed = {k["name"] for k in kpis if k["window"] == period} & {
        k["name"] for k in kpis if k["window"] == year
    }
    show.table(
        f"Pipeline, {currency}, as of {_when(answer['as_of'], zone)}",
        ["", "value", "from", "which is"],
        [
            [_KPIS[k["name"]], _value(k), _count(k), _detail(k)]
            for k in kpis
            if k["name"] not in windowed
        ],
        texts=("which is",),
    )
    pairs = [
        [next(k for k in kpis if (k["name"], k["window"]) == (name, w)) for w in (period, year)]
        for name in dict.fromkeys(k["name"] for k in kpis if k["name"] in windowed)
    ]
    show.table(
        f"Closed deals, leads and work, {currency}",
        ["", f"{period} to date", "from", f"last {year}", "from "],
        [
            [_KPIS[now["name"]], _value(now), _count(now), _value(long), _count(long)]
            for now, long in pairs
        ],
    )
    _show_parts(kpis, year)
    show.lines([_pace(answer), ""])
    _show_stages(answer["stages"], currency)
    _show_attention(answer)
    for kpi in kpis:
        if kpi["value"] is None and kpi["window"] != year:
            show.note(f"not told: {_KPIS[kpi['name']]}: {kpi['reason']}")


def _show_parts(kpis: list[dict[str, Any]], window: str) -> None:
    """Lead conversion by source."""
    found = [k for k in kpis if k["name"] == "lead_conversion" and k["window"] == window]
    if found and found[0]["parts"]:
        show.table(
            f"Leads qualified by source, last {window}",
            ["source", "qualified", "of leads"],
            [[p["name"], show.share(p["value"]), p["n"]] for p in found[0]["parts"]],
        )


def _pace(answer: dict[str, Any]) -> str:
    pace, period, currency = answer["pace"], answer["period"]["period"], answer["currency"]
    said = (
        f"Pace: {show.money(pace['won'])} {currency} won in {period}, of which "
        f"{show.share(pace['elapsed'])} has passed."
    )
    if pace["usual_then"] is not None:
        said += (
            f" At this point of {len(pace['past'])} past periods it was "
            f"{show.money(pace['usual_then'])} on average"
        )
        if pace["share_then"] is not None:
            said += (
                f", {show.share(pace['share_then'])} of what they came to in the median "
                f"({show.share(pace['share_then_lowest'])} to "
                f"{show.share(pace['share_then_highest'])})"
            )
        said += "."
    if pace["implied"] is not None:
        said += f" Going on like the median, {period} comes to {show.money(pace['implied'])}."
    return said + (f" {pace['reason'].capitalize()}." if pace["reason"] else "")


def _show_stages(stages: list[dict[str, Any]], currency: str) -> None:
    show.table(
        f"Stages, {currency}",
        [
            "pipeline",
            "stage",
            "wins",
            "80 % range",
            "closed deals",
            "goes on",
            "of deals",
            "median days",
            "open deals",
            "open amount",
        ],
        [
            [
                s["pipeline_id"],
                s["name"],
                show.share(s["win_probability"]),
                "" if s["low"] is None else f"{show.share(s['low'])} - {show.share(s['high'])}",
                s["closed_deals"],
                show.share(s["conversion"]),
                s["decided_deals"],
                "" if s["median_days"] is None else f"{s['median_days']:.1f}",
                s["open_deals"],
                show.money(s["open_amount"]),
            ]
            for s in stages
        ],
        texts=("stage",),
    )


def _show_attention(answer: dict[str, Any]) -> None:
    deals = answer["attention"]
    if deals:
        show.table(
            f"Deals that want a look, the largest of {answer['attention_in_all']:,}, "
            f"{answer['currency']}",
            ["deal", "owner", "stage", "amount", "flags", "why"],
            [
                [
                    d["deal_id"],
                    d["owner_id"],
                    d["stage_id"],
                    show.money(d["amount"]),
                    ", ".join(f.replace("_", " ") for f in d["flags"]),
                    d["why"],
                ]
                for d in deals
            ],
            texts=("owner", "stage", "flags", "why"),
        )


def _value(kpi: dict[str, Any]) -> str:
    value = kpi["value"]
    if value is None:
        return "not told"
    match kpi["unit"]:
        case "share":
            return show.share(value)
        case "ratio":
            return f"{value:.1f} x"
        case "days" | "hours":
            return f"{value:,.1f} {kpi['unit']}"
        case _:
            return show.money(value)


def _count(kpi: dict[str, Any]) -> str:
    return "" if kpi["value"] is None else f"{kpi['n']:,}"


def _detail(kpi: dict[str, Any]) -> str:
    if kpi["name"] == "reps_at_target":
        return ""
    money = kpi["unit"] in ("money", "ratio") or kpi["name"] == "target_attainment"
    said = [
        f"{p['name']} {show.money(p['value'])}" + (f" ({p['n']:,})" if p["n"] != 1 else "")
        if money
        else f"{p['name']} {show.share(p['value'])}"
        for p in kpi["parts"]
        if p["value"] is not None
    ]
    if kpi["value"] is not None and kpi["reason"]:
        said.insert(0, kpi["reason"])
    return "; ".join(said)


def _signed(value: float) -> str:
    return f"{value:+,.0f}" if value else "0"


def _when(text: str, zone: str) -> str:
    """A day in a time zone; with the time where that is not midnight."""
    local = dt.datetime.fromisoformat(text).astimezone(ZoneInfo(zone))
    return f"{local:%Y-%m-%d}" if local.time() == dt.time() else f"{local:%Y-%m-%d %H:%M}"
