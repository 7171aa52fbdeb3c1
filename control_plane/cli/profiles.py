# SPDX-License-Identifier: Apache-2.0
"""`profiles`: what becomes of machines that join with an image, and the tokens that let them in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from control_plane.channel.verdict import ASK, KEEP, POLICIES
from control_plane.cli.common import json_option, print_json, table, told
from control_plane.errors import OperatorError
from control_plane.operate import profiles as work

_BY_IMAGE = "adopt with an image, else quarantine"


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
@told
def profiles(context: click.Context, as_json: bool) -> None:
    """Enrolment profiles: where machines of an image join, and what becomes of clones. By itself: all."""
    if context.invoked_subcommand is not None:
        return
    found = work.every(context.obj)
    if as_json:
        print_json(found)
        return
    rows = [
        [
            item["name"],
            item["resourceGroup"] or "-",
            item["clones"] or _BY_IMAGE,
            item["moved"],
            item["nameTemplate"],
            item["contact"] or "-",
        ]
        for item in found
    ]
    table(["PROFILE", "GROUP", "CLONES", "MOVED", "NAMES", "CONTACT"], rows)


@profiles.command("show")
@click.argument("name")
@json_option
@click.pass_obj
@told
def profiles_show(data: Path, name: str, as_json: bool) -> None:
    """One profile with its tokens."""
    found = work.one(data, name)
    if as_json:
        print_json(found)
        return
    for key, value in found.items():
        if key == "tags":
            value = " ".join(f"{tag}={text}" for tag, text in value.items())
        if key != "tokens":
            print(f"{key:<16}{value or '-'}")
    if found["tokens"]:
        print()
        table(["TOKEN", "IMAGE", "USED", "EXPIRES", "STATE"], [_token_row(item) for item in found["tokens"]])


def _token_row(item: dict[str, Any]) -> list[str]:
    used = f"{item['used']} of {item['uses']}"
    return [item["id"], item["imageId"] or "any", used, item["expires"], "revoked" if item["revoked"] else "good"]


def _tags(pairs: tuple[str, ...]) -> dict[str, str]:
    """Errors: OperatorError for what is not NAME=VALUE."""
    for pair in pairs:
        if "=" not in pair.strip("="):
            raise OperatorError(f"'{pair}' is no tag.", "Write NAME=VALUE.")
    return dict(pair.split("=", 1) for pair in pairs)


@profiles.command("set")
@click.argument("name")
@click.option("--subscription", help="Id of the subscription where machines join.")
@click.option("-g", "--group", help="Name of the resource group where machines join.")
@click.option("--location", help="Default: that of the group.")
@click.option("--tag", "tags", multiple=True, help="NAME=VALUE; may be repeated.")
@click.option("--clones", type=click.Choice([*POLICIES, "by-image"]), help="What becomes of clones.")
@click.option("--moved", type=click.Choice([ASK, KEEP]), help="What becomes of a machine on other hardware.")
@click.option("--names", help="Template of names: {hostname}, {image}, {profile}, {suffix}.")
@click.option("--contact", help="Whom the owner of a quarantined machine asks.")
@json_option
@click.pass_obj
@told
def profiles_set(
    data: Path,
    name: str,
    subscription: str | None,
    group: str | None,
    location: str | None,
    tags: tuple[str, ...],
    clones: str | None,
    moved: str | None,
    names: str | None,
    contact: str | None,
    as_json: bool,
) -> None:
    """Make a profile, or change what is given of one."""
    wished: dict[str, Any] = {
        "subscriptionId": subscription,
        "resourceGroup": group,
        "location": location,
        "tags": _tags(tags) or None,
        "moved": moved,
        "nameTemplate": names,
        "contact": contact,
    }
    given = {key: value for key, value in wished.items() if value is not None}
    if clones is not None:
        given["clones"] = None if clones == "by-image" else clones
    answer, made = work.put(data, name, given)
    if as_json:
        print_json(answer)
        return
    print(f"The profile '{name}' was {'made' if made else 'changed'}.")
    if made and answer["resourceGroup"]:
        print(f"Next:\n  hawser-hub profiles token {name} --uses 100 --days 30 --image IMAGE")


@profiles.command("remove")
@click.argument("name")
@click.pass_obj
@told
def profiles_remove(data: Path, name: str) -> None:
    """Take a profile away with its tokens."""
    removed = work.remove(data, name)
    print(f"The profile '{name}' {'was removed' if removed else 'was not there; nothing was changed'}.")


@profiles.command("token")
@click.argument("name")
@click.option("--uses", type=int, required=True, help="How many machines may join with it.")
@click.option("--days", type=int, required=True, help="How long it is good, at most 90.")
@click.option("--image", help="Only machines of this image.")
@click.option("--token-file", type=click.Path(path_type=Path, dir_okay=False), help="Write it there, 0600.")
@json_option
@click.pass_obj
@told
def profiles_token(
    data: Path, name: str, uses: int, days: int, image: str | None, token_file: Path | None, as_json: bool
) -> None:
    """Make an enrolment token. Its text is told once."""
    made = work.make_token(data, name, {"uses": uses, "days": days, "imageId": image}, token_file)
    if as_json:
        print_json(made)
        return
    print(f"token    {f'in {token_file}' if token_file else made['token']}\nid       {made['id']}")
    print(f"expires  {made['expires']}, after {uses} machines at the latest")


@profiles.command("revoke")
@click.argument("name")
@click.argument("token_id")
@click.pass_obj
@told
def profiles_revoke(data: Path, name: str, token_id: str) -> None:
    """Let no machine join with a token any more; TOKEN_ID as in 'show'."""
    work.revoke(data, name, token_id)
    print(f"The token {token_id} was revoked.")
