# SPDX-License-Identifier: Apache-2.0
"""The command line `hawser-hub`. Results on standard output, errors as one sentence and a remedy on standard error.

A command's module is imported when the command is called: the database and its libraries cost most of a second.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

import click

from control_plane import settings

# Command: module of this package, and its line in --help.
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("server", "Make the hub's keys, certificates and database."),
    "config": ("config", "Check a configuration before a hub is given it."),
    "serve": ("server", "Run the hub until SIGTERM."),
    "principal": ("principals", "Service principals: who may use the hub."),
    "user": ("users", "People: who may sign in on the fleet page."),
    "role": ("roles", "Role assignments of principals and users."),
    "audit": ("audit", "Who wrote what, and what was refused."),
    "keys": ("keys", "The keys that sign access tokens, and their rotation."),
    "machines": ("fleet", "The fleet."),
    "extensions": ("extensions", "Extensions of machines, and how they stand."),
    "events": ("events", "What happened to machines."),
    "profiles": ("profiles", "Where machines of an image join, and what becomes of clones."),
    "twins": ("twins", "Machines that hold a copied identity, and what is decided about them."),
    "images": ("twins", "Images that machines come from."),
    "cleanup": ("cleanup", "Rules for machines that have been silent for long."),
    "notify": ("notify", "Who is told when machines fall silent."),
    "cloud-profile": ("fleet", "Print the profile that agents need."),
    "onboarding-script": ("fleet", "Print a POSIX script that connects a machine."),
    "audience": ("audiences", "Applications that machines may get tokens for."),
    "artefacts": ("artefacts", "Packages for machines: add, sign, publish."),
    "backup": ("backup", "Write everything the hub is into a file."),
    "restore": ("backup", "Make the hub of a backup."),
    "migrate": ("migrate", "Bring the database to another revision."),
    "trust": ("trust", "What machines trust, and its rotation."),
}


class _Lazy(click.Group):
    """Finds a command by the table above; the function has the command's name with `_` for `-`."""

    def list_commands(self, _context: click.Context) -> list[str]:
        """In the order of the table."""
        return list(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        """Import what is called."""
        if name not in COMMANDS:
            return None
        module = import_module(f"{__name__}.{COMMANDS[name][0]}")
        found: click.Command = getattr(module, name.replace("-", "_"))
        return found

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
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
