# SPDX-License-Identifier: Apache-2.0
"""Resources beside machines, locks, tags of subscriptions, operations."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TIME = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "resources",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("key", sa.String(length=512), nullable=False),
        sa.Column("resource_id", sa.String(length=512), nullable=False),
        sa.Column("type", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=90), nullable=False),
        sa.Column("subscription_id", sa.String(length=36), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column("machine_id", sa.Integer(), nullable=True),
        sa.Column("location", sa.String(length=90), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("properties", sa.JSON(), nullable=False),
        sa.Column("created", _TIME, nullable=False),
        sa.Column("created_by", sa.String(length=36), nullable=False),
        sa.Column("created_by_type", sa.String(length=32), nullable=False),
        sa.Column("modified", _TIME, nullable=False),
        sa.Column("modified_by", sa.String(length=36), nullable=False),
        sa.Column("modified_by_type", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["subscriptions.id"], name=op.f("fk_resources_subscription_id_subscriptions")
        ),
        sa.ForeignKeyConstraint(
            ["group_id"], ["resource_groups.id"], name=op.f("fk_resources_group_id_resource_groups"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["machine_id"], ["machines.id"], name=op.f("fk_resources_machine_id_machines"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_resources")),
        sa.UniqueConstraint("key", name=op.f("uq_resources_key")),
    )
    for column in ("type", "subscription_id", "group_id", "machine_id"):
        op.create_index(op.f(f"ix_resources_{column}"), "resources", [column], unique=False)
    op.create_table(
        "locks",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("key", sa.String(length=1024), nullable=False),
        sa.Column("scope", sa.String(length=512), nullable=False),
        sa.Column("scope_key", sa.String(length=512), nullable=False),
        sa.Column("name", sa.String(length=260), nullable=False),
        sa.Column("level", sa.String(length=16), nullable=False),
        sa.Column("notes", sa.String(length=512), nullable=True),
        sa.Column("created", _TIME, nullable=False),
        sa.Column("created_by", sa.String(length=36), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_locks")),
        sa.UniqueConstraint("key", name=op.f("uq_locks_key")),
    )
    op.create_index(op.f("ix_locks_scope_key"), "locks", ["scope_key"], unique=False)
    op.create_table(
        "subscription_tags",
        sa.Column("subscription_id", sa.String(length=36), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["subscriptions.id"], name=op.f("fk_subscription_tags_subscription_id_subscriptions")
        ),
        sa.PrimaryKeyConstraint("subscription_id", name=op.f("pk_subscription_tags")),
    )
    op.create_table(
        "operations",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("subscription_id", sa.String(length=36), nullable=False),
        sa.Column("object_id", sa.String(length=36), nullable=False),
        sa.Column("action", sa.String(length=128), nullable=False),
        sa.Column("target", sa.String(length=512), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("started", _TIME, nullable=False),
        sa.Column("ended", _TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["subscriptions.id"], name=op.f("fk_operations_subscription_id_subscriptions")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operations")),
    )
    op.create_index(op.f("ix_operations_started"), "operations", ["started"], unique=False)


def downgrade() -> None:
    op.drop_table("operations")
    op.drop_table("subscription_tags")
    op.drop_table("locks")
    op.drop_table("resources")
