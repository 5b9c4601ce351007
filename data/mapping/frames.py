"""What a read file is: columns of text, and the declaration it was read by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["CHUNK", "FileSpec", "FoundRows", "Frame", "Malformed", "Progress"]

Progress = Callable[[str, int], None]  # (file as named in the mapping, rows read so far)
CHUNK = 20_000  # rows between two reports of progress


@dataclass(frozen=True)
class FileSpec:
    """One `[files.NAME]` of a mapping file.

    Attributes
    ----------
    path : str or None
        Relative to the source folder; None for a query.
    missing : tuple of str
        Values that mean missing, besides the empty one; `missing_in` replaces them by column.
    date_order, decimal : str or None
        How the file writes dates and numbers, where its own values cannot tell.
    """

    name: str
    path: str | None = None
    format: str | None = None
    delimiter: str | None = None
    encoding: str | None = None
    quote: str | None = '"'
    columns: tuple[str, ...] = ()
    skip_lines: int = 0
    sheet: str | None = None
    url: str | None = None
    query: str | None = None
    missing: tuple[str, ...] = ()
    missing_in: Mapping[str, tuple[str, ...]] | None = None
    date_order: str | None = None
    decimal: str | None = None

    @property
    def place(self) -> str:
        """Where the file is declared, for messages."""
        return f"files.{self.name}"


@dataclass(frozen=True)
class Malformed:
    """A row that has no place in the columns: its line, what is wrong, its cells."""

    line: int
    reason: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Frame:
    """A file as columns of text.

    Attributes
    ----------
    shown : str
        The file's name as users know it, for messages and rejects.
    columns : dict of str to ndarray of object, shape (n,)
        By header: str or None.
    native : dict of str to ndarray of bool, shape (n,)
        Cells that were typed in the source; columns without any are left out.
    lines : ndarray of int64, shape (n,)
        Line of each row (row number for XLSX, Parquet and queries), from 1.
    """

    spec: FileSpec
    shown: str
    columns: dict[str, npt.NDArray[np.object_]]
    native: dict[str, npt.NDArray[np.bool_]]
    lines: npt.NDArray[np.int64]
    malformed: tuple[Malformed, ...]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.lines)

    def raw(self, row: int) -> dict[str, str]:
        """One row as the source wrote it, without its empty cells."""
        return {k: v[row] for k, v in self.columns.items() if v[row] is not None}


@dataclass
class FoundRows:
    """What the reader of one format found, before it is turned into columns."""

    header: list[str]
    cells: list[list[str | None]]  # by column
    native: list[list[bool]] | None
    lines: list[int]
    malformed: list[Malformed]
    notes: list[str]
