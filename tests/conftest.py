"""Fixtures that several rooms share: stores on both databases."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from data.store import Store


def _postgresql_program(name: str) -> Path | None:
    """The newest installed server's program, or the one on the PATH."""
    installed = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda p: float(p.parts[-3])
    )
    if installed:
        return installed[-1]
    found = shutil.which(name)
    return Path(found) if found else None


def _run_as() -> tuple[list[str], str | None]:
    """How to run the server, which refuses to run as root: a command prefix, and its user."""
    if os.geteuid() != 0:
        return [], None
    for user in ("postgres", "nobody"):
        try:
            pwd.getpwnam(user)
        except KeyError:
            continue
        return ["runuser", "-u", user, "--"], user
    raise RuntimeError("running as root, and there is no user postgres or nobody to run initdb")


def _start_postgresql(folder: Path) -> tuple[Callable[[], None], str]:
    """Start a server that listens on a socket in `folder` only: how to stop it, and its URL."""
    programs = {name: _postgresql_program(name) for name in ("initdb", "pg_ctl")}
    absent = [name for name, path in programs.items() if path is None]
    if absent:
        raise RuntimeError(f"no {' or '.join(absent)} in /usr/lib/postgresql/*/bin or on the PATH")
    prefix, user = _run_as()
    if user is not None:
        shutil.chown(folder, user)
    cluster = folder / "cluster"

    def run(program: str, *arguments: str) -> None:
        command = [*prefix, str(programs[program]), *arguments]
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed: {done.stdout}{done.stderr}")

    run(
        "initdb",
        "-D",
        str(cluster),
        "-U",
        "crm",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C",
        "--no-sync",
    )
    # Nothing here has to survive a crash, and much of it lives for one test.
    quick = ("fsync", "synchronous_commit", "full_page_writes", "autovacuum")
    options = f"-k {folder} -c listen_addresses= " + " ".join(f"-c {name}=off" for name in quick)
    run("pg_ctl", "-D", str(cluster), "-w", "-l", str(folder / "log"), "-o", options, "start")
    return (
        lambda: run("pg_ctl", "-D", str(cluster), "-m", "immediate", "stop"),
        f"postgresql://crm@/{{}}?host={folder}",
    )


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """URL of a private PostgreSQL server, with {} for the database's name.

    Where none can be started, tests skip; DEALCAST_REQUIRE_POSTGRES=1 makes that an error.
    """
    # Not pytest's own folder: the server's user must reach it, by a path of under 100 characters.
    folder = Path(tempfile.mkdtemp(prefix="dealcast-pg-", dir="/tmp"))
    try:
        try:
            stop, url = _start_postgresql(folder)
        except (RuntimeError, OSError) as error:
            if os.environ.get("DEALCAST_REQUIRE_POSTGRES") == "1":
                raise
            pytest.skip(f"no PostgreSQL server: {error}")
        try:
            with Store(_new_database(url, "template_store")) as store:
                store.upgrade()
            yield url
        finally:
            stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _new_database(server: str, name: str, template: str = "template1") -> str:
    names = sql.Identifier(name), sql.Identifier(template)
    _administer(server, sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
    return server.format(name)


def _temporary_database(server: str, template: str) -> Iterator[str]:
    name = f"test_{uuid4().hex}"
    yield _new_database(server, name, template)
    _administer(server, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _administer(server: str, statement: sql.Composed) -> None:
    with psycopg.connect(server.format("postgres"), autocommit=True) as connection:
        connection.execute(statement)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite store with tables and no rows, to copy."""
    path = tmp_path_factory.mktemp("template") / "store.db"
    with Store(str(path)) as store:
        store.upgrade()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a fresh database without tables, on either database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
    else:
        yield from _temporary_database(request.getfixturevalue("postgresql_server"), "template1")


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a fresh store with all tables, on either database."""
    if request.param == "sqlite":
        path = tmp_path / "store.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
    else:
        server = request.getfixturevalue("postgresql_server")
        yield from _temporary_database(server, "template_store")


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """A fresh store, on either database."""
    with Store(store_url) as opened:
        yield opened
