# SPDX-License-Identifier: Apache-2.0
"""Programs of ansible-core on a controller of a test, as a principal of a hub, with the checkout as the collection."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.integration.hub_process import HubProcess

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def plain(listed: dict[str, Any]) -> Any:
    """ansible-inventory marks texts that are no templates; the texts themselves."""
    return listed["__ansible_unsafe"] if set(listed) == {"__ansible_unsafe"} else listed


@dataclass
class Controller:
    """Runs ansible-core's programs; inventory files stand in `work`. `variables`: where the hub is and who asks."""

    work: Path
    variables: dict[str, str]
    programs: Path = field(default=BIN)

    def __post_init__(self) -> None:
        place = self.work / "collections/ansible_collections/hawser"
        place.mkdir(parents=True, exist_ok=True)
        (place / "machine").symlink_to(ROOT)

    def environment(self, **changes: str) -> dict[str, str]:
        """The controller's whole environment."""
        return {
            "PATH": f"{self.programs}:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.work),
            "LANG": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": str(self.work / "collections"),
            "ANSIBLE_HOME": str(self.work / "ansible"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
            **self.variables,
            **changes,
        }

    def run(self, program: str, *argv: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return subprocess.run(
            [str(self.programs / program), *argv],
            cwd=self.work,
            env=self.environment(**changes),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=250,
        )

    def source(self, **options: Any) -> str:
        """An inventory source with these options."""
        path = self.work / "fleet.hawser.yml"
        path.write_text(yaml.safe_dump({"plugin": "hawser.machine.machines", **options}))
        return str(path)

    def listed(self, **options: Any) -> dict[str, Any]:
        """What ansible-inventory --list prints for a source with these options."""
        done = self.run("ansible-inventory", "-i", self.source(**options), "--list")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout, object_hook=plain)
        return found

    def fails(self, changes: dict[str, str] | None = None, **options: Any) -> str:
        """What is said when a source with these options fails."""
        done = self.run("ansible-inventory", "-i", self.source(**options), "--list", **(changes or {}))
        assert done.returncode != 0, done.stdout
        return " ".join(done.stderr.split())

    def play(self, tasks: list[dict[str, Any]], *argv: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run tasks on localhost, or on what `argv` says."""
        path = self.work / "play.yml"
        path.write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
        hosts = [] if "-i" in argv else ["-i", "localhost,", "-c", "local"]
        return self.run("ansible-playbook", *hosts, *argv, str(path), **changes)


def of_hub(work: Path, hub: HubProcess, principal: dict[str, Any]) -> Controller:
    """A controller for a hub of a test, with the credentials of a principal in its environment."""
    return Controller(
        work,
        {
            "HAWSER_ARM": hub.url,
            "HAWSER_AUTHORITY": hub.url,
            "HAWSER_TENANT_ID": hub.tenant_id,
            "HAWSER_CA_FILE": hub.ca_file,
            "HAWSER_CLIENT_ID": principal["clientId"],
            "HAWSER_CLIENT_SECRET": principal["clientSecret"],
        },
    )
