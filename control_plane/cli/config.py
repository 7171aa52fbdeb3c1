# SPDX-License-Identifier: Apache-2.0
"""`config`."""

from __future__ import annotations

from pathlib import Path

import click

from control_plane.cli.common import told
from control_plane.operate import config as work


@click.group()
def config() -> None:
    """The configuration of the hub."""


@config.command("check")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.pass_obj
@told
def config_check(data: Path, file: Path | None) -> None:
    """Say whether a hub would start with FILE, or with the hub's own config.yaml. Nothing is changed, no hub needed."""
    path, sections = work.check(data, file)
    if not path.exists():
        print(f"There is no {path}: every default holds.")
        return
    print(f"{path} is right; it sets {', '.join(sections) or 'nothing'}.")
