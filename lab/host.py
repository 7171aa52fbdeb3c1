# SPDX-License-Identifier: Apache-2.0
"""One host of a lab, once it runs: look into it, hurt it."""

from __future__ import annotations

import dataclasses
import ipaddress
import shlex
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab import network, process
from lab.errors import LabError

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CONSOLE_LINES = 25
_FILLER = "/var/lab-filler"


@dataclass(frozen=True)
class HostSpec:
    """What a host is to be.

    `disk_mib`: None lays its changes on the machine's disk; a number gives it a disk of that size, in memory, that can
    be filled for real (`Host.fill_disk`).
    `dmi`: files of /sys/class/dmi/id; what is not given is made up, different for each host.
    `image`: a disk that `Lab.image` copied. The host starts with all that is on it, name, keys and machine id included;
    only hardware and address are its own, as on a machine that got a copy of another one's disk.
    """

    name: str
    disk_mib: int | None = None
    dmi: Mapping[str, str] = field(default_factory=dict)
    image: Path | None = None

    def hardware(self) -> dict[str, str]:
        """The DMI files of this host."""
        made_up = {
            "sys_vendor": "Hawser",
            "product_name": "Laboratory host",
            "product_uuid": str(uuid.uuid4()),
            "product_serial": f"LAB-{self.name}",
            "chassis_asset_tag": f"TAG-{self.name}",
        }
        return {**made_up, **self.dmi}


@dataclass(frozen=True)
class Completed:
    """What a command on a host came to."""

    argv: tuple[str, ...]
    code: int
    output: str
    errors: str


@dataclass(frozen=True)
class Host:
    """A running host. `supervisor` finds the process that holds it; None when it does not run."""

    name: str
    address: ipaddress.IPv4Address
    machine: str
    bridge: str
    root: Path
    private_key: Path
    known_hosts: Path
    supervisor: Callable[[], int | None] = dataclasses.field(repr=False, compare=False)

    @property
    def leader(self) -> int:
        """Pid, on the machine, of the host's PID 1."""
        holder = self.supervisor()
        found = process.children(holder) if holder is not None else []
        if not found:
            raise LabError(f"Host {self.name} is not running.", "Boot it first, or see its console.log.")
        return found[0]

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        stdin: str | None = None,
        user: str = "root",
        environment: Mapping[str, str] | None = None,
        timeout: float = 120,
    ) -> Completed:
        """Run a command on the host, as `user`, without the network (so also while that is cut).

        :param timeout: seconds.
        :raises LabError: it ended with another code than 0 and `check` is set.
        """
        variables = {"PATH": _PATH, "LANG": "C.UTF-8", "HOME": "/root" if user == "root" else f"/home/{user}"}
        variables.update(environment or {})
        command = ["nsenter", f"--target={self.leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        command += [
            "--root",
            "--wd",
            "--",
            "/usr/bin/env",
            "-i",
            *(f"{key}={value}" for key, value in variables.items()),
        ]
        if user != "root":
            command += ["/usr/sbin/runuser", "-u", user, "--"]
        try:
            done = subprocess.run(
                [*command, *argv], input=stdin or "", capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise LabError(
                f"`{shlex.join(argv)}` on {self.name} took longer than {timeout:g} s.", "See what it waits for."
            ) from None
        if check and done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip())[-2000:]
            raise LabError(f"`{shlex.join(argv)}` on {self.name} ended with {done.returncode}: {said}", "")
        return Completed(tuple(argv), done.returncode, done.stdout, done.stderr)

    def ssh_argv(self, user: str = "root") -> list[str]:
        """Start of an ssh command line to the host, with its key pinned."""
        options = [f"UserKnownHostsFile={self.known_hosts}", "StrictHostKeyChecking=yes", "BatchMode=yes"]
        flags = [part for option in options for part in ("-o", option)]
        return ["ssh", "-F", "none", "-i", str(self.private_key), *flags, f"{user}@{self.address}"]

    def read(self, path: str) -> bytes:
        """Content of a file on the host."""
        return self._inside(path).read_bytes()

    def write(self, path: str, content: bytes | str, *, mode: int = 0o644) -> None:
        """Write a file on the host, root's, with the given mode."""
        target = self._inside(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        target.chmod(mode)

    def _inside(self, path: str) -> Path:
        # By way of the running host, so that its /run and /tmp are meant, not what they cover.
        return Path(f"/proc/{self.leader}/root") / path.lstrip("/")

    def copy(self, source: Path, target: str) -> None:
        """Copy a file of the machine onto the host."""
        self.write(target, source.read_bytes(), mode=source.stat().st_mode & 0o777)

    def cut_network(self) -> None:
        """From now on every packet of the host vanishes; its link stays up."""
        network.unplug(network.host_interface(self.machine))

    def restore_network(self) -> None:
        """Undo `cut_network`."""
        network.plug(network.host_interface(self.machine), self.bridge)

    def kill(self, unit: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the main process of a unit, by the host's own systemctl."""
        self.run(["systemctl", "kill", "--kill-whom=main", f"--signal={number.name}", unit])

    def fill_disk(self) -> None:
        """Fill the host's disk to the last byte. Needs a host with a disk of its own (`HostSpec.disk_mib`)."""
        if not self._own_disk():
            raise LabError(f"Host {self.name} lies on the machine's own disk.", "Give it `disk_mib`.")
        done = self.run(["dd", "if=/dev/zero", f"of={_FILLER}", "bs=64k"], check=False)
        if "No space left" not in done.errors:
            raise LabError(f"The disk of {self.name} did not fill: {done.errors.strip()}.", "See df on the host.")
        # What a block of 64 KiB left over.
        self.run(["dd", "if=/dev/zero", f"of={_FILLER}", "bs=1", "oflag=append", "conv=notrunc"], check=False)

    def free_disk(self) -> None:
        """Undo `fill_disk`."""
        self.run(["rm", "-f", _FILLER])

    def _own_disk(self) -> bool:
        return (self.root.parent / "disk").is_mount()

    def wait_ready(self, seconds: float = 60, healthy: bool = True) -> None:
        """Until ssh answers and systemd has finished starting.

        :raises LabError: it did not within `seconds`, or a unit failed and `healthy` is set.
        """
        deadline = time.monotonic() + seconds
        while not _answers(str(self.address)):
            if time.monotonic() > deadline:
                console = (self.root.parent / "console.log").read_text(errors="replace").splitlines()[-_CONSOLE_LINES:]
                raise LabError(
                    f"Host {self.name} did not answer on port 22 within {seconds:g} s.",
                    "\n".join(["The end of its console:", *console]),
                )
            time.sleep(0.05)
        state = self.run(["systemctl", "is-system-running", "--wait"], check=False, timeout=seconds).output.strip()
        if state != "running" and (healthy or state != "degraded"):
            failed = self.run(["systemctl", "--failed", "--no-legend", "--plain"], check=False).output.strip()
            raise LabError(f"Host {self.name} is {state or 'silent'}: {failed}.", "See its journal.")


def _answers(address: str) -> bool:
    import socket

    try:
        with socket.create_connection((address, 22), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
