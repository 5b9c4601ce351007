"""The kernels: how each feature is computed for all rows of a snapshot at once.

A kernel takes a snapshot and the argument in the brackets of the feature's name. It looks at
nothing but the snapshot: events through `Snapshot.seen`, values through `Snapshot.value`. What it
gives for a row does not depend on the other rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from data.columns import (
    DAY,
    NEVER,
    BoolArray,
    Column,
    FloatArray,
    IntArray,
    codes_in,
    dictionary,
    micros,
    to_column,
)
from data.events import rank_within
from data.history import History, Snapshot
from data.peers import peers_of

__all__ = ["CONTACT_FIELDS", "KERNELS", "Kernel", "account_known_at"]

Kernel = Callable[[Snapshot, str], Column | FloatArray]

KERNELS: dict[str, Kernel] = {}

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
CONTACT_FIELDS = (
    "company_name", "industry", "country", "email_domain", "title", "employee_count",
)  # fmt: skip


def _kernel(name: str) -> Callable[[Kernel], Kernel]:
    def register(function: Kernel) -> Kernel:
        KERNELS[name] = function
        return function

    return register


# --- stages and age --------------------------------------------------------------------------


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
    return np.append(s.ledger.stage_order, np.nan)[s.stage]


def _of_path(s: Snapshot, per_event: npt.NDArray[np.float64 | np.int64]) -> FloatArray:
    """What stands at the last known stage event of each row, 0 where there is none."""
    return np.append(per_event, 0).astype(np.float64)[s.stage_event]


@_kernel("stage_moves")
def _stage_moves(s: Snapshot, _: str) -> FloatArray:
    return _of_path(s, s.ledger.stage_path.moves)


@_kernel("backward_moves")
def _backward_moves(s: Snapshot, _: str) -> FloatArray:
    return _of_path(s, s.ledger.stage_path.backward)


@_kernel("skipped_stages")
def _skipped_stages(s: Snapshot, _: str) -> FloatArray:
    return _of_path(s, s.ledger.stage_path.skipped)


@_kernel("stage_visits")
def _stage_visits(s: Snapshot, _: str) -> FloatArray:
    return _of_path(s, s.ledger.stage_path.visits)


# --- activities ------------------------------------------------------------------------------


def _activities(s: Snapshot, days: int, kind: str) -> FloatArray:
    events = s.ledger.activities_of(kind) if kind else s.ledger.activities
    lo, hi = s.seen(events)
    return events.count_since(s.rows, lo, hi, s.at - days * DAY + 1).astype(np.float64)


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
    return np.where(last >= 0, (s.at - np.append(events.at, 0)[last]) / DAY, np.nan)


@_kernel("last_activity")
def _last_activity(s: Snapshot, _: str) -> Column:
    events = s.ledger.activities
    last = events.latest(*s.seen(events))
    return Column("text", events.pick(last, -1).astype(np.int32), s.ledger.activity_levels)


@_kernel("days_to_first_activity")
def _days_to_first_activity(s: Snapshot, _: str) -> FloatArray:
    # The wait so far where there was none yet.
    events = s.ledger.activities
    first = events.earliest(*s.seen(events))
    created = s.ledger.created_at[s.rows]
    known = (first >= 0) & (created != NEVER)
    waited = (np.append(events.at, 0)[first] - np.where(known, created, 0)) / DAY
    return np.where(known, waited, s.age)


@_kernel("days_to_next_planned")
def _days_to_next_planned(s: Snapshot, _: str) -> FloatArray:
    plans = s.ledger.plans
    hi = plans.start[s.rows + 1]
    place = rank_within(plans.due, plans.start[s.rows], hi, s.at)
    due, known, done = (np.append(a, NEVER) for a in (plans.due, plans.known_at, plans.done_at))

    def hidden() -> BoolArray:
        """Rows whose next plan was not made yet at their moment, or done already."""
        return (place < hi) & ((known[place] > s.at) | (done[place] <= s.at))

    while (skip := hidden()).any():
        place = place + skip
    return np.where(place < hi, (due[np.where(place < hi, place, -1)] - s.at) / DAY, np.nan)


# --- amount and close date -------------------------------------------------------------------


@_kernel("amount_log")
def _amount_log(s: Snapshot, _: str) -> FloatArray:
    return np.asarray(np.log1p(np.maximum(s.amount, 0.0)))


@_kernel("amount_changes")
def _amount_changes(s: Snapshot, _: str) -> FloatArray:
    return s.ledger.timeline("amount").count(s.rows, s.at).astype(np.float64)


def _first_value(s: Snapshot, name: str) -> FloatArray:
    line = s.ledger.timeline(name)
    return line.base.take(s.rows, line.base_at[s.rows] <= s.at).numbers()


@_kernel("amount_growth")
def _amount_growth(s: Snapshot, _: str) -> FloatArray:
    first, now = _first_value(s, "amount"), s.value("amount").numbers()
    return np.asarray(np.log1p(np.maximum(now, 0.0)) - np.log1p(np.maximum(first, 0.0)))


@_kernel("close_date_pushes")
def _close_date_pushes(s: Snapshot, _: str) -> FloatArray:
    return s.ledger.timeline("expected_close_date").count(s.rows, s.at).astype(np.float64)


@_kernel("close_date_pushed_days")
def _close_date_pushed_days(s: Snapshot, _: str) -> FloatArray:
    name = "expected_close_date"
    return s.value(name).numbers() - _first_value(s, name)


@_kernel("days_to_expected_close")
def _days_to_expected_close(s: Snapshot, _: str) -> FloatArray:
    return s.value("expected_close_date").numbers() - s.at / DAY


# --- other fields ----------------------------------------------------------------------------


@_kernel("field")
def _field(s: Snapshot, name: str) -> Column:
    return s.value(name)


@_kernel("days_until")
def _days_until(s: Snapshot, name: str) -> FloatArray:
    return s.value(name).numbers() - s.at / DAY


def _created(s: Snapshot) -> tuple[IntArray, BoolArray]:
    """Creation of each row, and whether it is known."""
    created = s.ledger.created_at[s.rows]
    return created, created != NEVER


@_kernel("created_weekday")
def _created_weekday(s: Snapshot, _: str) -> FloatArray:
    created, known = _created(s)
    return np.where(known, (created // DAY + 3) % 7, np.nan)


@_kernel("created_hour")
def _created_hour(s: Snapshot, _: str) -> FloatArray:
    created, known = _created(s)
    return np.where(known, (created % DAY) / (DAY / 24), np.nan)


@_kernel("free_mail")
def _free_mail(s: Snapshot, _: str) -> FloatArray:
    domains = s.value("email_domain").as_text()
    known = [float(level.lower() in _FREE_MAIL) for level in domains.levels.tolist()]
    return np.asarray(np.array([*known, np.nan])[domains.values])


@_kernel("completeness")
def _completeness(s: Snapshot, _: str) -> FloatArray:
    filled = [s.value(name).present() for name in CONTACT_FIELDS]
    return np.asarray(np.mean(filled, axis=0), dtype=np.float64)


@_kernel("bant")
def _bant(s: Snapshot, name: str) -> Column:
    events = s.ledger.qualifications
    last = events.latest(*s.seen(events))
    return s.ledger.answer(name).take(events.pick(last, 0), last >= 0)


@_kernel("stakeholders")
def _stakeholders(s: Snapshot, _: str) -> FloatArray:
    lo, hi = s.seen(s.ledger.stakeholders)
    return (hi - lo).astype(np.float64)


# --- context: what other records say, as known at each row's moment --------------------------


@_kernel("account_wins")
def _account_wins(s: Snapshot, _: str) -> FloatArray:
    return peers_of(s, "account_id").won(s)


@_kernel("account_losses")
def _account_losses(s: Snapshot, _: str) -> FloatArray:
    return peers_of(s, "account_id").lost(s)


def _owner_recent(s: Snapshot) -> tuple[FloatArray, FloatArray]:
    """Wins, and all closings, of the owner's other deals in the last 90 days."""
    return peers_of(s, "owner_id").closed_since(s, s.at - 90 * DAY)


@_kernel("owner_closings_90d")
def _owner_closings(s: Snapshot, _: str) -> FloatArray:
    return _owner_recent(s)[1]


@_kernel("owner_win_rate_90d")
def _owner_win_rate(s: Snapshot, _: str) -> FloatArray:
    won, closed = _owner_recent(s)
    # Shrunk towards one in two with the weight of ten closings: a new rep is not a bad one.
    return (won + 5.0) / (closed + 10.0)


@_kernel("account")
def _account_field(s: Snapshot, name: str) -> Column:
    accounts = s.history.tables["account"]
    wanted = s.value("account_id").as_text()
    place = s.history.row_of_account
    rows = np.array([*(place.get(a, -1) for a in wanted.levels.tolist()), -1], dtype=np.int64)
    row = rows[wanted.values]
    known = np.append(account_known_at(s.history, name), NEVER)
    values = accounts[name]
    column = to_column(values, "text" if values.dtype == object else None)
    return column.take(row, (row >= 0) & (known[row] <= s.at))


def account_known_at(history: History, name: str) -> IntArray:
    """Since when each account's value of a field counts, int64 microseconds.

    Accounts keep no history: a value counts from when it was shown, unless the source declares
    that it never changes; then from when the account was recorded.
    """
    accounts = history.tables["account"]
    recorded, seen = micros(accounts["recorded_at"]), micros(accounts["seen_at"])
    static = {f.name for f in history.facts if name in f.static.get("account", ())}
    codes, levels = dictionary(accounts["source"])
    since = np.where(codes_in(levels, codes, static), recorded, seen)
    return np.where(since == NEVER, np.where(seen == NEVER, recorded, seen), since)
