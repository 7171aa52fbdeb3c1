# SPDX-License-Identifier: Apache-2.0
"""A hub that was restored from a backup which is older than what machines carried out since."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration import hub_process
from tests.integration.extension_machine import ExtensionMachine, catalogue_of
from tests.integration.extension_site import PACKAGES, arm_of, path_of, wish
from tests.integration.hub_machine import payload_of
from tests.integration.hub_process import HubProcess

KINDS = ("extensions", "runcommands")


def _command(text: str) -> dict[str, Any]:
    return {"location": "local", "properties": {"source": {"script": text}}}


def _entry(machine: ExtensionMachine, kind: str) -> tuple[int, dict[str, Any]]:
    """Generation of a document, and its one entry."""
    document = payload_of(machine.desired(kind).json()["document"])
    (found,) = document["content"]["extensions" if kind == "extensions" else "runCommands"]
    return document["generation"], found


def _written(hub: HubProcess, token: str, machine: ExtensionMachine, kind: str, text: str) -> tuple[int, int]:
    """Generation and sequence after another write of an extension, or of a run command."""
    name = path_of(machine)
    if kind == "runcommands":
        name = name.replace("/extensions/", "/runCommands/")
    body = wish(settings={"text": text}) if kind == "extensions" else _command(text)
    answer = arm_of(hub, token)("PUT", name, body)
    assert answer.status_code < 300, answer.text
    generation, entry = _entry(machine, kind)
    return generation, entry["sequence"]


def _restored(hub: HubProcess, archive: Path, data: Path) -> HubProcess:
    hub.stop(signal.SIGKILL)
    again = HubProcess(data, hub.url, hub.listen, {**hub.made, "caFile": str(data / "keys" / "ca.crt")})
    again.run("restore", str(archive), *hub_process.database_options())
    return again.start()


def _back(machine: ExtensionMachine, hub: HubProcess) -> None:
    machine.http.close()
    machine.hub, machine.http = hub, hub.session()
    assert machine.ask_token().status_code == 200
    assert machine.checkin().status_code == 200


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_was_first_used_after_the_backup_can_be_commanded_again(kind: str, tmp_path: Path) -> None:
    hub = hub_process.make(tmp_path / "data").start()
    catalogue_of(hub, PACKAGES)
    owner = hub.principal("owner", "Owner")
    token = hub.token(owner)
    there = ExtensionMachine.connected(hub, "there", token)
    archive = tmp_path / "hub.tar.gz"
    hub.run("backup", str(archive))
    since = ExtensionMachine.connected(hub, "since", token)
    seen = {}
    for machine in (there, since):
        for number in range(3):
            seen[machine.name], _ = _written(hub, token, machine, kind, str(number))
    hub = _restored(hub, archive, tmp_path / "restored")
    try:
        token = hub.token(owner)
        for machine in (there, since):
            _back(machine, hub)
            if machine is since:
                assert machine.report("inventory", {"osType": "linux"}).status_code == 200
            generation, _ = _written(hub, token, machine, kind, "again")
            assert generation > seen[machine.name], "machines refuse a generation that falls"
    finally:
        assert hub.stop() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_carried_out_since_the_backup_stands_until_the_next_write(kind: str, tmp_path: Path) -> None:
    hub = hub_process.make(tmp_path / "data").start()
    catalogue_of(hub, PACKAGES)
    owner = hub.principal("owner", "Owner")
    token = hub.token(owner)
    machine = ExtensionMachine.connected(hub, "there", token)
    assert _written(hub, token, machine, kind, "yesterday")[1] == 0
    _, before = _entry(machine, kind)
    archive = tmp_path / "hub.tar.gz"
    hub.run("backup", str(archive))
    for _ in range(3):
        _written(hub, token, machine, kind, str(time.time()))
    _, last = _entry(machine, kind)
    assert (last["sequence"], last["incarnation"]) == (3, before["incarnation"])
    hub = _restored(hub, archive, tmp_path / "restored")
    try:
        token = hub.token(owner)
        _back(machine, hub)
        generation, entry = _entry(machine, kind)
        assert entry == before, "it is not another sequence, for then it would be run again"
        # The machine says what it has, and that is no open end.
        _tell(machine, kind, generation, last)
        path = path_of(machine) if kind == "extensions" else path_of(machine).replace("/extensions/", "/runCommands/")
        shown = arm_of(hub, token)("GET", path).json()["properties"]
        assert shown["provisioningState"] == "Succeeded"
        if kind == "runcommands":
            assert shown["instanceView"]["executionState"] == "Succeeded"
        _, first = _written(hub, token, machine, kind, "again")
        assert first > last["sequence"]
        assert _written(hub, token, machine, kind, "and again")[1] == first + 1
        assert _entry(machine, kind)[1]["incarnation"] == before["incarnation"]
        # What is reported of a number that is not wished any more says nothing.
        _tell(machine, kind, _entry(machine, kind)[0], last)
        assert arm_of(hub, token)("GET", path).json()["properties"]["provisioningState"] == "Updating"
    finally:
        assert hub.stop() == 0


def _tell(machine: ExtensionMachine, kind: str, generation: int, entry: dict[str, Any]) -> None:
    """Report that an entry of a document was carried out."""
    if kind == "extensions":
        machine.report_items(generation, [machine.item(entry)])
        return
    at = "2026-11-28T10:00:00Z"
    told = {"executionState": "Succeeded", "exitCode": 0, "startTime": at, "endTime": at, "at": at}
    item = {"name": entry["name"], "sequence": entry["sequence"], **told}
    assert machine.report(kind, {"generation": generation, "runCommands": [item]}).status_code == 200
