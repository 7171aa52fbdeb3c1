# SPDX-License-Identifier: Apache-2.0
"""`audit`: who wrote what, and what was refused."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from control_plane.cli.common import told
from control_plane.operate import audit as work


def _line(entry: dict[str, Any]) -> str:
    outcome = entry["outcome"] if entry["code"] is None else f"{entry['outcome']} ({entry['code']})"
    detail = f"  {json.dumps(entry['detail'], ensure_ascii=False)}" if entry["detail"] else ""
    # Of a user the name is what the audit has.
    name = f" ({entry['actorName']})" if entry["actorName"] not in (None, entry["actor"]) else ""
    actor = f"{entry['actorType']} {entry['actor']}{name}"
    text = f"{entry['at']}  {actor}  {entry['action']}  {entry['target']}  {outcome}{detail}"
    # What callers named may hold anything: a terminal must not act on it.
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


@click.group(invoke_without_command=True)
@click.option("--actor", help="Client id, or a user's name.")
@click.option("--action", help="Beginning of the action.")
@click.option("--target", help="Beginning of the target.")
@click.option("--outcome", help="Succeeded or Refused.")
@click.option("--from", "begins", metavar="TIME", help="RFC 3339.")
@click.option("--to", "ends", metavar="TIME", help="RFC 3339; not included.")
@click.option("-n", "--lines", "count", type=click.IntRange(1, 100000), default=50, show_default=True)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
@told
def audit(
    context: click.Context,
    actor: str | None,
    action: str | None,
    target: str | None,
    outcome: str | None,
    begins: str | None,
    ends: str | None,
    count: int,
    follow: bool,
    as_json: bool,
) -> None:
    """The newest entries of the audit, the youngest last."""
    if context.invoked_subcommand is not None:
        return
    data: Path = context.obj
    which = work.wanted(actor, action, target, outcome, begins, ends)

    def show(entry: dict[str, Any]) -> None:
        print(json.dumps(entry) if as_json else _line(entry), flush=follow)

    found = work.newest(data, which, count)
    try:
        for entry in found:
            show(entry)
        if follow:
            for entry in work.follow(data, which, found[-1]["id"] if found else 0):
                show(entry)
    except KeyboardInterrupt:
        return
    except BrokenPipeError:  # the reader went away; what is still buffered must not be complained about at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@audit.command()
@click.option("--before", required=True, metavar="TIME", help="RFC 3339; not included.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_obj
@told
def export(data: Path, before: str, file: Path) -> None:
    """Write all entries before TIME into FILE, which must not exist: one JSON object a line, the oldest first."""
    count = work.export(data, work.wanted(None, None, None, None, None, before), file)
    print(f"{file} holds {count} entries from before {before}. They stay in the audit, too.")
