"""Checks of values: amounts, currencies, stages, owners, references, duplicates, persons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from data.history import LOST, OPEN, WON, HistoryError
from data.quality.findings import (
    Check,
    Finding,
    View,
    graded,
    has_value,
    listed,
    number_text,
    share_text,
)
from data.timelines import DAY, NEVER, micros

__all__ = ["VALUE_CHECKS"]

# --- amounts ---------------------------------------------------------------------------------


def _amounts_missing(view: View) -> Finding | None:
    has = has_value(view.table["amount"])
    valued = has | has_value(view.table["closed_amount"])
    n, won = len(view), view.outcome == WON
    worthless = int((won & ~valued).sum())
    lacking = int((~has).sum())
    if lacking < 0.01 * n and worthless == 0:
        return None
    share = lacking / n
    percent = share_text(lacking, n)
    said = (
        "no deal has an amount"
        if lacking == n
        else (f"{number_text(lacking)} of {view.count(n)} without an amount ({percent})")
    )
    more = f"; {number_text(worthless)} won ones count as 0 revenue" if worthless else ""
    return view.finding(
        "warning" if share >= 0.2 or worthless >= 0.01 * max(won.sum(), 1) else "info",
        said + more,
        "map amount (a list price will do) and, for won deals, closed_amount; an open deal without "
        "one gets an amount drawn from deals like it, so its revenue is uncertain",
        examples=won & ~valued if worthless else ~has,
        records=lacking,
        open=int((~has & view.still_open).sum()),
        won_without_value=worthless,
    )


def _amounts_not_positive(view: View) -> Finding | None:
    amount = view.table["amount"]
    zero, negative = amount == 0, amount < 0
    n = int((zero | negative).sum())
    if n == 0:
        return None
    lost = int((zero & (view.outcome == LOST)).sum())
    return view.finding(
        "warning" if negative.any() or zero.sum() >= 0.05 * len(view) else "info",
        f"amounts that are not positive: {view.count(int(zero.sum()))} with 0, "
        f"{number_text(int(negative.sum()))} below",
        "if 0 means unknown, list it under `missing` of the file; if lost deals are set to 0, map "
        "amount to what was asked for and only closed_amount to what was paid; leave credit notes "
        "out",
        examples=zero | negative,
        zero=int(zero.sum()),
        zero_among_lost=lost,
        negative=int(negative.sum()),
    )


def _amount_outliers(view: View) -> Finding | None:
    amount = view.table["amount"]
    usable = np.flatnonzero(amount > 0)
    if len(usable) < 50:
        return None
    logs = np.log(amount[usable])
    middle = np.median(logs)
    spread = max(1.4826 * float(np.median(np.abs(logs - middle))), 0.5)
    far = usable[logs - middle > max(6 * spread, np.log(20))]
    if len(far) == 0:
        return None
    far = far[np.argsort(-amount[far], kind="stable")]
    total = float(amount[usable].sum())
    return view.finding(
        "warning" if amount[far].sum() >= 0.05 * total else "info",
        f"{view.count(len(far))} with an amount far above all others (up to "
        f"{number_text(amount[far[0]])}, the median is {number_text(np.exp(middle))}): "
        f"{share_text(amount[far].sum(), total)} of all value",
        "check them for typing errors, other currencies and test records; one such deal decides a "
        "quarter's range",
        examples=far,
        records=len(far),
        largest=float(amount[far[0]]),
        median=round(float(np.exp(middle)), 2),
    )


def _base_currency(view: View) -> Finding | None:
    priced = has_value(view.table["amount"]) | has_value(view.table["closed_amount"])
    if not priced.any():
        return None
    named = has_value(view.table["currency"])
    try:
        base = view.history.currency
    except HistoryError as error:
        return view.finding(
            "severe",
            f"the base currency is not known: {str(error).partition(';')[0]}",
            "where several occur, name the base one with DEALCAST_CURRENCY; where none does, set "
            "`currency` in the [source] of the mapping",
            records=int(priced.sum()),
        )
    declared = {f.name for f in view.history.facts if f.currency}
    silent = priced & ~named
    silent &= ~np.isin(view.table["source"].astype(str), list(declared))
    if not (silent.any() and named.any()):
        return None
    return view.finding(
        "warning",
        f"{view.count(int(silent.sum()))} with an amount without a currency; {base} is taken",
        "map currency, or set `currency` in the [source] of the mapping",
        examples=silent,
        records=int(silent.sum()),
    )


def _currencies_without_rate(view: View) -> Finding | None:
    try:
        base = view.history.currency
    except HistoryError:
        return None  # DQ405 says so
    own = view.table["currency"]
    rates = view.history.tables["exchange_rate"]
    into = rates["to_currency"] == base
    lacking: dict[str, int] = {}
    bad = np.zeros(len(view), dtype=bool)
    for code in sorted({str(c) for c in own if c is not None} - {base}):
        days = micros(rates["date"][into & (rates["from_currency"] == code)])
        first = int(days.min()) if len(days) else NEVER
        without = (own == code) & (np.where(view.timed, view.created, NEVER - 1) < first)
        if without.any():
            lacking[code] = int(without.sum())
            bad |= without
    if not lacking:
        return None
    names = ", ".join(f"{code} ({number_text(n)} deals)" for code, n in lacking.items())
    return view.finding(
        "severe",
        f"no exchange rate into {base} at the creation of deals in {names}: their amounts cannot "
        "be converted, and training stops",
        "import exchange rates (exchange_rate) from the day of the first such deal on",
        examples=bad,
        currencies=lacking,
    )


def _expected_in_past(view: View) -> Finding | None:
    expected = micros(view.table["expected_close_date"])
    dated = view.still_open & (expected != NEVER)
    late = dated & (expected < view.until - DAY)
    n = int(late.sum())
    if n < 3 or n < 0.05 * dated.sum():
        return None
    return view.finding(
        "warning" if n >= 0.3 * dated.sum() else "info",
        f"the expected close date lies in the past for {number_text(n)} of "
        f"{number_text(int(dated.sum()))} open deals that have one "
        f"({share_text(n, int(dated.sum()))})",
        "ask the owners for new dates; the model learns how much a stale date is worth, but a "
        "forecast by expected date is worth little",
        examples=np.flatnonzero(late)[np.argsort(expected[late], kind="stable")],
        records=n,
    )


def _probability_scale(view: View) -> Finding | None:
    given = view.table["probability"]
    wrong = (given > 1) | (given < 0)
    n = int(wrong.sum())
    if n == 0:
        return None
    return view.finding(
        "warning",
        f"{view.count(n)} with a probability outside of 0 to 1 (up to {np.nanmax(given):g})",
        'scale it in the mapping: probability = { column = "...", scale = 0.01 }',
        examples=wrong,
        records=n,
    )


# --- stages, owners, references --------------------------------------------------------------


def _unknown_stages(view: View) -> Finding | None:
    known = set(view.history.tables["stage"]["stage_id"])
    moves = view.events("stage_change")
    used = Counter(s for s in view.table["stage_id"] if s is not None)
    used.update(s for s in moves["to_stage_id"] if s is not None)
    strange = {str(s): n for s, n in used.most_common() if s not in known}
    if not strange:
        return None
    return view.finding(
        "warning",
        f"{len(strange)} stages are not in the stage table: {listed(strange)}"
        if known
        else f"there is no stage table; {len(strange)} stages occur, in an order nobody knows",
        "declare the stages in order under [[stages]] in the mapping, old names included: steps "
        "back, skipped stages and priors come from it",
        stages=dict(list(strange.items())[:20]),
    )


def _stage_against_outcome(view: View) -> Finding | None:
    stage = view.history.tables["stage"]
    kinds = {"open": OPEN, "won": WON, "lost": LOST}
    by_key = {
        (p, s): kinds[k]
        for p, s, k in zip(stage["pipeline_id"], stage["stage_id"], stage["kind"], strict=True)
        if k is not None
    }
    pairs = zip(view.table["pipeline_id"], view.table["stage_id"], strict=True)
    said = np.array([by_key.get(pair, -1) for pair in pairs], dtype=np.int64)
    # A closed deal may keep its last open stage: only a stage that says closed can contradict.
    bad = (said > OPEN) & (said != view.outcome)
    n = int(bad.sum())
    if n == 0:
        return None
    return view.finding(
        graded(n / len(view), 0.05, 0.0),
        f"{view.count(n)} in a stage of kind won or lost, while the outcome says otherwise",
        "map outcome from the CRM's own closed and won flags; correct the kinds under [[stages]]",
        examples=bad,
        records=n,
    )


def _without_owner(view: View) -> Finding | None:
    has = has_value(view.table["owner_id"])
    if not has.any():
        return view.finding(
            "info",
            f"no owners of {view.noun}: no scores or forecasts by owner or team",
            "map owner_id if the source has it",
            records=len(view),
        )
    still = int(view.still_open.sum())
    n = int((view.still_open & ~has).sum())
    if n < max(3, 0.05 * still):
        return None
    return view.finding(
        "warning" if n >= 0.3 * still else "info",
        f"{number_text(n)} of {number_text(still)} open {view.noun} without an owner "
        f"({share_text(n, still)})",
        "assign them: forecasts by owner or team cannot place them",
        examples=view.still_open & ~has,
        records=n,
    )


def _dangling(view: View) -> Finding | None:
    tables = view.history.tables
    records = set(view.table[f"{view.side}_id"])
    targets = {
        "owner_id": ("owner", set(tables["owner"]["owner_id"])),
        "account_id": ("account", set(tables["account"]["account_id"])),
        "converted_deal_id": ("deal", set(tables["deal"]["deal_id"])),
        "originating_lead_id": ("lead", set(tables["lead"]["lead_id"])),
    }
    lost: dict[str, int] = {}
    worst = 0.0
    for column, (name, known) in targets.items():
        if known and column in view.table.columns:
            values = [v for v in view.table[column] if v is not None]
            worst = max(worst, _count_strange(lost, f"{view.side}.{column}", name, values, known))
    for event in ("stage_change", "field_change", "activity", "qualification", "contact_role"):
        if event == "contact_role" and view.side == "lead":
            continue
        table = view.events(event)
        column = "entity_id" if "entity_id" in table.columns else f"{view.side}_id"
        worst = max(worst, _count_strange(lost, event, view.side, table[column], records))
    if not lost:
        return None
    told = ", ".join(f"{name}: {number_text(n)}" for name, n in lost.items())
    return view.finding(
        "warning" if worst >= 0.05 else "info",
        f"references from or to {view.noun} lead nowhere ({told}); such rows are not used",
        "import the missing records, or write the ids in the same way in all files",
        rows=lost,
    )


def _count_strange(
    lost: dict[str, int], name: str, target: str, values: Iterable[Any], known: set[Any]
) -> float:
    """Count the values that are not known under `name -> target`; gives their share."""
    found = list(values)
    n = sum(v not in known for v in found)
    if n:
        lost[f"{name} -> {target}"] = n
    return n / max(len(found), 1)


VALUE_CHECKS = (
    Check("DQ401", _amounts_missing, sides=("deal",), timed=False),
    Check("DQ402", _amounts_not_positive, sides=("deal",), timed=False),
    Check("DQ403", _amount_outliers, sides=("deal",), timed=False),
    Check("DQ404", _currencies_without_rate, sides=("deal",), timed=False),
    Check("DQ405", _base_currency, sides=("deal",), timed=False),
    Check("DQ406", _expected_in_past, sides=("deal",)),
    Check("DQ407", _unknown_stages, sides=("deal",), timed=False),
    Check("DQ408", _stage_against_outcome, sides=("deal",), timed=False),
    Check("DQ409", _without_owner, timed=False),
    Check("DQ410", _dangling, timed=False),
    Check("DQ413", _probability_scale, sides=("deal",), timed=False),
)
