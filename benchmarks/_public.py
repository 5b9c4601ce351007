"""The public data sets: found through DEALCAST_DATASETS, read through the example mappings."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from data.history import History
from data.mapping import load_mapping, read_source

__all__ = ["datasets", "read_public"]

EXAMPLES = Path(__file__).parents[1] / "examples"


def datasets() -> Path | None:
    """The folder of the public data sets, or None with a word that they are left out."""
    folder = os.environ.get("DEALCAST_DATASETS")
    if folder is None:
        print("DEALCAST_DATASETS is not set: public data sets are left out")
        return None
    return Path(folder)


def read_public(name: str, folder: Path, mapping: Path | None = None) -> History:
    """A data set through its mapping in `examples/`, or through another one."""
    chosen = mapping or EXAMPLES / f"{name}.toml"
    source = read_source(load_mapping(chosen), folder / name, at=np.datetime64("2026-01-01", "us"))
    return History({t.entity.name: t for t in source.tables}, [source.facts])
