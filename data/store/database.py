"""The SQL store: everything an organisation's CRM has told, and what dealcast answered.

SQLite in one file by default, PostgreSQL by URL; both hold the same tables
(`data.store.tables`) and give back the same `Table`s. One store is one organisation.

A write is one transaction under the store's one write lock: it is stored whole and durably, or not
at all, and writers wait for each other instead of failing. Readers see one moment of the store and
wait for nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import sqlalchemy as sa

from data.records import ENTITIES, Entity, RecordError, SourceFacts, Table
from data.store import issued, keeping, schema
from data.store.connections import Purpose, database_url, open_engine, transaction
from data.store.issued import ForecastFilter, IssuedForecast, IssuedScore
from data.store.keeping import ApiKey
from data.store.statements import read_table
from data.store.tables import API_KEY, ENTITY_TABLES, StoreError
from data.store.upsert import Written, write_tables

__all__ = ["Store"]

_IDS_AT_ONCE = 1_000
# Small tables that give context to any record.
_WHOLE = ("stage", "owner", "exchange_rate")


class Store:
    """An SQL store, opened.

    Parameters
    ----------
    url : str
        ``sqlite:///path``, ``postgresql://user:password@host/name``, or a plain path, which means
        an SQLite file. The folder of the file is created.

    Raises
    ------
    StoreError
        If the URL names no database that dealcast can use. A database that cannot be reached
        shows with the first call.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> store = Store(f"{folder.name}/crm.db")
    >>> store.upgrade()
    >>> deals = Table.from_rows(ENTITIES["deal"], [{"deal_id": "D1", "amount": 1200}])
    >>> store.write([deals], at=np.datetime64("2026-03-31"))["deal"]
    Written(inserted=1, updated=0, unchanged=0, stale=0)
    >>> store.read(["deal"])["deal"]["amount"]
    array([1200.])
    >>> store.close(); folder.cleanup()
    """

    def __init__(self, url: str) -> None:
        self._url = database_url(url)
        self._engine = open_engine(self._url)
        self._checked = False

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where the store is, with any password hidden."""
        return self._url.render_as_string(hide_password=True)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def upgrade(self) -> None:
        """Bring the schema to the newest revision; does nothing where it is already.

        Raises
        ------
        StoreError
            If a newer dealcast has upgraded the store already.
        """
        with transaction(self._engine, "write") as connection:
            schema.upgrade(connection)

    def ping(self) -> None:
        """Make sure that the store answers and that its schema is the right one.

        Raises
        ------
        StoreError
            If not; the message says why.
        """
        self._checked = False
        with self._transaction() as connection:
            connection.execute(sa.select(1))

    @contextmanager
    def _transaction(self, purpose: Purpose = "read") -> Iterator[sa.Connection]:
        with transaction(self._engine, purpose) as connection:
            if not self._checked:
                schema.check(connection)
                self._checked = True
            yield connection

    # --- records

    def write(
        self,
        tables: Iterable[Table],
        *,
        at: np.datetime64,
        facts: SourceFacts | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> dict[str, Written]:
        """Store rows, in one transaction: all of them or none.

        A record (lead, deal, owner, ...) with a known key is merged into what is stored: values
        that are missing keep the stored ones. Every field or attribute of a lead or deal that
        changes appends a `field_change`, and a changed stage of a deal a `stage_change`, of
        provenance ``snapshot_diff`` and at the row's `seen_at`. Several states of one record in one
        write are taken in the order they were seen; of the same moment, the last row wins.

        An event (stage_change, field_change, ...) with a known key changes nothing, unless what is
        stored was only noticed by comparing states (``snapshot_diff``): then the source's own row
        replaces it. Where the event came from is no part of its content.

        Parameters
        ----------
        tables : iterable of Table
        at : datetime64
            The moment of storing, UTC: becomes `ingested_at`, and `seen_at` where that is missing.
        facts : SourceFacts or None
            Given for the import of a file. A missing `recorded_at` is then the time the row
            happened, marked as assumed; without facts (an API push) it is `at`.
        progress : callable or None
            Called with the number of rows just finished.

        Returns
        -------
        dict of str to Written
            By entity, what became of the rows given. Changes noticed on the way are not counted.

        Raises
        ------
        ConflictError
            If an event is stored with other content.
        RecordError
            If a value is not what its field accepts, or a key is missing.
        StoreError
            If the database refuses.
        """
        if np.isnat(at):
            raise StoreError("at is NaT; allowed: the moment of storing")
        with self._transaction("write") as connection:
            if facts is not None:
                keeping.keep_source(connection, facts)
            return write_tables(
                connection,
                list(tables),
                at=at.astype("datetime64[us]"),
                facts=facts,
                progress=progress or (lambda _: None),
            )

    def read(self, names: Iterable[str] | None = None) -> dict[str, Table]:
        """Whole tables, all as of one moment of the store.

        Parameters
        ----------
        names : iterable of str or None
            Entities; None for all.
        """
        with self._transaction() as connection:
            return {
                name: read_table(connection, _known(name))
                for name in (ENTITIES if names is None else names)
            }

    def read_records(self, entity: str, ids: Sequence[str]) -> dict[str, Table]:
        """What concerns some leads or deals, and no other record.

        Parameters
        ----------
        entity : str
            "lead" or "deal".
        ids : sequence of str
            Ids that are not stored are left out.

        Returns
        -------
        dict of str to Table
            Every entity. Their own rows, changes, activities, qualifications, contact roles and
            overrides; their accounts; owners, stages and exchange rates whole; the rest empty.
        """
        _check_tracked(entity)
        wanted = list(dict.fromkeys(ids))
        with self._transaction() as connection:
            out = {name: Table.empty(e) for name, e in ENTITIES.items()}
            out |= {name: read_table(connection, ENTITIES[name]) for name in _WHOLE}
            for name in ("stage_change", "field_change", "qualification"):
                rows = ENTITY_TABLES[name].c
                out[name] = _read_some(
                    connection, name, rows.entity_id, wanted, rows.entity == entity
                )
            others = ("activity", "contact_role", "override") if entity == "deal" else ("activity",)
            for name in (entity, *others):
                column = ENTITY_TABLES[name].c[f"{entity}_id"]
                out[name] = _read_some(connection, name, column, wanted)
            accounts = [a for a in dict.fromkeys(out[entity]["account_id"]) if a is not None]
            column = ENTITY_TABLES["account"].c.account_id
            out["account"] = _read_some(connection, "account", column, accounts)
        return out

    def open_ids(self, entity: str) -> list[str]:
        """Ids of the leads or deals that are open: no outcome yet, not deleted, not merged."""
        _check_tracked(entity)
        table = ENTITY_TABLES[entity].c
        query = sa.select(table[f"{entity}_id"]).where(
            sa.or_(table.outcome.is_(None), table.outcome == "open"),
            table.deleted_at.is_(None),
            table.merged_into_id.is_(None),
        )
        with self._transaction() as connection:
            return sorted(connection.scalars(query))

    def sources(self) -> list[SourceFacts]:
        """The facts of every source that was imported, by name."""
        with self._transaction() as connection:
            return keeping.source_facts(connection)

    # --- numbers as issued

    def issue(
        self, scores: Sequence[IssuedScore] = (), forecasts: Sequence[IssuedForecast] = ()
    ) -> None:
        """Keep numbers as given out, in one transaction; what is kept already adds nothing."""
        rows = issued.score_rows(scores)
        with self._transaction("append") as connection:
            issued.keep_scores(connection, rows)
            issued.keep_forecasts(connection, forecasts)

    def scores_issued(
        self, entity: str, entity_id: str | None = None, limit: int | None = None
    ) -> list[IssuedScore]:
        """Scores given out for one record, or for all of an entity, oldest first.

        With a `limit`, that many of the newest.
        """
        _check_tracked(entity)
        with self._transaction() as connection:
            return issued.scores(connection, entity, entity_id, limit)

    def forecasts_issued(
        self, asked: ForecastFilter | None = None
    ) -> tuple[list[IssuedForecast], int]:
        """Forecasts given out with the cells asked for (all by default), and the cells in all."""
        with self._transaction() as connection:
            return issued.forecasts(connection, asked or ForecastFilter())

    # --- keys and settings

    def create_key(self, key: ApiKey) -> None:
        """Keep an API key.

        Raises
        ------
        StoreError
            If its id or hash is taken, or a scope holds a space.
        """
        with self._transaction("write") as connection:
            keeping.keep_key(connection, key)

    def find_key(self, hash: str) -> ApiKey | None:
        """The key with this hash, be it valid, expired or revoked."""
        with self._transaction() as connection:
            return next(iter(keeping.keys(connection, API_KEY.c.hash == hash)), None)

    def list_keys(self) -> list[ApiKey]:
        """All keys, oldest first."""
        with self._transaction() as connection:
            return keeping.keys(connection)

    def revoke_key(self, key_id: str, at: np.datetime64) -> bool:
        """Revoke a key; False where there is none, or it was revoked before."""
        with self._transaction("append") as connection:
            return keeping.mark_key(connection, key_id, "revoked_at", at)

    def touch_key(self, key_id: str, at: np.datetime64) -> bool:
        """Note that a key was used; False where there is none."""
        with self._transaction("append") as connection:
            return keeping.mark_key(connection, key_id, "last_used_at", at)

    def settings(self) -> dict[str, str]:
        """The organisation's settings."""
        with self._transaction() as connection:
            return keeping.settings(connection)

    def put_setting(self, key: str, value: str) -> None:
        """Set one of the organisation's settings."""
        with self._transaction("write") as connection:
            keeping.put_setting(connection, key, value)


def _read_some(
    connection: sa.Connection,
    name: str,
    column: sa.Column[Any],
    ids: Sequence[str],
    *where: sa.ColumnElement[bool],
) -> Table:
    parts = [
        read_table(connection, ENTITIES[name], (column.in_(ids[i : i + _IDS_AT_ONCE]), *where))
        for i in range(0, len(ids), _IDS_AT_ONCE)
    ]
    return Table.concat(parts) if parts else Table.empty(ENTITIES[name])


def _known(name: str) -> Entity:
    if name not in ENTITIES:
        raise RecordError("entity", name, " | ".join(ENTITIES))
    return ENTITIES[name]


def _check_tracked(entity: str) -> None:
    if entity not in ("lead", "deal"):
        raise RecordError("entity", entity, "lead | deal")
