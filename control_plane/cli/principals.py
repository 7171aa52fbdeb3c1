# SPDX-License-Identifier: Apache-2.0
"""`principal`: service principals."""

from __future__ import annotations

from pathlib import Path

import click

from control_plane.arm.roles import HUB, ROLES
from control_plane.cli.common import json_option, print_json, table, told
from control_plane.operate import principals


@click.group()
def principal() -> None:
    """Service principals: who may use the hub."""


@principal.command("create")
@click.argument("name")
@click.option("--role", required=True, type=click.Choice(list(ROLES), case_sensitive=False))
@click.option("--scope", default=HUB, show_default=True, help="Where the role is held: / or a resource id.")
@click.option("--secret-file", type=click.Path(path_type=Path, dir_okay=False), help="Write the secret there, 0600.")
@click.option("--valid-days", type=click.IntRange(1, 3650), help="The secret expires after so many days.")
@json_option
@click.pass_obj
@told
def principal_create(
    data: Path, name: str, role: str, scope: str, secret_file: Path | None, valid_days: int | None, as_json: bool
) -> None:
    """Make a principal with a secret of our own making."""
    made = principals.create(data, name, role, valid_days, secret_file, scope)
    if as_json:
        print_json(made)
        return
    print(f"Principal '{made['name']}' with role {made['role']} at {made['scope']}.\n  client id  {made['clientId']}")
    print(f"  tenant     {made['tenantId']}\n  authority  {made['authority']}")
    if "clientSecretFile" in made:
        print(f"  secret     in {made['clientSecretFile']}")
    else:
        print(f"  secret     {made['clientSecret']}\nThe secret is shown this once; the hub keeps a hash alone.")


@principal.command("list")
@json_option
@click.pass_obj
@told
def principal_list(data: Path, as_json: bool) -> None:
    """Every principal, revoked ones too."""
    found = principals.every(data)
    if as_json:
        print_json(found)
        return
    rows = [
        [
            item["name"],
            item["clientId"],
            ", ".join(item["roles"]),
            item["created"],
            item["secretExpires"] or "never",
            "revoked" if item["revoked"] else "active",
        ]
        for item in found
    ]
    table(["NAME", "CLIENT ID", "ROLE", "CREATED", "SECRET EXPIRES", "STATE"], rows)


@principal.command("revoke")
@click.argument("name_or_id")
@click.pass_obj
@told
def principal_revoke(data: Path, name_or_id: str) -> None:
    """End a principal; its tokens stop working at once."""
    changed, name = principals.revoke(data, name_or_id)
    print(f"Principal '{name}' {'is revoked' if changed else 'was revoked already; nothing was changed'}.")
