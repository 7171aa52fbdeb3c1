# SPDX-License-Identifier: Apache-2.0
"""himds and azcmagent as real processes on a machine below a temporary folder, for tests against a real hub on
loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from tests.integration.hub_process import REPOSITORY, HubProcess, free_port

ENVIRONMENT = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
# himds on a machine whose clock is wrong: only the wall clock is moved, as on such a machine.
WRONG_CLOCK = """
import runpy, sys, time
right, ahead = time.time, float(sys.argv.pop(1))
time.time = lambda: right() + ahead
runpy.run_module("agent_runtime.himds", run_name="__main__", alter_sys=True)
"""
# A machine whose hardware a test chooses: a JSON file of name to value, or to null for what cannot be read. A file
# beside it says how many seconds the machine was asleep, which the boot-time clock alone has counted.
CHOSEN_SIGNALS = """
import json, os, runpy, sys, time
right, ahead = time.time, float(sys.argv.pop(1))
time.time = lambda: right() + ahead
ticking = time.clock_gettime
def clock_gettime(clock):
    asleep = path + ".asleep"
    slept = float(open(asleep).read()) if clock == time.CLOCK_BOOTTIME and os.path.exists(asleep) else 0.0
    return ticking(clock) + slept
time.clock_gettime = clock_gettime
from agent_runtime.platform import linux_signals
from agent_runtime.platform.base import Signal
path = sys.argv.pop(1)
program = sys.argv.pop(1)
def chosen(self):
    with open(path) as file:
        wanted = json.load(file)
    return [Signal(name, "ok" if value else "absent", value, "test") for name, value in wanted.items()]
linux_signals.Signals.read = chosen
runpy.run_module(program, run_name="__main__", alter_sys=True)
"""
TOKEN = "/metadata/identity/oauth2/token"


def unpacked(deb: Path, folder: Path) -> Path:
    """`library` out of the agent's package."""
    subprocess.run(["dpkg-deb", "--extract", str(deb), str(folder)], check=True)
    return folder / "opt/azcmagent/lib"


@dataclass
class Agent:
    """A machine below `root`; its local endpoint is at `port`. `library`: the folder that the agent's programs are in,
    the checkout or an unpacked package, which has what workers need beside the distribution's modules."""

    root: Path
    library: Path = REPOSITORY
    port: int = field(default_factory=free_port)
    himds: subprocess.Popen[bytes] | None = None
    clock_ahead: float = 0.0
    has_chosen_signals: bool = False

    def __post_init__(self) -> None:
        for folder in ("clouds", "state", "certs", "tokens", "log", "socks"):
            (self.state / folder).mkdir(parents=True, exist_ok=True)

    @property
    def state(self) -> Path:
        return self.root / "var/opt/azcmagent"

    @property
    def log(self) -> str:
        return (self.state / "log/himds.log").read_text(encoding="utf-8")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Agent:
        """Start himds and wait until it answers on both of its endpoints."""
        program = self._program("agent_runtime.himds")
        if self.clock_ahead and not self.has_chosen_signals:
            program = ["-c", WRONG_CLOCK, str(self.clock_ahead)]
        self.himds = subprocess.Popen(
            [sys.executable, *program, "--root", str(self.root), "--port", str(self.port)],
            cwd=self.library,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
        )
        ends = time.monotonic() + 20
        while time.monotonic() < ends:
            assert self.himds.poll() is None, self.log
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(str(self.state / "socks/himds.sock"))
                    return self
                except OSError:
                    time.sleep(0.02)
        raise AssertionError(f"himds did not start: {self.log}")

    def _program(self, module: str) -> list[str]:
        if self.has_chosen_signals:
            return ["-c", CHOSEN_SIGNALS, str(self.clock_ahead), str(self.root / "signals.json"), module]
        return ["-m", module]

    def hardware(self, **signals: str | None) -> None:
        """What the machine is made of from now on, and after its next start."""
        self.has_chosen_signals = True
        (self.root / "signals.json").write_text(json.dumps({**signals, "boot_id": "this-boot"}))

    def asleep(self, seconds: float) -> None:
        """The machine, whose hardware was chosen, wakes up; its processes run on."""
        part = self.root / "signals.json.part"
        part.write_text(str(seconds))
        part.rename(self.root / "signals.json.asleep")

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.himds is not None
        self.himds.send_signal(number)
        code = self.himds.wait(15)
        self.himds = None
        return code

    def argv(self, *words: str) -> list[str]:
        """The command line of azcmagent on this machine; it wants ENVIRONMENT and `library` as its folder."""
        return [sys.executable, *self._program("agent_runtime.cli"), "--root", str(self.root), *words]

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """azcmagent."""
        return subprocess.run(
            self.argv(*words),
            cwd=self.library,
            env=ENVIRONMENT,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def add_cloud(self, hub: HubProcess, **changes: Any) -> dict[str, Any]:
        """Put the hub's profile in place."""
        profile: dict[str, Any] = {**hub.profile(), **changes}
        path = self.root / "profile.json"
        path.write_text(json.dumps(profile))
        done = self.run("cloud", "add", str(path))
        assert done.returncode == 0, done.stdout
        return profile

    def connect(self, hub: HubProcess, token: str, name: str, **options: str) -> subprocess.CompletedProcess[str]:
        """Connect with an access token out of a file."""
        wanted = {
            "access-token": token,
            "subscription-id": hub.subscription_id,
            "resource-group": "fleet",
            "location": "local",
            "resource-name": name,
            **options,
        }
        path = self.root / "connect.json"
        path.write_text(json.dumps(wanted))
        path.chmod(0o600)
        return self.run("connect", "--config", str(path))

    def show(self) -> dict[str, Any]:
        done = self.run("show", "--json")
        assert done.returncode == 0, done.stdout
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def get(self, path: str, **headers: str) -> requests.Response:
        """A request to the local endpoint with `Metadata: true` unless told otherwise."""
        sent = {"Metadata": "true", **{name.replace("_", "-"): value for name, value in headers.items()}}
        return requests.get(self.url + path, headers={k: v for k, v in sent.items() if v}, timeout=30)

    def token(self, resource: str, more: str = "", **headers: str) -> requests.Response:
        """The challenge answered, as an SDK does it."""
        path = f"{TOKEN}?api-version=2020-06-01&resource={resource}{more}"
        challenge = self.get(path, **headers)
        if challenge.status_code != 401:
            return challenge
        secret = Path(challenge.headers["Www-Authenticate"].removeprefix("Basic realm=")).read_text(encoding="ascii")
        return self.get(path, Authorization=f"Basic {secret}", **headers)

    def files(self) -> set[str]:
        """Files of himds and of the binding, without logs."""
        return {
            str(path.relative_to(self.state))
            for path in self.state.rglob("*")
            if path.is_file() and "log" not in path.parts and path.suffix != ".log"
        }
