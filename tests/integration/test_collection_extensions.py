# SPDX-License-Identifier: Apache-2.0
"""extension and extension_info with a real hub, packages that its operator has published, and a machine on its channel.

The machine is played: it fetches its document and reports as docs/protocol.md section 15 says, and carries nothing out.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.integration.collection_controller import ROOT, Controller, of_hub
from tests.integration.hub_machine import API, Machine, make_csr, make_key, payload_of
from tests.integration.hub_process import HubProcess
from tests.integration.test_collection_controller import CALLBACKS, run

SECRET = "hush-hush-7"
WISH = {
    "machine": "web01",
    "name": "setup",
    "publisher": "Hawser",
    "type": "CustomScript",
    "type_handler_version": "1.0.0",
    "settings": {"commandToExecute": "true"},
}


def publish(hub: HubProcess, folder: Path, *more: Path) -> None:
    """Put our own packages, and `more`, into the hub's repository, as its operator does."""
    argv = [sys.executable, str(ROOT / "packaging/build_packages.py"), "--out", str(folder), "--only", "handlers"]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    hub.add_repository(folder / "keys")
    hub.publish(folder / "keys", *sorted(folder.glob("*.zip")), *more)


class Played(Machine):
    """`outcome`: what is reported of an extension beside its name, version, sequence. `documents`: those fetched."""

    settings_key: rsa.RSAPrivateKey
    outcome: dict[str, Any]
    documents: list[dict[str, Any]]

    @classmethod
    def connected(cls, hub: HubProcess, name: str, token: str) -> Played:
        """A Linux machine with a key for protected settings."""
        made = cls(hub, name, group="web")
        made.settings_key, made.outcome, made.documents = make_key(), {}, []
        assert made.put(token).status_code == 200
        for answer in (made.enrol(token, settingsCsr=make_csr(made.settings_key)), made.ask_token(), made.checkin()):
            assert answer.status_code == 200, answer.text
        inventory = {"osType": "linux", "detectedProperties": {"architecture": "x86_64"}}
        assert made.report("inventory", inventory).status_code == 200
        return made

    def carry_out(self) -> None:
        """Fetch the newest document and report on all of it."""
        answer = self.desired("extensions")
        if answer.status_code == 404:
            return
        document = payload_of(answer.json()["document"])
        self.documents.append(document)
        items = [
            {
                **{key: wanted[key] for key in ("name", "publisher", "type", "version", "sequence")},
                "state": "succeeded",
                "operation": "enable",
                "code": 0,
                "message": "It went well.",
                "handler": {"status": "Ready", "code": 0, "message": ""},
                "status": None,
                "at": "2026-11-28T10:00:00Z",
                **self.outcome,
            }
            for wanted in document["content"]["extensions"]
        ]
        answer = self.report("extensions", {"generation": document["generation"], "extensions": items})
        assert answer.status_code == 200, answer.text

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Carry out what changes, until the end of the block."""
        ended = threading.Event()

        def work() -> None:
            known = self.generations["extensions"]
            while not ended.is_set():
                answer = self.checkin(hold=2)
                assert answer.status_code == 200, answer.text
                if self.generations["extensions"] != known:
                    known = self.generations["extensions"]
                    self.carry_out()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(30)


@pytest.fixture(scope="module")
def hub(make_hub: Callable[..., HubProcess], tmp_path_factory: pytest.TempPathFactory) -> HubProcess:
    made = make_hub("--location", "local")
    publish(made, tmp_path_factory.mktemp("packages"))
    return made


@pytest.fixture(scope="module")
def owner(hub: HubProcess) -> dict[str, Any]:
    return hub.principal("owner", "Owner")


@pytest.fixture(scope="module")
def machine(hub: HubProcess, owner: dict[str, Any]) -> Iterator[Played]:
    made = Played.connected(hub, "web01", hub.token(owner))
    with made.serving():
        yield made


@pytest.fixture
def controller(hub: HubProcess, owner: dict[str, Any], machine: Played, tmp_path: Path) -> Controller:
    machine.outcome = {}
    made = of_hub(tmp_path, hub, owner)
    made.variables |= CALLBACKS | {
        "HAWSER_TEST_RESULTS": str(tmp_path / "results.jsonl"),
        "HAWSER_SUBSCRIPTION_ID": hub.subscription_id,
        "HAWSER_RESOURCE_GROUP": "web",
    }
    return made


def opened(machine: Played, item: dict[str, Any], certificate: str, folder: Path) -> Any:
    """Protected settings as a handler reads them."""
    key = machine.settings_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "s.crt").write_text(certificate)
    (folder / "s.prv").write_bytes(key)
    argv = [
        "openssl",
        "cms",
        "-decrypt",
        "-inform",
        "DER",
        "-recip",
        str(folder / "s.crt"),
        "-inkey",
        str(folder / "s.prv"),
    ]
    sealed = base64.b64decode(item["protectedSettings"])
    return json.loads(subprocess.run(argv, input=sealed, check=True, capture_output=True).stdout)


def test_check_apply_apply_check_remove(controller: Controller, machine: Played) -> None:
    assert run(controller, "extension", "--check", **WISH)["changed"]
    assert run(controller, "extension_info", machine="web01")["extensions"] == []
    made = run(controller, "extension", **WISH)
    assert made["changed"], made
    assert made["extension"]["properties"]["provisioningState"] == "Succeeded"
    assert made["instance_view"]["status"]["message"]
    assert made["steps"][-1]["name"] == "Succeeded"
    for argv in ((), ("--check", "--diff")):
        again = run(controller, "extension", *argv, **WISH)
        assert not again["changed"], again["reasons"]
    (found,) = run(controller, "extension_info", machine="web01")["extensions"]
    assert found["properties"]["instanceView"]["typeHandlerVersion"] == "1.0.0"
    (wanted,) = machine.documents[-1]["content"]["extensions"]
    assert (wanted["version"], wanted["sequence"]) == ("1.0.0", 0)
    assert wanted["publicSettings"] == {"commandToExecute": "true"}

    tagged = run(controller, "extension", **WISH, force_update_tag="2")
    assert [reason["path"] for reason in tagged["reasons"]] == ["force_update_tag"]
    assert machine.documents[-1]["content"]["extensions"][0]["sequence"] == 1

    for changed in (True, False):
        gone = run(controller, "extension", machine="web01", name="setup", state="absent")
        assert gone["changed"] is changed
        assert gone["extension"] is None
    assert machine.documents[-1]["content"]["extensions"] == []


def test_protected_settings(controller: Controller, machine: Played, tmp_path: Path) -> None:
    wish = {**WISH, "name": "secret", "settings": {}, "protected_settings": {"commandToExecute": SECRET}}
    made = run(controller, "extension", **wish)
    assert made["changed"], made
    assert not run(controller, "extension", **wish)["changed"]
    content = machine.documents[-1]["content"]
    (item,) = content["extensions"]
    certificate = content["certificates"][item["protectedSettingsCertThumbprint"]]
    assert opened(machine, item, certificate, tmp_path) == {"commandToExecute": SECRET}
    other = run(controller, "extension", **{**wish, "protected_settings": {"commandToExecute": f"{SECRET} 2"}})
    assert [reason["path"] for reason in other["reasons"]] == ["protected_settings"]
    assert machine.documents[-1]["content"]["extensions"][0]["sequence"] == 1
    assert SECRET not in json.dumps([made, other])
    run(controller, "extension", machine="web01", name="secret", state="absent")


def test_protected_settings_that_somebody_else_wrote_are_noticed(
    controller: Controller, hub: HubProcess, owner: dict[str, Any], machine: Played
) -> None:
    wish = {**WISH, "name": "shared", "settings": {}, "protected_settings": {"commandToExecute": SECRET}}
    assert run(controller, "extension", **wish)["changed"]
    answer = hub.session().patch(
        f"{hub.url}{machine.resource_id}/extensions/shared",
        params=API,
        json={"properties": {"protectedSettings": {"commandToExecute": "another"}}},
        headers={"Authorization": f"Bearer {hub.token(owner)}"},
        timeout=30,
    )
    assert answer.status_code == 202, answer.text
    mended = run(controller, "extension", **wish)
    assert [reason["path"] for reason in mended["reasons"]] == ["protected_settings"]
    assert not run(controller, "extension", **wish)["changed"]
    run(controller, "extension", machine="web01", name="shared", state="absent")


def test_an_extension_that_fails_says_why_and_is_tried_again(controller: Controller, machine: Played) -> None:
    machine.outcome = {"state": "failed", "code": 53, "message": "commandToExecute is missing."}
    failed = run(controller, "extension", **WISH)
    assert failed["failed"]
    assert failed["changed"]
    assert "commandToExecute is missing" in failed["msg"]
    assert failed["extension"]["properties"]["provisioningState"] == "Failed"
    machine.outcome = {}
    again = run(controller, "extension", **WISH)
    assert not again["failed"], again
    assert [reason["path"] for reason in again["reasons"]] == ["provisioning_state"]
    # A handler that has carried out a number does it no more: what failed gets another one.
    assert machine.documents[-1]["content"]["extensions"][0]["sequence"] == 1
    run(controller, "extension", machine="web01", name="setup", state="absent")


def test_a_package_that_is_not_published(controller: Controller) -> None:
    failed = run(controller, "extension", **{**WISH, "type": "Nothing"})
    assert failed["failed"]
    assert not failed["changed"]
    assert "Hawser" in failed["msg"]
