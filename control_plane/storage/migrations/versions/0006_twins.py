# SPDX-License-Identifier: Apache-2.0
"""Enrolment profiles and tokens, names kept for machines, where machines come from, twins."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TIME = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "profiles",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("modified", TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_profiles")),
    )
    op.create_table(
        "enrolment_tokens",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("profile", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("image_id", sa.String(length=128), nullable=True),
        sa.Column("uses", sa.Integer(), nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("expires", TIME, nullable=False),
        sa.Column("revoked", TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["profile"], ["profiles.name"], name=op.f("fk_enrolment_tokens_profile_profiles"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_enrolment_tokens")),
        sa.UniqueConstraint("digest", name=op.f("uq_enrolment_tokens_digest")),
    )
    op.create_index("ix_enrolment_tokens_profile", "enrolment_tokens", ["profile"], unique=False)
    op.create_table(
        "token_uses",
        sa.Column("token_id", sa.String(length=36), nullable=False),
        sa.Column("vm_id", sa.String(length=36), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["token_id"],
            ["enrolment_tokens.id"],
            name=op.f("fk_token_uses_token_id_enrolment_tokens"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("token_id", "vm_id", name=op.f("pk_token_uses")),
    )
    op.create_table(
        "enrolments",
        sa.Column("ticket_id", sa.String(length=36), nullable=False),
        sa.Column("asker", sa.String(length=64), nullable=False),
        sa.Column("subscription_id", sa.String(length=36), nullable=False),
        sa.Column("group_key", sa.String(length=90), nullable=False),
        sa.Column("name_key", sa.String(length=54), nullable=False),
        sa.Column("resource_id", sa.String(length=512), nullable=False),
        sa.Column("vm_id", sa.String(length=36), nullable=True),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("profile", sa.String(length=64), nullable=False),
        sa.Column("image_id", sa.String(length=128), nullable=True),
        sa.Column("parent", sa.String(length=36), nullable=True),
        sa.Column("builder", sa.String(length=64), nullable=True),
        sa.Column("token_id", sa.String(length=36), nullable=True),
        sa.Column("twin_id", sa.Integer(), nullable=True),
        sa.Column("expires", TIME, nullable=False),
        sa.PrimaryKeyConstraint("ticket_id", name=op.f("pk_enrolments")),
        sa.UniqueConstraint("asker", name=op.f("uq_enrolments_asker")),
        sa.UniqueConstraint(
            "subscription_id", "group_key", "name_key", name=op.f("uq_enrolments_subscription_id_group_key_name_key")
        ),
    )
    op.create_index("ix_enrolments_expires", "enrolments", ["expires"], unique=False)
    op.create_table(
        "origins",
        sa.Column("machine_id", sa.Integer(), nullable=False),
        sa.Column("profile", sa.String(length=64), nullable=False),
        sa.Column("image_id", sa.String(length=128), nullable=True),
        sa.Column("parent", sa.String(length=36), nullable=True),
        sa.Column("builder", sa.String(length=64), nullable=True),
        sa.Column("how", sa.String(length=16), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["machine_id"], ["machines.id"], name=op.f("fk_origins_machine_id_machines"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("machine_id", name=op.f("pk_origins")),
    )
    op.create_index("ix_origins_image_id", "origins", ["image_id"], unique=False)
    op.create_table(
        "twins",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("machine_id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("boot", sa.String(length=8), nullable=False),
        sa.Column("found", sa.String(length=16), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("decision", sa.String(length=16), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("differs", sa.JSON(), nullable=False),
        sa.Column("address", sa.String(length=45), nullable=False),
        sa.Column("hostname", sa.String(length=255), nullable=True),
        sa.Column("image_id", sa.String(length=128), nullable=True),
        sa.Column("asked", sa.Integer(), nullable=False),
        sa.Column("first", TIME, nullable=False),
        sa.Column("last", TIME, nullable=False),
        sa.Column("became", sa.String(length=512), nullable=True),
        sa.Column("history", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["machine_id"], ["machines.id"], name=op.f("fk_twins_machine_id_machines"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_twins")),
        sa.UniqueConstraint("machine_id", "digest", "boot", name=op.f("uq_twins_machine_id_digest_boot")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_twins_state", "twins", ["state"], unique=False)


def downgrade() -> None:
    for table in ("twins", "origins", "enrolments", "token_uses", "enrolment_tokens", "profiles"):
        op.drop_table(table)
