"""The tables of every entity, and of what dealcast itself keeps.

Revision ID: 0001
Revises: none
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _on_every_row() -> list[sa.Column[Any]]:
    return [
        sa.Column("recorded_at", sa.BigInteger()),
        sa.Column("recorded_assumed", sa.Boolean()),
        sa.Column("first_seen_at", sa.BigInteger()),
        sa.Column("seen_at", sa.BigInteger()),
        sa.Column("ingested_at", sa.BigInteger()),
        sa.Column("sequence", sa.Double()),
        sa.Column("source", sa.Text()),
        sa.Column("raw", sa.Text()),
        sa.Column("attributes", sa.Text()),
        sa.Column("row_hash", sa.BigInteger(), nullable=False),
    ]


def upgrade() -> None:
    _create_entities()
    _create_own_tables()


def _create_entities() -> None:
    op.create_table(
        "lead",
        sa.Column("lead_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger()),
        sa.Column("status", sa.Text()),
        sa.Column("outcome", sa.Text()),
        sa.Column("qualified_at", sa.BigInteger()),
        sa.Column("disqualified_at", sa.BigInteger()),
        sa.Column("disqualification_reason", sa.Text()),
        sa.Column("lead_source", sa.Text()),
        sa.Column("campaign", sa.Text()),
        sa.Column("company_name", sa.Text()),
        sa.Column("industry", sa.Text()),
        sa.Column("employee_count", sa.Double()),
        sa.Column("annual_revenue", sa.Double()),
        sa.Column("country", sa.Text()),
        sa.Column("state", sa.Text()),
        sa.Column("language", sa.Text()),
        sa.Column("email_domain", sa.Text()),
        sa.Column("has_phone", sa.Boolean()),
        sa.Column("tags", sa.Text()),
        sa.Column("title", sa.Text()),
        sa.Column("rating", sa.Text()),
        sa.Column("owner_id", sa.Text()),
        sa.Column("account_id", sa.Text()),
        sa.Column("converted_deal_id", sa.Text()),
        sa.Column("deleted_at", sa.BigInteger()),
        sa.Column("merged_into_id", sa.Text()),
        *_on_every_row(),
        sa.PrimaryKeyConstraint("lead_id", name="pk_lead"),
    )
    op.create_index("ix_lead_outcome", "lead", ["outcome"])
    op.create_table(
        "deal",
        sa.Column("deal_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("account_id", sa.Text()),
        sa.Column("originating_lead_id", sa.Text()),
        sa.Column("owner_id", sa.Text()),
        sa.Column("team_id", sa.Text()),
        sa.Column("pipeline_id", sa.Text()),
        sa.Column("stage_id", sa.Text()),
        sa.Column("outcome", sa.Text()),
        sa.Column("amount", sa.Double()),
        sa.Column("closed_amount", sa.Double()),
        sa.Column("currency", sa.Text()),
        sa.Column("recurring_amount", sa.Double()),
        sa.Column("created_at", sa.BigInteger()),
        sa.Column("expected_close_date", sa.Integer()),
        sa.Column("closed_at", sa.BigInteger()),
        sa.Column("probability", sa.Double()),
        sa.Column("forecast_category", sa.Text()),
        sa.Column("lead_source", sa.Text()),
        sa.Column("deal_type", sa.Text()),
        sa.Column("product_family", sa.Text()),
        sa.Column("competitor", sa.Text()),
        sa.Column("loss_reason", sa.Text()),
        sa.Column("deleted_at", sa.BigInteger()),
        sa.Column("merged_into_id", sa.Text()),
        *_on_every_row(),
        sa.PrimaryKeyConstraint("deal_id", name="pk_deal"),
    )
    op.create_index("ix_deal_outcome", "deal", ["outcome"])
    op.create_table(
        "stage",
        sa.Column("pipeline_id", sa.Text(), nullable=False),
        sa.Column("stage_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("sort_order", sa.Double()),
        sa.Column("kind", sa.Text()),
        sa.Column("default_probability", sa.Double()),
        sa.Column("rotten_after_days", sa.Double()),
        *_on_every_row(),
        sa.PrimaryKeyConstraint("pipeline_id", "stage_id", name="pk_stage"),
    )
    op.create_table(
        "stage_change",
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("entity_id", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.Column("from_stage_id", sa.Text()),
        sa.Column("to_stage_id", sa.Text(), nullable=False),
        sa.Column("changed_by_id", sa.Text()),
        sa.Column("provenance", sa.Text()),
        *_on_every_row(),
        sa.PrimaryKeyConstraint(
            "entity", "entity_id", "changed_at", "to_stage_id", name="pk_stage_change"
        ),
    )
    op.create_table(
        "field_change",
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("entity_id", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("old_value", sa.Text()),
        sa.Column("new_value", sa.Text()),
        sa.Column("provenance", sa.Text()),
        *_on_every_row(),
        sa.PrimaryKeyConstraint(
            "entity", "entity_id", "changed_at", "field", name="pk_field_change"
        ),
    )
    op.create_table(
        "activity",
        sa.Column("activity_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text()),
        sa.Column("direction", sa.Text()),
        sa.Column("occurred_at", sa.BigInteger()),
        sa.Column("due_at", sa.BigInteger()),
        sa.Column("is_done", sa.Boolean()),
        sa.Column("duration_minutes", sa.Double()),
        sa.Column("lead_id", sa.Text()),
        sa.Column("deal_id", sa.Text()),
        sa.Column("account_id", sa.Text()),
        sa.Column("owner_id", sa.Text()),
        *_on_every_row(),
        sa.PrimaryKeyConstraint("activity_id", name="pk_activity"),
    )
    op.create_index("ix_activity_deal_id", "activity", ["deal_id"])
    op.create_index("ix_activity_lead_id", "activity", ["lead_id"])
    op.create_table(
        "account",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("industry", sa.Text()),
        sa.Column("employee_count", sa.Double()),
        sa.Column("annual_revenue", sa.Double()),
        sa.Column("country", sa.Text()),
        sa.Column("parent_account_id", sa.Text()),
        sa.Column("created_at", sa.BigInteger()),
        *_on_every_row(),
        sa.PrimaryKeyConstraint("account_id", name="pk_account"),
    )
    op.create_table(
        "owner",
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("manager_id", sa.Text()),
        sa.Column("team_id", sa.Text()),
        sa.Column("is_active", sa.Boolean()),
        *_on_every_row(),
        sa.PrimaryKeyConstraint("owner_id", name="pk_owner"),
    )
    op.create_table(
        "target",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("scope_id", sa.Text(), nullable=False),
        sa.Column("period_start", sa.Integer(), nullable=False),
        sa.Column("period_end", sa.Integer(), nullable=False),
        sa.Column("amount", sa.Double()),
        sa.Column("currency", sa.Text()),
        sa.Column("kind", sa.Text()),
        *_on_every_row(),
        sa.PrimaryKeyConstraint(
            "scope", "scope_id", "period_start", "period_end", name="pk_target"
        ),
    )
    op.create_table(
        "qualification",
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("entity_id", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.Column("budget_amount", sa.Double()),
        sa.Column("budget_status", sa.Text()),
        sa.Column("is_decision_maker", sa.Boolean()),
        sa.Column("need", sa.Text()),
        sa.Column("purchase_timeframe", sa.Text()),
        sa.Column("stakeholder_count", sa.Double()),
        *_on_every_row(),
        sa.PrimaryKeyConstraint("entity", "entity_id", "changed_at", name="pk_qualification"),
    )
    op.create_table(
        "contact_role",
        sa.Column("deal_id", sa.Text(), nullable=False),
        sa.Column("contact_id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text()),
        sa.Column("is_decision_maker", sa.Boolean()),
        *_on_every_row(),
        sa.PrimaryKeyConstraint("deal_id", "contact_id", name="pk_contact_role"),
    )
    op.create_table(
        "exchange_rate",
        sa.Column("date", sa.Integer(), nullable=False),
        sa.Column("from_currency", sa.Text(), nullable=False),
        sa.Column("to_currency", sa.Text(), nullable=False),
        sa.Column("rate", sa.Double()),
        *_on_every_row(),
        sa.PrimaryKeyConstraint("date", "from_currency", "to_currency", name="pk_exchange_rate"),
    )
    op.create_table(
        "commit",
        sa.Column("author_id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("scope_id", sa.Text(), nullable=False),
        sa.Column("period_start", sa.Integer(), nullable=False),
        sa.Column("period_end", sa.Integer(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.Double()),
        sa.Column("reason", sa.Text()),
        *_on_every_row(),
        sa.PrimaryKeyConstraint(
            "author_id",
            "scope",
            "scope_id",
            "period_start",
            "period_end",
            "changed_at",
            name="pk_commit",
        ),
    )
    op.create_table(
        "override",
        sa.Column("deal_id", sa.Text(), nullable=False),
        sa.Column("author_id", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("value", sa.Text()),
        sa.Column("reason", sa.Text()),
        *_on_every_row(),
        sa.PrimaryKeyConstraint("deal_id", "author_id", "changed_at", "field", name="pk_override"),
    )


def _create_own_tables() -> None:
    # SQLite counts rows by itself only in a column declared INTEGER.
    counter = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "source",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_source"),
    )
    op.create_table(
        "score_issued",
        sa.Column("id", counter, autoincrement=True, nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("entity_id", sa.Text(), nullable=False),
        sa.Column("as_of", sa.BigInteger(), nullable=False),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_score_issued"),
    )
    op.create_index("ix_score_issued_entity_entity_id", "score_issued", ["entity", "entity_id"])
    op.create_table(
        "forecast_issued",
        sa.Column("id", counter, autoincrement=True, nullable=False),
        sa.Column("as_of", sa.BigInteger(), nullable=False),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("by", sa.Text()),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_forecast_issued"),
    )
    op.create_index("ix_forecast_issued_as_of", "forecast_issued", ["as_of"])
    op.create_table(
        "api_key",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger()),
        sa.Column("last_used_at", sa.BigInteger()),
        sa.Column("revoked_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("key_id", name="pk_api_key"),
    )
    op.create_index("ix_api_key_hash", "api_key", ["hash"], unique=True)
    op.create_table(
        "organisation",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_organisation"),
    )


def downgrade() -> None:
    for table in (
        "organisation",
        "api_key",
        "forecast_issued",
        "score_issued",
        "source",
        "override",
        "commit",
        "exchange_rate",
        "contact_role",
        "qualification",
        "target",
        "owner",
        "account",
        "activity",
        "field_change",
        "stage_change",
        "stage",
        "deal",
        "lead",
    ):
        op.drop_table(table)
