# SPDX-License-Identifier: Apache-2.0
"""Making keys and certificates: the hub's own CA, its TLS certificate, the machine CA, machine certificates.

ECDSA P-256 for the hub's CAs and TLS: every client in identity-and-arm-api.md reads it. Extensions are those that
`ssl.VERIFY_X509_STRICT` (default from Python 3.13) asks for.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from control_plane.errors import ApiError, bad_content

CA_DAYS = 3650
TLS_DAYS = 730
MACHINE_DAYS = 90
BACKDATE = timedelta(days=1)
MIN_RSA_BITS = 2048

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Authority:
    """A CA: certificate and the key that signs with it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def b64url(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def thumbprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER, base64url without padding: the value of `x5t#S256`."""
    return b64url(certificate.fingerprint(hashes.SHA256()))


def key_pem(key: PrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    """PKCS#8 PEM, not encrypted (the file is 0600)."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """PEM of one certificate."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _usage(*, ca: bool, key_encipherment: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, public: object, days: int, at: datetime, until: datetime | None = None
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - BACKDATE)
        .not_valid_after(until or at + timedelta(days=days))
    )


def make_ca(common_name: str, path_length: int = 0) -> Authority:
    """A self-signed CA, ten years, not-before one day back (hosts whose clock is behind). `path_length` 1: it may sign
    its successor."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name)
    certificate = (
        _builder(name, name, key.public_key(), CA_DAYS, datetime.now(UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def cross_sign(old: Authority, new: Authority) -> x509.Certificate:
    """The new CA as an intermediate of the old one, for as long as the old one lives: whoever trusts the old CA alone
    believes what the new one signs."""
    return (
        _builder(
            new.certificate.subject,
            old.certificate.subject,
            new.key.public_key(),
            CA_DAYS,
            datetime.now(UTC),
            until=old.certificate.not_valid_after_utc,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(new.key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(old.key.public_key()), critical=False)
        .sign(old.key, hashes.SHA256())
    )


def subject_alternatives(names: Sequence[str]) -> list[x509.GeneralName]:
    """DNS or IP entries, each once, in the order given."""
    found: list[x509.GeneralName] = []
    for name in dict.fromkeys(names):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def make_tls(ca: Authority, names: Sequence[str]) -> tuple[PrivateKey, x509.Certificate]:
    """Server key and certificate for `names` (the first is the common name)."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(_name(names[0]), ca.certificate.subject, key.public_key(), TLS_DAYS, datetime.now(UTC))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(subject_alternatives(names)), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False)
        .sign(ca.key, hashes.SHA256())
    )
    return key, certificate


def issued_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    """Whether `ca` signed the certificate, by name and by signature."""
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def make_token_key(tenant_id: str) -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
    """RS256 key of the authority and the self-signed certificate that JWKS shows as `x5c`."""
    key = rsa.generate_private_key(65537, 2048)
    name = _name(f"token signing {tenant_id}")
    certificate = _builder(name, name, key.public_key(), CA_DAYS, datetime.now(UTC)).sign(key, hashes.SHA256())
    return key, certificate


def issue_machine(
    ca: Authority, public_key: rsa.RSAPublicKey, client_id: str, vm_id: str, *, encipher: bool = False
) -> x509.Certificate:
    """Certificate of a machine: 90 days, CN = client id, SAN URI `urn:hawser:machine:{vmId}` (docs/protocol.md 3).

    `encipher`: the key is extd's, to which protected settings are encrypted, instead of the identity's.
    """
    purpose = ExtendedKeyUsageOID.EMAIL_PROTECTION if encipher else ExtendedKeyUsageOID.CLIENT_AUTH
    return (
        _builder(_name(client_id), ca.certificate.subject, public_key, MACHINE_DAYS, datetime.now(UTC))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False, key_encipherment=encipher), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"urn:hawser:machine:{vm_id}")]),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False)
        .sign(ca.key, hashes.SHA256())
    )


def read_csr(pem: str, member: str) -> rsa.RSAPublicKey:
    """The public key of a certificate request whose signature proves possession of it.

    Errors: ApiError 400 `InvalidRequestContent` naming `member`.
    """
    try:
        request = x509.load_pem_x509_csr(pem.encode("ascii"))
        key = request.public_key()
        genuine = request.is_signature_valid
    except (ValueError, TypeError, InvalidSignature, UnicodeEncodeError) as error:
        raise bad_content(f"'{member}' is not a PEM certificate request.", member) from error
    if not isinstance(key, rsa.RSAPublicKey) or not MIN_RSA_BITS <= key.key_size <= 8192:
        raise bad_content(f"'{member}' must carry an RSA key of 2048 to 8192 bits.", member)
    if not genuine:
        raise bad_content(f"'{member}' is not signed with the key it carries.", member)
    return key


def public_key_text(key: rsa.RSAPublicKey) -> str:
    """DER SubjectPublicKeyInfo in base64, as `clientPublicKey` carries it (docs/protocol.md 5)."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(der).decode("ascii")


def key_digest(key: rsa.RSAPublicKey) -> str:
    """SHA-256 (hex) of the DER SubjectPublicKeyInfo."""
    return hashlib.sha256(base64.b64decode(public_key_text(key))).hexdigest()


def jwk_thumbprint(x: str) -> str:
    """RFC 7638 thumbprint of an Ed25519 public JWK with member `x`; the hub's `kid` of desired-state keys."""
    return b64url(hashlib.sha256(f'{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}'.encode()).digest())


def desired_jwk(key: ed25519.Ed25519PrivateKey) -> dict[str, str]:
    """Public half of a desired-state key as a JWK with `kid`."""
    x = b64url(key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw))
    return {"kid": jwk_thumbprint(x), "kty": "OKP", "crv": "Ed25519", "x": x}


def expired(certificate: x509.Certificate, at: float) -> ApiError | None:
    """An error when `at` (Unix seconds) is outside the certificate's validity."""
    moment = datetime.fromtimestamp(at, tz=UTC)
    if certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc:
        return None
    return ApiError(401, "InvalidAuthenticationToken", "The certificate is outside its validity period.")
