"""The whole walk of `dealcast train`: history -> trial -> report -> registry -> gate."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from data.history import History
from models import bundle as files
from models.registry import Registry, Version
from scoring.bundles import DealBundle, LeadBundle, bundle_of
from training.fitting import Recipe
from training.report import training_report
from training.run import Run, train_deals, train_leads

__all__ = ["Kind", "Trained", "kinds_in", "train"]

Kind = Literal["lead", "deal"]


@dataclass(frozen=True)
class Trained:
    """What became of one training run.

    Attributes
    ----------
    run : Run
    version : Version
        As registered, with its aliases.
    promoted : bool
        Whether it is the champion now.
    report : Path
        The HTML page.
    """

    run: Run
    version: Version
    promoted: bool
    report: Path


def kinds_in(history: History) -> list[Kind]:
    """The models that a history can teach."""
    kinds: list[Kind] = []
    if len(history.leads):
        kinds.append("lead")
    if len(history.deals):
        kinds.append("deal")
    return kinds


def train(
    history: History,
    registry: Registry,
    kinds: Sequence[Kind],
    as_of: np.datetime64,
    recipe: Recipe,
    reports: Path,
    *,
    trained_at: str,
    say: Callable[[str], None] = lambda _: None,
) -> list[Trained]:
    """Train, judge, log and register; promote where the gate opens.

    Parameters
    ----------
    as_of : datetime64[us]
        Nothing later is used, labels included.
    reports : Path
        Folder for the HTML pages.
    trained_at : str
        ISO 8601 UTC time of this run.
    say : callable
        Told of every step, in words.
    """
    done = []
    for kind in kinds:
        say(f"{kind} model, as of {as_of.astype('datetime64[s]')}Z")
        champion = _champion(registry, kind)
        if kind == "deal":
            rival = champion if isinstance(champion, DealBundle) else None
            run = train_deals(
                history, as_of, recipe, trained_at=trained_at, champion=rival, say=say
            )
        else:
            known = champion if isinstance(champion, LeadBundle) else None
            run = train_leads(
                history,
                as_of,
                recipe,
                trained_at=trained_at,
                champion=known,
                say=say,
                # H is kept in the manifest and unchanged by retraining.
                horizon=None if known is None else known.horizon,
            )
        done.append(_register(run, registry, recipe, reports, as_of))
        say(_verdict(done[-1]))
    return done


def _champion(registry: Registry, kind: Kind) -> LeadBundle | DealBundle | None:
    version = registry.champion(kind)
    return None if version is None else bundle_of(files.load(registry.folder(version)))


def _register(
    run: Run, registry: Registry, recipe: Recipe, reports: Path, as_of: np.datetime64
) -> Trained:
    reports.mkdir(parents=True, exist_ok=True)
    stamp = run.bundle.manifest.trained_through.replace(":", "").replace("Z", "")
    report = reports / f"{run.kind}-{stamp}.html"
    report.write_text(training_report(run), encoding="utf-8")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "bundle"
        files.save(folder, run.bundle.to_state())
        version = registry.log(
            run.kind,
            folder,
            params={
                "as_of": str(as_of),
                "landmarks": recipe.landmarks,
                "half_life": recipe.half_life,
                "seed": recipe.seed,
                "time_zone": recipe.calendar.zone,
                "fiscal_first_month": recipe.calendar.first_month,
                "fiscal_weeks": recipe.calendar.weeks or "none",
                "withheld": ", ".join(run.leaks.withheld) or "none",
                "trusted": ", ".join(run.leaks.trusted) or "none",
            },
            metrics=run.metrics,
            files={"report.html": report},
            tags={
                "trained_through": run.bundle.manifest.trained_through,
                "gate": "open" if run.opens else "closed",
            },
        )
    if run.opens:
        version = registry.promote(run.kind, version.version)
    return Trained(
        replace(run, bundle=run.bundle.versioned(version.version)), version, run.opens, report
    )


def _verdict(trained: Trained) -> str:
    if trained.promoted:
        return f"{trained.version.name} version {trained.version.version} is the champion now"
    failed = "; ".join(f"{c.code}: {c.text}" for c in trained.run.checks if c.passed is False)
    return f"{trained.version.name} version {trained.version.version} stays a challenger ({failed})"
