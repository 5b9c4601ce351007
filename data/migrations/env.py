"""Alembic's way in: migrates the connection that `data.store.schema` hands over.

The caller owns the transaction and the lock; nothing is committed here.
"""

from __future__ import annotations

from alembic import context

from data.store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,  # SQLite changes a column only by copying the table
)
with context.begin_transaction():
    context.run_migrations()
