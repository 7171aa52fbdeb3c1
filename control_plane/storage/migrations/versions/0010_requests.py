# SPDX-License-Identifier: Apache-2.0
"""By which request a run command was written, so that a repeated one runs nothing twice."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("run_commands", sa.Column("request", sa.String(length=64), nullable=True))


def downgrade() -> None:
    op.drop_column("run_commands", "request")
