"""Canonical tables -> the ledger of one side: who, since when, and all events in order."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from data.chronicle import Ledger, Plans, Side, first_shown, known_times
from data.closing_dates import changes_of, date_line, first_dates
from data.closings import closing_events, first_of_each, stages_that_close
from data.columns import NEVER, FloatArray, IntArray, codes_in, dictionary, micros, places
from data.events import Events, group_events
from data.records import ENTITIES, SourceFacts, Table

__all__ = ["build_ledger"]


def build_ledger(side: Side, tables: Mapping[str, Table], facts: tuple[SourceFacts, ...]) -> Ledger:
    """The ledger of the leads or the deals.

    Stages, like the owners' teams, are configuration: they have no history, and hold for the
    past as they stand.
    """
    table = tables[side]
    ids = table[f"{side}_id"]
    created = micros(table["created_at"])
    recorded = micros(table["recorded_at"])
    known_from = np.where(
        (created == NEVER) | (recorded == NEVER), created, np.maximum(created, recorded)
    )
    pseudo = any(side in f.pseudo_times for f in facts)
    moves = _of_side(side, tables["stage_change"])
    changes = _of_side(side, tables["field_change"])
    stages, levels = _stages(side, table, moves, known_from, tables["stage"])
    closings = closing_events(side, table, moves, changes, known_from, tables["stage"], pseudo)
    activities, types, plans = _activities(side, ids, tables["activity"])
    qualifications, answers = _qualifications(ids, _of_side(side, tables["qualification"]))
    people = tables["contact_role"] if side == "deal" else Table.empty(ENTITIES["contact_role"])
    return Ledger(
        side=side,
        ids=ids,
        created_at=created,
        known_from=known_from,
        gone_at=_gone(table, changes, known_from),
        outcomes=closings,
        stages=stages,
        stage_levels=levels,
        stage_order=_order_of(levels, tables["stage"]),
        activities=activities,
        activity_levels=types,
        plans=plans,
        qualifications=qualifications,
        qualification_table=answers,
        stakeholders=_stakeholders(ids, people),
        table=table,
        changes=changes,
        facts=facts,
        pseudo_times=pseudo,
    )


def _of_side(side: Side, table: Table) -> Table:
    codes, levels = dictionary(table["entity"])
    return table.take(np.flatnonzero(codes_in(levels, codes, {side})))


def _gone(table: Table, changes: Table, known_from: IntArray) -> IntArray:
    """Since when each record is known to have left: deleted, or merged into another.

    A deletion that a change told counts from when it was told. Where the source only shows that
    a record was merged, that is known from the change, or from when the record was first shown.
    """
    date, since = first_dates(date_line(table, changes, "deleted_at"))
    deleted = np.maximum(date, since)
    merged = np.array([m is not None for m in table["merged_into_id"].tolist()], dtype=bool)
    kept = changes_of(changes, "merged_into_id")
    rows, known = places(table[table.entity.key[0]], kept["entity_id"]), known_times(kept)
    told = np.full(len(table), NEVER, dtype=np.int64)
    np.minimum.at(told, rows[rows >= 0], known[rows >= 0])
    gone = np.minimum(deleted, np.where(merged, told, NEVER))
    return np.where(merged & (gone == NEVER), first_shown(table, known_from), gone)


def _activities(
    side: Side, ids: npt.NDArray[np.object_], table: Table
) -> tuple[Events, npt.NDArray[np.object_], Plans]:
    """What took place, its types, and what is planned."""
    rows = places(ids, table[f"{side}_id"])
    table, rows = table.take(rows >= 0), rows[rows >= 0]
    kinds, levels = dictionary(table["type"])
    happened = micros(table["occurred_at"])
    took_place = np.flatnonzero(happened != NEVER)
    events, _ = group_events(
        len(ids),
        rows[took_place],
        happened[took_place],
        known_times(table)[took_place],
        table["sequence"][took_place],
        kinds[took_place].astype(np.int64),
    )
    return events, levels, _plans(len(ids), rows, table)


def _plans(n: int, rows: IntArray, table: Table) -> Plans:
    """Activities with a due time.

    A due time can be moved, and no history is kept of that: the one that stands counts from when
    it was seen. A row without any time of its own came with the question, and counts.
    """
    due = micros(table["due_at"])
    recorded, seen = micros(table["recorded_at"]), micros(table["seen_at"])
    known = np.maximum(
        np.where(recorded == NEVER, -NEVER, recorded), np.where(seen == NEVER, -NEVER, seen)
    )
    planned = np.flatnonzero(due != NEVER)
    planned = planned[np.lexsort((known[planned], due[planned], rows[planned]))]
    return Plans(
        np.searchsorted(rows[planned], np.arange(n + 1)).astype(np.int64),
        due[planned],
        known[planned],
        micros(table["occurred_at"])[planned],
    )


def _qualifications(ids: npt.NDArray[np.object_], table: Table) -> tuple[Events, Table]:
    rows = places(ids, table["entity_id"])
    table, rows = table.take(rows >= 0), rows[rows >= 0]
    at, known = micros(table["changed_at"]), known_times(table)
    events, _ = group_events(len(ids), rows, at, known, table["sequence"], np.arange(len(rows)))
    return events, table


def _stakeholders(ids: npt.NDArray[np.object_], table: Table) -> Events:
    rows = places(ids, table["deal_id"])
    table, rows = table.take(rows >= 0), rows[rows >= 0]
    recorded = micros(table["recorded_at"])
    at = np.where(recorded == NEVER, micros(table["seen_at"]), recorded)
    events, _ = group_events(
        len(ids), rows, at, at, table["sequence"], np.zeros(len(rows), dtype=np.int64)
    )
    return events


def _order_of(levels: npt.NDArray[np.object_], stage: Table) -> FloatArray:
    """Place of each stage in its pipeline, from 1: the CRM's numbers may leave gaps."""
    place: dict[str, float] = {}
    for pipeline in set(stage["pipeline_id"].tolist()):
        rows = np.flatnonzero(stage["pipeline_id"] == pipeline)
        rows = rows[~np.isnan(stage["sort_order"][rows])]
        _, rank = np.unique(stage["sort_order"][rows], return_inverse=True)
        place |= dict(zip(stage["stage_id"][rows].tolist(), (rank + 1.0).tolist(), strict=True))
    return np.array([place.get(level, np.nan) for level in levels.tolist()], dtype=np.float64)


def _stages(
    side: Side, table: Table, moves: Table, known_from: IntArray, stage: Table
) -> tuple[Events, npt.NDArray[np.object_]]:
    """Stages entered: the recorded moves, and the stage a record began in.

    What a record began in is known from the start where its source keeps the history of stages;
    where moves are only noticed by comparing states, it is known from when the record was first
    shown. Whether it moved later must not matter.
    """
    rows = places(table[f"{side}_id"], moves["entity_id"])
    moves, rows = moves.take(rows >= 0), rows[rows >= 0]
    at, known = micros(moves["changed_at"]), known_times(moves)
    first = first_of_each(rows, at, moves["sequence"])
    shown = np.maximum(first_shown(table, known_from), known_from)
    keeps = _keep_stages(table, moves)
    created = micros(table["created_at"])
    # A record that moved began in the stage it first left, unless the move was its entry.
    left = np.array([f is not None for f in moves["from_stage_id"][first].tolist()], dtype=bool)
    began = first[left & (at[first] > created[rows[first]])]
    began_row = rows[began]
    began_at = np.where(keeps[began_row], created[began_row], shown[began_row])
    began_at = np.minimum(began_at, at[began])
    began_known = np.where(keeps[began_row], known_from[began_row], shown[began_row])
    began_known = np.minimum(began_known, known[began])  # the move tells it at the latest
    # A record that never moved is where it began.
    now = table["stage_id"] if side == "deal" else table["status"]
    still = np.setdiff1d(np.arange(len(table)), rows)
    still = still[np.array([now[i] is not None for i in still], dtype=bool)]
    still_at = np.where(keeps[still], created[still], shown[still])
    still_known = np.where(keeps[still], known_from[still], shown[still])

    names = np.concatenate([moves["to_stage_id"], moves["from_stage_id"][began], now[still]])
    all_at = np.concatenate([at, began_at, still_at])
    all_known = np.concatenate([known, began_known, still_known])
    sequence = np.concatenate([moves["sequence"], np.full(len(began) + len(still), -1.0)])
    codes, levels = dictionary(names)
    closing = codes_in(levels, codes, set(stages_that_close(stage)))
    keep = ~closing & (codes >= 0) & (all_at != NEVER)
    events, _ = group_events(
        len(table),
        np.concatenate([rows, began_row, still])[keep],
        all_at[keep],
        all_known[keep],
        sequence[keep],
        codes[keep].astype(np.int64),
    )
    return events.without_repeats(), levels


def _keep_stages(table: Table, moves: Table) -> npt.NDArray[np.bool_]:
    """Whether each record's source keeps the history of stages, and does not just compare.

    Records without a source were pushed, and say themselves how they moved.
    """
    codes, levels = dictionary(moves["provenance"])
    told = np.flatnonzero(~codes_in(levels, codes, {"snapshot_diff"}))
    sources = set(moves["source"][told].tolist()) - {None}
    return np.fromiter((s in sources for s in table["source"].tolist()), bool, len(table))
