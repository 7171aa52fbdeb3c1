# SPDX-License-Identifier: Apache-2.0
"""The unit that carries an upgrade out, and the copy of the agent's modules that it runs: both are there for the time
of one upgrade, and outside the package that is exchanged meanwhile.

The unit is a file and enabled, so that systemd starts the watchdog again when it was killed, and at the next boot when
the machine lost power. Whatever of it is missing, `ensure` makes once more from the journal.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile

import agent_runtime
from agent_runtime import errors
from agent_runtime.extensions.runner import program
from agent_runtime.state import atomic
from agent_runtime.upgrade import plan
from agent_runtime.upgrade.journal import Files

NAME = "azcmagent-upgrade.service"
FOLDER = "/etc/systemd/system"
ENTRY = b"import sys\nfrom agent_runtime.upgrade.watchdog import main\nsys.exit(main())\n"
TEXT = """# Made for an upgrade of the agent, and removed at its end.
[Unit]
Description=Upgrade of the Azure Connected Machine Agent
After=network-online.target himdsd.service
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={python} -IS {program}
# What the package's scripts make has the usual rights.
UMask=0022
Restart=on-failure
# Which systemd counts as a clean end; the upgrade has not ended then.
RestartForceExitStatus=SIGHUP SIGINT SIGTERM SIGPIPE
RestartSec=5
# A package manager at work is waited for, never killed.
KillMode=process

[Install]
WantedBy=multi-user.target
"""
SECONDS = 60.0


def begin(files: Files, journal: plan.Journal) -> None:
    """Begin an upgrade: the journal first, which `ensure` goes on with. Errors: OSError; AZCM0002 when systemd does not
    start the unit."""
    files.make()
    atomic.unlink(files.program)
    files.write(journal)
    # The former watchdog may not have quite ended, and then a start would mean nothing.
    ensure(files, "restart")


def ensure(files: Files, verb: str = "start") -> None:
    """See that the upgrade of the journal goes on. The watchdog's program is that of the version which began it.
    Errors: as `begin`."""
    if not os.path.exists(files.program):
        atomic.write_bytes(files.program, archive(os.path.dirname(os.path.abspath(agent_runtime.__file__))))
    python = sys.executable or "/usr/bin/python3"
    text = TEXT.format(python=python, program=files.program).encode("ascii")
    path = os.path.join(FOLDER, NAME)
    if _content(path) != text:
        atomic.write_bytes(path, text, mode=0o644)
        _systemctl("daemon-reload")
    _systemctl("enable", NAME)
    _systemctl(verb, "--no-block", NAME)


def end(files: Files) -> None:
    """Remove unit and program; the running watchdog ends by itself. Errors: OSError."""
    _call("disable", NAME)
    atomic.unlink(os.path.join(FOLDER, NAME))
    _call("daemon-reload")
    atomic.unlink(files.program)


def archive(package: str) -> bytes:
    """The agent's modules below `package` as a program that Python runs (zipapp of the standard library, with one date,
    so that the same modules give the same bytes). Errors: OSError."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as target:

        def put(name: str, content: bytes) -> None:
            target.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)

        put("__main__.py", ENTRY)
        for folder, names, entries in os.walk(package):
            names[:] = sorted(name for name in names if name != "__pycache__")
            inside = os.path.normpath(os.path.join("agent_runtime", os.path.relpath(folder, package)))
            put(f"{inside}/", b"")  # a package without __init__.py is found by its folder alone
            for entry in sorted(entries):
                if entry.endswith(".py"):
                    with open(os.path.join(folder, entry), "rb") as file:
                        put(f"{inside}/{entry}", file.read())
    return made.getvalue()


def _content(path: str) -> bytes:
    try:
        return atomic.read_bytes(path)
    except (OSError, ValueError):
        return b""


def _systemctl(*words: str) -> None:
    done = _call(*words)
    if done.returncode != 0:
        why = " ".join(done.stderr.decode("utf-8", "replace").split())[:300]
        raise errors.InternalError(
            f"systemctl {' '.join(words)} failed: {why}", "See 'systemctl status' and the journal"
        )


def _call(*words: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            [program("systemctl") or "systemctl", "--no-ask-password", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise errors.InternalError(f"systemctl {words[0]} failed: {type(problem).__name__}") from None
