# SPDX-License-Identifier: Apache-2.0
"""Resources beside machines, locks, operations."""

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
