# SPDX-License-Identifier: Apache-2.0
"""Where the demo keeps its things, all below one directory of the checkout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Layout:
    """Paths of one demo. `top` is `.demo`; `cache` survives it and spares the next one work.

    `name` is the lab's: the benchmarks set up the same thing under another one.
    """

    top: Path = ROOT / ".demo"
    name: str = "demo"
    cache: Path = ROOT / ".cache" / "lab"
    dist: Path = ROOT / "dist"
    programs: Path = ROOT / ".venv" / "bin"

    @property
    def ledger(self) -> Path:
        """What was made (lab/ledger.py)."""
        return self.top / "ledger.jsonl"

    @property
    def hub(self) -> Path:
        """Data of the hub."""
        return self.top / "hub"

    @property
    def hub_log(self) -> Path:
        """What the hub prints."""
        return self.top / "logs" / "hub.log"

    @property
    def secret(self) -> Path:
        """The service principal's secret."""
        return self.top / "secrets" / "client-secret"

    @property
    def web_password(self) -> Path:
        """The password of the person who may sign in to the fleet page."""
        return self.top / "secrets" / "web-password"

    @property
    def artefact_keys(self) -> Path:
        """The operator's keys of the repository of packages; of a real hub they are elsewhere."""
        return self.top / "secrets" / "artefacts"

    @property
    def principal(self) -> Path:
        """What `principal create` answered, without the secret."""
        return self.top / "secrets" / "principal.json"

    @property
    def ca(self) -> Path:
        """The hub's CA."""
        return self.top / "trust" / "hub-ca.pem"

    @property
    def ca_bundle(self) -> Path:
        """The machine's CAs and the hub's, for clients that take only one file."""
        return self.top / "trust" / "bundle.pem"

    @property
    def profile(self) -> Path:
        """The cloud profile."""
        return self.top / "trust" / "profile.json"

    @property
    def collections(self) -> Path:
        """Where the collection's artefact is installed."""
        return self.top / "collections"

    @property
    def inventory(self) -> Path:
        """The Ansible inventory."""
        return self.top / "inventory" / "hosts.yml"

    @property
    def ansible_config(self) -> Path:
        """Ansible's settings."""
        return self.top / "ansible.cfg"

    @property
    def ansible_home(self) -> Path:
        """Ansible's own files."""
        return self.top / "ansible"

    @property
    def ssh_config(self) -> Path:
        """Lets people say `ssh -F .demo/ssh_config web01`."""
        return self.top / "ssh_config"

    @property
    def connection(self) -> Path:
        """For people's own clients."""
        return self.top / "connection.json"

    @property
    def environment(self) -> Path:
        """The same as variables, for shells."""
        return self.top / "env.sh"

    @property
    def running(self) -> Path:
        """There when hub and hosts are up; holds what they were started with."""
        return self.top / "running.json"

    def trees(self) -> list[Path]:
        """Directories the demo makes, besides those of the lab."""
        rooms = [self.hub, self.hub_log.parent, self.secret.parent, self.ca.parent, self.collections]
        return [*rooms, self.inventory.parent, self.ansible_home]

    def files(self) -> list[Path]:
        """Files the demo makes outside of those directories."""
        return [self.ansible_config, self.ssh_config, self.connection, self.environment, self.running]
