# SPDX-License-Identifier: Apache-2.0
"""`migrate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from control_plane.cli.common import json_option, print_json, told
from control_plane.operate import migrate as work


@click.command()
@click.option("--to", "target", default=work.HEAD, show_default=True, metavar="REVISION", help="Also an older one.")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@click.option("--yes", is_flag=True, help="Go down, and lose what only the newer revisions know.")
@json_option
@click.pass_obj
@told
def migrate(data: Path, target: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Bring the database to a revision while no hub runs. 'serve' brings it to the newest by itself."""
    done = work.migrate(data, target, dry_run=dry_run, may_lose=yes)
    if as_json:
        print_json(done)
        return
    passed = ", ".join(str(step) for step in done["steps"])  # type: ignore[attr-defined]
    if not passed:
        print(f"The database has revision {done['to']} already; nothing was changed.")
    elif dry_run:
        print(f"From {done['from']} to {done['to']}: would pass {passed}{_loss(done)}. Nothing was changed.")
    else:
        print(f"From {done['from']} to {done['to']}: passed {passed}.")


def _loss(done: Mapping[str, object]) -> str:
    return ", and lose what only these know" if done["loses"] else ""
