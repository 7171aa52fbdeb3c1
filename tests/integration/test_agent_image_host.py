# SPDX-License-Identifier: Apache-2.0
"""Sealing on a real host: services stand still and stay enabled, a template that starts again stays sealed, a copy
unseals before himds starts, and what the package hooks into the system does its work."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lab import Host, Lab
from tests.integration.connected_host import install
from tests.waiting import until

pytestmark = pytest.mark.hosts

ASK_TOKEN = """
import urllib.request
address = "http://127.0.0.1:40342/metadata/identity/oauth2/token?api-version=2020-06-01&resource=x"
try:
    urllib.request.urlopen(urllib.request.Request(address, headers={"Metadata": "true"}))
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"""
UNITS = ("himdsd.service", "gcad.service", "extd.service")


@pytest.fixture(scope="module")
def host(make_lab: Callable[..., Lab], agent_deb: Path) -> Host:
    found = make_lab("image01").hosts["image01"]
    install(found, agent_deb)
    return found


def states(host: Host, verb: str) -> set[str]:
    return set(host.run(["systemctl", verb, *UNITS], check=False).output.split())


def agent(host: Host, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.run(["azcmagent", *words, "--json"], check=False).output)
    return found


def state(host: Host) -> str:
    return str(agent(host, "show", "identityState")["identityState"])


def change_hardware(host: Host) -> None:
    host.write("/etc/lab/dmi/product_uuid", f"{uuid.uuid4()}\n", mode=0o400)


def test_sealing_stops_the_services_and_leaves_them_enabled(host: Host) -> None:
    assert state(host) == "disconnected"
    done = agent(host, "seal", "--image-id", "web-1")
    assert (done["status"], done["changed"]) == ("success", True)
    assert states(host, "is-active") == {"inactive"}
    assert states(host, "is-enabled") == {"enabled"}
    assert state(host) == "sealed"
    found = agent(host, "seal", "--check", "--agent-only")
    assert (found["status"], found["imageId"]) == ("clean", "web-1")
    record = json.loads(host.read("/var/opt/azcmagent/image.json"))
    assert {item["name"] for item in record["evidence"] if item["status"] == "ok"} >= {"dmi_uuid", "machine_id"}
    assert host.run(["stat", "-c", "%U:%G %a", "/var/opt/azcmagent/state/identity.json"]).output.split() == [
        "himds:himds",
        "600",
    ]


def test_a_template_that_starts_again_stays_sealed(host: Host) -> None:
    host.run(["systemctl", "start", *UNITS])
    assert state(host) == "sealed"
    assert states(host, "is-active") == {"active"}
    answer = host.run(["python3", "-c", ASK_TOKEN]).output
    assert answer.startswith("503")
    assert "sealed" in answer


def test_a_copy_unseals_before_himds_starts(host: Host) -> None:
    host.run(["systemctl", "stop", *UNITS])
    change_hardware(host)
    host.run(["systemctl", "start", *UNITS])
    assert state(host) == "disconnected"
    record = json.loads(host.read("/var/opt/azcmagent/image.json"))
    assert record["unsealedBy"] == "evidence"
    host.run(["systemctl", "restart", "himdsd.service"])
    assert state(host) == "disconnected"


def test_unsealing_by_hand_starts_the_services(host: Host) -> None:
    agent(host, "seal", "--image-id", "web-2")
    host.run(["systemctl", "start", "himdsd.service"])
    done = agent(host, "unseal", "--here")
    assert (done["changed"], done["by"]) == (True, "here")
    assert states(host, "is-active") == {"active"}
    assert state(host) == "disconnected"


def test_a_clean_of_cloud_init_seals(host: Host) -> None:
    hook = "/etc/cloud/clean.d/50-azcmagent"
    host.run(["env", "AZCMAGENT_IMAGE_ID=cloud-1", hook])
    assert agent(host, "seal", "--check", "--agent-only")["imageId"] == "cloud-1"
    host.run([hook])
    assert agent(host, "seal", "--check", "--agent-only")["imageId"] == "cloud-1"
    host.run(["azcmagent", "unseal", "--first-boot"])
    host.run([hook])
    assert agent(host, "seal", "--check", "--agent-only")["imageId"].startswith("image-")


def test_an_image_that_does_not_run_is_sealed_by_the_script_for_virt_sysprep(host: Host) -> None:
    host.write("/etc/azcmagent-image-id", "offline-1\n")
    host.run(["systemctl", "stop", *UNITS])
    machine_id = host.run(["cat", "/etc/machine-id"]).output
    host.run(["/usr/share/azcmagent/virt-sysprep-seal"])
    assert host.run(["cat", "/etc/machine-id"]).output == "", "copies make their own"
    host.write("/etc/machine-id", machine_id)
    assert agent(host, "seal", "--check", "--agent-only")["imageId"] == "offline-1"
    host.run(["/usr/share/azcmagent/virt-sysprep-firstboot"])
    host.run(["systemctl", "start", *UNITS])
    assert state(host) == "disconnected"


def test_a_wake_up_has_himds_look(host: Host) -> None:
    host.run(["/lib/systemd/system-sleep/azcmagent", "post", "suspend"])
    host.run(["systemctl", "start", "azcmagent-look.service"])
    assert host.run(["systemctl", "show", "--property=Result", "--value", "azcmagent-look.service"]).output.strip() == (
        "success"
    )
    copied = host.run(["stat", "-c", "%G %a", "/run/azcmagent/product_uuid"]).output.split()
    assert copied == ["himds", "440"]


def test_firmware_that_root_cannot_read_keeps_nothing_from_starting(host: Host) -> None:
    """As in a container without privileges, where the file is there and root is refused."""
    firmware, copy = "/sys/class/dmi/id/product_uuid", "/run/azcmagent/product_uuid"
    host.run(["systemctl", "restart", "himdsd.service"])
    assert host.run(["test", "-e", copy], check=False).code == 0
    host.run(["mount", "--bind", "/proc/1/mem", firmware])  # its first byte cannot be read by anybody
    try:
        assert host.run(["cat", firmware], check=False).code != 0
        host.run(["systemctl", "restart", "himdsd.service"])
        assert host.run(["test", "-e", copy], check=False).code != 0
        host.run(["systemctl", "start", "azcmagent-look.service"])
    finally:
        host.run(["umount", firmware])
    host.run(["systemctl", "restart", "himdsd.service"])
    assert host.run(["test", "-e", copy], check=False).code == 0


def test_an_offer_of_the_hub_starts_roots_unit(host: Host) -> None:
    """himds is not root: it leaves a notice, and the service manager sees it."""
    unit = "azcmagent-specialise.service"

    def runs() -> str:
        return host.run(["systemctl", "show", "--property=InvocationID", "--value", unit]).output.strip()

    def other(before: str) -> bool:
        return runs() != before

    assert host.run(["systemctl", "is-active", "azcmagent-specialise.path"]).output.strip() == "active"
    notice = "/var/opt/azcmagent/state/adopt.json"
    for _ in range(2):  # the file comes, and comes again
        before = runs()
        host.run(
            ["sh", "-c", f"echo '{{}}' >{notice}.new && chown himds:himds {notice}.new && mv {notice}.new {notice}"]
        )
        until(partial(other, before), "the notice starts the unit", seconds=20)
        # The service manager looks again when the unit has ended; himds writes its notice every quarter of an hour.
        until(lambda: host.run(["systemctl", "is-active", unit], check=False).output.strip() == "inactive", seconds=60)
    assert host.run(["systemctl", "show", "--property=Result", "--value", unit]).output.strip() == "success"
    host.run(["rm", notice])


def test_every_unit_of_the_package_is_one_that_systemd_understands(host: Host) -> None:
    names = host.run(["sh", "-c", "cd /lib/systemd/system && ls azcmagent-* himdsd.service"]).output.split()
    assert len(names) == 6
    said = host.run(["systemd-analyze", "verify", *names], check=False)
    assert [line for line in (said.output + said.errors).splitlines() if "azcmagent" in line or "himdsd" in line] == []
