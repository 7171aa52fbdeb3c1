# SPDX-License-Identifier: Apache-2.0
"""Upgrades of extensions that an operator asks for (identity-and-arm-api.md C.7)."""

from __future__ import annotations

from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.mgmt.hybridcompute import models

from tests.integration.extension_machine import ExtensionMachine
from tests.integration.extension_site import Arm, Client, G, operation_of, path_of, state_of, wish


def test_upgrade_extensions(client: Client, arm: Arm, machine: ExtensionMachine) -> None:
    def upgrade(**targets: str) -> Any:
        named = {
            f"Hawser.{name}": models.ExtensionTargetProperties(target_version=version)
            for name, version in targets.items()
        }
        wanted = models.MachineExtensionUpgrade(extension_targets=named)
        return client.begin_upgrade_extensions(G, machine.name, wanted)

    arm("PUT", path_of(machine), wish(typeHandlerVersion="1.0.2", settings={"a": 1}))
    arm("PUT", path_of(machine, "probe"), wish(type="HealthProbe", typeHandlerVersion="1.0.0"))
    machine.report_all()
    poller = upgrade(CustomScript="1.2.0")
    script_item, _ = machine.content()["extensions"]
    assert (script_item["version"], script_item["sequence"], script_item["rollbackTo"]) == ("1.2.0", 0, None)
    assert (state_of(arm, machine), state_of(arm, machine, "probe")) == ("Updating", "Succeeded")
    machine.report_all(operation="update")
    poller.result()
    assert arm("GET", path_of(machine)).json()["properties"]["typeHandlerVersion"] == "1.2.0"
    poller = upgrade()
    machine.report_all(operation="update")
    poller.result()
    assert arm("GET", path_of(machine)).json()["properties"]["instanceView"]["typeHandlerVersion"] == "2.0.0"
    upgrade().result()  # all have the newest
    downgrade = upgrade(CustomScript="1.0.3")
    machine.report_all(operation="update")
    downgrade.result()
    for targets in ({"CustomScript": "9.9"}, {"Nothing": "1.0"}):
        with pytest.raises(HttpResponseError) as refused:
            upgrade(**targets)
        assert refused.value.status_code == 400


@pytest.mark.parametrize("targets", [{}, {"extensionTargets": {"Hawser.CustomScript": {"targetVersion": "2.0.0"}}}])
def test_an_upgrade_that_failed_is_tried_again(arm: Arm, machine: ExtensionMachine, targets: dict[str, Any]) -> None:
    upgrade = f"{machine.resource_id}/upgradeExtensions"
    arm("PUT", path_of(machine), wish(typeHandlerVersion="1.0.3"))
    machine.report_all()
    assert arm("POST", upgrade, targets).status_code == 202
    machine.report_all(state="failed", code=1008, version="1.0.3")
    assert state_of(arm, machine) == "Failed"
    again = arm("POST", upgrade, targets)
    assert (again.status_code, state_of(arm, machine)) == (202, "Updating")
    (entry,) = machine.content()["extensions"]
    assert (entry["version"], entry["sequence"]) == ("2.0.0", 1), "handlers do a sequence once"
    machine.report_all()
    assert operation_of(arm, again)["status"] == "Succeeded"
    assert arm("POST", upgrade, targets).status_code == 200
