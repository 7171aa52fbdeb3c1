# SPDX-License-Identifier: Apache-2.0
"""`audience`: applications that machines may get tokens for."""

from __future__ import annotations

from pathlib import Path

import click

from control_plane.cli.common import json_option, print_json, table, told
from control_plane.operate import audiences


@click.group()
def audience() -> None:
    """Resource URIs of own applications that machines may get tokens for."""


@audience.command("add")
@click.argument("uri")
@click.pass_obj
@told
def audience_add(data: Path, uri: str) -> None:
    """Allow tokens for URI."""
    changed = audiences.add(data, uri)
    print(f"Tokens are issued for '{uri}'{'.' if changed else ' already; nothing was changed.'}")


@audience.command("list")
@json_option
@click.pass_obj
@told
def audience_list(data: Path, as_json: bool) -> None:
    """URIs that were added, and the well-known ones."""
    added, known = audiences.every(data)
    if as_json:
        print_json({"added": added, "wellKnown": known})
        return
    table(["URI", "FROM"], [[uri, "added"] for uri in added] + [[uri, "well known"] for uri in known])


@audience.command("remove")
@click.argument("uri")
@click.pass_obj
@told
def audience_remove(data: Path, uri: str) -> None:
    """Issue no more tokens for URI."""
    changed = audiences.remove(data, uri)
    print(f"'{uri}' {'was removed' if changed else 'was not there; nothing was changed'}.")
