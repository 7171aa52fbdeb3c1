# SPDX-License-Identifier: Apache-2.0
"""`principal`: service principals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from control_plane.arm.roles import HUB, ROLES
from control_plane.cli.common import json_option, print_json, table, told
from control_plane.operate import credentials, principals

_FILE = click.Path(path_type=Path, dir_okay=False)
_DAYS = click.IntRange(1, 3650)


@click.group()
def principal() -> None:
    """Service principals: who may use the hub."""


@principal.command("create")
@click.argument("name")
@click.option("--role", required=True, type=click.Choice(list(ROLES), case_sensitive=False))
@click.option("--scope", default=HUB, show_default=True, help="Where the role is held: / or a resource id.")
@click.option("--secret-file", type=_FILE, help="Write the secret there, 0600.")
@click.option(
    "--certificate", type=_FILE, help="PEM of its certificate; then a secret is made with --secret-file only."
)
@click.option("--valid-days", type=_DAYS, help="The secret expires after so many days.")
@json_option
@click.pass_obj
@told
def principal_create(
    data: Path,
    name: str,
    role: str,
    scope: str,
    secret_file: Path | None,
    certificate: Path | None,
    valid_days: int | None,
    as_json: bool,
) -> None:
    """Make a principal, with a secret of our own making or a certificate of its own."""
    made = principals.create(data, name, role, valid_days, secret_file, scope, certificate)
    if as_json:
        print_json(made)
        return
    print(f"Principal '{made['name']}' with role {made['role']} at {made['scope']}.\n  client id  {made['clientId']}")
    print(f"  tenant     {made['tenantId']}\n  authority  {made['authority']}")
    if "certificate" in made:
        print(f"  certificate  SHA-256 {made['certificate']['sha256']}")
    _print_secret(made)


def _print_secret(made: dict[str, Any]) -> None:
    if "clientSecretFile" in made:
        print(f"  secret     in {made['clientSecretFile']}")
    elif "clientSecret" in made:
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
            str(item["certificates"]),
            str(item["secrets"]),
            item["secretExpires"] or ("never" if item["secrets"] else "-"),
            "revoked" if item["revoked"] else "active",
        ]
        for item in found
    ]
    table(["NAME", "CLIENT ID", "ROLE", "CREATED", "CERTIFICATES", "SECRETS", "SECRET EXPIRES", "STATE"], rows)


@principal.command("revoke")
@click.argument("name_or_id")
@click.pass_obj
@told
def principal_revoke(data: Path, name_or_id: str) -> None:
    """End a principal; its tokens stop working at once."""
    changed, name = principals.revoke(data, name_or_id)
    print(f"Principal '{name}' {'is revoked' if changed else 'was revoked already; nothing was changed'}.")


@principal.group("secret")
def principal_secret() -> None:
    """Secrets of a principal; several, so that one can be exchanged while the other works."""


@principal_secret.command("add")
@click.argument("name_or_id")
@click.option("--secret-file", type=_FILE, help="Write the secret there, 0600.")
@click.option("--valid-days", type=_DAYS, help="The secret expires after so many days.")
@json_option
@click.pass_obj
@told
def secret_add(data: Path, name_or_id: str, secret_file: Path | None, valid_days: int | None, as_json: bool) -> None:
    """Make another secret."""
    made = credentials.add_secret(data, name_or_id, valid_days, secret_file)
    if as_json:
        print_json(made)
        return
    print(f"Secret {made['id']}, expires {made['expires'] or 'never'}.")
    _print_secret(made)


@principal_secret.command("list")
@click.argument("name_or_id")
@json_option
@click.pass_obj
@told
def secret_list(data: Path, name_or_id: str, as_json: bool) -> None:
    """Ids and times of the secrets; never the secrets."""
    found = credentials.secrets_of(data, name_or_id)
    if as_json:
        print_json(found)
        return
    table(["ID", "CREATED", "EXPIRES"], [[item["id"], item["created"], item["expires"] or "never"] for item in found])


@principal_secret.command("remove")
@click.argument("name_or_id")
@click.argument("secret_id")
@click.pass_obj
@told
def secret_remove(data: Path, name_or_id: str, secret_id: str) -> None:
    """Take a secret away."""
    credentials.remove_secret(data, name_or_id, secret_id)
    print(f"The secret {secret_id} is gone.")


@principal.group("certificate")
def principal_certificate() -> None:
    """Certificates of a principal, for assertions (PS256, RS256)."""


@principal_certificate.command("add")
@click.argument("name_or_id")
@click.argument("file", type=_FILE)
@json_option
@click.pass_obj
@told
def certificate_add(data: Path, name_or_id: str, file: Path, as_json: bool) -> None:
    """Register the certificate in FILE (PEM)."""
    shown, fresh = credentials.add_certificate(data, name_or_id, file)
    if as_json:
        print_json({**shown, "changed": fresh})
        return
    there = "is registered" if fresh else "was registered already; nothing was changed"
    print(f"The certificate {shown['sha256']} {there}.")


@principal_certificate.command("list")
@click.argument("name_or_id")
@json_option
@click.pass_obj
@told
def certificate_list(data: Path, name_or_id: str, as_json: bool) -> None:
    """Certificates of a principal."""
    found = credentials.certificates_of(data, name_or_id)
    if as_json:
        print_json(found)
        return
    keys = ("sha256", "subject", "notAfter")
    table(["SHA-256", "SUBJECT", "NOT AFTER"], [[item[key] for key in keys] for item in found])


@principal_certificate.command("remove")
@click.argument("name_or_id")
@click.argument("thumbprint")
@click.pass_obj
@told
def certificate_remove(data: Path, name_or_id: str, thumbprint: str) -> None:
    """Take away the certificate with this SHA-256 or SHA-1 (hex)."""
    credentials.remove_certificate(data, name_or_id, thumbprint)
    print(f"The certificate {thumbprint} is gone.")
