# SPDX-License-Identifier: Apache-2.0
"""The keys that sign access tokens: one at a time, its successor published before, its predecessors as long as tokens
of theirs live.

DATA/keys/token.key, token.crt    the first one
DATA/keys/token-SECONDS.pem       key and certificate of a later one, which signs from that Unix time on

One file is one step, so a rotation is whole or has not begun. What signs is decided from the files and the clock alone:
several hub processes on one data directory agree without talking.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from control_plane import pki
from control_plane.authority.claims import MACHINE_SECONDS
from control_plane.errors import OperatorError
from control_plane.settings import write_file

KEPT_SECONDS = MACHINE_SECONDS + 600
"""How long a key is published after its successor signs: the longest life of a token, and some skew."""
_FILE = re.compile(r"token-(\d{1,12})\.pem")
_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True)
class TokenKey:
    """`signs_from`: Unix seconds; 0: from the beginning."""

    key: rsa.RSAPrivateKey
    certificate: x509.Certificate
    signs_from: int = 0

    @property
    def kid(self) -> str:
        """`kid` and `x5t` of access tokens: SHA-1 of the certificate, as the key set shows it. A name, not a proof."""
        return pki.b64url(self.certificate.fingerprint(hashes.SHA1()))  # noqa: S303


def signing(keys: Sequence[TokenKey], at: float) -> TokenKey:
    """The key that signs now: the youngest whose time has come; before all of them the oldest."""
    return max((item for item in keys if item.signs_from <= at), key=_age, default=min(keys, key=_age))


def published(keys: Sequence[TokenKey], at: float) -> list[TokenKey]:
    """The keys of the key set, the one that signs first: those to come too, those before as long as tokens live."""
    current = signing(keys, at)
    others = [item for item in keys if item is not current and not is_over(keys, item, at)]
    return [current, *sorted(others, key=_age, reverse=True)]


def is_over(keys: Sequence[TokenKey], key: TokenKey, at: float) -> bool:
    """True when the last token that `key` signed has expired."""
    after = [item.signs_from for item in keys if item.signs_from > key.signs_from]
    return bool(after) and min(after) + KEPT_SECONDS <= at


def _age(key: TokenKey) -> tuple[int, str]:
    return key.signs_from, key.kid


def make(folder: Path, tenant_id: str) -> None:
    """The first key of a hub."""
    key, certificate = pki.make_token_key(tenant_id)
    write_file(folder / "token.key", pki.key_pem(key))
    write_file(folder / "token.crt", pki.certificate_pem(certificate))


def add(folder: Path, tenant_id: str, signs_from: int) -> TokenKey:
    """A successor.

    Errors: OperatorError when one was made for that very second.
    """
    path = folder / f"token-{signs_from}.pem"
    if path.exists():
        raise OperatorError("A key for this very second was made already.", "See 'hawser-hub keys list'.")
    key, certificate = pki.make_token_key(tenant_id)
    write_file(path, pki.key_pem(key) + pki.certificate_pem(certificate))
    return TokenKey(key, certificate, signs_from)


def load(folder: Path) -> tuple[TokenKey, ...]:
    """Every key there is, the oldest first.

    Errors: OSError; ValueError when a file is damaged or there is no key.
    """
    found: list[TokenKey] = []
    if (folder / "token.key").exists():
        found.append(_read((folder / "token.key").read_bytes(), (folder / "token.crt").read_bytes(), 0))
    for path in folder.iterdir():
        if match := _FILE.fullmatch(path.name):
            both = path.read_bytes()
            found.append(_read(both, both, int(match[1])))
    if not found:
        raise ValueError("there is no token.key")
    return tuple(sorted(found, key=_age))


def _read(key_pem: bytes, certificate_pem: bytes, signs_from: int) -> TokenKey:
    key = serialization.load_pem_private_key(key_pem, password=None)
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    if not isinstance(key, rsa.RSAPrivateKey) or certificate.public_key() != key.public_key():
        raise ValueError("a token key is of another type, or its certificate belongs to another key")
    return TokenKey(key, certificate, signs_from)


def remove(folder: Path, key: TokenKey) -> None:
    """Take a key away: what it signed is believed no more. The private part goes first."""
    if key.signs_from:
        (folder / f"token-{key.signs_from}.pem").unlink(missing_ok=True)
        return
    (folder / "token.key").unlink(missing_ok=True)
    (folder / "token.crt").unlink(missing_ok=True)


def prune(folder: Path, keys: Sequence[TokenKey], at: float) -> list[TokenKey]:
    """Take away the keys whose last token has expired; which they were."""
    over = [item for item in keys if is_over(keys, item, at)]
    for item in over:
        remove(folder, item)
    return over


class Folder:
    """Reads the keys again when the directory has changed. Safe to use from several threads: the worst is to read
    twice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mark: int | None = None

    def changed(self) -> tuple[TokenKey, ...] | None:
        """The keys, if the directory changed since the last call; a look costs one stat().

        Errors: OSError, ValueError as `load`.
        """
        mark = self.folder.stat().st_mtime_ns
        if mark == self._mark:
            return None
        found = load(self.folder)
        # A clock tick may hold two changes: what is younger than that is looked at again.
        self._mark = mark if time.time_ns() - mark > _SETTLED_NS else None
        return found
