"""The synthetic CRM: its tables hold together, and its truth is true.

Statistical tests state their error: a z is (observed - expected) / its binomial standard error,
and 4 standard errors is missed by chance about once in 16,000 fixed-seed draws.
"""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from data.history import History
from data.records import ENTITIES, Table
from data.synthetic import PipelineWorld, StageWorld, Synthetic, World, make_history

END = np.datetime64("2026-02-16", "us")
AS_OF = np.datetime64("2025-09-15", "us")
DOCS = Path(__file__).parents[2] / "docs" / "synthetic.md"


@pytest.fixture(scope="module")
def crm() -> Synthetic:
    return make_history(1500, seed=7)


@pytest.fixture(scope="module")
def calm() -> Synthetic:
    """A big world without shocks: the empirical side of the truth."""
    return make_history(25_000, seed=11, shocks=False, days=365)


def open_deals(synthetic: Synthetic, as_of: np.datetime64) -> Table:
    deals = synthetic.tables["deal"]
    return deals.take((deals["created_at"] < as_of) & ~(deals["closed_at"] < as_of))


def z(y: npt.NDArray[np.bool_], p: npt.NDArray[np.float64]) -> float:
    return float((y - p).sum() / np.sqrt((p * (1 - p)).sum()))


# ------------------------------------------------------------------ the truth is true


def test_incidence_holds_in_a_big_world(calm: Synthetic) -> None:
    deals = open_deals(calm, AS_OF)
    assert len(deals) > 2_000
    days = np.array([1, 7, 28, 90])
    truth = calm.truth.deal_incidence(deals["deal_id"], AS_OF, days)
    for j, horizon in enumerate(days):
        by = deals["closed_at"] < AS_OF + np.timedelta64(int(horizon), "D")
        for c, outcome in enumerate(("won", "lost")):
            assert abs(z(by & (deals["outcome"] == outcome), truth[:, j, c])) < 4


def test_incidence_holds_in_every_tenth_of_the_deals(calm: Synthetic) -> None:
    """Not only on average: 20 cells, a chi-square of 20 degrees of freedom (99.99 %: 52.4)."""
    deals = open_deals(calm, AS_OF)
    won = (deals["outcome"] == "won") & (deals["closed_at"] < AS_OF + np.timedelta64(28, "D"))
    p = calm.truth.deal_incidence(deals["deal_id"], AS_OF, [28])[:, 0, 0]
    tenths = np.array_split(np.argsort(p), 20)
    assert p[tenths[-1]].mean() - p[tenths[0]].mean() > 0.3
    assert sum(z(won[rows], p[rows]) ** 2 for rows in tenths) < 52.4


def test_realised_shocks_make_the_truth_of_a_shaken_world() -> None:
    world = World(shock_quarter_sd=0.9, shock_week_sd=0.0)
    shaken = make_history(20_000, seed=5, days=365, world=world)
    truth, late = shaken.truth, []
    for as_of in np.arange("2025-07-01", "2026-01-01", 40, dtype="datetime64[D]"):
        deals = open_deals(shaken, as_of)
        won = (deals["outcome"] == "won") & (deals["closed_at"] < as_of + 14)
        ahead = truth.log_shock[int((as_of - truth.start) / np.timedelta64(1, "D")) :]
        ids = deals["deal_id"]
        assert abs(z(won, truth.deal_incidence(ids, as_of, [14], log_shock=ahead)[:, 0, 0])) < 4
        late.append(abs(z(won, truth.deal_incidence(ids, as_of, [14])[:, 0, 0])))
    assert max(late) > 6  # without them the answer is for the mean shock, and this world had others


def test_nothing_known_at_the_time_tells_more_than_the_truth(calm: Synthetic) -> None:
    """A field that looked into the future would correlate with what truth leaves unexplained."""
    deals = open_deals(calm, AS_OF)
    ids = deals["deal_id"]
    p = calm.truth.deal_incidence(ids, AS_OF, [60])[:, 0]
    by = deals["closed_at"] < AS_OF + np.timedelta64(60, "D")
    seen = {
        "activities": count(calm.tables["activity"], "deal_id", "occurred_at", ids),
        "field changes": count(calm.tables["field_change"], "entity_id", "changed_at", ids),
        "days to the expected date": expected_days(calm, deals),
        "first amount": np.log(first_amount(calm, deals)),
    }
    for name, x in seen.items():
        x = x - x.mean()
        for c, outcome in enumerate(("won", "lost")):
            rest = (by & (deals["outcome"] == outcome)) - p[:, c]
            error = np.sqrt((x**2 * p[:, c] * (1 - p[:, c])).sum())
            assert abs((x * rest).sum() / error) < 4, (name, outcome)


def test_activities_carry_real_information(calm: Synthetic) -> None:
    """Above what stage and age tell, busy deals are the interested ones."""
    deals = open_deals(calm, AS_OF)
    fresh = deals.take(deals["created_at"] > AS_OF - np.timedelta64(30, "D"))
    n = count(calm.tables["activity"], "deal_id", "occurred_at", fresh["deal_id"])
    p = calm.truth.deal_incidence(fresh["deal_id"], AS_OF, [120])[:, 0, 0]
    assert p[n >= 4].mean() > p[n == 0].mean() + 0.05


def count(
    table: Table, key: str, moment: str, ids: npt.NDArray[np.object_]
) -> npt.NDArray[np.float64]:
    known = table[key][table[moment] < AS_OF]
    found, n = np.unique(known[known != None].astype(str), return_counts=True)  # noqa: E711
    counts = dict(zip(found.tolist(), n.tolist(), strict=True))
    return np.array([float(counts.get(i, 0)) for i in ids])


def value_then(synthetic: Synthetic, deals: Table, field: str, then: np.datetime64) -> list[str]:
    """The value of a field at a moment, from the changes after it: the first one's old value."""
    changes = synthetic.tables["field_change"]
    after = (changes["field"] == field) & (changes["changed_at"] >= then)
    old: dict[str, str] = {}
    for i, value in zip(changes["entity_id"][after], changes["old_value"][after], strict=True):
        old.setdefault(i, value)
    now = zip(deals["deal_id"], deals[field], strict=True)
    return [old.get(i, str(value)) for i, value in now]


def expected_days(synthetic: Synthetic, deals: Table) -> npt.NDArray[np.float64]:
    dates = np.array(value_then(synthetic, deals, "expected_close_date", AS_OF), "datetime64[D]")
    return np.asarray((dates - AS_OF) / np.timedelta64(1, "D"), dtype=np.float64)


def first_amount(synthetic: Synthetic, deals: Table) -> npt.NDArray[np.float64]:
    start = synthetic.truth.start
    return np.array([float(v) for v in value_then(synthetic, deals, "amount", start)])


def test_incidence_of_constant_hazards_has_its_closed_form() -> None:
    stages = (StageWorld("only", "Only", 0.5, 1.0, 0.0, 0.0, 0.0, lose=0.05, win=0.10, activity=0.1,
                         remaining_days=20.0),)  # fmt: skip
    plain = World(
        pipelines=(PipelineWorld("new-business", stages), PipelineWorld("renewals", stages)),
        sources=tuple(replace(level, win=0.0) for level in World().sources),
        industries=tuple(replace(level, win=0.0) for level in World().industries),
        rep_win_sd=0.0, interest_sd=0.0, amount_on_win=0.0, ramp_days=1.0, stall_floor=1.0,
        loss_first=1.0, loss_rise=0.0, weekdays=(1.0,) * 7, year_end=1.0, yearly=0.0, rush=0.0,
    )  # fmt: skip
    synthetic = make_history(300, seed=1, world=plain, shocks=False)
    deals = open_deals(synthetic, END)
    days = np.array([0, 1, 10, 300])
    got = synthetic.truth.deal_incidence(deals["deal_id"], END, days)
    closed = 1 - np.exp(-0.15 * days)
    np.testing.assert_allclose(got[0], np.outer(closed, [2 / 3, 1 / 3]), atol=1e-12)
    assert len(deals) > 3
    np.testing.assert_allclose(got, np.broadcast_to(got[0], got.shape), atol=1e-12)


def test_incidences_rise_and_add_up_to_at_most_one(crm: Synthetic) -> None:
    deals = open_deals(crm, END)
    days = np.arange(0, 400, 7)
    curve = crm.truth.deal_incidence(deals["deal_id"], END, days)
    assert (np.diff(curve, axis=1) >= 0).all()
    assert (curve[:, 0] == 0).all()
    assert (curve.sum(axis=2) <= 1 + 1e-12).all()
    assert curve[:, -1].sum(axis=1).min() > 0.95  # in the end everything closes


def test_expected_revenue_holds_in_a_big_world(calm: Synthetic) -> None:
    """Within 4 standard errors, those estimated from the deals themselves."""
    deals = open_deals(calm, AS_OF)
    expected = calm.truth.expected_won(deals["deal_id"], AS_OF, [90])[:, 0]
    won = (deals["outcome"] == "won") & (deals["closed_at"] < AS_OF + np.timedelta64(90, "D"))
    rest = np.where(won, deals["closed_amount"], 0.0) - expected
    assert abs(rest.sum()) < 4 * np.sqrt((rest**2).sum())
    assert 4 * np.sqrt((rest**2).sum()) < 0.2 * expected.sum()


@pytest.mark.parametrize("days", [1.0, 7.0, 30.0, np.inf])
def test_lead_probability_holds_from_creation(calm: Synthetic, days: float) -> None:
    leads = calm.tables["lead"]
    leads = leads.take(leads["created_at"] < END - np.timedelta64(100, "D"))
    p = calm.truth.lead_probability(leads["lead_id"], days)
    delay = (leads["qualified_at"] - leads["created_at"]).astype(float) / 8.64e10
    delay[np.isnat(leads["qualified_at"])] = np.inf
    assert abs(z((delay <= days) & (leads["outcome"] == "qualified"), p)) < 4


def test_lead_probability_holds_for_leads_still_open_at_any_hour(calm: Synthetic) -> None:
    as_of = np.datetime64("2025-09-16T14:20", "us")
    leads = calm.tables["lead"]
    over = (leads["qualified_at"] <= as_of) | (leads["disqualified_at"] <= as_of)
    leads = leads.take((leads["created_at"] <= as_of) & ~over)
    p = calm.truth.lead_probability(leads["lead_id"], 3.5, as_of=as_of)
    until = as_of + np.timedelta64(84, "h")
    assert abs(z(leads["qualified_at"] <= until, p)) < 4
    assert p.mean() < calm.truth.lead_probability(leads["lead_id"]).mean()


def test_better_leads_have_better_truth(crm: Synthetic) -> None:
    leads = crm.tables["lead"]
    p = crm.truth.lead_probability(leads["lead_id"])
    assert (
        p[leads["lead_source"] == "referral"].mean()
        > p[leads["lead_source"] == "advertising"].mean() + 0.2
    )


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda c: c.truth.deal_incidence(["D999999"], END, [7]), "D999999.*allowed: D000001"),
        (lambda c: c.truth.deal_incidence(["L000001"], END, [7]), "L000001.*allowed: D000001"),
        (lambda c: c.truth.deal_incidence(["D000001"], END, [7]), "D000001 is not open at 2026"),
        (lambda c: c.truth.deal_incidence([last(c)], AS_OF, [7]), "not open at 2025-09-15"),
        (lambda c: c.truth.deal_incidence([last(c)], END + 1, [7]), "allowed: a midnight"),
        (lambda c: c.truth.deal_incidence([last(c)], END, [0.5]), "allowed: a list of whole days"),
        (lambda c: c.truth.deal_incidence([last(c)], END, []), "allowed: a list of whole days"),
        (lambda c: c.truth.deal_incidence([last(c)], END, [9], log_shock=[0.0]), "needed: 9"),
        (lambda c: c.truth.lead_probability(["L000001"], as_of=END), "L000001 is not open"),
        (lambda c: c.truth.lead_probability(["L000001"], -1.0), "allowed: a number of days"),
        (lambda c: make_history(0), "n_deals is 0"),
        (lambda c: make_history(10, days=0), "days is 0"),
        (lambda c: make_history(10, end=END + 1), "allowed: a midnight"),
    ],
)
def test_errors_say_what_to_do(crm: Synthetic, ask, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        ask(crm)


def last(synthetic: Synthetic) -> str:
    return str(open_deals(synthetic, END)["deal_id"][-1])


def test_hazards_that_leave_the_pipeline_are_refused() -> None:
    new, renewals = World().pipelines
    wrong = replace(new, stages=(*new.stages[:-1], replace(new.stages[-1], advance=0.1)))
    with pytest.raises(ValueError, match="would leave the open stages"):
        make_history(10, world=World(pipelines=(wrong, renewals)))


# ------------------------------------------------------------------ the tables hold together


def test_tables_are_canonical_and_ids_are_unique(crm: Synthetic) -> None:
    names = ("lead", "deal", "account", "owner", "stage", "stage_change", "field_change")
    assert set(crm.tables) == {*names, "activity", "target"}
    assert all(name == table.entity.name for name, table in crm.tables.items())
    for table in crm.tables.values():
        keys = list(zip(*(table[k] for k in table.entity.key), strict=True))
        assert len(set(keys)) == len(table) > 0
        for name in (*table.entity.key, *table.entity.required):
            assert not any(v is None or v != v for v in table[name])
        for f in table.entity.fields:
            if f.kind == "choice":
                assert set(table[f.name]) <= set(f.choices) | {None}
            if f.kind in ("id", "text", "choice"):
                assert {type(v) for v in table[f.name]} <= {str, type(None)}


def test_nothing_is_known_after_the_end_or_before_the_start(crm: Synthetic) -> None:
    start = crm.truth.start
    for table in crm.tables.values():
        for column in table.entity.columns:
            if column.kind == "time" and column.name != "seen_at":
                times = table[column.name]
                times = times[~np.isnat(times)]
                assert (times >= start).all() and (times < END).all(), column.name
        assert (table["seen_at"] == END).all()
        happened = table.entity.happened
        if happened:
            assert (table["recorded_at"] == table[happened]).all()
    assert crm.facts.observed_until == END


def test_stage_changes_chain_from_creation_to_the_current_stage(crm: Synthetic) -> None:
    deals, changes = crm.tables["deal"], crm.tables["stage_change"]
    assert (np.diff(changes["changed_at"].astype(np.int64)) >= 0).all()
    kind = dict(zip(crm.tables["stage"]["stage_id"], crm.tables["stage"]["kind"], strict=True))
    at: dict[str, str] = {}
    when: dict[str, np.datetime64] = {}
    created = dict(zip(deals["deal_id"], deals["created_at"], strict=True))
    for i, since, before, after in zip(
        *(changes[c] for c in ("entity_id", "changed_at", "from_stage_id", "to_stage_id")),
        strict=True,
    ):
        assert before == at.get(i)
        assert since > when[i] if i in when else since == created[i]
        at[i], when[i] = after, since
    assert [at[i] for i in deals["deal_id"]] == list(deals["stage_id"])
    assert [kind[s] for s in deals["stage_id"]] == list(deals["outcome"])
    closed = deals["outcome"] != "open"
    assert (np.isnat(deals["closed_at"]) == ~closed).all()
    last_move = np.array([when[i] for i in deals["deal_id"]])
    assert (deals["closed_at"][closed] == last_move[closed]).all()
    assert (np.isnan(deals["closed_amount"]) == (deals["outcome"] != "won")).all()


def test_field_changes_chain_to_the_current_value(crm: Synthetic) -> None:
    deals, changes = crm.tables["deal"], crm.tables["field_change"]
    rows = {i: n for n, i in enumerate(deals["deal_id"])}
    value: dict[tuple[str, str], str] = {}
    for i, name, at, old, new in zip(
        *(changes[c] for c in ("entity_id", "field", "changed_at", "old_value", "new_value")),
        strict=True,
    ):
        assert old != new and value.get((i, name), old) == old
        value[i, name] = new
        closed_at = deals["closed_at"][rows[i]]
        assert at > deals["created_at"][rows[i]] and not at >= closed_at
    assert {name for _, name in value} == {"amount", "expected_close_date"}
    for (i, name), new in value.items():
        now = deals[name][rows[i]]
        assert str(now) == new if name == "expected_close_date" else float(new) == now


def test_dates_are_pushed_when_they_pass_and_not_set_to_the_real_close(crm: Synthetic) -> None:
    deals, changes = crm.tables["deal"], crm.tables["field_change"]
    dated = changes.take(changes["field"] == "expected_close_date")
    passed = dated["old_value"].astype("datetime64[D]") < dated["changed_at"]
    assert passed.mean() > 0.2
    assert (dated["new_value"].astype("datetime64[D]") > dated["changed_at"]).all()
    closed = deals["outcome"] != "open"
    hit = deals["expected_close_date"][closed] == deals["closed_at"][closed].astype("datetime64[D]")
    assert hit.mean() < 0.1


def test_leads_and_their_deals_agree(crm: Synthetic) -> None:
    deals, leads = crm.tables["deal"], crm.tables["lead"]
    lead = {i: n for n, i in enumerate(leads["lead_id"])}
    born = deals.take(deals["originating_lead_id"] != None)  # noqa: E711
    assert 0.4 < len(born) / len(deals) < 0.6
    rows = np.array([lead[i] for i in born["originating_lead_id"]])
    assert (leads["converted_deal_id"][rows] == born["deal_id"]).all()
    assert (leads["qualified_at"][rows] == born["created_at"]).all()
    for name in ("lead_source", "owner_id", "account_id"):
        assert (leads[name][rows] == born[name]).all()
    assert (leads["outcome"] == "qualified").sum() == len(born)
    assert (
        (leads["disqualified_at"] > leads["created_at"]) == (leads["outcome"] == "disqualified")
    ).all()


def test_activities_lie_inside_the_life_of_what_they_concern(crm: Synthetic) -> None:
    done = crm.tables["activity"]
    for name, table, ends in (
        ("deal_id", "deal", ("closed_at",)),
        ("lead_id", "lead", ("qualified_at", "disqualified_at")),
    ):
        rows = {i: n for n, i in enumerate(crm.tables[table][name])}
        mine = done.take(done[name] != None)  # noqa: E711
        at = np.array([rows[i] for i in mine[name]])
        assert len(mine) > 500
        assert (mine["occurred_at"] > crm.tables[table]["created_at"][at]).all()
        for end in ends:
            assert not (mine["occurred_at"] >= crm.tables[table][end][at]).any()
    assert ((done["deal_id"] == None) != (done["lead_id"] == None)).all()  # noqa: E711


def test_references_exist_and_accounts_come_before_their_deals(crm: Synthetic) -> None:
    t = crm.tables
    owners, stages = set(t["owner"]["owner_id"]), set(t["stage"]["stage_id"])
    for table in ("lead", "deal", "activity"):
        assert set(t[table]["owner_id"]) <= owners
    assert set(t["deal"]["stage_id"]) <= stages
    created = dict(zip(t["account"]["account_id"], t["account"]["created_at"], strict=True))
    since = np.array([created[i] for i in t["deal"]["account_id"]])
    assert (since <= t["deal"]["created_at"]).all()


def test_history_sees_the_same_open_records(crm: Synthetic) -> None:
    history = History(crm.tables, [crm.facts])
    snapshot = history.as_of("deal", AS_OF)
    ids = history.deals.ids[snapshot.rows]
    assert set(ids) == set(open_deals(crm, AS_OF)["deal_id"])
    assert len(crm.truth.deal_incidence(ids, AS_OF, [30])) == len(ids)
    snapshot = history.as_of("lead", AS_OF)
    assert len(crm.truth.lead_probability(history.leads.ids[snapshot.rows], as_of=AS_OF)) > 5


def test_discount_at_closing_is_about_six_percent(calm: Synthetic) -> None:
    deals = calm.tables["deal"]
    won = deals.take(deals["outcome"] == "won")
    discount = 1 - won["closed_amount"] / won["amount"]
    assert (discount >= -1e-9).all()
    assert abs(discount.mean() - 0.06) < 4 * discount.std() / np.sqrt(len(won))


def test_facts_name_what_was_known_at_creation(crm: Synthetic) -> None:
    for entity, names in crm.facts.static.items():
        assert set(names) <= set(ENTITIES[entity].by_name)
    assert {"lead_source", "owner_id", "originating_lead_id"} <= set(crm.facts.static["deal"])
    leaky = {"amount", "stage_id", "probability", "loss_reason", "expected_close_date"}
    assert not leaky & set(crm.facts.static["deal"])
    assert {s for t in crm.tables.values() for s in t["source"]} == {crm.facts.name}


# ------------------------------------------------------------------ targets


def test_targets_cover_every_quarter_to_the_one_after_the_end(crm: Synthetic) -> None:
    targets = crm.tables["target"]
    starts = np.unique(targets["period_start"])
    assert starts[0] <= crm.truth.start < starts[1]
    assert starts[-1] == np.datetime64("2026-04-01")  # the end is in the quarter before
    assert (np.diff(starts.astype("datetime64[M]").astype(int)) == 3).all()
    ends = targets["period_end"].astype("datetime64[M]").astype(int)
    assert (ends - targets["period_start"].astype("datetime64[M]").astype(int) == 3).all()
    groups = {("all", "all"), *(("team", t) for t in World().teams)}
    groups |= {("owner", str(o)) for o in crm.tables["owner"]["owner_id"]}
    for start in starts:
        mine = targets.take(targets["period_start"] == start)
        assert set(zip(mine["scope"], mine["scope_id"], strict=True)) == groups
    assert (targets["amount"] > 0).all()


def test_targets_are_reached_about_half_the_time() -> None:
    reached = []
    for seed in range(4):
        tables = make_history(2000, seed=seed).tables
        deals, targets = tables["deal"], tables["target"]
        won = deals.take(deals["outcome"] == "won")
        for k in np.flatnonzero((targets["scope"] == "owner") & (targets["period_end"] <= END)):
            mine = won["owner_id"] == targets["scope_id"][k]
            mine &= won["closed_at"] >= targets["period_start"][k]
            mine &= won["closed_at"] < targets["period_end"][k]
            reached.append(won["closed_amount"][mine].sum() >= targets["amount"][k])
    assert len(reached) == 4 * 12 * 8
    assert 0.4 < np.mean(reached) < 0.6


# ------------------------------------------------------------------ determinism and sizes


def same(a: Table, b: Table) -> bool:
    return all(
        len(a[c.name]) == len(b[c.name])
        and all(x == y or (x != x and y != y) for x, y in zip(a[c.name], b[c.name], strict=True))
        for c in a.entity.columns
    )


def test_the_seed_decides_everything() -> None:
    first, again, other = (make_history(60, seed=s, days=200) for s in (3, 3, 4))
    assert all(same(first.tables[k], again.tables[k]) for k in first.tables)
    assert not same(first.tables["deal"], other.tables["deal"])


def test_shocks_change_what_becomes_of_deals_and_nothing_before() -> None:
    shaken, calm = (make_history(300, seed=3, shocks=s) for s in (True, False))
    assert same(shaken.tables["lead"], calm.tables["lead"])
    a, b = shaken.tables["deal"], calm.tables["deal"]
    assert (a["created_at"] == b["created_at"]).all() and (a["owner_id"] == b["owner_id"]).all()
    assert (a["outcome"] != b["outcome"]).any()
    assert (calm.truth.log_shock == 0).all() and shaken.truth.log_shock.std() > 0.1


@pytest.mark.parametrize(("n", "days"), [(1, 1), (1, 30), (3, 730), (30, 90)])
def test_the_smallest_companies_work(n: int, days: int) -> None:
    for seed in range(5):
        synthetic = make_history(n, seed=seed, days=days)
        deals = open_deals(synthetic, END)
        curve = synthetic.truth.deal_incidence(deals["deal_id"], END, [30])
        assert curve.shape == (len(deals), 1, 2)
        assert len(synthetic.tables["target"]) >= 32


def test_the_pipeline_begins_empty_and_the_number_of_deals_is_as_asked(crm: Synthetic) -> None:
    first_week = crm.tables["deal"]["created_at"] < crm.truth.start + 7
    assert 0 < first_week.sum() < 40
    assert abs(len(crm.tables["deal"]) / 1500 - 1) < 0.12  # 3 % SD by the weekly gamma and Poisson


def test_a_history_ends_when_asked() -> None:
    end = np.datetime64("2024-03-05")
    synthetic = make_history(80, end=end, days=120)
    assert synthetic.truth.start == np.datetime64("2023-11-06")
    assert synthetic.tables["deal"]["created_at"].max() < end


# ------------------------------------------------------------------ the recipe in the docs


def test_docs_name_every_parameter_with_its_default() -> None:
    text = DOCS.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", text, flags=re.MULTILINE))
    world = World()
    for parameter in fields(World):
        value = getattr(world, parameter.name)
        if isinstance(value, int | float):
            assert float(rows[parameter.name].replace(",", "")) == value, parameter.name
        else:
            assert f"`{parameter.name}`" in text


def test_docs_tables_of_levels_and_stages_are_the_code() -> None:
    text = DOCS.read_text(encoding="utf-8")
    world = World()
    for line in world.pipelines:
        for s in line.stages:
            numbers = (s.advance, s.skip, s.back, s.lose, s.win)
            shown = " | ".join(f"{x:.3f}" for x in numbers)
            assert f"| {s.name} | {s.default_probability:.0%} | {s.entry:.0%} | {shown} |" in text
    for levels in (world.sources, world.industries, world.titles, world.countries):
        for level in levels:
            name = level.name or "(missing)"
            assert f"| {name} | {level.share:.0%} | {level.lead:+.2f} | {level.win:+.2f} |" in text
    for p in world.products:
        assert (
            f"| {p.name} | {p.pipeline_id} | {p.share:.0%} | {p.median:,.0f} | {p.sigma} |" in text
        )
