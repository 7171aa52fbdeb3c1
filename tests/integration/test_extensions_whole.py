# SPDX-License-Identifier: Apache-2.0
"""Extensions from end to end: an operator publishes packages, the unmodified SDK asks for them, a real host installs
them out of the hub's repository, and what became of it is read where people read it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.identity import ClientSecretCredential
from azure.mgmt.hybridcompute import HybridComputeManagementClient
from azure.mgmt.hybridcompute.models import MachineExtension, MachineExtensionProperties

from lab import Host, Lab
from tests.conftest import LabHosts
from tests.integration import hub_process
from tests.integration.connected_host import connect, install
from tests.integration.test_collection_extensions import publish

pytestmark = pytest.mark.hosts

GROUP, NAME = "extended", "ext02"
HANDLER = "/var/lib/waagent/Hawser.CustomScript-1.0.0"


@pytest.fixture(scope="module")
def site(make_lab: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHosts]:
    """A hub with our own packages in its repository, and a host that reaches it."""
    lab = make_lab(NAME)
    data = tmp_path_factory.mktemp("hub") / "data"
    hub = hub_process.make(data, "--location", "local", host=str(lab.gateway))
    hub.listen = hub.url.removeprefix("https://")
    hub.start()
    publish(hub, tmp_path_factory.mktemp("packages"))
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


def put(client: HybridComputeManagementClient, **properties: Any) -> MachineExtension:
    wanted = {"publisher": "Hawser", "type": "CustomScript", "type_handler_version": "1.0.0", **properties}
    extension = MachineExtension(location="local", properties=MachineExtensionProperties(**wanted))
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            return client.machine_extensions.begin_create_or_update(GROUP, NAME, "setup", extension).result(120)
        except ResourceExistsError as early:
            # Right after connecting the machine's extension service may still be making its key.
            if "SettingsCertificateMissing" not in str(early):
                raise
            time.sleep(1)
    return client.machine_extensions.begin_create_or_update(GROUP, NAME, "setup", extension).result(120)


def test_an_extension_is_installed_changed_and_removed(client: HybridComputeManagementClient, host: Host) -> None:
    made = put(client, settings={"commandToExecute": "echo first >>/root/ran; hostname"})
    assert made.properties is not None
    assert made.properties.provisioning_state == "Succeeded"
    view = made.properties.instance_view
    assert view is not None
    assert view.status is not None
    assert NAME in str(view.status.message)
    assert host.run(["cat", "/root/ran"]).output.split() == ["first"]
    assert host.run(["stat", "--format=%U %a", HANDLER]).output.split() == ["root", "700"]

    secret = "hush-hush-end-to-end"
    put(client, settings={}, protected_settings={"commandToExecute": f"echo {secret} | sha256sum >>/root/secret"})
    assert len(host.run(["cat", "/root/secret"]).output.split()[0]) == 64
    kept = host.run(
        ["grep", "-rl", secret, "/var/lib/waagent", "/var/lib/GuestConfig", "/var/opt/azcmagent"], check=False
    )
    assert kept.output.split() == [], "nowhere in clear"
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


def test_the_machines_owner_has_the_last_word(client: HybridComputeManagementClient, host: Host) -> None:
    host.run(["azcmagent", "config", "set", "extensions.blocklist", "Hawser/CustomScript"])
    try:
        with pytest.raises(HttpResponseError) as refused:
            put(client, settings={"commandToExecute": "touch /root/refused"})
        assert "list" in str(refused.value)
        assert host.run(["test", "-e", "/root/refused"], check=False).code != 0
    finally:
        host.run(["azcmagent", "config", "clear", "extensions.blocklist"])
    end = time.monotonic() + 60
    while client.machine_extensions.get(GROUP, NAME, "setup").properties.provisioning_state != "Succeeded":  # type: ignore[union-attr]
        assert time.monotonic() < end
        time.sleep(0.5)
    client.machine_extensions.begin_delete(GROUP, NAME, "setup").result(120)
