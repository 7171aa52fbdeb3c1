# SPDX-License-Identifier: Apache-2.0
"""Unmodified azure-identity on a connected host: it finds the local endpoint and gets tokens of the machine."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jwt
import pytest

from lab import Host
from tests.conftest import LabHosts
from tests.integration.connected_host import connect, install, show

pytestmark = pytest.mark.hosts

# What azure-identity needs at run time; cryptography is the host's own.
PACKAGES = (
    "azure-core",
    "azure-identity",
    "certifi",
    "charset-normalizer",
    "idna",
    "msal",
    "msal-extensions",
    "PyJWT",
    "requests",
    "typing-extensions",
    "urllib3",
)
LIBRARIES = "/opt/client"
SYNC = """
import json, sys
from azure.identity import ManagedIdentityCredential
token = ManagedIdentityCredential().get_token("https://vault.azure.net/.default")
print(json.dumps([token.token, token.expires_on]))
"""
ASYNC = """
import asyncio, json
from azure.core.pipeline.transport import AsyncioRequestsTransport
from azure.identity.aio import ManagedIdentityCredential

async def main():
    async with AsyncioRequestsTransport() as transport:
        credential = ManagedIdentityCredential(transport=transport)
        token = await credential.get_token("https://vault.azure.net/.default")
        print(json.dumps([token.token, token.expires_on]))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def connected(lab_hosts: LabHosts, agent_deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """Host web02 with the agent, connected, and the client's libraries in a folder."""
    host, hub = lab_hosts.hosts[1], lab_hosts.hub
    install(host, agent_deb)
    connect(host, hub, hub.principal("clients", "Onboarding"), "clients")
    folder = tmp_path_factory.mktemp("libraries")
    for name in PACKAGES:
        for file in importlib.metadata.files(name) or []:
            source = Path(str(file.locate()))
            if source.suffix in (".py", ".pem", "") and ".." not in file.parts and source.is_file():
                target = folder / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
    archive = tmp_path_factory.mktemp("archive") / "libraries.tar"
    subprocess.run(["tar", "-C", str(folder), "-cf", str(archive), "."], check=True)
    host.copy(archive, "/root/libraries.tar")
    host.run(["mkdir", "-p", LIBRARIES])
    host.run(["tar", "-C", LIBRARIES, "-xf", "/root/libraries.tar"])
    host.run(["chmod", "-R", "a+rX", LIBRARIES])
    return host


def environment(host: Host) -> dict[str, str]:
    """The environment of a service started now, plus the client's libraries."""
    given = host.run(["systemd-run", "--quiet", "--wait", "--pipe", "/usr/bin/env"]).output
    pairs = dict(line.split("=", 1) for line in given.splitlines() if "=" in line)
    return {
        **{name: pairs[name] for name in ("IDENTITY_ENDPOINT", "IMDS_ENDPOINT")},
        "PYTHONPATH": LIBRARIES,
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@pytest.mark.parametrize("program", [SYNC, ASYNC], ids=["sync", "async"])
def test_a_token_of_the_machine(connected: Host, lab_hosts: LabHosts, program: str) -> None:
    done = connected.run(["python3", "-c", program], environment=environment(connected))
    token, expires = json.loads(done.output)
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    hub = lab_hosts.hub
    keys = hub.session().get(f"{hub.url}/{hub.tenant_id}/discovery/v2.0/keys", timeout=30).json()["keys"]
    key = next(jwt.PyJWK(row) for row in keys if row["kid"] == jwt.get_unverified_header(token)["kid"])
    assert jwt.decode(token, key, algorithms=["RS256"], audience="https://vault.azure.net") == claims
    assert claims["xms_mirid"].lower() == show(connected)["resourceId"].lower()
    assert abs(expires - claims["exp"]) <= 5


def test_members_of_the_group_get_tokens_and_others_do_not(connected: Host) -> None:
    refused = connected.run(["python3", "-c", SYNC], user="app", environment=environment(connected), check=False)
    assert refused.code != 0
    assert "eyJ" not in refused.output
    connected.run(["usermod", "--append", "--groups", "himds", "app"])
    try:
        done = connected.run(["python3", "-c", SYNC], user="app", environment=environment(connected))
    finally:
        connected.run(["gpasswd", "--delete", "app", "himds"])
    assert json.loads(done.output)[0].startswith("eyJ")


def test_without_the_variables_the_file_of_himds_is_found(connected: Host) -> None:
    given = {name: value for name, value in environment(connected).items() if not name.endswith("_ENDPOINT")}
    program = SYNC.replace(
        "from azure.identity import ManagedIdentityCredential\ntoken = ManagedIdentityCredential().get_token(",
        "import msal, requests\ntoken = msal.ManagedIdentityClient(msal.SystemAssignedManagedIdentity(), "
        "http_client=requests.Session()).acquire_token_for_client(resource=",
    ).replace('.net/.default")\nprint(json.dumps([token.token, token.expires_on]))', '.net")\nprint(json.dumps(token))')
    answer = json.loads(connected.run(["python3", "-c", program], environment=given).output)
    assert answer["access_token"].startswith("eyJ"), answer


def test_challenge_files_have_the_rights_that_the_vendor_documents(connected: Host) -> None:
    path = "'http://localhost:40342/metadata/identity/oauth2/token?api-version=2020-06-01&resource=https://vault.azure.net'"
    head = connected.run(["sh", "-c", f"curl -s -D - -o /dev/null -H Metadata:true {path}"]).output
    file = (
        next(line for line in head.splitlines() if line.startswith("Www-Authenticate: ")).partition("realm=")[2].strip()
    )
    assert file.startswith("/var/opt/azcmagent/tokens/")
    assert connected.run(["stat", "-c", "%U %G %a", file]).output.split() == ["himds", "himds", "440"]
    assert connected.run(["stat", "-c", "%U %G %a", "/var/opt/azcmagent/tokens"]).output.split() == [
        "himds",
        "himds",
        "750",
    ]
    assert connected.run(["cat", file], user="app", check=False).code != 0
