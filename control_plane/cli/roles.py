# SPDX-License-Identifier: Apache-2.0
"""`role`: who may do what, and where."""

from __future__ import annotations

from pathlib import Path

import click

from control_plane.arm.roles import HUB, ROLES
from control_plane.cli.common import json_option, print_json, table, told
from control_plane.operate import roles

_ROLE = click.argument("role_name", metavar="ROLE", type=click.Choice(list(ROLES), case_sensitive=False))
_SCOPE = click.option("--scope", default=HUB, show_default=True, help="/ or the id of a subscription, group, machine.")


@click.group()
def role() -> None:
    """Role assignments of principals and users."""


@role.command("assign")
@click.argument("name")
@_ROLE
@_SCOPE
@click.pass_obj
@told
def role_assign(data: Path, name: str, role_name: str, scope: str) -> None:
    """Give NAME (or an object id) a role."""
    made, fresh = roles.assign(data, name, role_name, scope)
    there = "." if fresh else " already; nothing was changed."
    print(f"The {made['kind']} '{made['name']}' is {made['role']} at {made['scope']}{there}")


@role.command("list")
@click.option("--name", help="Of this principal or user alone.")
@click.option("--scope", help="At this very scope alone.")
@json_option
@click.pass_obj
@told
def role_list(data: Path, name: str | None, scope: str | None, as_json: bool) -> None:
    """Every role assignment."""
    found = roles.every(data, name, scope)
    if as_json:
        print_json(found)
        return
    keys = ("name", "kind", "role", "scope", "created")
    table([key.upper() for key in keys], [[item[key] for key in keys] for item in found])


@role.command("remove")
@click.argument("name")
@_ROLE
@_SCOPE
@click.pass_obj
@told
def role_remove(data: Path, name: str, role_name: str, scope: str) -> None:
    """Take a role from NAME; it stops working at once."""
    changed = roles.remove(data, name, role_name, scope)
    print(f"'{name}' {'is no longer' if changed else 'was not'} {role_name} at {scope}.")
