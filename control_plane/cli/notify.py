# SPDX-License-Identifier: Apache-2.0
"""`notify`: who is told when machines fall silent and come back."""

from __future__ import annotations

from pathlib import Path

import click

from control_plane.cli.common import json_option, print_json, table, told
from control_plane.operate import notify as work


@click.group()
def notify() -> None:
    """Notification targets, which config.yaml names."""


@notify.command("list")
@json_option
@click.pass_obj
@told
def notify_list(data: Path, as_json: bool) -> None:
    """Targets, and what waits for them."""
    found = work.every(data)
    if as_json:
        print_json(found)
        return
    rows = [
        [
            item["name"],
            item["way"],
            ",".join(item["transitions"]),
            str(item["queued"]),
            str(item["failures"]),
            str(item["dropped"]),
        ]
        for item in found
    ]
    table(["NAME", "WAY", "TRANSITIONS", "QUEUED", "FAILURES", "DROPPED"], rows)


@notify.command("test")
@click.argument("name")
@click.pass_obj
@told
def notify_test(data: Path, name: str) -> None:
    """Send a test to NAME now; says why when it does not arrive."""
    way = work.test(data, name)
    print(f"'{name}' took a test {'mail' if way == 'email' else 'request'}.")
