# SPDX-License-Identifier: Apache-2.0
"""A hub that was restored from a backup which is older than what machines carried out since."""

from __future__ import annotations

import signal
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
    again.run("restore", str(archive))
    return again.start()


def _back(machine: ExtensionMachine, hub: HubProcess) -> None:
    machine.http.close()
    machine.hub, machine.http = hub, hub.session()
    assert machine.ask_token().status_code == 200
    assert machine.checkin().status_code == 200


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_was_first_used_after_the_backup_can_be_commanded_again(kind: str, tmp_path: Path) -> None:
    hub = hub_process.make(tmp_path / "data", sqlite=True).start()
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
