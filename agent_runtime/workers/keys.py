# SPDX-License-Identifier: Apache-2.0
"""Keys, signing requests and assertions of the machine (docs/protocol.md section 3). Runs in a worker: cryptography
36 or newer."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from agent_runtime import errors
from agent_runtime.state import atomic

KEY_BITS = 3072
ASSERTION_SECONDS = 600


def _load(path: str) -> rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(atomic.read_bytes(path, 65536), password=None)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise errors.CertificateNotObtained(f"the key {path} cannot be read: {error}") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise errors.CertificateNotObtained(f"{path} does not hold an RSA key")
    return key


def make_key(arguments: dict[str, Any]) -> dict[str, Any]:
    """`{"path", "name"}` → `{"csr", "clientPublicKey"}`. A key that is there already is used again: an interrupted
    connect goes on.

    `name` becomes the request's common name; the hub decides what the certificate says.
    """
    path = arguments["path"]
    try:
        key = _kept_key(path)
    except OSError as error:
        raise errors.KeyNotGenerated(f"the key cannot be kept at {path}: {error.strerror}") from None
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, arguments["name"][:64])])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return {
        "csr": request.public_bytes(serialization.Encoding.PEM).decode("ascii"),
        "clientPublicKey": base64.b64encode(public).decode("ascii"),
    }


def _kept_key(path: str) -> rsa.RSAPrivateKey:
    """The key that is at `path` when this returns. Two workers may be at it at once, for the first may outlive a himds
    that was killed: the key that came first stays, because the hub may have certified it. Errors: OSError."""
    while True:
        try:
            return _load(path)
        except FileNotFoundError:
            pass
        except errors.CertificateNotObtained:
            atomic.unlink(path)
        key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        if atomic.create_bytes(path, pem, mode=0o600):
            return key


def thumbprint(certificate: x509.Certificate) -> str:
    """`x5t#S256`: SHA-256 of the certificate, base64url without padding."""
    digest = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def sign_assertion(arguments: dict[str, Any]) -> dict[str, Any]:
    """`{"key", "certificate", "clientId", "audience", "now", "jti", "machine"}` (paths; now in Unix seconds; `machine`:
    the claim `hawser_machine`, if given) → `{"assertion", "vmId"}`; `vmId` is the one that the certificate names, empty
    when it names none."""
    certificate, key = _pair(arguments)
    now = int(arguments["now"])
    claims = {
        "iss": arguments["clientId"],
        "sub": arguments["clientId"],
        "aud": arguments["audience"],
        "jti": arguments["jti"],
        "nbf": now,
        "iat": now,
        "exp": now + ASSERTION_SECONDS,
    }
    headers: dict[str, Any] = {"x5t#S256": thumbprint(certificate)}
    if "machine" in arguments:
        # For a hub that was restored from a backup and does not remember this certificate.
        claims["hawser_machine"] = arguments["machine"]
        der = certificate.public_bytes(serialization.Encoding.DER)
        headers["x5c"] = [base64.b64encode(der).decode("ascii")]
    token = jwt.encode(claims, key, algorithm="PS256", headers=headers)
    return {"assertion": token, "vmId": machine_of(certificate)}


def machine_of(certificate: x509.Certificate) -> str:
    """The vmId in the certificate's SAN (docs/protocol.md section 3); empty when there is none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    prefix = "urn:hawser:machine:"
    found = [
        uri[len(prefix) :]
        for uri in names.get_values_for_type(x509.UniformResourceIdentifier)
        if uri.startswith(prefix)
    ]
    return found[0] if found else ""


def describe_certificate(arguments: dict[str, Any]) -> dict[str, Any]:
    """`{"certificate", "key"}` (paths) → `{"thumbprint", "notBefore", "notAfter"}`; thumbprint is SHA-1 in hex as tools
    show it, times Unix. Errors: CertificateNotObtained, also when it does not belong to the key."""
    certificate, _ = _pair(arguments)

    def unix(name: str) -> int:
        # cryptography 42 gave these names an end that says UTC; the plain ones are going.
        moment: dt.datetime = getattr(certificate, f"{name}_utc", None) or getattr(certificate, name)
        return int(moment.replace(tzinfo=dt.timezone.utc).timestamp())

    sha1 = hashlib.sha1(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()  # noqa: S324 - a name, no proof
    return {
        "thumbprint": sha1.upper(),
        "notBefore": unix("not_valid_before"),
        "notAfter": unix("not_valid_after"),
    }


def own_certificates(arguments: dict[str, Any]) -> dict[str, Any]:
    """`{"key": path, "certificates": {SHA-1 in hex: PEM}}` → `{"own": [those that are certificates of the key, by their
    true thumbprint]}`; what is no certificate is none of ours."""
    key = _load(arguments["key"]).public_key().public_numbers()
    own = []
    for name, pem in arguments["certificates"].items():
        try:
            found = x509.load_pem_x509_certificate(pem.encode("ascii"))
            numbers = found.public_key().public_numbers()  # type: ignore[union-attr]
        except (ValueError, AttributeError):
            continue
        sha1 = hashlib.sha1(found.public_bytes(serialization.Encoding.DER)).hexdigest()  # noqa: S324 - a name, no proof
        if numbers == key and sha1.upper() == name.upper():
            own.append(name)
    return {"own": own}


def _pair(arguments: dict[str, Any]) -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
    key, certificate = _load(arguments["key"]), _certificate(arguments["certificate"])
    if certificate.public_key().public_numbers() != key.public_key().public_numbers():  # type: ignore[union-attr]
        raise errors.CertificateNotObtained("the machine's certificate does not belong to its key")
    return certificate, key


def _certificate(path: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(atomic.read_bytes(path, 65536))
    except (OSError, ValueError) as error:
        raise errors.CertificateNotObtained(f"the certificate {path} cannot be read: {error}") from None
