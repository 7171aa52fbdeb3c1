# SPDX-License-Identifier: Apache-2.0
"""Secrets on their way to an operator: files of mode 0600 that were not there before."""

from __future__ import annotations

from pathlib import Path

from control_plane import settings
from control_plane.errors import OperatorError


def check_absent(path: Path) -> None:
    """Errors: OperatorError when something is there."""
    if path.exists() or path.is_symlink():
        raise OperatorError(f"{path} exists already.", "Name another file, or remove it first.")


def write_secret(path: Path, secret: str) -> None:
    """Errors: OperatorError when it cannot be written."""
    try:
        settings.write_file(path, secret.encode(), 0o600)
    except OSError as error:
        raise OperatorError(
            f"{path} cannot be written ({error.strerror}).", "Name a file in a directory that exists and has space."
        ) from error
