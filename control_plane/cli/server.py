# SPDX-License-Identifier: Apache-2.0
"""`init` and `serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from control_plane import setup
from control_plane.cli.common import print_json, told


@click.command()
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
@click.option(
    "--database", metavar="URL", help="postgresql+psycopg://USER@HOST/NAME. Default: SQLite in the directory."
)
@click.option("--database-password-file", type=click.Path(path_type=Path, dir_okay=False), help="0600, of that USER.")
@click.option("--json", "as_json", is_flag=True, help="Print {url, tenantId, subscriptionId, caFile, locations}.")
@click.pass_obj
@told
def init(data: Path, as_json: bool, locations: tuple[str, ...], **options: Any) -> None:
    """Make the hub's keys, certificates and database. Run again: changes nothing."""
    from control_plane.keyring import ca_file

    outcome = setup.init(data, setup.Request(locations=setup.parse_locations(locations), **options))
    made = outcome.settings
    if as_json:
        print_json(
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


@click.command()
@click.option("--listen", metavar="ADDR:PORT", help="Default: 0.0.0.0 and the port of the URL.")
@click.pass_obj
@told
def serve(data: Path, listen: str | None) -> None:
    """Run the hub until SIGTERM."""
    from control_plane.serve import serve as run

    run(data, listen)
