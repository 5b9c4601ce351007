"""The schema of a store: brought to the newest revision, and checked before use.

The migrations travel inside the package and the configuration is built here, so an installed
dealcast needs no alembic.ini. `env.py` takes the connection, and with it the transaction and the
lock, from here.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from data.store.tables import StoreError

__all__ = ["check", "newest", "upgrade"]

_MIGRATIONS = Path(__file__).parents[1] / "migrations"
# Alembic keeps the migration in progress in module globals: one at a time in a process.
# Between processes, the write lock of the caller's transaction does the same.
_ONE_AT_A_TIME = threading.Lock()


def _config() -> Config:
    config = Config()
    # The value passes through configparser, to which a percent sign is special.
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


@lru_cache(maxsize=1)
def _revisions() -> tuple[str, ...]:
    """All revisions this program knows, newest first."""
    script = ScriptDirectory.from_config(_config())
    return tuple(r.revision for r in script.walk_revisions())


def newest() -> str:
    """The revision this program works with."""
    return _revisions()[0]


def upgrade(connection: sa.Connection) -> None:
    """Bring the schema to the newest revision, inside the connection's transaction.

    Raises
    ------
    StoreError
        If the schema is of a revision this program does not know.
    """
    found = _revision(connection)
    if found is not None:
        _refuse_unknown(found)
    config = _config()
    config.attributes["connection"] = connection
    with _ONE_AT_A_TIME:
        command.upgrade(config, "head")


def check(connection: sa.Connection) -> None:
    """Make sure that the schema is the one this program works with.

    Raises
    ------
    StoreError
        If it is missing, older or newer.
    """
    found = _revision(connection)
    if found == newest():
        return
    if found is None:
        raise StoreError("the store has no tables yet: run `dealcast db upgrade`")
    _refuse_unknown(found)
    raise StoreError(
        f"the store's schema is revision {found}, older than this program, which works with "
        f"{newest()}: run `dealcast db upgrade`"
    )


def _revision(connection: sa.Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_unknown(found: str) -> None:
    if found not in _revisions():
        raise StoreError(
            f"the store's schema is revision {found}, which this program does not know (it knows "
            f"up to {newest()}): a newer dealcast has upgraded this store; install that version, "
            "or restore a backup made before its upgrade"
        )
