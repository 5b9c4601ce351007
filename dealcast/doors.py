"""What the commands stand on: settings, clock, store, history, registry, and a model of a date."""

from __future__ import annotations

import datetime as dt
import difflib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np

from data.history import History
from data.pipeline import FiscalCalendar
from data.records import parse_time
from data.store import Store
from models import bundle as files
from models.registry import Registry, Version
from scoring.bundles import DealBundle, LeadBundle, bundle_of
from serving.settings import Settings, load_settings
from training.examples import lead_horizon
from training.fitting import Recipe, fit_deals, fit_leads

__all__ = ["Bundle", "Doors", "UsageError", "now", "open_doors"]

Bundle = LeadBundle | DealBundle
Kind = Literal["lead", "deal"]


class UsageError(ValueError):
    """A request that cannot be met as it stands; the message says what to do."""


def now() -> np.datetime64:
    """The wall clock, datetime64[us] in UTC: read here and at the service's door only."""
    return np.datetime64(dt.datetime.now(dt.UTC).replace(tzinfo=None), "us")


@dataclass
class Doors:
    """Everything opened on first use.

    Attributes
    ----------
    settings : Settings
    clock : datetime64[us]
        The moment the command began.
    """

    settings: Settings
    clock: np.datetime64 = field(default_factory=now)
    _loaded: dict[str, Bundle] = field(default_factory=dict, repr=False)

    @property
    def calendar(self) -> FiscalCalendar:
        """Fiscal calendar and time zone of the organisation."""
        return self.settings.calendar

    @cached_property
    def store(self) -> Store:
        """The store, at the newest schema."""
        store = Store(self.settings.store)
        store.upgrade()
        return store

    @cached_property
    def history(self) -> History:
        """All that the store knows."""
        history = History(self.store.read(), self.store.sources(), self.settings.currency)
        if len(history.deals) + len(history.leads) == 0:
            raise UsageError(
                f"the store {self.settings.store} holds no leads and no deals; begin with "
                "`dealcast import SOURCE --mapping FILE`, or look around with `dealcast demo`"
            )
        return history

    @cached_property
    def registry(self) -> Registry:
        """The models."""
        return Registry(self.settings.tracking_uri, self.settings.artifacts)

    @property
    def reports(self) -> Path:
        """Folder of the HTML pages, beside the models' files."""
        return self.settings.artifacts.parent / "reports"

    @property
    def kept_origins(self) -> Path:
        """Folder of a back-test's finished origins; it may be deleted at any time."""
        return self.settings.artifacts.parent / "backtest"

    def recipe(self, seed: int = 0, trusted: Sequence[str] = ()) -> Recipe:
        """How models are fitted here; `trusted` fields are used whatever the leak report says.

        Raises
        ------
        UsageError
            If there is no such field.
        """
        if trusted:
            known = {*self.history.deals.fields, *self.history.leads.fields}
            for name in trusted:
                if name not in known:
                    near = difflib.get_close_matches(name, known, 3) or sorted(known)[:5]
                    raise UsageError(f"there is no field {name!r}; did you mean {', '.join(near)}?")
        return Recipe(
            self.calendar, seed=seed, trusted=tuple(trusted), renewals=self.settings.renewals
        )

    def moment(self, text: str | None) -> np.datetime64:
        """A moment given by the user: now, a time, or a date (00:00 in the organisation's zone).

        Raises
        ------
        UsageError
            If it is neither.
        """
        if text is None:
            return self.clock
        found = parse_time(text, ZoneInfo(self.calendar.zone))
        if found is None:
            raise UsageError(
                f"{text!r} is not a moment; allowed: a date like 2026-03-31 (00:00 in "
                f"{self.calendar.zone}) or a time like 2026-03-31T14:00:00Z"
            )
        return found

    def bundle_at(
        self,
        kind: Kind,
        as_of: np.datetime64,
        *,
        hindsight: bool = False,
        retrain: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> Bundle:
        """The model that may answer for a moment.

        A moment is answered by the champion where that knew nothing later, else by the newest
        model that did not; with `retrain` by one trained as of then; with `hindsight` by the
        champion, whatever it knows.

        Raises
        ------
        UsageError
            If there is none.
        """
        if retrain:
            say(f"training a {kind} model as of {as_of.astype('datetime64[s]')}Z")
            until = int(as_of.astype("datetime64[us]").astype(np.int64))
            until = min(until, self.history.observed_until)
            if kind == "deal":
                return fit_deals(self.history, until, self.recipe())
            horizon = lead_horizon(self.history, until)
            return fit_leads(self.history, until, horizon, self.recipe())
        version = self._version_at(kind, as_of, hindsight)
        if "champion" not in version.aliases:
            say(
                f"note: {version.name} version {version.version} answers, which is not the "
                f"champion (its gate: {version.tags.get('gate', 'not known')})"
            )
        key = f"{version.name} {version.version}"
        if key not in self._loaded:
            found = bundle_of(files.load(self.registry.folder(version)))
            self._loaded[key] = found.versioned(version.version)
        return self._loaded[key]

    def _version_at(self, kind: Kind, as_of: np.datetime64, hindsight: bool) -> Version:
        """The champion if it did not look past the moment, else the newest that did not."""
        champion = self.registry.champion(kind)
        if hindsight and champion is not None:
            return champion
        through = str(as_of.astype("datetime64[s]")) + "Z"
        if champion is not None and champion.trained_through <= through:
            return champion
        known = self.registry.newest_trained_through(kind, through)
        if known is not None:
            return known
        if champion is None and not self.registry.versions(kind):
            raise UsageError(f"there is no {kind} model yet; run `dealcast train {kind}`")
        raise UsageError(
            f"no {kind} model was trained on what was known by {through} alone; add --retrain to "
            "train one, or --hindsight to let the champion answer, which knows later times"
        )

    def serving(self, host: str | None, port: int | None) -> Settings:
        """The settings with another address."""
        changed = {k: v for k, v in (("host", host), ("port", port)) if v is not None}
        return replace(self.settings, **changed)  # type: ignore[arg-type]


def open_doors(store: str | None = None) -> Doors:
    """Doors by the environment; `store` overrides its setting."""
    environ = dict(os.environ)
    if store:
        environ["DEALCAST_STORE"] = store
    return Doors(load_settings(environ))
