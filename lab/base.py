# SPDX-License-Identifier: Apache-2.0
"""The base that all hosts share: a minimal Debian with what the agent and Ansible need; hosts need no internet.

Made once with mmdebstrap and kept below the cache under the hash of its recipe; hosts lie over it (overlayfs) and
never change it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.errors import LabError

SUITE = "bookworm"
PACKAGES = (
    "adduser",
    "ca-certificates",
    "curl",
    "dbus",
    "iproute2",
    "openssh-server",
    "openssl",
    "procps",
    "python3",
    "python3-apt",  # ansible.builtin.apt
    "python3-cryptography",
    "sudo",
    "systemd",
    "systemd-sysv",
    "udev",
)
USER = "app"
# Nothing that wakes up by itself: figures of idle services are taken on these hosts.
_MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "console-getty.service", "getty.target")

# /sys/class holds no dmi in most virtual machines and the machine's own elsewhere. Every host shows its own instead:
# the other classes stay what they are, each bound into a small directory that then takes the place of /sys/class.
_DMI_SCRIPT = """#!/bin/sh
set -eu
if [ -d /sys/class/dmi/id ]; then
    mount --bind /etc/lab/dmi /sys/class/dmi/id
    exit 0
fi
stage=/run/lab-sys-class
mkdir -p "$stage"
mount -t tmpfs -o mode=0755,size=64k tmpfs "$stage"
for class in /sys/class/*; do
    mkdir "$stage/${class##*/}"
    mount --bind "$class" "$stage/${class##*/}"
done
mkdir -p "$stage/dmi/id"
mount --bind /etc/lab/dmi "$stage/dmi/id"
mount --rbind "$stage" /sys/class
"""
_DMI_UNIT = """[Unit]
Description=Show the hardware identity of this laboratory host
DefaultDependencies=no
Before=sysinit.target
ConditionDirectoryNotEmpty=/etc/lab/dmi

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/lab-dmi
"""
_CUSTOMIZE = f"""set -eu
root="$1"
chroot "$root" useradd --create-home --shell /bin/bash {USER}
for unit in {" ".join(_MASKED)}; do ln -sf /dev/null "$root/etc/systemd/system/$unit"; done
cd "$root/etc/systemd/system"
mkdir -p "$root/etc/lab" sysinit.target.wants multi-user.target.wants
cat > "$root/usr/local/sbin/lab-dmi" <<'END'
{_DMI_SCRIPT}END
chmod 0755 "$root/usr/local/sbin/lab-dmi"
cat > "$root/etc/systemd/system/lab-dmi.service" <<'END'
{_DMI_UNIT}END
ln -s ../lab-dmi.service "$root/etc/systemd/system/sysinit.target.wants/lab-dmi.service"
ln -s /lib/systemd/system/systemd-networkd.service "$root/etc/systemd/system/multi-user.target.wants/"
rm -f "$root"/etc/ssh/ssh_host_*_key "$root"/etc/ssh/ssh_host_*_key.pub
: > "$root/etc/machine-id"
# Every session looks for it, and complains.
: > "$root/etc/default/locale"
rm -f "$root/etc/hostname" "$root/etc/resolv.conf"
"""


def recipe() -> str:
    """Everything that decides what the base contains, as text."""
    return json.dumps({"suite": SUITE, "packages": PACKAGES, "customize": _CUSTOMIZE, "version": 1}, sort_keys=True)


def path(cache: Path) -> Path:
    """Where the base of this recipe lies in a cache directory."""
    return cache / f"base-{hashlib.sha256(recipe().encode()).hexdigest()[:16]}"


def ensure(cache: Path, report: Callable[[str], None] = lambda _line: None) -> Path:
    """The base's directory; made when it is not there yet (about half a minute and the distribution's mirror).

    Several callers at once wait for the first. What an interrupted call left behind is removed by the next.
    """
    target = path(cache)
    if not target.is_dir():
        report(f"making the base of the hosts ({SUITE}, once)")
        made(target, SUITE, PACKAGES, _CUSTOMIZE)
    return target


def made(target: Path, suite: str, packages: Sequence[str], customize: str) -> None:
    """A Debian root at `target`; nothing is done when it is there. `customize`: a shell script, the root is its $1."""
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(target.parent / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            for partial in target.parent.glob("*.partial"):
                shutil.rmtree(partial)
            _make(target, suite, packages, customize)
    finally:
        os.close(lock)


def _make(target: Path, suite: str, packages: Sequence[str], customize: str) -> None:
    partial = target.with_name(target.name + ".partial")
    hook = target.with_name(target.name + ".hook")
    hook.write_text("#!/bin/sh\n" + customize, encoding="utf-8")
    hook.chmod(0o700)
    argv = [
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(packages)}",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        f"--customize-hook={hook}",
        suite,
        str(partial),
    ]
    try:
        done = subprocess.run(argv, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=900)
    finally:
        hook.unlink()
    if done.returncode != 0:
        raise LabError(
            f"mmdebstrap could not make {target.name} ({suite}): {done.stderr.strip()[-600:]}.",
            f"Check that the distribution's mirror is in reach (`mmdebstrap --simulate {suite} /dev/null`).",
        )
    partial.rename(target)
