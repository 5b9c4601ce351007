"""The leak report before training: what it leaves out, what overrides it, where it is kept."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import numpy as np
import pytest

from data.history import History
from data.pipeline import FiscalCalendar
from data.records import ENTITIES, SourceFacts, Table
from data.timelines import DAY
from scoring.bundles import bundle_of
from scoring.scores import score_leads
from tests import worlds
from tests.naive import naive_history
from training.fitting import Recipe, fit_deals, fit_leads
from training.leaks import leak_report
from training.report import training_report
from training.run import train_leads

RECIPE = Recipe(FiscalCalendar(), landmarks=3000)
START = dt.datetime(2023, 1, 2, tzinfo=dt.UTC)
END = np.datetime64("2023-06-01", "us")


def leads(trusted: tuple[str, ...] = (), since: int = 0) -> History:
    """Three leads a day; `paid` knows the outcome of those from number `since` on."""
    rng = np.random.default_rng(3)
    rows = []
    for i in range(420):
        good = bool(rng.random() < 0.4)
        created = START + dt.timedelta(hours=8 * i)
        decided = created + dt.timedelta(days=float(rng.uniform(1, 6)))
        guess = good if i >= since else bool(rng.random() < 0.4)
        rows.append(
            {
                "lead_id": f"L{i}", "created_at": created.isoformat(), "source": "crm",
                "outcome": "qualified" if good else "disqualified",
                "qualified_at" if good else "disqualified_at": decided.isoformat(),
                "attributes": {
                    "paid": 100.0 if guess else 0.0,
                    "channel": "web" if rng.random() < (0.6 if good else 0.4) else "fair",
                },
            }
        )  # fmt: skip
    facts = SourceFacts("crm", static={"lead": ("paid", "channel")}, trusted={"lead": trusted})
    return History({"lead": Table.from_rows(ENTITIES["lead"], rows)}, [facts])


def names(bundle: object) -> set[str]:
    return {f.name for f in bundle.features}  # type: ignore[attr-defined]


def test_a_severe_leak_is_left_out_said_and_kept_with_the_model() -> None:
    said: list[str] = []
    run = train_leads(leads(), END, RECIPE, say=said.append)
    assert "field[channel]" in names(run.bundle) and "field[paid]" not in names(run.bundle)
    assert set(run.leaks.withheld) == {"paid"} and "LK101" in run.leaks.withheld["paid"]
    assert any("paid" in sentence for sentence in said)
    assert bundle_of(run.bundle.to_state()).manifest.withheld == dict(run.leaks.withheld)
    page = training_report(run)
    assert "Fields that know the outcome" in page and "paid" in page
    # Not even the fits that only judge may read it: what is measured is what is served.
    assert run.evaluation is not None and run.evaluation.arms[0]["auc"] < 0.75


def test_scoring_ignores_what_was_left_out() -> None:
    crm = leads()
    bundle = fit_leads(crm, int(END.astype(np.int64)), 7, RECIPE)
    table = crm.tables["lead"]
    spoilt = replace(table, attributes={**table.attributes, "paid": np.array(
        [50.0] * len(table), dtype=object)})  # fmt: skip
    at = np.datetime64("2023-05-10", "us")
    ours, theirs = (
        [
            s.probability
            for s in score_leads(History({"lead": t}, crm.facts).as_of("lead", at), bundle)
        ]
        for t in (table, spoilt)
    )
    assert len(ours) > 5 and ours == theirs


@pytest.mark.parametrize("by", ["mapping", "recipe"])
def test_the_user_may_override_it(by: str) -> None:
    crm = leads(("paid",) if by == "mapping" else ())
    recipe = RECIPE if by == "mapping" else replace(RECIPE, trusted=("paid",))
    run = train_leads(crm, END, recipe)
    assert "field[paid]" in names(run.bundle)
    assert not run.leaks.withheld and set(run.leaks.trusted) == {"paid"}
    assert any("Used although" in sentence for sentence in run.leaks.words)


def test_a_fit_judges_by_what_was_known_at_its_cutoff() -> None:
    """The field turns into a leak on the way: a back-test before that may read it, not later."""
    crm = leads(since=90)
    early = int(crm.leads.created_at[85])
    assert not leak_report(crm, "lead", early).withheld
    assert "field[paid]" in names(fit_leads(crm, early, 7, RECIPE))
    late = int(END.astype(np.int64))
    assert set(leak_report(crm, "lead", late).withheld) == {"paid"}
    assert "field[paid]" not in names(fit_leads(crm, late, 7, RECIPE))
    held = replace(RECIPE, withheld=("paid",))
    assert "field[paid]" not in names(fit_leads(crm, early, 7, held))


def test_every_feature_made_of_a_withheld_field_goes() -> None:
    until = worlds.cut()
    plain = names(fit_deals(worlds.company(), until, worlds.RECIPE))
    without = replace(worlds.RECIPE, withheld=("amount", "owner_id", "account_id"))
    left = names(fit_deals(worlds.company(), until, without))
    gone = {n for n in plain - left if not n.startswith("account[")}
    assert gone == {
        "amount_log", "amount_changes", "amount_growth", "owner_closings_90d",
        "owner_win_rate_90d", "account_wins", "account_losses",
    }  # fmt: skip


@pytest.mark.parametrize("side", ["lead", "deal"])
def test_the_synthetic_crm_keeps_all_its_features(side: str) -> None:
    crm = worlds.company()
    for days in (0, 100, 250):
        assert not leak_report(crm, side, crm.observed_until - days * DAY).withheld  # type: ignore[arg-type]


def test_public_leads_train_without_the_leaks_that_nobody_declared() -> None:
    run = train_leads(naive_history("xeducation_leads", "static"), _later(), RECIPE)
    leaking = {"tags", "lead_quality", "lead_profile"}
    assert set(run.bundle.manifest.withheld) == leaking
    assert not {f"field[{name}]" for name in leaking} & names(run.bundle)


def _later() -> np.datetime64:
    """Later than anything in the public data."""
    return np.datetime64("2026-01-01", "us")


@pytest.mark.parametrize("month", ["2017-08", "2017-11", "2018-01"])
def test_maven_at_past_cutoffs(month: str) -> None:
    """A closing value is found from the first months on; a missing account as the open age."""
    crm = naive_history("maven_crm", "static")
    until = int(np.datetime64(month, "us").astype(np.int64))
    withheld = set(leak_report(crm, "deal", until).withheld)
    assert {"close_value", "close_date"} <= withheld
    assert withheld <= {"close_value", "close_date", "account", "account_id"}
    assert ("account_id" in withheld) == (month == "2018-01")
