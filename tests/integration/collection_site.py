# SPDX-License-Identifier: Apache-2.0
"""A hub, hosts of the lab, a package and the installed collection, for the tests of the collection."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from lab import Lab
from tests.integration import hub_process

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
JWT = re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.")


@dataclass
class Run:
    """What a run of ansible-playbook came to: exit code, text, task results with `host` and `action`."""

    code: int
    output: str
    results: list[dict[str, Any]]

    def of(self, action: str, host: str | None = None) -> list[dict[str, Any]]:
        """Results of one module."""
        full = f"hawser.machine.{action}"
        return [found for found in self.results if found["action"] == full and host in (None, found["host"])]

    def changed(self, host: str) -> int:
        """`changed` of the recap."""
        found = re.search(rf"^{re.escape(host)}\s*:.*changed=(\d+)", self.output, re.MULTILINE)
        assert found, self.output
        return int(found.group(1))

    def commands(self, host_address: str) -> int:
        """Remote commands and transfers to a host, as ansible-core counts them out with -vvv."""
        return len(re.findall(rf"^<{re.escape(host_address)}> SSH: EXEC ", self.output, re.MULTILINE))


@dataclass
class Site:
    """Everything that a rollout needs. `variables` go to all hosts of the inventory; ansible-core is in `programs`."""

    work: Path
    lab: Lab
    hub: hub_process.HubProcess
    principal: dict[str, Any]
    collections: Path
    variables: dict[str, Any] = field(default_factory=dict)
    programs: Path = BIN

    def environment(self, **changes: str) -> dict[str, str]:
        """The controller's environment, with the credentials of the principal and nothing else that matters."""
        secret = self.work / "secret"
        secret.touch(mode=0o600)
        secret.write_text(self.principal["clientSecret"])
        return {
            "PATH": f"{self.programs}:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.work),
            "LANG": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
            "ANSIBLE_HOME": str(self.work / "ansible"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_FORKS": "5",
            "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "collection_callbacks"),
            "ANSIBLE_CALLBACKS_ENABLED": "results",
            "HAWSER_TEST_RESULTS": str(self.work / "results.jsonl"),
            "HAWSER_CLIENT_ID": self.principal["clientId"],
            "HAWSER_CLIENT_SECRET_FILE": str(secret),
            **changes,
        }

    def reach(self) -> dict[str, str]:
        """Variables with which the hosts of the lab are reached."""
        return {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.lab.private_key),
            "ansible_ssh_common_args": f"-F none -o UserKnownHostsFile={self.lab.known_hosts}",
            "ansible_python_interpreter": "/usr/bin/python3",
        }

    def inventory(self, **variables: Any) -> Path:
        """The inventory of all hosts; `variables` change those of the site, None removes one."""
        hosts = {name: {"ansible_host": str(host.address)} for name, host in self.lab.hosts.items()}
        shared = {**self.reach(), **self.variables, **variables}
        shared = {name: value for name, value in shared.items() if value is not None}
        path = self.work / "inventory.yml"
        path.write_text(yaml.safe_dump({"hawser": {"vars": shared, "hosts": hosts}}))
        return path

    def play(
        self,
        what: str | list[dict[str, Any]],
        *argv: str,
        extra: dict[str, str] | None = None,
        source: Path | None = None,
        **variables: Any,
    ) -> Run:
        """Run a playbook by its full name, or a list of tasks, on all hosts, those of `source` if one is given."""
        playbook = what
        if isinstance(what, list):
            playbook = str(self.work / "play.yml")
            Path(playbook).write_text(yaml.safe_dump([{"hosts": "hawser", "gather_facts": False, "tasks": what}]))
        results = self.work / "results.jsonl"
        results.unlink(missing_ok=True)
        done = subprocess.run(
            [
                str(self.programs / "ansible-playbook"),
                "-i",
                str(source or self.inventory(**variables)),
                str(playbook),
                *argv,
            ],
            cwd=self.work,
            env=self.environment(**(extra or {})),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
            timeout=280,
        )
        found = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
        return Run(done.returncode, done.stdout, found)

    def secrets_in(self, text: str) -> list[str]:
        """The principal's secret and everything that looks like a signed token, as far as they are in a text."""
        found = [self.principal["clientSecret"]] if self.principal["clientSecret"] in text else []
        return found + JWT.findall(text)

    def machines(self) -> dict[str, dict[str, Any]]:
        """The fleet as the operator's command shows it, by name."""
        return {machine["name"]: machine for machine in self.hub.json("machines")}


class CommandLines:
    """Looks, while it is entered, at the command lines of all processes, those of the lab's hosts included."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._stop.is_set():
            for process in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    self.seen.add((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            self._stop.wait(0.02)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        self._thread.join()


def build_package(out: Path, version: str | None = None) -> tuple[str, str, str]:
    """Build the agent's deb: path, SHA-256, version."""
    argv = [sys.executable, str(ROOT / "packaging/build_packages.py"), "--out", str(out), "--only", "deb"]
    subprocess.run([*argv, *(["--version", version] if version else [])], check=True, capture_output=True)
    (deb,) = out.glob("azcmagent_*_all.deb")
    return str(deb), hashlib.sha256(deb.read_bytes()).hexdigest(), deb.name.split("_")[1]


@contextlib.contextmanager
def site(work: Path, hosts: list[str]) -> Iterator[Site]:
    """Boot hosts, start a hub on their bridge, install the collection; take all of it down at the end."""
    collections = work / "collections"
    (collections / "ansible_collections/hawser").mkdir(parents=True)
    (collections / "ansible_collections/hawser/machine").symlink_to(ROOT)
    # A name of its own: a run that was cut off stands in nobody's way.
    lab = Lab(work / "lab", name=f"c{secrets.token_hex(3)}", hosts=hosts, cache=ROOT / ".cache/lab")
    (work / "lab").mkdir()
    with lab:
        data = work / "hub"
        hub = hub_process.make(data, "--location", "local=Local", "--location", "north=North", host=str(lab.gateway))
        hub.start()
        try:
            path, sha256, version = build_package(work / "dist")
            profile = work / "profile.json"
            profile.write_text(json.dumps(hub.profile("test")))
            variables = {
                "agent_cloud_profile": str(profile),
                "agent_subscription_id": hub.subscription_id,
                "agent_resource_group": "servers",
                "agent_location": "local",
                "agent_tags": {"env": "test", "number": 1},
                "agent_config": {"extensions.blocklist": ["Example.Publisher/Forbidden"]},
                "agent_version": version,
                "agent_package_path": path,
                "agent_package_sha256": sha256,
            }
            yield Site(work, lab, hub, hub.principal("owner", "Owner"), collections, variables)
        finally:
            hub.stop()


__all__ = ["CommandLines", "Run", "Site", "build_package", "site"]
