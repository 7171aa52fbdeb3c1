# SPDX-License-Identifier: Apache-2.0
"""`keys`: the keys that sign access tokens."""

from __future__ import annotations

from pathlib import Path

import click

from control_plane.cli.common import json_option, print_json, table, told
from control_plane.operate import keys as work


@click.group()
def keys() -> None:
    """The keys that sign access tokens. (What machines trust is rotated by 'trust'.)"""


@keys.command("list")
@json_option
@click.pass_obj
@told
def keys_list(data: Path, as_json: bool) -> None:
    """The published keys."""
    found = work.every(data)
    if as_json:
        print_json(found)
        return
    table(["KEY", "STATE", "SIGNS FROM"], [[item["kid"], item["state"], item["signsFrom"] or "-"] for item in found])


@keys.group("rotate")
def keys_rotate() -> None:
    """Exchange a key."""


@keys_rotate.command("token")
@click.option("--after", "hours", type=click.IntRange(1, 720), default=24, show_default=True, metavar="HOURS")
@click.option("--now", "at_once", is_flag=True, help="Sign with it at once; who keeps the key set fetches it anew.")
@click.option("--revoke-old", is_flag=True, help="The old keys were stolen: every token there is is void at once.")
@json_option
@click.pass_obj
@told
def rotate_token(data: Path, hours: int, at_once: bool, revoke_old: bool, as_json: bool) -> None:
    """Publish the next token key; it signs after some HOURS, when everyone who keeps the key set knows it."""
    made = work.rotate(data, 0 if at_once else hours * 3600, revoke_old=revoke_old)
    if as_json:
        print_json(made)
        return
    print(
        f"Key {made['kid']} is published and signs from {made['signsFrom']}. A running hub knows it in half a minute."
    )
    if revoke_old:
        print("The old keys are gone: every client and machine asks for a new token.")
    else:
        print("The old key stays published until its last token has expired.")
