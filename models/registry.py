"""Versions of the two models, in MLflow; the one module of the project that imports it.

A version is a bundle folder (`models.bundle`), stored as artifacts of a run of the experiment
"dealcast" and registered as `dealcast-lead` or `dealcast-deal`. Three aliases tell its part:
champion (in use), challenger (logged last), previous (what a rollback returns to).

MLflow's tracking and registry URIs are global state; here they are arguments, and the global ones
are never touched. MLflow takes seconds to import and to make its tables, so neither happens before
the first call that needs it. Its usage reports and chatter are switched off, unless the
environment says otherwise (MLFLOW_DISABLE_TELEMETRY=false).
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import secrets
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlparse
from urllib.request import url2pathname

from models import bundle

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

__all__ = [
    "ALIASES",
    "EXPERIMENT",
    "KINDS",
    "NoSuchVersion",
    "Registry",
    "RegistryError",
    "TrackerError",
    "Version",
]

KINDS = ("deal", "lead")
ALIASES = ("champion", "challenger", "previous")
EXPERIMENT = "dealcast"
_T = TypeVar("_T")
_MAKING = threading.Lock()  # Alembic, which makes the tables, knows one migration per process
_BUNDLE, _REPORT = "bundle", "report"
_THROUGH = "trained_through"
_SQLITE = "sqlite:///"
_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https")
# As MLflow documents them; they are environment variables, so child processes inherit them.
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": True,
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": True,  # stdout is for answers, maybe JSON
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": False,
}
# MLflow's limits for one batch, which its servers enforce.
_PARAMS_AT_ONCE, _METRICS_AT_ONCE, _RUNS_AT_ONCE = 100, 800, 100


class RegistryError(RuntimeError):
    """Something about the registry went wrong: the request itself, if it is this very class.

    RegistryError
    ├── NoSuchVersion    there is no version by that name, number or date
    └── TrackerError     MLflow, its database or its files refused, or could not be reached
    """


class NoSuchVersion(RegistryError):
    """The version asked for does not exist."""


class TrackerError(RegistryError):
    """MLflow, its database or its files refused, or could not be reached."""


@dataclass(frozen=True)
class Version:
    """One registered version of a model, as it stood when it was read.

    Attributes
    ----------
    name : str
        "dealcast-deal" or "dealcast-lead".
    version : str
        Its number, from "1" on.
    aliases : tuple of str
        In the order champion, challenger, previous; then others, set by hand.
    created_at : str
        ISO 8601, UTC.
    run_id : str
        The MLflow run that logged it.
    trained_through : str
        ISO 8601: the last moment that training knew of. Empty if not registered by dealcast.
    metrics, tags : dict
        As logged; no metrics if the run was deleted.
    """

    name: str
    version: str
    aliases: tuple[str, ...]
    created_at: str
    run_id: str
    trained_through: str
    metrics: dict[str, float]
    tags: dict[str, str]


class Registry:
    """The versions of both models in one MLflow database or behind one MLflow server.

    Making one opens nothing. While an SQLite file does not exist yet, reading finds no
    versions; the first `log` makes it.

    Parameters
    ----------
    tracking_uri : str
        `sqlite:///file`, another database's URL, or the address of an MLflow server.
    artifacts : Path
        Where the files of a new experiment go, and copies of what had to be downloaded. An
        MLflow server (http) keeps the files of its experiments itself.

    Raises
    ------
    RegistryError
        If the URI is none that MLflow can keep a registry at.
    """

    def __init__(self, tracking_uri: str, artifacts: Path) -> None:
        scheme = urlparse(tracking_uri).scheme
        if scheme.split("+")[0] not in _SCHEMES:
            raise RegistryError(
                f"tracking URI {_shown(tracking_uri)!r}: expected one of "
                f"{', '.join(s + '://' for s in _SCHEMES)}; for a file, write sqlite:///var/mlflow.db"
            )
        self._artifacts = artifacts.absolute()
        self._reached = False
        self._served = scheme in ("http", "https")
        self._file: Path | None = None
        self._uri = tracking_uri
        if scheme == "sqlite":
            path, mark, query = tracking_uri.removeprefix(_SQLITE).partition("?")
            if not tracking_uri.startswith(_SQLITE) or path in ("", ":memory:"):
                raise RegistryError(
                    f"tracking URI {tracking_uri!r}: expected a file, as in "
                    "sqlite:///var/mlflow.db; a registry in memory would be lost"
                )
            # Absolute: MLflow keeps one connection per URI, wherever the process may go later.
            self._file = Path(unquote(path)).absolute()
            self._uri = f"{_sqlite_uri(self._file)}{mark}{query}"

    def log(
        self,
        kind: str,
        bundle_folder: Path,
        *,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        files: Mapping[str, Path],
        tags: Mapping[str, str],
    ) -> Version:
        """Store a bundle with all that explains it, as the newest version and challenger.

        If anything fails, no version is registered; a run that was begun is marked as failed.

        Parameters
        ----------
        kind : str
            "deal" or "lead".
        bundle_folder : Path
            What `models.bundle.save` wrote; it is checked against its manifest and copied.
        params : mapping
            Settings of the run. What is not text is written as JSON; 6,000 characters each.
        metrics : mapping
            Finite, or NaN where unknown.
        files : mapping
            Files to keep beside the bundle, by plain file name, like "report.html".
        tags : mapping
            Must hold `trained_through`, ISO 8601: the last moment that training knew of.

        Raises
        ------
        RegistryError
            If an argument is not as told above; nothing was written.
        TrackerError
            If MLflow refuses, or cannot be reached.
        """
        name = _name(kind)
        _check(bundle_folder, metrics, files, tags)
        with self._tracker() as client:
            run = client.create_run(
                self._experiment(client),
                tags={**tags, "model": name},
                run_name=f"{kind} {tags[_THROUGH]}",
            )
            run_id = run.info.run_id
            try:
                _log_values(client, run_id, params, metrics, run.info.start_time)
                client.log_artifacts(run_id, str(bundle_folder), _BUNDLE)
                _log_files(client, run_id, files)
                number = _register(client, name, run_id, run.info.artifact_uri, tags)
            except BaseException:
                with suppress(Exception):  # the first error is the one to tell
                    client.set_terminated(run_id, "FAILED")
                raise
            client.set_terminated(run_id, "FINISHED")
        return self.find(kind, number)

    def versions(self, kind: str) -> list[Version]:
        """All versions, newest first."""
        name = _name(kind)
        if not self._exists():
            return []
        with self._tracker() as client:
            page = client.search_model_versions(f"name='{name}'")
            found = list(page)
            while page.token:
                page = client.search_model_versions(f"name='{name}'", page_token=page.token)
                found += page
            found.sort(key=lambda v: int(v.version), reverse=True)
            return _told(client, found, _aliases(client, name))

    def find(self, kind: str, which: str) -> Version:
        """One version: "champion", "challenger", "previous", or its number.

        Raises
        ------
        NoSuchVersion
            If there is none, or `which` is no such word.
        """
        name = _name(kind)
        if which not in ALIASES and not re.fullmatch("[0-9]{1,9}", which):
            raise NoSuchVersion(
                f"{name} version {which!r}: expected {', '.join(ALIASES)} or a number"
            )
        if self._exists():
            with self._tracker() as client:
                aliases = _aliases(client, name)
                number = aliases.get(which) if which in ALIASES else str(int(which))
                version = _get(client, name, number) if number else None
                if version is not None:
                    return _told(client, [version], aliases)[0]
        raise NoSuchVersion(self._none_found(kind, which))

    def champion(self, kind: str) -> Version | None:
        """The version in use, if any."""
        try:
            return self.find(kind, "champion")
        except NoSuchVersion:
            return None

    def newest_trained_through(self, kind: str, as_of: str) -> Version | None:
        """The version to answer for a past moment: the one that knew most, and nothing later.

        Of versions trained through the same moment, the newest. Times without an offset are UTC.

        Parameters
        ----------
        as_of : str
            ISO 8601 moment or date (its first instant).
        """
        limit = _moment("as_of", as_of)
        known = [
            (_moment(_THROUGH, version.trained_through), int(version.version), version)
            for version in self.versions(kind)
            if version.trained_through
        ]
        return max((k for k in known if k[0] <= limit), key=lambda k: k[:2], default=(None,))[-1]

    def promote(self, kind: str, version: str) -> Version:
        """Make a version the champion; the champion so far becomes previous.

        Promoting the champion changes nothing but to end a candidacy of its own.

        Parameters
        ----------
        version : str
            A number or alias, as for `find`.
        """
        target = self.find(kind, version)
        champion = self.champion(kind)
        with self._tracker() as client:
            # In this order an interruption leaves aliases that a second call puts right.
            if champion is not None and champion.version != target.version:
                client.set_registered_model_alias(target.name, "previous", champion.version)
            elif "previous" in target.aliases:
                client.delete_registered_model_alias(target.name, "previous")
            if "champion" not in target.aliases:
                client.set_registered_model_alias(target.name, "champion", target.version)
            if "challenger" in target.aliases:
                client.delete_registered_model_alias(target.name, "challenger")
        return self.find(kind, target.version)

    def rollback(self, kind: str) -> Version:
        """Swap champion and previous; a second call swaps them back.

        Raises
        ------
        NoSuchVersion
            If nothing was promoted over another version yet.
        """
        target = self.find(kind, "previous")
        if "champion" in target.aliases:
            raise NoSuchVersion(self._none_found(kind, "previous"))
        return self.promote(kind, target.version)

    def folder(self, version: Version) -> Path:
        """A local folder with the version's bundle: the stored one itself, or a downloaded copy.

        Do not write into it. A registry moved to another place or machine together with its
        artifacts is understood.

        Raises
        ------
        TrackerError
            If the files are gone, or cannot be downloaded.
        """
        with self._tracker() as client:
            source = client.get_model_version_download_uri(version.name, version.version)
            stored = _local_path(source)
            if stored is None:
                return self._downloaded(version, source)
        # MLflow remembers absolute paths; the second is where its layout puts the files under ours.
        places = (stored, self._artifacts / version.run_id / "artifacts" / _BUNDLE)
        for place in places:
            if place.is_dir():
                return place
        raise TrackerError(
            f"{version.name} version {version.version}: no files at "
            f"{' or '.join(map(str, dict.fromkeys(places)))}; restore them from a backup, or "
            "promote another version"
        )

    def _downloaded(self, version: Version, source: str) -> Path:
        """Fetch once: a version never changes. The folder appears complete or not at all."""
        from mlflow.artifacts import download_artifacts

        name = f"{version.name}-{version.version}-{version.run_id}"
        folder = self._artifacts / "downloaded" / name
        if folder.is_dir():
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as draft:
            arrived = download_artifacts(
                artifact_uri=source,
                dst_path=draft,
                tracking_uri=self._uri,
                registry_uri=self._uri,
            )
            try:
                Path(arrived).replace(folder)
            except OSError:  # another process was first
                if not folder.is_dir():
                    raise
        return folder

    def _exists(self) -> bool:
        """Whether there can be anything to read: without its file, SQLite holds nothing."""
        return self._file is None or self._file.is_file()

    def _none_found(self, kind: str, which: str) -> str:
        there = [" ".join((v.version, *v.aliases)) for v in self.versions(kind)]
        if not there:
            return f"{_name(kind)} has no versions yet; train one first: dealcast train {kind}"
        listed = ", ".join(there)
        return f"{_name(kind)} has no version {which!r}; there are: {listed}; promote one of these"

    @contextmanager
    def _tracker(self) -> Iterator[MlflowClient]:
        """A client of this registry's MLflow; what goes wrong with it, in our words."""
        _import_mlflow()
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            if self._file is not None:
                with _MAKING:
                    if not self._file.exists():
                        _make_tables(self._file)
            if not self._served and not self._reached:
                _reach(self._uri)
                self._reached = True
            yield MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
            raise TrackerError(f"MLflow at {_shown(self._uri)}: {error}") from error

    def _experiment(self, client: MlflowClient) -> str:
        """The experiment's id, made if absent."""
        from mlflow.exceptions import MlflowException

        found = client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            place = None if self._served else self._artifacts.as_uri()
            try:
                return str(client.create_experiment(EXPERIMENT, artifact_location=place))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            found = client.get_experiment_by_name(EXPERIMENT)  # another process was first
        assert found is not None
        return str(found.experiment_id)


def _name(kind: str) -> str:
    if kind not in KINDS:
        raise RegistryError(f"model {kind!r}: expected {' or '.join(KINDS)}")
    return f"dealcast-{kind}"


def _check(
    folder: Path, metrics: Mapping[str, float], files: Mapping[str, Path], tags: Mapping[str, str]
) -> None:
    """Refuse what could not be registered, before anything is written."""
    try:
        bundle.load(folder)
    except bundle.BundleError as error:
        raise RegistryError(f"no bundle to register in {folder}: {error}") from error
    if _THROUGH not in tags:
        raise RegistryError(f"tags {sorted(tags)}: {_THROUGH!r} is missing; give an ISO 8601 time")
    _moment(_THROUGH, tags[_THROUGH])
    for name, value in metrics.items():
        if math.isinf(value):  # MLflow would store the largest float instead
            raise RegistryError(f"metric {name!r} is {value}: expected a finite number or NaN")
    for name, path in files.items():
        if Path(name).name != name:
            raise RegistryError(f"file {name!r}: expected a plain name, as in report.html")
        if not path.is_file():
            raise RegistryError(f"file {name!r}: no file at {path}; write it before logging")


def _moment(what: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise RegistryError(
            f"{what} {text!r}: expected ISO 8601, as in 2026-03-31T12:00:00+00:00 or 2026-03-31"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _log_values(
    client: MlflowClient,
    run_id: str,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    at: int,
) -> None:
    from mlflow.entities import Metric, Param

    texts = [
        Param(k, v if isinstance(v, str) else json.dumps(v, default=str)) for k, v in params.items()
    ]
    values = [Metric(k, float(v), at, 0) for k, v in metrics.items()]
    for some in _slices(texts, _PARAMS_AT_ONCE):
        client.log_batch(run_id, params=some)
    for few in _slices(values, _METRICS_AT_ONCE):
        client.log_batch(run_id, metrics=few)


def _log_files(client: MlflowClient, run_id: str, files: Mapping[str, Path]) -> None:
    # MLflow keeps the name that a file has, so each is first copied to the name it shall have.
    with tempfile.TemporaryDirectory() as named:
        for name, path in files.items():
            shutil.copyfile(path, Path(named) / name)
        if files:
            client.log_artifacts(run_id, named, _REPORT)


def _register(
    client: MlflowClient, name: str, run_id: str, artifacts: str, tags: Mapping[str, str]
) -> str:
    """Make the next version of a model, and it the challenger: its number."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # A folder of our own files is no MLflow "flavour": a version may point at any artifacts of
    # its run, and servers check that it is that run's.
    made = client.create_model_version(name, f"{artifacts}/{_BUNDLE}", run_id, tags=dict(tags))
    client.set_registered_model_alias(name, "challenger", made.version)
    return str(made.version)


def _aliases(client: MlflowClient, name: str) -> dict[str, str]:
    """Version by alias; none if the model is not registered."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}
    return {alias: str(version) for alias, version in found.items()}


def _get(client: MlflowClient, name: str, number: str) -> ModelVersion | None:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(name, number)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _told(
    client: MlflowClient, found: Sequence[ModelVersion], aliases: Mapping[str, str]
) -> list[Version]:
    """MLflow's versions as ours, with the metrics of their runs."""
    metrics = _metrics(client, [v.run_id for v in found if v.run_id])
    order = {alias: i for i, alias in enumerate(ALIASES)}
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    versions = []
    for v in found:
        number = str(v.version)
        own = sorted(
            (a for a, n in aliases.items() if n == number), key=lambda a: (order.get(a, 9), a)
        )
        versions.append(
            Version(
                name=v.name,
                version=number,
                aliases=tuple(own),
                created_at=(epoch + timedelta(milliseconds=v.creation_timestamp)).isoformat(),
                run_id=v.run_id or "",
                trained_through=v.tags.get(_THROUGH, ""),
                metrics=metrics.get(v.run_id or "", {}),
                tags=dict(v.tags),
            )
        )
    return versions


def _metrics(client: MlflowClient, run_ids: Sequence[str]) -> dict[str, dict[str, float]]:
    """Metrics by run, in a query per hundred runs; deleted runs are left out."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return {}
    found: dict[str, dict[str, float]] = {}
    for some in _slices(run_ids, _RUNS_AT_ONCE):
        listed = ", ".join(f"'{run_id}'" for run_id in some)
        runs = client.search_runs(
            [experiment.experiment_id],
            f"attributes.run_id IN ({listed})",
            max_results=len(some),
        )
        found |= {run.info.run_id: dict(run.data.metrics) for run in runs}
    return found


def _slices(values: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    return (values[i : i + size] for i in range(0, len(values), size))


def _local_path(uri: str) -> Path | None:
    """The path that a URI without a host stands for; None for anything remote."""
    parts = urlparse(uri)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return Path(uri) if Path(uri).is_absolute() else None


def _sqlite_uri(file: Path) -> str:
    return _SQLITE + file.as_posix().replace("%", "%25")  # SQLAlchemy decodes what follows a %


def _shown(uri: str) -> str:
    """A URI without user and password."""
    return re.sub(r"//[^/@]*@", "//***@", uri)


def _import_mlflow() -> None:
    """Import MLflow without its usage reports, its chatter and its hold on others' loggers.

    A process that has imported it before has its own settings, which are left alone.
    """
    if "mlflow" in sys.modules:
        return
    logging.getLogger("mlflow.agent.hint").disabled = True  # an advertisement, on import
    # Importing MLflow gives these loggers a handler of its own, and ends their propagation: an
    # operator's logging would miss them. Their new levels (Alembic: WARNING) are welcome.
    loggers = [logging.getLogger(n) for n in ("mlflow", "alembic", "sqlalchemy.engine", "huey")]
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    import mlflow.environment_variables
    import mlflow.telemetry

    for logger, (handlers, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
    settings: Any = mlflow.environment_variables  # not typed
    reports: Any = mlflow.telemetry
    if not settings.MLFLOW_LOGGING_LEVEL.is_set():
        loggers[0].setLevel(logging.WARNING)
    for name, value in _SETTINGS.items():
        setting = getattr(settings, name)
        if not setting.is_set():
            setting.set(value)
    reports.set_telemetry_client()  # drops the one that the import made, still unused, if it should


def _reach(uri: str) -> None:
    """Connect once. MLflow itself would try for most of an hour before it says what is wrong."""
    from sqlalchemy import create_engine

    engine = create_engine(uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _make_tables(file: Path) -> None:
    """Make MLflow's tables in a new SQLite file, which appears complete or not at all.

    MLflow would run its migrations in the file itself, unlocked: a second process that looks in
    meanwhile, or an interruption, leaves a file that it refuses from then on. A draft can be
    thrown away, so it also need not wait for the disk at every step (6.4 s -> 1.4 s).
    """
    import mlflow.store.db.utils
    from sqlalchemy import event

    tables: Any = mlflow.store.db.utils  # not typed
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(6)}")
    engine = tables.create_sqlalchemy_engine(_sqlite_uri(draft))

    @event.listens_for(engine, "connect")
    def _in_a_hurry(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = MEMORY")

    try:
        tables._initialize_tables(engine)
        engine.dispose()
        with draft.open("rb+") as written:
            os.fsync(written.fileno())
        try:
            os.link(draft, file)  # unlike a renaming, never replaces what another process made
        except OSError:  # also: a file system without links
            if not file.exists():
                draft.replace(file)
    finally:
        engine.dispose()
        draft.unlink(missing_ok=True)
