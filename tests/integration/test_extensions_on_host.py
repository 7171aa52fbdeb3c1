# SPDX-License-Identifier: Apache-2.0
"""extd under a real systemd: commands in services and slices of their own, which outlive a restart of the agent
(extension-handler.md sections 7 and 19). Packages come from a folder; everything else is what the deb brings."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lab import Host, Lab
from tests.integration.connected_host import install
from tests.unit.agent_extensions.kit import COMMANDS, command, wish
from tests.unit.agent_services.courier import VM_ID, sign

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


def until(host: Host, argv: list[str], wanted: str) -> str:
    end = time.monotonic() + 60
    output = ""
    while time.monotonic() < end:
        output = host.run(argv, check=False).output
        if wanted in output:
            return output
        time.sleep(0.3)
    raise AssertionError(
        f"{argv} did not say {wanted!r}: {output}; {host.run(['cat', '/root/calls'], check=False).output}"
    )


@pytest.fixture(scope="module")
def host(make_lab: Callable[..., Lab], agent_deb: Path) -> Host:
    host = make_lab("ext01").hosts["ext01"]
    install(host, agent_deb)
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
    binding = {"v": 1, "vmId": VM_ID, "cloud": "demo", "resourceId": "/r", "tenantId": VM_ID}
    host.write("/var/opt/azcmagent/binding.json", json.dumps(binding))
    profile = {"name": "demo", "desired_state_keys": [], "tuf_root": "{}", "artefacts": ["https://hub.test/a"]}
    host.write("/var/opt/azcmagent/clouds/demo.json", json.dumps(profile))
    give(host, wish())
    dropin = "[Service]\nExecStart=\nExecStart=/usr/bin/python3 /opt/azcmagent/lib/a/b/c/extd.py\n"
    host.run(["mkdir", "-p", "/etc/systemd/system/extd.service.d"])
    host.write("/etc/systemd/system/extd.service.d/test.conf", dropin)
    host.run(["systemctl", "daemon-reload"])
    return host


def give(host: Host, *extensions: dict[str, Any]) -> None:
    keep(host, "extensions", {"extensions": list(extensions), "certificates": {}})


def keep(host: Host, kind: str, content: dict[str, Any]) -> None:
    document = sign(Ed25519PrivateKey.generate(), kind=kind, content=content)
    host.run(["mkdir", "-p", "/var/lib/GuestConfig/extensions/desired"])
    host.write(f"/var/lib/GuestConfig/extensions/desired/{kind}.jws", document)


def test_an_extension_outlives_the_service_in_a_slice_of_its_own(host: Host) -> None:
    host.run(["systemctl", "start", "extd"])
    until(host, ["cat", "/root/calls"], "install")
    assert f"/{SLICE}/hawser-extension-" in until(host, ["cat", "/root/cgroup-install"], ".service")
    # The service's own /tmp is none of the handler's.
    until(host, ["ls", "/tmp"], "from-the-handler")
    host.run(["systemctl", "restart", "extd"])
    sleeper = host.run(["cat", "/root/sleeper"]).output.strip()
    host.run(["kill", "-0", sleeper])
    host.kill("extd")
    host.run(["touch", "/root/go"])
    until(host, ["cat", "/var/lib/GuestConfig/extensions/handlers.json"], '"state": "succeeded"')
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


def test_a_run_command_is_a_service_that_its_removal_ends_with_all_that_it_has_started(host: Host) -> None:
    script = """cat /proc/self/cgroup >/root/cgroup-command
setsid sleep 1000 &
echo $! >/root/escaped
echo ran >>/root/commands
sleep 1000
"""
    long, short = command(script, "long"), command("#!/bin/bash\nid -un", "short", runAsUser="nobody")
    keep(host, "runcommands", {"runCommands": [long, short], "certificates": {}})
    host.run(["systemctl", "restart", "extd"])
    assert "hawser-extensions-Microsoft.CPlat.Core.RunCommandHandlerLinux.slice/hawser-command-" in until(
        host, ["cat", "/root/cgroup-command"], ".service"
    )
    known = ["cat", "/var/lib/GuestConfig/extensions/runcommands.json"]
    assert '"executionState": "Running"' in until(host, known, '"output": "nobody\\n"')
    host.kill("extd")
    sleeper = until(host, ["cat", "/root/escaped"], "\n").strip()
    host.run(["kill", "-0", sleeper])
    keep(host, "runcommands", {"runCommands": [], "certificates": {}})
    host.run(["systemctl", "restart", "extd"])
    until(host, known, '"commands": {}')
    assert host.run(["kill", "-0", sleeper], check=False).code != 0
    assert host.run(["cat", "/root/commands"]).output.split() == ["ran"]
    assert host.run(["ls", "/var/lib/GuestConfig/extensions/commands"]).output == ""


def test_its_removal_lifts_the_limits(host: Host) -> None:
    host.run(["systemctl", "stop", "extd"])
    assert "Fake" in host.run(["azcmagent", "extension", "list"]).output
    assert host.run(["azcmagent", "extension", "remove", "--all"]).output.strip() == "Removed: Fake"
    shown = host.run(["systemctl", "show", SLICE, "-p", "CPUQuotaPerSecUSec", "-p", "MemoryMax"]).output.split()
    assert shown == ["CPUQuotaPerSecUSec=infinity", "MemoryMax=infinity"]
    assert host.run(["cat", "/root/calls"]).output.split()[-2:] == ["disable", "uninstall"]
