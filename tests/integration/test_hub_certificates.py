# SPDX-License-Identifier: Apache-2.0
"""Unmodified azure-identity and msal with a certificate against a real hub process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import msal  # type: ignore[import-untyped]
import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import CertificateCredential
from azure.mgmt.hybridcompute import HybridComputeManagementClient
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.integration import self_signed
from tests.integration.hub_process import HubProcess


def _made(path: Path) -> Path:
    """Key and self-signed certificate in one PEM file, as azure-identity wants them."""
    key = rsa.generate_private_key(65537, 2048)
    certificate = self_signed.certificate(key, "app", 30)
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(key_pem + certificate.public_bytes(serialization.Encoding.PEM))
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def hub(make_hub: Callable[..., HubProcess]) -> HubProcess:
    return make_hub()


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _made(tmp_path_factory.mktemp("app") / "app.pem")


@pytest.fixture(scope="module")
def app(hub: HubProcess, pem: Path) -> dict[str, Any]:
    made: dict[str, Any] = hub.json("principal", "create", "app", "--role", "Reader", "--certificate", str(pem))
    assert "clientSecret" not in made
    return made


def _credential(hub: HubProcess, app: dict[str, Any], pem: Path, **options: Any) -> CertificateCredential:
    return CertificateCredential(
        tenant_id=hub.tenant_id,
        client_id=app["clientId"],
        certificate_path=str(pem),
        authority=hub.url,
        disable_instance_discovery=True,
        connection_verify=hub.ca_file,
        **options,
    )


@pytest.mark.parametrize("chain", [False, True])
def test_azure_identity(hub: HubProcess, app: dict[str, Any], pem: Path, chain: bool) -> None:
    with _credential(hub, app, pem, send_certificate_chain=chain) as credential:
        token = credential.get_token(f"{hub.url}/.default").token
        assert jwt.decode(token, options={"verify_signature": False})["appidacr"] == "2"
        with HybridComputeManagementClient(
            credential, hub.subscription_id, base_url=hub.url, connection_verify=hub.ca_file
        ) as client:
            assert list(client.machines.list_by_subscription()) == []


def test_azure_identity_with_another_certificate(hub: HubProcess, app: dict[str, Any], tmp_path: Path) -> None:
    with (
        _credential(hub, app, _made(tmp_path / "other.pem")) as credential,
        pytest.raises(ClientAuthenticationError, match="AADSTS700027"),
    ):
        credential.get_token(f"{hub.url}/.default")


def test_msal_with_a_certificate_alone_signs_ps256(hub: HubProcess, app: dict[str, Any], pem: Path) -> None:
    text = pem.read_text()
    session = hub.session()
    sent: list[str] = []
    post = session.post

    def watched(url: str, data: Any = None, **options: Any) -> Any:
        sent.append(data["client_assertion"])
        return post(url, data=data, **options)

    session.post = watched  # type: ignore[assignment, method-assign]
    client = msal.ConfidentialClientApplication(
        app["clientId"],
        authority=f"{hub.url}/{hub.tenant_id}",
        instance_discovery=False,
        http_client=session,
        client_credential={"private_key": text, "public_certificate": text},
    )
    answer = client.acquire_token_for_client([f"{hub.url}/.default"])
    assert "access_token" in answer, answer
    assert jwt.get_unverified_header(sent[0])["alg"] == "PS256"


def test_a_removed_certificate_buys_no_more_tokens(hub: HubProcess, tmp_path: Path) -> None:
    pem = _made(tmp_path / "app.pem")
    made = hub.json("principal", "create", "leaving", "--role", "Reader", "--certificate", str(pem))
    with _credential(hub, made, pem) as credential:
        assert credential.get_token(f"{hub.url}/.default").token
    hub.run("principal", "certificate", "remove", "leaving", made["certificate"]["sha256"])
    with _credential(hub, made, pem) as credential, pytest.raises(ClientAuthenticationError, match="AADSTS700027"):
        credential.get_token(f"{hub.url}/.default")
