# SPDX-License-Identifier: Apache-2.0
"""Versions of handlers, compared numerically by part (extension-handler.md section 11). Pure."""

from __future__ import annotations

import re

FORM = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,3}", re.ASCII)


def key(version: str) -> tuple[int, ...]:
    """What versions are sorted by: 1.10 is after 1.9, and missing parts are 0. Errors: ValueError."""
    if not FORM.fullmatch(version):
        raise ValueError(f"{version[:40]!r} is no version")
    parts = [int(part) for part in version.split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def same(one: str, other: str) -> bool:
    return key(one) == key(other)


def is_newer(one: str, other: str) -> bool:
    """Whether `one` comes after `other`."""
    return key(one) > key(other)
