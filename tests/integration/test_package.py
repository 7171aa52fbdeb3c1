# SPDX-License-Identifier: Apache-2.0
"""The agent's deb on a real host: what it brings, how it upgrades, what it leaves.

Facts: agent-overview, 'Linux agent installation details'.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import Host, Lab

pytestmark = pytest.mark.hosts

UNITS = {
    "himdsd": ("himds", "Azure Connected Machine Agent Service"),
    "gcad": ("gc_linux_servic", "GC Arc Service"),  # the kernel keeps 15 characters of a process's name
    "extd": ("gc_linux_servic", "Extension Service"),
}
NEXT = "1.0.0.999"
# docs/protocol.md section 12
DIRECTORIES = {
    "/var/opt/azcmagent": "root:root 755",
    "/var/opt/azcmagent/clouds": "root:root 755",
    "/var/opt/azcmagent/state": "himds:himds 750",
    "/var/opt/azcmagent/certs": "himds:himds 700",
    "/var/opt/azcmagent/tokens": "himds:himds 750",
    "/var/opt/azcmagent/log": "himds:himds 755",
    "/var/opt/azcmagent/socks": "himds:himds 755",
    "/var/lib/GuestConfig": "root:root 755",
    "/var/lib/GuestConfig/arc_policy_logs": "root:root 750",
    "/var/lib/GuestConfig/ext_mgr_logs": "root:root 750",
    "/var/lib/GuestConfig/extension_logs": "root:root 750",
    "/var/lib/GuestConfig/policy": "root:root 700",
    "/var/lib/GuestConfig/extensions": "root:root 700",
}
IDENTITY = "IDENTITY_ENDPOINT=http://localhost:40342/metadata/identity/oauth2/token"
IMDS = "IMDS_ENDPOINT=http://localhost:40342"
LEFTOVERS = ("/var/opt/azcmagent", "/var/lib/GuestConfig")


@pytest.fixture(scope="module")
def fresh(make_lab: Callable[..., Lab]) -> Lab:
    return make_lab("deb01", "deb02")


@pytest.fixture(scope="module")
def host(fresh: Lab) -> Host:
    return fresh.hosts["deb01"]


@pytest.fixture(scope="module")
def files_before(host: Host) -> set[str]:
    return _files(host)


@pytest.fixture(scope="module")
def installed(host: Host, files_before: set[str], agent_deb: Path) -> Host:
    install(host, agent_deb)
    return host


def install(host: Host, deb: Path) -> str:
    """Install a package the way a role does; returns what was printed."""
    host.copy(deb, "/root/azcmagent.deb")
    done = host.run(["apt-get", "install", "--yes", "--allow-downgrades", "/root/azcmagent.deb"])
    host.run(["rm", "/root/azcmagent.deb"])
    return done.output + done.errors


def _files(host: Host) -> set[str]:
    """Every path of the host's disk but those that packages and systems keep for themselves."""
    skipped = [
        "/var/lib/dpkg",
        "/var/lib/apt",
        "/var/cache",
        "/var/log",
        "/run",
        "/tmp",
        "/var/tmp",
        "/root",
        "/var/lib/systemd",
    ]
    prune = [part for path in skipped for part in ("-path", path, "-o")][:-1]
    listed = host.run(["find", "/", "-xdev", "(", *prune, ")", "-prune", "-o", "-print"]).output
    return set(listed.splitlines())


def _property(host: Host, unit: str, name: str) -> str:
    return host.run(["systemctl", "show", f"--property={name}", "--value", unit]).output.strip()


def _pids(host: Host) -> dict[str, str]:
    return {unit: _property(host, unit, "MainPID") for unit in UNITS}


def test_services_run_under_the_documented_names(installed: Host) -> None:
    for unit, (process, description) in UNITS.items():
        assert _property(installed, unit, "ActiveState") == "active", unit
        assert _property(installed, unit, "UnitFileState") == "enabled", unit
        assert _property(installed, unit, "Description") == description
        pid = _property(installed, unit, "MainPID")
        assert installed.read(f"/proc/{pid}/comm").decode().strip() == process
        owner = "himds" if unit == "himdsd" else "root"
        assert installed.run(["stat", "-c", "%U", f"/proc/{pid}"]).output.strip() == owner
    assert all(_property(installed, unit, "NRestarts") == "0" for unit in UNITS)


def test_directories_have_their_owners_and_modes(installed: Host) -> None:
    shown = installed.run(["stat", "-c", "%n %U:%G %a", *DIRECTORIES]).output.splitlines()
    assert dict(line.split(" ", 1) for line in shown) == DIRECTORIES
    assert installed.run(["readlink", "/var/opt/azcmagent/agentconfig.json"]).output.strip() == "state/agentconfig.json"
    for program in ("/opt/azcmagent/bin/himds", "/opt/GC_Ext/downloads", "/opt/GC_Service", "/usr/bin/azcmagent"):
        installed.run(["test", "-e", program])


def test_services_started_afterwards_have_the_variables(installed: Host) -> None:
    shown = installed.run(["systemd-run", "--quiet", "--wait", "--pipe", "env"]).output.splitlines()
    assert {IDENTITY, IMDS} <= set(shown)
    # What extensions look for in the file: the whole assignment in double quotes, the closing one ends the line.
    text = installed.read("/lib/systemd/system.conf.d/azcmagent.conf").decode()
    assert re.findall(r'"IMDS_ENDPOINT=(.*)"\n', text) == ["http://localhost:40342"]


def test_python_finds_everything_compiled(installed: Host) -> None:
    sources = installed.run(["find", "/opt/azcmagent/lib", "-name", "*.py"]).output.split()
    compiled = installed.run(["find", "/opt/azcmagent/lib", "-name", "*.pyc"]).output.split()
    assert len(compiled) == len(sources) > 20


def test_an_upgrade_in_place_keeps_state_and_choices(
    installed: Host, build_agent: Callable[[str | None], Path], agent_deb: Path
) -> None:
    installed.write("/var/opt/azcmagent/clouds/kept.json", "{}")
    installed.run(["systemctl", "disable", "--now", "gcad"])
    before = _pids(installed)
    install(installed, build_agent(NEXT))
    assert installed.run(["azcmagent", "version"]).output.split()[-1] == NEXT
    after = _pids(installed)
    assert after["himdsd"] not in {before["himdsd"], "0"}
    assert after["extd"] not in {before["extd"], "0"}
    assert after["gcad"] == "0", "an upgrade starts what the operator has disabled"
    assert installed.read("/var/opt/azcmagent/clouds/kept.json") == b"{}"
    installed.run(["systemctl", "enable", "--now", "gcad"])
    install(installed, agent_deb)
    assert installed.run(["azcmagent", "version"]).output.split()[-1] != NEXT


def test_removing_leaves_the_two_directories(installed: Host, files_before: set[str], agent_deb: Path) -> None:
    installed.run(["apt-get", "remove", "--yes", "azcmagent"])
    left = _files(installed) - files_before
    assert {path for path in left if not path.startswith(LEFTOVERS)} <= {
        "/etc/group-",
        "/etc/passwd-",
        "/etc/shadow-",
        "/etc/gshadow-",
    }
    assert set(LEFTOVERS) <= left
    shown = installed.run(["systemd-run", "--quiet", "--wait", "--pipe", "env"]).output
    assert "IMDS_ENDPOINT" not in shown
    install(installed, agent_deb)
    for unit in UNITS:
        assert _property(installed, unit, "ActiveState") == "active", unit
        assert _property(installed, unit, "UnitFileState") == "enabled", unit


def test_purging_leaves_them_to_root(installed: Host, files_before: set[str], agent_deb: Path) -> None:
    installed.run(["apt-get", "purge", "--yes", "azcmagent"])
    left = _files(installed) - files_before
    assert {path for path in left if not path.startswith(LEFTOVERS)} <= {
        "/etc/group-",
        "/etc/passwd-",
        "/etc/shadow-",
        "/etc/gshadow-",
    }
    assert set(LEFTOVERS) <= left
    assert installed.run(["getent", "passwd", "himds"], check=False).code == 2
    orphans = installed.run(
        ["find", *LEFTOVERS, "(", "-nouser", "-o", "-nogroup", "-o", "-not", "-user", "root", ")"]
    ).output
    assert orphans == ""
    install(installed, agent_deb)
    shown = installed.run(["stat", "-c", "%n %U:%G %a", *DIRECTORIES]).output.splitlines()
    assert dict(line.split(" ", 1) for line in shown) == DIRECTORIES


def test_a_service_that_cannot_start_does_not_break_the_package(fresh: Lab, agent_deb: Path) -> None:
    other = fresh.hosts["deb02"]
    other.write("/etc/systemd/system/himdsd.service.d/broken.conf", "[Service]\nExecStart=\nExecStart=/none/himds\n")
    said = install(other, agent_deb)
    assert "himdsd.service did not start; see 'journalctl -u himdsd.service'" in said
    assert other.run(["dpkg-query", "-W", "-f", "${db:Status-Status}", "azcmagent"]).output == "installed"
    other.run(["apt-get", "purge", "--yes", "azcmagent"])


def test_maintainer_scripts_know_every_call_of_dpkg(installed: Host) -> None:
    scripts = "/var/lib/dpkg/info/azcmagent"
    pids = _pids(installed)
    installed.run([f"{scripts}.postinst", "triggered", "/usr/bin/python3"])
    installed.run([f"{scripts}.prerm", "upgrade", NEXT])
    installed.run([f"{scripts}.postrm", "upgrade", NEXT])
    installed.run([f"{scripts}.postrm", "abort-upgrade", NEXT])
    assert _pids(installed) == pids, "services went down although nothing was installed"
    installed.run([f"{scripts}.postinst", "abort-upgrade", NEXT])
    installed.run([f"{scripts}.prerm", "remove"])
    assert set(_pids(installed).values()) == {"0"}
    installed.run([f"{scripts}.postinst", "abort-remove"])
    assert all(_property(installed, unit, "ActiveState") == "active" for unit in UNITS)
    for script in ("preinst", "postinst", "prerm", "postrm"):
        done = installed.run([f"{scripts}.{script}", "nonsense"], check=False)
        assert done.code == 1
        assert "unknown argument 'nonsense'" in done.errors
