# SPDX-License-Identifier: Apache-2.0
"""Images and clones by the collection, over ssh on real systemd hosts with a real hub: one story, in the order of its
tests. A clone is a host with everything that the other one's disk has of the agent, on hardware of its own."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from lab import Host
from tests.integration.collection_site import Site, site
from tests.waiting import until

pytestmark = pytest.mark.hosts
HOSTS = ["web01", "web02", "web03"]
SITE, SEAL, UNIQUE = "hawser.machine.site", "hawser.machine.seal", "hawser.machine.verify_unique"
STATE = "var/opt/azcmagent"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site"), HOSTS) as made:
        yield made


@pytest.fixture(scope="module")
def token(ground: Site) -> str:
    """Of the profile `web`, whose machines join the group of the fleet."""
    options = (
        "--subscription",
        ground.hub.subscription_id,
        "-g",
        "servers",
        "--location",
        "local",
        "--tag",
        "by=image",
    )
    ground.hub.run("profiles", "set", "web", *options)
    made: dict[str, Any] = ground.hub.json("profiles", "token", "web", "--uses", "1", "--days", "1", "--image", "web-1")
    return str(made["token"])


def role(name: str) -> list[dict[str, Any]]:
    return [{"ansible.builtin.include_role": {"name": f"hawser.machine.{name}"}}]


def shown(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.run(["azcmagent", "show", "--json"], check=False).output)
    return found


def clone(original: Host, host: Host) -> None:
    """Put the agent's part of one host's disk on another host, which boots with it."""
    host.run(["systemctl", "stop", "himdsd", "gcad", "extd"])
    host.run(["sh", "-c", f"rm -rf /{STATE} /var/lib/GuestConfig"])
    packed = original.run(
        ["sh", "-c", f"tar -C / --numeric-owner -czf - {STATE} var/lib/GuestConfig etc/machine-id | base64"]
    )
    host.write("/root/disk.b64", packed.output, mode=0o600)
    # Accounts of two hosts that were made alike have the same numbers.
    host.run(["sh", "-c", "base64 -d /root/disk.b64 | tar -C / --numeric-owner -xzf -"])
    host.run(["rm", "/root/disk.b64"])
    host.run(["systemctl", "start", "himdsd", "gcad", "extd"])


def test_a_fleet_of_its_own_is_unique(ground: Site) -> None:
    run = ground.play(SITE)
    assert run.code == 0, run.output
    unique = ground.play(UNIQUE)
    assert unique.code == 0, unique.output
    assert all(unique.changed(name) == 0 for name in HOSTS)


def test_a_connected_host_is_not_sealed_without_force(ground: Site) -> None:
    run = ground.play(SEAL, "--limit", "web03", image_seal_image_id="web-1")
    assert run.code == 2
    assert "AZCM0027" in run.output
    assert shown(ground.lab.hosts["web03"])["identityState"] == "connected"


def test_a_clone_is_quarantined_named_and_healed_by_the_runbook(ground: Site) -> None:
    first, second = (ground.lab.hosts[name] for name in HOSTS[:2])
    gone = ground.play(
        [
            {
                "hawser.machine.connection": {
                    "state": "disconnected",
                    "cloud_profile": ground.variables["agent_cloud_profile"],
                }
            }
        ],
        "--limit",
        "web02",
    )
    assert gone.code == 0, gone.output
    clone(first, second)
    until(lambda: shown(second).get("identityState") == "quarantined", what=lambda: shown(second), seconds=60)
    assert shown(first)["identityState"] == "connected"
    (twin,) = ground.hub.json("twins")
    assert (twin["name"], twin["hostname"], twin["verdict"]) == ("web01", "web02", "clone")
    named = ground.play(UNIQUE, "--limit", "web01,web02")
    assert named.code == 2
    # The lab's hosts have the same disk but for the files that were copied: SSH host keys are their own.
    assert "web02 is quarantined, because its identity is that of web01 at the hub" in named.output
    assert "web01 and web02 share an identity (certificate, machine at the hub and machine id)" in named.output
    # The machine id is the operating system's, and whoever heals a clone draws another one.
    second.write("/etc/machine-id", f"{uuid.uuid4().hex}\n")
    broken = ground.play(role("reset_local"), "--limit", "web02", agent_location="nowhere")
    assert broken.code == 2, broken.output
    assert shown(second)["identityState"] == "disconnected"
    healed = ground.play(role("reset_local"))  # goes on where the run before has failed
    assert healed.code == 0, healed.output
    assert [healed.changed(name) > 0 for name in HOSTS] == [False, True, False]
    assert shown(second)["resourceName"] == "web02"
    assert shown(first)["status"] == "Connected"
    assert ground.play(UNIQUE).code == 0
    again = ground.play(role("reset_local"), reset_local_by_name="true")
    assert [again.changed(name) for name in HOSTS] == [0, 0, 0], "each has its own name"
    other = ground.play(role("reset_local"), "--limit", "web02", reset_local_by_name=True, agent_name="web02-new")
    assert (other.code, other.changed("web02") > 0) == (0, True), other.output
    assert shown(second)["resourceName"] == "web02-new"


def test_an_image_is_sealed_once_and_keeps_its_secret(ground: Site, token: str) -> None:
    wish: dict[str, Any] = {
        "image_seal_image_id": "web-1",
        "image_seal_profile": "web",
        "image_seal_token": token,
        "image_seal_force": True,
    }
    planned = ground.play(SEAL, "--limit", "web03", "--check", image_seal_preview="true", **wish)
    assert (planned.code, planned.changed("web03")) == (0, 1), planned.output
    assert "would clear  /var/opt/azcmagent/certs/identity-1.key" in planned.output
    assert shown(ground.lab.hosts["web03"])["identityState"] == "connected"
    run = ground.play(SEAL, "--limit", "web03", "-vvv", "--diff", **wish)
    assert run.code == 0, run.output
    assert token not in run.output
    assert run.changed("web03") == 1
    assert shown(ground.lab.hosts["web03"])["identityState"] == "sealed"
    again = ground.play(SEAL, "--limit", "web03", **{**wish, "image_seal_token": None})
    assert (again.code, again.changed("web03")) == (0, 0), again.output
    whole = ground.play(SEAL, "--limit", "web03", image_seal_check="all", **wish)
    assert whole.code == 2
    assert "machine id" in whole.output


def test_a_copy_joins_when_it_is_told_that_it_is_one(ground: Site) -> None:
    third = ground.lab.hosts["web03"]
    before = {machine["vmId"] for machine in ground.machines().values()}
    refused = ground.play(role("image_specialise"), "--limit", "web03")
    assert refused.code == 2
    assert "its evidence does not say that it is a copy" in refused.output
    planned = ground.play(role("image_specialise"), "--limit", "web03", "--check", image_specialise_is_copy=True)
    assert (planned.code, planned.changed("web03")) == (0, 1), planned.output
    assert shown(third)["identityState"] == "sealed"
    run = ground.play(role("image_specialise"), "--limit", "web03", image_specialise_is_copy=True)
    assert run.code == 0, run.output
    now = shown(third)
    assert now["identityState"] == "connected"
    assert now["vmId"] not in before
    assert now["resourceName"].startswith("web03-"), "the machine that was dropped by force still has the name"
    (image,) = ground.hub.json("images")
    assert (image["imageId"], image["joined"]) == ("web-1", 1)
    assert ground.machines()[now["resourceName"]]["tags"] == {"by": "image"}
    again = ground.play(role("image_specialise"), "--limit", "web03", "-vvv")
    assert again.commands(str(third.address)) == 1
    assert (again.code, again.changed("web03")) == (0, 0), again.output
    assert third.run(["test", "-e", f"/{STATE}/image.token"], check=False).code == 1
