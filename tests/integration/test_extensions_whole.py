# SPDX-License-Identifier: Apache-2.0
"""Extensions from end to end: an operator publishes packages, the unmodified SDK asks for them, a real host installs
them out of the hub's repository, and what became of it is read where people read it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import ClientSecretCredential
from azure.mgmt.hybridcompute import HybridComputeManagementClient
from azure.mgmt.hybridcompute.models import MachineExtensionProperties

from lab import Host, Lab
from tests.conftest import LabHosts
from tests.integration import extension_hosts, hub_process
from tests.integration.connected_host import connect, install
from tests.integration.test_collection_extensions import publish
from tests.unit.agent_extensions.kit import COMMANDS
from tests.waiting import until

pytestmark = pytest.mark.hosts

GROUP, NAME = "extended", "ext02"
HANDLER = "/var/lib/waagent/Hawser.CustomScript-1.0.0"
# A handler that behaves as its public setting `way` says; paths of commands as they are met in real manifests.
DIFFICULT = """#!/bin/sh
cd "$(dirname "$0")" || exit 1
status=status/$ConfigSequenceNumber.status
say() {
    message='"formattedMessage": {"lang": "en", "message": "'$2'"}'
    printf '[{"timestampUTC": "2026-01-01T00:00:00Z", "status": {"status": "%s", "code": 0, %s}}]' "$1" "$message"
}
if [ "$1" = uninstall ]; then rm -rf "$PWD"; fi
[ "$1" = enable ] || exit 0
case $(sed -n 's/.*"way": *"\\([a-z]*\\)".*/\\1/p' "config/$ConfigSequenceNumber.settings") in
child) sleep 77777 & say success child >$status ;;
scrub) : >"config/$ConfigSequenceNumber.settings"; say success scrubbed >$status ;;
late) (sleep 2; say success half | head -c 60 >$status; sleep 2; say success late >$status) & ;;
half) say success half | head -c 60 >$status ;;
huge) say success "$(head -c 5000000 /dev/zero | tr '\\0' x)" >$status ;;
word) say Failed unknown >$status ;;
gone) say success gone >$status; rm -rf "$PWD" ;;
esac
exit 0
"""


def difficult(package: Path) -> None:
    """Makes its package, with a byte-order mark and words for booleans, and no executable file."""
    commands = {f"{verb}Command": f"/handler.sh  {verb}" for verb in COMMANDS}
    body = [
        {
            "handlerManifest": {**commands, "reportHeartbeat": "False", "updateMode": "updatewithinstall"},
            "signingInfo": {"publisher": "Test", "type": "Difficult", "version": "1.0.0"},
        }
    ]
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("handler.sh", DIFFICULT)
        archive.writestr("HandlerManifest.json", json.dumps(body).encode("utf-8-sig"))


@pytest.fixture(scope="module")
def site(make_lab: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHosts]:
    """A hub with our own packages in its repository, and a host that reaches it."""
    lab = make_lab(NAME)
    data = tmp_path_factory.mktemp("hub") / "data"
    hub = hub_process.make(data, "--location", "local", host=str(lab.gateway))
    hub.start()
    package = tmp_path_factory.mktemp("difficult") / "Test.Difficult_1.0.0_linux.zip"
    difficult(package)
    publish(hub, tmp_path_factory.mktemp("packages"), package)
    yield LabHosts(lab, hub)
    assert hub.stop() == 0


@pytest.fixture(scope="module")
def client(site: LabHosts, agent_deb: Path) -> Iterator[HybridComputeManagementClient]:
    """The SDK, once the host is connected."""
    hub = site.hub
    owner = hub.principal("owner", "Owner")
    install(site.hosts[0], agent_deb)
    connect(site.hosts[0], hub, owner, GROUP)
    credential = ClientSecretCredential(
        hub.tenant_id,
        owner["clientId"],
        owner["clientSecret"],
        authority=hub.url,
        disable_instance_discovery=True,
        connection_verify=hub.ca_file,
    )
    options: Any = {"base_url": hub.url, "connection_verify": hub.ca_file}
    with HybridComputeManagementClient(credential, hub.subscription_id, **options) as made:
        yield made


@pytest.fixture
def host(site: LabHosts, client: HybridComputeManagementClient) -> Host:
    return site.hosts[0]


def put(client: HybridComputeManagementClient, **properties: Any) -> MachineExtensionProperties:
    return extension_hosts.put(client, GROUP, NAME, "setup", **properties)


def test_an_extension_is_installed_changed_and_removed(client: HybridComputeManagementClient, host: Host) -> None:
    made = put(client, settings={"commandToExecute": "echo first >>/root/ran; hostname"})
    assert made.provisioning_state == "Succeeded"
    view = made.instance_view
    assert view is not None
    assert view.status is not None
    assert NAME in str(view.status.message)
    assert host.run(["cat", "/root/ran"]).output.split() == ["first"]
    assert host.run(["stat", "--format=%U %a", HANDLER]).output.split() == ["root", "700"]

    secret = "hush-hush-end-to-end"
    put(client, settings={}, protected_settings={"commandToExecute": f"echo {secret} | sha256sum >>/root/secret"})
    assert len(host.run(["cat", "/root/secret"]).output.split()[0]) == 64
    assert extension_hosts.places_of(host, secret) == [], "nowhere in clear"
    host.run(["logger", f"{secret} of somebody else"])
    host.write("/etc/of-somebody", secret)
    assert {"./etc/of-somebody", "journal"} <= set(extension_hosts.places_of(host, secret)), "it finds what is there"
    host.run(["rm", "/etc/of-somebody"])
    assert host.run(["cat", "/root/ran"]).output.split() == ["first"], "the former settings are not run again"

    listed = json.loads(host.run(["azcmagent", "extension", "list", "--json"]).output)
    assert "CustomScript" in json.dumps(listed)

    host.run(["systemctl", "restart", "extd"])
    client.machine_extensions.begin_delete(GROUP, NAME, "setup").result(120)
    with pytest.raises(ResourceNotFoundError):
        client.machine_extensions.get(GROUP, NAME, "setup")
    assert host.run(["test", "-e", HANDLER], check=False).code != 0


def test_a_script_that_fails_says_how(client: HybridComputeManagementClient, host: Host) -> None:
    with pytest.raises(HttpResponseError) as failed:
        put(client, settings={"commandToExecute": "echo what went wrong >&2; exit 7"})
    assert "what went wrong" in str(failed.value)
    client.machine_extensions.begin_delete(GROUP, NAME, "setup").result(120)


def test_difficult_handlers_are_told_in_one_sentence_each(client: HybridComputeManagementClient, host: Host) -> None:
    def told(way: str) -> tuple[str | None, str]:
        try:
            made = put(client, publisher="Test", type="Difficult", settings={"way": way})
        except HttpResponseError as failed:
            return (failed.error.code, str(failed.error.message)) if failed.error else (None, str(failed))
        assert made.instance_view is not None
        assert made.instance_view.status is not None
        return made.provisioning_state, str(made.instance_view.status.message)

    assert told("child") == ("Succeeded", "child")
    assert told("scrub") == ("Succeeded", "scrubbed")
    assert told("late") == ("Succeeded", "late")
    assert told("word") == ("ExtensionFailed", "unknown")
    assert told("half") == ("1012", "the handler's status file cannot be used: the status file is not JSON")
    code, message = told("huge")
    assert code == "-1"
    assert "is longer than 4194304 bytes" in message
    assert told("gone") == ("1002", "enable of Test.Difficult 1.0.0 has removed its own files")
    assert told("child") == ("Succeeded", "child")
    client.machine_extensions.begin_delete(GROUP, NAME, "setup").result(120)
    left = host.run(["ls", "/var/lib/waagent", "/opt/GC_Ext/downloads"]).output
    assert "Difficult" not in left
    assert host.run(["systemctl", "is-active", "extd"]).output.strip() == "active"


def test_on_a_full_disk_nothing_is_half_installed(client: HybridComputeManagementClient, host: Host) -> None:
    host.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", "/var/lib/waagent"])
    try:
        with pytest.raises(HttpResponseError) as failed:
            put(client, settings={"commandToExecute": "echo room"})
        assert failed.value.error is not None
        assert failed.value.error.code == "1005"
        assert "are free" in str(failed.value)
        assert host.run(["ls", "-A", "/var/lib/waagent"]).output == ""
    finally:
        host.run(["umount", "/var/lib/waagent"])
    made = put(client, settings={"commandToExecute": "echo room"})
    assert made.provisioning_state == "Succeeded"
    client.machine_extensions.begin_delete(GROUP, NAME, "setup").result(120)


def test_a_lock_of_the_package_manager_is_named(client: HybridComputeManagementClient, host: Host) -> None:
    lock = "/var/lib/dpkg/lock-frontend"
    hold = f"import fcntl, time; f = open('{lock}', 'w'); fcntl.lockf(f, fcntl.LOCK_EX); time.sleep(600)"
    host.run(["systemd-run", "--unit=holder", "python3", "-c", hold])
    try:
        with pytest.raises(HttpResponseError) as failed:
            put(client, settings={"commandToExecute": "apt-get install --yes --reinstall hostname"})
        assert f"Could not get lock {lock}" in str(failed.value)
    finally:
        host.run(["systemctl", "stop", "holder"])
    client.machine_extensions.begin_delete(GROUP, NAME, "setup").result(120)


def test_the_machines_owner_has_the_last_word(client: HybridComputeManagementClient, host: Host) -> None:
    host.run(["azcmagent", "config", "set", "extensions.blocklist", "Hawser/CustomScript"])
    try:
        with pytest.raises(HttpResponseError) as refused:
            put(client, settings={"commandToExecute": "touch /root/refused"})
        reason = "Hawser/CustomScript is in extensions.blocklist of this machine"
        assert extension_hosts.failure(refused.value) == ("1000", reason)
        assert host.run(["test", "-e", "/root/refused"], check=False).code != 0
    finally:
        host.run(["azcmagent", "config", "clear", "extensions.blocklist"])

    def allowed() -> bool:
        properties = client.machine_extensions.get(GROUP, NAME, "setup").properties
        assert properties is not None
        return properties.provisioning_state == "Succeeded"

    until(allowed, what="the extension to be allowed again", seconds=60)
    client.machine_extensions.begin_delete(GROUP, NAME, "setup").result(120)
