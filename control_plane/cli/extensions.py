# SPDX-License-Identifier: Apache-2.0
"""`extensions`: what is on machines, and how it stands."""

from __future__ import annotations

from pathlib import Path

import click

from control_plane.cli.common import json_option, print_json, table, told
from control_plane.operate import extensions as work


@click.command()
@click.option("--machine", help="Name or resource id of one machine.")
@json_option
@click.pass_obj
@told
def extensions(data: Path, machine: str | None, as_json: bool) -> None:
    """Extensions of machines, with the state that their machines reported."""
    found = work.listed(data, machine)
    if as_json:
        print_json(found)
        return
    rows = [
        [
            item["machine"],
            item["name"],
            f"{item['publisher']}.{item['type']}",
            item["installed"] or "-",
            item["version"],
            ", ".join(filter(None, (item["state"], item["health"]))),
            " ".join((item["message"] or "-").split())[:80],
        ]
        for item in found
    ]
    table(["MACHINE", "NAME", "HANDLER", "INSTALLED", "WISHED", "STATE", "MESSAGE"], rows)
