"""Numbers as issued: every score and forecast that was given out, appended and never changed.

Functions on an open connection; `data.store.Store` gives them their transactions. What is said
again in the same words, about the same moment, is kept once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec
import numpy as np
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite

from data.store.packing import pack, unpack
from data.store.rows import content_hash, micros, moment
from data.store.tables import CELL_ISSUED, FORECAST_ISSUED, MODEL_ISSUED, SCORE_ISSUED, StoreError

__all__ = [
    "ForecastFilter",
    "IssuedCell",
    "IssuedForecast",
    "IssuedScore",
    "forecasts",
    "keep_forecasts",
    "keep_scores",
    "score_rows",
    "scores",
]

_AT_ONCE = 2_000  # rows of one statement
_IDS_AT_ONCE = 500


@dataclass(frozen=True)
class IssuedScore:
    """A score as it was given out.

    Attributes
    ----------
    entity : str
        "lead" or "deal".
    entity_id : str
    as_of, issued_at : datetime64[us], UTC
        The moment the score speaks of, and the moment it was given.
    model : dict of str to str
        Name, version and what else the answer said of the model.
    probability : float or None
        What outcomes are held against: of qualifying (lead) or winning (deal) within `horizon`.
    horizon : float or None
        Days after as_of; None for a deal's chance to be won in the end.
    detail : dict
        All else that was said, plain JSON values.
    """

    entity: str
    entity_id: str
    as_of: np.datetime64
    issued_at: np.datetime64
    model: dict[str, str]
    probability: float | None
    horizon: float | None
    detail: dict[str, Any]


@dataclass(frozen=True)
class IssuedCell:
    """One period and group of a forecast as it was given out; money in the base currency.

    Attributes
    ----------
    start, end : datetime64[us], UTC
        The period, its end excluded.
    group : str
    mean : float
    target, probability_of_target : float or None
    components, quantiles : dict of str to float
        Means by part; quantiles by level as text, "0.1".
    detail : dict
        All else that was said of it, plain JSON values.
    """

    start: np.datetime64
    end: np.datetime64
    group: str
    mean: float
    target: float | None
    probability_of_target: float | None
    components: dict[str, float]
    quantiles: dict[str, float]
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class IssuedForecast:
    """A forecast as it was given out.

    Attributes
    ----------
    as_of, issued_at : datetime64[us], UTC
        The moment the forecast speaks from, and the moment it was given.
    period : str
        "week", "month", "quarter" or "days".
    by : str or None
        What it was grouped by; None for the whole.
    measure : str
        What is counted: "amount", "recurring" or "count".
    hindsight : bool
        Whether the model knew of later times than as_of.
    model : dict of str to str
        Name, version and what else the answer said of the model.
    cells : tuple of IssuedCell
        In the order of the answer.
    draws, seed : int or None
        What makes the same numbers again from the same records.
    inputs : str or None
        Fingerprint of the records it was made from.
    detail : dict
        All else that was said, plain JSON values.
    groups : frozenset of str
        When read: all groups of the forecast, those whose cells were not asked for included.
    """

    as_of: np.datetime64
    issued_at: np.datetime64
    period: str
    by: str | None
    measure: str
    hindsight: bool
    model: dict[str, str]
    cells: tuple[IssuedCell, ...]
    draws: int | None = None
    seed: int | None = None
    inputs: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ForecastFilter:
    """Which cells of issued forecasts are asked for; None leaves a condition out.

    Attributes
    ----------
    period, measure : str or None
    group : str or None
    by : str or None
        With `group`, what it is a group of.
    start, end : datetime64[us] or None
        Periods that begin in [start, end).
    order : str
        "newest" or "oldest" issued first.
    limit, offset : int or None
        Cells to give, and to leave out first; no limit: all.
    brief : bool
        Leave the details of the cells packed away: many are read twice as fast.
    """

    period: str | None = None
    measure: str | None = None
    group: str | None = None
    by: str | None = None
    start: np.datetime64 | None = None
    end: np.datetime64 | None = None
    order: Literal["newest", "oldest"] = "oldest"
    limit: int | None = None
    offset: int = 0
    brief: bool = False


# --- models


def _model_ids(connection: sa.Connection, models: Sequence[dict[str, str]]) -> dict[int, int]:
    """Id by digest, of models that are kept from now on if they were not before."""
    once = {id(m): m for m in models}  # a batch shares one dict, or a few
    rows = {_digest(m): m for m in once.values()}
    if not rows:
        return {}
    found = _known_models(connection, list(rows))
    fresh = [
        {
            "digest": digest,
            "name": model.get("name", ""),
            "version": model.get("version", ""),
            "facts": msgspec.json.encode(model).decode(),
        }
        for digest, model in rows.items()
        if digest not in found
    ]
    if fresh:
        _append(connection, MODEL_ISSUED, fresh)
        found = _known_models(connection, list(rows))
    return found


def _known_models(connection: sa.Connection, digests: Sequence[int]) -> dict[int, int]:
    query = sa.select(MODEL_ISSUED.c.digest, MODEL_ISSUED.c.id)
    rows = connection.execute(query.where(MODEL_ISSUED.c.digest.in_(digests)))
    return {digest: found for digest, found in rows}


def _digest(*parts: Any) -> int:
    """64 bits over plain JSON values, signed."""
    return content_hash(parts)


def _append(connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows; those whose content is kept already are left out."""
    statement = _unless_known(connection, table)
    for start in range(0, len(rows), _AT_ONCE):
        connection.execute(statement, rows[start : start + _AT_ONCE])


def _unless_known(connection: sa.Connection, table: sa.Table) -> Any:
    """An insert that passes over a row whose key is there already."""
    insert = insert_sqlite if connection.dialect.name == "sqlite" else insert_postgresql
    return insert(table).on_conflict_do_nothing()


# --- scores


def score_rows(scores: Sequence[IssuedScore]) -> list[dict[str, Any]]:
    """Scores ready to be kept: packed before a transaction is opened, which it would hold up."""
    rows = []
    known: dict[int, int] = {}  # digests by identity: a batch shares one model dict, or a few
    for s in scores:
        packed = pack(s.detail)
        model = known.get(id(s.model))
        if model is None:
            model = known[id(s.model)] = _digest(s.model)
        said = hashlib.blake2b(packed, digest_size=8)
        said.update(repr((s.entity, micros(s.as_of), s.probability, s.horizon, model)).encode())
        rows.append(
            {
                "entity": s.entity,
                "entity_id": s.entity_id,
                "as_of": micros(s.as_of),
                "issued_at": micros(s.issued_at),
                "model": s.model,
                "model_id": model,
                "probability": s.probability,
                "horizon": s.horizon,
                "digest": int.from_bytes(said.digest(), "big", signed=True),
                "detail": packed,
            }
        )
    return rows


def keep_scores(connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Append scores as issued, from `score_rows`; what is kept already adds nothing."""
    ids = _model_ids(connection, [r["model"] for r in rows])
    kept = [
        {k: v for k, v in row.items() if k != "model"} | {"model_id": ids[row["model_id"]]}
        for row in rows
    ]
    _append(connection, SCORE_ISSUED, kept)


def scores(
    connection: sa.Connection, entity: str, entity_id: str | None, limit: int | None = None
) -> list[IssuedScore]:
    """Scores issued for one record, or for all of an entity, oldest first; the newest `limit`."""
    query = (
        sa.select(SCORE_ISSUED, MODEL_ISSUED.c.facts)
        .join(MODEL_ISSUED, MODEL_ISSUED.c.id == SCORE_ISSUED.c.model_id)
        .where(SCORE_ISSUED.c.entity == entity)
    )
    if entity_id is not None:
        query = query.where(SCORE_ISSUED.c.entity_id == entity_id)
    if limit is not None:
        query = query.limit(limit)
    models = _Models()
    found = [
        IssuedScore(
            row.entity,
            row.entity_id,
            moment(row.as_of),
            moment(row.issued_at),
            models.of(row.facts),
            row.probability,
            row.horizon,
            unpack(row.detail),
        )
        for row in connection.execute(query.order_by(SCORE_ISSUED.c.id.desc()))
    ]
    return found[::-1]


class _Models:
    """Facts of models, decoded once each."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, str]] = {}

    def of(self, facts: str) -> dict[str, str]:
        if facts not in self._known:
            self._known[facts] = msgspec.json.decode(facts)
        return self._known[facts]


# --- forecasts


def keep_forecasts(connection: sa.Connection, forecasts: Sequence[IssuedForecast]) -> None:
    """Append forecasts as issued; one that says what is kept already adds nothing."""
    ids = _model_ids(connection, [f.model for f in forecasts])
    for forecast in forecasts:
        cells = [_cell_row(place, cell) for place, cell in enumerate(forecast.cells)]
        said = [
            micros(forecast.as_of), forecast.period, forecast.by, forecast.measure,
            forecast.hindsight, forecast.model, forecast.draws, forecast.seed, forecast.detail,
            [{**c, "detail": c["detail"].hex()} for c in cells],
        ]  # fmt: skip
        row = {
            "digest": _digest(*said),
            "as_of": micros(forecast.as_of),
            "issued_at": micros(forecast.issued_at),
            "period": forecast.period,
            "by": forecast.by,
            "measure": forecast.measure,
            "hindsight": forecast.hindsight,
            "draws": forecast.draws,
            "seed": forecast.seed,
            "inputs": forecast.inputs,
            "model_id": ids[_digest(forecast.model)],
            "detail": pack(forecast.detail),
        }
        insert = _unless_known(connection, FORECAST_ISSUED).returning(FORECAST_ISSUED.c.id)
        made = connection.execute(insert.values(row)).scalar_one_or_none()
        if made is not None:
            _append(connection, CELL_ISSUED, [{"forecast_id": made, **c} for c in cells])


def _cell_row(place: int, cell: IssuedCell) -> dict[str, Any]:
    return {
        "place": place,
        "period_start": micros(cell.start),
        "period_end": micros(cell.end),
        "group": cell.group,
        "mean": cell.mean,
        "target": cell.target,
        "probability_of_target": cell.probability_of_target,
        "components": _text(cell.components),
        "quantiles": _text(cell.quantiles),
        "detail": pack(cell.detail),
    }


def _text(numbers: dict[str, float]) -> str:
    try:
        return msgspec.json.encode(numbers).decode()
    except (TypeError, ValueError) as error:
        raise StoreError(f"numbers to be kept must be plain JSON values: {error}") from error


def forecasts(connection: sa.Connection, asked: ForecastFilter) -> tuple[list[IssuedForecast], int]:
    """Forecasts with those of their cells that are asked for, and how many cells there are in all.

    Forecasts come in the order asked for, cells in the order of their answer. A forecast of which
    no cell is asked for is left out; one that a page cuts holds the cells of the page.
    """
    forecast, cell = FORECAST_ISSUED.c, CELL_ISSUED.c
    where = list(_conditions(asked))
    joined = CELL_ISSUED.join(FORECAST_ISSUED, forecast.id == cell.forecast_id)
    counted = sa.select(sa.func.count()).select_from(joined).where(*where)
    total = int(connection.execute(counted).scalar_one())
    newest = asked.order == "newest"
    query = (
        sa.select(CELL_ISSUED)
        .select_from(joined)
        .where(*where)
        .order_by(cell.forecast_id.desc() if newest else cell.forecast_id, cell.place)
        .offset(asked.offset)
    )
    if asked.limit is not None:
        query = query.limit(asked.limit)
    cells: dict[int, list[IssuedCell]] = {}
    for row in connection.execute(query):
        cells.setdefault(row.forecast_id, []).append(_cell_of(row, asked.brief))
    heads = dict(_heads(connection, list(cells)))
    return [replace(heads[n], cells=tuple(found)) for n, found in cells.items()], total


def _conditions(asked: ForecastFilter) -> Iterator[sa.ColumnElement[bool]]:
    forecast, cell = FORECAST_ISSUED.c, CELL_ISSUED.c
    for column, value in (
        (forecast.period, asked.period),
        (forecast.measure, asked.measure),
        (cell.group, asked.group),
        (forecast.by, asked.by),
    ):
        if value is not None:
            yield column == value
    if asked.start is not None:
        yield cell.period_start >= micros(asked.start)
    if asked.end is not None:
        yield cell.period_start < micros(asked.end)


def _heads(
    connection: sa.Connection, numbers: Sequence[int]
) -> Iterator[tuple[int, IssuedForecast]]:
    """Forecasts by number, without their cells."""
    models = _Models()
    query = sa.select(FORECAST_ISSUED, MODEL_ISSUED.c.facts).join(
        MODEL_ISSUED, MODEL_ISSUED.c.id == FORECAST_ISSUED.c.model_id
    )
    for start in range(0, len(numbers), _IDS_AT_ONCE):
        some = numbers[start : start + _IDS_AT_ONCE]
        groups = _groups(connection, some)
        for row in connection.execute(query.where(FORECAST_ISSUED.c.id.in_(some))):
            yield (
                row.id,
                IssuedForecast(
                    moment(row.as_of),
                    moment(row.issued_at),
                    row.period,
                    row.by,
                    row.measure,
                    row.hindsight,
                    models.of(row.facts),
                    (),
                    row.draws,
                    row.seed,
                    row.inputs,
                    unpack(row.detail),
                    frozenset(groups[row.id]),
                ),
            )


def _groups(connection: sa.Connection, numbers: Sequence[int]) -> dict[int, set[str]]:
    """The groups of forecasts."""
    cell = CELL_ISSUED.c
    query = sa.select(cell.forecast_id, cell.group).distinct().where(cell.forecast_id.in_(numbers))
    found: dict[int, set[str]] = {number: set() for number in numbers}
    for number, group in connection.execute(query):
        found[number].add(group)
    return found


def _cell_of(row: Any, brief: bool) -> IssuedCell:
    return IssuedCell(
        moment(row.period_start),
        moment(row.period_end),
        row.group,
        row.mean,
        row.target,
        row.probability_of_target,
        msgspec.json.decode(row.components),
        msgspec.json.decode(row.quantiles),
        {} if brief else unpack(row.detail),
    )
