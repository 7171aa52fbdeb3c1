# SPDX-License-Identifier: Apache-2.0
"""The hub's deb on a real host without a network to fetch from: install, make a hub, reload, upgrade, remove, purge."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from lab import Host, Lab

pytestmark = pytest.mark.hosts
ROOT = Path(__file__).resolve().parents[2]
NEXT = "1.0.0.999"
DATA = "/var/lib/hawser-hub"
# What the package tools and useradd keep for themselves.
TOOLS = ("/var/lib/dpkg/", "/var/lib/apt/", "/etc/group-", "/etc/passwd-", "/etc/shadow-", "/etc/gshadow-")
AS_HUB = ["runuser", "-u", "hawser-hub", "--", "hawser-hub"]


@pytest.fixture(scope="module")
def build_hub(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Builds the hub's deb for the Python of the hosts, Debian 12's."""

    def build(*argv: str) -> Path:
        out = tmp_path_factory.mktemp("hub-package")
        program = [sys.executable, str(ROOT / "packaging/build_packages.py"), "--out", str(out), "--only", "hub-deb"]
        subprocess.run([*program, "--hub-python", "3.11", *argv], check=True, stdout=subprocess.DEVNULL)
        return next(out.glob("*.deb"))

    return build


@pytest.fixture(scope="module")
def deb(build_hub: Callable[..., Path]) -> Path:
    return build_hub()


@pytest.fixture(scope="module")
def newer(build_hub: Callable[..., Path]) -> Path:
    return build_hub("--version", NEXT)


@pytest.fixture(scope="module")
def host(make_lab: Callable[..., Lab]) -> Host:
    return make_lab("hubdeb01").hosts["hubdeb01"]


@pytest.fixture(scope="module")
def files_before(host: Host) -> set[str]:
    return files(host)


@pytest.fixture(scope="module")
def installed(host: Host, files_before: set[str], deb: Path) -> Host:
    said = install(host, deb)
    assert "there is no hub in /var/lib/hawser-hub yet" in said
    return host


@pytest.fixture(scope="module")
def served(installed: Host, tmp_path_factory: pytest.TempPathFactory) -> tuple[Host, str, str]:
    """The host with a hub that runs, its address and the file with its CA, for requests from outside."""
    url = f"https://{installed.address}:8443"
    installed.run([*AS_HUB, "init", "--url", url, "--location", "north=The north"])
    installed.run(["systemctl", "start", "hawser-hub"])
    ca = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.write_bytes(installed.read(f"{DATA}/keys/ca.crt"))
    healthy(url, str(ca))
    return installed, url, str(ca)


def install(host: Host, package: Path) -> str:
    """Install a package, over the same version too; returns what was printed."""
    host.copy(package, "/root/hub.deb")
    done = host.run(["apt-get", "install", "--yes", "--reinstall", "/root/hub.deb"])
    host.run(["rm", "/root/hub.deb"])
    return done.output + done.errors


def files(host: Host) -> set[str]:
    """Every path of the folders in which a package or a hub may leave something; dpkg removes an empty /opt."""
    rooms = ["/etc", "/opt", "/usr", "/lib/systemd", "/var/lib", "/var/backups"]
    listed = host.run(["find", *rooms], check=False).output.splitlines()
    return {path for path in listed if not path.startswith(TOOLS)}


def state(host: Host, name: str, unit: str = "hawser-hub.service") -> str:
    return host.run(["systemctl", "show", f"--property={name}", "--value", unit]).output.strip()


def healthy(url: str, ca: str) -> None:
    """Wait until the hub answers; pytest's own limit ends a wait in vain."""
    while True:
        try:
            assert requests.get(f"{url}/healthz", verify=ca, timeout=10).status_code == 200
        except requests.ConnectionError:
            time.sleep(0.2)
        else:
            return


def test_an_installation_makes_no_hub_and_starts_none(installed: Host) -> None:
    assert state(installed, "UnitFileState") == "enabled"
    assert state(installed, "UnitFileState", "hawser-hub-backup.timer") == "disabled"
    installed.run(["systemctl", "start", "hawser-hub"])
    assert (state(installed, "ActiveState"), state(installed, "ConditionResult")) == ("inactive", "no")
    assert installed.run(["stat", "-c", "%U:%G %a", DATA]).output.strip() == "hawser-hub:hawser-hub 700"
    assert installed.run(["ls", "-A", DATA]).output == ""
    assert installed.run(["getent", "passwd", "hawser-hub"]).output.strip().endswith(f"{DATA}:/usr/sbin/nologin")


def test_every_module_is_compiled_and_belongs_to_root(installed: Host) -> None:
    sources = installed.run(["find", "/opt/hawser-hub/lib", "-name", "*.py"]).output.split()
    compiled = installed.run(["find", "/opt/hawser-hub/lib", "-name", "*.pyc"]).output.split()
    assert len(compiled) == len(sources) > 500
    foreign = [
        "find",
        "/opt/hawser-hub",
        "(",
        "-not",
        "-user",
        "root",
        "-o",
        "-perm",
        "/022",
        ")",
        "-not",
        "-type",
        "l",
    ]
    assert installed.run(foreign).output == ""


def test_the_hub_serves_and_reloads(served: tuple[Host, str, str]) -> None:
    host, _url, _ca = served
    pid = state(host, "MainPID")
    assert host.read(f"/proc/{pid}/comm").decode().strip() == "hawser-hub"
    assert host.run(["stat", "-c", "%U", f"/proc/{pid}"]).output.strip() == "hawser-hub"
    configuration = f"{DATA}/config.yaml"
    host.write(configuration, json.dumps({"limits": {"requests_per_minute": "many"}}), mode=0o600)
    host.run(["chown", "hawser-hub:hawser-hub", configuration])
    host.run(["systemctl", "reload", "hawser-hub"])
    journal = ["journalctl", "--unit=hawser-hub", "--output=cat", "--no-pager"]
    while "requests_per_minute" not in host.run(journal).output:
        time.sleep(0.2)
    host.run(["rm", configuration])
    assert state(host, "MainPID") == pid


def test_threads_give_way_to_the_loop(served: tuple[Host, str, str]) -> None:
    host, _, _ = served
    pid = host.run(["systemctl", "show", "hawser-hub", "--property=MainPID", "--value"]).output.strip()
    nice = host.run(["sh", "-c", f"cd /proc/{pid}/task && grep -H '' */stat"]).output
    # The 19th field of proc(5); the second is a name in parentheses.
    found = {line.split("/")[0]: line.rpartition(")")[2].split()[16] for line in nice.splitlines()}
    assert found.pop(pid) == "0"
    assert set(found.values()) == {"10"}


def test_a_backup_is_made_by_the_unit_and_not_by_the_clock(served: tuple[Host, str, str]) -> None:
    host, _url, _ca = served
    host.run(["systemctl", "start", "hawser-hub-backup.service"])
    (backup,) = host.run(["find", "/var/backups/hawser-hub", "-type", "f"]).output.split()
    assert host.run(["stat", "-c", "%U %a", backup]).output.strip() == "hawser-hub 600"
    assert state(host, "ActiveState", "hawser-hub-backup.timer") == "inactive"


def test_an_upgrade_keeps_the_data_and_serves_on(served: tuple[Host, str, str], newer: Path) -> None:
    host, url, ca = served
    principal = json.loads(host.run([*AS_HUB, "principal", "create", "kept", "--role", "Owner", "--json"]).output)
    pid = state(host, "MainPID")

    said = install(host, newer)
    assert "The database has revision" in said
    healthy(url, ca)
    assert state(host, "MainPID") not in {pid, "0"}
    shown = host.run(["dpkg-query", "-W", "-f", "${Version} ${db:Status-Status}", "hawser-hub"]).output
    assert shown == f"{NEXT}+py3.11 installed"
    assert NEXT in host.run(["ls", "/opt/hawser-hub/lib"]).output
    token = requests.post(
        f"{url}/{json.loads(host.read(f'{DATA}/hub.json'))['tenant_id']}/oauth2/v2.0/token",
        data={
            "grant_type": "client_credentials",
            "client_id": principal["clientId"],
            "client_secret": principal["clientSecret"],
            "scope": f"{url}/.default",
        },
        verify=ca,
        timeout=10,
    )
    assert token.json()["access_token"]


def test_an_upgrade_starts_no_hub_that_was_stopped(served: tuple[Host, str, str], newer: Path) -> None:
    host, url, ca = served
    host.run(["systemctl", "stop", "hawser-hub"])
    install(host, newer)
    assert state(host, "ActiveState") == "inactive"
    host.run(["systemctl", "start", "hawser-hub"])
    healthy(url, ca)


def test_maintainer_scripts_know_every_call_of_dpkg(served: tuple[Host, str, str]) -> None:
    host, url, ca = served
    scripts = "/var/lib/dpkg/info/hawser-hub"
    host.run([f"{scripts}.prerm", "upgrade", NEXT])
    assert state(host, "ActiveState") == "inactive"
    host.run([f"{scripts}.postrm", "upgrade", NEXT])
    host.run([f"{scripts}.postrm", "abort-upgrade", NEXT])
    host.run([f"{scripts}.postinst", "abort-upgrade", NEXT])
    healthy(url, ca)
    host.run([f"{scripts}.prerm", "deconfigure", "in-favour", "other", "1"])
    assert state(host, "ActiveState") == "inactive"
    host.run([f"{scripts}.postinst", "abort-deconfigure", "in-favour", "other", "1"])
    healthy(url, ca)
    host.run([f"{scripts}.prerm", "remove"])
    assert (state(host, "ActiveState"), state(host, "UnitFileState")) == ("inactive", "disabled")
    host.run([f"{scripts}.postinst", "abort-remove"])
    assert state(host, "UnitFileState") == "enabled"
    healthy(url, ca)
    for script in ("preinst", "postinst", "prerm", "postrm"):
        done = host.run([f"{scripts}.{script}", "nonsense"], check=False)
        assert done.code == 1
        assert f"hawser-hub: {script} called with an unknown argument 'nonsense'" in done.errors


def test_removing_keeps_the_data_and_a_new_installation_serves_them(
    served: tuple[Host, str, str], files_before: set[str], deb: Path
) -> None:
    host, url, ca = served
    identity = host.read(f"{DATA}/hub.json")
    # As data of an older version are.
    host.run(["systemctl", "stop", "hawser-hub"])
    newest = json.loads(host.run([*AS_HUB, "migrate", "--to", "0004", "--yes", "--json"]).output)["from"]
    host.run(["apt-get", "remove", "--yes", "hawser-hub"])
    left = files(host) - files_before
    assert not {path for path in left if not path.startswith((DATA, "/var/backups/hawser-hub"))}
    assert host.read(f"{DATA}/hub.json") == identity
    assert f"From 0004 to {newest}: passed" in install(host, deb)
    healthy(url, ca)
    assert host.read(f"{DATA}/hub.json") == identity


def test_purging_removes_everything_but_backups(served: tuple[Host, str, str], files_before: set[str]) -> None:
    host, _url, _ca = served
    host.run(["apt-get", "purge", "--yes", "hawser-hub"])
    backups = files(host) - files_before
    assert all(path.startswith("/var/backups/hawser-hub") for path in backups)
    assert any(path.endswith(".tar.gz") for path in backups)
    assert set(host.run(["stat", "-c", "%U:%G", *backups]).output.split()) == {"root:root"}
    assert host.run(["getent", "passwd", "hawser-hub"], check=False).code == 2
