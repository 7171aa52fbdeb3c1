# SPDX-License-Identifier: Apache-2.0
"""Events of machines, history of the fleet, deliveries, clean-up rules; what the fleet query compares."""

import sqlalchemy as sa
from alembic import op

from control_plane.storage import derived

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_BATCH = 1000


def upgrade() -> None:
    for name, kind in (
        ("version_key", sa.String(length=64)),
        ("released", sa.String(length=10)),
        ("os_type", sa.String(length=16)),
        ("tags_key", sa.Text()),
        ("facts_key", sa.Text()),
    ):
        op.add_column("machines", sa.Column(name, kind, nullable=False, server_default=""))
    op.create_index("ix_machines_name_key_id", "machines", ["name_key", "id"], unique=False)
    _derive(op.get_bind())
    op.create_table(
        "machine_states",
        sa.Column("machine_id", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=18), nullable=False),
        sa.Column("since", sa.Integer(), nullable=False),
        sa.Column("conflicts", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["machine_id"], ["machines.id"], name=op.f("fk_machine_states_machine_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("machine_id", name=op.f("pk_machine_states")),
    )
    op.create_index(op.f("ix_machine_states_status"), "machine_states", ["status"], unique=False)
    op.create_table(
        "machine_events",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("at", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("machine_id", sa.Integer(), nullable=False),
        sa.Column("vm_id", sa.String(length=36), nullable=False),
        sa.Column("subscription_id", sa.String(length=36), nullable=False),
        sa.Column("group_key", sa.String(length=90), nullable=False),
        sa.Column("name_key", sa.String(length=54), nullable=False),
        sa.Column("resource_id", sa.String(length=512), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("once", sa.String(length=96), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_machine_events")),
        sa.UniqueConstraint("once", name=op.f("uq_machine_events_once")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_machine_events_at"), "machine_events", ["at"], unique=False)
    op.create_index("ix_machine_events_machine_id_id", "machine_events", ["machine_id", "id"], unique=False)
    op.create_table(
        "fleet_counts",
        sa.Column("span", sa.Integer(), nullable=False),
        sa.Column("at", sa.Integer(), nullable=False),
        sa.Column("subscription_id", sa.String(length=36), nullable=False),
        sa.Column("connected", sa.Integer(), nullable=False),
        sa.Column("disconnected", sa.Integer(), nullable=False),
        sa.Column("expired", sa.Integer(), nullable=False),
        sa.Column("awaiting", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("span", "at", "subscription_id", name=op.f("pk_fleet_counts")),
    )
    op.create_table(
        "listening",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("since", sa.Integer(), nullable=False),
        sa.Column("alive", sa.Integer(), nullable=False),
        sa.Column("deaf_from", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_listening")),
    )
    op.create_table(
        "outages",
        sa.Column("began", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("ended", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("began", name=op.f("pk_outages")),
    )
    op.create_table(
        "notify_targets",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("lease_until", sa.Integer(), nullable=False),
        sa.Column("lease_by", sa.String(length=36), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("due", sa.Integer(), nullable=False),
        sa.Column("dropped", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_notify_targets")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("target", sa.String(length=64), nullable=False),
        sa.Column("created", sa.Integer(), nullable=False),
        sa.Column("event", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_outbox_target_id", "outbox", ["target", "id"], unique=False)
    op.create_table(
        "cleanup_rules",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("rule", sa.JSON(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created", sa.Integer(), nullable=False),
        sa.Column("last_run", sa.Integer(), nullable=True),
        sa.Column("last_result", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_cleanup_rules")),
    )


def _derive(connection: sa.Connection) -> None:
    """Fill the new columns of machines that exist, some at a time."""
    machines = sa.table(
        "machines",
        sa.column("id", sa.Integer),
        sa.column("tags", sa.JSON),
        sa.column("properties", sa.JSON),
        sa.column("agent_version", sa.String),
        *(sa.column(name, sa.String) for name in ("version_key", "released", "os_type", "tags_key", "facts_key")),
    )
    reports = sa.table("reports", sa.column("machine_id"), sa.column("kind"), sa.column("data", sa.JSON))
    joined = machines.outerjoin(reports, sa.and_(reports.c.machine_id == machines.c.id, reports.c.kind == "inventory"))
    query = sa.select(
        machines.c.id, machines.c.tags, machines.c.properties, machines.c.agent_version, reports.c.data
    ).select_from(joined)
    names = ("version_key", "released", "os_type", "tags_key", "facts_key")
    change = (
        machines.update().where(machines.c.id == sa.bindparam("machine")).values({n: sa.bindparam(n) for n in names})
    )
    last = 0
    while rows := connection.execute(query.where(machines.c.id > last).order_by(machines.c.id).limit(_BATCH)).all():
        last = rows[-1].id
        connection.execute(
            change,
            [
                {
                    "machine": row.id,
                    "version_key": derived.version_key(row.agent_version),
                    "released": derived.released(row.agent_version, row.data or {}),
                    "os_type": derived.os_type(row.data or {}, row.properties or {}),
                    "tags_key": derived.tags_key(row.tags or {}),
                    "facts_key": derived.with_tags(derived.facts_key(row.data or {}), row.tags or {}),
                }
                for row in rows
            ],
        )


def downgrade() -> None:
    op.drop_table("cleanup_rules")
    op.drop_index("ix_outbox_target_id", table_name="outbox")
    op.drop_table("outbox")
    op.drop_table("notify_targets")
    op.drop_table("outages")
    op.drop_table("listening")
    op.drop_table("fleet_counts")
    op.drop_index("ix_machine_events_machine_id_id", table_name="machine_events")
    op.drop_index(op.f("ix_machine_events_at"), table_name="machine_events")
    op.drop_table("machine_events")
    op.drop_index(op.f("ix_machine_states_status"), table_name="machine_states")
    op.drop_table("machine_states")
    op.drop_index("ix_machines_name_key_id", table_name="machines")
    for name in ("facts_key", "tags_key", "os_type", "released", "version_key"):
        op.drop_column("machines", name)
