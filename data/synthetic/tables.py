"""The tables: what was drawn, as the export of a CRM would show it at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data.records import ENTITIES, Table
from data.synthetic.drawing import Accounts, Deals, Leads, Reps
from data.synthetic.hazards import DAY, Dates, Flags, Floats, Ints, Objects, sigmoid
from data.synthetic.truth import record_ids
from data.synthetic.walk import Edits, Paths, WorkingTime
from data.synthetic.world import Level, World

__all__ = ["SOURCE", "Drawn", "activity_table", "event_tables", "record_tables"]

SOURCE = "synthetic"


@dataclass(frozen=True, eq=False)
class Drawn:
    """All that was drawn, on its way into tables."""

    world: World
    start: np.datetime64
    days: int
    reps: Reps
    leads: Leads
    accounts: Accounts
    deals: Deals
    paths: Paths
    edits: Edits

    def times(self, micros: Ints) -> Dates:
        """Moments as datetime64[us]; NaT beyond the end."""
        times = self.start.astype("datetime64[us]") + micros
        return np.where(micros < self.days * DAY, times, np.datetime64("NaT", "us"))

    def table(self, name: str, columns: dict[str, Any], recorded: Dates | None = None) -> Table:
        """A table with its bookkeeping; recorded when the CRM was introduced if nothing else."""
        entity = ENTITIES[name]
        n = len(columns[entity.key[0]])
        if recorded is None:
            recorded = np.full(n, self.start.astype("datetime64[us]"))
        shared = {
            "recorded_at": recorded,
            "recorded_assumed": np.zeros(n),
            "sequence": np.zeros(n),
            "seen_at": np.full(n, self.start.astype("datetime64[us]") + self.days * DAY),
            "source": np.full(n, SOURCE),
        }
        return Table.from_columns(entity, {**shared, **columns})


def _names(levels: Sequence[Level]) -> Objects:
    return np.array([level.name or None for level in levels], dtype=object)


def _refs(letter: str, rows: Ints) -> Objects:
    """Ids of the records at these positions; None for -1."""
    return _mask(np.char.mod(letter + "%06d", rows + 1), rows >= 0)


def _mask(values: Objects | npt.NDArray[Any], known: Flags) -> Objects:
    out = np.full(len(known), None, dtype=object)
    out[known] = values[known]
    return out


# ------------------------------------------------------------------ records


def record_tables(drawn: Drawn, rng: np.random.Generator) -> dict[str, Table]:
    """Leads, deals, accounts, owners and stages."""
    return {
        "lead": _lead_table(drawn, rng),
        "deal": _deal_table(drawn, rng),
        "account": _account_table(drawn),
        "owner": _owner_table(drawn),
        "stage": _stage_table(drawn),
    }


def _lead_table(drawn: Drawn, rng: np.random.Generator) -> Table:
    leads, world = drawn.leads, drawn.world
    n = len(leads.created)
    decided = leads.decided < drawn.days * DAY
    qualified, refused = decided & leads.qualified, decided & ~leads.qualified
    deal = np.full(n, -1)
    from_lead = np.flatnonzero(drawn.deals.lead >= 0)
    deal[drawn.deals.lead[from_lead]] = from_lead
    account = np.full(n, -1)
    account[drawn.deals.lead[from_lead]] = drawn.deals.account[from_lead]
    reasons = ("no budget", "no need", "not reached", "wrong contact")
    outcome = np.where(qualified, "qualified", np.where(refused, "disqualified", "open"))
    free = ("gmail.com", "outlook.com", "gmx.de")
    columns = {
        "lead_id": record_ids("L", n),
        "created_at": drawn.times(leads.created),
        "status": np.where(decided, np.char.title(outcome), "Open"),
        "outcome": outcome,
        "qualified_at": drawn.times(np.where(qualified, leads.decided, drawn.days * DAY)),
        "disqualified_at": drawn.times(np.where(refused, leads.decided, drawn.days * DAY)),
        "disqualification_reason": _mask(rng.choice(reasons, n), refused),
        "lead_source": _names(world.sources)[leads.source],
        "company_name": record_ids("Company ", n),
        "industry": _names(world.industries)[leads.industry],
        "employee_count": leads.employees,
        "country": _names(world.countries)[leads.country],
        "email_domain": np.where(
            leads.free_mail, rng.choice(free, n), record_ids("company-", n) + ".example"
        ),
        "has_phone": leads.phone,
        "title": _names(world.titles)[leads.title],
        "owner_id": drawn.reps.ids[leads.owner],
        "account_id": _refs("A", account),
        "converted_deal_id": _refs("D", deal),
    }
    return drawn.table("lead", columns, drawn.times(leads.created))


def _deal_table(drawn: Drawn, rng: np.random.Generator) -> Table:
    deals, world, stages = drawn.deals, drawn.world, drawn.paths.stages
    n, stage = len(deals.created), drawn.paths.stage
    closed = stage >= stages.open_count
    won = closed & ((stage - stages.open_count) % 2 == 0)
    weight = 10.0
    beta = rng.beta(weight * world.discount_mean, weight * (1 - world.discount_mean), n)
    discount = np.where(rng.random(n) < world.discount_share, beta, 0.0)
    probability = stages.default[stage]
    category = np.array(["pipeline", "best case", "commit"])
    reasons = ("price", "competitor", "no decision", "features")
    kind = np.where(deals.existing, "existing business", "new business")
    columns = {
        "deal_id": record_ids("D", n),
        "name": record_ids("Deal ", n),
        "account_id": _refs("A", deals.account),
        "originating_lead_id": _refs("L", deals.lead),
        "owner_id": drawn.reps.ids[deals.owner],
        "team_id": drawn.reps.team[deals.owner],
        "pipeline_id": _pipeline_ids(world)[deals.pipeline],
        "stage_id": stages.ids[stage],
        "outcome": np.where(won, "won", np.where(closed, "lost", "open")),
        "amount": drawn.edits.final,
        "closed_amount": np.where(won, np.round(drawn.edits.final * (1 - discount), 2), np.nan),
        "currency": np.full(n, "EUR"),
        "created_at": drawn.times(deals.created),
        "expected_close_date": drawn.start + drawn.paths.expected,
        "closed_at": drawn.times(drawn.paths.closed),
        "probability": probability,
        "forecast_category": np.where(
            closed, "closed", category[np.digitize(probability, [0.3, 0.7])]
        ),
        "lead_source": _names(world.sources)[deals.source],
        "deal_type": np.where(deals.pipeline == 1, "renewal", kind),
        "product_family": np.array([p.name for p in world.products], dtype=object)[deals.product],
        "loss_reason": _mask(rng.choice(reasons, n), closed & ~won),
    }
    return drawn.table("deal", columns, drawn.times(deals.created))


def _pipeline_ids(world: World) -> Objects:
    return np.array([line.pipeline_id for line in world.pipelines], dtype=object)


def _account_table(drawn: Drawn) -> Table:
    accounts, world = drawn.accounts, drawn.world
    created = drawn.times(accounts.created)
    columns = {
        "account_id": record_ids("A", len(created)),
        "name": np.where(
            accounts.lead >= 0,
            np.char.mod("Company %06d", accounts.lead + 1),
            np.char.mod("Customer %06d", np.arange(1, len(created) + 1)),
        ),
        "industry": _names(world.industries)[accounts.industry],
        "employee_count": accounts.employees,
        "country": _names(world.countries)[accounts.country],
        "created_at": created,
    }
    return drawn.table("account", columns, created)


def _owner_table(drawn: Drawn) -> Table:
    reps = drawn.reps
    columns = {
        "owner_id": reps.ids,
        "name": np.array([f"Rep {i + 1}" for i in range(len(reps.ids))], dtype=object),
        "team_id": reps.team,
        "is_active": np.ones(len(reps.ids)),
    }
    return drawn.table("owner", columns)


def _stage_table(drawn: Drawn) -> Table:
    stages = drawn.paths.stages
    position = np.arange(len(stages.ids), dtype=np.float64)
    opened = position < stages.open_count
    closed_kind = np.where((position - stages.open_count) % 2 == 0, "won", "lost")
    columns = {
        "pipeline_id": _pipeline_ids(drawn.world)[stages.pipeline],
        "stage_id": stages.ids,
        "name": stages.names,
        "sort_order": np.where(opened, position - stages.first[stages.pipeline], position) + 1,
        "kind": np.where(opened, "open", closed_kind),
        "default_probability": stages.default,
        "rotten_after_days": np.where(opened, 30.0, np.nan),
    }
    return drawn.table("stage", columns)


# ------------------------------------------------------------------ changes


def event_tables(drawn: Drawn) -> dict[str, Table]:
    """Stage and field changes, each sorted by moment."""
    stages, ids = drawn.paths.stages, record_ids("D", len(drawn.deals.created))
    reps = drawn.reps.ids[drawn.deals.owner]
    deal, moment, before, after = drawn.paths.changes
    when = drawn.times(moment)
    moves = {
        "entity": np.full(len(deal), "deal"),
        "entity_id": ids[deal],
        "changed_at": when,
        "from_stage_id": _mask(stages.ids[before], before >= 0),
        "to_stage_id": stages.ids[after],
        "changed_by_id": reps[deal],
        "provenance": np.full(len(deal), "native"),
    }
    dated, at, old, new = drawn.paths.dates
    edits = drawn.edits
    who = np.concatenate([edits.deal, dated])
    times = drawn.times(np.concatenate([edits.moment, at]))
    fields = {
        "entity": np.full(len(who), "deal"),
        "entity_id": ids[who],
        "changed_at": times,
        "field": np.repeat(["amount", "expected_close_date"], [len(edits.deal), len(dated)]),
        "old_value": np.concatenate([_numbers(edits.old), _days(drawn.start + old)]),
        "new_value": np.concatenate([_numbers(edits.new), _days(drawn.start + new)]),
        "provenance": np.full(len(who), "native"),
        "sequence": np.ones(len(who)),  # after the stage change that made the rep think again
    }
    return {
        "stage_change": _sorted(drawn.table("stage_change", moves, when)),
        "field_change": _sorted(drawn.table("field_change", fields, times)),
    }


def _sorted(table: Table) -> Table:
    return table.take(np.argsort(table[table.entity.happened], kind="stable"))


def _numbers(values: Floats) -> Objects:
    return values.astype(np.int64).astype(str).astype(object)


def _days(dates: Dates) -> Objects:
    return np.datetime_as_string(dates).astype(object)


# ------------------------------------------------------------------ activities


def _deal_activity(drawn: Drawn, work: WorkingTime, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Deal and moment of each activity: a rate that belongs to the stage the deal is in."""
    world, deals, stages = drawn.world, drawn.deals, drawn.paths.stages
    deal, since, _, stage = drawn.paths.changes
    until = np.append(since[1:], 0)[: len(since)]  # each stage lasts until the deal's next entry
    spells = np.flatnonzero(stage < stages.open_count)
    final = np.append(deal[1:] != deal[:-1], True)[spells]
    deal, since, stage = deal[spells], since[spells], stage[spells]
    until = np.where(final, drawn.days * DAY, until[spells])
    rate = stages.activity[stage] * np.exp(
        drawn.reps.diligence[deals.owner[deal]] + world.interest_on_activity * deals.interest[deal]
    )
    spell, moment = work.events(since, until, rate, rng)
    return deal[spell], moment


def _lead_activity(drawn: Drawn, work: WorkingTime, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Lead and moment of each activity: good leads are worked a little more."""
    world, leads = drawn.world, drawn.leads
    insight = world.lead_activity_insight * (leads.logit - world.lead_intercept)
    rate = world.lead_activity * np.exp(drawn.reps.diligence[leads.owner] + insight)
    return work.events(leads.created, leads.decided, rate, rng)


def activity_table(drawn: Drawn, work: WorkingTime, rng: np.random.Generator) -> Table:
    """Activities of deals and leads, sorted by moment."""
    deals, leads = drawn.deals, drawn.leads
    on_deal, moment = _deal_activity(drawn, work, rng)
    on_lead, lead_moment = _lead_activity(drawn, work, rng)
    moments = np.concatenate([moment, lead_moment])
    order = np.argsort(moments, kind="stable")
    n = len(order)
    nothing, uninterested = np.full(len(on_lead), -1), np.zeros(len(on_lead))
    deal = np.concatenate([on_deal, nothing])[order]
    lead = np.concatenate([np.full(len(on_deal), -1), on_lead])[order]
    owner = np.concatenate([deals.owner[on_deal], leads.owner[on_lead]])[order]
    account = np.concatenate([deals.account[on_deal], nothing])[order]
    interest = np.concatenate([deals.interest[on_deal], uninterested])[order]
    inbound = rng.random(n) < sigmoid(drawn.world.interest_on_inbound * interest - 0.7)
    kinds = np.array(["email", "call", "meeting", "task"])
    kind = rng.choice(4, n, p=[0.45, 0.30, 0.15, 0.10])
    kind[inbound & (kind == 3)] = 0  # nobody else writes into one's own task list
    minutes = np.array([np.nan, 9.0, 45.0, np.nan])[kind] * rng.lognormal(0, 0.5, n)
    columns = {
        "activity_id": record_ids("X", n),
        "type": kinds[kind],
        "direction": np.where(inbound, "inbound", "outbound"),
        "occurred_at": drawn.times(moments[order]),
        "is_done": np.ones(n),
        "duration_minutes": np.round(minutes) + 1,
        "lead_id": _refs("L", lead),
        "deal_id": _refs("D", deal),
        "account_id": _refs("A", account),
        "owner_id": drawn.reps.ids[owner],
    }
    return drawn.table("activity", columns, columns["occurred_at"])
