# SPDX-License-Identifier: Apache-2.0
"""What every command shares: errors told as one sentence and a remedy, JSON, tables, the `--json` switch."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import Any

import click

from control_plane.errors import OperatorError

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


def told(function: Callable[..., None]) -> Callable[..., None]:
    """OperatorError becomes two lines and exit code 1, never a stack trace."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except OperatorError as error:
            print(f"hawser-hub: {error.message}\n{error.remedy}", file=sys.stderr)
            sys.exit(1)

    return run


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))


def table(header: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[index]) for row in [header, *rows]) for index in range(len(header))]
    for row in [header, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
