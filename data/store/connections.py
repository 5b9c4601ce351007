"""Opening the database behind a store: which URLs are accepted, and how each database is set up."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import psycopg
import sqlalchemy as sa

from data.store.tables import StoreError

__all__ = ["Purpose", "database_url", "open_engine", "transaction"]

# read: one moment of the store; append: rows that no other writer can collide with;
# write: under the one write lock of the store. SQLite has only one writer in any case.
Purpose = Literal["read", "append", "write"]

_PATIENCE_SECONDS = 30
_PG_WRITE_LOCK = 0x6465616C63617374  # "dealcast" in ASCII; any fixed number would do


def database_url(url: str) -> sa.URL:
    """The URL of a store as SQLAlchemy's; a plain path means an SQLite file.

    Raises
    ------
    StoreError
        If it names no database that a store can use.

    Examples
    --------
    >>> database_url("var/crm.db")
    sqlite:///var/crm.db
    >>> database_url("postgresql://crm:secret@db/crm")
    postgresql+psycopg://crm:***@db/crm
    """
    try:
        parsed = sa.make_url(url) if "://" in url else sa.URL.create("sqlite", database=url)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise StoreError(f"the store's URL cannot be read; allowed: {_ALLOWED}") from error
    match parsed.drivername:
        case "sqlite" | "sqlite+pysqlite" if parsed.database not in (None, "", ":memory:"):
            path = Path(str(parsed.database)).expanduser()
            return sa.URL.create("sqlite", database=str(path), query=parsed.query)
        case "postgresql" | "postgres" | "postgresql+psycopg":
            return parsed.set(drivername="postgresql+psycopg")
    shown = parsed.render_as_string(hide_password=True)
    raise StoreError(f"the store's URL is {shown!r}; allowed: {_ALLOWED}")


_ALLOWED = "sqlite:///path, postgresql://user:password@host/name, or the path of an SQLite file"


def open_engine(url: sa.URL) -> sa.Engine:
    """An engine for the URL; the folder of an SQLite file is created, the file not yet."""
    # hide_parameters: an error must never carry somebody's data into a log.
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(
            url, hide_parameters=True, pool_pre_ping=True, connect_args={"connect_timeout": 10}
        )
    folder = Path(str(url.database)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"the store's folder {folder} cannot be created: {error}") from error
    engine = sa.create_engine(
        url, hide_parameters=True, connect_args={"timeout": _PATIENCE_SECONDS}
    )
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # Without this the driver itself would begin transactions, and not before DDL.
    connection.isolation_level = None
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            # SQLite does not wait by itself when two processes switch a new file to WAL.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: sa.Connection) -> None:
    # A transaction that will write takes the lock at once: were it to read first, it could find
    # its snapshot outdated and fail without waiting.
    reading = connection.get_execution_options().get("dealcast_purpose") == "read"
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


@contextmanager
def transaction(engine: sa.Engine, purpose: Purpose) -> Iterator[sa.Connection]:
    """A connection inside one transaction: committed at the end, rolled back on any error.

    Raises
    ------
    StoreError
        In place of every error of the database.
    """
    options: dict[str, Any] = {"dealcast_purpose": purpose}
    postgresql = engine.dialect.name == "postgresql"
    if postgresql:
        options["isolation_level"] = "REPEATABLE READ" if purpose == "read" else "READ COMMITTED"
    try:
        with engine.connect().execution_options(**options) as connection, connection.begin():
            if postgresql and purpose == "write":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_PG_WRITE_LOCK)))
            yield connection
    except (sa.exc.SQLAlchemyError, psycopg.Error) as error:
        cause = getattr(error, "orig", None) or error
        # The first line names the fault; further ones may quote the values of a row. For the same
        # reason the cause is left out: a traceback in a log would show it whole.
        said = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        where = engine.url.render_as_string(hide_password=True)
        raise StoreError(f"the store at {where} refused: {said}") from None
