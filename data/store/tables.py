"""The SQL tables: one for each canonical entity, and those for what dealcast itself keeps.

The tables of the entities are generated from `data.records.ENTITIES`, so a field is declared once.
How a kind is stored:

==============  ==================  ==============================================================
kind            SQL type            value
==============  ==================  ==============================================================
id text choice  TEXT                the text
number          DOUBLE              the number; missing is NULL, never NaN
boolean         BOOLEAN             NULL when missing
time            BIGINT              microseconds since 1970-01-01T00:00:00Z: exact, and the same
                                    integers as datetime64[us], so reading converts nothing
date            INTEGER             days since 1970-01-01
json            TEXT                a JSON object
==============  ==================  ==============================================================

Every table of an entity has two more columns: `attributes`, a JSON object of the source's extra
fields (NULL when there are none), and `row_hash`, 64 bits over the content of the row, by which an
unchanged row is recognised without reading it. A primary key also serves look-ups by its first
columns, so `stage_change (entity, entity_id)` and its like need no index of their own.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from data.records import ENTITIES, Entity, Kind

__all__ = [
    "API_KEY",
    "ENTITY_TABLES",
    "FORECAST_ISSUED",
    "METADATA",
    "ORGANISATION",
    "SCORE_ISSUED",
    "SOURCE",
    "StoreError",
]


class StoreError(RuntimeError):
    """The store cannot do what was asked; the message says why and what to do.

    ::

        StoreError
        └── ConflictError    (data.store.upsert) an event is known with other content
    """


METADATA = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)

# SQLite counts rows by itself only in a column declared INTEGER.
_COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_INDEXES: dict[str, tuple[str, ...]] = {
    "lead": ("outcome",),
    "deal": ("outcome",),
    "activity": ("lead_id", "deal_id"),
}


def _sql_type(kind: Kind) -> sa.types.TypeEngine[Any]:
    match kind:
        case "number":
            return sa.Double()
        case "boolean":
            return sa.Boolean()
        case "time":
            return sa.BigInteger()
        case "date":
            return sa.Integer()
        case "id" | "text" | "choice" | "json":
            return sa.Text()


def _entity_table(entity: Entity) -> sa.Table:
    columns = [
        sa.Column(f.name, _sql_type(f.kind), nullable=f.name not in entity.key)
        for f in entity.columns
    ]
    return sa.Table(
        entity.name,
        METADATA,
        *columns,
        sa.Column("attributes", sa.Text()),
        sa.Column("row_hash", sa.BigInteger(), nullable=False),
        *(sa.Index(None, name) for name in _INDEXES.get(entity.name, ())),
        sa.PrimaryKeyConstraint(*entity.key),
    )


ENTITY_TABLES: dict[str, sa.Table] = {name: _entity_table(e) for name, e in ENTITIES.items()}

SOURCE = sa.Table(
    "source",
    METADATA,
    sa.Column("name", sa.Text(), primary_key=True),
    sa.Column("facts", sa.Text(), nullable=False),
)

SCORE_ISSUED = sa.Table(
    "score_issued",
    METADATA,
    sa.Column("id", _COUNTER, primary_key=True, autoincrement=True),
    sa.Column("entity", sa.Text(), nullable=False),
    sa.Column("entity_id", sa.Text(), nullable=False),
    sa.Column("as_of", sa.BigInteger(), nullable=False),
    sa.Column("issued_at", sa.BigInteger(), nullable=False),
    sa.Column("model_name", sa.Text(), nullable=False),
    sa.Column("model_version", sa.Text(), nullable=False),
    sa.Column("answer", sa.Text(), nullable=False),
    sa.Index(None, "entity", "entity_id"),
)

FORECAST_ISSUED = sa.Table(
    "forecast_issued",
    METADATA,
    sa.Column("id", _COUNTER, primary_key=True, autoincrement=True),
    sa.Column("as_of", sa.BigInteger(), nullable=False),
    sa.Column("issued_at", sa.BigInteger(), nullable=False),
    sa.Column("period", sa.Text(), nullable=False),
    sa.Column("by", sa.Text()),
    sa.Column("model_version", sa.Text(), nullable=False),
    sa.Column("answer", sa.Text(), nullable=False),
    sa.Index(None, "as_of"),
)

API_KEY = sa.Table(
    "api_key",
    METADATA,
    sa.Column("key_id", sa.Text(), primary_key=True),
    sa.Column("name", sa.Text(), nullable=False),
    sa.Column("hash", sa.Text(), nullable=False),
    sa.Column("scopes", sa.Text(), nullable=False),
    sa.Column("created_at", sa.BigInteger(), nullable=False),
    sa.Column("expires_at", sa.BigInteger()),
    sa.Column("last_used_at", sa.BigInteger()),
    sa.Column("revoked_at", sa.BigInteger()),
    sa.Index(None, "hash", unique=True),
)

ORGANISATION = sa.Table(
    "organisation",
    METADATA,
    sa.Column("key", sa.Text(), primary_key=True),
    sa.Column("value", sa.Text(), nullable=False),
)
