"""Expressions -> columns: what a mapping file says, done to the rows of a file.

Every value comes with its fate: `Parsed.bad` holds, by row, why a cell cannot be used. A
column that cannot be read at all (it is not there, it allows two readings) is a `MappingError`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.mapping.expressions import (
    BRACES,
    Choose,
    ColumnOf,
    Condition,
    Const,
    Expression,
    First,
    How,
    Lookup,
    Order,
    Shift,
    Template,
)
from data.mapping.frames import Frame
from data.mapping.parsing import (
    Ambiguous,
    Cells,
    Parsed,
    Reading,
    as_attribute,
    detect_kind,
    parse_cells,
)
from data.mapping.sections import MappingError, did_you_mean, shorten
from data.mapping.splicing import apply_map, filled, first_of, merge_bare, missing_of, objects, take

__all__ = ["Evaluator"]

BoolArray = npt.NDArray[np.bool_]


@dataclass
class Evaluator:
    """Turns expressions into columns over the rows of one file.

    Parameters
    ----------
    frame : Frame
        The file.
    open_file : callable
        Gives the evaluator of another file of the mapping, for lookups.
    zone : ZoneInfo
        Where times without offset belong.
    notes : dict
        Collects, in order and once each, what was decided about the columns.
    """

    frame: Frame
    open_file: Callable[[str], Evaluator]
    zone: ZoneInfo
    notes: dict[str, None]
    _clean: dict[tuple[str, tuple[str, ...] | None], npt.NDArray[np.object_]] = field(
        default_factory=dict
    )

    def __len__(self) -> int:
        return len(self.frame)

    def evaluate(self, expression: Expression, kind: str, *, share: bool = False) -> Parsed:
        """The column of an expression.

        Parameters
        ----------
        kind : {"text", "list", "number", "boolean", "time", "date"}
        share : bool
            True where the unit is 0-1, so that "20 %" is 0.2.
        """
        match expression:
            case ColumnOf():
                cells, bad = self._column_cells(expression)
                label = f'column "{expression.column}"'
                return self._parse(cells, bad, kind, expression.how, label, share)
            case Const():
                text = np.full(len(self), expression.text or None, dtype=object)
                cells = Cells(text, np.ones(len(self), dtype=bool))
                parsed = self._parse(cells, {}, kind, expression.how, "const", share)
                if parsed.bad:
                    raise MappingError(expression.how.place, parsed.bad[0])
                return parsed
            case Template():
                cells, bad = self._mapped(self._join(expression), None, expression.how)
                label = f'template "{expression.template}"'
                return self._parse(cells, bad, kind, expression.how, label, share)
            case Lookup():
                return self._look_up(expression, kind, share)
            case First():
                parts = [self.evaluate(c, kind, share=share) for c in expression.choices]
                return first_of(parts)
            case Choose():
                return self._choose(expression, kind, share)
            case Order():
                return self._times_of_order(expression, kind)
            case Shift():
                return self._shift(expression, kind)

    def attribute(self, expression: Expression) -> tuple[npt.NDArray[np.object_], Parsed]:
        """The column of an attribute, of its declared kind or the one its values show."""
        kind = expression.how.kind or self._detect(expression)
        parsed = self.evaluate(expression, kind)
        return as_attribute(parsed, kind), parsed

    def texts(self, column: str, place: str) -> npt.NDArray[np.object_]:
        """The texts of a column, None where they mean missing."""
        return self._texts(column, place, None)

    def holds(self, condition: Condition) -> BoolArray:
        """Where a condition holds; a value that never occurs is noted."""
        texts = self.texts(condition.column, condition.place)
        codes, found = pd.factorize(filled(texts))
        occurring = {str(t) for t in found}
        for value in condition.values:
            if value not in occurring:
                seen = did_you_mean(value, sorted(occurring)[:20])
                self.note(
                    f'column "{condition.column}": the value "{value}" of '
                    f"{condition.place} never occurs; {seen}"
                )
        hit: BoolArray = np.isin(codes, [i for i, t in enumerate(found) if t in condition.values])
        return ~hit if condition.negated else hit

    def note(self, text: str) -> None:
        """Tell the user something about this file."""
        self.notes[f"{self.frame.shown}: {text}"] = None

    # -- columns -------------------------------------------------------------------------------

    def _texts(
        self, column: str, place: str, missing: tuple[str, ...] | None
    ) -> npt.NDArray[np.object_]:
        if column == "row" and column not in self.frame.columns:
            return objects([str(i) for i in range(1, len(self) + 1)])
        if column not in self.frame.columns:
            known = did_you_mean(column, self.frame.columns)
            raise MappingError(place, f'{self.frame.shown} has no column "{column}"; {known}')
        if (column, missing) not in self._clean:
            spec = self.frame.spec
            own = (spec.missing_in or {}).get(column, spec.missing)
            words = set(own if missing is None else missing)
            texts = self.frame.columns[column]
            if words:
                texts = texts.copy()
                texts[np.isin(texts.astype(str), list(words))] = None
            self._clean[column, missing] = texts
        return self._clean[column, missing]

    def _column_cells(self, expression: ColumnOf) -> tuple[Cells, dict[int, str]]:
        texts = self._texts(expression.column, expression.how.place, expression.how.missing)
        return self._mapped(texts, self.frame.native.get(expression.column), expression.how)

    def _join(self, expression: Template) -> npt.NDArray[np.object_]:
        place = expression.how.place
        parts = {c: self._texts(c, place, None) for c in expression.columns}
        rows = zip(*parts.values(), strict=True)
        fixed = BRACES.split(expression.template)[::2]  # a header may hold dots and colons
        order = [list(parts).index(c) for c in expression.columns]
        joined = [
            None
            if None in row
            else fixed[0]
            + "".join(str(row[i]) + text for i, text in zip(order, fixed[1:], strict=True))
            for row in rows
        ]
        return objects(joined)

    def _mapped(
        self, texts: npt.NDArray[np.object_], native: BoolArray | None, how: How
    ) -> tuple[Cells, dict[int, str]]:
        if how.extract is not None:
            codes, distinct = pd.factorize(texts)
            found = [m[1] if (m := re.search(how.extract, str(t))) else None for t in distinct]
            texts, native = objects([*found, None])[codes], None
        if how.map is None:
            return Cells(texts, native), {}
        codes, distinct = pd.factorize(filled(texts))
        new, own, bad = apply_map(how.map, [str(t) for t in distinct])
        reasons = {int(r): bad[codes[r]] for r in np.flatnonzero(np.isin(codes, list(bad)))}
        return Cells(objects(new)[codes], np.array(own, dtype=bool)[codes]), reasons

    def _parse(
        self, cells: Cells, bad: dict[int, str], kind: str, how: How, label: str, share: bool
    ) -> Parsed:
        try:
            parsed = parse_cells(cells, kind, self._reading(how, share))
        except Ambiguous as error:
            raise MappingError(how.place, f"{self.frame.shown}, {label} has {error}") from error
        for note in parsed.notes:
            self.note(f"{label}: {note}")
        if parsed.bare is not None and (days := int(parsed.bare.sum())):
            zone = str(self.zone)
            self.note(f"{label}: {days:,} dates without a time are taken as 00:00 {zone}")
        values = parsed.values
        if how.scale is not None:
            if kind != "number":
                raise MappingError(f"{how.place}, scale", f"is for numbers, and this is a {kind}")
            values = values * how.scale
        return Parsed(values, {**parsed.bad, **bad}, parsed.notes, parsed.bare)

    def _reading(self, how: How, share: bool = False) -> Reading:
        spec = self.frame.spec
        return Reading(
            zone=self.zone,
            decimal=how.decimal or spec.decimal,
            date_order=how.date_order or spec.date_order,
            time_format=how.time_format,
            separator=how.separator,
            share=share,
        )

    def _detect(self, expression: Expression) -> str:
        match expression:
            case ColumnOf():
                cells, _ = self._column_cells(expression)
                label = f'column "{expression.column}"'
            case Lookup():
                return self.open_file(expression.file)._detect(expression.value)
            case Const():
                cells, label = Cells(objects([expression.text])), "const"
            case _:
                return "text"
        try:
            kind, note = detect_kind(cells, self._reading(expression.how))
        except Ambiguous as error:
            raise MappingError(
                expression.how.place, f'{self.frame.shown}, {label} has {error}, or as = "text"'
            ) from error
        if note:
            self.note(f"{label}: {note}")
        return kind

    # -- forms ---------------------------------------------------------------------------------

    def _look_up(self, expression: Lookup, kind: str, share: bool) -> Parsed:
        other = self.open_file(expression.file)
        found = other.evaluate(expression.value, kind, share=share)
        position = other._index(expression.match, expression.how.place, found)
        keys = self.evaluate(expression.key, "text")
        codes, distinct = pd.factorize(keys.values)
        place = np.array([position.get(str(k), -1) for k in distinct] + [-1], dtype=np.int64)
        rows = place[codes]
        bad = dict(keys.bad)
        values = take(found.values, rows)
        nowhere = (rows < 0) & (codes >= 0)
        if expression.default is not None:
            default = self.evaluate(Const(expression.how, expression.default), kind).values
            values[nowhere] = default[nowhere]
        else:
            for row in np.flatnonzero(nowhere):
                key = shorten(str(keys.values[row]))
                bad[int(row)] = f'{key} is not in "{expression.match}" of {other.frame.shown}'
        for row in np.flatnonzero(np.isin(rows, list(found.bad))) if found.bad else ():
            line = other.frame.lines[rows[row]]
            bad[int(row)] = f"{found.bad[int(rows[row])]} ({other.frame.shown}, line {line})"
        values[list(bad)] = missing_of(values)
        bare = None if found.bare is None else np.append(found.bare, False)[rows]
        return Parsed(values, bad, (), bare)

    def _index(self, match: str, place: str, found: Parsed) -> dict[str, int]:
        """Row by key; keys that stand twice with different values are an error."""
        position: dict[str, int] = {}
        for row, key in enumerate(self.texts(match, f"{place}, match")):
            if key is None:
                continue
            before = position.setdefault(key, row)
            one, two = found.values[before], found.values[row]
            if before != row and one != two and not (one != one and two != two):
                message = f'{self.frame.shown} has {shorten(key)} twice in "{match}" '
                lines = f"(lines {self.frame.lines[before]} and {self.frame.lines[row]})"
                raise MappingError(place, message + lines + " with different values")
        return position

    def _choose(self, expression: Choose, kind: str, share: bool) -> Parsed:
        holds = self.holds(expression.condition)
        yes = self.evaluate(expression.then, kind, share=share)
        if expression.otherwise is None:
            values = yes.values.copy()
            values[~holds] = missing_of(values)
            no = Parsed(values, {})
        else:
            no = self.evaluate(expression.otherwise, kind, share=share)
        values = yes.values.copy()
        values[~holds] = no.values[~holds]
        bad = {r: why for r, why in yes.bad.items() if holds[r]}
        bad |= {r: why for r, why in no.bad.items() if not holds[r]}
        return Parsed(values, bad, (), merge_bare(yes, no, holds))

    def _shift(self, expression: Shift, kind: str) -> Parsed:
        if kind != "time":
            raise MappingError(expression.how.place, f"shift makes times, and this is a {kind}")
        start = self.evaluate(expression.start, "time")
        by = self.evaluate(expression.by, "number")
        steps = np.nan_to_num(by.values) * expression.unit.astype(np.float64)
        values = start.values + steps.round().astype(np.int64).astype("timedelta64[us]")
        values[np.isnan(by.values)] = np.datetime64("NaT")
        return Parsed(values, {**by.bad, **start.bad}, (), start.bare)

    def _times_of_order(self, expression: Order, kind: str) -> Parsed:
        if kind not in ("time", "date"):
            raise MappingError(expression.how.place, f"order makes times, and this is a {kind}")
        place = expression.how.place
        native = np.ones(len(self), dtype=bool) if expression.by == "row" else None
        native = self.frame.native.get(expression.by, native)
        cells = Cells(self._texts(expression.by, place, None), native)
        reading = self._reading(expression.how)
        by = "time" if detect_kind(cells, reading)[0] in ("time", "date") else "number"
        keys = self._parse(cells, {}, by, How(place), f'column "{expression.by}"', False)
        nowhere = f'"{expression.by}" is missing, so the row has no place in the order'
        bad = {int(r): nowhere for r in np.flatnonzero(pd.isna(keys.values))} | keys.bad
        rank = np.empty(len(self), dtype=np.int64)
        rank[np.argsort(keys.values, kind="stable")] = np.arange(len(self))
        values = expression.start + rank * expression.step
        values[list(bad)] = np.datetime64("NaT")
        return Parsed(values.astype("datetime64[D]") if kind == "date" else values, bad)
