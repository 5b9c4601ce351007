"""The bundles in use: loaded from the registry, tried, swapped when the champion changes."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from data.history import Side
from data.records import ENTITIES, Table
from models import bundle as bundles
from models.registry import NoSuchVersion, RegistryError, Version
from scoring.bundles import DealBundle, LeadBundle, bundle_of
from scoring.scores import DealScore
from serving.answers import time_text
from serving.batch import scores_of
from serving.intake import check_record, snapshot_of

__all__ = [
    "KINDS",
    "Catalogue",
    "Folders",
    "InUse",
    "Live",
    "NoModelError",
    "UnfitError",
    "kind_of",
]

KINDS: tuple[Side, ...] = ("lead", "deal")
_PAST_BUNDLES = 4  # bundles of past dates kept in memory

_log = logging.getLogger(__name__)


class NoModelError(Exception):
    """No model is there to answer yet."""


class UnfitError(Exception):
    """A bundle that cannot be served; the message says why."""


def kind_of(name: str) -> Side:
    """The kind behind a registered model's name.

    Raises
    ------
    NoSuchVersion
        If no model has that name.
    """
    for kind in KINDS:
        if name == f"dealcast-{kind}":
            return kind
    raise NoSuchVersion(f"model {name!r}: expected {' or '.join(f'dealcast-{k}' for k in KINDS)}")


class Catalogue(Protocol):
    """Where bundles come from: `models.registry.Registry`, or plain `Folders`."""

    def champion(self, kind: str) -> Version | None:
        """The version to serve."""

    def find(self, kind: str, which: str) -> Version:
        """One version, by alias or number; NoSuchVersion if there is none."""

    def versions(self, kind: str) -> Sequence[Version]:
        """All versions, newest first."""

    def promote(self, kind: str, version: str) -> Version:
        """Make a version the champion."""

    def rollback(self, kind: str) -> Version:
        """Swap champion and previous."""

    def newest_trained_through(self, kind: str, as_of: str) -> Version | None:
        """The newest version that knows nothing after a moment (ISO 8601)."""

    def folder(self, version: Version) -> Path:
        """Where its files are."""


class Folders:
    """Bundles straight from folders: one version of each kind, without a tracker.

    Parameters
    ----------
    folders : mapping of str to Path
        By kind, "lead" or "deal".
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = dict(folders)

    def champion(self, kind: str) -> Version | None:
        """The folder's bundle."""
        if kind not in self._folders:
            return None
        manifest = bundles.load(self._folders[kind])["manifest"]
        return Version(
            name=f"dealcast-{kind}",
            version="1",
            aliases=("champion",),
            created_at=manifest["trained_at"],
            run_id="",
            trained_through=manifest["trained_through"],
            metrics={},
            tags={},
        )

    def find(self, kind: str, which: str) -> Version:
        """The one version there is, if it is asked for."""
        found = self.champion(kind)
        if found is None or which not in ("champion", found.version):
            raise NoSuchVersion(
                f"dealcast-{kind} version {which!r}: a folder is served, which has 1"
            )
        return found

    def versions(self, kind: str) -> list[Version]:
        """The one version there is."""
        found = self.champion(kind)
        return [] if found is None else [found]

    def promote(self, kind: str, version: str) -> Version:
        """Refuse: a folder has no other versions."""
        raise RegistryError(f"{kind} {version} cannot be promoted: a folder is served, no registry")

    def rollback(self, kind: str) -> Version:
        """Refuse: a folder has no other versions."""
        raise RegistryError(f"{kind} cannot be rolled back: a folder is served, not a registry")

    def newest_trained_through(self, kind: str, as_of: str) -> Version | None:
        """The folder's bundle, if it knows nothing later."""
        found = self.champion(kind)
        return None if found is None or _time(found.trained_through) > _time(as_of) else found

    def folder(self, version: Version) -> Path:
        """The folder itself."""
        return self._folders[version.name.removeprefix("dealcast-")]


def _time(text: str) -> np.datetime64:
    return np.datetime64(text.removesuffix("Z"), "us")


@dataclass(frozen=True)
class InUse:
    """What is served of one kind, and what went wrong when it was last looked up.

    Attributes
    ----------
    version : str or None
        None where nothing is loaded.
    problem : str or None
        Why the champion could not be loaded; the bundle in use, if any, stays.
    """

    version: str | None = None
    bundle: LeadBundle | DealBundle | None = None
    problem: str | None = None


class Live:
    """The bundles in use.

    A swap replaces one reference: an answer is made by one bundle from start to end.

    Parameters
    ----------
    catalogue : Catalogue
    currency : str or None
        The organisation's base currency; a bundle in another one is not served.
    """

    def __init__(self, catalogue: Catalogue, currency: str | None = None) -> None:
        self.catalogue = catalogue
        self._currency = currency
        self._in_use: dict[str, InUse] = {}
        self._past: OrderedDict[tuple[str, str], LeadBundle | DealBundle] = OrderedDict()
        self._one_at_a_time = threading.RLock()

    def refresh(self) -> None:
        """Look which versions are champions, and load those that are not in use yet."""
        with self._one_at_a_time:
            for kind in KINDS:
                self._in_use[kind] = self._looked_up(kind, self._in_use.get(kind, InUse()))

    def _looked_up(self, kind: Side, now: InUse) -> InUse:
        try:
            champion = self.catalogue.champion(kind)
            if champion is None:
                return replace(now, problem="no version is champion")
            if champion.version == now.version:
                return replace(now, problem=None)
            found = InUse(champion.version, self.load(kind, champion))
        # Whatever is wrong with the new bundle, the old one must go on answering.
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            if problem != now.problem:
                _log.exception("the %s model's champion cannot be loaded", kind)
            return replace(now, problem=problem)
        _log.info("serving the %s model's version %s", kind, found.version)
        return found

    def load(self, kind: Side, version: Version) -> LeadBundle | DealBundle:
        """Load a version and try it.

        Raises
        ------
        UnfitError
            If it is of the other kind, in another currency, or cannot score.
        """
        found = bundle_of(bundles.load(self.catalogue.folder(version))).versioned(version.version)
        self._try(kind, found)
        return found

    def _try(self, kind: Side, found: LeadBundle | DealBundle) -> None:
        if found.manifest.kind != kind:
            raise UnfitError(f"the bundle is a {found.manifest.kind} model; expected: {kind}")
        own = found.manifest.currency
        if own and self._currency and own != self._currency:
            raise UnfitError(
                f"the model was trained in {own}, and the base currency is {self._currency}; "
                "train again, or set DEALCAST_CURRENCY"
            )
        as_of = _time(found.manifest.trained_through)
        record = {f"{kind}_id": "trial", "created_at": time_text(as_of)}
        at = np.array([as_of], dtype="datetime64[us]").astype(np.int64)
        tables = {n: Table.empty(ENTITIES[n]) for n in ("stage", "exchange_rate")}
        snapshot = snapshot_of(
            kind, [check_record(kind, record)], at, found.features, tables, own or None
        )
        context = {f.name: None for f in found.features if f.scope == "context"}
        score = scores_of(snapshot, found, explain=True, context=context)[0]
        chance = score.probability_won if isinstance(score, DealScore) else score.probability
        if not 0.0 <= chance <= 1.0:
            raise UnfitError(f"the bundle gives a fresh {kind} the probability {chance}")

    def in_use(self) -> dict[str, InUse]:
        """What is served, by kind."""
        if not self._in_use:
            self.refresh()
        return dict(self._in_use)

    def lead(self) -> LeadBundle:
        """The lead bundle in use.

        Raises
        ------
        NoModelError
            If there is none.
        """
        found = self._bundle("lead")
        assert isinstance(found, LeadBundle)
        return found

    def deal(self) -> DealBundle:
        """The deal bundle in use.

        Raises
        ------
        NoModelError
            If there is none.
        """
        found = self._bundle("deal")
        assert isinstance(found, DealBundle)
        return found

    def _bundle(self, kind: str) -> LeadBundle | DealBundle:
        state = self.in_use()[kind]
        if state.bundle is None:
            raise NoModelError(
                f"no {kind} model is in use yet; train one with `dealcast train {kind}`"
            )
        return state.bundle

    def at(self, kind: Side, as_of: np.datetime64) -> LeadBundle | DealBundle | None:
        """The newest bundle that knew nothing after a moment; None if there is none."""
        version = self.catalogue.newest_trained_through(kind, time_text(as_of))
        if version is None:
            return None
        key = (kind, version.version)
        with self._one_at_a_time:
            if key not in self._past:
                self._past[key] = self.load(kind, version)
                while len(self._past) > _PAST_BUNDLES:
                    self._past.popitem(last=False)
            self._past.move_to_end(key)
            return self._past[key]

    def promote(self, kind: Side, version: str) -> Version:
        """Make a version the champion and serve it, once it has been tried.

        Raises
        ------
        NoSuchVersion
            If there is no such version.
        UnfitError, BundleError
            If it cannot be served; the champion stays.
        RegistryError
            If the registry refuses.
        """
        wanted = self.catalogue.find(kind, version)
        self.load(kind, wanted)
        return self._served(kind, self.catalogue.promote(kind, wanted.version))

    def rollback(self, kind: Side) -> Version:
        """Make the previous champion the champion again and serve it, once it has been tried.

        Raises
        ------
        As `promote`.
        """
        self.load(kind, self.catalogue.find(kind, "previous"))
        return self._served(kind, self.catalogue.rollback(kind))

    def _served(self, kind: Side, champion: Version) -> Version:
        self.refresh()
        state = self._in_use[kind]
        if state.version != champion.version:
            raise UnfitError(
                f"version {champion.version} is champion, but cannot be served: {state.problem}"
            )
        return champion
