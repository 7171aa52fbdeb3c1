# SPDX-License-Identifier: Apache-2.0
"""Versions of handlers: how they compare, and which one a wish means. Pure.

extension-handler.md section 11: numbers are compared part by part, missing parts are 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_FORM = re.compile(r"\d{1,9}(\.\d{1,9}){0,3}")


def is_version(text: str) -> bool:
    """One to four numbers with dots between them."""
    return _FORM.fullmatch(text) is not None


def parts(version: str) -> tuple[int, ...]:
    """What versions compare by: `1.10` is above `1.9` and equal to `1.10.0`. `version` is one (`is_version`)."""
    numbers = [int(part) for part in version.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def same(one: str, other: str) -> bool:
    """True for two spellings of one version."""
    return parts(one) == parts(other)


def newest(known: Iterable[str]) -> str | None:
    """The highest version, None when there is none."""
    return max(known, key=parts, default=None)


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def resolve(known: Iterable[str], asked: str | None, *, minor: bool) -> str | None:
    """The version that a wish means, None when no known one fits.

    `asked` None: the newest. `minor` (autoUpgradeMinorVersion): the newest of the same first number that is not below
    what is asked for. Otherwise the asked one alone.
    """
    versions = list(known)
    if asked is None:
        return newest(versions)
    if minor:
        return newest(item for item in versions if _major(item) == _major(asked) and parts(item) >= parts(asked))
    return next((item for item in versions if same(item, asked)), None)


def upgrade(known: Iterable[str], current: str) -> str | None:
    """What enableAutomaticUpgrade moves `current` to: the newest above it with the same first number; None: nothing."""
    found = resolve(known, current, minor=True)
    return found if found is not None and parts(found) > parts(current) else None
