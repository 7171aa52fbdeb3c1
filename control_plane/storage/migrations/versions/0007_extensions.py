# SPDX-License-Identifier: Apache-2.0
"""Extensions and run commands of machines, the catalogue of their packages, operations that run."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TIME = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "extensions",
        sa.Column("resource_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("machine_id", sa.Integer(), nullable=False),
        sa.Column("handler_key", sa.String(length=257), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("rollback_to", sa.String(length=64), nullable=True),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("protected", sa.Text(), nullable=True),
        sa.Column("certificate", sa.Text(), nullable=True),
        sa.Column("digest", sa.String(length=64), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("began", TIME, nullable=False),
        sa.Column("removed", TIME, nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("code", sa.String(length=64), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("reported", sa.JSON(), nullable=True),
        sa.Column("automatic", sa.Boolean(), nullable=False),
        sa.Column("retry", TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["resource_id"], ["resources.id"], name=op.f("fk_extensions_resource_id_resources"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["machine_id"], ["machines.id"], name=op.f("fk_extensions_machine_id_machines"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("resource_id", name=op.f("pk_extensions")),
    )
    for column in ("machine_id", "handler_key", "state", "retry"):
        op.create_index(op.f(f"ix_extensions_{column}"), "extensions", [column], unique=False)
    op.create_table(
        "run_commands",
        sa.Column("resource_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("machine_id", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("protected", sa.Text(), nullable=True),
        sa.Column("certificate", sa.Text(), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("began", TIME, nullable=False),
        sa.Column("removed", TIME, nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("code", sa.String(length=64), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("reported", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(
            ["resource_id"], ["resources.id"], name=op.f("fk_run_commands_resource_id_resources"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["machine_id"], ["machines.id"], name=op.f("fk_run_commands_machine_id_machines"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("resource_id", name=op.f("pk_run_commands")),
    )
    for column in ("machine_id", "state"):
        op.create_index(op.f(f"ix_run_commands_{column}"), "run_commands", [column], unique=False)
    op.create_table(
        "extension_packages",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("handler_key", sa.String(length=257), nullable=False),
        sa.Column("publisher", sa.String(length=128), nullable=False),
        sa.Column("type", sa.String(length=128), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("os", sa.String(length=16), nullable=False),
        sa.Column("arch", sa.String(length=16), nullable=False),
        sa.Column("path", sa.String(length=512), nullable=False),
        sa.Column("length", TIME, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("supports_multiple", sa.Boolean(), nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_extension_packages")),
        sa.UniqueConstraint(
            "handler_key", "version", "os", "arch", name=op.f("uq_extension_packages_handler_key_version_os_arch")
        ),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("operations") as table:
        table.add_column(sa.Column("error", sa.JSON(), nullable=True))
        table.add_column(sa.Column("machine_id", sa.Integer(), nullable=True))
        table.add_column(sa.Column("waits", sa.JSON(), nullable=True))
        table.alter_column("ended", existing_type=TIME, nullable=True)
    op.create_index(op.f("ix_operations_machine_id"), "operations", ["machine_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_operations_machine_id"), "operations")
    op.execute("DELETE FROM operations WHERE ended IS NULL OR status <> 'Succeeded'")
    with op.batch_alter_table("operations") as table:
        table.alter_column("ended", existing_type=TIME, nullable=False)
        for column in ("error", "machine_id", "waits"):
            table.drop_column(column)
    op.drop_table("extension_packages")
    op.drop_table("run_commands")
    op.drop_table("extensions")
    # What hangs below a machine and is of a type that the older program does not know.
    for kind in ("extensions", "runcommands"):
        op.execute(f"DELETE FROM resources WHERE type = 'microsoft.hybridcompute/machines/{kind}'")  # noqa: S608
    # Documents of the kind stay refused by machines below the generation they have seen; the numbers are kept.
