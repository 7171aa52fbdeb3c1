# SPDX-License-Identifier: Apache-2.0
"""Shared vectors: the agent's side of signed documents and assertions."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import jwt
import pytest
from cryptography import x509

from agent_runtime.workers import documents, keys

VECTORS = pathlib.Path(__file__).parents[2] / "vectors"
DESIRED = json.loads((VECTORS / "desired.json").read_text(encoding="utf-8"))
ASSERTION = json.loads((VECTORS / "assertion.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", DESIRED["cases"], ids=lambda case: str(case["name"]))
def test_document_is_judged_as_the_vector_says(case: dict[str, Any]) -> None:
    context = case["context"]
    answer = documents.verify_for_worker(
        {
            "document": case["document"],
            "keys": DESIRED["keys"],
            "vmId": context["vmId"],
            "kind": context["kind"],
            "floor": context["floor"],
            "now": context["now"],
        }
    )
    assert ("payload" in answer) is case["accept"]
    assert answer.get("refused") == case["reason"]


def test_assertion_has_the_vector_s_header_and_claims(tmp_path: pathlib.Path) -> None:
    for name, member in (("key", "private_key_pem"), ("crt", "certificate_pem")):
        (tmp_path / name).write_text(ASSERTION[member], encoding="ascii")
    answer = keys.sign_assertion(
        {
            "key": str(tmp_path / "key"),
            "certificate": str(tmp_path / "crt"),
            "clientId": ASSERTION["clientId"],
            "audience": ASSERTION["audience"],
            "now": ASSERTION["now"],
            "jti": ASSERTION["jti"],
        }
    )
    certificate = x509.load_pem_x509_certificate(ASSERTION["certificate_pem"].encode())
    claims = jwt.decode(
        answer["assertion"],
        certificate.public_key(),  # type: ignore[arg-type]
        algorithms=["PS256"],
        options={"verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False},
    )
    assert jwt.get_unverified_header(answer["assertion"]) == ASSERTION["header"]
    assert claims == ASSERTION["claims"]


def test_a_key_is_made_once_and_used_again(tmp_path: pathlib.Path) -> None:
    wish = {"path": str(tmp_path / "identity-1.key"), "name": "machine"}
    first = keys.make_key(wish)
    assert keys.make_key(wish)["clientPublicKey"] == first["clientPublicKey"]
    assert (tmp_path / "identity-1.key").stat().st_mode & 0o777 == 0o600
    assert x509.load_pem_x509_csr(first["csr"].encode()).is_signature_valid
