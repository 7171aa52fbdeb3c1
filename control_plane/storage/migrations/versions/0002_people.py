# SPDX-License-Identifier: Apache-2.0
"""People, their sessions, certificates of principals."""

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
