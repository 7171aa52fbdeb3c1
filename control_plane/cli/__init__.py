# SPDX-License-Identifier: Apache-2.0
"""The command line `hawser-hub`. Results on standard output, errors as one sentence and a remedy on standard error."""

from __future__ import annotations

import os
from pathlib import Path

import click

from control_plane import settings
from control_plane.cli import audiences, fleet, principals, server, trust


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


for _command in (
    server.init,
    server.serve,
    principals.principal,
    fleet.machines,
    fleet.cloud_profile,
    fleet.onboarding_script,
    audiences.audience,
    trust.trust,
):
    main.add_command(_command)
