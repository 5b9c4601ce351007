"""CSV files -> columns of text: encoding, delimiter and rows that do not fit."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.mapping.frames import CHUNK, FileSpec, FoundRows, Malformed, Progress
from data.mapping.sections import MappingError

__all__ = ["read_csv"]

_DELIMITERS = (",", ";", "\t", "|")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def _decode(spec: FileSpec, content: bytes) -> tuple[str, str]:
    """The text and, in words, how it was read."""
    if spec.encoding is not None:
        try:
            return content.decode(spec.encoding), f"encoding {spec.encoding} (declared)"
        except (UnicodeDecodeError, LookupError) as error:
            raise MappingError(f"{spec.place}, encoding", str(error)) from error
    for mark, encoding in _BOMS:
        if content.startswith(mark):
            return content.decode(encoding), f"encoding {encoding} (byte order mark)"
    try:
        return content.decode("utf-8"), "encoding utf-8"
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError as error:
        message = f"is neither utf-8 (line {line}) nor cp1252; set encoding"
        raise MappingError(spec.place, message) from error
    return text, f"encoding cp1252, since line {line} is not valid utf-8; set encoding if wrong"


def _sniff(spec: FileSpec, text: str) -> tuple[str, str]:
    """The delimiter that cuts the first lines into the most columns, all of one width."""
    sample = text[:200_000].splitlines(keepends=True)[: 200 + spec.skip_lines]
    sample = sample[spec.skip_lines :]
    if len(text) > 200_000:
        sample = sample[:-1]
    scores = {}
    for delimiter in _DELIMITERS:
        rows = [r for r in csv.reader(sample, **_dialect(spec, delimiter, strict=False)) if r]
        width = len(rows[0]) if rows else 1
        same = sum(len(r) == width for r in rows) / max(len(rows), 1)
        if width > 1 and same >= 0.9:
            scores[delimiter] = (same, width)
    if not scores:
        return ",", "one column (no delimiter found)"
    best = max(scores, key=lambda d: scores[d])
    if sum(s == scores[best] for s in scores.values()) > 1:
        message = f"could be {' or '.join(repr(d) for d in scores)}; set it"
        raise MappingError(f"{spec.place}, delimiter", message)
    return best, f"delimiter {best!r}"


def _dialect(spec: FileSpec, delimiter: str, *, strict: bool) -> dict[str, Any]:
    if spec.quote is None:
        return {"delimiter": delimiter, "quoting": csv.QUOTE_NONE, "strict": strict}
    return {"delimiter": delimiter, "quotechar": spec.quote, "strict": strict}


def _csv_rows(
    spec: FileSpec, text: str, delimiter: str, found: FoundRows
) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of every row that is not empty; unreadable ones go to `found.malformed`."""
    empty = 0
    lines = io.StringIO(text, newline="")
    for _ in range(spec.skip_lines):
        lines.readline()
    reader = csv.reader(lines, **_dialect(spec, delimiter, strict=True))
    while True:
        line = spec.skip_lines + reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            if empty:
                found.notes.append(f"{empty} empty rows skipped")
            return
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                message = f"the quoted cell that begins on line {line} never ends; mend the file, "
                raise MappingError(spec.place, message + 'or set quote = ""') from error
            found.malformed.append(Malformed(line, f"cannot be read: {error}", ()))
            continue
        if any(cells):
            yield line, cells
        elif len(cells) > 1:
            empty += 1


def read_csv(spec: FileSpec, path: Path, tell: Progress) -> FoundRows:
    """Read a CSV file, compressed or not.

    Raises
    ------
    MappingError
        If the file cannot be decoded, its delimiter is unclear, a quoted cell never ends, or
        there is no header.
    """
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    text, encoding = _decode(spec, content)
    del content
    declared = spec.delimiter
    if declared is None and (first := text[:6].splitlines()[:1]) and first[0][:4] == "sep=":
        spec = replace(spec, skip_lines=spec.skip_lines + 1)  # Excel's own way to name it
        declared = first[0][4:5] or None
    delimiter, how = (declared, f"delimiter {declared!r}") if declared else _sniff(spec, text)
    found = FoundRows([], [], None, [], [], [f"{encoding}, {how}"])
    rows = _csv_rows(spec, text, delimiter, found)
    if spec.columns:
        found.header = list(spec.columns)
    else:
        _, header = next(rows, (0, []))
        found.header = [h.strip() for h in header]
    if not found.header:
        raise MappingError(spec.place, f"{path.name} is empty; it must have a line of headers")
    _fill(found, rows, tell, spec.name)
    return found


def _fill(
    found: FoundRows, rows: Iterable[tuple[int, list[str]]], tell: Progress, name: str
) -> None:
    """Turn rows into columns, a chunk at a time; equal texts share one object."""
    width = len(found.header)
    found.cells = [[] for _ in range(width)]
    pools: list[dict[str, str | None]] = [{} for _ in range(width)]
    chunk: list[list[str]] = []

    def flush() -> None:
        for column, pool, values in zip(found.cells, pools, zip(*chunk, strict=True), strict=True):
            for v in values:
                if v not in pool:
                    pool[v] = v.strip() or None
            column.extend([pool[v] for v in values])
        chunk.clear()
        tell(name, len(found.lines))

    for line, cells in rows:
        if len(cells) != width:
            reason = f"has {len(cells)} cells where the header has {width}"
            found.malformed.append(Malformed(line, reason, tuple(cells)))
            continue
        chunk.append(cells)
        found.lines.append(line)
        if len(chunk) == CHUNK:
            flush()
    if chunk:
        flush()
