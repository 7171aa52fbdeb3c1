# SPDX-License-Identifier: Apache-2.0
"""The certificate is exchanged under running handshakes."""

from __future__ import annotations

import ssl
import threading
from pathlib import Path

from click.testing import CliRunner
from cryptography import x509

from control_plane import keyring, settings
from control_plane.cli import main
from control_plane.tls import Tls

URL = "https://hub.example:8443"


def presented(server: ssl.SSLContext, client: ssl.SSLContext, name: str | None) -> bytes:
    """The certificate (DER) that a handshake in memory shows.

    Errors: ssl.SSLError.
    """
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours, theirs = server.wrap_bio(there, back, server_side=True), client.wrap_bio(back, there, server_hostname=name)
    for _ in range(10):
        waiting = 0
        for side in (theirs, ours):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                waiting += 1
        if not waiting:
            break
    shown = theirs.getpeercert(binary_form=True)
    assert shown is not None
    return shown


def test_every_handshake_succeeds_while_the_certificate_is_exchanged(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert CliRunner().invoke(main, ["--data", str(data), "init", "--url", URL]).exit_code == 0
    known = settings.load(data)
    tls = Tls(data, known)
    client = ssl.create_default_context(cafile=str(keyring.ca_file(data)))
    nameless = ssl.create_default_context(cafile=str(keyring.ca_file(data)))
    nameless.check_hostname = False
    exchanged, ended = [0], threading.Event()

    def exchange() -> None:
        ca = keyring.authority(data, "ca")
        while not ended.is_set():
            keyring.issue_tls(data, known, ca)
            exchanged[0] += tls.refresh()

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        seen = {presented(tls.context, client, "hub.example") for _ in range(400)}
        seen |= {presented(tls.context, nameless, None) for _ in range(400)}
    finally:
        ended.set()
        thread.join()
    assert exchanged[0] > 10
    assert len(seen) > 10
    newest = x509.load_pem_x509_certificate((data / "keys/tls.crt").read_bytes())
    shown = presented(tls.context, client, "hub.example")
    assert x509.load_der_x509_certificate(shown) == newest
