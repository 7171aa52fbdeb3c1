# SPDX-License-Identifier: Apache-2.0
"""Events of machines, history of the fleet, deliveries of notifications."""

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
