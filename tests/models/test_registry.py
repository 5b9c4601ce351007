"""The registry: versions, aliases and files in a real MLflow database, without global state."""

import math
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import bundle
from models.registry import NoSuchVersion, Registry, RegistryError, TrackerError, Version


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables, made once by the code under test, to copy."""
    folder = tmp_path_factory.mktemp("mlflow")
    registry = Registry(f"sqlite:///{folder / 'template.db'}", folder / "artifacts")
    with registry._tracker() as client:
        assert client.search_registered_models() == []
    assert [p.name for p in folder.iterdir()] == ["template.db"]  # no draft, no artifacts
    return folder / "template.db"


@pytest.fixture
def database(tmp_path: Path, template: Path) -> str:
    shutil.copyfile(template, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def registry(tmp_path: Path, database: str) -> Registry:
    return Registry(database, tmp_path / "artifacts")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bundle.save(tmp_path / "new", {"rates": np.array([0.25, 0.5]), "kind": "deal"})
    return tmp_path / "new"


Log = Callable[..., Version]


@pytest.fixture
def log(registry: Registry, folder: Path) -> Log:
    """Log a version, with arguments to vary."""

    def log(kind: str = "deal", through: str = "2026-03-31", **changes: Any) -> Version:
        given: dict[str, Any] = {"params": {}, "metrics": {}, "files": {}}
        given |= {"tags": {"trained_through": through}} | changes
        return registry.log(kind, given.pop("bundle_folder", folder), **given)

    return log


def numbers(versions: list[Version]) -> list[str]:
    return [v.version for v in versions]


def aliases(registry: Registry, kind: str = "deal") -> dict[str, str]:
    return {a: v.version for v in registry.versions(kind) for a in v.aliases}


# --- logging -------------------------------------------------------------------------------------


def test_a_logged_version_comes_back_with_all_that_was_given(
    registry: Registry, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "any.html").write_text("<p>good</p>")
    metrics = {"log_loss": 0.1 + 0.2, "brier/deal 28.d": 1e-300, "unknown": math.nan}
    tags = {"trained_through": "2026-03-31T12:00:00+00:00", "seed": "7", "note": "größer"}
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    version = registry.log(
        "deal",
        folder,
        params={"trees": 150, "grid": {"unit": "day"}, "arm": "blend", "rate": np.float64(0.5)},
        metrics=metrics,
        files={"report.html": tmp_path / "any.html"},
        tags=tags,
    )
    assert (version.name, version.version) == ("dealcast-deal", "1")
    assert version.aliases == ("challenger",)
    assert version.trained_through == tags["trained_through"] and version.tags == tags
    assert version.metrics == pytest.approx(metrics, rel=0, abs=0, nan_ok=True)
    assert before <= datetime.fromisoformat(version.created_at) <= datetime.now(UTC)

    with registry._tracker() as client:
        run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED" and run.info.run_name == f"deal {tags['trained_through']}"
    assert run.data.params == {
        "trees": "150",
        "grid": '{"unit": "day"}',
        "arm": "blend",
        "rate": "0.5",
    }
    assert tags.items() <= run.data.tags.items() and run.data.tags["model"] == "dealcast-deal"

    stored = registry.folder(version)
    assert stored.is_relative_to(tmp_path / "artifacts") and stored != folder
    assert bundle.load(stored)["rates"].tolist() == [0.25, 0.5]
    assert (stored.parent / "report" / "report.html").read_text() == "<p>good</p>"


def test_more_values_than_one_batch_of_mlflow_takes(log: Log, registry: Registry) -> None:
    params = {f"p{i}": i for i in range(250)}
    metrics = {f"m{i}": i / 8 for i in range(1700)}
    version = log(params=params, metrics=metrics)
    assert version.metrics == metrics
    with registry._tracker() as client:
        logged = client.get_run(version.run_id).data.params
    assert logged == {k: str(v) for k, v in params.items()}


def test_the_two_models_are_counted_apart_and_listed_newest_first(
    log: Log, registry: Registry
) -> None:
    made = [log("deal", metrics={"n": float(i)}) for i in range(11)]
    lead = log("lead", "2026-01-01")
    assert numbers(registry.versions("deal")) == [str(i) for i in range(11, 0, -1)]  # 10 after 9
    assert [v.metrics["n"] for v in registry.versions("deal")] == list(range(10, -1, -1))
    assert registry.versions("lead") == [lead] and lead.name == "dealcast-lead"
    assert aliases(registry) == {"challenger": "11"}
    assert [replace(v, aliases=()) for v in made] == [
        replace(v, aliases=()) for v in registry.versions("deal")[::-1]
    ]


def test_metrics_of_more_runs_than_one_query_takes(
    log: Log, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(5):
        log(metrics={"n": float(i)})
    monkeypatch.setattr("models.registry._RUNS_AT_ONCE", 2)
    assert [v.metrics for v in registry.versions("deal")] == [{"n": float(4 - i)} for i in range(5)]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kind": "deals"}, "model 'deals': expected deal or lead"),
        ({"bundle_folder": Path("nowhere")}, "no bundle to register in nowhere: .*no such file"),
        ({"tags": {"seed": "7"}}, r"tags \['seed'\]: 'trained_through' is missing"),
        ({"through": "31.3.2026"}, "trained_through '31.3.2026': expected ISO 8601"),
        ({"metrics": {"log_loss": math.inf}}, "'log_loss' is inf: expected a finite number"),
        ({"files": {"report.html": Path("gone.html")}}, "'report.html': no file at gone.html"),
        ({"files": {"../x": Path(__file__)}}, "'../x': expected a plain name"),
    ],
)
def test_what_cannot_be_registered_is_refused_before_anything_is_written(
    log: Log, registry: Registry, changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    before = (tmp_path / "mlflow.db").read_bytes()
    with pytest.raises(RegistryError, match=says) as caught:
        log(**changes)
    assert type(caught.value) is RegistryError
    assert (tmp_path / "mlflow.db").read_bytes() == before
    assert not (tmp_path / "artifacts").exists()


def test_an_altered_bundle_is_refused(log: Log, folder: Path, registry: Registry) -> None:
    (folder / "arrays.npz").write_bytes(b"other")
    with pytest.raises(RegistryError, match=r"arrays.npz: expected sha256"):
        log()
    assert registry.versions("deal") == []


def test_a_run_that_fails_is_marked_and_registers_nothing(log: Log, registry: Registry) -> None:
    log(metrics={"n": 1.0})
    with pytest.raises(TrackerError, match=r"MLflow at sqlite:.*P\(win\)"):
        log(metrics={"P(win)": 0.5})  # brackets: a name that MLflow refuses
    assert numbers(registry.versions("deal")) == ["1"] and aliases(registry) == {"challenger": "1"}
    with registry._tracker() as client:
        ids = [e.experiment_id for e in client.search_experiments()]
        assert sorted(r.info.status for r in client.search_runs(ids)) == ["FAILED", "FINISHED"]


# --- finding -------------------------------------------------------------------------------------


def test_a_version_is_found_by_number_and_by_alias(log: Log, registry: Registry) -> None:
    for _ in range(3):
        log()
    registry.promote("deal", "1")
    registry.promote("deal", "2")
    found = {w: registry.find("deal", w).version for w in ("champion", "challenger", "previous")}
    assert found == {"champion": "2", "challenger": "3", "previous": "1"}
    assert registry.find("deal", "1") == registry.versions("deal")[-1]
    assert registry.champion("deal") == registry.find("deal", "2")
    assert registry.champion("lead") is None


def test_what_is_not_there_is_said_with_what_is(log: Log, registry: Registry) -> None:
    for which in ("champion", "1"):
        with pytest.raises(NoSuchVersion, match="dealcast-lead has no versions yet; train one"):
            registry.find("lead", which)
    log()
    log()
    for which in ("champion", "previous", "3", "0", "999999999"):
        says = f"dealcast-deal has no version '{which}'; there are: 2 challenger, 1; promote"
        with pytest.raises(NoSuchVersion, match=says):
            registry.find("deal", which)
    for which in ("latest", "", "-1", "1.0", "٣", "9" * 30):
        with pytest.raises(NoSuchVersion, match="expected champion, challenger, previous or a num"):
            registry.find("deal", which)
    with pytest.raises(RegistryError, match="model 'Deal': expected deal or lead"):
        registry.find("Deal", "1")


def test_a_past_moment_is_answered_by_the_version_that_knew_most_but_nothing_later(
    log: Log, registry: Registry
) -> None:
    for through in (
        "2026-03-31",  # 1
        "2026-02-28T23:30:00-02:00",  # 2: registered later, knows less; 1 March, 01:30 UTC
        "2026-03-31T00:00:00Z",  # 3: the same moment as 1
        "2026-06-30T00:00:00.000001",  # 4
    ):
        log(through=through)

    def newest(as_of: str) -> str | None:
        version = registry.newest_trained_through("deal", as_of)
        return version.version if version else None

    assert newest("2026-03-01T01:29:59") is None
    assert newest("2026-03-01T01:30:00") == "2"
    assert newest("2026-03-30T23:59:59.999999+00:00") == "2"
    assert newest("2026-03-31") == "3"
    assert newest("2026-06-30") == "3"
    assert newest("2026-06-30T02:00:00.000001+02:00") == "4"
    assert registry.newest_trained_through("lead", "2027-01-01") is None
    with pytest.raises(RegistryError, match="as_of 'yesterday': expected ISO 8601"):
        newest("yesterday")


# --- promoting and rolling back ------------------------------------------------------------------


def test_promoting_moves_the_aliases_and_twice_is_once(log: Log, registry: Registry) -> None:
    for _ in range(3):
        log()
    first = registry.promote("deal", "challenger")
    assert (first.version, first.aliases) == ("3", ("champion",))
    assert aliases(registry) == {"champion": "3"}
    assert registry.promote("deal", "3") == first and aliases(registry) == {"champion": "3"}

    second = registry.promote("deal", "1")
    assert second.aliases == ("champion",)
    assert aliases(registry) == {"champion": "1", "previous": "3"}
    registry.promote("deal", "1")
    registry.promote("deal", "champion")
    assert aliases(registry) == {"champion": "1", "previous": "3"}

    log()
    registry.promote("deal", "2")  # another than the challenger, which stays one
    assert aliases(registry) == {"champion": "2", "previous": "1", "challenger": "4"}
    with pytest.raises(NoSuchVersion, match="has no version '5'"):
        registry.promote("deal", "5")
    assert aliases(registry) == {"champion": "2", "previous": "1", "challenger": "4"}


def test_a_rollback_swaps_and_a_second_one_swaps_back(log: Log, registry: Registry) -> None:
    for _ in range(2):
        with pytest.raises(NoSuchVersion):
            registry.rollback("deal")
        log()
        registry.promote("deal", "challenger")
    log()
    back = registry.rollback("deal")
    assert (back.version, back.aliases) == ("1", ("champion",))
    assert aliases(registry) == {"champion": "1", "previous": "2", "challenger": "3"}
    assert registry.rollback("deal").version == "2"
    assert aliases(registry) == {"champion": "2", "previous": "1", "challenger": "3"}


def test_a_promotion_cut_short_is_put_right_by_the_next(log: Log, registry: Registry) -> None:
    log()
    log()
    registry.promote("deal", "1")
    with registry._tracker() as client:  # what promoting "2" does first
        client.set_registered_model_alias("dealcast-deal", "previous", "1")
    with pytest.raises(NoSuchVersion, match="there are: 2 challenger, 1 champion previous"):
        registry.rollback("deal")
    registry.promote("deal", "champion")
    assert aliases(registry) == {"champion": "1", "challenger": "2"}
    registry.promote("deal", "2")
    assert aliases(registry) == {"champion": "2", "previous": "1"}


def test_two_registries_on_one_database_see_each_other(
    log: Log, registry: Registry, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = Registry("sqlite:///mlflow.db", Path("artifacts"))  # by a relative path
    version = log()
    assert other.versions("deal") == [version]
    monkeypatch.chdir("/")
    other.promote("deal", "1")
    assert registry.champion("deal") == other.champion("deal") != None  # noqa: E711
    assert other.folder(version) == registry.folder(version)


# --- files ---------------------------------------------------------------------------------------


def test_names_with_spaces_and_signs_work(template: Path, folder: Path, tmp_path: Path) -> None:
    odd = tmp_path / "my models größer #1"
    odd.mkdir()
    shutil.copyfile(template, odd / "a b%20.db")
    registry = Registry(f"sqlite:///{odd}/a b%2520.db", odd / "50% files")
    version = registry.log(
        "deal", folder, params={}, metrics={}, files={}, tags={"trained_through": "2026-03-31"}
    )
    stored = registry.folder(version)
    assert stored.is_relative_to(odd / "50% files") and bundle.load(stored)["kind"] == "deal"
    assert sorted(p.name for p in odd.iterdir()) == ["50% files", "a b%20.db"]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("my")] == [odd.name]


def test_a_registry_moved_with_its_artifacts_finds_them(
    log: Log, registry: Registry, tmp_path: Path
) -> None:
    version = log()
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.copyfile(tmp_path / "mlflow.db", moved / "mlflow.db")
    (tmp_path / "artifacts").rename(moved / "files")
    there = Registry(f"sqlite:///{moved / 'mlflow.db'}", moved / "files")
    assert there.folder(version).is_relative_to(moved)
    assert bundle.load(there.folder(version))["kind"] == "deal"
    with pytest.raises(TrackerError, match=r"version 1: no files at .*restore them"):
        registry.folder(version)


def test_what_is_stored_elsewhere_is_downloaded_once(
    log: Log, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = log().run_id
    with registry._tracker() as client:  # an address that is no local path
        client.create_model_version("dealcast-deal", f"runs:/{run_id}/bundle", run_id)
    version = registry.find("deal", "2")
    assert version.trained_through == "" and version.aliases == ()
    copy = registry.folder(version)
    assert copy != registry.folder(registry.find("deal", "1"))
    assert bundle.load(copy)["kind"] == "deal"
    assert [p.name for p in copy.parent.iterdir()] == [f"dealcast-deal-2-{run_id}"]

    def refuse(**_: object) -> str:
        raise AssertionError("downloaded again")

    monkeypatch.setattr("mlflow.artifacts.download_artifacts", refuse)
    assert registry.folder(version) == copy
    assert registry.newest_trained_through("deal", "2030-01-01") == registry.find("deal", "1")


# --- databases -----------------------------------------------------------------------------------


def test_the_first_use_makes_one_complete_database(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "var" / "deep" / "mlflow.db"
    registry = Registry(f"sqlite:///{file}", tmp_path / "artifacts")
    assert registry.versions("deal") == [] and registry.champion("lead") is None
    with pytest.raises(NoSuchVersion, match="has no versions yet"):
        registry.promote("deal", "1")
    assert not (tmp_path / "var").exists()  # reading makes nothing

    def log(kind: str) -> Version:
        tags = {"trained_through": "2026-03-31"}
        return registry.log(kind, folder, params={}, metrics={}, files={}, tags=tags)

    with ThreadPoolExecutor(2) as threads:
        made = list(threads.map(log, ("deal", "lead")))
    assert [v.version for v in made] == ["1", "1"]
    assert registry.versions("deal") == made[:1] and registry.versions("lead") == made[1:]
    assert [p.name for p in file.parent.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize("links", [True, False])
def test_of_two_processes_that_make_a_database_the_first_is_kept(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    wanted = tmp_path / "shared" / "mlflow.db"

    def overtaken(_: object) -> None:
        (wanted.parent / ".mlflow.db.draft").touch()
        shutil.copyfile(tmp_path / "mlflow.db", wanted)

    def no_links(*_: object) -> None:
        raise OSError("the file system has no links")

    with registry._tracker() as client:
        client.create_registered_model("by-the-other-process")
    monkeypatch.setattr("mlflow.store.db.utils._initialize_tables", overtaken)
    monkeypatch.setattr("models.registry.secrets.token_hex", lambda _: "draft")
    if not links:
        monkeypatch.setattr("models.registry.os.link", no_links)
    with Registry(f"sqlite:///{wanted}", tmp_path)._tracker() as client:
        names = [m.name for m in client.search_registered_models()]
    assert names == ["by-the-other-process"]
    assert [p.name for p in wanted.parent.iterdir()] == ["mlflow.db"]


def test_an_interrupted_start_leaves_no_half_made_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(engine: Any) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE experiments (id INTEGER)")
        raise KeyboardInterrupt

    monkeypatch.setattr("mlflow.store.db.utils._initialize_tables", interrupt)
    registry = Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts")
    with pytest.raises(KeyboardInterrupt), registry._tracker():
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("var/mlflow.db", "'var/mlflow.db': expected one of sqlite://, .*sqlite:///var/mlflow.db"),
        ("file:///var/mlruns", "expected one of sqlite://"),
        ("databricks", "expected one of sqlite://"),
        ("sqlite://", "expected a file"),
        ("sqlite:///:memory:", "a registry in memory would be lost"),
        ("ftp://anna:secret@host/x", r"'ftp://\*\*\*@host/x'"),
    ],
)
def test_a_place_that_cannot_hold_a_registry_is_refused(uri: str, says: str) -> None:
    with pytest.raises(RegistryError, match=says) as caught:
        Registry(uri, Path("artifacts"))
    assert "secret" not in str(caught.value)


def test_a_database_that_cannot_be_used_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database, but long enough to be read as one" * 9)
    (tmp_path / "folder.db").mkdir()
    for name, says in (("text", "not a database"), ("folder", "unable to open")):
        registry = Registry(f"sqlite:///{tmp_path / name}.db", tmp_path / "artifacts")
        with pytest.raises(TrackerError, match=says), registry._tracker() as client:
            client.search_registered_models()
    absent = "postgresql+psycopg://anna:secret@127.0.0.1:1/none"
    with pytest.raises(TrackerError, match=r"MLflow at postgresql\+psycopg://\*\*\*@127") as caught:
        Registry(absent, tmp_path).versions("deal")
    assert "secret" not in str(caught.value)


def test_tables_of_another_mlflow_are_told_with_the_cure(
    registry: Registry, tmp_path: Path
) -> None:
    connection = sqlite3.connect(tmp_path / "mlflow.db")
    connection.execute("UPDATE alembic_version SET version_num = '0123456789ab'")
    connection.commit()
    connection.close()
    with pytest.raises(TrackerError, match="mlflow db upgrade"):
        registry.versions("deal")


# --- what is left alone --------------------------------------------------------------------------


def test_no_global_state_is_changed(log: Log, registry: Registry, database: str) -> None:
    with registry._tracker():
        import mlflow
    uris = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    assert database not in uris
    environment = dict(os.environ)
    files = sorted(Path.cwd().iterdir())
    version = log()
    registry.promote("deal", "1")
    registry.folder(version)
    assert (mlflow.get_tracking_uri(), mlflow.get_registry_uri()) == uris
    assert mlflow.active_run() is None
    assert dict(os.environ) == environment
    assert sorted(Path.cwd().iterdir()) == files  # no mlruns, no mlflow.db


FRESH = """
import logging, sys
from pathlib import Path
from models.registry import Registry
registry = Registry("sqlite:///var/mlflow.db", Path("var/artifacts"))
assert registry.versions("deal") == [] and registry.champion("lead") is None
assert "mlflow" not in sys.modules and not Path("var").exists()
network = []
sys.addaudithook(lambda event, _: network.append(event) if event.startswith("socket.") else None)
logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s")
for _ in range(2):
    with registry._tracker() as client:
        assert client.search_registered_models() == []
        client.search_experiments()
from mlflow.telemetry import get_telemetry_client
assert get_telemetry_client() is None
from mlflow import environment_variables as settings
assert settings.MLFLOW_DISABLE_TELEMETRY.get() is True
assert settings.MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.get() is True
assert settings.MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.get() is True  # set by the user, below
assert [p.name for p in Path("var").rglob("*")] == ["mlflow.db"]
logging.getLogger("alembic").warning("an operator hears this")
logging.getLogger("mlflow.store").warning("and this")
logging.getLogger("mlflow.store").info("but not this")
assert not [n for n in network if n in ("socket.connect", "socket.getaddrinfo")], network
"""


def test_mlflow_is_imported_late_and_is_quiet(tmp_path: Path) -> None:
    # A process of its own, and without the signs of a test or CI, which end the reports as well.
    signs = ("CI", "PYTEST", "MLFLOW", "GITHUB", "GITLAB", "JENKINS", "BUILDKITE", "DO_NOT_TRACK")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(signs)}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    environment["XDG_CONFIG_HOME"] = str(tmp_path / "config")  # MLflow leaves an id there
    environment["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "true"
    environment["AI_AGENT"] = "any"  # MLflow would give such a program a hint
    done = subprocess.run(
        [sys.executable, "-c", FRESH],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    heard = ["alembic an operator hears this", "mlflow.store and this"]
    assert done.stderr.splitlines() == heard and done.stdout == ""
