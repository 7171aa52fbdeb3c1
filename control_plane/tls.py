# SPDX-License-Identifier: Apache-2.0
"""The server's certificate: loaded at the start, exchanged while it serves.

A changed tls.crt or tls.key is taken up by new connections; those that are open stay as they are. Files that do not
belong together are refused with a line in the log, and the old certificate stays. What the hub's own CA did not issue
is the operator's: it is served as it is, and never overwritten.
"""

from __future__ import annotations

import logging
import ssl
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from control_plane import keyring
from control_plane.errors import OperatorError
from control_plane.settings import Settings

log = logging.getLogger("hawser.hub")


class Tls:
    """`context`: what the server is given, for its whole life."""

    def __init__(self, data: Path, settings: Settings) -> None:
        self._data, self._settings = data, settings
        self._files = [keyring.folder(data) / name for name in ("tls.crt", "tls.key")]
        if keyring.renew_tls(data, settings):
            log.info("The TLS certificate was made anew.")
        self._mark = self._marks()
        self.context = self._made()
        self._newest = self.context
        # A certificate cannot be exchanged within a context without a moment in which its key is missing, and a
        # handshake in that moment fails: each one takes the newest context instead, whole or not at all.
        self.context.sni_callback = self._choose

    @property
    def expires(self) -> datetime:
        """End of the certificate in the file.

        Errors: OSError, ValueError.
        """
        return x509.load_pem_x509_certificate(self._files[0].read_bytes()).not_valid_after_utc

    def refresh(self) -> bool:
        """Renew what is due, and load what has changed. True when another certificate is in force.

        Errors: OperatorError; the old one stays in force.
        """
        keyring.renew_tls(self._data, self._settings)
        mark = self._marks()
        if mark == self._mark:
            return False
        self._newest = self._made()
        self._mark = mark
        return True

    def _marks(self) -> list[tuple[int, int]]:
        try:
            return [(found.st_mtime_ns, found.st_ino) for found in (path.stat() for path in self._files)]
        except OSError as error:
            raise self._unusable(error) from error

    def _made(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self._files[0], self._files[1])
            if self.expires < datetime.now(UTC):
                log.warning("The TLS certificate in %s has expired; nobody believes it.", self._files[0])
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise self._unusable(error) from error
        return context

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Called within each handshake, whether a name was asked for or not."""
        connection.context = self._newest

    def _unusable(self, error: Exception) -> OperatorError:
        return OperatorError(
            f"The TLS certificate in {keyring.folder(self._data)} cannot be used ({error}).",
            "Put a certificate and its key there as tls.crt and tls.key, or "
            + (
                "remove both to have the hub's CA issue a pair."
                if self._settings.own_certificate
                else "restore them from the backup."
            ),
        )
