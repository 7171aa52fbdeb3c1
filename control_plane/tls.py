# SPDX-License-Identifier: Apache-2.0
"""The server's certificate: loaded at the start, exchanged while it serves.

A changed tls.crt or tls.key is taken up by new connections; those that are open stay as they are. Files that do not
belong together are refused with a line in the log, and the old certificate stays.
"""

from __future__ import annotations

import logging
import ssl
from datetime import datetime
from pathlib import Path

from cryptography import x509

from control_plane import keyring
from control_plane.errors import OperatorError
from control_plane.settings import Settings

log = logging.getLogger("hawser.hub")


class Tls:
    """`context`: what the server uses, for its whole life."""

    def __init__(self, data: Path, settings: Settings) -> None:
        self._data, self._settings = data, settings
        self._files = [keyring.folder(data) / name for name in ("tls.crt", "tls.key")]
        if keyring.renew_tls(data, settings):
            log.info("The TLS certificate was about to expire and was made anew.")
        self._mark = self._marks()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._load(self.context)

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
        self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))  # the live context is left alone until this has worked
        self._load(self.context)
        self._mark = mark
        return True

    def _marks(self) -> list[tuple[int, int]]:
        try:
            return [(found.st_mtime_ns, found.st_ino) for found in (path.stat() for path in self._files)]
        except OSError as error:
            raise self._unusable(error) from error

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self._files[0], self._files[1])
        except (OSError, ssl.SSLError) as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> OperatorError:
        return OperatorError(
            f"The TLS certificate in {keyring.folder(self._data)} cannot be used ({error}).",
            "Put a certificate and its key there as tls.crt and tls.key, or restore them from the backup.",
        )
