"""What dealcast itself keeps: numbers as issued, keys, facts of sources, settings.

Functions on an open connection; `data.store.Store` gives them their transactions. What was issued
is only ever appended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa

from data.records import SourceFacts
from data.store.rows import micros, moment, moment_text
from data.store.tables import (
    API_KEY,
    FORECAST_ISSUED,
    ORGANISATION,
    SCORE_ISSUED,
    SOURCE,
    StoreError,
)

__all__ = [
    "ApiKey",
    "IssuedForecast",
    "IssuedScore",
    "forecasts",
    "keep_forecast",
    "keep_key",
    "keep_scores",
    "keep_source",
    "keys",
    "mark_key",
    "put_setting",
    "scores",
    "settings",
    "source_facts",
]

_NEVER = np.datetime64("NaT", "us")


@dataclass(frozen=True)
class IssuedScore:
    """A score as it was given out.

    Attributes
    ----------
    entity : str
        "lead" or "deal".
    entity_id : str
    as_of, issued_at : datetime64[us], UTC
        The moment the score speaks of, and the moment it was given.
    model_name, model_version : str
    answer : dict
        The whole answer, plain JSON values.
    """

    entity: str
    entity_id: str
    as_of: np.datetime64
    issued_at: np.datetime64
    model_name: str
    model_version: str
    answer: dict[str, Any]


@dataclass(frozen=True)
class IssuedForecast:
    """A forecast as it was given out.

    Attributes
    ----------
    as_of, issued_at : datetime64[us], UTC
        The moment the forecast speaks from, and the moment it was given.
    period : str
        "week", "month" or "quarter".
    by : str or None
        What it was grouped by; None for the whole.
    model_version : str
    answer : dict
        The whole answer, plain JSON values.
    """

    as_of: np.datetime64
    issued_at: np.datetime64
    period: str
    by: str | None
    model_version: str
    answer: dict[str, Any]


@dataclass(frozen=True)
class ApiKey:
    """What is kept of an API key: a hash of its secret, never the secret.

    Attributes
    ----------
    key_id, name, hash : str
    scopes : tuple of str
        Words without spaces.
    created_at, expires_at, last_used_at, revoked_at : datetime64[us], UTC
        NaT where it has not happened, or never will.
    """

    key_id: str
    name: str
    hash: str
    scopes: tuple[str, ...]
    created_at: np.datetime64
    expires_at: np.datetime64 = _NEVER
    last_used_at: np.datetime64 = _NEVER
    revoked_at: np.datetime64 = _NEVER


def _to_json(value: object) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError) as error:
        raise StoreError(f"an answer to be kept must be plain JSON values: {error}") from error


# --- numbers as issued


def keep_scores(connection: sa.Connection, scores: Sequence[IssuedScore]) -> None:
    """Append scores as issued."""
    rows = [
        {
            "entity": s.entity,
            "entity_id": s.entity_id,
            "as_of": micros(s.as_of),
            "issued_at": micros(s.issued_at),
            "model_name": s.model_name,
            "model_version": s.model_version,
            "answer": _to_json(s.answer),
        }
        for s in scores
    ]
    if rows:
        connection.execute(sa.insert(SCORE_ISSUED), rows)


def scores(connection: sa.Connection, entity: str, entity_id: str | None) -> list[IssuedScore]:
    """Scores issued for one record, or for all of an entity, oldest first."""
    query = sa.select(SCORE_ISSUED).where(SCORE_ISSUED.c.entity == entity)
    if entity_id is not None:
        query = query.where(SCORE_ISSUED.c.entity_id == entity_id)
    return [
        IssuedScore(
            row.entity,
            row.entity_id,
            moment(row.as_of),
            moment(row.issued_at),
            row.model_name,
            row.model_version,
            msgspec.json.decode(row.answer),
        )
        for row in connection.execute(query.order_by(SCORE_ISSUED.c.id))
    ]


def keep_forecast(connection: sa.Connection, forecast: IssuedForecast) -> None:
    """Append a forecast as issued."""
    connection.execute(
        sa.insert(FORECAST_ISSUED).values(
            as_of=micros(forecast.as_of),
            issued_at=micros(forecast.issued_at),
            period=forecast.period,
            by=forecast.by,
            model_version=forecast.model_version,
            answer=_to_json(forecast.answer),
        )
    )


def forecasts(connection: sa.Connection) -> list[IssuedForecast]:
    """All forecasts issued, oldest first."""
    return [
        IssuedForecast(
            moment(row.as_of),
            moment(row.issued_at),
            row.period,
            row.by,
            row.model_version,
            msgspec.json.decode(row.answer),
        )
        for row in connection.execute(sa.select(FORECAST_ISSUED).order_by(FORECAST_ISSUED.c.id))
    ]


# --- keys


def keep_key(connection: sa.Connection, key: ApiKey) -> None:
    """Add a key; StoreError if its id or hash is taken, or a scope is not one word."""
    taken = sa.or_(API_KEY.c.key_id == key.key_id, API_KEY.c.hash == key.hash)
    if connection.execute(sa.select(API_KEY.c.key_id).where(taken)).first() is not None:
        raise StoreError(f"an API key with id {key.key_id!r} or the same secret exists already")
    if any(not s or s.split() != [s] for s in key.scopes):
        raise StoreError(f"scopes are {key.scopes!r}; allowed: words without spaces")
    connection.execute(
        sa.insert(API_KEY).values(
            key_id=key.key_id,
            name=key.name,
            hash=key.hash,
            scopes=" ".join(key.scopes),
            created_at=micros(key.created_at),
            expires_at=micros(key.expires_at),
            last_used_at=micros(key.last_used_at),
            revoked_at=micros(key.revoked_at),
        )
    )


def keys(connection: sa.Connection, *where: sa.ColumnElement[bool]) -> list[ApiKey]:
    """Keys, oldest first."""
    query = sa.select(API_KEY).where(*where).order_by(API_KEY.c.created_at, API_KEY.c.key_id)
    return [
        ApiKey(
            row.key_id,
            row.name,
            row.hash,
            tuple(row.scopes.split()),
            moment(row.created_at),
            moment(row.expires_at),
            moment(row.last_used_at),
            moment(row.revoked_at),
        )
        for row in connection.execute(query)
    ]


def mark_key(connection: sa.Connection, key_id: str, column: str, at: np.datetime64) -> bool:
    """Set `revoked_at` (once) or `last_used_at` of a key; whether anything changed."""
    known = API_KEY.c.key_id == key_id
    if column == "revoked_at":
        known &= API_KEY.c.revoked_at.is_(None)  # the first revocation is the one that counts
    changed = connection.execute(sa.update(API_KEY).where(known).values({column: micros(at)}))
    return changed.rowcount > 0


# --- sources and settings


def keep_source(connection: sa.Connection, facts: SourceFacts) -> None:
    """Keep the facts of a source in place of any kept before."""
    plain = {
        "currency": facts.currency,
        "static": {k: list(v) for k, v in facts.static.items()},
        "excluded": {k: list(v) for k, v in facts.excluded.items()},
        "pseudo_times": list(facts.pseudo_times),
        "observed_from": _time_text(facts.observed_from),
        "observed_until": _time_text(facts.observed_until),
        "trusted": {k: list(v) for k, v in facts.trusted.items()},
    }
    _put(connection, SOURCE, "facts", facts.name, _to_json(plain))


def _time_text(time: np.datetime64) -> str | None:
    value = micros(time)
    return None if value is None else moment_text(value)


def _time(text: str | None) -> np.datetime64:
    return np.datetime64("NaT" if text is None else text.removesuffix("Z"), "us")


def source_facts(connection: sa.Connection) -> list[SourceFacts]:
    """The facts of every source, by name."""
    out = []
    for name, text in connection.execute(sa.select(SOURCE).order_by(SOURCE.c.name)):
        plain = msgspec.json.decode(text)
        out.append(
            SourceFacts(
                name,
                plain["currency"],
                {k: tuple(v) for k, v in plain["static"].items()},
                {k: tuple(v) for k, v in plain["excluded"].items()},
                tuple(plain["pseudo_times"]),
                _time(plain["observed_from"]),
                _time(plain["observed_until"]),
                # Sources kept by an earlier version have none.
                {k: tuple(v) for k, v in plain.get("trusted", {}).items()},
            )
        )
    return out


def put_setting(connection: sa.Connection, key: str, value: str) -> None:
    """Set one setting."""
    _put(connection, ORGANISATION, "value", key, value)


def settings(connection: sa.Connection) -> dict[str, str]:
    """All settings."""
    return {row.key: row.value for row in connection.execute(sa.select(ORGANISATION))}


def _put(connection: sa.Connection, table: sa.Table, column: str, key: str, value: str) -> None:
    """Set one value by key, under the caller's write lock."""
    (key_column,) = table.primary_key.columns
    known = sa.update(table).where(key_column == key).values({column: value})
    if connection.execute(known).rowcount == 0:
        connection.execute(sa.insert(table).values({key_column.name: key, column: value}))
