# SPDX-License-Identifier: Apache-2.0
"""`events`: what happened to machines."""

from __future__ import annotations

import json
from pathlib import Path

import click

from control_plane.cli.common import json_option, print_json, table, told
from control_plane.operate import events as work


@click.command()
@click.option("--machine", help="Name, resource id or vmId of one machine.")
@click.option("--kind", help="Kinds, separated by commas, for example machine.status.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many at most.")
@json_option
@click.pass_obj
@told
def events(data: Path, machine: str | None, kind: str | None, limit: int, as_json: bool) -> None:
    """What happened to machines, the newest first."""
    found = work.newest(data, machine, kind, limit)
    if as_json:
        print_json(found)
        return
    rows = [[item["at"], item["kind"], item["name"], json.dumps(item["data"])] for item in found]
    table(["TIME", "KIND", "MACHINE", "WHAT"], rows)
