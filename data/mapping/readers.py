"""Files, sheets and queries -> columns of text, with the line each row stands on.

Nothing is converted here. A CSV cell is the text it holds, stripped; a typed cell (a number in
XLSX, a timestamp in Parquet or from a database) is written as plain text (`1234.5`, ISO 8601)
and marked `native`, so that `data.mapping.parsing` never asks what its comma means. An empty cell
is None. What had to be decided about a file (encoding, delimiter, sheet) is told in `notes`.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openpyxl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sa

from data.mapping.csvfile import read_csv
from data.mapping.frames import CHUNK, FileSpec, FoundRows, Frame, Malformed, Progress
from data.mapping.sections import MappingError, did_you_mean, shorten

__all__ = ["FORMATS", "read_frame"]

FORMATS = ("csv", "xlsx", "parquet", "sql")


def read_frame(
    spec: FileSpec,
    folder: Path,
    *,
    only: Path | None = None,
    environ: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Frame:
    """Read one declared file, sheet or query.

    Parameters
    ----------
    folder : Path
        What relative paths are relative to.
    only : Path or None
        The file to read instead of the declared path: the source is a single file.
    environ : mapping or None
        Where a `url = "$NAME"` is looked up.

    Raises
    ------
    MappingError
        If the file is not there, cannot be read as declared, or has no header.
    """
    tell = progress or (lambda name, rows: None)
    if spec.query is not None:
        shown, found = spec.name, _read_sql(spec, folder, environ or {}, tell)
    else:
        path = _locate(spec, folder, only)
        shown = (
            path.name
            if only
            else str(path.relative_to(folder))
            if path.is_relative_to(folder)
            else str(path)
        )
        found = _READERS[_format_of(spec, path)](spec, path, tell)
    names, renamed = _unique_names(found.header)
    columns = {n: _object_array(c) for n, c in zip(names, found.cells, strict=True)}
    typed = found.native or []
    native = {n: np.array(c, dtype=bool) for n, c in zip(names, typed, strict=False) if any(c)}
    notes = tuple(f"{shown}: {note}" for note in (*found.notes, *renamed))
    lines = np.array(found.lines, dtype=np.int64)
    tell(spec.name, len(lines))
    return Frame(spec, shown, columns, native, lines, tuple(found.malformed), notes)


def _object_array(values: Sequence[Any]) -> npt.NDArray[np.object_]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _unique_names(header: Sequence[str]) -> tuple[list[str], list[str]]:
    names: list[str] = []
    notes = []
    for position, name in enumerate(header, 1):
        chosen = name or f"column {position}"
        copies = sum(h == name for h in header[: position - 1])
        if name and copies:
            chosen = f"{name} ({copies + 1})"
        if chosen != name:
            notes.append(f'column {position} has the header "{name}"; it is called "{chosen}"')
        names.append(chosen)
    return names, notes


def _locate(spec: FileSpec, folder: Path, only: Path | None) -> Path:
    if only is not None:
        return only
    path = folder / str(spec.path)
    other = path.with_suffix("") if path.suffix == ".gz" else path.with_name(path.name + ".gz")
    for candidate in (path, other):
        if candidate.is_file():
            return candidate
    here = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
    message = f"{shorten(str(spec.path))} is not in the source folder; "
    raise MappingError(f"{spec.place}, path", message + did_you_mean(path.name, here))


def _format_of(spec: FileSpec, path: Path) -> str:
    if spec.format is not None:
        return spec.format
    ending = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
    known = {
        ".csv": "csv",
        ".tsv": "csv",
        ".txt": "csv",
        ".xlsx": "xlsx",
        ".xlsm": "xlsx",
        ".parquet": "parquet",
        ".pq": "parquet",
    }
    if ending in known:
        return known[ending]
    raise MappingError(
        spec.place,
        f"the ending of {path.name} does not say its format; set format to one of "
        + ", ".join(f'"{f}"' for f in FORMATS[:3]),
    )


def _cell(value: Any, *, midnight_is_date: bool = False) -> tuple[str | None, bool]:
    """A typed value as text, and whether it was typed."""
    match value:
        case None:
            return None, False
        case str():
            return value.strip() or None, False
        case bool() | np.bool_():
            return ("true" if value else "false"), True
        case int():
            return str(value), True
        case float():
            if not math.isfinite(value):
                return (None, False) if math.isnan(value) else (str(value), False)
            return (str(int(value)) if value.is_integer() else repr(value)), True
        case Decimal():
            return (None, False) if value.is_nan() else (f"{value:f}", True)
        case dt.datetime():
            bare = midnight_is_date and value.time() == dt.time() and value.tzinfo is None
            return (value.date().isoformat() if bare else value.isoformat()), True
        case dt.date() | dt.time():
            return value.isoformat(), True
        case bytes():
            return value.decode("utf-8", "replace"), False
        case list() | dict():
            return json.dumps(value, default=str, ensure_ascii=False), False
    return str(value), False


def _columns_of(
    found: FoundRows,
    rows: Iterable[tuple[int, Sequence[Any]]],
    tell: Progress,
    name: str,
    *,
    midnight_is_date: bool = False,
) -> None:
    width = len(found.header)
    found.cells, found.native = [[] for _ in range(width)], [[] for _ in range(width)]
    empty = 0
    for line, values in rows:
        pairs = [_cell(v, midnight_is_date=midnight_is_date) for v in values]
        if all(text is None for text, _ in pairs):
            empty += 1
            continue
        if any(text is not None for text, _ in pairs[width:]):
            reason = f"has cells to the right of the {width} headers"
            found.malformed.append(Malformed(line, reason, tuple(t or "" for t, _ in pairs)))
            continue
        pairs += [(None, False)] * (width - len(pairs))
        for cells, natives, (text, typed) in zip(found.cells, found.native, pairs, strict=False):
            cells.append(text)
            natives.append(typed)
        found.lines.append(line)
        if len(found.lines) % CHUNK == 0:
            tell(name, len(found.lines))
    if empty:
        found.notes.append(f"{empty} empty rows skipped")


def _read_xlsx(spec: FileSpec, path: Path, tell: Progress) -> FoundRows:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # openpyxl warns of styling it does not keep
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        try:
            names = book.sheetnames
            if spec.sheet is not None and spec.sheet not in names:
                message = f"{shorten(spec.sheet)} is not there; {did_you_mean(spec.sheet, names)}"
                raise MappingError(f"{spec.place}, sheet", message)
            sheet = book[spec.sheet or names[0]]
            note = f'sheet "{sheet.title}" of {len(names)}'
            numbered = enumerate(sheet.iter_rows(values_only=True), 1)
            rows = ((n, r) for n, r in numbered if n > spec.skip_lines)
            header = list(spec.columns)
            while not header:
                first = next(rows, None)
                if first is None:
                    raise MappingError(spec.place, f"sheet {sheet.title} has no line of headers")
                header = [_cell(v)[0] or "" for v in first[1]]
                while header and not header[-1]:
                    header.pop()
            found = FoundRows(header, [], [], [], [], [note])
            _columns_of(found, rows, tell, spec.name, midnight_is_date=True)
        finally:
            book.close()
    return found


def _read_parquet(spec: FileSpec, path: Path, tell: Progress) -> FoundRows:
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise MappingError(spec.place, f"{path.name} is not a Parquet file: {error}") from error
    found = FoundRows(list(table.column_names), [], [], list(range(1, table.num_rows + 1)), [], [])
    found.native = []
    for column in table.columns:
        if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
            column = pc.cast(column, pa.timestamp("us", column.type.tz), safe=False)
        pairs = [_cell(v) for v in column.to_pylist()]
        found.cells.append([t for t, _ in pairs])
        found.native.append([typed for _, typed in pairs])
    tell(spec.name, table.num_rows)
    return found


def _read_sql(
    spec: FileSpec, folder: Path, environ: Mapping[str, str], tell: Progress
) -> FoundRows:
    place = f"{spec.place}, url"
    url = str(spec.url)
    if url.startswith("$"):
        if url[1:] not in environ:
            raise MappingError(place, f"the environment variable {url[1:]} is not set")
        url = environ[url[1:]]
    try:
        address = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        message = 'is not a database URL, like "postgresql+psycopg://user@host/crm"'
        raise MappingError(place, message) from error
    if address.get_backend_name() == "sqlite" and address.database:
        file = folder / address.database
        if not file.is_file():
            raise MappingError(place, f"there is no database file {file}")
        address = address.set(database=str(file))
    try:
        engine = sa.create_engine(address)
        with engine.connect().execution_options(stream_results=True) as connection:
            result = connection.execute(sa.text(str(spec.query)))
            found = FoundRows(list(result.keys()), [], [], [], [], [])
            _columns_of(found, ((i, tuple(r)) for i, r in enumerate(result, 1)), tell, spec.name)
        engine.dispose()
    except (sa.exc.SQLAlchemyError, ImportError) as error:
        shown = address.render_as_string(hide_password=True)
        raise MappingError(spec.place, f"the query failed on {shown}: {error}") from error
    return found


_READERS: dict[str, Callable[[FileSpec, Path, Progress], FoundRows]] = {
    "csv": read_csv,
    "xlsx": _read_xlsx,
    "parquet": _read_parquet,
}
