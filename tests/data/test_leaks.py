"""The leak report unaided: severe, warned of, or left alone, by evidence and not by name."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from data.history import History
from data.quality import examine
from data.quality.evidence import sample_as_of, sample_today, weigh
from data.quality.findings import View
from data.quality.leaks import LEAK_CHECKS, judge_at_entry, judge_today
from data.records import ENTITIES, SourceFacts, Table
from data.synthetic import make_history
from tests.naive import Declared, naive_history

START = dt.datetime(2023, 1, 2, tzinfo=dt.UTC)
Value = Callable[[int, bool, np.random.Generator], Any]


def leads(
    n: int, won: Callable[[int], float], facts: SourceFacts | None = None, **fields: Value
) -> History:
    """Leads, one an hour, decided two days later, with attributes that may know the outcome."""
    rng = np.random.default_rng(1)
    rows = []
    for i in range(n):
        good = bool(rng.random() < won(i))
        created = START + dt.timedelta(hours=i)
        rows.append(
            {
                "lead_id": f"L{i}",
                "created_at": created.isoformat(),
                "outcome": "qualified" if good else "disqualified",
                "qualified_at" if good else "disqualified_at": (
                    created + dt.timedelta(days=2)
                ).isoformat(),
                "attributes": {name: value(i, good, rng) for name, value in fields.items()},
                "source": "crm",
            }
        )
    declared = SourceFacts("crm", static={"lead": tuple(fields)})
    return History({"lead": Table.from_rows(ENTITIES["lead"], rows)}, [facts or declared])


def severities(history: History) -> dict[str, str]:
    view = View(history, "lead" if len(history.leads) else "deal")
    return {j.name: j.severity for j in judge_today(view)}


# --- measures --------------------------------------------------------------------------------


def test_a_clock_separates_the_whole_and_not_its_neighbours() -> None:
    """The share won goes from 5 to 95 % in a year; a rate that follows the calendar is no leak."""
    drift = leads(4000, lambda i: 0.05 + 0.9 * i / 4000, rate=lambda i, _, __: i // 20)
    view = View(drift, "lead")
    found = weigh(sample_today(view), "rate", "today")
    assert found.windows == 50
    assert found.auc < 0.56
    steady = leads(4000, lambda i: 0.4, told=lambda i, good, rng: rng.normal() + 1.5 * good)
    assert weigh(sample_today(View(steady, "lead")), "told", "today").auc == pytest.approx(
        0.856, abs=0.02  # Phi(1.5 / sqrt 2)
    )  # fmt: skip


def test_the_lower_bound_widens_with_fewer_records() -> None:
    def low(n: int) -> tuple[float, float]:
        made = leads(n, lambda i: 0.5, told=lambda i, good, rng: good == (rng.random() < 0.9))
        found = weigh(sample_today(View(made, "lead")), "told", "today")
        return found.auc, found.auc_low

    few, many = low(100), low(4000)
    assert few[0] - few[1] > 3 * (many[0] - many[1])
    too_few = View(leads(30, lambda i: 0.4, told=lambda i, good, rng: good), "lead")
    assert weigh(sample_today(too_few), "told", "today").auc == 0.5


@pytest.mark.parametrize("n", [60, 300, 2000])
def test_chance_is_never_severe(n: int) -> None:
    noise: dict[str, Value] = {
        f"f{k}_{i}": lambda i, good, rng, k=k: f"v{rng.integers(k)}"  # type: ignore[misc]
        for k in (2, 5, 30, 10_000)
        for i in range(8)
    }
    noise["number"] = lambda i, good, rng: float(rng.lognormal())
    noise["gaps"] = lambda i, good, rng: None if rng.random() < 0.4 else "x"
    found = severities(leads(n, lambda i: 0.3, None, **noise))
    assert "severe" not in found.values()
    assert sum(s == "warning" for s in found.values()) <= 1


def test_a_fields_own_missing_values_are_no_certain_values() -> None:
    """Nine in ten of one level win; of the empty records one in ten: one sign, not two."""

    def job(i: int, good: bool, rng: np.random.Generator) -> str | None:
        if rng.random() < (0.2 if good else 0.015):
            return "manager"
        return None if rng.random() < (0.1 if good else 0.5) else "clerk"

    made = leads(3000, lambda i: 0.4, job=job)
    found = weigh(sample_today(View(made, "lead")), "job", "today")
    assert found.won.odds > 5 and found.lost.share == 0.0
    assert severities(made)["job"] == "warning"


# --- severe, warned of, left alone -----------------------------------------------------------

_LEAKS: dict[str, Value] = {
    # A total that stays 0 for what is lost.
    "paid": lambda i, good, rng: float(rng.integers(1, 900)) if good else 0.0,
    # A reason that is given for some of the lost ones only.
    "reason": lambda i, good, rng: None if good or rng.random() < 0.6 else f"r{rng.integers(4)}",
    # How long they talked: short calls end in no.
    "seconds": lambda i, good, rng: float(rng.gamma(4 if good else 1.2, 90)),
    # What somebody thinks, after having spoken to them.
    "opinion": lambda i, good, rng: (
        "fair" if rng.random() < 0.8 else "hot" if good != (rng.random() < 0.02) else "dead"
    ),
}
_HONEST: dict[str, Value] = {
    # Friends of customers often buy, and hardly anybody on a bought list: known at entry.
    "origin": lambda i, good, rng: str(
        rng.choice(("friend", "list", "web"), p=(0.25, 0.01, 0.74) if good else (0.05, 0.2, 0.75))
    ),
    # Nobody there may buy.
    "country": lambda i, good, rng: "XX" if not good and rng.random() < 0.4 else "YY",
    "channel": lambda i, good, rng: "friend" if rng.random() < (0.3 if good else 0.03) else "web",
    "size": lambda i, good, rng: float(rng.lognormal(3 + 0.4 * good)),
    "week": lambda i, good, rng: f"w{i // 168}",
    "person": lambda i, good, rng: f"p{i}",
}


@pytest.mark.parametrize("static", [True, False])
def test_what_is_written_afterwards_is_severe_whatever_is_declared(static: bool) -> None:
    made = leads(3000, lambda i: 0.35, None if static else SourceFacts("crm"), **_LEAKS, **_HONEST)
    found = severities(made)
    assert {n for n, s in found.items() if s == "severe"} == set(_LEAKS)
    report = examine(made, checks=LEAK_CHECKS)
    left = {n for f in report.findings for n in f.evidence.get("training_leaves_out", ())}
    assert left == (set(_LEAKS) if static else set())


def test_each_field_stands_under_one_severity_of_a_code() -> None:
    findings = examine(leads(3000, lambda i: 0.35, None, **_LEAKS, **_HONEST)).findings
    told = [(f.code, name) for f in findings if f.code[:2] == "LK" for name in f.evidence["fields"]]
    assert len(told) == len(set(told))
    for finding in findings:
        assert all(name in finding.title for name in finding.evidence.get("fields", ()))


def test_a_trusted_field_is_not_severe_and_says_so() -> None:
    facts = SourceFacts("crm", static={"lead": ("paid",)}, trusted={"lead": ("paid",)})
    made = leads(1000, lambda i: 0.4, facts, paid=_LEAKS["paid"])
    (judged,) = judge_today(View(made, "lead"))
    assert judged.trusted and judged.severity == "warning" and not judged.left_out
    assert all("trusted" in v.words for v in judged.verdicts)


def test_a_judgement_at_entry_looks_at_no_later_outcome() -> None:
    """Whether what is decided after the cutoff is known, or not yet, changes nothing."""
    made = leads(1200, lambda i: 0.4, None, paid=_LEAKS["paid"])
    until = int(made.leads.created_at[600])
    table = made.tables["lead"]
    late = np.where(
        np.isnat(table["qualified_at"]), table["disqualified_at"], table["qualified_at"]
    )
    after = late > np.datetime64(until, "us")
    assert after.any() and (~after).any()
    unknown = {
        "outcome": np.where(after, "open", table["outcome"]).astype(object),
        "qualified_at": np.where(after, np.datetime64("NaT", "us"), table["qualified_at"]),
        "disqualified_at": np.where(after, np.datetime64("NaT", "us"), table["disqualified_at"]),
    }
    other = History({"lead": replace(table, columns={**table.columns, **unknown})}, made.facts)
    ours, theirs = (judge_at_entry(h, "lead", until) for h in (made, other))
    assert ours == theirs
    assert ours[0].left_out
    assert (sample_as_of(made, "lead", until).outcome != 0).sum() == (~after).sum()


# --- what is known to be sound ---------------------------------------------------------------


@pytest.mark.parametrize("static", [True, False])
def test_the_synthetic_crm_has_no_severe_leak(static: bool) -> None:
    crm = make_history(n_deals=1500, seed=4)
    facts = crm.facts
    if static:  # all but the CRM's own probability, which is 0 or 1 once a deal is closed
        every = {
            side: tuple(
                name
                for name in (
                    *(f.name for f in crm.tables[side].entity.fields),
                    *crm.tables[side].attributes,
                )
                if name != "probability"
            )
            for side in ("lead", "deal")
        }
        facts = replace(facts, static=every)
    findings = examine(History(crm.tables, [facts]), checks=LEAK_CHECKS).findings
    assert [f.title for f in findings if f.severity == "severe"] == []


# --- public data -----------------------------------------------------------------------------

_XEDUCATION_SEVERE = {"tags", "lead_quality", "lead_profile"}
_XEDUCATION_WARNED = {
    "last_activity", "last_notable_activity", "asymmetrique_activity_index",
    "asymmetrique_profile_index", "asymmetrique_activity_score", "asymmetrique_profile_score",
    "total_visits", "total_time_spent_on_website", "page_views_per_visit",
}  # fmt: skip


@pytest.mark.parametrize("declared", ["static", "nothing"])
@pytest.mark.parametrize("missing", [(), ("Select",)])
def test_x_education_unaided(declared: Declared, missing: tuple[str, ...]) -> None:
    found = severities(naive_history("xeducation_leads", declared, missing))
    assert {n for n, s in found.items() if s == "severe"} == _XEDUCATION_SEVERE
    assert {found[name] for name in _XEDUCATION_WARNED} == {"warning"}
    assert len(found) > len(_XEDUCATION_SEVERE | _XEDUCATION_WARNED) + 16  # the rest is looked at


@pytest.mark.parametrize("declared", ["static", "nothing"])
@pytest.mark.parametrize("missing", [(), ("unknown", "999")])
def test_bank_marketing_unaided(declared: Declared, missing: tuple[str, ...]) -> None:
    found = severities(naive_history("bank_marketing", declared, missing))
    assert {n for n, s in found.items() if s == "severe"} == {"duration"}
    assert len(found) == 20


@pytest.mark.parametrize("declared", ["static", "nothing"])
def test_maven_unaided(declared: Declared) -> None:
    found = severities(naive_history("maven_crm", declared))
    leaking = {"account_id", "account", "close_date", "close_value"}
    assert {n for n, s in found.items() if s == "severe"} == leaking
    assert {"amount", "owner_id", "sales_agent", "product", "engage_date"} <= set(found)
