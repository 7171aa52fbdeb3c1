# SPDX-License-Identifier: Apache-2.0
"""A control group for each host, on machines whose PID 1 is not systemd.

systemd-nspawn makes a host's groups below the group it was started in. Two hosts started in the same one would share
their `ssh.service`: systemd in one of them waits for, and kills, processes of the other. So each gets its own, in
every hierarchy that a container's systemd uses: version 2, and the named one of version 1. A version 2 group can
also be killed as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.ledger import Ledger


@dataclass(frozen=True)
class Hierarchies:
    """Mount points of the hierarchies, as far as the machine has them."""

    unified: Path | None
    named: Path | None


def parse_mounts(mountinfo: str) -> Hierarchies:
    """Find the hierarchies in /proc/self/mountinfo (proc(5))."""
    unified = named = None
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        target = Path(left.split(" ")[4])
        kind, _, options = right.split(" ", 2)
        if kind == "cgroup2" and unified is None:
            unified = target
        if kind == "cgroup" and "name=systemd" in options.split(",") and named is None:
            named = target
    return Hierarchies(unified, named)


def hierarchies() -> Hierarchies:
    """The hierarchies of this machine."""
    return parse_mounts(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))


def make(ledger: Ledger, machine: str) -> list[Path]:
    """Make the host's groups; they are in the ledger first."""
    found = hierarchies()
    if found.unified is None:
        raise LabError(
            "No cgroup2 file system is mounted.", "Mount one: `mount -t cgroup2 none /sys/fs/cgroup/unified`."
        )
    # The version 2 group last: it is removed first, and ends every process of the host.
    groups = [root / f"hawser-{machine}" for root in (found.named, found.unified) if root is not None]
    for group in groups:
        if group.exists():
            # What is in the ledger gets killed: another lab's host must not be.
            raise LabError(f"The control group {group} exists already.", "Stop the lab that made it.")
        ledger.record("cgroup", path=str(group))
        group.mkdir()
    return groups
