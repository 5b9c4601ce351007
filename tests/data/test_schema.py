from __future__ import annotations

import multiprocessing
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from data.store import Store, StoreError, Written, schema
from data.store.connections import database_url, open_engine, transaction
from data.store.tables import METADATA
from tests.data.stored_rows import T1, deal


def test_the_migrated_schema_is_the_declared_one(store_url: str) -> None:
    engine = open_engine(database_url(store_url))
    try:
        with transaction(engine, "read") as connection:
            context = MigrationContext.configure(
                connection, opts={"compare_type": True, "compare_server_default": True}
            )
            assert compare_metadata(context, METADATA) == []
            # Alembic does not compare primary keys, on which the whole store rests.
            inspector = sa.inspect(connection)
            for name, declared in METADATA.tables.items():
                key = [c.name for c in declared.primary_key.columns]
                assert inspector.get_pk_constraint(name)["constrained_columns"] == key
    finally:
        engine.dispose()


def test_the_comparison_would_notice_a_missing_column(store_url: str) -> None:
    engine = open_engine(database_url(store_url))
    try:
        with transaction(engine, "append") as connection:
            connection.execute(sa.text("ALTER TABLE deal DROP COLUMN amount"))
            found = compare_metadata(MigrationContext.configure(connection), METADATA)
            assert [(step[0], step[3].name) for step in found] == [("add_column", "amount")]
    finally:
        engine.dispose()


def _upgrade(url: str, start: Any) -> None:
    with Store(url) as store:
        start.wait(60)
        store.upgrade()


def test_two_processes_may_upgrade_at_once(empty_database: str) -> None:
    processes = multiprocessing.get_context("spawn")
    start = processes.Barrier(2)
    workers = [processes.Process(target=_upgrade, args=(empty_database, start)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert [w.exitcode for w in workers] == [0, 0]
    with Store(empty_database) as store:
        store.upgrade()
        store.ping()
        assert store.write([deal()], at=T1) == {"deal": Written(inserted=1)}


def test_a_store_without_tables_says_what_to_do(empty_database: str) -> None:
    with Store(empty_database) as store:
        for use in (store.ping, store.read, store.list_keys):
            with pytest.raises(StoreError, match="no tables yet: run `dealcast db upgrade`"):
                use()


def _set_revision(url: str, revision: str) -> None:
    engine = open_engine(database_url(url))
    try:
        with transaction(engine, "write") as connection:
            connection.execute(
                sa.text("UPDATE alembic_version SET version_num = :revision"),
                {"revision": revision},
            )
    finally:
        engine.dispose()


def test_a_schema_from_the_future_is_refused(store_url: str) -> None:
    _set_revision(store_url, "9999")
    with Store(store_url) as store:
        for use in (store.ping, store.upgrade):
            with pytest.raises(StoreError, match=r"revision 9999.*a newer dealcast"):
                use()


def test_a_schema_from_the_past_asks_for_an_upgrade(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_revisions", lambda: ("9999", "0002", "0001"))
    with Store(store_url) as store, pytest.raises(StoreError, match=r"older.*dealcast db upgrade"):
        store.write([deal()], at=T1)


def test_ping_notices_a_schema_that_changed_meanwhile(store: Store, store_url: str) -> None:
    store.ping()
    _set_revision(store_url, "9999")
    with pytest.raises(StoreError, match="9999"):
        store.ping()
