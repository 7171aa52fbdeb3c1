# SPDX-License-Identifier: Apache-2.0
"""Who is told of transitions: the section `notifications` of config.yaml as plain data, and secrets from files."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control_plane.errors import OperatorError
from control_plane.fleet.watch_rows import TRANSITIONS

MAX_SECRET = 4096
MIN_WEBHOOK_SECRET = 16


@dataclass(frozen=True)
class Webhook:
    """`url`: https. `ca_file`: CA of the receiver, if it is not a public one. `timeout`: seconds for one delivery."""

    url: str
    secret_file: Path
    ca_file: Path | None
    timeout: int


@dataclass(frozen=True)
class Mail:
    """`tls`: `starttls` or `tls`, never without. `digest`: seconds to wait for more before a mail is sent."""

    server: str
    port: int
    tls: str
    ca_file: Path | None
    username: str | None
    password_file: Path | None
    sender: str
    to: tuple[str, ...]
    digest: int


@dataclass(frozen=True)
class Target:
    """`words`: of TRANSITIONS, what it is told of."""

    name: str
    words: frozenset[str]
    way: Webhook | Mail


def _path(section: Mapping[str, Any], name: str) -> Path | None:
    return Path(section[name]) if section.get(name) else None


def _target(section: Mapping[str, Any]) -> Target:
    words = frozenset(section.get("transitions") or TRANSITIONS)
    if "webhook" in section:
        hook = section["webhook"]
        way: Webhook | Mail = Webhook(
            hook["url"], Path(hook["secret_file"]), _path(hook, "ca_file"), hook.get("timeout", 10)
        )
    else:
        mail = section["email"]
        tls = mail.get("tls", "starttls")
        way = Mail(
            mail["server"],
            mail.get("port") or (587 if tls == "starttls" else 465),
            tls,
            _path(mail, "ca_file"),
            mail.get("username"),
            _path(mail, "password_file"),
            mail["from"],
            tuple(mail["to"]),
            mail.get("digest_seconds", 60),
        )
    return Target(section["name"], words, way)


def read(config: Mapping[str, Any]) -> tuple[Target, ...]:
    """The targets of a configuration that fits its schema.

    Errors: OperatorError for a name that is given twice, or a user without a password.
    """
    found = tuple(_target(item) for item in (config.get("notifications") or {}).get("targets", ()))
    names = [target.name for target in found]
    if len(set(names)) != len(names):
        raise OperatorError(
            f"Two notification targets have the same name ({', '.join(sorted(names))}).", "Name each differently."
        )
    for target in found:
        way = target.way
        if isinstance(way, Mail) and (way.username is None) != (way.password_file is None):
            raise OperatorError(
                f"The notification target '{target.name}' has only one of username and password_file.", "Give both."
            )
    return found


def secret(path: Path, least: int = 1) -> bytes:
    """The content of a file that nobody else may read, without the line's end.

    Errors: OperatorError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            found = os.fstat(stream.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077:
                raise OperatorError(f"Others may read {path}, or it is no file.", "Set its mode to 0600.")
            data = stream.read(MAX_SECRET + 1).rstrip(b"\r\n")
    except OSError as error:
        raise OperatorError(f"{path} cannot be read ({error.strerror}).", "Let the hub's user read it.") from error
    if not least <= len(data) <= MAX_SECRET:
        raise OperatorError(
            f"{path} holds {len(data)} bytes.", f"Put a secret of {least} to {MAX_SECRET} bytes into it."
        )
    return data
