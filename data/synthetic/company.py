"""The company: play its days from the introduction of the CRM to the export."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.records import SourceFacts, Table
from data.synthetic.drawing import draw_deals, draw_leads, draw_rate, draw_reps, draw_shocks
from data.synthetic.hazards import Calendar, Floats
from data.synthetic.tables import SOURCE, Drawn, activity_table, event_tables, record_tables
from data.synthetic.targets import target_table
from data.synthetic.truth import Truth
from data.synthetic.walk import WorkingTime, draw_edits, walk
from data.synthetic.world import World

__all__ = ["Synthetic", "make_history"]

_DEFAULT_END = np.datetime64("2026-02-16", "us")


@dataclass(frozen=True)
class Synthetic:
    """A synthetic CRM.

    Attributes
    ----------
    tables : dict of str to Table
        By entity name (lead, deal, stage, stage_change, field_change, activity, account, owner,
        target), as `History` takes them: what an export at `end` would show.
    facts : SourceFacts
        What is true of the whole source.
    truth : Truth
        What really drives it.
    """

    tables: dict[str, Table]
    facts: SourceFacts
    truth: Truth


def make_history(
    n_deals: int = 4000,
    seed: int = 0,
    *,
    end: np.datetime64 = _DEFAULT_END,
    days: int = 730,
    shocks: bool = True,
    world: World | None = None,
) -> Synthetic:
    """Play a synthetic CRM from its introduction, `days` before `end`, with an empty pipeline.

    Parameters
    ----------
    n_deals : int
        Expected number of deals; the count itself is random.
    seed : int
        The same seed and arguments give the same tables.
    end : datetime64
        Moment of the export, a midnight UTC. Targets go on: to the quarter that `end` lies in,
        and the next.
    days : int
        Length of the history.
    shocks : bool
        False leaves the shared shocks on the win hazards out; all else keeps its law.
    world : World, optional
        Other parameters than the documented ones.

    Returns
    -------
    Synthetic

    Raises
    ------
    ValueError
        If `n_deals` or `days` is below 1, `end` is not a midnight, or the hazards of `world`
        lead out of its open stages.
    """
    if n_deals < 1 or days < 1:
        raise ValueError(f"n_deals is {n_deals}, days is {days}; allowed: 1 or more; raise them")
    start = end.astype("datetime64[D]") - days
    if end != start + days:
        raise ValueError(f"end is {end}; allowed: a midnight UTC; round it")
    world = World() if world is None else world
    # One stream for each step: a change of one leaves the draws of the others as they are.
    rngs = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(9)]
    calendar = Calendar.of(world, start, days)
    log_shock = draw_shocks(world, start, days, rngs[0]) if shocks else np.zeros(days)
    reps = draw_reps(world, rngs[1])
    rate = draw_rate(world, calendar, start, days, n_deals, rngs[2])
    leads = draw_leads(world, start, rate, len(reps.ids), rngs[3])
    deals, accounts = draw_deals(world, start, rate, n_deals, leads, reps, rngs[4])
    paths = walk(world, start, deals, reps, calendar, log_shock, rngs[5])
    work = WorkingTime(calendar.work)
    edits = draw_edits(world, work, deals, paths, rngs[6])
    drawn = Drawn(world, start, days, reps, leads, accounts, deals, paths, edits)
    tables = {
        **record_tables(drawn, rngs[7]),
        **event_tables(drawn),
        "activity": activity_table(drawn, work, rngs[8]),
        "target": target_table(drawn, n_deals, shocks),
    }
    return Synthetic(tables, _facts(end), _truth(drawn, log_shock))


def _facts(end: np.datetime64) -> SourceFacts:
    firmographic = ("industry", "employee_count", "country")
    return SourceFacts(
        name=SOURCE,
        currency="EUR",
        static={
            "lead": (
                "lead_source", "company_name", *firmographic, "email_domain", "has_phone", "title",
                "owner_id",
            ),
            "deal": (
                "name", "account_id", "originating_lead_id", "owner_id", "team_id", "pipeline_id",
                "currency", "lead_source", "deal_type", "product_family",
            ),
            "account": ("name", *firmographic),
        },
        observed_until=end.astype("datetime64[us]"),
    )  # fmt: skip


def _truth(drawn: Drawn, log_shock: Floats) -> Truth:
    deals, paths, edits = drawn.deals, drawn.paths, drawn.edits
    deal, moment, _, to = paths.changes
    in_pipeline = to - paths.stages.first[deals.pipeline[deal]]
    stage = np.where(to < paths.stages.open_count, in_pipeline, -1)
    who = np.concatenate([np.arange(len(deals.created)), edits.deal])
    since = np.concatenate([deals.created, edits.moment])
    value = np.concatenate([deals.amount, edits.new])
    order = np.lexsort((since, who))
    return Truth(
        world=drawn.world,
        start=drawn.start,
        owner_effect=dict(zip(drawn.reps.ids, drawn.reps.win.tolist(), strict=True)),
        deal_effect=deals.effect,
        log_shock=log_shock,
        lead_logit=drawn.leads.logit,
        deal_pipeline=deals.pipeline,
        deal_closed=paths.closed,
        changes=(deal, moment, stage),
        amounts=(who[order], since[order], value[order]),
        lead_created=drawn.leads.created,
        lead_decided=drawn.leads.decided,
    )
