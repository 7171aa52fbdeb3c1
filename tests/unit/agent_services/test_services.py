# SPDX-License-Identifier: Apache-2.0
"""gcad and extd as real processes, against a courier that may lie (docs/protocol.md sections 7, 10, 12)."""

from __future__ import annotations

import json
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.unit.agent_services.courier import VM_ID, Courier, Machine, Service, sign
from tests.waiting import until

OTHER = "99999999-57f1-4f11-9d6d-0f3f9d1d2c3b"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_signed_document_is_kept_and_outlives_the_process(machine: Machine) -> None:
    with Courier(machine) as courier:
        with Service(machine, "policy") as gcad:
            hello = courier.welcome()
            assert (hello["verb"], hello["args"]["service"]) == ("hello", "gcad")
            assert (hello["args"]["machine"], hello["args"]["settingsCsr"]) == (None, None)
            document = sign(machine.key, generation=7)
            courier.push(document, generation=7)
            until(lambda: machine.kept("policy", "policy") == document, "document kept")
            until(lambda: not (machine.folder("policy") / "queue/policy.jws").exists(), "queue empty")
            assert gcad.stop() == 0
        floors = json.loads((machine.folder("policy") / "floor.json").read_text())
        assert floors == {"v": 1, "floors": {VM_ID: {"policy": 7}}}
        assert stat.S_IMODE(machine.folder("policy").stat().st_mode) == 0o700
        with Service(machine, "policy") as gcad:
            courier.welcome()
            assert machine.kept("policy", "policy") == document
            older = sign(machine.key, generation=6)
            courier.push(older, generation=8)
            report = courier.report()
            assert report == {
                "kind": "policy",
                "data": {"desired": {"kind": "policy", "accepted": False, "reason": "generation"}},
            }
            assert machine.kept("policy", "policy") == document
            assert gcad.stop() == 0
    assert "older than one accepted before" in machine.log("policy")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"machine": OTHER}, "machine"),
        ({"kind": "extensions"}, "kind"),
        ({"exp": 1}, "expired"),
        ({"content": []}, "malformed"),
        (None, "signature"),
    ],
)
def test_a_document_that_root_must_not_obey_is_refused(
    machine: Machine, change: dict[str, object] | None, reason: str
) -> None:
    document = sign(Ed25519PrivateKey.generate()) if change is None else sign(machine.key, **change)
    with Courier(machine) as courier, Service(machine, "policy") as gcad:
        courier.welcome()
        courier.push(document)
        assert courier.report()["data"]["desired"]["reason"] == reason
        assert machine.kept("policy", "policy") is None
        # It may be the clock that is wrong.
        left = ["policy.jws"] if reason == "expired" else []
        until(lambda: [path.name for path in (machine.folder("policy") / "queue").iterdir()] == left, "acknowledged")
        assert gcad.stop() == 0
    assert not (machine.folder("policy") / "floor.json").exists()
    assert machine.log("policy").count("is refused") == 1


def test_without_a_binding_nothing_is_obeyed_and_what_was_kept_goes(machine: Machine) -> None:
    with Courier(machine) as courier, Service(machine, "policy"):
        courier.welcome()
        courier.push(sign(machine.key))
        until(lambda: machine.kept("policy", "policy"), "document kept")
        machine.unbind()
        courier.send({"v": 1, "push": "config"})
        until(lambda: machine.kept("policy", "policy") is None, "document dropped")
        courier.push(sign(machine.key, generation=2))
        assert courier.report()["data"]["desired"]["reason"] == "unbound"


def test_a_disabled_service_waits_and_a_enabled_one_goes_on(machine: Machine) -> None:
    machine.configure(guestconfiguration_enabled=False)
    with Courier(machine) as courier, Service(machine, "policy"):
        courier.welcome()
        courier.push(sign(machine.key))
        until((machine.folder("policy") / "queue/policy.jws").exists, "document queued")
        machine.configure()
        courier.send({"v": 1, "push": "config"})
        until(lambda: machine.kept("policy", "policy"), "document kept once enabled")
    assert "disabled by the local configuration" in machine.log("policy")


def test_a_kill_between_push_and_verdict_loses_nothing(machine: Machine) -> None:
    machine.configure(guestconfiguration_enabled=False)
    document = sign(machine.key, generation=3)
    with Courier(machine) as courier:
        with Service(machine, "policy") as gcad:
            courier.welcome()
            courier.push(document)
            until((machine.folder("policy") / "queue/policy.jws").exists, "document queued")
            gcad.kill()
        machine.configure()
        with Service(machine, "policy"):
            courier.welcome()
            until(lambda: machine.kept("policy", "policy") == document, "document kept after the kill")


def test_noise_costs_the_connection_and_nothing_else(machine: Machine) -> None:
    with Courier(machine) as courier, Service(machine, "policy") as gcad:
        courier.welcome()
        courier.raw(struct.pack(">I", 1 << 30) + b"hello")
        courier.welcome()
        courier.push(sign(machine.key))
        until(lambda: machine.kept("policy", "policy"), "document kept after the noise")
        assert gcad.stop() == 0


def test_a_second_process_steps_back(machine: Machine) -> None:
    with Courier(machine) as courier, Service(machine, "policy"):
        courier.welcome()
        with Service(machine, "policy") as second:
            assert second.process.wait(30) == 1


def test_extd_makes_its_own_key_once(machine: Machine) -> None:
    with Courier(machine) as courier:
        with Service(machine, "extensions") as extd:
            offer = courier.welcome()["args"]
            assert offer["machine"] == VM_ID
            first = offer["settingsCsr"]
            for kind in ("extensions", "runcommands", "agent"):
                courier.push(sign(machine.key, kind=kind), kind=kind)
            until(lambda: machine.kept("extensions", "agent"), "documents kept")
            assert machine.kept("extensions", "extensions")
            assert machine.kept("extensions", "runcommands")
            assert extd.stop() == 0
        with Service(machine, "extensions"):
            assert courier.welcome()["args"]["settingsCsr"] == first
    request = x509.load_pem_x509_csr(first.encode())
    assert request.is_signature_valid
    key = machine.folder("extensions") / "keys/settings.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700


def key_of(machine: Machine) -> bytes:
    return (machine.folder("extensions") / "keys/settings.key").read_bytes()


def test_without_a_binding_extd_has_no_key_and_makes_one_when_it_is_bound(machine: Machine) -> None:
    machine.unbind()
    with Courier(machine) as courier, Service(machine, "extensions") as extd:
        courier.state = "disconnected"
        hello = courier.welcome()["args"]
        assert (hello["machine"], hello["settingsCsr"]) == (None, None)
        assert not (machine.folder("extensions") / "keys").exists()
        machine.bind(OTHER)
        courier.tell("connecting")
        again = courier.receive()
        assert (again["verb"], again["args"]["machine"]) == ("hello", OTHER)
        assert x509.load_pem_x509_csr(again["args"]["settingsCsr"].encode()).is_signature_valid
        assert extd.stop() == 0


@pytest.mark.parametrize("note", [{"v": 1, "machine": OTHER}, {"v": 1, "machine": 7}, None])
def test_a_key_that_was_not_made_for_this_machine_is_replaced_with_its_copies(
    machine: Machine, note: dict[str, object] | None
) -> None:
    """A disk was copied with its key; beside the copies lies what the vendor's agent keeps there."""
    keys, handlers = machine.folder("extensions") / "keys", machine.root / "var/lib/waagent"
    keys.mkdir(parents=True)
    handlers.mkdir(parents=True)
    for name in ("settings.key", "settings.csr"):
        (keys / name).write_text("of the original")
    if note is not None:
        (keys / "machine.json").write_text(json.dumps(note))
    ours, installed, theirs = "A" * 40, "B" * 40, "C" * 40
    for thumbprint in (ours, installed, theirs):
        for ending in ("crt", "prv"):
            (handlers / f"{thumbprint}.{ending}").write_text("of the original")
    record = {"publisher": "Test", "type": "Fake", "extensions": {"fake": {"thumbprint": installed}}}
    known = {"handlers": {"test.fake": record}, "results": {}, "certificates": [ours], "generation": 1, "machine": "x"}
    (machine.folder("extensions") / "handlers.json").write_text(json.dumps({"v": 1, **known}))
    with Courier(machine) as courier, Service(machine, "extensions") as extd:
        courier.state = "parked"
        hello = courier.welcome()["args"]
        assert hello["machine"] == VM_ID
        request = x509.load_pem_x509_csr(hello["settingsCsr"].encode())
        key = serialization.load_pem_private_key(key_of(machine), password=None)
        assert request.public_key() == key.public_key()
        assert extd.stop() == 0
    assert {path.name for path in handlers.iterdir()} == {f"{theirs}.crt", f"{theirs}.prv"}
    assert json.loads((keys / "machine.json").read_text()) == {"v": 1, "machine": VM_ID}


def test_a_key_without_a_note_stays_where_the_former_version_served_this_machine(machine: Machine) -> None:
    keys = machine.folder("extensions") / "keys"
    with Courier(machine) as courier, Service(machine, "extensions") as extd:
        first = courier.welcome()["args"]["settingsCsr"]
        assert extd.stop() == 0
    before = key_of(machine)
    (keys / "machine.json").unlink()
    known = {"handlers": {}, "results": {}, "certificates": [], "generation": 1, "machine": VM_ID}
    (machine.folder("extensions") / "handlers.json").write_text(json.dumps({"v": 1, **known}))
    with Courier(machine) as courier, Service(machine, "extensions") as extd:
        assert courier.welcome()["args"]["settingsCsr"] == first
        assert extd.stop() == 0
    assert key_of(machine) == before
    assert json.loads((keys / "machine.json").read_text()) == {"v": 1, "machine": VM_ID}


def test_the_key_changes_with_the_machine_that_is_bound(machine: Machine) -> None:
    with Courier(machine) as courier, Service(machine, "extensions") as extd:
        first = courier.welcome()["args"]["settingsCsr"]
        before = key_of(machine)
        machine.unbind()
        courier.tell("disconnected")
        assert courier.receive()["args"]["settingsCsr"] is None
        machine.bind(OTHER)
        courier.tell("connecting")
        second = courier.receive()["args"]
        assert (second["machine"], second["settingsCsr"] == first) == (OTHER, False)
        assert key_of(machine) != before
        assert extd.stop() == 0


def test_residents_import_the_standard_library_only() -> None:
    code = (
        "import sys\nbefore=set(sys.modules)\nimport agent_runtime.policy.__main__, agent_runtime.extensions.__main__\n"
        "tops={n.partition('.')[0] for n in set(sys.modules)-before}\n"
        "print(sorted(t for t in tops if t not in sys.stdlib_module_names and t!='agent_runtime'))\n"
        "print({'asyncio','threading','inspect','ssl','_hashlib','cryptography','jwt'} & set(sys.modules) or [])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]
