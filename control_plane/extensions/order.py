# SPDX-License-Identifier: Apache-2.0
"""Which extensions of a machine come after which others: `provisionAfterExtensions`, as those of scale sets have it.

A machine knows levels alone (extension-handler.md section 20): it enables those of a lower one first. Pure. `after`
says of each extension of the machine which ones it comes after. Names in it are in lower case; one that is not there
any more is waited for by nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from control_plane.errors import ApiError, bad_content

MEMBER = "provisionAfterExtensions"
After = Mapping[str, Iterable[str]]


def levels(after: After) -> dict[str, int]:
    """Level by name: 0 for what waits for nothing, else one more than the highest that is waited for."""
    left = {name: set(others) & set(after) for name, others in after.items()}
    found: dict[str, int] = {}
    level = 0
    while left:
        # `check` lets no circle in: what cannot be told apart goes together.
        ready = [name for name, others in left.items() if not others & set(left)] or list(left)
        found.update(dict.fromkeys(ready, level))
        left = {name: others for name, others in left.items() if name not in found}
        level += 1
    return found


def check(name: str, after: After) -> None:
    """Before the extension `name` is to come after others.

    Errors: ApiError 400 when one of them is not there, is itself, or waits for it.
    """
    for other in after[name]:
        if other == name:
            raise _refused(f"The extension '{name}' cannot come after itself.")
        if other not in after:
            raise _refused(f"The machine has no extension '{other}' that '{name}' could come after. Make it first.")
        if name in _waited_for(other, after):
            raise _refused(f"'{other}' comes after '{name}' already: of two extensions one comes first.")


def _refused(text: str) -> ApiError:
    return bad_content(text, f"properties.{MEMBER}")


def _waited_for(name: str, after: After) -> set[str]:
    """All that an extension waits for, whatever lies between."""
    found: set[str] = set()
    new = {name}
    while new:
        new = {other for item in new for other in after.get(item, ())} - found
        found |= new
    return found
