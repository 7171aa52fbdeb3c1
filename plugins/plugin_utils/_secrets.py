# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps secrets out of what a task returns. Pure.

ansible-core has a function for it until 2.22, and masks what is shown from then on; a registered result is ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

MASK = "********"


def without_secrets(value: Any, secrets: Iterable[str]) -> Any:
    """A copy of a result in which every occurrence of a secret is masked, in keys too."""
    # A secret may hold another one.
    ordered = sorted(filter(None, secrets), key=len, reverse=True)
    return _masked(value, ordered) if ordered else value


def _masked(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            if secret in value:
                value = value.replace(secret, MASK)
        return value
    if isinstance(value, Mapping):
        return {_masked(key, secrets): _masked(item, secrets) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_masked(item, secrets) for item in value]
    return value
