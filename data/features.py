"""Features: what a model may know about a lead or a deal at a moment.

A `Feature` declares name, dtype, unit, meaning and scope; `compute` turns a `Snapshot` into
columns. A million landmarks and one request go through the same lines. A feature is `own` (from
the record's past) or `context` (account, owner); a request without context has it missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data.history import OPEN, WON, History, Ledger, Side, Snapshot
from data.timelines import (
    DAY,
    NEVER,
    Column,
    FloatArray,
    IntArray,
    dictionary,
    micros,
    rank_within,
    to_column,
)

__all__ = ["Feature", "FeatureColumns", "compute", "declare"]

FeatureColumns = dict[str, Any]  # name -> float64 (m,) or (codes int32 (m,), levels)

# Mail providers anybody can use: an address there says little about a company.
_FREE_MAIL = {
    "gmail.com",
    "googlemail.com",
    "yahoo.com",
    "hotmail.com",
    "outlook.com",
    "live.com",
    "icloud.com",
    "aol.com",
    "gmx.de",
    "gmx.net",
    "web.de",
    "mail.ru",
    "proton.me",
    "protonmail.com",
    "qq.com",
    "163.com",
    "orange.fr",
    "libero.it",
}
# Known only afterwards, about persons, or identities of other records: never features.
_NEVER_FEATURES = {
    "closed_amount", "loss_reason", "disqualification_reason", "converted_deal_id",
    "merged_into_id", "name", "company_name", "originating_lead_id", "account_id", "owner_id",
    "currency", "status", "tags", "amount", "expected_close_date", "email_domain", "closed_at",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Feature:
    """A declared feature.

    Attributes
    ----------
    name : str
        What models, reasons and requests call it; `kernel[argument]` for one of a family.
    dtype : {"number", "category"}
    unit, meaning : str
    scope : {"own", "context"}
    group : str
        Features of a group are told as one reason.
    """

    name: str
    dtype: Literal["number", "category"]
    unit: str
    meaning: str
    scope: Literal["own", "context"] = "own"
    group: str = ""


Kernel = Callable[[Snapshot, str], Any]
_KERNELS: dict[str, Kernel] = {}


def _kernel(*names: str) -> Callable[[Kernel], Kernel]:
    def register(function: Kernel) -> Kernel:
        for name in names:
            _KERNELS[name] = function
        return function

    return register


def compute(
    snapshot: Snapshot, features: Sequence[Feature], context: Mapping[str, Any] | None = None
) -> FeatureColumns:
    """Values of features for every row of a snapshot.

    Parameters
    ----------
    context : mapping, optional
        Values that replace context features, by name: arrays of shape (m,), or one value.

    Returns
    -------
    dict
        float64 (m,) with NaN for missing, or (codes int32 (m,) with -1 for missing, levels).
    """
    columns: FeatureColumns = {}
    for feature in features:
        if context is not None and feature.scope == "context" and feature.name in context:
            columns[feature.name] = _given(context[feature.name], feature, len(snapshot))
            continue
        kernel = _KERNELS[feature.name.partition("[")[0]]
        columns[feature.name] = _as_declared(kernel(snapshot, _argument(feature.name)), feature)
    return columns


def _argument(name: str) -> str:
    """What stands in the brackets of `kernel[argument]`."""
    return name.partition("[")[2].removesuffix("]")


def _as_declared(value: Column | npt.NDArray[Any], feature: Feature) -> Any:
    if not isinstance(value, Column):
        return value.astype(np.float64)
    if feature.dtype == "number":
        return value.numbers()
    if value.kind == "number":  # a field that looked like text in training, numbers today
        texts = value.texts()
        levels = np.array(sorted({t for t in texts if t is not None}), dtype=object)
        place = {t: i for i, t in enumerate(levels)}
        return np.array([place.get(t, -1) for t in texts], dtype=np.int32), levels
    return value.values.astype(np.int32), value.levels


def _given(value: Any, feature: Feature, n: int) -> Any:
    if feature.dtype == "number":
        number = np.nan if value is None else float(value)
        return np.full(n, number)
    codes = np.full(n, -1 if value is None else 0, dtype=np.int32)
    return codes, np.array([str(value)], dtype=object)


def declare(history: History, side: Side, until: int = NEVER - 1) -> tuple[Feature, ...]:
    """The features that this history could fill by `until` (int64 microseconds), in fixed order."""
    ledger = history.ledger(side)
    found: list[Feature] = []
    if side == "deal":
        found += _DEAL
        if (micros(ledger.table["expected_close_date"]) != NEVER).any():
            found += _EXPECTED_CLOSE
    elif not ledger.pseudo_times:
        found += _LEAD_TIMES
    if side == "lead" and any(d is not None for d in ledger.table["email_domain"]):
        found += _LEAD_CONTACT
    done = ledger.activities.value[ledger.activities.known_at <= until]
    if len(done):
        found += _ACTIVITIES
        for level in sorted(ledger.activity_levels[np.unique(done)]):
            found.append(
                Feature(
                    f"activities_28d[{level}]",
                    "number",
                    "count",
                    f"{level} activities in the last 28 days",
                    group="activities",
                )
            )
    if len(ledger.qualifications.row):
        found += _BANT
    if len(ledger.stakeholders.row):
        found += [Feature("stakeholders", "number", "persons", "people involved")]
    found += _fields(history, side, until)
    if side == "deal":
        found += _context(history)
    return tuple(found)


def _fields(history: History, side: Side, until: int) -> list[Feature]:
    ledger = history.ledger(side)
    entity = ledger.table.entity
    found = []
    for name, kind in ledger.fields.items():
        if name in _NEVER_FEATURES or ledger.excluded(name):
            continue
        declared = entity.by_name.get(name)
        if declared is not None and declared.personal:
            continue
        if not _known_by(ledger, name, until):
            continue
        is_number = kind in ("number", "boolean", "time", "date")
        unit = declared.unit if declared is not None else ""
        meaning = declared.meaning if declared is not None else name.replace("_", " ")
        if kind in ("time", "date"):
            found.append(Feature(f"days_until[{name}]", "number", "days", meaning, group=name))
        else:
            found.append(
                Feature(
                    f"field[{name}]",
                    "number" if is_number else "category",
                    unit,
                    meaning,
                    group=name,
                )
            )
    return found


def _known_by(ledger: Ledger, name: str, until: int) -> bool:
    """Whether any record had a value of the field before then."""
    rows = np.arange(len(ledger))
    column = ledger.timeline(name).at(rows, np.full(len(rows), until - 1, dtype=np.int64))
    return bool((column.values >= 0).any() if column.kind == "text"
                else (~np.isnan(column.values)).any())


def _context(history: History) -> list[Feature]:
    found = []
    deals = history.deals.table
    if any(a is not None for a in deals["account_id"]) and not history.deals.excluded("account_id"):
        found += _ACCOUNT
        accounts = history.tables["account"]
        if len(accounts):
            found += [f for f in _ACCOUNT_FIELDS if _any(accounts[_argument(f.name)])]
    if any(o is not None for o in deals["owner_id"]) and not history.deals.excluded("owner_id"):
        found += _OWNER
    return found


def _any(values: npt.NDArray[Any]) -> bool:
    if values.dtype == object:
        return any(v is not None for v in values)
    return bool((~np.isnan(values)).any())


# --- kernels -------------------------------------------------------------------------------


@_kernel("stage")
def _stage(s: Snapshot, _: str) -> Column:
    return Column("text", s.stage.astype(np.int32), s.ledger.stage_levels)


@_kernel("age")
def _age(s: Snapshot, _: str) -> FloatArray:
    return s.age


@_kernel("days_in_stage")
def _days_in_stage(s: Snapshot, _: str) -> FloatArray:
    return s.days_in_stage


@_kernel("stage_order")
def _stage_order(s: Snapshot, _: str) -> FloatArray:
    return _order_of_level(s)[s.stage]


def _order_of_level(s: Snapshot) -> FloatArray:
    """Position of every stage level in its pipeline; the last entry (for -1) is NaN."""
    stage = s.history.tables["stage"]
    place = dict(zip(stage["stage_id"], stage["sort_order"], strict=True))
    return np.array([place.get(level, np.nan) for level in s.ledger.stage_levels] + [np.nan])


def _per_row(s: Snapshot, events_value: FloatArray) -> FloatArray:
    """Sum of a per-event quantity over the stage events known to each row."""
    total = np.r_[0.0, np.cumsum(events_value)]
    lo, hi = s.seen(s.ledger.stages)
    return total[hi] - total[lo]


def _steps(s: Snapshot) -> FloatArray:
    """Change of stage order at each stage event, 0 for the first of a record."""
    events = s.ledger.stages
    order = _order_of_level(s)[events.value]
    step = np.diff(order, prepend=np.nan)
    step[events.start[:-1][events.start[:-1] < len(step)]] = 0.0
    return np.nan_to_num(step)


@_kernel("stage_moves")
def _stage_moves(s: Snapshot, _: str) -> FloatArray:
    lo, hi = s.seen(s.ledger.stages)
    return np.maximum(hi - lo - 1, 0).astype(np.float64)


@_kernel("backward_moves")
def _backward_moves(s: Snapshot, _: str) -> FloatArray:
    return _per_row(s, (_steps(s) < 0).astype(np.float64))


@_kernel("skipped_stages")
def _skipped_stages(s: Snapshot, _: str) -> FloatArray:
    return _per_row(s, np.maximum(_steps(s) - 1.0, 0.0))


@_kernel("stage_visits")
def _stage_visits(s: Snapshot, _: str) -> FloatArray:
    events = s.ledger.stages
    lo, hi = s.seen(events)
    visits = np.zeros(len(s))
    for code in range(len(s.ledger.stage_levels)):
        here = np.flatnonzero(s.stage == code)
        total = np.r_[0, np.cumsum(events.value == code)]
        visits[here] = total[hi[here]] - total[lo[here]]
    return visits


def _activities(s: Snapshot, days: int, kind: str) -> FloatArray:
    ledger = s.ledger
    lo, hi = s.seen(ledger.activities)
    value = None
    if kind:
        found = np.flatnonzero(ledger.activity_levels == kind)
        if len(found) == 0:
            return np.zeros(len(s))
        value = int(found[0])
    since = s.at - days * DAY + 1
    return ledger.activities.count_since(s.rows, lo, hi, since, value).astype(np.float64)


@_kernel("activities_7d")
def _activities_7d(s: Snapshot, kind: str) -> FloatArray:
    return _activities(s, 7, kind)


@_kernel("activities_28d")
def _activities_28d(s: Snapshot, kind: str) -> FloatArray:
    return _activities(s, 28, kind)


@_kernel("activities_90d")
def _activities_90d(s: Snapshot, kind: str) -> FloatArray:
    return _activities(s, 90, kind)


@_kernel("activities")
def _activities_total(s: Snapshot, _: str) -> FloatArray:
    lo, hi = s.seen(s.ledger.activities)
    return (hi - lo).astype(np.float64)


@_kernel("activities_in_stage")
def _activities_in_stage(s: Snapshot, _: str) -> FloatArray:
    events = s.ledger.activities
    lo, hi = s.seen(events)
    return events.count_since(s.rows, lo, hi, s.stage_began).astype(np.float64)


@_kernel("days_since_activity")
def _days_since_activity(s: Snapshot, _: str) -> FloatArray:
    events = s.ledger.activities
    last = events.latest(*s.seen(events))
    days = (s.at - events.at[last]) / DAY if len(events.at) else np.zeros(len(s))
    return np.where(last >= 0, days, np.nan)


@_kernel("last_activity")
def _last_activity(s: Snapshot, _: str) -> Column:
    events = s.ledger.activities
    last = events.latest(*s.seen(events))
    return Column("text", events.pick(last, -1).astype(np.int32), s.ledger.activity_levels)


@_kernel("days_to_first_activity")
def _days_to_first_activity(s: Snapshot, _: str) -> FloatArray:
    events = s.ledger.activities
    lo, hi = s.seen(events)
    if len(events.at) == 0:
        return s.age
    first = events.at[np.minimum(lo, len(events.at) - 1)]
    waited = (first - s.ledger.created_at[s.rows]) / DAY
    return np.where(hi > lo, waited, s.age)


@_kernel("days_to_next_planned")
def _days_to_next_planned(s: Snapshot, _: str) -> FloatArray:
    # A plan is visible only where the source wrote the row before it was due.
    lo, hi = s.seen(s.ledger.activities)
    nearest = np.full(len(s), np.nan)
    due = s.ledger.activity_due
    for i in np.flatnonzero(hi > lo) if (due != NEVER).any() else ():
        ahead = due[lo[i] : hi[i]]
        ahead = ahead[(ahead > s.at[i]) & (ahead != NEVER)]
        if len(ahead):
            nearest[i] = (ahead.min() - s.at[i]) / DAY
    return nearest


@_kernel("amount_log")
def _amount_log(s: Snapshot, _: str) -> FloatArray:
    return np.log1p(np.maximum(s.amount, 0.0))


@_kernel("amount_changes")
def _amount_changes(s: Snapshot, _: str) -> FloatArray:
    return s.ledger.timeline("amount").count(s.rows, s.at).astype(np.float64)


@_kernel("amount_growth")
def _amount_growth(s: Snapshot, _: str) -> FloatArray:
    line = s.ledger.timeline("amount")
    first = line.base.take(s.rows, line.base_at[s.rows] <= s.at).numbers()
    now = s.value("amount").numbers()
    return np.log1p(np.maximum(now, 0.0)) - np.log1p(np.maximum(first, 0.0))


@_kernel("close_date_pushes")
def _close_date_pushes(s: Snapshot, _: str) -> FloatArray:
    return s.ledger.timeline("expected_close_date").count(s.rows, s.at).astype(np.float64)


@_kernel("close_date_pushed_days")
def _close_date_pushed_days(s: Snapshot, _: str) -> FloatArray:
    line = s.ledger.timeline("expected_close_date")
    first = line.base.take(s.rows, line.base_at[s.rows] <= s.at).numbers()
    return s.value("expected_close_date").numbers() - first


@_kernel("days_to_expected_close")
def _days_to_expected_close(s: Snapshot, _: str) -> FloatArray:
    return s.value("expected_close_date").numbers() - s.at / DAY


@_kernel("field")
def _field(s: Snapshot, name: str) -> Column:
    return s.value(name)


@_kernel("days_until")
def _days_until(s: Snapshot, name: str) -> FloatArray:
    return s.value(name).numbers() - s.at / DAY


@_kernel("created_weekday")
def _created_weekday(s: Snapshot, _: str) -> FloatArray:
    return ((s.ledger.created_at[s.rows] // DAY + 3) % 7).astype(np.float64)


@_kernel("created_hour")
def _created_hour(s: Snapshot, _: str) -> FloatArray:
    return (s.ledger.created_at[s.rows] % DAY) / (DAY / 24)


@_kernel("free_mail")
def _free_mail(s: Snapshot, _: str) -> FloatArray:
    domains = s.value("email_domain")
    known = np.array([level.lower() in _FREE_MAIL for level in domains.levels] + [np.nan])
    return known[domains.values] if domains.kind == "text" else np.full(len(s), np.nan)


@_kernel("completeness")
def _completeness(s: Snapshot, _: str) -> FloatArray:
    names = ("company_name", "industry", "country", "email_domain", "title", "employee_count")
    filled = [
        (v.values >= 0) if (v := s.value(n)).kind == "text" else ~np.isnan(v.values) for n in names
    ]
    return np.asarray(np.mean(filled, axis=0), dtype=np.float64)


@_kernel("bant")
def _bant(s: Snapshot, name: str) -> Any:
    events, table = s.ledger.qualifications, s.ledger.qualification_table
    last = events.latest(*s.seen(events))
    place = events.value[np.maximum(last, 0)] if len(events.value) else np.zeros(len(s), int)
    values = table[name]
    if values.dtype == object:
        picked = np.where(last >= 0, values[place] if len(values) else None, None)
        from_texts = np.array(picked, dtype=object)
        levels = np.array(sorted({t for t in from_texts if t is not None}), dtype=object)
        codes = {t: i for i, t in enumerate(levels)}
        return Column("text", np.array([codes.get(t, -1) for t in from_texts], np.int32), levels)
    return np.where(last >= 0, values[place] if len(values) else np.nan, np.nan)


@_kernel("stakeholders")
def _stakeholders(s: Snapshot, _: str) -> FloatArray:
    lo, hi = s.seen(s.ledger.stakeholders)
    return (hi - lo).astype(np.float64)


# --- context: what other records say, as known at each row's moment --------------------------


@dataclass(frozen=True)
class _Closings:
    """Closings of all deals by account or owner, in the order they became known.

    `group` is the row's own group, -1 for none; those of group g are [start[g], start[g + 1]).
    """

    group: IntArray
    start: IntArray
    known_at: IntArray
    wins: IntArray  # running count of wins, one longer than known_at

    def known(self, at: IntArray) -> tuple[IntArray, IntArray]:
        """Bounds of the closings of each row's group known by its moment."""
        lo = np.where(self.group >= 0, self.start[self.group], 0)
        hi = np.where(self.group >= 0, self.start[self.group + 1], 0)
        return lo, rank_within(self.known_at, lo, hi, at)


def _closings(s: Snapshot, key: str) -> _Closings:
    events, table = s.ledger.outcomes, s.ledger.table
    codes, levels = dictionary(table[key])
    place = {level: i for i, level in enumerate(levels)}
    now = s.value(key)
    to_group = np.array([place.get(level, -1) for level in now.levels] + [-1], dtype=np.int64)
    group = to_group[now.values] if now.kind == "text" else np.full(len(s), -1)
    deal_group = codes[events.row].astype(np.int64)
    closed = np.flatnonzero((events.value != OPEN) & (deal_group >= 0))
    order = closed[np.lexsort((events.known_at[closed], deal_group[closed]))]
    return _Closings(
        group,
        np.searchsorted(deal_group[order], np.arange(len(levels) + 1)),
        events.known_at[order],
        np.r_[0, np.cumsum(events.value[order] == WON)],
    )


@_kernel("account_wins")
def _account_wins(s: Snapshot, _: str) -> FloatArray:
    closings = _closings(s, "account_id")
    lo, hi = closings.known(s.at)
    return np.where(closings.group >= 0, closings.wins[hi] - closings.wins[lo], np.nan)


@_kernel("account_losses")
def _account_losses(s: Snapshot, _: str) -> FloatArray:
    closings = _closings(s, "account_id")
    lo, hi = closings.known(s.at)
    lost = (hi - lo) - (closings.wins[hi] - closings.wins[lo])
    return np.where(closings.group >= 0, lost, np.nan)


def _owner_recent(s: Snapshot) -> tuple[FloatArray, FloatArray]:
    """Wins and losses of the deal's owner in the last 90 days; NaN without an owner."""
    closings = _closings(s, "owner_id")
    _, hi = closings.known(s.at)
    _, since = closings.known(s.at - 90 * DAY)
    won = closings.wins[hi] - closings.wins[since]
    has_owner = closings.group >= 0
    return np.where(has_owner, won, np.nan), np.where(has_owner, hi - since - won, np.nan)


@_kernel("owner_closings_90d")
def _owner_closings(s: Snapshot, _: str) -> FloatArray:
    won, lost = _owner_recent(s)
    return won + lost


@_kernel("owner_win_rate_90d")
def _owner_win_rate(s: Snapshot, _: str) -> FloatArray:
    won, lost = _owner_recent(s)
    # Shrunk towards one in two with the weight of ten closings: a new rep is not a bad one.
    return (won + 5.0) / (won + lost + 10.0)


@_kernel("account")
def _account_field(s: Snapshot, name: str) -> Column | FloatArray:
    accounts = s.history.tables["account"]
    place = {a: i for i, a in enumerate(accounts["account_id"])}
    rows = np.array([place.get(a, -1) for a in s.value("account_id").texts()], dtype=np.int64)
    if len(accounts) == 0:
        return np.full(len(s), np.nan)
    # An account counts from when a source showed it; its own changes are not kept.
    seen = micros(accounts["seen_at"])
    seen = np.where(np.isin(name, _static_account_fields(s)), micros(accounts["recorded_at"]), seen)
    return to_column(accounts[name]).take(rows, (rows >= 0) & (seen[rows] <= s.at))


def _static_account_fields(s: Snapshot) -> list[str]:
    return sorted({f for facts in s.history.facts for f in facts.static.get("account", ())})


# --- declarations ----------------------------------------------------------------------------


def _number(name: str, unit: str, meaning: str, group: str) -> Feature:
    return Feature(name, "number", unit, meaning, "own", group)


_DEAL = (
    Feature("stage", "category", "", "stage the deal is in", "own", "stage"),
    _number("stage_order", "position", "place of the stage in its pipeline", "stage"),
    _number("days_in_stage", "days", "time in the stage", "time in stage"),
    _number("age", "days", "time since the deal was created", "age"),
    _number("stage_visits", "count", "times the deal entered this stage", "moves"),
    _number("stage_moves", "count", "moves between stages so far", "moves"),
    _number("backward_moves", "count", "moves to an earlier stage", "moves"),
    _number("skipped_stages", "count", "stages jumped over", "moves"),
    _number("amount_log", "log(1 + currency)", "amount", "amount"),
    _number("amount_changes", "count", "changes of the amount", "amount"),
    _number("amount_growth", "log ratio", "amount now against the first one", "amount"),
)
_EXPECTED_CLOSE = (
    _number("days_to_expected_close", "days", "time to the rep's close date", "close date"),
    _number("close_date_pushes", "count", "changes of the expected close date", "close date"),
    _number("close_date_pushed_days", "days", "how far it was pushed in all", "close date"),
)
_LEAD_TIMES = (
    _number("age", "days", "time since the lead came in", "age"),
    _number("created_weekday", "0 = Monday", "weekday the lead came in", "time of entry"),
    _number("created_hour", "hours UTC", "hour the lead came in", "time of entry"),
)
_LEAD_CONTACT = (
    _number("free_mail", "0 or 1", "the address is at a free mail provider", "contact data"),
    _number("completeness", "share", "share of the contact fields filled in", "contact data"),
)
_ACTIVITIES = (
    _number("activities", "count", "activities so far", "activities"),
    _number("activities_7d", "count", "activities in the last 7 days", "activities"),
    _number("activities_28d", "count", "activities in the last 28 days", "activities"),
    _number("activities_90d", "count", "activities in the last 90 days", "activities"),
    _number("activities_in_stage", "count", "activities since the stage began", "activities"),
    _number("days_since_activity", "days", "time since the last activity", "last activity"),
    Feature("last_activity", "category", "", "type of the last activity", "own", "last activity"),
    _number("days_to_first_activity", "days", "wait for the first activity", "response"),
    _number("days_to_next_planned", "days", "time to the next planned one", "next activity"),
)
_BANT = (
    _number("bant[budget_amount]", "currency", "budget", "qualification"),
    Feature("bant[budget_status]", "category", "", "budget", "own", "qualification"),
    _number("bant[is_decision_maker]", "0 or 1", "the contact decides", "qualification"),
    Feature("bant[need]", "category", "", "need", "own", "qualification"),
    Feature("bant[purchase_timeframe]", "category", "", "timeframe", "own", "qualification"),
    _number("bant[stakeholder_count]", "persons", "people involved", "qualification"),
)
_ACCOUNT = (
    Feature(
        "account_wins", "number", "count", "deals won with the account before", "context", "account"
    ),
    Feature(
        "account_losses",
        "number",
        "count",
        "deals lost with the account before",
        "context",
        "account",
    ),
)
_ACCOUNT_FIELDS = tuple(
    Feature(f"account[{name}]", dtype, unit, f"account's {name}", "context", "account")
    for name, dtype, unit in (
        ("industry", "category", ""),
        ("employee_count", "number", "persons"),
        ("annual_revenue", "number", "currency"),
        ("country", "category", ""),
    )
)
_OWNER = (
    Feature(
        "owner_closings_90d",
        "number",
        "count",
        "deals the owner closed in 90 days",
        "context",
        "owner",
    ),
    Feature(
        "owner_win_rate_90d", "number", "share", "owner's win rate in 90 days", "context", "owner"
    ),
)
