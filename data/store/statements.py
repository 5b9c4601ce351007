"""The few statements that must be fast on many rows, on SQLite and on PostgreSQL.

All are compiled by SQLAlchemy Core from the declared tables; values only ever travel as bound
parameters, or through PostgreSQL's COPY protocol.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from psycopg import sql

from data.records import Entity, Table
from data.store.rows import Layout, Row, decode
from data.store.tables import ENTITY_TABLES

__all__ = ["insert_rows", "read_table", "stored_hashes", "stored_rows", "update_rows"]

_KEYS_AT_ONCE = 500  # a key has up to six columns; SQLite binds at most 32,766 values
_FEW_KEYS = 2_000
_ROWS_AT_ONCE = 2_000  # more keeps so many tuples alive that collecting garbage takes over


def stored_hashes(
    connection: sa.Connection, table: sa.Table, layout: Layout, keys: list[Any], expected: int
) -> tuple[dict[Any, int], bool]:
    """`row_hash` by key, and whether that is the whole table.

    Few keys are looked up one by one. Where the rows still to come are a fair part of the
    table, reading all its hashes once is much cheaper.
    """
    columns = [table.c[name] for name in layout.entity.key]
    query = sa.select(*columns, table.c.row_hash)
    if expected > _FEW_KEYS:
        held = connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
        if held <= 20 * expected:
            return _by_key(connection.execute(query).all()), True
    found: dict[Any, int] = {}
    for some in _some(keys):
        found |= _by_key(connection.execute(query.where(_is_one_of(columns, some))).all())
    return found, False


def _by_key(rows: Sequence[Sequence[Any]]) -> dict[Any, int]:
    if rows and len(rows[0]) == 2:
        return {key: found for key, found in rows}
    return {tuple(row[:-1]): row[-1] for row in rows}


def stored_rows(
    connection: sa.Connection, table: sa.Table, layout: Layout, keys: list[Any]
) -> dict[Any, Row]:
    """Whole rows by key."""
    columns = [table.c[name] for name in layout.entity.key]
    query = sa.select(*(table.c[name] for name in layout.names))
    return {
        layout.key(row): tuple(row)
        for some in _some(keys)
        for row in connection.execute(query.where(_is_one_of(columns, some)))
    }


def _some(keys: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        yield keys[start : start + _KEYS_AT_ONCE]


def _is_one_of(columns: list[sa.Column[Any]], keys: list[Any]) -> sa.ColumnElement[bool]:
    if len(columns) == 1:
        return columns[0].in_(keys)
    return sa.tuple_(*columns).in_(keys)


def insert_rows(connection: sa.Connection, table: sa.Table, rows: list[Row]) -> None:
    """Insert rows in the order of the table's columns."""
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        _copy(connection, table, rows)
        return
    statement = str(sa.insert(table).compile(dialect=connection.dialect))
    connection.exec_driver_sql(statement, rows)


def _copy(connection: sa.Connection, table: sa.Table, rows: list[Row]) -> None:
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns)
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table.name), names)
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


def update_rows(
    connection: sa.Connection, table: sa.Table, layout: Layout, rows: list[Row]
) -> None:
    """Replace rows that are stored under the same key."""
    if not rows:
        return
    others = [name for name in layout.names if name not in layout.entity.key]
    statement = (
        sa.update(table)
        .where(*(table.c[name] == sa.bindparam(f"key_{name}") for name in layout.entity.key))
        .values({name: sa.bindparam(f"new_{name}") for name in others})
    )
    at = layout.at
    connection.execute(
        statement,
        [
            {f"key_{name}": row[at[name]] for name in layout.entity.key}
            | {f"new_{name}": row[at[name]] for name in others}
            for row in rows
        ],
    )


def read_table(
    connection: sa.Connection, entity: Entity, where: Sequence[sa.ColumnElement[bool]] = ()
) -> Table:
    """Rows of an entity in an order that both databases share.

    Events come in the order of their arrival, which is the order of the source where nothing
    else tells rows of one moment apart; records come sorted by key.
    """
    table = ENTITY_TABLES[entity.name]
    # Numbers need no conversion on their way into numpy, so none is asked for row by row.
    columns = [
        sa.type_coerce(table.c[f.name], sa.Integer) if f.kind == "boolean" else table.c[f.name]
        for f in entity.columns
    ]
    postgresql = connection.dialect.name == "postgresql"
    order: list[sa.ColumnElement[Any]]
    if entity.event:
        order = [sa.literal_column("ctid" if postgresql else "rowid")]
    elif postgresql:  # the binary order, which SQLite has by itself
        order = [
            sa.collate(table.c[k], "C") if isinstance(table.c[k].type, sa.Text) else table.c[k]
            for k in entity.key
        ]
    else:
        order = [table.c[k] for k in entity.key]
    query = sa.select(*columns, table.c.attributes).where(*where).order_by(*order)
    result = connection.execute(query, execution_options={"yield_per": _ROWS_AT_ONCE})
    parts = [decode(entity, rows) for rows in result.partitions()]
    return Table.concat(parts) if parts else Table.empty(entity)
