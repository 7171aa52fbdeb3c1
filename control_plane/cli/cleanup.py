# SPDX-License-Identifier: Apache-2.0
"""`cleanup`: rules for machines that have been silent for long."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from control_plane.cli.common import json_option, print_json, table, told
from control_plane.operate import cleanup as work


@click.group()
def cleanup() -> None:
    """Rules for machines that have been silent for long; enabled ones run once a day."""


@cleanup.command("add")
@click.argument("name")
@click.option("--status", type=click.Choice(["Disconnected", "Expired"]), default="Expired", show_default=True)
@click.option("--older-than", "days", type=int, required=True, help="Days of silence, 1 at least.")
@click.option("--action", type=click.Choice(["delete", "tag"]), required=True)
@click.option("--set-tag", help="NAME=VALUE, of the action tag.")
@click.option("-g", "--group", help="Only machines of this resource group.")
@click.option("--tag", help="Only machines with this tag, NAME or NAME=VALUE.")
@click.option("--max-percent", type=int, default=10, show_default=True, help="Of the fleet, at once.")
@click.option("--enable", is_flag=True, help="Run it once a day; otherwise only by 'cleanup run'.")
@json_option
@click.pass_obj
@told
def cleanup_add(
    data: Path,
    name: str,
    status: str,
    days: int,
    action: str,
    set_tag: str | None,
    group: str | None,
    tag: str | None,
    max_percent: int,
    enable: bool,
    as_json: bool,
) -> None:
    """Make a rule."""
    body: dict[str, Any] = {
        "status": status,
        "olderThanDays": days,
        "action": action,
        "maxPercent": max_percent,
        "enabled": enable,
    }
    given = {"setTag": set_tag, "resourceGroup": group, "tag": tag}
    made = work.add(data, name, {**body, **{key: value for key, value in given.items() if value is not None}})
    if as_json:
        print_json(made)
        return
    print(f"The rule '{name}' was made; it is {'on' if enable else 'off'}.")


@cleanup.command("list")
@json_option
@click.pass_obj
@told
def cleanup_list(data: Path, as_json: bool) -> None:
    """Rules, and how their last runs ended."""
    found = work.every(data)
    if as_json:
        print_json(found)
        return
    rows = [
        [
            item["name"],
            "on" if item["enabled"] else "off",
            item["status"],
            str(item["olderThanDays"]),
            item["setTag"] or item["action"],
            item["resourceGroup"] or "",
            item["tag"] or "",
            item["lastRun"] or "",
        ]
        for item in found
    ]
    table(["NAME", "", "STATUS", "DAYS", "ACTION", "GROUP", "TAG", "LAST RUN"], rows)


@cleanup.command("remove")
@click.argument("name")
@click.pass_obj
@told
def cleanup_remove(data: Path, name: str) -> None:
    """Take a rule away."""
    removed = work.remove(data, name)
    print(f"The rule '{name}' {'was removed' if removed else 'was not there; nothing was changed'}.")


@cleanup.command("run")
@click.argument("name")
@click.option("--dry-run", "dry", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--force", is_flag=True, help="Also beyond the rule's share of the fleet.")
@json_option
@click.pass_obj
@told
def cleanup_run(data: Path, name: str, dry: bool, force: bool, as_json: bool) -> None:
    """Carry out a rule now, enabled or not. Exit code 2 when it was refused because too many machines match."""
    result = work.run(data, name, dry=dry, force=force)
    if as_json:
        print_json(result)
    else:
        for machine in result["machines"]:
            print(machine)
        print(f"{result['matched']} machines match, {result['locked']} more are locked; {result['done']} were changed.")
    if result["refused"]:
        print(f"More than {result['limit']} machines match: nothing is done without --force.", file=sys.stderr)
        if not dry:
            sys.exit(2)
