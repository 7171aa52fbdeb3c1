# SPDX-License-Identifier: Apache-2.0
"""Versions of ansible-core that the collection is for, each in an environment with a Python that it runs on."""

from __future__ import annotations

from pathlib import Path

from tests.lanes import clients

# name of the lock in requirements/: the Python of the controller
CORES = {"core219": "3.11", "core221": "3.12", "core222": "3.13"}


def programs(core: str) -> Path:
    """The folder with its programs. Skips where this machine has no such Python, and says which one."""
    return clients.environment(core, clients.newest_python(CORES[core]))
