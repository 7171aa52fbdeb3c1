# SPDX-License-Identifier: Apache-2.0
"""The command line `hawser-hub`. Results on standard output, errors as one sentence and a remedy on standard error."""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from control_plane import operate, settings, setup
from control_plane.arm.roles import ROLES
from control_plane.errors import OperatorError


def _told(function: Callable[..., None]) -> Callable[..., None]:
    """OperatorError becomes two lines and exit code 1, never a stack trace."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except OperatorError as error:
            print(f"hawser-hub: {error.message}\n{error.remedy}", file=sys.stderr)
            sys.exit(1)

    return run


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))


def _table(header: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[index]) for row in [header, *rows]) for index in range(len(header))]
    for row in [header, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="HAWSER_HUB_DATA",
    default=settings.DEFAULT_DATA,
    show_default=True,
    help="Data directory of the hub (also HAWSER_HUB_DATA).",
)
@click.pass_context
def main(context: click.Context, data: Path) -> None:
    """The control plane of hawser."""
    os.umask(0o077)
    context.obj = data


@main.command()
@click.option("--url", required=True, help="https://HOST:PORT under which agents and clients reach the hub.")
@click.option("--location", "locations", multiple=True, metavar="NAME=DISPLAY", help="A place machines may be in.")
@click.option("--tenant-id", metavar="GUID", help="Made if not given.")
@click.option("--tenant-domain", default="hawser.internal", show_default=True)
@click.option("--subscription-id", metavar="GUID", help="Made if not given.")
@click.option("--subscription-name", default="Default", show_default=True)
@click.option("--san", "sans", multiple=True, metavar="NAME", help="Further name or address for the certificate.")
@click.option("--certificate", type=click.Path(path_type=Path), help="PEM chain to use instead of an own CA.")
@click.option("--key", type=click.Path(path_type=Path), help="PEM key of --certificate.")
@click.option("--ca", type=click.Path(path_type=Path), help="PEM of the CA of --certificate, if not in its file.")
@click.option("--json", "as_json", is_flag=True, help="Print {url, tenantId, subscriptionId, caFile, locations}.")
@click.pass_obj
@_told
def init(data: Path, as_json: bool, locations: tuple[str, ...], **options: Any) -> None:
    """Make the hub's keys, certificates and database. Run again: changes nothing."""
    from control_plane.keyring import ca_file

    outcome = setup.init(data, setup.Request(locations=setup.parse_locations(locations), **options))
    made = outcome.settings
    if as_json:
        _print_json(
            {
                "url": made.url,
                "tenantId": made.tenant_id,
                "subscriptionId": outcome.subscription_id,
                "caFile": str(ca_file(data)),
                "locations": [name for name, _ in outcome.locations],
                "changed": outcome.changed,
            }
        )
        return
    print(f"A hub is in {data} {'now' if outcome.changed else 'already; nothing was changed'}.")
    print(f"  address       {made.url}\n  tenant        {made.tenant_id} ({made.tenant_domain})")
    print(f"  subscription  {outcome.subscription_id}\n  CA            {ca_file(data)}")
    print(f"  locations     {', '.join(f'{name} ({display})' for name, display in outcome.locations)}")
    print(
        f"Next:\n  hawser-hub --data {data} serve\n"
        f"  hawser-hub --data {data} principal create admin --role Owner --secret-file admin.secret"
    )


@main.command()
@click.option("--listen", metavar="ADDR:PORT", help="Default: 0.0.0.0 and the port of the URL.")
@click.pass_obj
@_told
def serve(data: Path, listen: str | None) -> None:
    """Run the hub until SIGTERM."""
    from control_plane.serve import serve as run

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    run(data, listen)


@main.group()
def principal() -> None:
    """Service principals: who may use the hub."""


@principal.command("create")
@click.argument("name")
@click.option("--role", required=True, type=click.Choice(list(ROLES), case_sensitive=False))
@click.option("--secret-file", type=click.Path(path_type=Path, dir_okay=False), help="Write the secret there, 0600.")
@click.option("--valid-days", type=click.IntRange(1, 3650), help="The secret expires after so many days.")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
@_told
def principal_create(
    data: Path, name: str, role: str, secret_file: Path | None, valid_days: int | None, as_json: bool
) -> None:
    """Make a principal with a secret of our own making."""
    made = operate.create_principal(data, name, role, valid_days, secret_file)
    if as_json:
        _print_json(made)
        return
    print(f"Principal '{made['name']}' with role {made['role']}.\n  client id  {made['clientId']}")
    print(f"  tenant     {made['tenantId']}\n  authority  {made['authority']}")
    if "clientSecretFile" in made:
        print(f"  secret     in {made['clientSecretFile']}")
    else:
        print(f"  secret     {made['clientSecret']}\nThe secret is shown this once; the hub keeps a hash alone.")


@principal.command("list")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
@_told
def principal_list(data: Path, as_json: bool) -> None:
    """Every principal, revoked ones too."""
    found = operate.list_principals(data)
    if as_json:
        _print_json(found)
        return
    rows = [
        [
            item["name"],
            item["clientId"],
            ", ".join(item["roles"]),
            item["created"],
            item["secretExpires"] or "never",
            "revoked" if item["revoked"] else "active",
        ]
        for item in found
    ]
    _table(["NAME", "CLIENT ID", "ROLE", "CREATED", "SECRET EXPIRES", "STATE"], rows)


@principal.command("revoke")
@click.argument("name_or_id")
@click.pass_obj
@_told
def principal_revoke(data: Path, name_or_id: str) -> None:
    """End a principal; its tokens stop working at once."""
    changed, name = operate.revoke_principal(data, name_or_id)
    print(f"Principal '{name}' {'is revoked' if changed else 'was revoked already; nothing was changed'}.")


@main.command()
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
@_told
def machines(data: Path, as_json: bool) -> None:
    """The fleet, from the database (a running hub writes heartbeats within a second)."""
    found = operate.list_machines(data)
    if as_json:
        _print_json(found)
        return
    keys = ("name", "os", "agentVersion", "status", "lastHeartbeat", "address", "resourceGroup", "location")
    header = ["NAME", "OS", "AGENT", "STATUS", "LAST HEARTBEAT", "ADDRESS", "GROUP", "LOCATION"]
    _table(header, [[str(item[key] or "-") for key in keys] for item in found])


@main.command("cloud-profile")
@click.option("--name", default="hawser", show_default=True)
@click.pass_obj
@_told
def cloud_profile(data: Path, name: str) -> None:
    """Print the profile that agents need (docs/protocol.md section 2)."""
    _print_json(operate.cloud_profile(data, name))


@main.command("onboarding-script")
@click.option("--name", default="hawser", show_default=True, help="Name of the cloud profile.")
@click.option("-g", "--resource-group", default="machines", show_default=True)
@click.option("-l", "--location", help="Default: the only one there is.")
@click.option("--tags", help="key=value,key=value")
@click.pass_obj
@_told
def onboarding_script(data: Path, name: str, resource_group: str, location: str | None, tags: str | None) -> None:
    """Print a POSIX script that connects a machine; its SHA-256 goes to standard error."""
    script, digest = operate.onboarding_script(data, name, resource_group, location, tags)
    sys.stdout.write(script)
    print(f"SHA-256 {digest}", file=sys.stderr)


@main.group()
def audience() -> None:
    """Resource URIs of own applications that machines may get tokens for."""


@audience.command("add")
@click.argument("uri")
@click.pass_obj
@_told
def audience_add(data: Path, uri: str) -> None:
    """Allow tokens for URI."""
    changed = operate.add_audience(data, uri)
    print(f"Tokens are issued for '{uri}'{'.' if changed else ' already; nothing was changed.'}")


@audience.command("list")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
@_told
def audience_list(data: Path, as_json: bool) -> None:
    """URIs that were added, and the well-known ones."""
    added, known = operate.list_audiences(data)
    if as_json:
        _print_json({"added": added, "wellKnown": known})
        return
    _table(["URI", "FROM"], [[uri, "added"] for uri in added] + [[uri, "well known"] for uri in known])


@audience.command("remove")
@click.argument("uri")
@click.pass_obj
@_told
def audience_remove(data: Path, uri: str) -> None:
    """Issue no more tokens for URI."""
    changed = operate.remove_audience(data, uri)
    print(f"'{uri}' {'was removed' if changed else 'was not there; nothing was changed'}.")
