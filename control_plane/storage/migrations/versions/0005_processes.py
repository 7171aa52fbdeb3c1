# SPDX-License-Identifier: Apache-2.0
"""Hub processes over one database, what a restored one does not remember, times wider than 32 bits."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# SQLite's INTEGER has 64 bits; PostgreSQL's has 32, and Unix seconds pass them in January 2038.
TIMES = {
    "answered": ("created",),
    "audiences": ("created",),
    "audit": ("at",),
    "cleanup_rules": ("created", "last_run"),
    "credentials": ("expires", "created"),
    "fleet_counts": ("at",),
    "heartbeats": ("seen", "connected_since"),
    "listening": ("since", "alive", "deaf_from"),
    "machine_events": ("at",),
    "machine_states": ("since",),
    "machines": ("enrolled", "created", "modified"),
    "notify_targets": ("lease_until", "due"),
    "outages": ("began", "ended"),
    "outbox": ("created",),
    "principal_certificates": ("created", "expires"),
    "principal_secrets": ("created", "expires"),
    "principals": ("created", "revoked"),
    "reports": ("created", "received"),
    "resource_groups": ("created",),
    "role_assignments": ("created",),
    "settings_certificates": ("expires",),
    "subscriptions": ("created",),
    "tickets": ("created", "expires"),
    "user_sessions": ("created", "seen"),
    "users": ("created", "disabled"),
}


def _times(kind: str) -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for table, columns in TIMES.items():
        op.execute(f"ALTER TABLE {table} " + ", ".join(f'ALTER COLUMN "{name}" TYPE {kind}' for name in columns))


def upgrade() -> None:
    op.create_table(
        "processes",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("started", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("seen", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("address", sa.String(length=320), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_processes")),
        sqlite_autoincrement=True,
    )
    op.add_column("hub_state", sa.Column("gaps", sa.JSON(), nullable=True))
    _times("bigint")


def downgrade() -> None:
    _times("integer")
    op.drop_column("hub_state", "gaps")
    op.drop_table("processes")
