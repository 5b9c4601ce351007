"""Any source -> canonical records, as a mapping file says: `dealcast import`'s engine.

`load_mapping` reads the file strictly (`docs/mapping.md` is its reference); `read_source` does
what it says. Every row is stored, or counted with the reason it was not; a value that allows two
readings is an error that asks. The same files always give the same tables.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.mapping.evaluation import Evaluator
from data.mapping.eventlog import map_log
from data.mapping.expressions import Context, ValueMap
from data.mapping.frames import FileSpec, Progress
from data.mapping.imported import Imported, Rejects, Tally
from data.mapping.logspec import LogSpec, read_log
from data.mapping.mapfile import (
    Pipeline,
    SourceSpec,
    TableSpec,
    read_file_spec,
    read_maps,
    read_pipeline,
    read_source_spec,
    read_table,
    read_toml,
)
from data.mapping.mapped_table import HAPPENED, MappedRows, Settings, map_table
from data.mapping.readers import read_frame
from data.mapping.sections import MappingError, Section, did_you_mean
from data.records import ENTITIES, SourceFacts, Table

__all__ = ["Mapping", "load_mapping", "read_source"]

_GRACE = np.timedelta64(1, "D")  # a clock of another time zone is not yet a fault


@dataclass(frozen=True)
class Mapping:
    """A whole mapping file, checked."""

    source: SourceSpec
    files: MappingOf[str, FileSpec]
    maps: MappingOf[str, ValueMap]
    pipelines: tuple[Pipeline, ...]
    tables: tuple[TableSpec, ...]
    logs: tuple[LogSpec, ...]


def load_mapping(path: Path | str) -> Mapping:
    """Read and check a mapping file.

    Raises
    ------
    MappingError
        Naming the place in the file, the value seen and what is allowed.
    """
    top = read_toml(Path(path))
    source = read_source_spec(Section("source", top.take("source", {})))
    files = {name: read_file_spec(name, s) for name, s in top.sections("files")}
    if not files:
        raise MappingError("files", 'there is none; add [files.deals] with path = "deals.csv"')
    maps = read_maps(top)
    context = Context(source.zone, tuple(files), maps)
    mapping = Mapping(
        source,
        files,
        maps,
        tuple(read_pipeline(s) for s in top.array("stages", "stages")),
        tuple(read_table(s, files, context) for s in top.array("table", "table")),
        tuple(read_log(s, files, context) for s in top.array("log", "log")),
    )
    top.finish()
    if not mapping.tables and not mapping.logs:
        raise MappingError("", "the mapping makes nothing; add a [[table]] or a [[log]]")
    _check_pipelines(_pipelines(mapping))
    return mapping


def _pipelines(mapping: Mapping) -> list[Pipeline]:
    return [*mapping.pipelines, *(p for g in mapping.logs if (p := g.as_pipeline) is not None)]


def _check_pipelines(pipelines: list[Pipeline]) -> None:
    ids = [p.pipeline_id for p in pipelines]
    for one in ids:
        if ids.count(one) > 1:
            raise MappingError(
                "stages",
                f'the pipeline "{one}" is declared twice; give it '
                'a name of its own with pipeline = "..."',
            )


def read_source(
    mapping: Mapping,
    source: Path,
    *,
    at: np.datetime64,
    progress: Progress | None = None,
    environ: MappingOf[str, str] | None = None,
) -> Imported:
    """Turn a source into canonical tables.

    Parameters
    ----------
    source : Path
        The folder that the mapping's paths are relative to, or, when the mapping has one file,
        that file.
    at : datetime64[us]
        Now. Nothing later can have happened; it is stored nowhere.
    progress : callable or None
        Called with a file's name in the mapping and the number of its rows read so far.
    environ : mapping or None
        Where a database `url = "$NAME"` is looked up.

    Raises
    ------
    MappingError
        If the files and the mapping do not fit, or a column allows two readings.
    """
    work = _Work(mapping, source, environ, progress)
    known = mapping.source.exported_at
    pipelines = _pipelines(mapping)
    settings = Settings(
        currency=mapping.source.currency,
        latest=at + _GRACE if np.isnat(known) else known,
        latest_is="now" if np.isnat(known) else f"exported_at ({known.astype('datetime64[s]')}Z)",
        pipeline=pipelines[0].pipeline_id if len(pipelines) == 1 else None,
    )
    mapped = [map_table(t, work.evaluator(t.file), settings) for t in mapping.tables]
    logs = [map_log(g, work.evaluator(g.file), settings) for g in mapping.logs]
    parts: dict[str, list[Table]] = {}
    for entity in dict.fromkeys(t.entity.name for t in mapping.tables):
        rows = [m for m in mapped if m.table.entity.name == entity]
        parts[entity] = [_settle(rows)]
    for table in (t for g in logs for t in (g.cases, *g.events)):
        parts.setdefault(table.entity.name, []).append(table)
    moves = [m.moves for m in mapped if m.moves is not None]
    parts.setdefault("stage_change", []).extend(moves)
    parts.setdefault("stage", []).append(_stage_table(pipelines))
    tables = {n: Table.concat(p) for n, p in parts.items() if p}
    for name, table in tables.items():
        _check_unique(name, table)
    facts = _facts(mapping, tables, [m.table.entity.name for m in mapped if m.pseudo])
    work.note_stages(tables)
    tallies = [*(m.tally for m in mapped), *(g.tally for g in logs), *work.looked_up()]
    return Imported(
        tables=tuple(_stamp(t, facts) for t in tables.values() if len(t)),
        facts=facts,
        rejects=Rejects(tuple(r for t in tallies for r in sorted(t.rejects, key=lambda r: r.line))),
        counts=tuple(t.count() for t in tallies),
        decisions=tuple(work.notes),
    )


class _Work:
    """The files of one import, each read once."""

    def __init__(
        self,
        mapping: Mapping,
        source: Path,
        environ: MappingOf[str, str] | None,
        progress: Progress | None,
    ) -> None:
        self.mapping, self.environ, self.progress = mapping, environ, progress
        self.notes: dict[str, None] = {}
        self._open: dict[str, Evaluator] = {}
        if not source.exists():
            raise MappingError("", f"the source {source} does not exist; name a folder or a file")
        self.only = source if source.is_file() else None
        self.folder = source.parent if source.is_file() else source
        if self.only is not None and len(mapping.files) != 1:
            names = ", ".join(str(f.path or f.name) for f in mapping.files.values())
            raise MappingError(
                "files",
                f"the mapping reads {len(mapping.files)} files ({names}), "
                f"so the source must be their folder, and {source} is a file",
            )

    def evaluator(self, name: str) -> Evaluator:
        """The opened file."""
        if name not in self._open:
            frame = read_frame(
                self.mapping.files[name],
                self.folder,
                only=self.only,
                environ=self.environ,
                progress=self.progress,
            )
            self.notes.update(dict.fromkeys(frame.notes))
            zone = self.mapping.source.zone
            self._open[name] = Evaluator(frame, self.evaluator, zone, self.notes)
        return self._open[name]

    def looked_up(self) -> list[Tally]:
        """Counts of the files that are only looked up in."""
        used = {t.file for t in self.mapping.tables} | {g.file for g in self.mapping.logs}
        tallies = [Tally(e.frame, "lookup") for n, e in self._open.items() if n not in used]
        for tally in tallies:
            tally.stored["lookup"] = len(tally.frame)
        return tallies

    def note_stages(self, tables: MappingOf[str, Table]) -> None:
        """Tell of stages that deals are in and no pipeline declares."""
        declared = set(tables["stage"]["stage_id"]) if len(tables["stage"]) else None
        if declared is None:
            return
        for entity, column in (("deal", "stage_id"), ("stage_change", "to_stage_id")):
            if entity not in tables:
                continue
            values, counts = np.unique(tables[entity][column].astype(str), return_counts=True)
            for value, count in zip(values, counts, strict=True):
                if value != "None" and value not in declared:
                    self.notes[
                        f'the stage "{value}" of {count:,} {entity} rows is not declared '
                        "in [[stages]]"
                    ] = None


def _settle(parts: list[MappedRows]) -> Table:
    """One table of an entity, in which every key stands once.

    Rows with one key and the same content are one row; with different content they are all
    refused, unless the mapping says which to keep.
    """
    table = Table.concat([p.table for p in parts])
    part = np.repeat(np.arange(len(parts)), [len(p.rows) for p in parts])
    row = np.concatenate([p.rows for p in parts])
    keep = np.ones(len(table), dtype=bool)
    keys = pd.DataFrame({k: table[k] for k in table.entity.key})
    doubled = np.flatnonzero(keys.duplicated(keep=False).to_numpy())
    groups: dict[tuple[Any, ...], list[int]] = {}
    for i in doubled.tolist():
        groups.setdefault(tuple(keys.iloc[i]), []).append(i)
    for key, same in groups.items():
        differing = _differing(table, same)
        rules = {parts[part[i]].duplicates for i in same}
        rule = rules.pop() if len(rules) == 1 else "reject"
        if differing and rule == "reject":
            keep[same] = False
            told = ", ".join(map(str, key))
            for i in same:
                where = _lines(parts, part[same], row[same])
                why = f"the key {told} stands on {where} with different {differing}; mend the "
                parts[part[i]].tally.reject(int(row[i]), why + 'file or set duplicates = "last"')
            continue
        chosen = same[-1] if rule == "last" else same[0]
        for i in same:
            if i != chosen:
                keep[i] = False
                parts[part[i]].tally.duplicates += 1
    for number, one in enumerate(parts):
        here = part == number
        one.tally.stored[table.entity.name] += int((keep & here).sum())
        if one.moves is not None:
            ids = table[table.entity.key[0]][here & keep]
            one.moves = one.moves.take(np.isin(one.moves["entity_id"].astype(str), ids.astype(str)))
            one.moves = one.moves.take(_once(one.moves))
            one.tally.made["stage_change"] += len(one.moves)
    return table.take(np.flatnonzero(keep))


def _lines(parts: list[MappedRows], part: npt.NDArray[Any], row: npt.NDArray[np.int64]) -> str:
    shown = [
        (parts[p].tally.frame.shown, int(parts[p].tally.frame.lines[r]))
        for p, r in zip(part, row, strict=True)
    ]
    return ", ".join(f"line {line} of {file}" for file, line in shown[:5])


def _differing(table: Table, rows: list[int]) -> str:
    """The columns in which rows differ, in words; bookkeeping does not count."""
    columns = {f.name: table[f.name] for f in table.entity.fields} | table.attributes
    names = []
    for name, values in columns.items():
        first = values[rows[0]]
        others = (values[r] for r in rows[1:])
        # A missing value (NaN, NaT) is the one thing that is not equal to itself.
        if any(v != first and not (v != v and first != first) for v in others):
            names.append(name)
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _once(table: Table) -> npt.NDArray[np.bool_]:
    keys = pd.DataFrame({k: table[k] for k in table.entity.key})
    once: npt.NDArray[np.bool_] = ~keys.duplicated().to_numpy()
    return once


def _check_unique(name: str, table: Table) -> None:
    """Refuse two parts of a mapping that make the same record."""
    twice = np.flatnonzero(~_once(table))
    if len(twice):
        key = ", ".join(str(table[k][twice[0]]) for k in table.entity.key)
        raise MappingError(
            "",
            f"two parts of the mapping make the same {name} ({key}); leave "
            "one out, or give their ids a prefix with a template",
        )


def _stage_table(pipelines: list[Pipeline]) -> Table:
    rows: list[dict[str, Any]] = []
    for pipeline in pipelines:
        kinds = (("open", pipeline.open), ("won", pipeline.won), ("lost", pipeline.lost))
        for order, (kind, stage) in enumerate(((k, s) for k, ss in kinds for s in ss), 1):
            rows.append(
                {
                    "pipeline_id": pipeline.pipeline_id,
                    "stage_id": stage.stage_id,
                    "name": stage.name,
                    "sort_order": order,
                    "kind": kind,
                    "default_probability": stage.default_probability,
                    "rotten_after_days": stage.rotten_after_days,
                }
            )
    return Table.from_rows(ENTITIES["stage"], rows)


def _facts(mapping: Mapping, tables: MappingOf[str, Table], pseudo: list[str]) -> SourceFacts:
    source = mapping.source
    lists = {"static": source.static, "exclude": source.exclude, "trusted": source.trusted}
    for key, by_entity in lists.items():
        for entity, names in by_entity.items():
            place = f"source, {key}.{entity}"
            if entity not in tables:
                raise MappingError(place, f"the mapping makes no {entity}")
            table = tables[entity]
            known = [*(f.name for f in table.entity.fields), *table.attributes]
            for name in names:
                if name not in known:
                    message = f'"{name}" is neither a field nor an attribute of {entity}; '
                    raise MappingError(place, message + did_you_mean(name, known))
    times = [t[name] for t in tables.values() for name in HAPPENED if name in t.columns]
    found = [t[~np.isnat(t)].max() for t in times if not np.isnat(t).all()]
    latest = max(found) if found else np.datetime64("NaT", "us")
    return SourceFacts(
        name=source.name,
        currency=source.currency,
        static=source.static,
        excluded=source.exclude,
        pseudo_times=tuple(dict.fromkeys(pseudo)),
        observed_from=source.observed_from,
        observed_until=latest if np.isnat(source.exported_at) else source.exported_at,
        trusted=source.trusted,
    )


def _stamp(table: Table, facts: SourceFacts) -> Table:
    """Write into every row where it comes from, and when the source showed it."""
    n = len(table)
    return replace(
        table,
        columns={
            **table.columns,
            "source": np.full(n, facts.name, dtype=object),
            "seen_at": np.full(n, facts.observed_until, dtype="datetime64[us]"),
        },
    )
