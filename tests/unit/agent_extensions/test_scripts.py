# SPDX-License-Identifier: Apache-2.0
"""Workers of run commands: scripts over https, and envelopes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_runtime import errors
from agent_runtime.workers import keys, scripts
from tests.unit.agent.package_source import Source
from tests.unit.agent_extensions.kit import Site, certificate_of, envelope


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    """A server whose CA the system trusts."""
    made = Source(tmp_path)
    (tmp_path / "ca.pem").write_text(made.ca_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    yield made
    made.close()


def fetch(source: Source, path: Path, name: str = "run.sh") -> dict[str, object]:
    return scripts.fetch_script({"url": f"{source.url}/{name}?sig=s3cret", "proxy": None, "path": str(path)})


def test_a_script_is_fetched_for_root_alone(source: Source, tmp_path: Path) -> None:
    source.files["run.sh?sig=s3cret"] = b"#!/bin/sh\n"
    assert fetch(source, tmp_path / "script") == {"length": 10}
    assert (tmp_path / "script").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "script").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("missing", errors.NetworkFailed, "status 404"),
        ("long", errors.ExtensionFailed, "longer than 1 MiB"),
    ],
)
def test_a_script_that_cannot_be_had(
    source: Source, tmp_path: Path, name: str, kind: type[errors.AgentError], told: str
) -> None:
    source.files["long?sig=s3cret"] = bytes(scripts.LIMIT + 1)
    with pytest.raises(kind, match=told) as found:
        fetch(source, tmp_path / "script", name)
    assert "s3cret" not in found.value.message
    assert not (tmp_path / "script").exists()


def test_a_server_that_the_system_does_not_trust(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(errors.NetworkFailed, match="the certificate is not trusted"):
        fetch(source, tmp_path / "script")


@pytest.mark.parametrize("to", ["http://127.0.0.1:1/x", "file:///etc/passwd", "?sig=s3cret"])
def test_a_redirection_away_from_https_or_to_itself(source: Source, tmp_path: Path, to: str) -> None:
    def redirect(request: object) -> None:
        request.send_response(302)  # type: ignore[attr-defined]
        request.send_header("Location", to)  # type: ignore[attr-defined]
        request.end_headers()  # type: ignore[attr-defined]

    source.answer = redirect  # type: ignore[method-assign]
    with pytest.raises(errors.NetworkFailed, match="status 302, which leads away"):
        fetch(source, tmp_path / "script")


def test_an_envelope_is_opened_by_its_key_alone(tmp_path: Path) -> None:
    site = Site(tmp_path)
    _, pem = certificate_of(site.csr)
    key = str(site.folder("extensions") / "keys/settings.key")
    content = {"protectedParameters": [{"name": "A", "value": "ä"}]}
    sealed = envelope(pem, json.dumps(content), tmp_path)
    assert scripts.open_envelope({"key": key, "envelope": sealed}) == {"content": content}
    for bad in ("*", "AAAA", sealed[:-8], envelope(pem, "no JSON", tmp_path), envelope(pem, "[]", tmp_path)):
        with pytest.raises(errors.ExtensionFailed, match="damaged"):
            scripts.open_envelope({"key": key, "envelope": bad})
    other = tmp_path / "other.key"
    keys.make_key({"path": str(other), "name": "x"})
    with pytest.raises(errors.ExtensionFailed, match="not for a key of this machine"):
        scripts.open_envelope({"key": str(other), "envelope": sealed})
