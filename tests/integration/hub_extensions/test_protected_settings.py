# SPDX-License-Identifier: Apache-2.0
"""Protected settings are for one machine alone (docs/protocol.md section 15)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

from jsonschema import Draft7Validator

from tests.integration.extension_machine import ExtensionMachine
from tests.integration.extension_site import Arm, code_of, path_of, wish
from tests.integration.hub_machine import make_csr, make_key
from tests.integration.hub_process import REPOSITORY, HubProcess

SCHEMA = json.loads((REPOSITORY / "docs/schemas/desired-extensions.schema.json").read_text())


def test_protected_settings_are_for_the_machine_alone(
    hub: HubProcess, arm: Arm, machine: ExtensionMachine, tmp_path: Path, token: str
) -> None:
    secret = f"s3cret-ümläut-{uuid4()}"
    protected = {"commandToExecute": secret, "nested": {"list": [1, None]}}
    assert arm("PUT", path_of(machine), wish(protectedSettings=protected)).status_code == 202
    content = machine.content()
    Draft7Validator(SCHEMA).validate(content)
    (item,) = content["extensions"]
    assert json.loads(machine.opened(item, content["certificates"], tmp_path)) == protected
    machine.report_all()
    for path in (path_of(machine), f"{machine.resource_id}/extensions", machine.resource_id):
        answer = arm("GET", path, **{"$expand": "instanceView"})
        assert "s3cret" not in answer.text
        assert item["protectedSettings"] not in answer.text
    # A renewed certificate of the same key: what is there stays, and is still named by its own certificate.
    again = {"protocol": 1, "requestId": str(uuid4()), "slot": 1, "csr": make_csr(make_key())}
    settings_csr = make_csr(machine.settings_key)
    assert machine.post("renew", {**again, "settingsCsr": settings_csr}).json()["settingsCertificate"]
    assert arm("PUT", path_of(machine), wish(protectedSettings=protected)).status_code == 200
    content = machine.content()
    assert content["extensions"][0] == item
    assert json.loads(machine.opened(content["extensions"][0], content["certificates"], tmp_path)) == protected
    # Of another key: the old envelope is of no use, and the same settings are encrypted anew.
    machine.settings_key = make_key()
    again["requestId"] = str(uuid4())
    other = machine.post("renew", {**again, "settingsCsr": make_csr(machine.settings_key)})
    assert other.json()["settingsCertificate"]
    assert arm("PUT", path_of(machine), wish(protectedSettings=protected)).status_code == 202
    content = machine.content()
    assert content["extensions"][0]["sequence"] == 1
    assert json.loads(machine.opened(content["extensions"][0], content["certificates"], tmp_path)) == protected
    audit = hub.session().get(f"{hub.url}/hawser/v1/audit", headers={"Authorization": f"Bearer {token}"}, timeout=30)
    (entry, *_) = [row for row in audit.json()["value"] if row["target"] == path_of(machine)]
    assert "protectedSettings" in entry["detail"]["members"]
    assert "s3cret" not in audit.text
    for file in hub.data.rglob("*"):
        if file.is_file():
            assert secret.encode() not in file.read_bytes(), file


def test_other_protected_settings_take_the_tag_of_the_former_with_them(arm: Arm, machine: ExtensionMachine) -> None:
    mine, other = ({"commandToExecute": text} for text in ("mine", "another"))
    tags = {"hawser-protected-digest": "of mine", "env": "prod"}

    def left(method: str, what: dict[str, Any]) -> Any:
        made = arm("PUT", path_of(machine), wish(protectedSettings=mine) | {"tags": tags})
        assert made.json()["tags"] == tags
        return arm(method, path_of(machine), what).json()["tags"]

    assert left("PUT", wish(settings={"a": "b"})) == tags
    assert left("PUT", wish(protectedSettings=mine)) == tags
    assert left("PATCH", {"properties": {"protectedSettings": other}}) == {"env": "prod"}
    assert left("PUT", wish(protectedSettings=other)) == {"env": "prod"}
    assert left("PUT", wish(protectedSettings={})) == {"env": "prod"}
    assert left("PUT", wish(protectedSettings=other) | {"tags": tags}) == tags


def test_a_key_that_another_machine_has_is_not_certified(hub: HubProcess, arm: Arm, token: str) -> None:
    """A disk was copied with extd's key: who holds it could read what is meant for the original."""
    original = ExtensionMachine.connected(hub, "with-its-key", token)
    clone = ExtensionMachine(hub, "with-a-copied-key")
    assert clone.put(token).status_code == 200
    csr = make_csr(original.settings_key)
    enrolled = clone.enrol(token, settingsCsr=csr)
    assert (enrolled.status_code, enrolled.json()["settingsCertificate"]) == (200, None)
    assert [answer.status_code for answer in (clone.ask_token(), clone.checkin())] == [200, 200]

    def renewed(machine: ExtensionMachine, settings_csr: str) -> Any:
        return machine.post("renew", {"protocol": 1, "requestId": str(uuid4()), "slot": 1, "settingsCsr": settings_csr})

    refused = renewed(clone, csr)
    assert code_of(refused) == (409, "SettingsKeyInUse")
    assert "with-its-key" in refused.json()["error"]["message"]
    assert "GuestConfig/extensions/keys" in refused.json()["error"]["message"]
    assert renewed(original, csr).json()["settingsCertificate"], "the machine's own stays its own"
    assert renewed(clone, make_csr(make_key())).json()["settingsCertificate"]
    # A machine that is gone has no key; one that comes again may bring the key that it had.
    assert arm("DELETE", original.resource_id).status_code in (200, 204)
    again = ExtensionMachine(hub, "with-its-key-again")
    assert again.put(token).status_code == 200
    assert again.enrol(token, settingsCsr=csr).json()["settingsCertificate"]


def test_protected_settings_need_a_certificate(hub: HubProcess, arm: Arm, token: str) -> None:
    machine = ExtensionMachine.connected(hub, "without", token, certificate=False)
    refused = arm("PUT", path_of(machine), wish(protectedSettings={"a": "b"}))
    assert code_of(refused) == (409, "SettingsCertificateMissing")
    assert code_of(arm("GET", path_of(machine))) == (404, "ResourceNotFound")
    assert arm("PUT", path_of(machine), wish()).status_code == 202
