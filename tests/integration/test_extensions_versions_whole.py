# SPDX-License-Identifier: Apache-2.0
"""Versions of an extension from end to end: a real hub and its operator's keys, the unmodified SDK, extd and its
workers on a real host. What goes well is there once and runs nothing twice; what must not be installed is nowhere."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from azure.core.exceptions import HttpResponseError
from azure.mgmt.hybridcompute import HybridComputeManagementClient

from control_plane.artefacts import package
from control_plane.operate import artefacts
from lab import Host, Lab
from tests.integration import artefact_site, extension_hosts, hub_process
from tests.integration.connected_host import connect, install
from tests.integration.extension_site import sdk
from tests.integration.hub_process import HubProcess
from tests.integration.test_collection_extensions import publish
from tests.waiting import until

pytestmark = pytest.mark.hosts

GROUP, NAME = "versions", "ext03"
ROOM = "/var/lib/waagent"
SETTINGS = {"commandToExecute": "echo once >>/root/ran"}
BROKEN = b"#!/bin/sh\necho 'this version is broken' >&2\nexit 9\n"


class Site(NamedTuple):
    """`packages`: those of ours, and the operator's keys in `keys` beside them."""

    hub: HubProcess
    host: Host
    client: HybridComputeManagementClient
    packages: Path

    def put(self, **properties: Any) -> Any:
        """Wish for an extension and wait for its outcome. Errors: HttpResponseError."""
        return extension_hosts.put(self.client, GROUP, NAME, "setup", **properties)

    def refused(self, **properties: Any) -> tuple[str | None, str]:
        """Code and message of a wish that fails, as its operation and as the resource tell it alike."""
        with pytest.raises(HttpResponseError) as failed:
            self.put(**properties)
        shown = self.shown()
        assert shown.provisioning_state == "Failed"
        code, message = extension_hosts.failure(failed.value)
        assert (shown.instance_view.status.code, shown.instance_view.status.message) == (code, message)
        return code, message

    def shown(self) -> Any:
        """Properties of the extension."""
        return self.client.machine_extensions.get(GROUP, NAME, "setup").properties

    def remove(self) -> None:
        """Until it has gone, and its handler with it."""
        self.client.machine_extensions.begin_delete(GROUP, NAME, "setup").result(120)
        assert self.handlers() == []

    def handlers(self) -> list[str]:
        """Folders of handlers on the host, what is half unpacked too."""
        names = self.host.run(["ls", "-A", ROOM]).output.split()
        return sorted(name for name in names if not name.endswith((".crt", ".prv")) and name != "events")

    def script(self) -> Path:
        """Our package."""
        return self.packages / "Hawser.CustomScript_1.0.0_linux.zip"

    def offer(self, *packages: Path) -> None:
        """Publish as the operator does."""
        self.hub.publish(self.packages / "keys", *packages)

    def offer_unseen(self, path: Path, kind: str) -> str:
        """Sign and publish a package that `artefacts add` would not take; its path among the targets."""
        content = path.read_bytes()
        found = package.Package(
            "Test", kind, "1.0.0", "linux", "any", False, len(content), hashlib.sha256(content).hexdigest()
        )
        artefacts.add(self.hub.data, path, found)
        self.offer()
        return found.target


@pytest.fixture(scope="module")
def site(make_lab: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory, agent_deb: Path) -> Iterator[Site]:
    """A hub with our own packages in its repository, and a connected host."""
    lab = make_lab(NAME)
    hub = hub_process.make(tmp_path_factory.mktemp("hub") / "data", "--location", "local", host=str(lab.gateway))
    hub.start()
    packages = tmp_path_factory.mktemp("packages")
    publish(hub, packages)
    owner = hub.principal("owner", "Owner")
    install(lab.hosts[NAME], agent_deb)
    connect(lab.hosts[NAME], hub, owner, GROUP)
    with sdk(hub, owner) as client:
        yield Site(hub, lab.hosts[NAME], client, packages)
    assert hub.stop() == 0


@pytest.fixture(autouse=True)
def removed(site: Site) -> Iterator[None]:
    """A test that failed leaves its extension to no other."""
    yield
    site.client.machine_extensions.begin_delete(GROUP, NAME, "setup").result(120)


def ran(site: Site) -> int:
    return len(site.host.run(["cat", "/root/ran"]).output.split())


def memory(site: Site, version: str) -> int:
    """The sequence number that the handler carried out last."""
    return int(site.host.run(["cat", f"{ROOM}/Hawser.CustomScript-{version}/mrseq"]).output)


def test_another_version_takes_the_place_of_the_one_before(site: Site) -> None:
    site.offer(extension_hosts.as_version(site.script(), "1.0.1"))
    site.host.run(["rm", "-f", "/root/ran"])
    site.put(settings=SETTINGS)
    assert site.handlers() == ["Hawser.CustomScript-1.0.0"]
    for version, tag, number in (("1.0.1", None, 0), ("1.0.1", "again", 1), ("1.0.0", None, 1), ("1.0.1", None, 1)):
        more = {"force_update_tag": tag} if tag else {}
        made = site.put(type_handler_version=version, settings=SETTINGS, **more)
        assert (made.provisioning_state, made.type_handler_version) == ("Succeeded", version)
        assert made.instance_view.type_handler_version == version
        assert site.handlers() == [f"Hawser.CustomScript-{version}"], "of one version, whichever way it goes"
        # The memory goes along with the version, up and down, so that no number runs twice.
        assert (memory(site, version), ran(site)) == (number, number + 1)
    downloads = site.host.run(["ls", "/opt/GC_Ext/downloads"]).output.split()
    assert [name for name in downloads if "CustomScript" in name] == ["Hawser.CustomScript-1.0.1-linux.zip"]
    site.remove()


def test_an_automatic_upgrade_that_fails_comes_back_by_itself(site: Site) -> None:
    site.host.run(["rm", "-f", "/root/ran"])
    site.put(type_handler_version="1.0.1", settings=SETTINGS, enable_automatic_upgrade=True)
    generation = site.hub.rows("SELECT generation FROM extensions")[0][0]
    broken = extension_hosts.as_version(site.script(), "1.0.2", {"broken.sh": BROKEN}, enableCommand="broken.sh enable")
    site.offer(broken)

    def back() -> bool:
        ((now, rollback_to),) = site.hub.rows("SELECT generation, rollback_to FROM extensions")
        # One generation wishes for the new version, another one for the former again.
        return bool(now >= generation + 2 and rollback_to is None and site.shown().provisioning_state == "Succeeded")

    until(back, lambda: site.shown().as_dict(), seconds=120, pause=1)
    log = site.host.read("/var/lib/GuestConfig/ext_mgr_logs/gc_ext.log").decode()
    assert "Hawser.CustomScript 1.0.2 has failed; going back to 1.0.1" in log
    assert "this version is broken" in log
    shown = site.shown()
    assert (shown.type_handler_version, shown.instance_view.type_handler_version) == ("1.0.1", "1.0.1")
    assert site.handlers() == ["Hawser.CustomScript-1.0.1"]
    assert (memory(site, "1.0.1"), ran(site)) == (0, 1), "what had run is not run again on the way back"

    site.offer(extension_hosts.as_version(site.script(), "1.0.3"))
    until(lambda: site.shown().instance_view.type_handler_version == "1.0.3", seconds=120, pause=1)
    until(lambda: site.shown().provisioning_state == "Succeeded", seconds=60, pause=1)
    assert site.handlers() == ["Hawser.CustomScript-1.0.3"]
    assert (memory(site, "1.0.3"), ran(site)) == (0, 1)
    site.remove()


def evil(path: Path, name: str) -> Path:
    """A package whose manifest is in order, and which has one more entry."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("HandlerManifest.json", artefact_site.manifest("1.0.0", path.stem))
        made.writestr("run.sh", "#!/bin/sh\necho evil >/root/evil-ran\n")
        made.writestr(name, "evil-content\n")
    return path


def test_a_package_that_leads_out_of_its_folder_is_signed_in_vain(site: Site, tmp_path: Path) -> None:
    path = evil(tmp_path / "Traversal.zip", "../../../root/evil")
    assert site.hub.run("artefacts", "add", path, check=False).returncode == 1, "the honest hub does not take it"
    site.offer_unseen(path, "Traversal")
    code, message = site.refused(publisher="Test", type="Traversal", settings={})
    assert code == "1005"
    assert message == (
        "the package Test.Traversal-1.0.0-linux.zip has an entry that would leave its folder: '../../../root/evil'. "
        "Have the package built anew, as a higher version"
    )
    assert site.handlers() == []
    for left in ("/root/evil", "/root/evil-ran", "/evil", f"{ROOM}/root"):
        assert site.host.run(["test", "-e", left], check=False).code == 1
    assert extension_hosts.places_of(site.host, "evil-content") == []
    # It stands in the way of nothing else.
    site.remove()
    assert site.put(settings={"commandToExecute": "true"}).provisioning_state == "Succeeded"
    site.remove()


def test_a_package_that_was_altered_after_signing_is_refused(site: Site, tmp_path: Path) -> None:
    target = site.offer_unseen(evil(tmp_path / "Altered.zip", "more"), "Altered")
    above, _, last = target.rpartition("/")
    (file,) = (site.hub.data / "artefacts/targets" / above).glob(f"*.{last}")
    signed = file.read_bytes()
    file.write_bytes(signed.replace(b"HandlerManifest.json", b"handlerManifest.json"))
    code, message = site.refused(publisher="Test", type="Altered", settings={})
    url = f"{site.hub.url}/artefacts/targets/{above}/{file.name}"
    assert (code, message) == (
        "1004",
        f"{url} is not the package that was signed: its SHA-256 is another one. Publish the package again at the hub",
    )
    assert site.handlers() == []
    assert "Altered" not in site.host.run(["ls", "-A", "/opt/GC_Ext/downloads"]).output
    site.remove()
    assert site.put(settings={"commandToExecute": "true"}).provisioning_state == "Succeeded"
    site.remove()


def test_a_folder_where_nothing_can_be_run_is_named(site: Site) -> None:
    site.host.run(["mount", "-t", "tmpfs", "-o", "noexec", "tmpfs", ROOM])
    try:
        code, message = site.refused(settings={"commandToExecute": "true"})
        assert code == "64"
        assert message == (
            f"{ROOM} is on a file system that is mounted noexec, where no handler can run. Mount it with exec, or give "
            f"{ROOM} a file system of its own"
        )
        assert site.host.run(["ls", "-A", ROOM]).output == ""
    finally:
        site.host.run(["umount", ROOM])
    assert site.put(settings={"commandToExecute": "true"}).provisioning_state == "Succeeded"
    site.remove()
