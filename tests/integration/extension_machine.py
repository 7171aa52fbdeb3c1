# SPDX-License-Identifier: Apache-2.0
"""A machine whose extension service is played: it fetches its document and reports as docs/protocol.md section 15
says. It carries nothing out. And a catalogue of packages, put there as the artefacts' publisher does."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from control_plane.hub import open_database
from control_plane.storage import catalogue
from tests.integration.hub_machine import Machine, make_csr, make_key, payload_of
from tests.integration.hub_process import HubProcess


def package(publisher: str, kind: str, version: str, **changes: Any) -> dict[str, Any]:
    """A package for Linux, any architecture, as the catalogue's publisher hands it over."""
    found: dict[str, Any] = {
        "publisher": publisher,
        "type": kind,
        "version": version,
        "os": "linux",
        "arch": "any",
        "length": 4096,
        "sha256": "ab" * 32,
        "supportsMultipleExtensions": False,
        **changes,
    }
    arch = "" if found["arch"] == "any" else f"-{found['arch']}"
    return {**found, "path": f"extensions/{publisher}.{kind}/{version}/{found['os']}{arch}.zip"}


def catalogue_of(hub: HubProcess, packages: Sequence[dict[str, Any]]) -> None:
    """Publish exactly these, from another process than the hub's."""
    database = open_database(hub.data)
    try:
        with database.write() as session:
            catalogue.replace(session, packages)
    finally:
        database.close()


class ExtensionMachine(Machine):
    """`settings_key`: extd's own, whose certificate protected settings are encrypted to."""

    settings_key: rsa.RSAPrivateKey

    @classmethod
    def connected(cls, hub: HubProcess, name: str, token: str, *, certificate: bool = True) -> ExtensionMachine:
        """Connected, a Linux machine by its inventory, with a certificate for settings unless it is to have none."""
        made = cls(hub, name)
        made.settings_key = make_key()
        assert made.put(token).status_code == 200
        csr = make_csr(made.settings_key) if certificate else None
        for answer in (made.enrol(token, settingsCsr=csr), made.ask_token(), made.checkin()):
            assert answer.status_code == 200, answer.text
        inventory = {"osType": "linux", "detectedProperties": {"architecture": "x86_64"}}
        assert made.report("inventory", inventory).status_code == 200
        return made

    def payload(self) -> dict[str, Any]:
        """The newest document of kind `extensions`."""
        answer = self.desired("extensions")
        assert answer.status_code == 200, answer.text
        return payload_of(answer.json()["document"])

    def content(self) -> dict[str, Any]:
        """What shall be on the machine."""
        found: dict[str, Any] = self.payload()["content"]
        return found

    def item(self, wanted: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """What is reported of an extension of the document; carried out with success unless `changes` say otherwise."""
        return {
            **{name: wanted[name] for name in ("name", "publisher", "type", "version", "sequence")},
            "state": "succeeded",
            "operation": "enable",
            "code": 0,
            "message": "",
            "handler": {"status": "Ready", "code": 0, "message": ""},
            "status": None,
            "at": "2026-11-28T10:00:00Z",
            **changes,
        }

    def report_items(self, generation: int, items: Sequence[dict[str, Any]]) -> None:
        """One report."""
        answer = self.report("extensions", {"generation": generation, "extensions": list(items)})
        assert answer.status_code == 200, answer.text

    def report_all(self, **changes: Any) -> None:
        """The newest document as it is being carried out, or was."""
        document = self.payload()
        items = [self.item(wanted, **changes) for wanted in document["content"]["extensions"]]
        self.report_items(document["generation"], items)

    def opened(self, item: dict[str, Any], certificates: dict[str, str], folder: Path) -> bytes:
        """Protected settings of an item, as handlers read them: by the openssl command."""
        thumbprint = item["protectedSettingsCertThumbprint"]
        key = self.settings_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / f"{thumbprint}.crt").write_text(certificates[thumbprint])
        (folder / f"{thumbprint}.prv").write_bytes(key)
        done = subprocess.run(
            [
                *("openssl", "cms", "-decrypt", "-inform", "DER"),
                *("-recip", str(folder / f"{thumbprint}.crt"), "-inkey", str(folder / f"{thumbprint}.prv")),
            ],
            input=base64.b64decode(item["protectedSettings"]),
            capture_output=True,
            check=True,
            timeout=30,
        )
        return done.stdout
