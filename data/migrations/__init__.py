"""Migrations of the store's schema, run by Alembic; `data.store.schema` is the way in."""
