# SPDX-License-Identifier: Apache-2.0
"""`user`: people who sign in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from control_plane.arm.roles import HUB, ROLES
from control_plane.cli.common import json_option, print_json, table, told
from control_plane.errors import OperatorError
from control_plane.operate import users
from control_plane.operate.users import NewPassword

_MAX = 4096


def _password_options(function: Callable[..., Any]) -> Callable[..., Any]:
    path = click.Path(path_type=Path, dir_okay=False)
    given = click.option("--password-file", type=path, help="Read the password there; '-': standard input (default).")
    new = click.option("--new-password-file", type=path, help="Make a password and write it there, 0600.")
    return given(new(function))


def _password(given: Path | None, new: Path | None) -> NewPassword:
    """Errors: OperatorError when it cannot be read."""
    if new is not None:
        if given is not None:
            raise OperatorError("A password is either given or made.", "Use one of the two options.")
        return NewPassword(None, new)
    if given is not None and str(given) != "-":
        try:
            with given.open(encoding="utf-8") as stream:
                text = stream.read(_MAX)
        except (OSError, UnicodeDecodeError) as error:
            raise OperatorError(f"{given} cannot be read ({error}).", "Name a text file of your own.") from error
    elif sys.stdin.isatty():
        text = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        text = sys.stdin.readline(_MAX)
    return NewPassword(text.removesuffix("\n").removesuffix("\r"), None)


@click.group()
def user() -> None:
    """People: who may sign in on the fleet page."""


@user.command("create")
@click.argument("name")
@click.option("--role", type=click.Choice(list(ROLES), case_sensitive=False), help="Default: none yet.")
@click.option("--scope", default=HUB, show_default=True, help="Where the role is held: / or a resource id.")
@click.option("--email")
@_password_options
@json_option
@click.pass_obj
@told
def user_create(
    data: Path,
    name: str,
    role: str | None,
    scope: str,
    email: str | None,
    password_file: Path | None,
    new_password_file: Path | None,
    as_json: bool,
) -> None:
    """Make a user. The password comes from standard input, a file, or is made."""
    made = users.create(data, name, _password(password_file, new_password_file), role, scope, email)
    if as_json:
        print_json(made)
        return
    print(f"User '{name}' {f'with role {role}' if role else 'without a role'}.\n  object id  {made['objectId']}")
    if new_password_file:
        print(f"  password   in {new_password_file}")
    if not role:
        print(f"Next:\n  hawser-hub role assign {name} Reader")


@user.command("list")
@json_option
@click.pass_obj
@told
def user_list(data: Path, as_json: bool) -> None:
    """Every user."""
    found = users.every(data)
    if as_json:
        print_json(found)
        return
    rows = [
        [
            item["name"],
            item["objectId"],
            ", ".join(held["role"] for held in item["roles"]) or "-",
            item["email"] or "-",
            "disabled" if item["disabled"] else "active",
        ]
        for item in found
    ]
    table(["NAME", "OBJECT ID", "ROLE", "E-MAIL", "STATE"], rows)


def _set_disabled(data: Path, name: str, *, disabled: bool) -> None:
    changed = users.set_disabled(data, name, disabled=disabled)
    word = "disabled; sessions have ended" if disabled else "enabled"
    print(f"User '{name}' {'is ' + word if changed else 'was so already; nothing was changed'}.")


@user.command("disable")
@click.argument("name")
@click.pass_obj
@told
def user_disable(data: Path, name: str) -> None:
    """Let somebody sign in no more; sessions end at once."""
    _set_disabled(data, name, disabled=True)


@user.command("enable")
@click.argument("name")
@click.pass_obj
@told
def user_enable(data: Path, name: str) -> None:
    """Let somebody sign in again."""
    _set_disabled(data, name, disabled=False)


@user.command("passwd")
@click.argument("name")
@_password_options
@click.pass_obj
@told
def user_passwd(data: Path, name: str, password_file: Path | None, new_password_file: Path | None) -> None:
    """Give another password; sessions end at once."""
    users.set_password(data, name, _password(password_file, new_password_file))
    where = f" It is in {new_password_file}." if new_password_file else ""
    print(f"User '{name}' has another password; sessions have ended.{where}")


@user.command("delete")
@click.argument("name")
@click.pass_obj
@told
def user_delete(data: Path, name: str) -> None:
    """Take a user away with sessions and roles."""
    users.remove(data, name)
    print(f"User '{name}' is gone.")
