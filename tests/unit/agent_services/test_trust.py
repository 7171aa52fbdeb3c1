# SPDX-License-Identifier: Apache-2.0
"""Trust anchors that the hub puts in the place of a profile's: the pure rules, and root's services as processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.identity import trust
from agent_runtime.workers import documents
from control_plane import pki
from tests.unit.agent_services.courier import Courier, Machine, Service, b64, sign
from tests.waiting import until

JSON = st.dictionaries(st.text(max_size=8), st.text(max_size=20) | st.integers() | st.none(), max_size=4)


def ca(name: str) -> str:
    return pki.certificate_pem(pki.make_ca(name).certificate).decode()


def jwk(key: Ed25519PrivateKey, kid: str) -> dict[str, str]:
    return {"kid": kid, "kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key().public_bytes_raw())}


@given(JSON, JSON)
def test_only_the_profile_it_was_made_over(profile: dict[str, Any], other: dict[str, Any]) -> None:
    made = trust.overlay(profile, 3, {"caPem": _PEM, "desiredStateKeys": [{"kid": "new"}]})
    assert trust.effective(profile, made)["ca_pem"] == _PEM
    changed = {**profile, "ca_pem": "another"}
    assert trust.effective(changed, made) == changed
    assert trust.effective(profile, other) == profile
    assert trust.effective(profile, None) == profile


_PEM = ca("fingerprints")


def test_fingerprints_are_those_of_the_certificates() -> None:
    authorities = [pki.make_ca(f"ca {number}") for number in range(3)]
    bundle = "".join(pki.certificate_pem(item.certificate).decode() for item in authorities)
    told = documents.anchors({"caPem": bundle, "desiredStateKeys": [jwk(Ed25519PrivateKey.generate(), "k")]})
    assert told["caSha256"] == [item.certificate.fingerprint(hashes.SHA256()).hex() for item in authorities]


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"caPem": "", "desiredStateKeys": [{}]},
        {"caPem": _PEM, "desiredStateKeys": []},
        {"caPem": _PEM, "desiredStateKeys": "k"},
    ],
)
def test_anchors_that_trust_nobody_are_refused(content: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="holds no"):
        trust.overlay({}, 1, content)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def overlay(machine: Machine) -> dict[str, Any] | None:
    path = machine.state / "trust/demo.json"
    return json.loads(path.read_text()) if path.exists() else None


@pytest.mark.parametrize(("package", "enabled"), [("policy", True), ("extensions", True), ("policy", False)])
def test_a_rotation_is_adopted_and_obeyed(machine: Machine, package: str, enabled: bool) -> None:
    """New keys are in force at once, old ones are not; also where the service itself is switched off."""
    if not enabled:
        machine.configure(guestconfiguration_enabled="false")
    courier, new_key = Courier(machine), Ed25519PrivateKey.generate()
    content = {"caPem": ca("new"), "desiredStateKeys": [jwk(new_key, "k2")]}
    with Service(machine, package) as service:
        courier.welcome()
        courier.push(sign(machine.key, kind="trust", generation=2, content=content), "trust", 2)
        told = courier.report()
        assert told["kind"] == "trust"
        assert told["data"]["generation"] == 2
        assert told["data"]["kids"] == ["k2"]
        assert len(told["data"]["caSha256"]) == 1
        found = overlay(machine)
        assert found is not None
        assert found["ca_pem"] == content["caPem"]
        assert (machine.state / "trust/demo.json").stat().st_mode & 0o777 == 0o644
        # The old key may sign nothing any more, least of all new anchors.
        courier.push(sign(machine.key, kind="trust", generation=3, content={**content, "caPem": ca("x")}), "trust", 3)
        refused = courier.report()["data"]["desired"]
        assert refused == {"kind": "trust", "accepted": False, "reason": "signature"}
        assert overlay(machine) == found
        assert service.stop() == 0


@pytest.mark.parametrize(
    "content",
    [
        {"caPem": "", "desiredStateKeys": []},
        {"caPem": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "desiredStateKeys": [{"kid": "a"}]},
        {"caPem": _PEM, "desiredStateKeys": [{"kid": "a", "kty": "OKP", "crv": "Ed25519", "x": "short"}]},
    ],
)
def test_anchors_that_cannot_be_used_change_nothing(machine: Machine, content: dict[str, Any]) -> None:
    courier = Courier(machine)
    with Service(machine, "policy") as service:
        courier.welcome()
        courier.push(sign(machine.key, kind="trust", generation=2, content=content), "trust", 2)
        assert courier.report()["data"]["desired"]["reason"] == "malformed"
        assert overlay(machine) is None
        assert service.stop() == 0


def test_an_older_generation_does_not_come_back(machine: Machine) -> None:
    """Whoever holds the courier cannot bring back anchors that were retired."""
    courier = Courier(machine)
    keys = [json.loads((machine.state / "clouds/demo.json").read_text())["desired_state_keys"][0]]
    old, new = ({"caPem": ca(name), "desiredStateKeys": keys} for name in ("old", "new"))
    with Service(machine, "policy") as service:
        courier.welcome()
        courier.push(sign(machine.key, kind="trust", generation=5, content=new), "trust", 5)
        assert courier.report()["data"]["generation"] == 5
        courier.push(sign(machine.key, kind="trust", generation=4, content=old), "trust", 4)
        assert courier.report()["data"]["desired"]["reason"] == "generation"
        assert (overlay(machine) or {})["ca_pem"] == new["caPem"]
        assert service.stop() == 0


def test_killed_between_the_steps_it_is_adopted_by_the_next(machine: Machine) -> None:
    courier = Courier(machine)
    keys = [json.loads((machine.state / "clouds/demo.json").read_text())["desired_state_keys"][0]]
    content = {"caPem": ca("new"), "desiredStateKeys": keys}
    with Service(machine, "policy") as service:
        courier.welcome()
        service.kill()
    queue = machine.folder("policy") / "queue"
    queue.mkdir(parents=True, exist_ok=True)
    (queue / "trust.jws").write_text(sign(machine.key, kind="trust", generation=2, content=content))
    with Service(machine, "policy") as service:
        courier.welcome()
        until(lambda: overlay(machine) is not None)
        assert service.stop() == 0
