# SPDX-License-Identifier: GPL-3.0-or-later
"""Action of hawser.machine.run_command: a script on a machine by way of the hub, without a connection to the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible_collections.hawser.machine.plugins.plugin_utils import _digest, _place, _run
from ansible_collections.hawser.machine.plugins.plugin_utils._base import HubAction
from ansible_collections.hawser.machine.plugins.plugin_utils._errors import HawserError, HubError, OptionError
from ansible_collections.hawser.machine.plugins.plugin_utils._hub import EXPANDED, Hub
from ansible_collections.hawser.machine.plugins.plugin_utils._operation import Follower, State
from ansible_collections.hawser.machine.plugins.plugin_utils._spec import argument_spec

SCRIPT_LIMIT = 256 * 1024


class ActionModule(HubAction):
    """Puts or deletes a run command, waits, and returns what the script said."""

    MODULE = "run_command"
    SPEC = argument_spec("run_command")

    def ask(self, hub: Hub, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return exit code and streams; fail when the script could not be run or ended badly."""
        machine = _place.machine_of(options, task_vars)
        name = options["name"]
        if len(name) > _run.NAME_LIMIT:
            raise OptionError(f"the name {name} is longer than {_run.NAME_LIMIT} characters", "Give a shorter name")
        target = _place.child_of(machine, "runCommands", name)
        host = str(task_vars.get("inventory_hostname", ""))
        # The script has its own limit; what is on the way to the machine and back has some minutes more.
        limit = options["wait_timeout"] if options["wait_timeout"] is not None else options["timeout"] + 300
        follower = Follower(hub, limit, lambda text: self._display.v(f"run command {name}: {text}", host=host))
        if options["state"] == "absent":
            return self._absent(hub, follower, target, options)
        wanted = _run.properties_of(options, self._script(options))
        found = hub.resource(target, **EXPANDED) if options["once"] else None
        if options["once"] and _run.has_run(found, wanted, target):
            return {"changed": False, "run_command": found, "steps": [], **_run.outcome_of(found)}
        if self._task.check_mode:
            return {"changed": True, "run_command": None, "steps": [], **_run.outcome_of(None)}
        return self._run(hub, follower, target, machine, wanted, options)

    def _script(self, options: dict[str, Any]) -> str:
        if bool(options["script"]) == bool(options["script_file"]):
            raise OptionError("exactly one of script and script_file is needed", "Give the script, or the file with it")
        if options["script"]:
            return str(options["script"])
        try:
            path = Path(self._find_needle("files", options["script_file"]))
            raw = path.read_bytes()
            text = raw.decode("utf-8") if len(raw) <= SCRIPT_LIMIT else None
        except (AnsibleError, OSError, UnicodeDecodeError) as error:
            raise OptionError(
                f"script_file {options['script_file']} cannot be read as text", "Give a file of the controller"
            ) from error
        if text is None:
            raise OptionError(
                f"script_file {options['script_file']} is larger than {SCRIPT_LIMIT} bytes",
                "Let a small script fetch the large one",
            )
        return text

    def _absent(self, hub: Hub, follower: Follower, target: str, options: dict[str, Any]) -> dict[str, Any]:
        there = hub.resource(target) is not None
        result: dict[str, Any] = {"changed": there, "run_command": None, "steps": follower.steps}
        if not there or self._task.check_mode:
            return result
        reply = follower.start("DELETE", target)
        if options["wait"]:
            _judge(options["name"], follower.follow("DELETE", target, reply))
        return result

    @staticmethod
    def _run(
        hub: Hub, follower: Follower, target: str, machine: str, wanted: dict[str, Any], options: dict[str, Any]
    ) -> dict[str, Any]:
        secret = _run.secret_part(wanted)
        # Every run takes the tag of the one before it with it.
        tags = {_digest.TAG: _digest.digest(secret, target)} if secret and options["once"] else {}
        body = {"location": _place.location_of(hub, machine, options), "tags": tags, "properties": wanted}
        reply = follower.start("PUT", target, body)
        result: dict[str, Any] = {"changed": True, "steps": follower.steps}
        fault: HawserError | None = None
        if options["wait"]:
            try:
                _judge(options["name"], follower.follow("PUT", target, reply))
                follower.until(lambda: _ended(hub, target), {})
            except HawserError as error:
                fault = error
        found = hub.resource(target, **EXPANDED)
        outcome = _run.outcome_of(found)
        result |= {"run_command": found, **outcome}
        if options["wait"] and fault is None:
            said = _run.fault_of(outcome)
            fault = HawserError(said, "Look at stdout and stderr") if said else None
        return result | (fault.as_result() if fault else {})


def _ended(hub: Hub, target: str) -> tuple[State, dict[str, str]]:
    """A script may go on when it counts as started; one whose command is gone has ended."""
    found = hub.resource(target, **EXPANDED)
    return State("Succeeded" if found is None or _run.ended(found) else "Running"), {}


def _judge(name: str, state: State) -> None:
    if not state.well:
        said = str(state.error.get("message") or "the hub gives no reason")
        raise HubError(
            f"the run command {name} ended {state.word}: {said}",
            "Look at the machine's status and at its extension manager's log",
            str(state.error.get("code") or "") or None,
        )
