# SPDX-License-Identifier: Apache-2.0
"""`init`, principals, profile, script and the refusals to start, on real data directories."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import ssl
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from click.testing import CliRunner, Result
from cryptography import x509
from jsonschema import Draft7Validator

from control_plane import config, keyring, pki, serve, settings, tls, trust
from control_plane.cli import main
from control_plane.errors import OperatorError
from control_plane.hub import open_database, open_hub
from control_plane.operate import backup
from control_plane.storage.models import Base

URL = "https://hub.example:8443"
ROOT = Path(__file__).resolve().parents[3]


def run(data: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--data", str(data), *arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("hub") / "data"
    assert run(data, "init", "--url", URL, "--san", "10.0.0.1", "--location", "ber1=Berlin 1").exit_code == 0
    return data


@pytest.fixture
def hub(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "data")
    return tmp_path / "data"


def test_init_again_changes_nothing(hub: Path) -> None:
    def state() -> dict[str, bytes]:
        found = [path for path in hub.rglob("*") if path.is_file() and not path.name.startswith("hub.db-")]
        return {str(path): path.read_bytes() for path in found}

    before = state()
    answer = run(hub, "init", "--url", URL, "--json")
    assert json.loads(answer.stdout)["changed"] is False
    assert json.loads(answer.stdout)["locations"] == ["ber1"]
    assert state() == before
    other = run(hub, "init", "--url", "https://other.example")
    assert (other.exit_code, "already" in other.stderr) == (1, True)


def test_files_are_private(hub: Path) -> None:
    assert (hub.stat().st_mode & 0o777, (hub / "keys").stat().st_mode & 0o777) == (0o700, 0o700)
    for path in hub.rglob("*"):
        if path.is_file() and path.name != "ca.crt":
            assert path.stat().st_mode & 0o777 == 0o600, path


def test_certificates(hub: Path) -> None:
    ca = x509.load_pem_x509_certificate((hub / "keys/ca.crt").read_bytes())
    leaf = x509.load_pem_x509_certificate((hub / "keys/tls.crt").read_bytes())
    leaf.verify_directly_issued_by(ca)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["hub.example"]
    assert [str(item) for item in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1"]
    assert (datetime.now(UTC) - leaf.not_valid_before_utc).total_seconds() > 80000
    assert not keyring.renew_tls(hub, settings.load(hub))
    assert keyring.renew_tls(hub, settings.load(hub), days=10_000)
    assert tls.Tls(hub, settings.load(hub)).context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    "options",
    [
        ("--url", "http://hub.example"),
        ("--url", "https://hub.example/path"),
        ("--url", "https://"),
        ("--url", "https://hub.example:99999"),
        ("--url", URL, "--location", "=x"),
        ("--url", URL, "--tenant-id", "no-guid"),
        ("--url", URL, "--tenant-domain", "a/b"),
        ("--url", URL, "--certificate", "/dev/null"),
    ],
)
def test_bad_options_make_nothing(tmp_path: Path, options: tuple[str, ...]) -> None:
    answer = run(tmp_path / "data", "init", *options)
    assert answer.exit_code == 1
    assert len(answer.stderr.strip().splitlines()) == 2, "one sentence and the remedy"
    assert not settings.is_initialised(tmp_path / "data")


def test_given_certificates(tmp_path: Path) -> None:
    ca = pki.make_ca("their CA")
    key, leaf = pki.make_tls(ca, ["hub.example"])
    (tmp_path / "tls.key").write_bytes(pki.key_pem(key))
    (tmp_path / "leaf.crt").write_bytes(pki.certificate_pem(leaf))
    (tmp_path / "chain.crt").write_bytes(pki.certificate_pem(leaf) + pki.certificate_pem(ca.certificate))

    def init(name: str, url: str = URL) -> Result:
        files = ("--certificate", str(tmp_path / name), "--key", str(tmp_path / "tls.key"))
        return run(tmp_path / "data", "init", "--url", url, *files)

    assert "issuer" in init("leaf.crt").stderr
    assert "does not name" in init("chain.crt", "https://elsewhere.example").stderr
    assert init("chain.crt").exit_code == 0
    assert keyring.ca_file(tmp_path / "data").read_bytes() == pki.certificate_pem(ca.certificate)
    assert not keyring.renew_tls(tmp_path / "data", settings.load(tmp_path / "data"), days=10_000)


def _tls_files(data: Path) -> list[bytes]:
    return [(data / "keys" / name).read_bytes() for name in ("tls.crt", "tls.key")]


def test_only_the_hubs_own_certificate_is_made_anew(hub: Path) -> None:
    known, keys = settings.load(hub), hub / "keys"
    ours = keyring.authority(hub, "ca")
    # Of a CA that has the same name, and another key.
    key, leaf = pki.make_tls(pki.make_ca("hawser hub CA hub.example"), ["hub.example"])
    assert leaf.issuer == ours.certificate.subject
    own = _tls_files(hub)
    for name, content in (("tls.key", pki.key_pem(key)), ("tls.crt", pki.certificate_pem(leaf)), ("tls.crt", b"cut o")):
        (keys / name).write_bytes(content)
        before = _tls_files(hub)
        assert not keyring.renew_tls(hub, known, days=10_000)
        with pytest.raises(OperatorError, match="comes from a CA that is not the hub's own"):
            trust.begin_ca(hub, known)
        assert _tls_files(hub) == before
    # The way back: neither is there.
    (keys / "tls.crt").unlink()
    assert not keyring.renew_tls(hub, known)
    (keys / "tls.key").unlink()
    assert keyring.renew_tls(hub, known)
    assert keyring.own_tls(hub) is not None
    assert _tls_files(hub) != own


@pytest.mark.parametrize("cut", ["tls-next.key", "tls.crt"])
def test_an_issue_that_was_killed_leaves_a_pair(hub: Path, monkeypatch: pytest.MonkeyPatch, cut: str) -> None:
    known, ours = settings.load(hub), keyring.authority(hub, "ca")

    def write(path: Path, data: bytes, mode: int = 0o600) -> None:
        settings.write_file(path, data, mode)
        if path.name == cut:
            raise KeyboardInterrupt

    monkeypatch.setattr(keyring, "write_file", write)
    with pytest.raises(KeyboardInterrupt):
        keyring.issue_tls(hub, known, ours)
    monkeypatch.undo()
    before = _tls_files(hub)
    assert not keyring.renew_tls(hub, known)
    assert keyring.own_tls(hub) is not None
    assert (_tls_files(hub) == before) == (cut == "tls-next.key")
    assert tls.Tls(hub, known).expires > datetime.now(UTC)


def test_a_rotation_keeps_a_certificate_that_came_meanwhile(hub: Path) -> None:
    known = settings.load(hub)
    assert trust.begin_ca(hub, known)
    key, leaf = pki.make_tls(pki.make_ca("another CA"), ["hub.example"])
    (hub / "keys/tls.key").write_bytes(pki.key_pem(key))
    (hub / "keys/tls.crt").write_bytes(pki.certificate_pem(leaf))
    before = _tls_files(hub)
    trust.finish_ca(hub, known)
    assert _tls_files(hub) == before


def test_principals(hub: Path, tmp_path: Path) -> None:
    target = tmp_path / "secret"
    options = ("--role", "owner", "--secret-file", str(target), "--json")
    told = json.loads(run(hub, "principal", "create", "ops", *options).stdout)
    assert (told["role"], told["clientSecretFile"]) == ("Owner", str(target))
    assert target.stat().st_mode & 0o777 == 0o600
    assert len(target.read_text()) >= 40
    assert run(hub, "principal", "create", "OPS", "--role", "Reader").exit_code == 1
    assert run(hub, "principal", "create", "other", "--role", "Owner", "--secret-file", str(target)).exit_code == 1
    nowhere = str(tmp_path / "no" / "dir")
    assert run(hub, "principal", "create", "other", "--role", "Owner", "--secret-file", nowhere).exit_code == 1
    listed = run(hub, "principal", "list").stdout
    assert "ops" in listed
    assert "other" not in listed, "a secret that cannot be written makes no principal"
    assert target.read_text() not in (hub / "hub.db").read_bytes().decode("latin-1")
    assert "is revoked" in run(hub, "principal", "revoke", told["clientId"].upper()).stdout
    assert "nothing was changed" in run(hub, "principal", "revoke", "ops").stdout
    assert run(hub, "principal", "revoke", "nobody").exit_code == 1


def test_profile_is_as_the_schema_says(hub: Path) -> None:
    profile = json.loads(run(hub, "cloud-profile", "--name", "demo").stdout)
    schema = json.loads((ROOT / "docs/schemas/cloud-profile.schema.json").read_text())
    Draft7Validator(schema).validate(profile)
    assert profile["locations"] == ["ber1"]
    assert run(hub, "cloud-profile", "--name", "a/b").exit_code == 1


def test_onboarding_script(hub: Path, tmp_path: Path) -> None:
    """The real script under sh; only the program it calls is replaced by one that keeps what it was given."""
    answer = run(hub, "onboarding-script", "-g", "fleet", "-l", "ber1", "--tags", "a=$(touch /never),b=`id`")
    assert hashlib.sha256(answer.stdout.encode()).hexdigest() in answer.stderr
    (tmp_path / "script").write_text(answer.stdout)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "azcmagent").write_text(f'#!/bin/sh\nfor last; do :; done\ncp "$last" {tmp_path}/got-$1.json\n')
    (tools / "id").write_text("#!/bin/sh\necho 0\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    command = ["sh", str(tmp_path / "script")]
    done = subprocess.run(command, input="the.token\n", text=True, env=environment, capture_output=True, check=True)
    assert "the.token" not in done.stdout + done.stderr
    connect: dict[str, Any] = json.loads((tmp_path / "got-connect.json").read_text())
    assert (connect["access-token"], connect["tags"]) == ("the.token", "a=$(touch /never),b=`id`")
    assert json.loads((tmp_path / "got-cloud.json").read_text())["arm"] == URL
    assert run(hub, "onboarding-script", "-g", "fleet", "-l", "mars").exit_code == 1
    assert '"location": "ber1"' in run(hub, "onboarding-script").stdout


def test_audiences(hub: Path) -> None:
    assert run(hub, "audience", "add", "api://shop").exit_code == 0
    assert "nothing was changed" in run(hub, "audience", "add", "api://SHOP/").stdout
    assert json.loads(run(hub, "audience", "list", "--json").stdout)["added"] == ["api://shop"]
    assert "was removed" in run(hub, "audience", "remove", "api://shop").stdout
    for wrong in ("shop", "api://hawser-ticket", "https://a#b"):
        assert run(hub, "audience", "add", wrong).exit_code == 1


def test_an_empty_fleet(hub: Path) -> None:
    assert run(hub, "machines").stdout.split() == [
        *("NAME", "OS", "AGENT", "STATUS", "LAST", "HEARTBEAT", "ADDRESS", "GROUP", "LOCATION")
    ]
    assert json.loads(run(hub, "machines", "--json").stdout) == []


def test_migrations_make_what_the_models_say(hub: Path) -> None:
    database = open_database(hub)
    database.migrate()
    with database._readers.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    database.close()


def test_a_newer_database_is_refused(hub: Path) -> None:
    with sqlite3.connect(hub / "hub.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(OperatorError, match="9999"):
        open_database(hub).migrate()


def test_the_audit_is_append_only(hub: Path) -> None:
    with sqlite3.connect(hub / "hub.db") as connection:
        for statement in ("UPDATE audit SET actor = 'x'", "DELETE FROM audit"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)
        assert connection.execute("SELECT action FROM audit").fetchall() == [("hub/init",)]


def test_refusals_to_start(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="no hub"):
        serve.serve(tmp_path / "nothing", None)
    held = serve.lock(hub)
    with pytest.raises(OperatorError, match="Another hub"):
        serve.serve(hub, None)
    os.close(held)
    listening = serve.bind("127.0.0.1", 0)
    port = listening.getsockname()[1]
    with pytest.raises(OperatorError, match="cannot listen"):
        serve.serve(hub, f"127.0.0.1:{port}")
    listening.close()
    with pytest.raises(OperatorError, match="not an address"):
        serve.serve(hub, "8443")


def test_a_hub_whose_database_is_gone_says_so(hub: Path) -> None:
    (hub / "hub.db").unlink()
    for _ in range(2):
        with pytest.raises(OperatorError, match="is empty"):
            serve.serve(hub, "127.0.0.1:0")


def test_damage_is_told(hub: Path) -> None:
    (hub / "keys/desired.key").write_bytes(b"")
    with pytest.raises(OperatorError, match="cannot be loaded"):
        open_hub(hub)
    (hub / "hub.json").write_text("{")
    with pytest.raises(OperatorError, match="damaged"):
        open_hub(hub)


def test_the_epoch_rises_after_an_unclean_end(hub: Path) -> None:
    opened = open_hub(hub)
    assert serve.begin(opened) == 1
    assert serve.begin(opened) == 2
    serve.end(opened)
    assert serve.begin(opened) == 2
    opened.database.close()


@pytest.mark.parametrize(
    ("text", "url", "hosts"),
    [
        ("https://HUB.example/", "https://hub.example", {"hub.example", "hub.example:443"}),
        ("https://[::1]:8443", "https://[::1]:8443", {"[::1]:8443"}),
        ("https://10.0.0.1:8443/", "https://10.0.0.1:8443", {"10.0.0.1:8443"}),
    ],
)
def test_addresses(text: str, url: str, hosts: set[str]) -> None:
    assert settings.check_url(text) == url
    made = settings.Settings(1, url, "t", "d", (), own_certificate=True, created="")
    assert made.known_hosts == hosts


def test_a_backup_overwrites_nothing_that_comes_meanwhile(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, pack = tmp_path / "hub.tar.gz", backup._pack

    def slow(*arguments: Any) -> None:
        pack(*arguments)
        target.write_text("of somebody else")

    monkeypatch.setattr(backup, "_pack", slow)
    answer = run(hub, "backup", str(target))
    assert (answer.exit_code, "never overwritten" in answer.stderr) == (1, True)
    assert target.read_text() == "of somebody else"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".backup-")] == []


def test_the_audit_is_exported(hub: Path, tmp_path: Path) -> None:
    for number in range(3):
        assert run(hub, "principal", "create", f"app{number}", "--role", "Reader").exit_code == 0
    everything = [json.loads(line) for line in run(hub, "audit", "--json", "-n", "100").stdout.splitlines()]
    target = tmp_path / "audit.jsonl"
    assert run(hub, "audit", "export", "--before", "2999-01-01T00:00:00Z", str(target)).exit_code == 0
    assert [json.loads(line) for line in target.read_text().splitlines()] == everything
    assert target.stat().st_mode & 0o777 == 0o600
    again = run(hub, "audit", "export", "--before", "2999-01-01T00:00:00Z", str(target))
    assert (again.exit_code, "cannot be made" in again.stderr) == (1, True)
    early = tmp_path / "early.jsonl"
    assert run(hub, "audit", "export", "--before", "2001-01-01T00:00:00Z", str(early)).exit_code == 0
    assert early.read_text() == ""
    wrong = run(hub, "audit", "export", "--before", "yesterday", str(tmp_path / "wrong"))
    assert (wrong.exit_code, (tmp_path / "wrong").exists()) == (1, False)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("trusted_proxies: [10.0.0.300]", "trusted_proxies"),
        ("trusted_proxies: [balancer]", "trusted_proxies"),
        ("metrics: {allow: [10.0.0.0/64]}", "metrics.allow"),
    ],
)
def test_networks_that_are_none_stop_the_start(hub: Path, text: str, told: str) -> None:
    (hub / "config.yaml").write_text(text)
    with pytest.raises(OperatorError, match=told):
        config.load(hub)
