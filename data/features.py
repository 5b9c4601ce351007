"""Features: what a model may know about a lead or a deal at a moment.

A `Feature` declares name, dtype, unit, meaning and scope; `compute` turns a `Snapshot` into
columns. A million landmarks and one request go through the same lines. A feature is `own` (from
the record's past) or `context` (account, owner); a request without context has it missing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data.columns import NEVER, Column, FloatArray
from data.feature_kernels import CONTACT_FIELDS, KERNELS, account_known_at
from data.history import History, Ledger, Side, Snapshot

__all__ = ["Feature", "FeatureColumns", "compute", "declare"]

FeatureColumns = dict[str, Any]  # name -> float64 (m,) or (codes int32 (m,), levels)

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


def compute(
    snapshot: Snapshot, features: Sequence[Feature], context: Mapping[str, Any] | None = None
) -> FeatureColumns:
    """Values of features for every row of a snapshot.

    Parameters
    ----------
    context : mapping, optional
        Values that replace context features, by name: arrays of shape (m,), or one value; None
        is missing.

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
        kernel = KERNELS[feature.name.partition("[")[0]]
        columns[feature.name] = _as_declared(kernel(snapshot, _argument(feature.name)), feature)
    return columns


def _argument(name: str) -> str:
    """What stands in the brackets of `kernel[argument]`."""
    return name.partition("[")[2].removesuffix("]")


def _as_declared(value: Column | FloatArray, feature: Feature) -> Any:
    if not isinstance(value, Column):
        return value.astype(np.float64)
    if feature.dtype == "number":
        return value.numbers()
    text = value.as_text()  # a field that looked like text in training may hold numbers today
    return text.values.astype(np.int32), text.levels


def _given(value: Any, feature: Feature, n: int) -> Any:
    values = value.tolist() if isinstance(value, np.ndarray) else [value] * n
    if feature.dtype == "number":
        return np.array([np.nan if v is None else float(v) for v in values], dtype=np.float64)
    levels = sorted({str(v) for v in values if v is not None})
    place = {level: code for code, level in enumerate(levels)}
    codes = np.array([-1 if v is None else place[str(v)] for v in values], dtype=np.int32)
    return codes, np.array(levels, dtype=object)


# --- what a history can fill -----------------------------------------------------------------


def declare(
    history: History, side: Side, until: int = NEVER - 1, without: Collection[str] = ()
) -> tuple[Feature, ...]:
    """The features that this history could fill before `until` (int64 microseconds), in order.

    Landmarks lie before `until`, so what is known only at that very moment (all that an export
    made then was the first to show) could fill none of them. Only the type of an attribute,
    number or text, is that of all its values: it is part of the source's schema.

    `without` names fields that no feature may read, besides those that a source excludes.
    """
    ledger = history.ledger(side)
    found: list[Feature] = []
    if side == "deal":
        found += _DEAL
        if _known_by(ledger, "expected_close_date", until):
            found += _EXPECTED_CLOSE
    elif not ledger.pseudo_times:
        found += _LEAD_TIMES
    if side == "lead" and _known_by(ledger, "email_domain", until):
        found += _LEAD_CONTACT
    found += _activity_features(ledger, until)
    told = ledger.qualifications.value[ledger.qualifications.known_at < until]
    found += [f for f in _BANT if ledger.answer(_argument(f.name)).present()[told].any()]
    if (ledger.stakeholders.known_at < until).any():
        found += [Feature("stakeholders", "number", "persons", "people involved")]
    found += _fields(ledger, until)
    if side == "deal":
        found += _context(history, until)
    return tuple(
        f for f in found if not any(n in without or ledger.excluded(n) for n in _read_by(f))
    )


def _read_by(feature: Feature) -> tuple[str, ...]:
    """The fields of the record that a feature is made of."""
    kernel = feature.name.partition("[")[0]
    if kernel in ("field", "days_until"):
        return (_argument(feature.name),)
    return _FIELDS_READ.get(kernel, ())


def _activity_features(ledger: Ledger, until: int) -> list[Feature]:
    events = ledger.activities
    codes = np.unique(events.value[events.known_at < until])
    if len(codes) == 0:
        return []
    planned = bool((ledger.plans.known_at < until).any())
    found = [f for f in _ACTIVITIES if planned or f.name != "days_to_next_planned"]
    return found + [
        Feature(
            f"activities_28d[{level}]",
            "number",
            "count",
            f"{level} activities in the last 28 days",
            group="activities",
        )
        for level in sorted(ledger.activity_levels[codes[codes >= 0]].tolist())
    ]


def _fields(ledger: Ledger, until: int) -> list[Feature]:
    entity = ledger.table.entity
    found = []
    for name, kind in ledger.fields.items():
        declared = entity.by_name.get(name)
        if name in _NEVER_FEATURES or ledger.excluded(name):
            continue
        if (declared is not None and declared.personal) or not _known_by(ledger, name, until):
            continue
        is_number = kind in ("number", "boolean", "time", "date")
        is_moment = kind in ("time", "date")
        unit = declared.unit if declared is not None else ""
        if kind == "boolean":
            unit = "0 or 1"
        found.append(
            Feature(
                f"days_until[{name}]" if is_moment else f"field[{name}]",
                "number" if is_number else "category",
                "days" if is_moment else unit,
                declared.meaning if declared is not None else name.replace("_", " "),
                group=name,
            )
        )
    return found


def _known_by(ledger: Ledger, name: str, until: int) -> bool:
    """Whether any record had a value of the field before then."""
    rows = np.arange(len(ledger))
    moments = np.full(len(rows), until - 1, dtype=np.int64)
    return bool(ledger.timeline(name).at(rows, moments).present().any())


def _context(history: History, until: int) -> list[Feature]:
    deals, accounts = history.deals, history.tables["account"]
    found: list[Feature] = []
    if _known_by(deals, "account_id", until):
        found += _ACCOUNT
        for feature in _ACCOUNT_FIELDS:
            name = _argument(feature.name)
            known = account_known_at(history, name) < until
            if _any(accounts[name][known]) and not _account_excludes(history, name):
                found.append(feature)
    if _known_by(deals, "owner_id", until):
        found += _OWNER
    return found


def _account_excludes(history: History, name: str) -> bool:
    return any(name in f.excluded.get("account", ()) for f in history.facts)


def _any(values: npt.NDArray[Any]) -> bool:
    if values.dtype == object:
        return any(v is not None for v in values.tolist())
    return bool((~np.isnan(values)).any())


# --- declarations ----------------------------------------------------------------------------

_FIELDS_READ: dict[str, tuple[str, ...]] = {
    "amount_log": ("amount",),
    "amount_changes": ("amount",),
    "amount_growth": ("amount",),
    "days_to_expected_close": ("expected_close_date",),
    "close_date_pushes": ("expected_close_date",),
    "close_date_pushed_days": ("expected_close_date",),
    "free_mail": ("email_domain",),
    "completeness": CONTACT_FIELDS,
    "account_wins": ("account_id",),
    "account_losses": ("account_id",),
    "account": ("account_id",),
    "owner_closings_90d": ("owner_id",),
    "owner_win_rate_90d": ("owner_id",),
}


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
_ACCOUNT_FIELDS = (
    Feature("account[industry]", "category", "", "account's industry", "context", "account"),
    Feature(
        "account[employee_count]", "number", "persons", "account's employees", "context", "account"
    ),
    Feature(
        "account[annual_revenue]", "number", "currency", "account's revenue", "context", "account"
    ),
    Feature("account[country]", "category", "", "account's country", "context", "account"),
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
