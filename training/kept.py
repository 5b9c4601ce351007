"""Results of a back-test kept on disk, so that it can go on where it stopped.

Every origin has a file of its own, named by all that its figures follow from: the records, the
recipe, the source code of the forecast, and what was asked. Where any of them changes, the file is
not found and the origin is computed again; a file is never changed. The folder may be deleted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from data.history import History
from training.fitting import Recipe
from training.replayed import Issued

__all__ = ["Kept", "fingerprint"]

_ROOMS = ("data", "models", "scoring", "training")
_LIBRARIES = ("lightgbm", "numpy", "scikit-learn", "scipy", "statsmodels")


def fingerprint(history: History, recipe: Recipe) -> str:
    """A text that is another one where records, recipe or code are.

    All records count, also those later than an origin: what happened is read from them.
    """
    found = blake2b(digest_size=16)
    for name, table in sorted(history.tables.items()):
        for kind in (table.columns, table.attributes):
            for column, values in sorted(kind.items()):
                found.update(f"{name}.{column}.{len(values)}.{values.dtype}:".encode())
                found.update(_bytes(values))
    found.update(repr((history.facts, history.currency, recipe, _code())).encode())
    return found.hexdigest()


def _bytes(values: npt.NDArray[Any]) -> bytes:
    if values.dtype != object:
        return np.ascontiguousarray(values).tobytes()
    return msgspec.json.encode(values.tolist(), enc_hook=str)


@cache
def _code() -> tuple[str, ...]:
    """The source of the rooms that a forecast runs through, and the libraries' versions."""
    root = Path(__file__).parents[1]
    found = blake2b(digest_size=16)
    for room in _ROOMS:
        for file in sorted((root / room).rglob("*.py")):
            found.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return (found.hexdigest(), *(f"{name} {version(name)}" for name in _LIBRARIES))


@dataclass(frozen=True)
class Kept:
    """A folder of finished origins.

    Attributes
    ----------
    folder : Path
        Made when the first result is written.
    fingerprint : str
        Of records, recipe and code.
    fresh : bool
        Take nothing from the folder, only write to it.
    """

    folder: Path
    fingerprint: str
    fresh: bool = False

    def file(self, asked: Sequence[Any]) -> Path:
        """Where the result of one origin is kept; `asked` is all that was asked of it."""
        key = repr((self.fingerprint, *asked))
        return self.folder / f"{blake2b(key.encode(), digest_size=16).hexdigest()}.json"

    def load(self, asked: Sequence[Any]) -> list[Issued] | None:
        """The result of one origin; None where it is not there or cannot be read."""
        if self.fresh:
            return None
        try:
            rows = json.loads(self.file(asked).read_text("utf-8"))
            return [Issued.from_state(row) for row in rows]
        except (OSError, ValueError, TypeError, LookupError):
            return None

    def save(self, asked: Sequence[Any], issued: Sequence[Issued]) -> None:
        """Keep the result of one origin: whole, or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.file(asked)
        # Processes side by side may finish the same origin: each writes a file of its own.
        temporary = file.with_suffix(f".{os.getpid()}.part")
        rows = [row.to_state() for row in issued]
        temporary.write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
        temporary.replace(file)
