# SPDX-License-Identifier: Apache-2.0
"""The fleet, and what connects machines to it."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

from sqlalchemy import select

from control_plane import keyring
from control_plane.api.fleet import fleet_item
from control_plane.arm.paths import is_group_name
from control_plane.arm.roles import HUB
from control_plane.artefacts import place as artefacts
from control_plane.clock import now
from control_plane.errors import OperatorError
from control_plane.operate.database import opened
from control_plane.storage import machines
from control_plane.storage.models import Subscription

_PROFILE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")


def list_machines(data: Path) -> list[dict[str, Any]]:
    """The fleet as the table shows it, by name."""
    at = now()
    with opened(data) as (database, _config), database.read() as session:
        items: list[dict[str, Any]] = []
        last: int | None = 0
        while last is not None:
            rows, last = machines.page(
                session, lambda _id: None, scopes=[HUB], subscription_id=None, group=None, after=last, size=1000
            )
            items += [fleet_item(row, at) for row in rows]
    for item in items:
        item["os"] = item["osSku"] or item["osName"] or item["osType"]
    return sorted(items, key=lambda item: item["name"].lower())


def cloud_profile(data: Path, name: str) -> dict[str, Any]:
    """The cloud profile of docs/protocol.md section 2.

    Errors: OperatorError for a name that cannot be one.
    """
    if not _PROFILE.match(name):
        raise OperatorError(f"'{name}' cannot be a profile's name.", "Use letters, digits and . _ - .")
    with opened(data) as (database, config), database.read() as session:
        places = [item.name for item in machines.locations(session)]
    keys = keyring.load(data)
    return {
        "schema": 1,
        "name": name,
        "arm": config.url,
        "authority": config.url,
        "tenant_id": config.tenant_id,
        "channel": [f"{config.url}/channel"],
        "artefacts": [f"{config.url}/artefacts"],
        "gateway": None,
        "ca_pem": keys.ca_pem,
        "tuf_root": artefacts.root_text(artefacts.of(data)),
        "locations": places,
        "desired_state_keys": keys.desired_jwks,
    }


_SCRIPT = """#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Connects this machine to the hub at {url}. The agent must be installed.
# The access token is read from the file named by the first argument, or from standard input.
set -eu
umask 077
if [ "$(id -u)" -ne 0 ]; then echo 'Run this script as root.' >&2; exit 18; fi
if ! command -v azcmagent >/dev/null; then echo 'Install the agent package first.' >&2; exit 3; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/profile.json" <<'HAWSER_PROFILE'
{profile}
HAWSER_PROFILE
cat "${{1:--}}" >"$work/token"
azcmagent cloud add "$work/profile.json"
# The token goes by a file that only root reads: arguments are visible to every user of the machine.
cat >"$work/connect.json" <<HAWSER_CONNECT
{{"access-token": "$(tr -d '\\r\\n' <"$work/token")", "cloud": {cloud}, "tenant-id": {tenant},
 "subscription-id": {subscription}, "resource-group": {group}, "location": {location}{tags}}}
HAWSER_CONNECT
azcmagent connect --config "$work/connect.json"
"""


def _in_here_document(text: str) -> str:
    """A JSON text as it must stand in an unquoted here-document."""
    return json.dumps(text).replace("$", "\\$").replace("`", "\\`")


def onboarding_script(data: Path, name: str, group: str, location: str | None, tags: str | None) -> tuple[str, str]:
    """The script and its SHA-256.

    Errors: OperatorError for a group, location or tags that the hub would refuse.
    """
    profile = cloud_profile(data, name)
    if not is_group_name(group):
        raise OperatorError(f"'{group}' cannot be a resource group's name.", "Use letters, digits and . _ - ( ) .")
    known = profile["locations"]
    if location is None and len(known) == 1:
        location = known[0]
    if location is None or location not in known:
        told = f"There is no location '{location}'." if location else "There are several locations."
        raise OperatorError(told, f"Name one with -l: {', '.join(known)}.")
    if tags is not None and (not all("=" in item for item in tags.split(",")) or not tags.isprintable()):
        raise OperatorError(f"'{tags}' are no tags.", "Write key=value,key=value.")
    with opened(data) as (database, config), database.read() as session:
        subscription = session.scalars(select(Subscription.id).order_by(Subscription.created)).first() or ""
    text = _SCRIPT.format(
        url=shlex.quote(config.url).strip("'"),
        profile=json.dumps(profile),
        cloud=_in_here_document(name),
        tenant=_in_here_document(config.tenant_id),
        subscription=_in_here_document(subscription),
        group=_in_here_document(group),
        location=_in_here_document(location),
        tags=f', "tags": {_in_here_document(tags)}' if tags else "",
    )
    return text, hashlib.sha256(text.encode()).hexdigest()
