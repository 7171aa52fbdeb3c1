# SPDX-License-Identifier: Apache-2.0
"""extd under a real systemd: commands in services and slices of their own, which outlive a restart of the agent
(extension-handler.md sections 7 and 19). The host is connected and its hub away: desired state is there already, and
packages come from a folder; everything else is what the deb brings."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lab import Host, Lab
from tests.integration import hub_process
from tests.integration.connected_host import connect, install, show
from tests.unit.agent_extensions.kit import COMMANDS, command, wish
from tests.unit.agent_services.courier import sign
from tests.waiting import until

pytestmark = pytest.mark.hosts

SLICE = "hawser-extensions-Test.Fake.slice"
PROGRAM = Path(__file__).resolve().parents[1] / "unit/agent_extensions/extd.py"
HANDLER = """#!/bin/sh
echo "$1" >>/root/calls
cat /proc/self/cgroup >/root/cgroup-$1
[ "$1" != install ] || {
    sleep 1000 &
    echo $! >/root/sleeper
    touch /tmp/from-the-handler
    until [ -e /root/go ]; do sleep 0.1; done
}
[ "$1" != enable ] || echo '[{"status": {"status": "success"}}]' >status/$ConfigSequenceNumber.status
"""


def package() -> bytes:
    made = io.BytesIO()
    commands = {f"{name}Command": f"handler.sh {name}" for name in COMMANDS}
    limits = {
        "cpuQuotaPercentage": 20,
        "memoryQuotaInMB": 200,
        "services": [{"name": "himdsd", "cpuQuotaPercentage": 50}],
    }
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("handler.sh", HANDLER)
        body = [{"handlerManifest": commands, "resourceLimits": limits}]
        archive.writestr("HandlerManifest.json", json.dumps(body))
    return made.getvalue()


def until_says(host: Host, argv: list[str], wanted: str) -> str:
    def output() -> str:
        return str(host.run(argv, check=False).output)

    def told() -> str:
        log = host.run(["tail", "/var/lib/GuestConfig/ext_mgr_logs/gc_ext.log"], check=False).output
        return f"{argv} did not say {wanted!r}: {output()}; {log}"

    return str(until(lambda: wanted in (found := output()) and found, told, pause=0.3, seconds=60))


@dataclass(frozen=True)
class Site:
    """A connected host whose hub is away, and its vmId."""

    host: Host
    vm_id: str

    def wish(self, kind: str, **content: Any) -> None:
        """Desired state of a kind, as if the hub had sent it before it went."""
        body = {**content, "certificates": {}}
        document = sign(Ed25519PrivateKey.generate(), machine=self.vm_id, kind=kind, content=body)
        self.host.run(["mkdir", "-p", "/var/lib/GuestConfig/extensions/desired"])
        self.host.write(f"/var/lib/GuestConfig/extensions/desired/{kind}.jws", document)


@pytest.fixture(scope="module")
def site(make_lab: Callable[..., Lab], agent_deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    lab = make_lab("ext01")
    host = lab.hosts["ext01"]
    install(host, agent_deb)
    data = tmp_path_factory.mktemp("extensions-hub") / "data"
    hub = hub_process.make(data, "--location", "local=Laboratory", host=str(lab.gateway))
    hub.start()
    hub.add_repository(keys := data.with_name("keys"))
    hub.publish(keys, agent_deb)
    connect(host, hub, hub.principal("owner", "Owner"), "extensions")
    assert hub.stop() == 0
    host.run(["systemctl", "stop", "extd"])
    # At this place the program finds the installed agent's modules.
    host.run(["mkdir", "-p", "/opt/azcmagent/lib/a/b/c", "/repo/extensions/Test.Fake/1.0.0"])
    host.copy(PROGRAM, "/opt/azcmagent/lib/a/b/c/extd.py")
    custom = {
        "kind": "extension",
        "publisher": "Test",
        "type": "Fake",
        "version": "1.0.0",
        "os": "linux",
        "arch": "any",
    }
    host.write("/repo/extensions/Test.Fake/1.0.0/linux.zip", package())
    host.write("/repo/extensions/Test.Fake/1.0.0/custom.json", json.dumps(custom))
    site = Site(host, show(host)["vmId"])
    site.wish("extensions", extensions=[wish()])
    dropin = "[Service]\nExecStart=\nExecStart=/usr/bin/python3 /opt/azcmagent/lib/a/b/c/extd.py\n"
    host.run(["mkdir", "-p", "/etc/systemd/system/extd.service.d"])
    host.write("/etc/systemd/system/extd.service.d/test.conf", dropin)
    host.run(["systemctl", "daemon-reload"])
    return site


def test_an_extension_outlives_the_service_in_a_slice_of_its_own(site: Site) -> None:
    host = site.host
    host.run(["systemctl", "start", "extd"])
    until_says(host, ["cat", "/root/calls"], "install")
    assert f"/{SLICE}/hawser-extension-" in until_says(host, ["cat", "/root/cgroup-install"], ".service")
    # The service's own /tmp is none of the handler's.
    until_says(host, ["ls", "/tmp"], "from-the-handler")
    host.run(["systemctl", "restart", "extd"])
    sleeper = host.run(["cat", "/root/sleeper"]).output.strip()
    host.run(["kill", "-0", sleeper])
    host.kill("extd")
    host.run(["touch", "/root/go"])
    until_says(host, ["cat", "/var/lib/GuestConfig/extensions/handlers.json"], '"state": "succeeded"')
    assert host.run(["cat", "/root/calls"]).output.split() == ["install", "enable"]
    # What install left behind lives on, where its limits hold.
    host.run(["kill", "-0", sleeper])
    assert SLICE in host.run(["cat", f"/proc/{sleeper}/cgroup"]).output
    shown = host.run(["systemctl", "show", "extd", "-p", "CPUQuotaPerSecUSec", "-p", "Slice"]).output.split()
    assert sorted(shown) == ["CPUQuotaPerSecUSec=300ms", "Slice=hawser-extensions.slice"]
    shown = host.run(["systemctl", "show", SLICE, "-p", "CPUQuotaPerSecUSec", "-p", "MemoryMax"]).output.split()
    assert shown == ["CPUQuotaPerSecUSec=200ms", f"MemoryMax={200 * 1024 * 1024}"]
    assert (
        host.run(["systemctl", "show", "himdsd", "-p", "CPUQuotaPerSecUSec"]).output.strip()
        == "CPUQuotaPerSecUSec=500ms"
    )


def test_a_run_command_is_a_service_that_its_removal_ends_with_all_that_it_has_started(site: Site) -> None:
    host = site.host
    script = """cat /proc/self/cgroup >/root/cgroup-command
setsid sleep 1000 &
echo $! >/root/escaped
echo ran >>/root/commands
sleep 1000
"""
    long, short = command(script, "long"), command("#!/bin/bash\nid -un", "short", runAsUser="nobody")
    site.wish("runcommands", runCommands=[long, short])
    host.run(["systemctl", "restart", "extd"])
    assert "hawser-extensions-Microsoft.CPlat.Core.RunCommandHandlerLinux.slice/hawser-command-" in until_says(
        host, ["cat", "/root/cgroup-command"], ".service"
    )
    known = ["cat", "/var/lib/GuestConfig/extensions/runcommands.json"]
    assert '"executionState": "Running"' in until_says(host, known, '"output": "nobody\\n"')
    host.kill("extd")
    sleeper = until_says(host, ["cat", "/root/escaped"], "\n").strip()
    host.run(["kill", "-0", sleeper])
    site.wish("runcommands", runCommands=[])
    host.run(["systemctl", "restart", "extd"])
    until_says(host, known, '"commands": {}')
    assert host.run(["kill", "-0", sleeper], check=False).code != 0
    assert host.run(["cat", "/root/commands"]).output.split() == ["ran"]
    assert host.run(["ls", "/var/lib/GuestConfig/extensions/commands"]).output == ""


def test_its_removal_lifts_the_limits(site: Site) -> None:
    host = site.host
    host.run(["systemctl", "stop", "extd"])
    assert "Fake" in host.run(["azcmagent", "extension", "list"]).output
    assert host.run(["azcmagent", "extension", "remove", "--all"]).output.strip() == "Removed: Fake"
    shown = host.run(["systemctl", "show", SLICE, "-p", "CPUQuotaPerSecUSec", "-p", "MemoryMax"]).output.split()
    assert shown == ["CPUQuotaPerSecUSec=infinity", "MemoryMax=infinity"]
    assert host.run(["cat", "/root/calls"]).output.split()[-2:] == ["disable", "uninstall"]
