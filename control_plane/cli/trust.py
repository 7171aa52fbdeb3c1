# SPDX-License-Identifier: Apache-2.0
"""`trust`: rotation of the hub's CA and of its desired-state key."""

from __future__ import annotations

from pathlib import Path

import click

from control_plane.cli.common import json_option, print_json, told
from control_plane.operate import trust as work
from control_plane.trust import SUBJECTS

_SUBJECT = click.argument("subject", type=click.Choice(SUBJECTS))


@click.group()
def trust() -> None:
    """What machines trust: the hub's CA, and the key that signs desired state."""


@trust.command("status")
@json_option
@click.pass_obj
@told
def trust_status(data: Path, as_json: bool) -> None:
    """What is in force, and how many machines know it."""
    found = work.status(data)
    if as_json:
        print_json(found)
        return
    going = ", ".join(found["underWay"])
    print(f"Generation {found['generation']}; {f'a rotation of {going} is under way' if going else 'no rotation'}.")
    for label, every, staying in (
        ("CA", found["caSha256"], found["caSha256Staying"]),
        ("desired-state key", found["kids"], found["kidsStaying"]),
    ):
        for name in every:
            print(f"  {label:18}{name}{'' if name in staying else '  (goes when the rotation is finished)'}")
    known = found["machines"] - len(found["behind"])
    print(f"{known} of {found['machines']} machines know what stays.")
    for name in found["behind"][:20]:
        print(f"  not yet  {name}")
    if len(found["behind"]) > 20:
        print(f"  and {len(found['behind']) - 20} more; --json names all")


@trust.command("rotate")
@_SUBJECT
@click.pass_obj
@told
def trust_rotate(data: Path, subject: str) -> None:
    """Put a successor beside what is in force, and tell every machine."""
    fresh = work.rotate(data, subject)
    done = "The successor is there" if fresh else "A rotation is under way; it was announced once more"
    print(f"{done}. A running hub takes it up within a minute.")
    print(f"Next:\n  hawser-hub trust status\n  hawser-hub trust finish {subject}")


@trust.command("finish")
@_SUBJECT
@click.option("--force", is_flag=True, help="Also when machines are left behind.")
@click.pass_obj
@told
def trust_finish(data: Path, subject: str, force: bool) -> None:
    """Take away what was in force before the rotation."""
    behind = work.finish(data, subject, force=force)
    left = f" {len(behind)} machines are left behind: they need the new cloud profile." if behind else ""
    print(f"The rotation is finished.{left}")


@trust.command("announce")
@click.pass_obj
@told
def trust_announce(data: Path) -> None:
    """Tell every machine again what DATA/keys/ca.crt holds."""
    print(f"Announced as generation {work.announce(data, 'announce')}.")
