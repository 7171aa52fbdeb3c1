# SPDX-License-Identifier: GPL-3.0-or-later
"""Action of hawser.machine.extension: one extension of a machine, at the hub."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.hawser.machine.plugins.plugin_utils import _answer, _extension, _place
from ansible_collections.hawser.machine.plugins.plugin_utils._base import HubAction
from ansible_collections.hawser.machine.plugins.plugin_utils._errors import HawserError
from ansible_collections.hawser.machine.plugins.plugin_utils._hub import EXPANDED, Hub
from ansible_collections.hawser.machine.plugins.plugin_utils._operation import Follower, State, state_of_resource
from ansible_collections.hawser.machine.plugins.plugin_utils._spec import argument_spec


class ActionModule(HubAction):
    """Compares with what ARM shows, puts or deletes, and waits."""

    MODULE = "extension"
    SPEC = argument_spec("extension")

    def ask(self, hub: Hub, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return what differed, the extension and its instance view; fail when it ended badly."""
        # Texts carry marks of Ansible, and YAML has dates: neither can be compared with what the hub keeps.
        options = json.loads(json.dumps(options, default=str))
        machine = _place.machine_of(options, task_vars)
        target = _place.child_of(machine, "extensions", options["name"])
        host = str(task_vars.get("inventory_hostname", ""))
        follower = Follower(
            hub, options["timeout"], lambda text: self._display.v(f"extension {options['name']}: {text}", host=host)
        )
        found = hub.resource(target, **EXPANDED)
        if options["state"] == "absent":
            wrong = [] if found is None else [{"path": "extension", "expected": "absent", "actual": "present"}]
        else:
            if found is not None and _deleting(found):
                if options["wait"] and not self._task.check_mode:
                    follower.until(lambda: _gone(hub, target), {})
                found = None
            _extension.check(options, found)
            wrong = _extension.differences(options, found, target)
        result: dict[str, Any] = {
            "changed": bool(wrong),
            "reasons": wrong,
            "before": _extension.actual(options, found, wrong),
            "after": _extension.described(options),
            "steps": follower.steps,
        }
        if self.shows_diff and wrong:
            result["diff"] = _answer.diff_of(result["before"], result["after"], f"{host} {options['name']}")
        result |= _shown(found)
        if self._task.check_mode or (not wrong and (found is None or _settled(found) or not options["wait"])):
            return result
        try:
            self._converge(hub, follower, target, machine, options, found, bool(wrong))
        except HawserError as error:
            # What was sent stays sent.
            result |= error.as_result()
            result["changed"] = follower.started
        return result | _shown(hub.resource(target, **EXPANDED))

    @staticmethod
    def _converge(
        hub: Hub,
        follower: Follower,
        target: str,
        machine: str,
        options: dict[str, Any],
        found: dict[str, Any] | None,
        differs: bool,
    ) -> None:
        """Send what differs and wait for the end; raises HawserError."""
        if not differs:
            state = follower.until(lambda: follower.look_at(target), {})
        else:
            if options["state"] == "absent":
                method, body = "DELETE", None
            else:
                location = (found or {}).get("location") or _place.location_of(hub, machine, options)
                method, body = "PUT", _extension.body_of(options, found, location, target)
            reply = follower.start(method, target, body)
            if not options["wait"]:
                return
            state = follower.follow(method, target, reply)
        if not state.well:
            raise _failure(options["name"], state, hub.resource(target, **EXPANDED))


def _deleting(found: dict[str, Any]) -> bool:
    return state_of_resource(found).word.lower() == "deleting"


def _settled(found: dict[str, Any]) -> bool:
    return state_of_resource(found).final


def _gone(hub: Hub, target: str) -> tuple[State, dict[str, str]]:
    return (State("Deleting") if hub.resource(target) is not None else State("Succeeded")), {}


def _failure(name: str, state: State, found: dict[str, Any] | None) -> HawserError:
    said = str(state.error.get("message") or "") or _extension.status_text(found) or "the hub gives no reason"
    return HawserError(
        f"the extension {name} ended {state.word}: {said}",
        "Look at the extension's logs on the machine (/var/lib/GuestConfig/extension_logs), then run the task again",
        str(state.error.get("code") or "") or None,
    )


def _shown(found: dict[str, Any] | None) -> dict[str, Any]:
    """The extension in a result. ARM returns no protected settings; a hub that did must not get them logged."""
    if found is None:
        return {"extension": None, "instance_view": None}
    properties = {key: value for key, value in (found.get("properties") or {}).items() if key != "protectedSettings"}
    return {"extension": {**found, "properties": properties}, "instance_view": properties.get("instanceView")}
