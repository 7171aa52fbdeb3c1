# SPDX-License-Identifier: Apache-2.0
"""`machines`, `cloud-profile`, `onboarding-script`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from control_plane.cli.common import json_option, print_json, table, told
from control_plane.operate import fleet


@click.command()
@json_option
@click.pass_obj
@told
def machines(data: Path, as_json: bool) -> None:
    """The fleet, from the database (a running hub writes heartbeats within a second)."""
    found = fleet.list_machines(data)
    if as_json:
        print_json(found)
        return
    keys = ("name", "os", "agentVersion", "status", "lastHeartbeat", "address", "resourceGroup", "location")
    header = ["NAME", "OS", "AGENT", "STATUS", "LAST HEARTBEAT", "ADDRESS", "GROUP", "LOCATION"]
    table(header, [[str(item[key] or "-") for key in keys] for item in found])


@click.command("cloud-profile")
@click.option("--name", default="hawser", show_default=True)
@click.pass_obj
@told
def cloud_profile(data: Path, name: str) -> None:
    """Print the profile that agents need (docs/protocol.md section 2)."""
    print_json(fleet.cloud_profile(data, name))


@click.command("onboarding-script")
@click.option("--name", default="hawser", show_default=True, help="Name of the cloud profile.")
@click.option("-g", "--resource-group", default="machines", show_default=True)
@click.option("-l", "--location", help="Default: the only one there is.")
@click.option("--tags", help="key=value,key=value")
@click.pass_obj
@told
def onboarding_script(data: Path, name: str, resource_group: str, location: str | None, tags: str | None) -> None:
    """Print a POSIX script that connects a machine; its SHA-256 goes to standard error."""
    script, digest = fleet.onboarding_script(data, name, resource_group, location, tags)
    sys.stdout.write(script)
    print(f"SHA-256 {digest}", file=sys.stderr)
