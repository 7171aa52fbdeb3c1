# SPDX-License-Identifier: Apache-2.0
"""`--root DIR` puts every path of the agent below DIR, for tests that run it out of a checkout."""

from __future__ import annotations

import os

INSTALLED_UNDER = "/opt/"


def take(argv: list[str]) -> tuple[str, list[str]]:
    """The folder (empty: none) and the other words. An installed agent does not know the flag: it stays among them."""
    if len(argv) < 2 or argv[0] != "--root" or os.path.abspath(__file__).startswith(INSTALLED_UNDER):
        return "", argv
    return os.path.abspath(argv[1]), argv[2:]
