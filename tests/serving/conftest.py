"""A small organisation with two deal models of different dates, a lead model, and the service."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from data.history import History
from data.pipeline import FiscalCalendar
from data.records import SourceFacts, Table
from data.store import Store
from data.synthetic import make_history
from models import bundle as bundles
from models.registry import NoSuchVersion, RegistryError, Version
from scoring.bundles import DealBundle, LeadBundle
from serving.app import create_app
from serving.auth import make_key
from serving.live import Live
from serving.settings import Settings
from training.fitting import Recipe, fit_deals, fit_leads

END = np.datetime64("2026-02-16T00:00:00", "us")  # the export of the synthetic CRM
NOW = END + np.timedelta64(3, "h")
EARLIER = np.datetime64("2025-09-01T00:00:00", "us")  # where the older deal model ends
LEAD_HORIZON = 30


@dataclass(frozen=True)
class Organisation:
    """Tables and facts of a CRM, and where its bundles and its filled store are."""

    tables: dict[str, Table]
    facts: SourceFacts
    folders: dict[tuple[str, str], Path]
    database: Path


def _with_attributes(deals: Table) -> Table:
    """Fields of the CRM's own, as an importer would bring them."""
    rng = np.random.default_rng(5)
    n = len(deals)
    segment = rng.choice(np.array(["small", "large", None], dtype=object), n)
    seats = np.array([None if r < 0.2 else float(int(100 * r)) for r in rng.random(n)], object)
    return Table(deals.entity, deals.columns, {"segment": segment, "seats": seats})


@pytest.fixture(scope="session")
def organisation(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Organisation:
    folder = tmp_path_factory.mktemp("organisation")
    made = make_history(300, 7, end=END)
    tables = {**made.tables, "deal": _with_attributes(made.tables["deal"])}
    static = {**made.facts.static, "deal": (*made.facts.static["deal"], "segment", "seats")}
    facts = dataclasses.replace(made.facts, static=static)
    history = History(tables, [facts])
    recipe = Recipe(FiscalCalendar(), landmarks=1_500)
    end, earlier = (int(t.astype(np.int64)) for t in (END, EARLIER))
    fitted: dict[tuple[str, str], LeadBundle | DealBundle] = {
        ("deal", "1"): fit_deals(history, earlier, recipe, "2025-09-01T00:00:00Z"),
        ("deal", "2"): fit_deals(history, end, recipe, "2026-02-16T00:00:00Z"),
        ("lead", "1"): fit_leads(history, end, LEAD_HORIZON, recipe, "2026-02-16T00:00:00Z"),
    }
    folders = {key: folder / "-".join(key) for key in fitted}
    for key, bundle in fitted.items():
        bundles.save(folders[key], bundle.to_state())
    database = folder / "store.db"
    shutil.copyfile(sqlite_template, database)
    with Store(str(database)) as store:
        store.write(tables.values(), at=END, facts=facts)
    return Organisation(tables, facts, folders, database)


@dataclass
class Shelf:
    """A registry in memory: versions by number, and which of them are champions."""

    folders: dict[tuple[str, str], Path]
    champions: dict[str, str] = field(default_factory=lambda: {"deal": "2", "lead": "1"})
    before: dict[str, str] = field(default_factory=dict)
    failing: bool = False

    def champion(self, kind: str) -> Version | None:
        if self.failing:
            raise RegistryError("the tracker is away")
        return self._version(kind, self.champions[kind]) if kind in self.champions else None

    def find(self, kind: str, which: str) -> Version:
        number = {"champion": self.champions, "previous": self.before}.get(which, {kind: which})
        if (kind, number.get(kind, "")) not in self.folders:
            raise NoSuchVersion(f"dealcast-{kind} has no version {which!r}")
        return self._version(kind, number[kind])

    def versions(self, kind: str) -> list[Version]:
        return [self._version(k, v) for k, v in sorted(self.folders, reverse=True) if k == kind]

    def promote(self, kind: str, version: str) -> Version:
        if kind in self.champions:
            self.before[kind] = self.champions[kind]
        self.champions[kind] = version
        return self._version(kind, version)

    def rollback(self, kind: str) -> Version:
        return self.promote(kind, self.before[kind])

    def newest_trained_through(self, kind: str, as_of: str) -> Version | None:
        known = [v for v in self.versions(kind) if v.trained_through <= as_of]
        return max(known, key=lambda v: v.trained_through, default=None)

    def folder(self, version: Version) -> Path:
        return self.folders[version.name.removeprefix("dealcast-"), version.version]

    def _version(self, kind: str, number: str) -> Version:
        folder = self.folders[kind, number]
        readable = (folder / "manifest.json").is_file()
        manifest = (
            json.loads((folder / "manifest.json").read_text())["state"]["manifest"]
            if (readable)
            else {"trained_at": "", "trained_through": "2026-02-16T00:00:00Z"}
        )
        return Version(
            f"dealcast-{kind}",
            number,
            ("champion",) if self.champions.get(kind) == number else (),
            manifest["trained_at"],
            "run",
            manifest["trained_through"],
            {"log_loss": 0.4, "coverage": float("nan")},
            {"trained_through": manifest["trained_through"]},
        )


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: np.datetime64 = NOW

    def __call__(self) -> np.datetime64:
        return self.now

    def wait(self, amount: int, unit: str) -> None:
        self.now = self.now + np.timedelta64(amount, unit)  # type: ignore[call-overload]


@dataclass
class House:
    """The service with everything a test may want to touch."""

    store: Store
    shelf: Shelf
    live: Live
    settings: Settings
    clock: Clock
    app: FastAPI
    organisation: Organisation

    def key(self, *scopes: str, expires_at: np.datetime64 | None = None) -> str:
        token, kept = make_key("test", scopes, self.clock(), expires_at)
        self.store.create_key(kept)
        return token

    def client(self, *scopes: str, token: str | None = None) -> TestClient:
        """A caller with a key of these scopes; without any, one without a key."""
        if scopes:
            token = self.key(*scopes)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return TestClient(self.app, headers=headers, raise_server_exceptions=False)


@pytest.fixture
def house(organisation: Organisation, tmp_path: Path) -> Iterator[House]:
    """A service of its own on a copy of the organisation's store."""
    database = tmp_path / "store.db"
    shutil.copyfile(organisation.database, database)
    settings = Settings(store=f"sqlite:///{database}", max_records=50, max_body_bytes=300_000)
    shelf = Shelf(dict(organisation.folders))
    live, clock = Live(shelf), Clock()
    app = create_app(settings, live=live, clock=clock)
    with Store(settings.store) as store:
        yield House(store, shelf, live, settings, clock, app, organisation)


@pytest.fixture
def client(house: House) -> Iterator[TestClient]:
    """A caller who may do everything, with the service running."""
    with house.client("admin") as opened:
        yield opened


def request_record(tables: dict[str, Table], side: str, record_id: str) -> dict[str, Any]:
    """A stored record as a CRM would send it to be scored: all that is known, nested."""
    own = _rows(tables[side], tables[side][f"{side}_id"] == record_id)[0]
    for name, entity in (
        ("stage_changes", "stage_change"),
        ("field_changes", "field_change"),
        ("activities", "activity"),
        ("qualifications", "qualification"),
    ):
        table = tables[entity]
        if "entity" in table.columns:
            mine = (table["entity"] == side) & (table["entity_id"] == record_id)
        else:
            mine = table[f"{side}_id"] == record_id
        own[name] = _rows(table, mine)
    return own


def _rows(table: Table, which: Any) -> list[dict[str, Any]]:
    part = table.take(np.flatnonzero(which))
    skipped = {"ingested_at", "recorded_assumed", "raw", "source"}
    found = []
    for i in range(len(part)):
        row = {
            name: _plain(part.entity.by_name[name].kind, values[i])
            for name, values in part.columns.items()
            if name not in skipped
        }
        row |= {name: values[i] for name, values in part.attributes.items()}
        found.append(row)
    return found


def _plain(kind: str, value: Any) -> Any:
    """A stored value as JSON has it."""
    if kind in ("time", "date"):
        if np.isnat(value):
            return None
        return str(value) + ("Z" if kind == "time" else "")
    if kind in ("number", "boolean"):
        if np.isnan(value):
            return None
        return bool(value) if kind == "boolean" else float(value)
    return value
