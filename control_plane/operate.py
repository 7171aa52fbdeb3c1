# SPDX-License-Identifier: Apache-2.0
"""What the operator's commands do, on the data directory; a hub may be running on it at the same time."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from control_plane import keyring, settings
from control_plane.arm.paths import is_group_name
from control_plane.arm.roles import ROLES
from control_plane.authority import audiences
from control_plane.clock import now, rfc3339
from control_plane.errors import OperatorError
from control_plane.hub import open_database
from control_plane.setup import operator
from control_plane.storage import audit, machines, principals
from control_plane.storage.database import Database
from control_plane.storage.models import Audience, Location, Subscription

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$")
_PROFILE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")


@contextmanager
def _database(data: Path) -> Iterator[tuple[Database, settings.Settings]]:
    config = settings.load(data)
    database = open_database(data)
    try:
        yield database, config
    except OperationalError as error:
        raise OperatorError(
            f"The database in {data} cannot be used ({error.orig}).",
            "Check rights and free space; while another command writes, try again.",
        ) from error
    finally:
        database.close()


def create_principal(
    data: Path, name: str, role: str, valid_days: int | None, secret_file: Path | None
) -> dict[str, Any]:
    """Make a principal; the secret goes to the file, or into the answer.

    Errors: OperatorError: name taken or not one, file exists or cannot be written; nothing is made then.
    """
    role = next((word for word in ROLES if word.lower() == role.lower()), role)
    if not _NAME.match(name):
        raise OperatorError(f"'{name}' cannot be a principal's name.", "Use letters, digits and . _ @ - .")
    if secret_file is not None and (secret_file.exists() or secret_file.is_symlink()):
        raise OperatorError(f"{secret_file} exists already.", "Name another file, or remove it first.")
    with _database(data) as (database, config):
        secret = principals.new_secret()
        expires = now() + valid_days * 86400 if valid_days else None
        with database.write() as session:
            if principals.find_by_name_or_id(session, name) is not None:
                raise OperatorError(
                    f"A principal named '{name}' exists already.", "Choose another name; revoked ones keep theirs."
                )
            subscription = session.scalars(select(Subscription.id).order_by(Subscription.created)).first()
            scope = f"/subscriptions/{subscription}"
            made = principals.create(session, name, role, scope, secret, expires)
            audit.record(session, operator(), "principal/create", made.id, detail={"name": name, "role": role})
            if secret_file is not None:
                _write_secret(secret_file, secret)
        answer: dict[str, Any] = {
            "name": name,
            "role": role,
            "clientId": made.id,
            "objectId": made.object_id,
            "tenantId": config.tenant_id,
            "authority": config.url,
            "subscriptionId": subscription,
            "secretExpires": rfc3339(expires) if expires else None,
        }
        return {**answer, **({"clientSecretFile": str(secret_file)} if secret_file else {"clientSecret": secret})}


def _write_secret(path: Path, secret: str) -> None:
    try:
        settings.write_file(path, secret.encode(), 0o600)
    except OSError as error:
        raise OperatorError(
            f"{path} cannot be written ({error.strerror}).", "Name a file in a directory that exists and has space."
        ) from error


def list_principals(data: Path) -> list[dict[str, Any]]:
    """Every principal, without secrets."""
    with _database(data) as (database, _config), database.read() as session:
        return [
            {
                "name": item.name,
                "clientId": item.id,
                "objectId": item.object_id,
                "roles": [role for role, _ in principals.assignments(session, item.object_id)],
                "created": rfc3339(item.created),
                "secretExpires": next(
                    (rfc3339(one.expires) for one in principals.secrets_of(session, item.id) if one.expires), None
                ),
                "revoked": rfc3339(item.revoked) if item.revoked else None,
            }
            for item in principals.all_principals(session)
        ]


def revoke_principal(data: Path, name_or_id: str) -> tuple[bool, str]:
    """End a principal. (False, name) when it was ended before.

    Errors: OperatorError when there is none.
    """
    with _database(data) as (database, _config), database.write() as session:
        found = principals.find_by_name_or_id(session, name_or_id)
        if found is None:
            raise OperatorError(f"There is no principal '{name_or_id}'.", "See 'hawser-hub principal list'.")
        if found.revoked is not None:
            return False, found.name
        found.revoked = now()
        audit.record(session, operator(), "principal/revoke", found.id, detail={"name": found.name})
        return True, found.name


def list_machines(data: Path) -> list[dict[str, Any]]:
    """The fleet as the table shows it, by name."""
    from control_plane.web.api import fleet_item

    at = now()
    with _database(data) as (database, _config), database.read() as session:
        items: list[dict[str, Any]] = []
        last: int | None = 0
        while last is not None:
            rows, last = machines.page(
                session, lambda _id: None, subscription_id=None, group=None, after=last, size=1000
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
    with _database(data) as (database, config), database.read() as session:
        places = [item.name for item in machines.locations(session)]
    keys = keyring.load(data)
    return {
        "schema": 1,
        "name": name,
        "arm": config.url,
        "authority": config.url,
        "tenant_id": config.tenant_id,
        "channel": [f"{config.url}/channel"],
        "artefacts": [],
        "gateway": None,
        "ca_pem": keys.ca_pem,
        "tuf_root": None,
        "locations": places,
        "desired_state_keys": [keys.desired_jwk],
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
    with _database(data) as (database, config), database.read() as session:
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


def add_audience(data: Path, uri: str) -> bool:
    """Allow a resource URI. False when it was allowed before.

    Errors: OperatorError when it is no absolute URI without a fragment, or one of the hub's own.
    """
    parts = urlsplit(uri)
    if not parts.scheme or not (parts.netloc or parts.path) or parts.fragment or len(uri) > 512 or " " in uri:
        raise OperatorError(f"'{uri}' is not a resource URI.", "Use a form like api://name or https://app.example.org.")
    if audiences.folded(uri) in (audiences.CHANNEL, audiences.TICKET):
        raise OperatorError(f"'{uri}' is the hub's own.", "Choose another URI.")
    with _database(data) as (database, _config), database.write() as session:
        known = {audiences.folded(item) for item in session.scalars(select(Audience.uri))}
        if audiences.folded(uri) in known:
            return False
        session.add(Audience(uri=uri, created=now()))
        audit.record(session, operator(), "audience/add", uri)
        return True


def list_audiences(data: Path) -> tuple[list[str], list[str]]:
    """(added, well-known)."""
    with _database(data) as (database, config), database.read() as session:
        added = list(session.scalars(select(Audience.uri).order_by(Audience.uri)))
    return added, [config.url, *audiences.ARM_PUBLIC, *audiences.WELL_KNOWN]


def remove_audience(data: Path, uri: str) -> bool:
    """Take a resource URI back. False when it was not there."""
    with _database(data) as (database, _config), database.write() as session:
        found = [
            item for item in session.scalars(select(Audience)) if audiences.folded(item.uri) == audiences.folded(uri)
        ]
        for item in found:
            session.delete(item)
        if found:
            audit.record(session, operator(), "audience/remove", uri)
        return bool(found)


def known_locations(data: Path) -> list[str]:
    """Names of the hub's locations."""
    with _database(data) as (database, _config), database.read() as session:
        return list(session.scalars(select(Location.name).order_by(Location.name)))
