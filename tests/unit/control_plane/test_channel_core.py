# SPDX-License-Identifier: Apache-2.0
"""Slots, check-in bodies and reports: pure functions; the shared vectors. Leases: test_branches.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from control_plane import pki
from control_plane.authority import assertions
from control_plane.channel import checkin, documents, evidence, reports, verdict
from control_plane.channel.branches import Seal
from control_plane.channel.verdict import Slot
from control_plane.errors import ApiError, TokenError
from control_plane.keyring import Keyring
from control_plane.storage.pulse import Pulse

VECTORS = Path(__file__).resolve().parents[2] / "vectors"
DIGEST = "0" * 64
SEAL = Seal(b"key", 1, 1)
REQUEST = "6a0a0b0c-0000-4000-8000-000000000001"


def _body(**changes: Any) -> dict[str, Any]:
    return {
        "protocol": 1,
        "requestId": REQUEST,
        "slot": 1,
        "epoch": 1,
        "nonce": "n1",
        "evidenceDigest": DIGEST,
        "agentVersion": "1.0.0.1",
        "holdSeconds": 300,
        "generations": {},
        **changes,
    }


@pytest.mark.parametrize(
    ("states", "used", "expected"),
    [
        ({1: "current"}, 1, Slot.USABLE),
        ({1: "current", 2: "next"}, 2, Slot.TAKE_OVER),
        ({1: "retired", 2: "current"}, 1, Slot.SUPERSEDED),
        ({1: "current"}, 7, Slot.UNKNOWN),
    ],
)
def test_slots(states: dict[int, str], used: int, expected: Slot) -> None:
    assert verdict.slot(states, used) is expected


def test_take_over_retires_everything_older() -> None:
    after = verdict.taken_over({1: "retired", 2: "current", 3: "next"}, 3)
    assert after == {1: "retired", 2: "retired", 3: "current"}


def test_a_silence_begins_a_new_connection() -> None:
    first, _ = checkin.next_pulse(None, _body(), SEAL, 1, 1000, "a")
    near, _ = checkin.next_pulse(first, _body(), SEAL, 1, 1900, "a")
    far, _ = checkin.next_pulse(near, _body(), SEAL, 1, 2801, "a")
    assert (first.connected_since, near.connected_since, far.connected_since) == (1000, 1000, 2801)


@given(
    st.dictionaries(
        st.sampled_from(list(_body())),
        st.none() | st.booleans() | st.integers() | st.text(max_size=80) | st.lists(st.integers(), max_size=2),
        min_size=1,
    )
)
def test_any_checkin_body_is_taken_or_refused(changes: dict[str, Any]) -> None:
    try:
        checkin.read(_body(**changes))
    except ApiError as error:
        assert error.status == 400  # noqa: PT017 - any input: refused so, or taken
    else:
        checkin.next_pulse(None, _body(**changes), SEAL, 1, 1000, "peer")


@given(st.dictionaries(st.sampled_from(documents.KINDS), st.integers(0, 5)))
def test_only_equal_generations_are_held(known: dict[str, int]) -> None:
    wanted = dict.fromkeys(documents.KINDS, 0)
    assert checkin.differs(wanted, known) == any(known.values())


def test_the_shared_assertion_is_believed() -> None:
    vector = json.loads((VECTORS / "assertion.json").read_text())
    certificate = x509.load_pem_x509_certificate(vector["certificate_pem"].encode())
    header, claims = assertions.read(vector["assertion"])
    assert assertions.matches(header, certificate)
    at = vector["now"]
    who, where = vector["clientId"], [vector["audience"]]
    assertions.verify(vector["assertion"], header, claims, certificate, who, where, at)
    for wrong in (
        (who, where, at + 3600),
        (who, where, at - 3600),
        ("another", where, at),
        (who, ["https://other.example/token"], at),
    ):
        with pytest.raises(TokenError):
            assertions.verify(vector["assertion"], header, claims, certificate, *wrong)
    tampered = vector["assertion"][:-8] + "AAAAAAAA"
    with pytest.raises(TokenError):
        assertions.verify(tampered, header, claims, certificate, who, where, at)


@pytest.mark.parametrize("times", [{"exp": 1789914300.25, "iat": 1.5}, {"exp": "1789914300", "nbf": "1789913700"}])
def test_times_come_as_integers_floats_and_texts(times: dict[str, Any]) -> None:
    vector = json.loads((VECTORS / "assertion.json").read_text())
    certificate = x509.load_pem_x509_certificate(vector["certificate_pem"].encode())
    claims = {name: value for name, value in vector["claims"].items() if name not in ("nbf", "iat", "exp")} | times
    for algorithm in ("PS256", "RS256"):
        padded = vector["x5t_s256"] + "=" * (-len(vector["x5t_s256"]) % 4)
        text = jwt.api_jws.encode(
            json.dumps(claims).encode(), vector["private_key_pem"], algorithm, headers={"x5t#S256": padded}
        )
        header, found = assertions.read(text)
        assert assertions.matches(header, certificate)
        assertions.verify(
            text, header, found, certificate, vector["clientId"], [vector["audience"] + "/"], vector["now"]
        )


@given(st.text(max_size=200))
def test_no_text_breaks_the_reading_of_assertions(text: str) -> None:
    for candidate in (text, f"{text}.{text}.{text}", f"e30.{text}.e30"):
        with pytest.raises(TokenError):
            assertions.read(candidate)


@given(st.dictionaries(st.sampled_from([*reports._TEXTS, *reports._OBJECTS]), st.none() | st.integers() | st.text()))
def test_an_inventory_is_clean_or_refused(data: dict[str, Any]) -> None:
    try:
        kept = reports.inventory(data)
    except ApiError as error:
        assert error.status == 400  # noqa: PT017 - any input: refused so, or taken
    else:
        assert None not in kept.values()


def test_the_hot_row_is_small() -> None:
    pulse = Pulse(10**10, 10**10, 10**6, "n" * 16, "n" * 16, REQUEST, DIGEST, "255.255.255.255", 10)
    size = sum(
        len(value) if isinstance(value, str) else 6
        for value in (getattr(pulse, name) for name in Pulse.__dataclass_fields__)
    )
    assert size < 200


def test_the_shared_evidence_has_the_shared_digests() -> None:
    for case in json.loads((VECTORS / "evidence.json").read_text())["cases"]:
        assert evidence.digest(case["items"]) == case["digest"], case["name"]
        read = evidence.read({"evidence": {"digest": case["digest"], "items": case["items"]}})
        assert read == {"digest": case["digest"], "items": case["items"]}
        with pytest.raises(ApiError):
            evidence.read({"evidence": {"digest": "0" * 64, "items": case["items"]}})


def test_documents_are_signed_like_the_shared_ones() -> None:
    vector = json.loads((VECTORS / "desired.json").read_text())
    good = next(case["document"] for case in vector["cases"] if case["name"] == "good")
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vector["private_seed_hex"]))
    public = jwt.PyJWK({**vector["keys"][0], "alg": "EdDSA"}).key
    options: Any = {"verify_exp": False, "verify_iat": False}
    wanted = jwt.decode(good, public, algorithms=["EdDSA"], options=options)
    made = documents.payload("policy", wanted["machine"], wanted["resourceId"], 7, {"assignments": []}, wanted["iat"])
    assert made == wanted
    keys = Keyring("", pki.make_ca("x"), (), key, b"")
    signed = documents.sign(made, keys)
    assert jwt.decode(signed, public, algorithms=["EdDSA"], options=options) == wanted
    header = jwt.get_unverified_header(signed)
    assert header == {**jwt.get_unverified_header(good), "kid": keys.desired_jwk["kid"]}
    assert keys.desired_jwk["x"] == vector["keys"][0]["x"]
