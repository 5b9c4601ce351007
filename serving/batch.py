"""Scores of records that come with the question: good and bad ones side by side.

A record's answer is its own: it does not depend on the other records of the call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.features import Feature
from data.history import HistoryError, Side, Snapshot
from data.records import RecordError, Table
from scoring.bundles import DealBundle, LeadBundle
from scoring.scores import DealScore, LeadScore, score_deals, score_leads
from serving.answers import deal_answer, lead_answer, time_text
from serving.intake import Submitted, check_record, snapshot_of

__all__ = [
    "Answer",
    "Bundle",
    "CurrencyError",
    "GoneError",
    "Question",
    "UnknownError",
    "answer_all",
    "answer_of",
    "not_there",
    "scores_of",
]

Bundle = LeadBundle | DealBundle
Answer = dict[str, Any]

_AHEAD = np.timedelta64(300, "s")  # how far a CRM's clock may be ahead of ours
_LARGE = 1e300  # a number of a context beyond this is none


class UnknownError(LookupError):
    """There is no such record, or none yet."""


class GoneError(LookupError):
    """The record was deleted or merged."""


class CurrencyError(ValueError):
    """An amount cannot be told in the base currency."""


@dataclass(frozen=True)
class Question:
    """What holds for all records of a call.

    Attributes
    ----------
    kind : str
        "lead" or "deal".
    bundle : Bundle
    at : datetime64[us]
        The as_of.
    at_given : bool
        Whether the caller named it, or it is simply now.
    explain : bool
    context : mapping
        Values of context features, by name.
    tables : mapping of str to Table
        Stages and exchange rates.
    base : str or None
        Base currency.
    default : str or None
        Currency of amounts that name none.
    """

    kind: Side
    bundle: Bundle
    at: np.datetime64
    at_given: bool
    explain: bool
    context: Mapping[str, Any]
    tables: Mapping[str, Table]
    base: str | None
    default: str | None


@dataclass(frozen=True)
class _Candidate:
    """A good record: its moment, its context, and what to warn of."""

    submitted: Submitted
    at: np.datetime64
    context: dict[str, Any]
    warnings: tuple[str, ...]


def answer_all(
    question: Question, records: Sequence[Mapping[str, Any]]
) -> list[Answer | Exception]:
    """An answer for each record, or the error that it met with, in order."""
    found: dict[int, Answer | Exception] = {}
    groups: dict[tuple[Any, ...], dict[int, _Candidate]] = {}
    for i, record in enumerate(records):
        try:
            candidate = _candidate(question, record)
        except RecordError as error:
            found[i] = error
        else:
            # One scoring call takes one context.
            groups.setdefault(tuple(candidate.context.values()), {})[i] = candidate
    for members in groups.values():
        answers = _answers(question, list(members.values()))
        found.update(zip(members, answers, strict=True))
    return [found[i] for i in range(len(records))]


def _candidate(question: Question, record: Mapping[str, Any]) -> _Candidate:
    submitted = check_record(question.kind, record, question.default)
    at = _own_moment(question, submitted)
    context, unused = _context(question.bundle.features, {**question.context, **submitted.context})
    return _Candidate(submitted, at, context, (*_missing_facts(question.kind, submitted), *unused))


def _own_moment(question: Question, submitted: Submitted) -> np.datetime64:
    """The as_of of one record; a CRM's clock that is a little ahead of ours is forgiven."""
    created, at = submitted.created_at, question.at
    if created is None or created <= at:
        return at
    if not question.at_given and created - at <= _AHEAD:
        return created
    raise RecordError("created_at", time_text(created), f"a moment up to as_of, {time_text(at)}")


def _context(
    features: Sequence[Feature], given: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Values of all context features, None for what is missing, and what was not used."""
    values: dict[str, Any] = {f.name: None for f in features if f.scope == "context"}
    for feature in features:
        value = given.get(feature.name)
        if feature.scope != "context" or value is None:
            continue
        if feature.dtype == "category" and isinstance(value, str):
            values[feature.name] = value
        elif feature.dtype == "number" and isinstance(value, int | float) and abs(value) < _LARGE:
            values[feature.name] = float(value)
        else:
            allowed = "a finite number" if feature.dtype == "number" else "text"
            raise RecordError(f"context.{feature.name}", value, allowed)
    unused = sorted(set(given) - set(values))
    return values, tuple(f"context {name!r} is not used by this model" for name in unused)


def _missing_facts(kind: Side, submitted: Submitted) -> tuple[str, ...]:
    """What a record leaves unsaid that its score would gain from."""
    values = submitted.row.values
    if "created_at" not in values:
        return ("no created_at: the age, and the time in the stage, are counted from as_of",)
    told = submitted.nested.get("stage_change") or "seen_at" in values or "first_seen_at" in values
    if kind == "deal" and "stage_id" in values and not told:
        return ("no stage_changes: the time in the stage is counted from as_of",)
    return ()


def _answers(question: Question, members: Sequence[_Candidate]) -> list[Answer | Exception]:
    try:
        return _scored(question, members)
    except HistoryError as error:
        if len(members) == 1:
            # In its lone history the record goes by its place, which is 0.
            own = f"{question.kind} {members[0].submitted.id} "
            return [CurrencyError(str(error).replace(f"{question.kind} 0 ", own))]
    # A currency without a rate: find out whose it is, and let the others pass.
    return [_answers(question, [member])[0] for member in members]


def _scored(question: Question, members: Sequence[_Candidate]) -> list[Answer | Exception]:
    kind, bundle = question.kind, question.bundle
    records = [m.submitted for m in members]
    at = np.array([m.at for m in members], dtype="datetime64[us]").astype(np.int64)
    snapshot = snapshot_of(kind, records, at, bundle.features, question.tables, question.base)
    rows = np.flatnonzero(snapshot.exists)
    scores = scores_of(snapshot.take(rows), bundle, question.explain, members[0].context)
    told = dict(zip(rows.tolist(), scores, strict=True))
    return [
        answer_of(told[i], m.submitted.id, m.warnings)
        if i in told
        else not_there(kind, m.submitted.id, snapshot, i)
        for i, m in enumerate(members)
    ]


def scores_of(
    snapshot: Snapshot, bundle: Bundle, explain: bool, context: Mapping[str, Any] | None = None
) -> list[LeadScore | DealScore]:
    """Scores of a snapshot's rows by the bundle of their kind."""
    if len(snapshot) == 0:
        return []
    if isinstance(bundle, DealBundle):
        return [*score_deals(snapshot, bundle, explain=explain, context=context)]
    return [*score_leads(snapshot, bundle, explain=explain, context=context)]


def answer_of(
    score: LeadScore | DealScore, record_id: str, warnings: tuple[str, ...] = ()
) -> Answer:
    """A score as plain JSON values."""
    if isinstance(score, DealScore):
        return deal_answer(score, record_id, warnings)
    return lead_answer(score, record_id, warnings)


def not_there(kind: Side, record_id: str, snapshot: Snapshot, i: int) -> Exception:
    """Why row i of a snapshot, which does not exist at its moment, has no score."""
    ledger, row = snapshot.ledger, snapshot.rows[i]
    if ledger.gone_at[row] <= snapshot.at[i]:
        return GoneError(f"{kind} {record_id!r} was deleted or merged; it has no score any more")
    known = time_text(ledger.known_from[row].astype("datetime64[us]"))
    as_of = time_text(snapshot.at[i].astype("datetime64[us]"))
    return UnknownError(f"{kind} {record_id!r} is not known before {known}; as_of is {as_of}")
