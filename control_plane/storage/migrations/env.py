# SPDX-License-Identifier: Apache-2.0
"""Alembic's entry: runs the migrations on the connection that storage/database.py hands over."""

from alembic import context

from control_plane.storage.models import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
