# SPDX-License-Identifier: Apache-2.0
"""seal and seal --check on the files of a machine whose services do not run."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.cli import imaging
from agent_runtime.cli.imaging import Image
from agent_runtime.identity.sealing import Wish
from agent_runtime.platform import image_checks
from agent_runtime.platform import paths as places
from agent_runtime.platform.paths import linux
from agent_runtime.upgrade import plan
from agent_runtime.upgrade.journal import Files

from .conftest import Machine

TOKEN = "hwe_" + "t" * 40
WORDS = ("seal", "--image-id", "web-2026-11")
RECORD = {
    "v": 1,
    "state": "connected",
    "since": "",
    "identity": {
        **{name: name for name in ("clientId", "tenantId", "vmId", "cloud")},
        "resourceId": "/subscriptions/s/web01",
        "slot": 1,
    },
    "pending": None,
    "error": None,
}
IDENTITY_FILES = (
    "state/agentconfig.json",
    "state/lease.json",
    "state/evidence.json",
    "state/desired/policy.jws",
    "state/outbox/1.json",
    "state/settings.crt",
    "certs/identity-1.key",
    "certs/identity-1.crt",
    "tokens/x.key",
    "binding.json",
)


def inhabited(machine: Machine, state: str = "connected") -> None:
    """All that an agent leaves behind."""
    record: dict[str, Any] = RECORD if state == "connected" else {**RECORD, "state": state, "identity": None}
    for folder in ("certs", "tokens", "trust", "state/desired", "state/outbox"):
        (machine.state / folder).mkdir(parents=True, exist_ok=True)
    for name in IDENTITY_FILES:
        (machine.state / name).write_text(f"secret of {name}")
    (machine.state / "state/identity.json").write_text(json.dumps(record))
    for name in ("localconfig.json", "trust/demo.json"):
        (machine.state / name).write_text("{}")
    guest = machine.root / "var/lib/GuestConfig"
    for name in ("policy/floor.json", "extensions/keys/settings.key", "arc_policy_logs/gc_agent.log"):
        (guest / name).parent.mkdir(parents=True, exist_ok=True)
        (guest / name).write_text("secret")
    machine.add_cloud()


def identity(machine: Machine) -> str:
    return str(json.loads((machine.state / "state/identity.json").read_text())["state"])


def leftovers(machine: Machine) -> list[str]:
    return [name for name, content in machine.files().items() if b"secret" in content]


def check(machine: Machine, *words: str) -> tuple[int, dict[str, Any]]:
    done = machine.run("seal", "--check", "--json", *words)
    return done.code, done.json


def birth_record(**changes: Any) -> dict[str, Any]:
    return {
        "v": 1,
        "imageId": "web",
        "sealedAt": "2026-11-23T00:00:00Z",
        "unsealedAt": None,
        "unsealedBy": None,
        "agentVersion": "1",
        "packageDigest": "0" * 64,
        "builder": "b",
        "salt": "00" * 32,
        "evidence": [],
        "enrol": None,
        **changes,
    }


def test_a_connected_machine_is_not_sealed_unless_forced(machine: Machine) -> None:
    inhabited(machine)
    before = machine.files()
    done = machine.run(*WORDS)
    assert done.code == 27
    assert "/subscriptions/s/web01" in done.out
    assert "--force" in done.out
    assert machine.files() == before
    forced = machine.run(*WORDS, "--force", "--json")
    assert (forced.code, forced.json["changed"]) == (0, True)
    assert (identity(machine), leftovers(machine)) == ("sealed", [])
    assert check(machine, "--agent-only")[0] == 0


def test_a_machine_in_the_middle_of_an_upgrade_is_not_sealed(machine: Machine) -> None:
    inhabited(machine, "disconnected")
    files = Files(linux(str(machine.root)))
    files.make()
    wish = plan.Wish("command", "", "demo", "1.0.0.1", "1.0.0.2", "deb")
    files.write(plan.begun(wish, "id", "/worker", "2026-11-28T12:00:00Z"))
    done = machine.run(*WORDS)
    assert done.code == 27
    assert "an upgrade of the agent is under way, from 1.0.0.1 to 1.0.0.2" in done.out
    assert identity(machine) == "disconnected"


def test_a_sealed_image_keeps_its_configuration_and_knows_its_name(machine: Machine) -> None:
    inhabited(machine, "disconnected")
    assert machine.run(*WORDS).code == 0
    kept = {name for name in machine.files() if name.startswith("var/opt") and not name.endswith(".log")}
    assert kept == {
        f"var/opt/azcmagent/{name}"
        for name in ("clouds/demo.json", "trust/demo.json", "localconfig.json", "image.json", "state/identity.json")
    }
    record = json.loads((machine.state / "image.json").read_text())
    assert (record["imageId"], record["enrol"], record["unsealedAt"]) == ("web-2026-11", None, None)
    assert len(record["packageDigest"]) == len(record["salt"]) == 64
    assert stat.S_IMODE((machine.state / "image.json").stat().st_mode) == 0o644
    assert {item["name"] for item in record["evidence"]} >= {"machine_id", "dmi_uuid", "vmgenid", "tpm_key"}
    values = Path("/etc/machine-id").read_text().strip()
    assert values not in json.dumps(record)
    shown = machine.run("show", "identityState", "imageId", "--json")
    assert shown.json == {"identityState": "sealed", "imageId": "web-2026-11"}


def test_sealing_again_changes_nothing(machine: Machine) -> None:
    inhabited(machine, "disconnected")
    machine.run(*WORDS)
    before = machine.files()
    again = machine.run(*WORDS, "--json")
    assert (again.code, again.json["changed"]) == (0, False)
    assert machine.files() == before
    assert machine.run("seal", "--image-id", "web-2026-12", "--json").json["changed"] is True
    assert json.loads((machine.state / "image.json").read_text())["imageId"] == "web-2026-12"


def test_the_token_of_an_image_is_kept_out_of_everything_else(machine: Machine) -> None:
    inhabited(machine, "disconnected")
    words = (*WORDS, "--enroll-on-first-boot", "web", "--token-file", "-", "--json")
    done = machine.run(*words, stdin=TOKEN + "\n")
    assert done.code == 0, done.out
    path = machine.state / "image.token"
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == (TOKEN, 0o600)
    assert TOKEN not in done.out + machine.log
    assert [name for name, content in machine.files().items() if TOKEN.encode() in content] == [
        "var/opt/azcmagent/image.token"
    ]
    assert json.loads((machine.state / "image.json").read_text())["enrol"] == {"cloud": "demo", "profile": "web"}
    assert check(machine, "--agent-only")[0] == 0
    assert machine.run(*words, stdin=TOKEN + "\n").json["changed"] is False
    # A file that it was read from is somebody else's: what is in it is said, and not touched.
    given = machine.root / "given"
    given.write_text(TOKEN)
    warnings = machine.run(*words[:-2], str(given), "--json").json["warnings"]
    assert f"{given} still holds the enrolment token: remove it, or every copy has it" in warnings
    given.unlink()
    # Sealed without a profile the image has no token.
    assert machine.run(*WORDS).code == 0
    assert not path.exists()


@pytest.mark.parametrize(
    ("words", "stdin", "code", "says"),
    [
        (("seal",), "", 16, "--image-id"),
        (("seal", "--image-id", "a/b"), "", 23, "letters"),
        (("seal", "--image-id", "x" * 129), "", 23, "128"),
        ((*WORDS, "--enroll-on-first-boot", "web"), "", 16, "--token-file"),
        ((*WORDS, "--enroll-on-first-boot", "w b", "--token-file", "-"), TOKEN, 23, "profile"),
        ((*WORDS, "--token-file", "-"), TOKEN, 16, "--enroll-on-first-boot"),
        ((*WORDS, "--enroll-on-first-boot", "web", "--token-file", "-"), "secret\n", 23, "hwe_"),
        ((*WORDS, "--enroll-on-first-boot", "web", "--token-file", "-"), "", 23, "hwe_"),
        ((*WORDS, "--enroll-on-first-boot", "web", "--token-file", "-"), TOKEN + "\u00e4", 23, "hwe_"),
        ((*WORDS, "--enroll-on-first-boot", "web", "--token-file", "/nowhere"), "", 19, "/nowhere"),
        ((*WORDS, "--enroll-on-first-boot", "web", "--token-file", "-", "--cloud", "b"), TOKEN, 23, "demo"),
        ((*WORDS, "--root", "/nowhere"), "", 23, "etc"),
        (("unseal",), "", 16, "--here"),
        (("unseal", "--here", "--first-boot"), "", 16, "--here"),
    ],
)
def test_bad_input_is_one_sentence_and_changes_nothing(
    machine: Machine, words: tuple[str, ...], stdin: str, code: int, says: str
) -> None:
    inhabited(machine, "disconnected")
    before = machine.files()
    done = machine.run(*words, stdin=stdin)
    assert done.code == code, done.out
    assert says in done.out
    assert len(done.out.strip().splitlines()) == 2
    assert "secret" not in done.out
    assert machine.files() == before


def test_sealing_that_was_cut_off_is_seen_and_ended(machine: Machine) -> None:
    inhabited(machine)
    journal = {"v": 1, "step": "seal", "keepLogs": False, "record": {**birth_record(), "enrol": None}}
    (machine.state / "seal.json").write_text(json.dumps(journal))
    code, found = check(machine)
    assert (code, found["status"]) == (27, "dirty")
    assert "cut off" in found["error"]["message"]
    done = machine.run("unseal", "--if-copied", "--json")
    assert (done.code, done.json["changed"], done.json["state"]) == (0, False, "sealed")
    assert leftovers(machine) == []
    assert not (machine.state / "seal.json").exists()


@pytest.mark.parametrize(
    "damage",
    [
        *("", "{", '{"v": 1, "step": "seal"}', "[]", "{}"),
        '{"v": 1, "step": "seal", "record": {}, "keepLogs": true}',
        '{"v": 1, "step": "seal", "record": {"imageId": "x"}, "keepLogs": true}',
    ],
)
def test_a_damaged_journal_is_ended_by_another_seal(machine: Machine, damage: str) -> None:
    inhabited(machine, "disconnected")
    (machine.state / "seal.json").write_text(damage)
    done = machine.run("unseal", "--if-copied", "--json")
    assert (done.code, done.json["error"]["message"].split(":")[0]) == (
        27,
        "sealing was cut off, and its journal seal.json is damaged",
    )
    assert machine.run(*WORDS).code == 0
    assert not (machine.state / "seal.json").exists()
    assert leftovers(machine) == []


def test_a_damaged_identity_is_not_dropped_without_being_told(machine: Machine) -> None:
    inhabited(machine)
    (machine.state / "state/identity.json").write_text("{")
    assert machine.run(*WORDS).code == 27
    assert machine.run(*WORDS, "--force").code == 0
    assert leftovers(machine) == []


def test_a_missing_identity_is_not_dropped_without_being_told(machine: Machine) -> None:
    inhabited(machine)
    (machine.state / "state/identity.json").unlink()
    before = machine.files()
    assert check(machine, "--agent-only")[0] == 27
    done = machine.run(*WORDS)
    assert (done.code, "damaged or missing" in done.out) == (27, True)
    assert machine.files() == before
    assert machine.run(*WORDS, "--force").code == 0
    assert leftovers(machine) == []


def test_a_sealed_image_without_its_identity_file_is_still_sealed(machine: Machine) -> None:
    inhabited(machine, "disconnected")
    assert machine.run(*WORDS).code == 0
    (machine.state / "state/identity.json").unlink()
    code, found = check(machine, "--agent-only")
    assert (code, found["state"]) == (0, "sealed")
    assert machine.run("unseal", "--first-boot", "--json").json["changed"] is True
    assert identity(machine) == "disconnected"


@pytest.mark.parametrize("record", [None, "{", '{"v": 1, "imageId": "web"}'])
def test_a_sealed_image_that_does_not_know_its_name_is_not_clean(machine: Machine, record: str | None) -> None:
    """Its copies could not tell that they are some, nor join."""
    inhabited(machine, "disconnected")
    assert machine.run(*WORDS).code == 0
    path = machine.state / "image.json"
    path.unlink() if record is None else path.write_text(record)
    code, found = check(machine, "--agent-only")
    assert (code, "birth record" in found["error"]["message"]) == (27, True)
    assert machine.run(*WORDS).code == 0
    assert check(machine, "--agent-only")[0] == 0


HALF_WRITTEN = ".{}.4711.0123456789ab.tmp"


@pytest.mark.parametrize(
    "path",
    [
        *(HALF_WRITTEN.format(name) for name in ("image.token", "join.json", "binding.json", "writable")),
        *(
            f"{folder}/{HALF_WRITTEN.format('x')}"
            for folder in ("clouds", "trust", "socks", "certs", "tokens", "state")
        ),
        f"../../lib/GuestConfig/{HALF_WRITTEN.format('x')}",
    ],
)
def test_what_a_killed_command_has_half_written_is_found_and_cleared(machine: Machine, path: str) -> None:
    inhabited(machine, "disconnected")
    assert machine.run(*WORDS).code == 0
    left = machine.state / path
    left.write_text(TOKEN)
    code, found = check(machine, "--agent-only")
    assert (code, [item["identity"] for item in found["wouldClear"]]) == (27, [True])
    assert machine.run(*WORDS).code == 0
    assert not left.exists()
    assert check(machine, "--agent-only")[0] == 0


@pytest.mark.parametrize("folder", ["certs", "tokens", "state", "../../lib/GuestConfig/extensions"])
def test_a_folder_that_is_a_link_is_named_and_sealing_refused(machine: Machine, tmp_path: Path, folder: str) -> None:
    inhabited(machine, "disconnected")
    elsewhere, place = tmp_path / "srv/keys", machine.state / folder
    elsewhere.parent.mkdir()
    place.rename(elsewhere)
    place.symlink_to(elsewhere)
    before = machine.files()
    code, found = check(machine, "--agent-only")
    assert code == 27
    assert [item["identity"] for item in found["wouldClear"] if item["path"] == os.path.normpath(place)] == [True]
    done = machine.run(*WORDS, "--force")
    assert (done.code, "is a link" in done.out) == (27, True)
    assert (machine.files(), place.is_symlink()) == (before, True)


def test_leftovers_of_an_uninstalled_agent_are_a_hazard_that_check_names(machine: Machine) -> None:
    (machine.state / "certs").mkdir()
    (machine.state / "certs/identity-3.key").write_text("secret")
    code, found = check(machine)
    assert code == 27
    assert "certs/identity-3.key" in found["error"]["message"]
    assert [item["identity"] for item in found["wouldClear"]] == [True]
    assert "certs/identity-3.key" in machine.run("seal", "--check").out


def test_what_an_uninstalled_agent_left_on_a_mounted_disk_is_a_cloning_hazard(machine: Machine) -> None:
    inhabited(machine)
    (machine.root / "etc").mkdir(exist_ok=True)
    words = ("seal", "--check", "--root", str(machine.root), "--json")
    done = machine.run(*words)
    assert (done.code, "cloning hazard" in done.json["error"]["message"]) == (27, True)
    (machine.root / "opt/azcmagent").mkdir(parents=True)
    done = machine.run(*words)
    assert (done.code, "is connected" in done.json["error"]["message"]) == (27, True)


def test_check_changes_nothing_and_tells_what_seal_would_clear(machine: Machine) -> None:
    inhabited(machine)
    before = machine.files()
    code, found = check(machine)
    assert (code, found["state"]) == (27, "connected")
    assert machine.files() == before
    named = {Path(item["path"]).relative_to(machine.root).as_posix() for item in found["wouldClear"]}
    assert named >= {f"var/opt/azcmagent/{name}" for name in IDENTITY_FILES}
    cleared = machine.run(*WORDS, "--force", "--json").json["cleared"]
    assert {Path(path).relative_to(machine.root).as_posix() for path in cleared} >= named


def test_the_operating_systems_own_identity_is_looked_at(machine: Machine) -> None:
    inhabited(machine, "disconnected")
    machine.run(*WORDS)
    etc = machine.root / "etc"
    (etc / "ssh").mkdir(parents=True)
    (etc / "machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (etc / "ssh/ssh_host_ed25519_key").write_text("key")
    (etc / "cloud/cloud.cfg.d").mkdir(parents=True)
    (etc / "cloud/cloud.cfg.d/99.cfg").write_text("manual_cache_clean: True\n")
    code, found = check(machine)
    assert code == 27
    assert [item["item"] for item in found["operatingSystem"]] == ["machine id", "SSH host keys"]
    assert any("manual_cache_clean" in warning for warning in found["warnings"])
    assert check(machine, "--agent-only")[0] == 0
    (etc / "machine-id").write_text("uninitialized\n")
    (etc / "ssh/ssh_host_ed25519_key").unlink()
    assert check(machine)[0] == 0


def test_what_extd_keeps_beside_the_azure_linux_agent_is_not_that_agents(tmp_path: Path) -> None:
    folder = tmp_path / "var/lib/waagent"
    folder.mkdir(parents=True)

    def certificate(content: bytes) -> str:
        body = base64.encodebytes(content).decode()
        return f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n"

    (folder / f"{'A' * 40}.crt").write_text(certificate(b"..urn:hawser:machine:0b0c6a52-57f1.." * 3))
    assert image_checks.findings(str(tmp_path)) == []
    for name, content in (("B", certificate(b"..Microsoft..")), ("C", "no certificate")):
        (folder / f"{name * 40}.crt").write_text(content)
    (found,) = image_checks.findings(str(tmp_path))
    assert (found.item, found.path) == ("Azure Linux agent's state", f"/var/lib/waagent/{'B' * 40}.crt")


def test_handlers_in_the_image_are_named_and_lose_what_they_were_given(machine: Machine) -> None:
    inhabited(machine, "disconnected")
    guest, folder = machine.root / "var/lib/GuestConfig", machine.root / "var/lib/waagent/Hawser.CustomScript-1.0.3"
    record = {"publisher": "Hawser", "type": "CustomScript", "version": "1.0.3", "folders": ["1.0.3"]}
    memory = {"handlers": {"x": record}, "results": {}, "certificates": [], "generation": 1, "machine": "x"}
    (guest / "extensions/handlers.json").write_text(json.dumps({"v": 1, **memory}))
    for name in ("config/3.settings", "status/3.status", "mrseq", "handler.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("secret" if name != "handler.py" else "program")
    for name in ("journal.json", "taken.json"):
        (guest / "upgrade").mkdir(exist_ok=True)
        (guest / "upgrade" / name).write_text("secret vmId")
    (item,) = [item for item in check(machine)[1]["operatingSystem"] if item["item"].startswith("extension")]
    assert item == {
        "item": "extension CustomScript 1.0.3",
        "path": "/var/lib/waagent/Hawser.CustomScript-1.0.3",
        "remedy": "azcmagent extension remove --name CustomScript, before the image is sealed",
        "identity": False,
    }
    sealed = machine.run(*WORDS, "--json").json
    assert any("extension CustomScript 1.0.3 still in the image" in warning for warning in sealed["warnings"])
    assert leftovers(machine) == []
    assert (folder / "handler.py").exists()
    assert check(machine, "--agent-only")[0] == 0


@pytest.mark.parametrize("line", ["manual_cache_clean: false", "#manual_cache_clean: true", "x: manual_cache_clean"])
def test_other_settings_draw_no_warning(tmp_path: Path, line: str) -> None:
    (tmp_path / "etc/cloud").mkdir(parents=True)
    (tmp_path / "etc/cloud/cloud.cfg").write_text(f"{line}\n")
    assert image_checks.warnings(str(tmp_path)) == []


def test_links_that_somebody_left_are_removed_and_not_followed(machine: Machine, tmp_path: Path) -> None:
    inhabited(machine, "disconnected")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_text("precious")
    (machine.state / "certs/link").symlink_to(victim)
    os.link(victim, machine.state / "certs/second-name")
    (machine.state / "tokens/folder").symlink_to(tmp_path / "folder")
    os.mkfifo(machine.state / "certs/pipe")
    assert machine.run(*WORDS).code == 0
    assert victim.read_text() == (tmp_path / "folder/file").read_text() == "precious"
    assert os.listdir(machine.state / "certs") == os.listdir(machine.state / "tokens") == []


def test_a_mounted_image_is_sealed_from_outside(machine: Machine, tmp_path: Path) -> None:
    inhabited(machine)
    (machine.root / "etc").mkdir()
    (machine.root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    other = Machine(tmp_path / "host")
    done = other.run(*WORDS, "--root", str(machine.root), "--force")
    assert done.code == 0, done.out
    assert (identity(machine), leftovers(machine)) == ("sealed", [])
    record = json.loads((machine.state / "image.json").read_text())
    assert record["builder"] is None
    assert [item["name"] for item in record["evidence"]] == ["machine_id"]
    assert "first-boot hook" in done.out
    (machine.root / "etc/machine-id").write_text("uninitialized\n")
    again = other.run("seal", "--check", "--root", str(machine.root), "--json")
    assert not any("first-boot hook" in warning for warning in again.json["warnings"])
    assert not (other.state / "image.json").exists()
    assert other.run("unseal", "--first-boot", "--root", str(machine.root)).code == 0
    assert identity(machine) == "disconnected"


def test_files_of_himds_stay_its_own(machine: Machine) -> None:
    inhabited(machine, "disconnected")
    os.chown(machine.state / "state", 12345, 12346)
    assert machine.run(*WORDS).code == 0
    known = (machine.state / "state/identity.json").stat()
    assert (known.st_uid, known.st_gid, stat.S_IMODE(known.st_mode)) == (12345, 12346, 0o600)


def test_a_disk_without_space_leaves_what_there_was(machine: Machine) -> None:
    inhabited(machine, "disconnected")
    before = machine.files()
    done = machine.run(*WORDS, full=True)
    assert done.code == 69
    assert machine.files() == before


def test_no_agent_no_seal(tmp_path: Path) -> None:
    image = Image(places.linux(str(tmp_path)), str(tmp_path), False)
    wish = Wish("x", None, None, False, False, None)
    with pytest.raises(Exception, match="no agent in this image"):
        imaging.seal(image, wish)
    assert list(tmp_path.iterdir()) == []


# Which machine is a copy
