# SPDX-License-Identifier: Apache-2.0
"""Keys of the machine: made once, whoever else is making them."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from agent_runtime import errors
from agent_runtime.workers import keys


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "KEY_BITS", 2048)


def made(path: Path) -> rsa.RSAPublicNumbers:
    request = x509.load_pem_x509_csr(keys.make_key({"path": str(path), "name": "client"})["csr"].encode())
    public = request.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    return public.public_numbers()


def certify(key: Path, certificate: Path) -> None:
    """A certificate of its own for the key in a file."""
    private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    assert isinstance(private, rsa.RSAPrivateKey)
    name, begins = x509.Name([]), dt.datetime.fromtimestamp(1_800_000_000, dt.timezone.utc)  # noqa: UP017 - runs on 3.9
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
    builder = builder.public_key(private.public_key()).not_valid_before(begins)
    made = builder.not_valid_after(begins + dt.timedelta(days=90)).sign(private, hashes.SHA256())
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))


def test_a_key_that_is_there_is_used_again(tmp_path: Path) -> None:
    path = tmp_path / "identity-2.key"
    assert made(path) == made(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_nlink == 1
    assert os.listdir(tmp_path) == [path.name]


def test_the_key_that_came_first_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker of a himds that was killed is still busy when the next himds asks for the same key."""
    path, real = tmp_path / "identity-2.key", rsa.generate_private_key
    first: list[rsa.RSAPublicNumbers] = []

    def slow(*args: Any, **kwargs: Any) -> rsa.RSAPrivateKey:
        monkeypatch.setattr(rsa, "generate_private_key", real)
        first.append(made(path))
        return real(*args, **kwargs)

    monkeypatch.setattr(rsa, "generate_private_key", slow)
    assert made(path) == first[0]
    assert made(path) == first[0]
    assert os.listdir(tmp_path) == [path.name]


def test_a_damaged_key_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "identity-2.key"
    path.write_bytes(b"-----BEGIN")
    assert made(path) == made(path)


def test_a_folder_that_takes_no_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.KeyNotGenerated, match="cannot be kept"):
        made(tmp_path / "missing" / "identity-2.key")


def test_a_certificate_of_another_key_is_refused(tmp_path: Path) -> None:
    """Before it is put in force, not at the next check-in."""
    path, other, certificate = (tmp_path / name for name in ("identity-2.key", "other.key", "identity-2.crt"))
    made(path)
    made(other)
    certify(other, certificate)
    with pytest.raises(errors.CertificateNotObtained, match="does not belong to its key"):
        keys.describe_certificate({"certificate": str(certificate), "key": str(path)})
    about = keys.describe_certificate({"certificate": str(certificate), "key": str(other)})
    assert about["notAfter"] - about["notBefore"] == 90 * 86400
    assert about["notBefore"] == 1_800_000_000
