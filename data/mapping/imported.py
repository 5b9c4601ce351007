"""What came of an import: tables, the rows that were refused, and counts that add up."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data.mapping.frames import Frame
from data.records import SourceFacts, Table

__all__ = ["FileCount", "Imported", "Reject", "Rejects", "Tally"]


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that was not stored.

    Attributes
    ----------
    file : str
        The file, as the user named it.
    line : int
        Its line (row number for XLSX, Parquet and queries), from 1.
    reason : str
        The field, the value seen and what was expected.
    use : str
        The part of the mapping that asked for the row: "table 1: deal".
    row : dict of str to str
        The row as the source wrote it, without empty cells.
    """

    file: str
    line: int
    reason: str
    use: str
    row: Mapping[str, str]


@dataclass(frozen=True)
class Rejects:
    """All refused rows of an import, in file order per use."""

    rows: tuple[Reject, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Reject]:
        return iter(self.rows)

    def write_csv(self, path: Path) -> None:
        """Write file, line, use, reason and the raw row (as JSON) to a CSV file."""
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["file", "line", "use", "reason", "row"])
            for r in self.rows:
                row = json.dumps(dict(r.row), ensure_ascii=False)
                writer.writerow([r.file, r.line, r.use, r.reason, row])


@dataclass(frozen=True)
class FileCount:
    """Where the rows of a file went, for one use of it.

    Attributes
    ----------
    read : int
        Rows in the file; every one is counted exactly once below.
    stored : dict of str to int
        By what the row became: an entity ("deal"), for a log "stage_change", "activity",
        "outcome", for a file that is only looked up in "lookup".
    ignored : dict of str to int
        By why the mapping leaves the row out.
    duplicates : int
        Rows whose key was there already with the same content (or a declared choice).
    after_outcome : int
        Events of a log after the case was decided.
    rejected : int
        Rows in `Imported.rejects`.
    made : dict of str to int
        Records made besides, from the same rows: the deals of a log, stage changes of a table.
    """

    file: str
    use: str
    read: int
    stored: Mapping[str, int] = field(default_factory=dict)
    ignored: Mapping[str, int] = field(default_factory=dict)
    duplicates: int = 0
    after_outcome: int = 0
    rejected: int = 0
    made: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        told = sum(self.stored.values()) + sum(self.ignored.values())
        told += self.duplicates + self.after_outcome + self.rejected
        if told != self.read:
            raise ArithmeticError(
                f"{self.file}, {self.use}: {self.read:,} rows were read but {told:,} accounted "
                "for; this is a fault of dealcast, nothing was stored"
            )


@dataclass
class Tally:
    """The count of one use of a file while it is being made."""

    frame: Frame
    use: str
    stored: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    made: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    after_outcome: int = 0
    rejects: list[Reject] = field(default_factory=list)

    def __post_init__(self) -> None:
        for m in self.frame.malformed:
            cells = {str(i): c for i, c in enumerate(m.cells, 1)}
            self.rejects.append(Reject(self.frame.shown, m.line, m.reason, self.use, cells))

    def reject(self, row: int, reason: str) -> None:
        """Refuse a row of the frame."""
        line = int(self.frame.lines[row])
        self.rejects.append(Reject(self.frame.shown, line, reason, self.use, self.frame.raw(row)))

    def count(self) -> FileCount:
        """The final count.

        Raises
        ------
        ArithmeticError
            If it does not add up.
        """
        return FileCount(
            file=self.frame.shown,
            use=self.use,
            read=len(self.frame) + len(self.frame.malformed),
            stored={k: n for k, n in self.stored.items() if n},
            ignored={k: n for k, n in self.ignored.items() if n},
            duplicates=self.duplicates,
            after_outcome=self.after_outcome,
            rejected=len(self.rejects),
            made={k: n for k, n in self.made.items() if n},
        )


@dataclass(frozen=True)
class Imported:
    """A source as canonical tables.

    Attributes
    ----------
    tables : tuple of Table
        One for each entity that has rows.
    decisions : tuple of str
        What was detected or assumed about the files, to be shown to the user.
    """

    tables: tuple[Table, ...]
    facts: SourceFacts
    rejects: Rejects
    counts: tuple[FileCount, ...]
    decisions: tuple[str, ...]

    def table(self, entity: str) -> Table | None:
        """The table of an entity, None where the source has none."""
        return next((t for t in self.tables if t.entity.name == entity), None)
