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
    "CELL_ISSUED",
    "ENTITY_TABLES",
    "FORECAST_ISSUED",
    "METADATA",
    "MODEL_ISSUED",
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

# Numbers as issued: rows are inserted and never changed, which triggers in the database see to
# (migration 0002). `digest` holds 64 bits over what was said, so that saying the same again adds
# nothing; `detail` what the columns leave out, packed (`data.store.packing`).
MODEL_ISSUED = sa.Table(
    "model_issued",
    METADATA,
    sa.Column("id", _COUNTER, primary_key=True, autoincrement=True),
    sa.Column("digest", sa.BigInteger(), nullable=False),
    sa.Column("name", sa.Text(), nullable=False),
    sa.Column("version", sa.Text(), nullable=False),
    sa.Column("facts", sa.Text(), nullable=False),
    sa.Index(None, "digest", unique=True),
)

SCORE_ISSUED = sa.Table(
    "score_issued",
    METADATA,
    sa.Column("id", _COUNTER, primary_key=True, autoincrement=True),
    sa.Column("entity", sa.Text(), nullable=False),
    sa.Column("entity_id", sa.Text(), nullable=False),
    sa.Column("as_of", sa.BigInteger(), nullable=False),
    sa.Column("issued_at", sa.BigInteger(), nullable=False),
    sa.Column("model_id", sa.BigInteger(), nullable=False),
    sa.Column("probability", sa.Double()),
    sa.Column("horizon", sa.Double()),
    sa.Column("digest", sa.BigInteger(), nullable=False),
    sa.Column("detail", sa.LargeBinary(), nullable=False),
    sa.Index(None, "entity_id", "digest", unique=True),
)

FORECAST_ISSUED = sa.Table(
    "forecast_issued",
    METADATA,
    sa.Column("id", _COUNTER, primary_key=True, autoincrement=True),
    sa.Column("digest", sa.BigInteger(), nullable=False),
    sa.Column("as_of", sa.BigInteger(), nullable=False),
    sa.Column("issued_at", sa.BigInteger(), nullable=False),
    sa.Column("period", sa.Text(), nullable=False),
    sa.Column("by", sa.Text()),
    sa.Column("measure", sa.Text(), nullable=False),
    sa.Column("hindsight", sa.Boolean(), nullable=False),
    sa.Column("draws", sa.BigInteger()),
    sa.Column("seed", sa.BigInteger()),
    sa.Column("inputs", sa.Text()),
    sa.Column("model_id", sa.BigInteger(), nullable=False),
    sa.Column("detail", sa.LargeBinary(), nullable=False),
    sa.Index(None, "digest", unique=True),
    sa.Index(None, "as_of"),
)

CELL_ISSUED = sa.Table(
    "forecast_cell_issued",
    METADATA,
    sa.Column("forecast_id", _COUNTER, nullable=False),
    sa.Column("place", sa.BigInteger(), nullable=False),
    sa.Column("period_start", sa.BigInteger(), nullable=False),
    sa.Column("period_end", sa.BigInteger(), nullable=False),
    sa.Column("group", sa.Text(), nullable=False),
    sa.Column("mean", sa.Double(), nullable=False),
    sa.Column("target", sa.Double()),
    sa.Column("probability_of_target", sa.Double()),
    sa.Column("components", sa.Text(), nullable=False),
    sa.Column("quantiles", sa.Text(), nullable=False),
    sa.Column("detail", sa.LargeBinary(), nullable=False),
    sa.PrimaryKeyConstraint("forecast_id", "place"),
    sa.Index(None, "period_start"),
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
