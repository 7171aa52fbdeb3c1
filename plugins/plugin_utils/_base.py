# SPDX-License-Identifier: GPL-3.0-or-later
"""The shared base of all actions of this collection (design: one remote command for each host-side task).

Action            options, errors, secrets, the hub's settings
├── HostAction    sends a wish to `azcmagent apply -` (`plan -` in check mode) and turns the answer into a result
└── HubAction     runs on the controller alone; no connection to the host is made
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

from ansible.plugins.action import ActionBase
from ansible_collections.hawser.machine.plugins.plugin_utils import _answer, _controller, _settings, _spec, _wish
from ansible_collections.hawser.machine.plugins.plugin_utils._carrier import Carrier
from ansible_collections.hawser.machine.plugins.plugin_utils._errors import HawserError, OptionError
from ansible_collections.hawser.machine.plugins.plugin_utils._hub import Hub
from ansible_collections.hawser.machine.plugins.plugin_utils._secrets import without_secrets

try:  # ansible-core 2.22 and newer mask registered values in all output
    from ansible.module_utils.secrets import register_secret  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    register_secret = None


class Action(ActionBase):  # type: ignore[misc]
    """Options, errors and secrets. A subclass names its `MODULE` and gives `SPEC` and `act`."""

    MODULE: ClassVar[str]
    SPEC: ClassVar[dict[str, Any]]

    _supports_async = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ansible's entry point. Every error of ours becomes one sentence with a remedy; no secret is in the result."""
        task_vars = task_vars or {}
        self._secrets: set[str] = set()
        result: dict[str, Any] = {"changed": False}
        try:
            if self._task.async_val:
                raise OptionError(
                    f"{self.MODULE} does not run with async",
                    "Remove async and poll; the agent and wait_ready have their own time limits",
                )
            result.update(super().run(tmp, task_vars))
            options = _spec.validate(self.MODULE, self.SPEC, dict(self._task.args))
            result.update(self.act(options, task_vars))
        except HawserError as error:
            result.update(error.as_result())
        cleaned: dict[str, Any] = without_secrets(result, self._secrets)
        return cleaned

    def act(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Do the module's work with validated options and return the result."""
        raise NotImplementedError

    def hide(self, secret: str | None) -> None:
        """Keep a secret out of everything this task returns."""
        if secret:
            self._secrets.add(secret)
            if register_secret is not None:
                register_secret(secret)

    @property
    def shows_diff(self) -> bool:
        """Whether the user asked for --diff."""
        return bool(self._task.diff)

    def profile_of(self, options: dict[str, Any]) -> dict[str, Any] | None:
        """The cloud profile of the options; a path is relative to the play's directory."""
        return _settings.load_profile(options.get("cloud_profile"), self._loader.get_basedir())

    def resolved(self, options: dict[str, Any], profile: dict[str, Any] | None) -> dict[str, Any]:
        """The options with environment and cloud profile filled in."""
        found = _settings.resolve(options, os.environ, profile)
        for secret in _spec.secrets_in(found):
            self.hide(secret)
        return found

    def hub(self, found: dict[str, Any], profile: dict[str, Any] | None) -> Hub:
        """The hub of the resolved options."""
        hub = _controller.open_hub(found, profile)
        self.hide(hub.settings.client_secret)
        return hub


class HostAction(Action):
    """Acts on the host with azcmagent. `compose` makes the wish out of options, name and cloud profile."""

    compose = staticmethod(_wish.compose)

    def act(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Send the wish, with a ticket only if the host says that it needs one, and judge the answer."""
        host = str(task_vars.get("inventory_hostname", ""))
        profile = self.profile_of(options)
        found = self.resolved(options, profile)
        wish = self.compose(found, str(found.get("name") or host), profile)
        _wish.refuse_builder(wish, task_vars.get("packer_builder_type"))
        carrier = Carrier(self, task_vars)
        check_mode = bool(self._task.check_mode)
        outcome = carrier.run(["plan" if check_mode else "apply", "-"], _wish.dump(wish))
        if carrier.missing(outcome):
            return self._without_agent(options, host, check_mode)
        answer = _answer.parse_answer(*outcome)
        if not check_mode and answer["credential_required"] and (answer["error"] or {}).get("code") == "AZCM0016":
            ticket = self._ticket(answer, wish, found, profile)
            answer = _answer.parse_answer(*carrier.run(["apply", "-"], _wish.dump(_wish.with_credential(wish, ticket))))
        result = _answer.result_of(answer, host, self.shows_diff)
        _answer.judge_version(result, options.get("agent_version"), check_mode)
        if result.get("failed") and result["upgrade_required"] and options.get("on_missing") == "report":
            # Another version may well refuse what this description says: the caller upgrades first and asks again.
            result["failed"] = False
        return result

    def _without_agent(self, options: dict[str, Any], host: str, check_mode: bool) -> dict[str, Any]:
        result = _answer.missing_result(check_mode, host, self.shows_diff)
        if options.get("state") == "disconnected":
            # What is not there is not connected.
            return {**result, "changed": False, "install_required": False, "reasons": []}
        if not check_mode and options.get("on_missing", "report") == "fail":
            error = HawserError(
                "azcmagent is not installed on the host",
                "Install it with the role hawser.machine.agent, or set on_missing to report and install it yourself",
            )
            result.update(error.as_result())
        return result

    def _ticket(
        self, answer: dict[str, Any], wish: dict[str, Any], found: dict[str, Any], profile: dict[str, Any] | None
    ) -> str:
        connection = wish.get("connection", {})
        wished_id = None
        if connection.get("state") == "connected":
            wished_id = _wish.resource_id(*(connection[key] for key in ("subscription_id", "resource_group", "name")))
        ticket = self.hub(found, profile).ticket(_answer.operations_of(answer, wished_id))
        self.hide(ticket)
        return ticket


class HubAction(Action):
    """Acts on the controller alone: no `delegate_to`, no remote command."""

    _requires_connection = False

    def act(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Resolve the options and leave the work to `ask`."""
        profile = self.profile_of(options)
        found = self.resolved(options, profile)
        return self.ask(self.hub(found, profile), found, task_vars)

    def ask(self, hub: Hub, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Do the work with the hub."""
        raise NotImplementedError
