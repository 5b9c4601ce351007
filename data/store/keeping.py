"""What dealcast itself keeps beside the numbers it issued: keys, facts of sources, settings.

Functions on an open connection; `data.store.Store` gives them their transactions.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import sqlalchemy as sa

from data.records import SourceFacts
from data.store.rows import micros, moment, moment_text
from data.store.tables import (
    API_KEY,
    ORGANISATION,
    SOURCE,
    StoreError,
)

__all__ = [
    "ApiKey",
    "keep_key",
    "keep_source",
    "keys",
    "mark_key",
    "put_setting",
    "settings",
    "source_facts",
]

_NEVER = np.datetime64("NaT", "us")


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
        raise StoreError(f"facts to be kept must be plain JSON values: {error}") from error


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
