"""The tables of the synthetic CRM hold together, and its recipe is the one in the docs."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from data.history import History
from data.records import ENTITIES, Table
from data.synthetic import Synthetic, World, make_history
from tests.data.synthetic import AS_OF, END, open_deals

DOCS = Path(__file__).parents[3] / "docs" / "synthetic.md"


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


@pytest.mark.parametrize("days", [1, 200])
@pytest.mark.parametrize(
    ("end", "current", "following"),
    [
        ("2024-12-31", "2024-10-01", "2025-01-01"),
        ("2025-01-01", "2025-01-01", "2025-04-01"),
        ("2025-02-14", "2025-01-01", "2025-04-01"),
        ("2025-10-01", "2025-10-01", "2026-01-01"),
    ],
)
def test_at_the_end_targets_of_this_quarter_and_the_next_are_known(
    end: str, current: str, following: str, days: int
) -> None:
    moment = np.datetime64(end)
    targets = make_history(40, end=moment, days=days).tables["target"]
    whole = targets.take((targets["scope"] == "all") & (targets["period_end"] > moment))
    assert whole["period_start"].astype(str).tolist() == [current, following]
    assert (whole["period_end"][0] == whole["period_start"][1]) and (whole["amount"] > 0).all()
    assert (targets["recorded_at"] < moment).all()


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
