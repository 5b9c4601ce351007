"""Numbers as issued: lean, once each, by period and group; and never changed.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_APPENDED = ("model_issued", "score_issued", "forecast_issued", "forecast_cell_issued")


def upgrade() -> None:
    scores, forecasts = (_rows(name) for name in ("score_issued", "forecast_issued"))
    op.drop_table("score_issued")
    op.drop_table("forecast_issued")
    _create()
    models = _Models()
    _carry_scores(scores, models)
    _carry_forecasts(forecasts, models)
    _insert("model_issued", models.rows)
    for table in _APPENDED:
        _forbid_changes(table)


def downgrade() -> None:
    raise RuntimeError("numbers as issued are not given back: restore a backup")


def _create() -> None:
    # SQLite counts rows by itself only in a column declared INTEGER.
    counter = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "model_issued",
        sa.Column("id", counter, autoincrement=True, nullable=False),
        sa.Column("digest", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_model_issued"),
    )
    op.create_index("ix_model_issued_digest", "model_issued", ["digest"], unique=True)
    op.create_table(
        "score_issued",
        sa.Column("id", counter, autoincrement=True, nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("entity_id", sa.Text(), nullable=False),
        sa.Column("as_of", sa.BigInteger(), nullable=False),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("model_id", sa.BigInteger(), nullable=False),
        sa.Column("probability", sa.Double()),
        sa.Column("horizon", sa.Double()),
        sa.Column("digest", sa.BigInteger(), nullable=False),
        sa.Column("detail", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_score_issued"),
    )
    op.create_index(
        "ix_score_issued_entity_id_digest", "score_issued", ["entity_id", "digest"], unique=True
    )
    op.create_table(
        "forecast_issued",
        sa.Column("id", counter, autoincrement=True, nullable=False),
        sa.Column("digest", sa.BigInteger(), nullable=False),
        sa.Column("as_of", sa.BigInteger(), nullable=False),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("by", sa.Text()),
        sa.Column("measure", sa.Text(), nullable=False),
        sa.Column("hindsight", sa.Boolean(), nullable=False),
        sa.Column("draws", sa.BigInteger()),
        sa.Column("seed", sa.BigInteger()),
        sa.Column("inputs", sa.Text()),
        sa.Column("model_id", sa.BigInteger(), nullable=False),
        sa.Column("detail", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_forecast_issued"),
    )
    op.create_index("ix_forecast_issued_digest", "forecast_issued", ["digest"], unique=True)
    op.create_index("ix_forecast_issued_as_of", "forecast_issued", ["as_of"])
    op.create_table(
        "forecast_cell_issued",
        sa.Column("forecast_id", counter, nullable=False),
        sa.Column("place", sa.BigInteger(), nullable=False),
        sa.Column("period_start", sa.BigInteger(), nullable=False),
        sa.Column("period_end", sa.BigInteger(), nullable=False),
        sa.Column("group", sa.Text(), nullable=False),
        sa.Column("mean", sa.Double(), nullable=False),
        sa.Column("target", sa.Double()),
        sa.Column("probability_of_target", sa.Double()),
        sa.Column("components", sa.Text(), nullable=False),
        sa.Column("quantiles", sa.Text(), nullable=False),
        sa.Column("detail", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("forecast_id", "place", name="pk_forecast_cell_issued"),
    )
    op.create_index(
        "ix_forecast_cell_issued_period_start", "forecast_cell_issued", ["period_start"]
    )


def _forbid_changes(table: str) -> None:
    """Let the database itself refuse to change what was issued; old rows may still be deleted."""
    said = f"{table} holds numbers as issued, which are never changed"
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            f"CREATE TRIGGER {table}_never_changes BEFORE UPDATE ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{said}'); END"
        )
        return
    op.execute(
        f"CREATE FUNCTION {table}_never_changes() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{said}'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER never_changes BEFORE UPDATE ON {table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_never_changes()"
    )


# --- what an earlier version kept: whole answers, as JSON


class _Models:
    """Rows of models, numbered as they are met."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._known: dict[str, int] = {}

    def id_of(self, model: dict[str, str]) -> int:
        facts = json.dumps(model, separators=(",", ":"), ensure_ascii=False)
        if facts not in self._known:
            self._known[facts] = len(self._known) + 1
            self.rows.append(
                {
                    "id": self._known[facts],
                    "digest": _digest(facts),
                    "name": model.get("name", ""),
                    "version": model.get("version", ""),
                    "facts": facts,
                }
            )
        return self._known[facts]


def _rows(table: str) -> list[dict[str, Any]]:
    found = op.get_bind().execute(sa.text(f"SELECT * FROM {table} ORDER BY id"))
    return [dict(row) for row in found.mappings()]


def _insert(table: str, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    bind = op.get_bind()
    columns = sa.inspect(bind).get_columns(table)
    op.bulk_insert(sa.table(table, *(sa.column(c["name"], c["type"]) for c in columns)), rows)
    if bind.dialect.name == "postgresql" and "id" in rows[0]:
        counter = f"pg_get_serial_sequence('{table}', 'id')"
        bind.execute(sa.text(f"SELECT setval({counter}, (SELECT max(id) FROM {table}))"))


def _carry_scores(old: list[dict[str, Any]], models: _Models) -> None:
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for row in old:
        answer = json.loads(row["answer"])
        model = answer.pop("model", {"name": row["model_name"], "version": row["model_version"]})
        answer = {k: v for k, v in answer.items() if k not in (f"{row['entity']}_id", "as_of")}
        lead = row["entity"] == "lead"
        digest = _digest(row["entity"], row["as_of"], row["model_version"], row["answer"])
        rows.setdefault(
            (row["entity_id"], digest),
            {
                **{k: row[k] for k in ("id", "entity", "entity_id", "as_of", "issued_at")},
                "model_id": models.id_of(model),
                "probability": answer.get("probability" if lead else "probability_won"),
                "horizon": answer.get("evidence", {}).get("horizon_days") if lead else None,
                "digest": digest,
                "detail": _plain(answer),
            },
        )
    _insert("score_issued", list(rows.values()))


def _carry_forecasts(old: list[dict[str, Any]], models: _Models) -> None:
    """The bounds of periods were kept as days alone: they are read as midnights in UTC."""
    heads: dict[int, dict[str, Any]] = {}
    cells: list[dict[str, Any]] = []
    for row in old:
        answer = json.loads(row["answer"])
        digest = _digest(row["as_of"], row["period"], row["by"], row["answer"])
        if digest in heads:
            continue
        periods = answer.pop("periods", [])
        model = answer.pop("model", {"name": "dealcast-deal", "version": row["model_version"]})
        kept = ("as_of", "by", "period", "hindsight")
        heads[digest] = {
            **{k: row[k] for k in ("id", "as_of", "issued_at", "period", "by")},
            "digest": digest,
            "measure": "amount",
            "hindsight": bool(answer.get("hindsight", False)),
            "model_id": models.id_of(model),
            "detail": _plain({k: v for k, v in answer.items() if k not in kept}),
        }
        cells += [_cell(row["id"], place, cell) for place, cell in enumerate(periods)]
    nothing = {"draws": None, "seed": None, "inputs": None}
    _insert("forecast_issued", [{**head, **nothing} for head in heads.values()])
    _insert("forecast_cell_issued", cells)


def _cell(forecast_id: int, place: int, cell: dict[str, Any]) -> dict[str, Any]:
    own = ("start", "end", "group", "mean", "target", "probability_of_target", "components",
           "quantiles")  # fmt: skip
    return {
        "forecast_id": forecast_id,
        "place": place,
        "period_start": _midnight(cell["start"]),
        "period_end": _midnight(cell["end"]),
        **{k: cell[k] for k in ("group", "mean", "target", "probability_of_target")},
        "components": json.dumps(cell["components"]),
        "quantiles": json.dumps(cell["quantiles"]),
        "detail": _plain({k: v for k, v in cell.items() if k not in own}),
    }


def _midnight(day: str) -> int:
    since = dt.date.fromisoformat(day) - dt.date(1970, 1, 1)
    return since.days * 86_400_000_000


def _plain(value: dict[str, Any]) -> bytes:
    # The first byte says how it was packed: 0 is JSON as it stands.
    return b"\0" + json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _digest(*parts: Any) -> int:
    said = json.dumps(parts, separators=(",", ":")).encode()
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest(), "big", signed=True)
