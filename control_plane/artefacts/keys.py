# SPDX-License-Identifier: Apache-2.0
"""Keys of the repository, all Ed25519. Root and targets are the operator's, in a folder of theirs; snapshot and
timestamp are the hub's, in DATA/keys (`tuf-snapshot.key`, `tuf-timestamp.key`; `-next`: not in force yet)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Root

from control_plane import keyring, pki
from control_plane.errors import OperatorError
from control_plane.settings import write_file

OFFLINE = ("root", "targets")
ONLINE = ("snapshot", "timestamp")


def make(folder: Path, roles: tuple[str, ...], passphrase: bytes | None) -> dict[str, str]:
    """An operator's keys: ROLE.key (PKCS#8, 0600) and ROLE.pub in a folder. Returns key ids by role.

    Errors: OperatorError; a key that is there is never overwritten.
    """
    for role in roles:
        if (folder / f"{role}.key").exists():
            raise OperatorError(f"There is a {folder / f'{role}.key'} already.", "Name another folder.")
    made: dict[str, str] = {}
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for role in roles:
            key = ed25519.Ed25519PrivateKey.generate()
            hidden = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
            public = key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            # The public half first: where there is a private one, nothing is missing.
            write_file(folder / f"{role}.pub", public, 0o644)
            private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)
            write_file(folder / f"{role}.key", private)
            made[role] = SSlibKey.from_crypto(key.public_key()).keyid
    except OSError as error:
        raise OperatorError(
            f"{folder} cannot be written ({error.strerror}).", "Name a folder that may be written and has space."
        ) from error
    return made


def public(path: Path) -> SSlibKey:
    """The public key in a file.

    Errors: OperatorError.
    """
    remedy = "Give the .pub file that 'hawser-hub artefacts keys DIR' made."
    try:
        found = serialization.load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise OperatorError(f"{path} cannot be read ({error.strerror}).", remedy) from error
    except ValueError as error:
        raise OperatorError(f"{path} holds no public key.", remedy) from error
    if not isinstance(found, ed25519.Ed25519PublicKey):
        raise OperatorError(f"{path} holds a key of another type than Ed25519.", remedy)
    return SSlibKey.from_crypto(found)


def signers(folder: Path, role: str, passphrase: Callable[[Path], bytes]) -> list[CryptoSigner]:
    """The operator's keys of a role: ROLE*.key of a folder. `passphrase`: asked for a file that is encrypted.

    Errors: OperatorError: a key cannot be read, or the passphrase is wrong.
    """
    found = []
    for path in sorted(folder.glob(f"{role}*.key")):
        if path.stat().st_mode & 0o077:
            raise OperatorError(f"{path} can be read by others.", f"Run: chmod 600 {path}")
        found.append(CryptoSigner(_private(path, passphrase)))
    return found


def _private(path: Path, passphrase: Callable[[Path], bytes]) -> ed25519.Ed25519PrivateKey:
    try:
        content = path.read_bytes()
        try:
            key = serialization.load_pem_private_key(content, None)
        except TypeError:  # it is encrypted
            key = serialization.load_pem_private_key(content, passphrase(path))
    except OSError as error:
        raise OperatorError(f"{path} cannot be read ({error.strerror}).", "Run as its owner.") from error
    except ValueError as error:
        raise OperatorError(
            f"{path} is no private key, or the passphrase is another one.", "Check the passphrase and the file."
        ) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise OperatorError(f"{path} holds a key of another type than Ed25519.", "Use a key of 'artefacts keys'.")
    return key


def _file(data: Path, role: str, suffix: str = "") -> Path:
    return keyring.folder(data) / f"tuf-{role}{suffix}.key"


def _unasked(path: Path) -> bytes:
    raise OperatorError(f"{path} is encrypted.", "The hub's own keys have no passphrase; restore DATA/keys.")


def _online(data: Path, role: str) -> list[CryptoSigner]:
    files = [_file(data, role), _file(data, role, "-next")]
    return [CryptoSigner(_private(path, _unasked)) for path in files if path.exists()]


def make_online(data: Path, suffix: str = "") -> dict[str, SSlibKey]:
    """The hub's keys; those that are there are used again. `suffix` `-next`: successors."""
    found = {}
    for role in ONLINE:
        path = _file(data, role, suffix)
        if not path.exists():
            write_file(path, pki.key_pem(ed25519.Ed25519PrivateKey.generate()))
        found[role] = CryptoSigner(_private(path, _unasked)).public_key
    return found


def online_signers(data: Path, role: str, *roots: Root) -> list[CryptoSigner]:
    """The hub's keys that any of the roots knows for that role; empty: this hub does not sign, it only serves."""
    known = {keyid for root in roots for keyid in root.roles[role].keyids}
    return [signer for signer in _online(data, role) if signer.public_key.keyid in known]


def settle_online(data: Path, root: Root) -> None:
    """Once a root is in force that knows the successor of a key alone, the successor takes its place."""
    for role in ONLINE:
        after = _file(data, role, "-next")
        if after.exists() and CryptoSigner(_private(after, _unasked)).public_key.keyid in root.roles[role].keyids:
            os.replace(after, _file(data, role))
