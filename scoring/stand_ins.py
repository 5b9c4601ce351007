"""Stages a model has never heard of: each is read as the known one it is believed to be like."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from data.features import compute
from data.history import Snapshot
from data.pipeline import open_stages
from scoring.bundles import DealBundle

__all__ = ["deal_columns", "stand_ins"]


def deal_columns(
    snapshot: Snapshot, bundle: DealBundle, context: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Features of deals as the bundle's model reads them: new and renamed stages stood in for."""
    columns = dict(compute(snapshot, bundle.features, context))
    codes, levels = columns["stage"]
    instead = stand_ins(snapshot, bundle, [str(level) for level in levels])
    if instead:
        read = [instead.get(str(level), level) for level in levels]
        columns["stage"] = codes, np.array(read, dtype=object)
    return columns


def stand_ins(snapshot: Snapshot, bundle: DealBundle, stages: Iterable[str]) -> dict[str, str]:
    """The known stage that stands in for each of `stages` that the model does not know.

    It is the one whose win probability is believed to be nearest (the CRM's own, a preset's by
    name, or by place in the pipeline), among those of its pipeline and those that are gone: one
    that was renamed is still known under its old name. A stage that nobody declares has none: the
    model takes its average.
    """
    new = set(stages) - set(bundle.model.table.stages)
    if not new:
        return {}
    known, declared = bundle.stage_rates, open_stages(snapshot.history.tables["stage"])
    found = {}
    for i in (i for i, name in enumerate(declared.names) if name in new):
        other = np.flatnonzero(declared.pipeline != declared.pipeline[i])
        elsewhere = {declared.names[j] for j in other}
        likely = [name for name in known if name not in elsewhere] or list(known)
        off = {name: abs(known[name]["prior_rate"] - declared.chance[i]) for name in likely}
        if off:
            found[declared.names[i]] = min(off, key=off.__getitem__)
    return found
