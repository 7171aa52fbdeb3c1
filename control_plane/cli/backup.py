# SPDX-License-Identifier: Apache-2.0
"""`backup` and `restore`."""

from __future__ import annotations

from pathlib import Path

import click

from control_plane.cli.common import told
from control_plane.clock import rfc3339
from control_plane.operate import backup as making
from control_plane.operate import restore as restoring

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("file", type=_FILE)
@click.pass_obj
@told
def backup(data: Path, file: Path) -> None:
    """Write everything the hub is into FILE, 0600, while it runs."""
    manifest = making.create(data, file)
    print(f"{file} holds the hub as of {rfc3339(manifest['taken'])}. Whoever has it is the hub: keep it safe.")


@click.command()
@click.argument("file", type=_FILE)
@click.option("--force", is_flag=True, help="Move a hub that is there aside; remove tables from a PostgreSQL.")
@click.option("--database", metavar="URL|sqlite", help="Another database than that of the backup.")
@click.option("--database-password-file", type=_FILE, help="0600, of --database.")
@click.pass_obj
@told
def restore(data: Path, file: Path, force: bool, database: str | None, database_password_file: Path | None) -> None:
    """Make the hub of FILE in an empty data directory."""
    manifest, aside = restoring.restore(
        data, file, force=force, database=database, password_file=database_password_file
    )
    print(f"The hub of {rfc3339(manifest['taken'])} is in {data}. What machines did since, they tell it themselves.")
    if aside is not None:
        print(f"The hub that was there is in {aside}; remove it when you need it no longer.")
    print(f"Next:\n  hawser-hub --data {data} serve")
