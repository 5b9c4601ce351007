"""Migrations of the store's schema, run by Alembic; `data.schema` is the way in."""
