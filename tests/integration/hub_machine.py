# SPDX-License-Identifier: Apache-2.0
"""A machine that speaks the channel's protocol as docs/protocol.md writes it, for tests of the hub alone.

It shares no code with the agent on purpose: it is the second reading of the contract.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import jwt
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.integration.hub_process import HubProcess

API = {"api-version": "2026-07-15"}
KINDS = ("resource", "settings", "extensions", "policy", "runcommands", "agent", "trust")
ITEM = {"name": "machine_id", "status": "ok", "digest": "ab" * 32}


def vector(**values: str) -> dict[str, Any]:
    """An evidence vector of names and values, all read well."""
    items = [
        {"name": name, "status": "ok", "digest": hashlib.sha256(value.encode()).hexdigest(), "source": "test"}
        for name, value in sorted(values.items())
    ]
    lines = "".join(f"{item['name']}=ok:{item['digest']}\n" for item in items)
    return {"digest": hashlib.sha256(lines.encode()).hexdigest(), "items": items}


DIGEST = hashlib.sha256(f"machine_id=ok:{ITEM['digest']}\n".encode()).hexdigest()
FIRST = {"digest": DIGEST, "items": [ITEM]}


def make_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """Smaller than an agent's (3072) to keep tests short; the hub takes both."""
    return rsa.generate_private_key(65537, bits)


def make_csr(key: rsa.RSAPrivateKey) -> str:
    """PEM request of a key."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "machine")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def public_text(key: rsa.RSAPrivateKey) -> str:
    """`clientPublicKey` of a key."""
    der = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(der).decode()


@dataclass
class Machine:
    """One machine: resource, key, credential and lease."""

    hub: HubProcess
    name: str
    group: str = "fleet"
    key: rsa.RSAPrivateKey = field(default_factory=make_key)
    vm_id: str = field(default_factory=lambda: str(uuid4()))
    identity: dict[str, Any] = field(default_factory=dict)
    slot: int = 0
    nonce: str = ""
    epoch: int = 0
    generations: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    channel_token: str = ""
    evidence: dict[str, Any] = field(default_factory=lambda: FIRST)
    boot: str | None = None
    http: requests.Session = field(init=False)

    def __post_init__(self) -> None:
        self.http = self.hub.session()

    @property
    def resource_id(self) -> str:
        """ARM id."""
        return (
            f"/subscriptions/{self.hub.subscription_id}/resourceGroups/{self.group}"
            f"/providers/Microsoft.HybridCompute/machines/{self.name}"
        )

    def put(self, token: str, *, create_group: bool = True, **changes: Any) -> requests.Response:
        """Step 2 of connecting."""
        body = {
            "location": "local",
            "tags": {},
            "identity": {"type": "SystemAssigned"},
            "properties": {"vmId": self.vm_id, "clientPublicKey": public_text(self.key)},
            **changes,
        }
        headers = {"Authorization": f"Bearer {token}"}
        if create_group:
            headers["Hawser-Create-Group"] = "true"
        return self.http.put(f"{self.hub.url}{self.resource_id}", params=API, json=body, headers=headers, timeout=30)

    def enrol(self, token: str, request_id: str | None = None, **changes: Any) -> requests.Response:
        """Step 3 of connecting."""
        body = {
            "protocol": 1,
            "requestId": request_id or str(uuid4()),
            "resourceId": self.resource_id,
            "vmId": self.vm_id,
            "csr": make_csr(self.key),
            "settingsCsr": None,
            "agentVersion": "1.0.0.1",
            "osType": "linux",
            "evidence": self.evidence,
            **changes,
        }
        answer = self.post("enrol", body, token)
        if answer.status_code == 200:
            self.identity = answer.json()
            self.slot, self.nonce, self.epoch = (self.identity[name] for name in ("slot", "nonce", "epoch"))
        return answer

    def post(self, path: str, body: dict[str, Any], token: str | None = None) -> requests.Response:
        """POST on the channel."""
        headers = {"Authorization": f"Bearer {token or self.channel_token}", "Hawser-Lease": self.nonce}
        return self.http.post(f"{self.hub.url}/channel/v1/{path}", json=body, headers=headers, timeout=120)

    def assertion(self, **changes: Any) -> str:
        """PS256 assertion with the current certificate."""
        certificate = x509.load_pem_x509_certificate(self.identity["certificate"].encode())
        thumbprint = base64.urlsafe_b64encode(certificate.fingerprint(hashes.SHA256())).rstrip(b"=").decode()
        at = int(time.time())
        claims = {
            "iss": self.identity["clientId"],
            "sub": self.identity["clientId"],
            "aud": f"{self.hub.url}/{self.hub.tenant_id}/oauth2/v2.0/token",
            "jti": str(uuid4()),
            "nbf": at,
            "iat": at,
            "exp": at + 600,
            "hawser_machine": {"slot": self.slot, "resourceId": self.resource_id, "location": "local"},
            **changes,
        }
        leaf = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
        return jwt.encode(claims, self.key, algorithm="PS256", headers={"x5t#S256": thumbprint, "x5c": [leaf]})

    def ask_token(self, resource: str = "api://hawser-channel", **changes: Any) -> requests.Response:
        """Client credentials with the assertion."""
        fields = {
            "grant_type": "client_credentials",
            "client_id": self.identity["clientId"],
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": self.assertion(),
            "scope": f"{resource}/.default",
            **changes,
        }
        url = f"{self.hub.url}/{self.hub.tenant_id}/oauth2/v2.0/token"
        answer = self.http.post(url, data=fields, timeout=30)
        if answer.status_code == 200 and resource == "api://hawser-channel":
            self.channel_token = answer.json()["access_token"]
        return answer

    def checkin(self, hold: int = 0, **changes: Any) -> requests.Response:
        """A check-in; takes over nonce, epoch and generations of the answer."""
        body = {
            "protocol": 1,
            "requestId": str(uuid4()),
            "slot": self.slot,
            "epoch": self.epoch,
            "nonce": self.nonce,
            "evidenceDigest": self.evidence["digest"],
            "agentVersion": "1.0.0.1",
            "holdSeconds": hold,
            "bootId": self.boot,
            "generations": self.generations,
            **changes,
        }
        answer = self.post("checkin", body)
        if answer.status_code == 200:
            told = answer.json()
            self.nonce, self.epoch, self.generations = told["nonce"], told["epoch"], told["generations"]
        return answer

    def connect(self, token: str, **changes: Any) -> Machine:
        """PUT, enrol, channel token, first check-in."""
        for answer in (self.put(token, **changes), self.enrol(token), self.ask_token(), self.checkin()):
            assert answer.status_code == 200, answer.text
        return self

    def copy(self, **changes: Any) -> Machine:
        """A twin: everything that is on the disk, with a connection of its own. `changes`: what the copy has anew."""
        return replace(self, **{"generations": dict(self.generations), **changes})

    def question(self, reason: str = "evidence", **changes: Any) -> dict[str, Any]:
        """The body of a question about a parked identity."""
        return {
            "protocol": 1,
            "requestId": str(uuid4()),
            "assertion": self.assertion(aud=f"{self.hub.url}/channel/v1/identity"),
            "slot": self.slot,
            "epoch": self.epoch,
            "nonce": self.nonce,
            "bootId": self.boot,
            "reason": reason,
            "evidence": self.evidence,
            "hostname": self.name,
            "imageId": None,
            "csr": None,
            **changes,
        }

    def ask(self, reason: str = "evidence", **changes: Any) -> requests.Response:
        """Ask whose identity this is; takes over what the hub gives."""
        url = f"{self.hub.url}/channel/v1/identity"
        answer = self.http.post(url, json=self.question(reason, **changes), timeout=60)
        if answer.status_code == 200:
            told = answer.json()
            self.nonce, self.epoch = told["nonce"], told["epoch"]
        return answer

    def join(self, token: str, **changes: Any) -> requests.Response:
        """Ask for a name with an image's token."""
        body = {
            "protocol": 1,
            "requestId": str(uuid4()),
            "token": token,
            "imageId": "web-1",
            "hostname": self.name,
            "vmId": self.vm_id,
            "evidence": self.evidence,
            "builderEvidenceDigest": None,
            **changes,
        }
        return self.http.post(f"{self.hub.url}/channel/v1/join", json=body, timeout=60)

    def enrol_as(self, enrolment: dict[str, Any], **changes: Any) -> requests.Response:
        """Become the machine of an enrolment, with a key of its own. The answer of the last step that was taken."""
        self.group, self.name = (enrolment["resourceId"].split("/")[index] for index in (4, 8))
        self.key, self.channel_token = make_key(), ""
        put = self.put(enrolment["ticket"], location=enrolment["location"], tags=enrolment["tags"])
        if put.status_code != 200:
            return put
        enrolled = self.enrol(enrolment["ticket"], **changes)
        if enrolled.status_code != 200:
            return enrolled
        assert self.ask_token().status_code == 200
        return self.checkin()

    def desired(self, kind: str) -> requests.Response:
        """One desired document."""
        headers = {"Authorization": f"Bearer {self.channel_token}", "Hawser-Lease": self.nonce}
        return self.http.get(f"{self.hub.url}/channel/v1/desired/{kind}", headers=headers, timeout=30)

    def report(self, kind: str, data: dict[str, Any]) -> requests.Response:
        """One report."""
        item = {"id": str(uuid4()), "kind": kind, "createdAt": "2026-11-23T10:00:00Z", "data": data}
        return self.post("report", {"protocol": 1, "requestId": str(uuid4()), "reports": [item]})


@contextmanager
def beating(machine: Machine) -> Iterator[list[int]]:
    """The machine holds check-ins as an agent does; their statuses."""
    ended, statuses = threading.Event(), list[int]()

    def run() -> None:
        while not ended.is_set():
            answer = machine.checkin(hold=5)
            statuses.append(answer.status_code)
            if answer.status_code != 200:
                return

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield statuses
    finally:
        ended.set()
        thread.join(30)


def ticket(hub: HubProcess, token: str, *operations: tuple[str, str]) -> requests.Response:
    """POST /hawser/v1/tickets for pairs (operation, resource id)."""
    body = {"operations": [{"operation": name, "resourceId": target} for name, target in operations]}
    return hub.session().post(
        f"{hub.url}/hawser/v1/tickets", json=body, headers={"Authorization": f"Bearer {token}"}, timeout=30
    )


def payload_of(jws: str) -> dict[str, Any]:
    """Payload of a compact JWS, not verified."""
    part = jws.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found
