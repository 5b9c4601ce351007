"""Public data sets as somebody maps them who knows nothing of their traps: every column counts."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import pytest

from data.history import History
from data.mapping import load_mapping, read_source
from data.records import SourceFacts, Table

Declared = Literal["static", "nothing"]

_MAPPINGS = Path(__file__).parents[1] / "benchmarks" / "naive"


def naive_history(name: str, declared: Declared, missing: tuple[str, ...] = ()) -> History:
    """A public data set with all columns mapped, and all, or none, said never to change.

    `missing` are words that the user knows to stand for a missing value.
    """
    tables, facts = _read(name, missing)
    return History(tables, [facts if declared == "static" else replace(facts, static={})])


@cache
def _read(name: str, missing: tuple[str, ...]) -> tuple[dict[str, Table], SourceFacts]:
    folder = os.environ.get("DEALCAST_DATASETS")
    if not folder:
        pytest.skip("DEALCAST_DATASETS is not set: it names the folder of the public data sets")
    text = (_MAPPINGS / f"{name}.toml").read_text("utf-8")
    words = ", ".join(f'"{word}"' for word in missing)
    text = text.replace('.csv"\n', f'.csv"\nmissing = [{words}]\n', 1)
    with TemporaryDirectory() as place:
        file = Path(place, "naive.toml")
        file.write_text(text, encoding="utf-8")
        source = read_source(
            load_mapping(file), Path(folder) / name, at=np.datetime64("2026-01-01", "us")
        )
    return {t.entity.name: t for t in source.tables}, source.facts
