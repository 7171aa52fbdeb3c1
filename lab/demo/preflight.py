# SPDX-License-Identifier: Apache-2.0
"""What would stop the demo, found before anything is changed. Each finding is one sentence and its remedy.

Facts are gathered by `look`, judged by `judge`; standard library only, for it runs before anything is installed.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab import network
from lab.demo.layout import ROOT, Layout

# Measured with three and with forty hosts: the hub and the playbook need the first figure, every host the second.
_MEMORY_MIB = (1200, 80)
# A fresh checkout needs the Python environment, the base and the packages; a prepared one only the hosts' own changes.
_DISK_FRESH_MIB = 2500
_DISK_HOST_MIB = 60
_HOSTS = range(1, 201)
_TOOLS = ("ip", "mmdebstrap", "mount", "nsenter", "openssl", "ssh-keygen", "systemd-nspawn")


@dataclass(frozen=True)
class Facts:
    """What the machine is like. Sizes in MiB."""

    missing_tools: tuple[str, ...]
    can_install: bool
    memory_mib: int
    disk_mib: int
    prepared: bool
    port_free: bool
    bridge_exists: bool
    overlay: bool
    writable_cgroups: bool


@dataclass(frozen=True)
class Problem:
    """Why the demo cannot start, and what to do."""

    sentence: str
    remedy: str


def judge_request(uid: int, hosts: int, port: int) -> list[Problem]:
    """What is wrong with the request itself, before the machine is looked at."""
    if uid != 0:
        sentence = "The demo boots hosts and makes a network; only root may do that."
        return [Problem(sentence, "Run it as root: sudo make demo.")]
    if hosts not in _HOSTS:
        return [Problem(f"{hosts} hosts were asked for.", f"Ask for {_HOSTS[0]} to {_HOSTS[-1]}: make demo HOSTS=3.")]
    if port not in range(1024, 65536):
        return [Problem(f"Port {port} was asked for.", "Use one from 1024 to 65535: make demo PORT=8443.")]
    return []


def judge(facts: Facts, hosts: int, port: int) -> list[Problem]:
    """Everything about the machine that stands in the way of a demo of so many hosts."""
    problems = []
    if facts.missing_tools and not facts.can_install:
        names = ", ".join(facts.missing_tools)
        remedy = "Install them (Debian: apt-get install systemd-container mmdebstrap iproute2 openssh-client openssl)."
        problems.append(Problem(f"These programs are missing: {names}.", remedy))
    if not facts.overlay:
        problems.append(Problem("The kernel has no overlayfs.", "Load it: modprobe overlay."))
    if not facts.writable_cgroups:
        remedy = "Use a machine or a virtual machine, or a container with writable control groups (--privileged)."
        problems.append(Problem("Control groups cannot be made here.", remedy))
    if facts.bridge_exists:
        remedy = "Run make demo-stop in the checkout that made it; if there is none: ip link delete hawser-demo."
        problems.append(Problem("The interface hawser-demo exists already, and not from here.", remedy))
    if not facts.port_free:
        remedy = f"Stop the program that uses it (ss -ltnp 'sport = :{port}'), or choose another: make demo PORT=9443."
        problems.append(Problem(f"TCP port {port} is in use.", remedy))
    problems += _sizes(facts, hosts)
    return problems


def _sizes(facts: Facts, hosts: int) -> list[Problem]:
    problems = []
    memory = _MEMORY_MIB[0] + hosts * _MEMORY_MIB[1]
    if facts.memory_mib < memory:
        sentence = f"{facts.memory_mib} MiB of memory are available, {hosts} hosts need {memory}."
        problems.append(Problem(sentence, "Stop other programs, or ask for fewer hosts: make demo HOSTS=1."))
    disk = hosts * _DISK_HOST_MIB + (0 if facts.prepared else _DISK_FRESH_MIB)
    if facts.disk_mib < disk:
        sentence = f"{facts.disk_mib} MiB of disk are free here, {hosts} hosts need {disk}."
        problems.append(Problem(sentence, "Free some, or put the checkout on another disk."))
    return problems


def memory_available(meminfo: str) -> int:
    """MemAvailable of /proc/meminfo, in MiB."""
    for line in meminfo.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0


def look(layout: Layout, port: int, environment: Mapping[str, str]) -> Facts:
    """Gather the facts; changes nothing."""
    path = environment.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    bridge = Path("/sys/class/net", network.bridge_name(layout.name))
    return Facts(
        missing_tools=tuple(tool for tool in _TOOLS if shutil.which(tool, path=path) is None),
        can_install=shutil.which("apt-get", path=path) is not None,
        memory_mib=memory_available(Path("/proc/meminfo").read_text(encoding="ascii")),
        disk_mib=shutil.disk_usage(ROOT).free // (1024 * 1024),
        prepared=(layout.programs / "python").exists() and any(layout.cache.glob("base-*")),
        port_free=_port_free(port),
        bridge_exists=bridge.exists(),
        overlay=_has_overlay(),
        writable_cgroups=Path("/run/systemd/system").is_dir() or _writable_cgroups(),
    )


def _port_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - bound for an instant, never listening
        except OSError:
            return False
    return True


def _has_overlay() -> bool:
    if "\toverlay\n" in Path("/proc/filesystems").read_text(encoding="ascii"):
        return True
    # A module that is loaded on the first mount.
    return any(Path("/lib/modules", os.uname().release).glob("kernel/fs/overlayfs/overlay.ko*"))


def _writable_cgroups() -> bool:
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        if right.startswith("cgroup2 "):
            fields = left.split(" ")
            return "rw" in fields[5].split(",") and os.access(fields[4], os.W_OK)
    return False
