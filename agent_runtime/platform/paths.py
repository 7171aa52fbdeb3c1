# SPDX-License-Identifier: Apache-2.0
"""Where everything of the agent lies: one table for each operating system.

Sources: agent-overview 'Linux agent installation details' and 'Windows agent installation details'; docs/protocol.md
section 12.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple


class Paths(NamedTuple):
    """Absolute paths as text. `root` was put in front of each; it is empty on a managed machine."""

    program: str
    state: str
    guest_config: str
    # Unpacked handlers of extensions, and packages on their way (docs/protocol.md section 15.4).
    handlers: str
    downloads: str
    # Root's, in memory where the system has such a place: what commands are given, which may be secret.
    memory: str
    sep: str = "/"

    def _below(self, base: str, *parts: str) -> str:
        return self.sep.join((base, *parts))

    @property
    def localconfig(self) -> str:
        return self._below(self.state, "localconfig.json")

    @property
    def binding(self) -> str:
        return self._below(self.state, "binding.json")

    @property
    def clouds(self) -> str:
        return self._below(self.state, "clouds")

    @property
    def trust(self) -> str:
        """Root's: anchors that the hub has put in the place of a profile's."""
        return self._below(self.state, "trust")

    @property
    def own(self) -> str:
        """himds's own folder: identity, lease, outbox."""
        return self._below(self.state, "state")

    @property
    def agentconfig(self) -> str:
        return self._below(self.own, "agentconfig.json")

    @property
    def identity(self) -> str:
        return self._below(self.own, "identity.json")

    @property
    def lease(self) -> str:
        return self._below(self.own, "lease.json")

    @property
    def evidence(self) -> str:
        """The evidence vector that the hub accepted last."""
        return self._below(self.own, "evidence.json")

    @property
    def adoption(self) -> str:
        """Written by himds when the hub offers a name of its own: root's service takes it up."""
        return self._below(self.own, "adopt.json")

    @property
    def image(self) -> str:
        """Root's: the birth record of the image that this machine came from."""
        return self._below(self.state, "image.json")

    @property
    def image_token(self) -> str:
        """Root's: the enrolment token of an image, until it is used."""
        return self._below(self.state, "image.token")

    @property
    def seal_journal(self) -> str:
        """Root's: a seal that has begun and not ended."""
        return self._below(self.state, "seal.json")

    @property
    def joining(self) -> str:
        """Root's: what a machine that joins calls itself, until it is connected."""
        return self._below(self.state, "join.json")

    @property
    def desired(self) -> str:
        return self._below(self.own, "desired")

    @property
    def outbox(self) -> str:
        return self._below(self.own, "outbox")

    @property
    def certs(self) -> str:
        return self._below(self.state, "certs")

    @property
    def tokens(self) -> str:
        return self._below(self.state, "tokens")

    @property
    def log(self) -> str:
        return self._below(self.state, "log")

    @property
    def himds_log(self) -> str:
        return self._below(self.log, "himds.log")

    @property
    def azcmagent_log(self) -> str:
        return self._below(self.log, "azcmagent.log")

    @property
    def socket(self) -> str:
        return self._below(self.state, "socks", "himds.sock")

    @property
    def policy(self) -> str:
        return self._below(self.guest_config, "policy")

    @property
    def extensions(self) -> str:
        return self._below(self.guest_config, "extensions")

    @property
    def upgrade(self) -> str:
        """Root's: an upgrade of the agent, outside its package."""
        return self._below(self.guest_config, "upgrade")

    @property
    def gc_agent_log(self) -> str:
        return self._below(self.guest_config, "arc_policy_logs", "gc_agent.log")

    @property
    def gc_ext_log(self) -> str:
        return self._below(self.guest_config, "ext_mgr_logs", "gc_ext.log")

    @property
    def extension_logs(self) -> str:
        return self._below(self.guest_config, "extension_logs")


def linux(root: str = "") -> Paths:
    """The Linux table, below `root` (a test's folder)."""
    return Paths(
        program=f"{root}/opt/azcmagent",
        state=f"{root}/var/opt/azcmagent",
        guest_config=f"{root}/var/lib/GuestConfig",
        handlers=f"{root}/var/lib/waagent",
        downloads=f"{root}/opt/GC_Ext/downloads",
        memory=f"{root}/run/azcmagent-extd",
    )


def windows(program_files: str, program_data: str, system_drive: str = "C:") -> Paths:
    """The Windows table. Windows compares names without case, so the Linux spelling of sub-folders serves."""
    return Paths(
        program=f"{program_files}\\AzureConnectedMachineAgent",
        state=f"{program_data}\\AzureConnectedMachineAgent",
        guest_config=f"{program_data}\\GuestConfig",
        handlers=f"{system_drive}\\Packages\\Plugins",
        downloads=f"{program_files}\\AzureConnectedMachineAgent\\ExtensionService\\downloads",
        memory=f"{program_data}\\GuestConfig\\memory",
        sep="\\",
    )


def here(root: str = "") -> Paths:
    """The table of this operating system."""
    if sys.platform == "win32":
        return windows(os.environ["PROGRAMFILES"], os.environ["PROGRAMDATA"], os.environ.get("SYSTEMDRIVE", "C:"))
    else:  # noqa: RET505 - mypy judges each system's branch by itself
        return linux(root)
