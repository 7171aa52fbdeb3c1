# SPDX-License-Identifier: Apache-2.0
"""`twins` and `images`: copies of machines, and where machines come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from control_plane.cli.common import json_option, print_json, table, told
from control_plane.operate import twins as work
from control_plane.storage.twins import STATES

_DONE = {
    "release": "is the machine: it goes on with the identity when it next asks",
    "adopt": "becomes a machine of its own when it next asks",
    "reject": "stays parked",
}


@click.group(invoke_without_command=True)
@click.option("--state", type=click.Choice(STATES), multiple=True, help="Only these; may be repeated.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many at most.")
@json_option
@click.pass_context
@told
def twins(context: click.Context, state: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Machines that hold a copied identity: verdicts, and what an operator decides. By itself: the newest."""
    if context.invoked_subcommand is not None:
        return
    found = work.newest(context.obj, state, limit)
    if as_json:
        print_json(found)
        return
    rows = [
        [
            str(item["id"]),
            item["name"],
            item["state"],
            item["verdict"],
            item["hostname"] or "-",
            item["address"] or "-",
            ", ".join(item["differs"]) or "-",
            item["last"],
        ]
        for item in found
    ]
    table(["TWIN", "OF MACHINE", "STATE", "VERDICT", "HOST NAME", "ADDRESS", "DIFFERS", "LAST"], rows)


@twins.command("show")
@click.argument("number", type=click.IntRange(1))
@json_option
@click.pass_obj
@told
def twins_show(data: Path, number: int, as_json: bool) -> None:
    """One twin with its history."""
    found = work.one(data, number)
    if as_json:
        print_json(found)
        return
    shown = {
        "twin": found["id"],
        "of machine": found["resourceId"],
        "state": found["state"],
        "verdict": found["verdict"],
        "answered": found["outcome"],
        "found by": found["found"],
        "differs": ", ".join(found["differs"]) or "-",
        "host name": found["hostname"] or "-",
        "address": found["address"] or "-",
        "image": found["imageId"] or "-",
        "asked": f"{found['asked']} times, from {found['first']} to {found['last']}",
        "became": found["became"] or "-",
    }
    for name, value in shown.items():
        print(f"{name:<12}{value}")
    for item in found["history"]:
        print(f"  {item['at']}  {item['what']}{_more(item)}")


def _more(item: dict[str, Any]) -> str:
    return "".join(f" {name} {item[name]}" for name in ("by", "became") if item.get(name))


def _decide(data: Path, number: int, decision: str, as_json: bool) -> None:
    found = work.decide(data, number, decision)
    if as_json:
        print_json(found)
        return
    print(f"Twin {number} of {found['name']} {_DONE[decision]}.")


def _decision(name: str, line: str) -> None:
    @twins.command(name, help=line)
    @click.argument("number", type=click.IntRange(1))
    @json_option
    @click.pass_obj
    @told
    def command(data: Path, number: int, as_json: bool) -> None:
        _decide(data, number, name, as_json)


_decision("release", "It is the machine itself: let it go on with the identity.")
_decision("adopt", "Let it become a machine of its own.")
_decision("reject", "Let it stay parked.")


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
@told
def images(context: click.Context, as_json: bool) -> None:
    """Images that machines come from. By itself: all."""
    if context.invoked_subcommand is not None:
        return
    found = work.images(context.obj)
    if as_json:
        print_json(found)
        return
    members = ("imageId", "machines", "joined", "connected", "adopted", "first", "last")
    rows = [[str(item[name]) for name in members] for item in found]
    table(["IMAGE", "MACHINES", "JOINED", "CONNECTED", "ADOPTED", "FIRST", "LAST"], rows)


@images.command("show")
@click.argument("name")
@json_option
@click.pass_obj
@told
def images_show(data: Path, name: str, as_json: bool) -> None:
    """The machines of an image, in the order of their coming."""
    found = work.image(data, name)
    if as_json:
        print_json(found)
        return
    rows = [[item["name"], item["how"], item["parent"] or "-", item["profile"], item["at"]] for item in found]
    table(["MACHINE", "HOW", "PARENT (VM ID)", "PROFILE", "SINCE"], rows)
