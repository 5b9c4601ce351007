"""The synthetic CRM with late records: as an earlier export showed it, or spoilt afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from data.records import ENTITIES, SourceFacts, Table
from data.synthetic import make_history

__all__ = ["CUTOFF", "FACTS", "as_exported", "spoilt_after", "synthetic"]

DAY = np.timedelta64(1, "D")
CUTOFF = np.datetime64("2025-07-01T00:00:00", "us")
_EVENTS = ("stage_change", "field_change", "activity", "qualification", "contact_role")
_SYNTHETIC = make_history(300, seed=3)
FACTS: SourceFacts = _SYNTHETIC.facts

Tables = dict[str, Table]

_NOTHING = np.array(None, dtype=object)


def synthetic() -> Tables:
    """The tables; one row in five was recorded up to 30 days late, some activities are plans."""
    rng = np.random.default_rng(5)
    tables = dict(_SYNTHETIC.tables)
    for name in ("stage_change", "field_change", "activity"):
        table = tables[name]
        late = rng.random(len(table)) < 0.2
        if name == "stage_change":  # what a deal began with came with the deal
            late &= np.array([f is not None for f in table["from_stage_id"]], dtype=bool)
        wait = np.where(late, rng.integers(0, 30 * 24, len(table)), 0) * np.timedelta64(1, "h")
        tables[name] = table.with_columns(recorded_at=table["recorded_at"] + wait)
    work = tables["activity"]
    planned = rng.random(len(work)) < 0.2
    made = work["occurred_at"] - rng.integers(0, 20, len(work)) * DAY
    tables["activity"] = work.with_columns(
        due_at=np.where(planned, work["occurred_at"] + DAY, np.datetime64("NaT")),
        recorded_at=np.where(planned, made, work["recorded_at"]),
        seen_at=np.where(planned, made, work["seen_at"]),
    )
    deals = tables["deal"]
    some = rng.random(len(deals)) < 0.5
    ids = deals["deal_id"][some]
    answered = deals["created_at"][some] + rng.integers(0, 90, len(ids)) * DAY
    tables["qualification"] = Table.from_columns(
        ENTITIES["qualification"],
        {
            "entity": np.full(len(ids), "deal"),
            "entity_id": ids,
            "changed_at": answered,
            "recorded_at": answered + rng.integers(0, 9, len(ids)) * DAY,
            "need": rng.choice(["high", "low"], len(ids)),
            "budget_amount": rng.integers(1, 9, len(ids)) * 1000.0,
        },
    )
    tables["contact_role"] = Table.from_columns(
        ENTITIES["contact_role"],
        {"deal_id": ids, "contact_id": np.full(len(ids), "C1"), "recorded_at": answered},
    )
    return _with_mid_term_accounts(tables, rng)


def _with_mid_term_accounts(tables: Tables, rng: np.random.Generator) -> Tables:
    """Half of the accounts show their present state only from some day on."""
    accounts = tables["account"]
    seen = CUTOFF + rng.integers(-200, 200, len(accounts)) * DAY
    source = np.where(rng.random(len(accounts)) < 0.5, "other", accounts["source"])
    return {**tables, "account": accounts.with_columns(seen_at=seen, source=source.astype(object))}


def known_at(table: Table) -> npt.NDArray[Any]:
    """When each row of events was known."""
    if not table.entity.happened:
        return table["recorded_at"]
    happened, recorded = table[table.entity.happened], table["recorded_at"]
    planned = table["due_at"] if table.entity.name == "activity" else None
    known = np.where(np.isnat(recorded), happened, np.maximum(happened, recorded))
    # The row of a planned activity is there before the activity is.
    return known if planned is None else np.where(np.isnat(planned), known, recorded)


def as_exported(tables: Tables, cutoff: np.datetime64) -> Tables:
    """What an export at the cutoff would have held: nothing that was told later."""
    past = dict(tables)
    for name in _EVENTS:
        past[name] = tables[name].take(known_at(tables[name]) <= cutoff)
    work = past["activity"]
    still = (work["occurred_at"] > cutoff) & ~np.isnat(work["due_at"])
    past["activity"] = work.with_columns(
        occurred_at=np.where(still, np.datetime64("NaT"), work["occurred_at"])
    )
    for name in ("deal", "lead"):
        past[name] = tables[name].take(tables[name]["recorded_at"] <= cutoff)
    past["account"] = tables["account"].take(tables["account"]["recorded_at"] <= cutoff)
    past["deal"] = _deals_then(past["deal"], tables, cutoff)
    past["lead"] = _leads_then(past["lead"], cutoff)
    return past


def _deals_then(deals: Table, tables: Tables, cutoff: np.datetime64) -> Table:
    kinds = dict(zip(tables["stage"]["stage_id"], tables["stage"]["kind"], strict=True))
    moves = tables["stage_change"]
    closed: dict[str, np.datetime64] = {}
    stage: dict[str, Any] = {}
    for i in np.flatnonzero(known_at(moves) <= cutoff):
        deal = moves["entity_id"][i]
        stage[deal] = moves["to_stage_id"][i]
        if kinds[moves["to_stage_id"][i]] != "open":
            closed[deal] = moves["changed_at"][i]
    told = np.array([d in closed for d in deals["deal_id"]], dtype=bool)
    columns: dict[str, npt.NDArray[Any]] = {
        "outcome": np.where(told, deals["outcome"], "open"),
        "closed_at": np.where(told, deals["closed_at"], np.datetime64("NaT")),
        "closed_amount": np.where(told, deals["closed_amount"], np.nan),
        "loss_reason": np.where(told, deals["loss_reason"], _NOTHING),
        "stage_id": np.array([stage.get(d) for d in deals["deal_id"]], dtype=object),
        "probability": np.full(len(deals), np.nan),
        "forecast_category": np.full(len(deals), None, dtype=object),
    }
    for name in ("amount", "expected_close_date"):
        columns[name] = _values_then(deals, tables["field_change"], name, cutoff)
    return deals.with_columns(**columns)


def _values_then(
    deals: Table, changes: Table, name: str, cutoff: np.datetime64
) -> npt.NDArray[Any]:
    """A field as it stood: the old value of the first change, then those told by the cutoff."""
    values = deals[name].copy()
    place = {d: i for i, d in enumerate(deals["deal_id"])}
    mine = changes.take(np.flatnonzero(changes["field"] == name))
    told = known_at(mine)
    begun: set[int] = set()
    for i in np.lexsort((mine["changed_at"], told)):
        row = place.get(mine["entity_id"][i])
        if row is not None and row not in begun:
            values[row] = mine["old_value"][i]
            begun.add(row)
    for i in np.lexsort((told, mine["changed_at"])):
        row = place.get(mine["entity_id"][i])
        if row is not None and told[i] <= cutoff:
            values[row] = mine["new_value"][i]
    return values


def _leads_then(leads: Table, cutoff: np.datetime64) -> Table:
    still = ~((leads["qualified_at"] <= cutoff) | (leads["disqualified_at"] <= cutoff))
    nat = np.datetime64("NaT")
    return leads.with_columns(
        outcome=np.where(still, "open", leads["outcome"]),
        qualified_at=np.where(still, nat, leads["qualified_at"]),
        disqualified_at=np.where(still, nat, leads["disqualified_at"]),
        disqualification_reason=np.where(still, _NOTHING, leads["disqualification_reason"]),
        status=np.where(still, "Open", leads["status"]),
        converted_deal_id=np.where(still, _NOTHING, leads["converted_deal_id"]),
    )


def spoilt_after(tables: Tables, cutoff: np.datetime64, seed: int) -> Tables:
    """The same past with another future: what was told later is false, and more is added."""
    rng = np.random.default_rng(seed)
    past = as_exported(tables, cutoff)
    spoilt = dict(past)
    ids = past["deal"]["deal_id"]
    n = 4 * len(ids)
    who = np.concatenate([ids, rng.choice(ids, n - len(ids))])  # each deal at least once
    later = cutoff + rng.integers(1, 10**13, n)
    stages = tables["stage"]["stage_id"]
    happened = np.where(rng.random(n) < 0.3, later - 200 * DAY, later)  # some told very late
    happened = np.maximum(happened, _created(past["deal"], who) + np.timedelta64(1, "us"))
    shared = {"changed_at": happened, "recorded_at": later, "entity": np.full(n, "deal"),
              "entity_id": who, "provenance": np.full(n, "native"),
              "source": np.full(n, "synthetic")}  # fmt: skip
    at_cutoff = dict(zip(ids, past["deal"]["stage_id"], strict=True))
    moves = {"to_stage_id": rng.choice(stages, n),
             "from_stage_id": np.array([at_cutoff[d] for d in who], dtype=object)}  # fmt: skip
    spoilt["stage_change"] = _shuffled(
        Table.concat([past["stage_change"],
                      Table.from_columns(ENTITIES["stage_change"], {**shared, **moves})]), rng
    )  # fmt: skip
    spoilt["field_change"] = _shuffled(
        Table.concat([past["field_change"], *_false_changes(past["deal"], who, shared, rng)]), rng
    )
    more = Table.from_columns(
        ENTITIES["activity"],
        {"activity_id": [f"spoilt{i}" for i in range(n)], "deal_id": who, "occurred_at": happened,
         "due_at": later + DAY, "recorded_at": later, "type": rng.choice(["call", "golf"], n)},
    )  # fmt: skip
    spoilt["activity"] = _shuffled(Table.concat([past["activity"], more]), rng)
    spoilt["deal"] = _spoilt_deals(past["deal"], tables["deal"], cutoff, rng)
    spoilt["lead"] = _spoilt_leads(past["lead"], cutoff, rng)
    late = past["account"]["seen_at"] > cutoff
    late &= past["account"]["source"] == "other"  # the others never change, by declaration
    spoilt["account"] = past["account"].with_columns(
        industry=np.where(late, "false", past["account"]["industry"]),
        employee_count=np.where(late, -1.0, past["account"]["employee_count"]),
    )
    return spoilt


def _created(deals: Table, who: npt.NDArray[Any]) -> npt.NDArray[Any]:
    created = dict(zip(deals["deal_id"], deals["created_at"], strict=True))
    return np.array([created[d] for d in who], dtype="datetime64[us]")


def _shuffled(table: Table, rng: np.random.Generator) -> Table:
    """Rows in any order; those of one moment keep theirs, which their number tells."""
    numbered = table.with_columns(sequence=np.arange(len(table), dtype=np.float64))
    return numbered.take(rng.permutation(len(table)))


def _false_changes(
    deals: Table, who: npt.NDArray[Any], shared: dict[str, Any], rng: np.random.Generator
) -> list[Table]:
    """Later changes of the fields that have a history; each names the value it found."""
    found = []
    later = np.maximum(shared["changed_at"], shared["recorded_at"])
    for name in ("amount", "expected_close_date"):
        old = dict(zip(deals["deal_id"], deals[name], strict=True))
        texts = [str(old[d]).removesuffix(".0") for d in who]
        new = np.where(rng.random(len(who)) < 0.5, "777", "2031-01-01")
        found.append(
            Table.from_columns(
                ENTITIES["field_change"],
                {**shared, "changed_at": later, "field": np.full(len(who), name),
                 "old_value": texts, "new_value": new},
            )
        )  # fmt: skip
    return found


def _spoilt_deals(
    past: Table, final: Table, cutoff: np.datetime64, rng: np.random.Generator
) -> Table:
    """Another end for every deal that was open, and new deals."""
    n = len(past)
    still = past["outcome"] == "open"
    closing = cutoff + rng.integers(1, 10**13, n)
    spoilt = past.with_columns(
        outcome=np.where(still, rng.choice(["won", "lost", "open"], n), past["outcome"]),
        closed_at=np.where(still, closing, past["closed_at"]),
        closed_amount=np.where(still, 777.0, past["closed_amount"]),
        stage_id=np.full(n, "golf", dtype=object),
        loss_reason=np.full(n, "golf", dtype=object),
        probability=rng.random(n),
        forecast_category=np.full(n, "golf", dtype=object),
        amount=np.full(n, 777.0),
        expected_close_date=np.full(n, np.datetime64("2031-01-01")),
        merged_into_id=np.where(rng.random(n) < 0.3, "D000001", _NOTHING),
        deleted_at=np.where(rng.random(n) < 0.3, closing, np.datetime64("NaT")),
    )
    later = final.take(final["recorded_at"] > cutoff)
    return Table.concat([later, spoilt.with_columns(first_seen_at=np.full(n, cutoff + DAY))])


def _spoilt_leads(past: Table, cutoff: np.datetime64, rng: np.random.Generator) -> Table:
    n = len(past)
    still = past["outcome"] == "open"
    end = cutoff + rng.integers(1, 10**13, n)
    return past.with_columns(
        outcome=np.where(still, rng.choice(["qualified", "disqualified"], n), past["outcome"]),
        qualified_at=np.where(still, end, past["qualified_at"]),
        disqualified_at=np.where(still, end, past["disqualified_at"]),
        status=np.full(n, "golf", dtype=object),
        rating=np.full(n, "golf", dtype=object),
    )
