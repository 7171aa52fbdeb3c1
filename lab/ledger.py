# SPDX-License-Identifier: Apache-2.0
"""The ledger: what a lab makes, written down before it is made, so that all of it can be removed.

One JSON object a line, appended and synced. It outlives its maker: `destroy(ledger)` works after `kill -9`, from any
process, any number of times. Nothing that is not in the ledger is ever ended, unmounted or removed.

| kind | members | removal |
|---|---|---|
| maker | pid, started, boot | - |
| process | name, pid, started | SIGTERM, then SIGKILL |
| cgroup | path | everything in it is killed, the group removed |
| unit | name | stopped (machines whose PID 1 is systemd) |
| interface | name | deleted |
| mount | path | unmounted |
| kernel | lab | kernel settings of lab/kernel.py given back |
| file, tree | path | removed |
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from lab import kernel, process
from lab.errors import LabError

Entry = Mapping[str, Any]

# Processes first: they hold mounts and interfaces. Then what was made last, first.
_ORDER = {
    "cgroup": 0,
    "unit": 0,
    "process": 1,
    "interface": 2,
    "mount": 3,
    "kernel": 4,
    "file": 5,
    "tree": 5,
    "maker": 6,
}


class Ledger:
    """Appends to one ledger file. `path` is created, with its directory, on first use."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self) -> None:
        """Start a new ledger; refuses when one is there: its things must be destroyed first."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            raise LabError(f"{self.path} exists: a lab was started there before.", "Destroy that one first.") from None
        pid = os.getpid()
        self.record("maker", pid=pid, started=process.start_time(pid), boot=process.boot_id())

    def record(self, kind: str, **members: object) -> None:
        """Write one entry; on return it is on the disk."""
        line = json.dumps({"kind": kind, **members}).encode("ascii") + b"\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            os.write(handle, line)
            os.fsync(handle)
        finally:
            os.close(handle)

    def spawn(
        self,
        name: str,
        argv: Sequence[str],
        *,
        cgroups: Iterable[Path] = (),
        output: IO[bytes] | int = subprocess.DEVNULL,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program in its own session; it is in the ledger before it runs."""
        return subprocess.Popen(
            launcher(self.path, name, argv, cgroups),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=None if environment is None else dict(environment),
            cwd=directory,
        )

    def entries(self) -> list[Entry]:
        """All entries, oldest first; a last line cut short by a crash names nothing that was made and is left out."""
        return parse(self.path.read_bytes())


def launcher(ledger: Path, name: str, argv: Sequence[str], cgroups: Iterable[Path] = ()) -> list[str]:
    """The command line that records itself in the ledger and then becomes `argv`."""
    script = Path(__file__).with_name("launch.py")
    return [sys.executable, "-IS", str(script), str(ledger), name, *map(str, cgroups), "--", *argv]


def parse(data: bytes) -> list[Entry]:
    """Entries of a ledger's bytes."""
    entries: list[Entry] = []
    for line in data.split(b"\n")[:-1]:
        # Two writers may be cut off by a crash; a line that is no object was never acted upon.
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and "kind" in entry:
                entries.append(entry)
    return entries


def removal_order(entries: Sequence[Entry]) -> list[Entry]:
    """In which order things go: processes, then the rest from the last made to the first."""
    known = [entry for entry in entries if entry["kind"] in _ORDER]
    known.reverse()  # the sort is stable
    return sorted(known, key=lambda entry: _ORDER[str(entry["kind"])])


def maker_alive(entries: Sequence[Entry]) -> bool:
    """Whether the process that made the lab still runs."""
    makers = [entry for entry in entries if entry["kind"] == "maker"]
    return any(m["boot"] == process.boot_id() and process.alive(m["pid"], m["started"]) for m in makers)


def destroy(path: Path, report: Callable[[str], None] = lambda _line: None) -> None:
    """Remove everything that the ledger names, then the ledger. A missing ledger is a destroyed lab.

    :raises LabError: something could not be removed; the ledger is kept and the call can be repeated.
    """
    try:
        entries = parse(path.read_bytes())
    except FileNotFoundError:
        return
    same_boot = any(entry["kind"] == "maker" and entry["boot"] == process.boot_id() for entry in entries)
    failures = []
    for entry in removal_order(entries):
        remove = _REMOVERS.get(str(entry["kind"]))
        if remove is None or not (same_boot or entry["kind"] in {"file", "tree", "kernel"}):
            continue
        try:
            line = remove(entry)
        except (OSError, subprocess.SubprocessError, LabError) as error:
            failures.append(f"{entry['kind']} {_label(entry)}: {error}")
        else:
            if line:
                report(line)
    if failures:
        raise LabError(
            f"Could not remove {len(failures)} thing(s): {'; '.join(failures)}.",
            f"See what holds them, then stop once more; they are listed in {path}.",
        )
    path.unlink(missing_ok=True)


def remove(entry: Entry) -> None:
    """Remove one thing that the ledger names. What is gone already is no fault."""
    _REMOVERS[str(entry["kind"])](entry)


def _label(entry: Entry) -> str:
    return str(entry.get("name") or entry.get("path") or entry.get("lab") or entry.get("pid"))


def _process(entry: Entry) -> str | None:
    pid, started = int(entry["pid"]), int(entry["started"])
    if not process.alive(pid, started):
        return None
    if not process.end(pid, started, grace=10.0):
        raise LabError(f"Process {pid} does not end.", "Look at its state with ps.")
    return f"process {entry['name']} ({pid}) ended"


def _cgroup(entry: Entry) -> str | None:
    group = Path(entry["path"])
    if not group.is_dir():
        return None
    kill = group / "cgroup.kill"  # cgroup v2 alone has it (Linux 5.14, admin-guide/cgroup-v2)
    if kill.exists():
        kill.write_text("1", encoding="ascii")
    deadline = time.monotonic() + 15
    while True:
        try:
            for directory, _names, _files in os.walk(group, topdown=False):
                Path(directory).rmdir()
        except FileNotFoundError:
            return None
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return None


def _unit(entry: Entry) -> str:
    run(["systemctl", "kill", "--signal=KILL", str(entry["name"])], check=False)
    run(["systemctl", "stop", str(entry["name"])], check=False)
    run(["systemctl", "reset-failed", str(entry["name"])], check=False)
    return f"unit {entry['name']} stopped"


def _interface(entry: Entry) -> str | None:
    if not Path("/sys/class/net", entry["name"]).exists():
        return None
    if run(["ip", "link", "delete", entry["name"]], check=False).returncode != 0:
        # A container's end of the pair vanishes with its network namespace, perhaps just now.
        deadline = time.monotonic() + 5
        while Path("/sys/class/net", entry["name"]).exists():
            if time.monotonic() > deadline:
                raise LabError(f"Interface {entry['name']} does not go.", "Delete it with `ip link delete`.")
            time.sleep(0.02)
    return f"interface {entry['name']} deleted"


def mount_points(root: Path) -> list[Path]:
    """Mount points at or below a directory, deepest first (proc(5), mountinfo field 5, octal escapes)."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        target = Path(line.split(" ")[4].encode("ascii", "surrogateescape").decode("unicode_escape"))
        if target == root or root in target.parents:
            found.append(target)
    return sorted(found, key=lambda target: len(target.parts), reverse=True)


def _mount(entry: Entry) -> str | None:
    target = Path(entry["path"])
    points = [point for point in mount_points(target) if point == target]
    for _ in points:
        # A process of a container that is just ending may hold it for some milliseconds more.
        deadline = time.monotonic() + 5
        while run(["umount", str(target)], check=False).returncode != 0:
            if time.monotonic() > deadline:
                raise LabError(f"{target} is busy.", "See who holds it with `fuser -m`.")
            time.sleep(0.05)
    return f"{target} unmounted" if points else None


def _file(entry: Entry) -> None:
    Path(entry["path"]).unlink(missing_ok=True)


def _tree(entry: Entry) -> str | None:
    root = Path(entry["path"])
    if not root.exists():
        return None
    busy = mount_points(root)
    if busy:
        raise LabError(f"{busy[0]} is still mounted.", "Nothing below it was removed.")
    shutil.rmtree(root)
    return f"{root} removed"


def _kernel(entry: Entry) -> str | None:
    return kernel.give_back(str(entry["lab"]))


_REMOVERS: dict[str, Callable[[Entry], str | None]] = {
    "process": _process,
    "cgroup": _cgroup,
    "unit": _unit,
    "interface": _interface,
    "mount": _mount,
    "file": _file,
    "tree": _tree,
    "kernel": _kernel,
}


def run(argv: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a short administrative command, two minutes at most.

    :raises LabError: it failed; the message carries what it said.
    """
    done = subprocess.run(argv, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    if check and done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise LabError(f"`{' '.join(argv)}` ended with {done.returncode}: {said}.", "Mend that and start again.")
    return done
