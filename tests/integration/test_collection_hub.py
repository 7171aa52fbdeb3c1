# SPDX-License-Identifier: Apache-2.0
"""The role hub on a real systemd host: from wheels, then from the package, to a hub that answers, and nothing to do the
second time."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from control_plane import pki
from lab import Host, Lab
from tests.integration import postgres_server

pytestmark = pytest.mark.hosts
ROOT = Path(__file__).resolve().parents[2]
NEXT = "1.0.0.999"
HUB = ["runuser", "-u", "hawser-hub", "--", "/opt/hawser-hub/venv/bin/hawser-hub", "--data", "/var/lib/hawser-hub"]


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hub's wheel, those that it needs at the versions of the lock, and pip's."""
    where = tmp_path_factory.mktemp("wheelhouse")
    build = [sys.executable, str(ROOT / "packaging/build_packages.py"), "--out", str(where / "dist"), "--only", "wheel"]
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(where / "wheels")]
    for argv in (build, [*pip, "--require-hashes", "-r", str(ROOT / "requirements/hub.txt")], [*pip, "pip"]):
        subprocess.run(argv, check=True, capture_output=True, text=True)
    (wheel,) = (where / "dist").glob("hawser_hub-*.whl")
    wheel.rename(where / "wheels" / wheel.name)
    return where / "wheels"


@pytest.fixture(scope="module")
def host(make_lab: Callable[..., Lab]) -> Host:
    return make_lab("hub01").hosts["hub01"]


@pytest.fixture(scope="module")
def debs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The hub's package for Debian 12, and a newer one."""
    made = []
    for version in ((), ("--version", NEXT)):
        out = tmp_path_factory.mktemp("debs")
        build = [sys.executable, str(ROOT / "packaging/build_packages.py"), "--out", str(out), "--only", "hub-deb"]
        subprocess.run([*build, "--hub-python", "3.11", *version], check=True, stdout=subprocess.DEVNULL)
        made.append(next(out.glob("*.deb")))
    return made


def package(path: Path) -> dict[str, Any]:
    """Variables of the role for a package."""
    return {"hub_package_path": str(path), "hub_package_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def play(work: Path, host: Host, wheelhouse: Path | None, *argv: str, code: int = 0, **changes: object) -> str:
    """Run the playbook; it ends with `code`. Returns what it said."""
    (work / "collections/ansible_collections/hawser").mkdir(parents=True, exist_ok=True)
    link = work / "collections/ansible_collections/hawser/machine"
    if not link.exists():
        link.symlink_to(ROOT)
    variables = {
        "ansible_host": str(host.address),
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(host.private_key),
        "ansible_ssh_common_args": f"-F none -o UserKnownHostsFile={host.known_hosts}",
        "hub_url": f"https://{host.address}:8443",
        **({"hub_wheelhouse": str(wheelhouse)} if wheelhouse else {}),
        "hub_locations": {"local": "Local", "north": "The north"},
        "hub_profile_dest": str(work / "profile.json"),
        "hub_profile_name": "mine",
        "hub_config": {"limits": {"requests_per_minute": 6000}, "logging": {"format": "json"}},
        "hub_backup_dir": "/var/backups/hawser-hub",
        "hub_backup_keep": 2,
        **changes,
    }
    (work / "inventory.yml").write_text(yaml.safe_dump({"hawser_hub": {"hosts": {"hub01": variables}}}))
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", "inventory.yml", "hawser.machine.hub", *argv],
        cwd=work,
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(work),
            "LANG": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": str(work / "collections"),
            "ANSIBLE_HOME": str(work / "ansible"),
            "ANSIBLE_NOCOLOR": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


@pytest.mark.timeout(600)  # eight runs of the playbook
def test_hub(tmp_path: Path, host: Host, wheelhouse: Path) -> None:
    planned = play(tmp_path, host, wheelhouse, "--check")
    assert not re.search(r"changed=0", planned)
    assert host.run(["test", "-e", "/opt/hawser-hub"], check=False).code == 1

    play(tmp_path, host, wheelhouse)
    profile = json.loads((tmp_path / "profile.json").read_text())
    assert profile["name"] == "mine"
    assert profile["locations"] == ["local", "north"]
    (tmp_path / "ca.pem").write_text(profile["ca_pem"])
    health = requests.get(f"{profile['arm']}/healthz", verify=str(tmp_path / "ca.pem"), timeout=10)
    assert health.status_code == 200

    principal = json.loads(host.run([*HUB, "principal", "create", "me", "--role", "Owner", "--json"]).output)
    token = requests.post(
        f"{profile['authority']}/{profile['tenant_id']}/oauth2/v2.0/token",
        data={
            "grant_type": "client_credentials",
            "client_id": principal["clientId"],
            "client_secret": principal["clientSecret"],
            "scope": f"{profile['arm']}/.default",
        },
        verify=str(tmp_path / "ca.pem"),
        timeout=10,
    )
    assert token.json()["access_token"]

    assert host.run(["stat", "-c", "%U %a", "/var/lib/hawser-hub"]).output.split() == ["hawser-hub", "700"]
    process = host.run(["ps", "-o", "user=", "-C", "hawser-hub"], check=False).output.split()
    assert set(process) == {"hawser-+"} or set(process) == {"hawser-hub"}

    before = host.run(["systemctl", "show", "-p", "InvocationID", "hawser-hub"]).output
    again = play(tmp_path, host, wheelhouse)
    assert "changed=0" in again
    assert "changed=0" in play(tmp_path, host, wheelhouse, "--check")
    assert host.run(["systemctl", "show", "-p", "InvocationID", "hawser-hub"]).output == before

    # What a running hub can take up is reloaded; the rest restarts it.
    changed = play(tmp_path, host, wheelhouse, hub_config={"limits": {"requests_per_minute": 9000}})
    assert "Reload hub" in changed
    assert "Restart hub" not in changed
    assert host.run(["systemctl", "show", "-p", "InvocationID", "hawser-hub"]).output == before

    # What would stop the hub is not put in place, and the hub's own sentence says why.
    configured = host.read("/var/lib/hawser-hub/config.yaml")
    target = {"name": "pager", "on": ["Expired"], "webhook": {"url": "https://pager.example", "secret_file": "/s"}}
    wrong = play(tmp_path, host, wheelhouse, code=2, hub_config={"notifications": {"targets": [target]}})
    assert "takes no member 'on'" in " ".join(wrong.split())
    assert "pager.example" not in wrong
    assert host.read("/var/lib/hawser-hub/config.yaml") == configured
    assert host.run(["systemctl", "show", "-p", "InvocationID", "hawser-hub"]).output == before
    # Nor does it go to another kind of database, which would be empty.
    elsewhere = {"database": {"url": "postgresql://hub@192.0.2.1/hub"}}
    moved = play(tmp_path, host, wheelhouse, code=2, hub_config=elsewhere)
    assert "The hub on hub01 was made in SQLite" in " ".join(moved.split())
    assert host.read("/var/lib/hawser-hub/config.yaml") == configured
    for _ in range(3):
        host.run(["systemctl", "start", "hawser-hub-backup.service"])
        time.sleep(1.1)  # the name of a backup has the second in it
    kept = host.run(["ls", "/var/backups/hawser-hub"]).output.split()
    assert len(kept) == 2
    assert host.run(["stat", "-c", "%U %a", f"/var/backups/hawser-hub/{kept[0]}"]).output.split() == [
        "hawser-hub",
        "600",
    ]


def certificate(work: Path, host: Host) -> tuple[bytes, dict[str, Any]]:
    """A CA's certificate, and variables of the role for one that it issued for the host."""
    ca = pki.make_ca("A CA of the site")
    key, leaf = pki.make_tls(ca, [str(host.address)])
    (work / "site.key").write_bytes(pki.key_pem(key))
    (work / "site.crt").write_bytes(pki.certificate_pem(leaf))
    variables = {"hub_certificate": str(work / "site.crt"), "hub_certificate_key": str(work / "site.key")}
    return pki.certificate_pem(ca.certificate), variables


@pytest.mark.timeout(600)  # four runs of the playbook
def test_another_ca_is_believed_before_its_certificate_is_shown(tmp_path: Path, host: Host, wheelhouse: Path) -> None:
    play(tmp_path, host, wheelhouse)
    keys = "/var/lib/hawser-hub/keys"
    ca, variables = certificate(tmp_path, host)
    refused = " ".join(play(tmp_path, host, wheelhouse, code=2, hub_wait_timeout=2, **variables).split())
    assert f"Machines refuse the hub, because its certificate is not of a CA in {keys}/ca.crt" in refused
    host.write(f"{keys}/ca.crt", host.read(f"{keys}/ca.crt") + ca)
    host.run([*HUB, "trust", "announce"])
    play(tmp_path, host, wheelhouse, **variables)
    assert ca.decode() in json.loads((tmp_path / "profile.json").read_text())["ca_pem"]
    assert host.read(f"{keys}/tls.crt") == (tmp_path / "site.crt").read_bytes()
    # The way back to the hub's own.
    host.run(["rm", f"{keys}/tls.crt", f"{keys}/tls.key"])
    host.run(["systemctl", "reload", "hawser-hub"])
    play(tmp_path, host, wheelhouse)


@pytest.mark.timeout(600)  # four runs of the playbook
def test_a_new_hub_in_postgresql_with_a_certificate_of_another_ca(
    tmp_path: Path, make_lab: Callable[..., Lab], debs: list[Path]
) -> None:
    lab = make_lab("hub02")
    host = lab.hosts["hub02"]
    server = postgres_server.new(str(lab.gateway))
    try:
        url = server.fresh()[1]
        ca, variables = certificate(tmp_path, host)
        (tmp_path / "ca.pem").write_bytes(ca)
        variables |= {**package(debs[0]), "hub_certificate_ca": str(tmp_path / "ca.pem")}
        database: dict[str, Any] = {"hub_database_url": url, "hub_database_password": postgres_server.PASSWORD}

        refused = play(tmp_path, host, None, code=2, hub_config={"database": {"url": url}}, **variables)
        assert "There is no hub on hub01 yet" in " ".join(refused.split())
        assert host.run(["ls", "-A", "/var/lib/hawser-hub"]).output == ""

        assert postgres_server.PASSWORD not in play(tmp_path, host, None, **variables, **database)
        profile = json.loads((tmp_path / "profile.json").read_text())
        assert profile["ca_pem"].encode() == ca
        assert requests.get(f"{profile['arm']}/healthz", verify=str(tmp_path / "ca.pem"), timeout=10).ok
        configured = yaml.safe_load(host.read("/var/lib/hawser-hub/config.yaml"))
        assert configured["limits"] == {"requests_per_minute": 6000}
        assert configured["database"]["url"] == url
        password_file = configured["database"]["password_file"]
        assert host.run(["stat", "-c", "%U %a", password_file]).output.split() == ["hawser-hub", "600"]
        assert host.run(["test", "-e", "/var/lib/hawser-hub/hub.db"], check=False).code == 1
        server.execute("SELECT 1 / count(*) FROM hub_state", url.rpartition("/")[2])
        assert "changed=0" in play(tmp_path, host, None, **variables, **database)

        moved = play(tmp_path, host, None, code=2, **variables)
        assert "The hub on hub01 was made in PostgreSQL" in " ".join(moved.split())
        assert yaml.safe_load(host.read("/var/lib/hawser-hub/config.yaml")) == configured
    finally:
        host.run(["systemctl", "stop", "hawser-hub"], check=False)
        postgres_server.discard(server)


@pytest.mark.timeout(600)  # five runs of the playbook
def test_the_package_takes_over_from_wheels(tmp_path: Path, host: Host, wheelhouse: Path, debs: list[Path]) -> None:
    play(tmp_path, host, wheelhouse)
    identity = host.read("/var/lib/hawser-hub/hub.json")
    old, new = debs
    play(tmp_path, host, None, **package(old))
    assert host.read("/var/lib/hawser-hub/hub.json") == identity
    assert host.run(["test", "-e", "/opt/hawser-hub/venv"], check=False).code == 1
    for unit in ("hawser-hub.service", "hawser-hub-backup.timer"):
        shown = host.run(["systemctl", "show", "-p", "FragmentPath,ActiveState,UnitFileState", unit]).output
        assert set(shown.split()) == {
            f"FragmentPath=/lib/systemd/system/{unit}",
            "ActiveState=active",
            "UnitFileState=enabled",
        }
    assert "changed=0" in play(tmp_path, host, None, **package(old))

    assert not re.search(r"changed=0", play(tmp_path, host, None, "--check", **package(new)))
    play(tmp_path, host, None, **package(new))
    shown = host.run(["dpkg-query", "-W", "-f", "${Version}", "hawser-hub"]).output
    assert shown == f"{NEXT}+py3.11"
    assert host.read("/var/lib/hawser-hub/hub.json") == identity

    refused = play(tmp_path, host, wheelhouse, code=2)
    assert "The package hawser-hub is installed on hub01" in " ".join(refused.split())


@pytest.mark.parametrize(
    "changes",
    [
        {"hub_package_url": "https://192.0.2.1/hub.deb"},
        {"hub_package_sha256": "0" * 64},
        {"hub_package_sha256": "12"},
        {"hub_wheelhouse": "/srv/wheels"},
    ],
    ids=lambda changes: next(iter(changes.items()))[0] + "=" + next(iter(changes.values()))[:12],
)
def test_an_unclear_source_is_refused(tmp_path: Path, host: Host, debs: list[Path], changes: dict[str, str]) -> None:
    said = " ".join(play(tmp_path, host, None, code=2, **{**package(debs[0]), **changes}).split())
    assert "Set exactly one of hub_wheelhouse, hub_package_path" in said or "has the SHA-256" in said
    assert "changed=0" in said
