# SPDX-License-Identifier: Apache-2.0
"""What himds knows of the machine it speaks for: identity, lease, desired documents, and the views that others get
of them."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Mapping
from typing import Any

from agent_runtime import errors
from agent_runtime.identity import birth, evidence, machine, trust
from agent_runtime.identity.store import IdentityStore, credential_of, stamp
from agent_runtime.platform.paths import Paths
from agent_runtime.service.log import Log
from agent_runtime.state import atomic, config
from agent_runtime.version import VERSION

KINDS = ("resource", "settings", "extensions", "policy", "runcommands", "agent", "trust")
OFFLINE_SECONDS = 900.0
# What a check-in is answered with after the machine was deleted at the hub.
GONE_CODE = "AZCM0042"
NAMESPACE = "Microsoft.HybridCompute"


def resource_id(args: Mapping[str, Any]) -> str:
    """ARM id of a machine out of the members of `connect`. Pure."""
    return (
        f"/subscriptions/{args['subscriptionId']}/resourceGroups/{args['resourceGroup']}"
        f"/providers/{NAMESPACE}/machines/{args['resourceName']}"
    )


def agent_status(state: str, last_heartbeat: float, now: float, error: str = "") -> str:
    """The documented word for a state (agent-surface.md section 8). Pure.

    `last_heartbeat` in Unix seconds, 0 for none; `error`: code of the last failure. A machine that the hub does not
    know any more is Disconnected at once (docs/protocol.md section 9).
    """
    if state == "expired":
        return "Expired"
    known = state == "connected" and error != GONE_CODE
    return "Connected" if known and now - last_heartbeat <= OFFLINE_SECONDS else "Disconnected"


def claims_of(document: str) -> dict[str, Any]:
    """Payload of a document that came over the hub's TLS connection. Errors: ValueError. Pure."""
    parts = document.split(".")
    if len(parts) != 3:
        raise ValueError("not a signed document")
    found = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    if not isinstance(found, dict) or not isinstance(found.get("content"), dict):
        raise ValueError("not a desired-state document")
    return found


def half_way(payload: Mapping[str, Any]) -> float:
    """When half of the time that a document holds is over, Unix seconds by the hub's clock; never, if it does not say
    how long. Pure."""
    begin, end = payload.get("iat"), payload.get("exp")
    if not isinstance(begin, (int, float)) or not isinstance(end, (int, float)):
        return float("inf")
    return (begin + end) / 2


def lease_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A lease out of its file. Errors: ValueError. Pure."""
    lease: dict[str, Any] = {"epoch": 0, "nonce": "", "lastHeartbeatUnix": 0.0, "generations": {}, **raw}
    heartbeat, generations = lease["lastHeartbeatUnix"], lease["generations"]
    if not isinstance(generations, dict) or not isinstance(lease["nonce"], str):
        raise ValueError("members of another kind")
    if not all(isinstance(number, int) for number in (lease["epoch"], *generations.values())):
        raise ValueError("an epoch or a generation that is no number")
    if not isinstance(heartbeat, (int, float)) or not 0 <= heartbeat < machine.FAR_FUTURE:
        raise ValueError("a heartbeat at no time")
    return lease


class Known:
    """State of himds. Files are read at the start and written when they change."""

    def __init__(self, paths: Paths, log: Log) -> None:
        self.paths = paths
        self.log = log
        self.store = IdentityStore(paths, log)
        self.lease: dict[str, Any] = {}
        self.documents: dict[str, str] = {}
        # When each is to be fetched again: a document that nobody changes must not expire.
        self.fetch_again: dict[str, float] = {}
        self.resource: dict[str, Any] = {}
        self.config: dict[str, Any] = config.defaults()
        self.inventory: dict[str, Any] = {}
        self.last_heartbeat = 0.0
        self.recorded: list[dict[str, Any]] | None = None
        self.read_config()
        self._read_evidence()
        self._read_lease()
        self._read_documents()

    @property
    def state(self) -> str:
        return self.store.record.state

    @property
    def identity(self) -> dict[str, Any]:
        """The public identity; empty without one."""
        return dict(self.store.record.identity or {})

    def credential(self) -> dict[str, Any]:
        """What the hub's client needs to speak as this machine."""
        return credential_of(self.paths, self.identity)

    def profile(self, name: str) -> dict[str, Any]:
        """A cloud profile with the anchors in force. Errors: AZCM0075."""
        if not name or "/" in name or name.startswith("."):
            raise errors.CloudNotObtained(f"{name[:64]!r} is no name of a cloud")
        path = os.path.join(self.paths.clouds, f"{name}.json")
        try:
            return trust.read(self.paths, {**atomic.read_json(path), "name": name})
        except FileNotFoundError:
            raise errors.CloudNotObtained(f"there is no cloud profile {name[:64]}") from None
        except (OSError, ValueError) as error:
            raise errors.CloudNotObtained(f"the cloud profile {name[:64]} cannot be read: {error}") from None

    def read_config(self) -> None:
        """Read `localconfig.json` again; what cannot be read leaves the former values in force."""
        try:
            self.config = config.effective(config.load(self.paths))
        except errors.AgentError as error:
            self.log.error(f"{error.code}: {error.message}; the former values stay in force. {error.remedy}.")

    # Evidence, and what is done about it

    def _read_evidence(self) -> None:
        try:
            self.recorded = evidence.valid(atomic.read_json(self.paths.evidence).get("items"))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            self.log.warning(f"evidence.json cannot be read ({error}); the hub's answer to the next check-in decides")

    def keep_evidence(self, items: list[dict[str, Any]]) -> None:
        """The hub has accepted this vector. Errors: OSError."""
        if items != self.recorded:
            atomic.write_json(self.paths.evidence, {"v": 1, "items": items})
            self.recorded = items

    def hold(self, event: str, reason: str, message: str, **about: Any) -> None:
        """Take the identity out of use (`park`, `quarantine`). Errors: OSError."""
        number = machine.EVENTS[event]
        before = self.store.record
        error = {"code": machine.HELD_CODE, "message": message, "reason": reason, "event": number, **about}
        told = before.error or {}
        if before.state in machine.HELD and all(told.get(name) == value for name, value in error.items()):
            return
        self.log.error(f"event {number}: {error['code']}: {message}")
        self.store.apply(event, error={**error, "at": stamp(time.time())})

    def resume(self, why: str, **credential: Any) -> None:
        """Use the identity again. Errors: OSError."""
        self.store.apply("resume", **credential)
        atomic.unlink(self.paths.adoption)
        self.log.info(f"event {machine.EVENTS['resume']}: the identity is in use again: {why}")

    def why_held(self) -> str:
        """The sentence that says why the identity is out of use."""
        return str((self.store.record.error or {}).get("message") or "")

    # Lease

    def _read_lease(self) -> None:
        try:
            self.lease = lease_of(atomic.read_json(self.paths.lease))
            self.last_heartbeat = float(self.lease["lastHeartbeatUnix"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            self.log.warning(f"lease.json cannot be read ({error}); the next check-in gives a new one")

    def keep_lease(self, **members: Any) -> None:
        """Remember what the hub gave; not synced: a lost one is asked for again."""
        self.lease.update(members, v=1, lastHeartbeat=stamp(self.last_heartbeat), lastHeartbeatUnix=self.last_heartbeat)
        try:
            atomic.write_json(self.paths.lease, self.lease, durable=False)
        except OSError as error:
            self.log.warning(f"lease.json cannot be written: {error.strerror}")

    def beat(self) -> None:
        """The hub has answered: a heartbeat."""
        self.last_heartbeat = time.time()

    # Documents

    def generations(self) -> dict[str, int]:
        """The generation of each kind that this machine has."""
        kept = self.lease.get("generations") or {}
        return {kind: int(kept.get(kind, 0)) if kind in self.documents or not kept.get(kind) else 0 for kind in KINDS}

    def keep_document(self, kind: str, document: str) -> None:
        """Keep the last document of a kind and take over what is himds's own. Errors: ValueError, OSError."""
        payload = claims_of(document)
        os.makedirs(self.paths.desired, mode=0o700, exist_ok=True)
        atomic.write_bytes(os.path.join(self.paths.desired, f"{kind}.jws"), document.encode("ascii"), durable=False)
        self._hold(kind, document, payload)

    def _hold(self, kind: str, document: str, payload: Mapping[str, Any]) -> None:
        self.documents[kind] = document
        self.fetch_again[kind] = half_way(payload)
        if kind == "resource":
            self.resource = payload["content"]

    def _read_documents(self) -> None:
        for kind in KINDS:
            try:
                document = atomic.read_bytes(os.path.join(self.paths.desired, f"{kind}.jws")).decode("ascii")
                payload = claims_of(document)
            except (OSError, ValueError):
                continue
            self._hold(kind, document, payload)

    def forget(self) -> None:
        """The identity is gone: so is what came with it."""
        self.lease, self.documents, self.fetch_again, self.resource = {}, {}, {}, {}
        self.recorded = None
        self.last_heartbeat = 0.0

    # Views

    def tags(self) -> dict[str, str]:
        found = self.resource.get("tags")
        return found if isinstance(found, dict) else {}

    def compute(self) -> dict[str, Any] | None:
        """`compute` of the instance metadata (identity-and-arm-api.md A.7); None when the machine has no identity."""
        identity = self.identity
        if not identity:
            return None
        tags = self.tags()
        empty = (
            "customData",
            "licenseType",
            "offer",
            "placementGroupId",
            "platformFaultDomain",
            "platformUpdateDomain",
        )
        return {
            "azEnvironment": identity["cloud"],
            **dict.fromkeys((*empty, "publisher", "vmScaleSetName", "vmSize", "zone"), ""),
            "isHostCompatibilityLayerVm": "",
            "location": self.resource.get("location") or identity["location"],
            "name": self.resource.get("name") or identity["resourceName"],
            "osType": str(self.inventory.get("osType", "")),
            "plan": {"name": "", "product": "", "publisher": ""},
            "provider": NAMESPACE,
            "publicKeys": None,
            "resourceGroupName": self.resource.get("resourceGroup") or identity["resourceGroup"],
            "resourceId": self.resource.get("id") or identity["resourceId"],
            "securityProfile": {"secureBootEnabled": "false", "virtualTpmEnabled": "false"},
            "sku": str(self.inventory.get("osSku", "")),
            "storageProfile": {},
            "subscriptionId": self.resource.get("subscriptionId") or identity["subscriptionId"],
            "tags": ";".join(f"{name}:{value}" for name, value in tags.items()),
            "tagsList": [{"name": name, "value": value} for name, value in tags.items()],
            "version": str(self.inventory.get("osVersion", "")),
            "vmId": identity["vmId"],
        }

    def status(self) -> dict[str, Any]:
        """The `status` verb without the services (docs/protocol.md section 12)."""
        record = self.store.record
        identity = self.identity
        error = record.error or {}
        proxy = config.without_password(str(self.config.get("proxy.url") or os.environ.get("HTTPS_PROXY", "")))
        detected = self.inventory.get("detectedProperties") or {}
        heartbeat = stamp(self.last_heartbeat) if identity and self.last_heartbeat else ""
        expires = identity.get("certificateExpires")
        return {
            "resourceName": identity.get("resourceName") or "",
            "resourceGroup": identity.get("resourceGroup") or "",
            "resourceNamespace": NAMESPACE if identity else "",
            "resourceId": identity.get("resourceId") or "",
            "subscriptionId": identity.get("subscriptionId") or "",
            "tenantId": identity.get("tenantId") or "",
            "vmId": identity.get("vmId") or "",
            "correlationId": identity.get("correlationId") or "",
            "vmUuid": self.inventory.get("vmUuid", ""),
            "location": identity.get("location") or "",
            "cloud": identity.get("cloud") or "",
            "identityKeyStore": "Default",
            "agentVersion": VERSION,
            "agentLogfile": self.paths.himds_log,
            "status": agent_status(record.state, self.last_heartbeat, time.time(), str(error.get("code", ""))),
            "lastHeartbeat": heartbeat,
            "agentErrorCode": error.get("code", ""),
            "agentErrorDetails": error.get("message", ""),
            "agentErrorTimestamp": error.get("at", ""),
            "httpsProxy": proxy,
            "proxyBypass": self.config.get("proxy.bypass", []),
            "upstreamProxy": "",
            "gatewayUrl": "",
            "cloudProvider": (self.inventory.get("cloudMetadata") or {}).get("provider", "N/A"),
            "cloudMetadata": {},
            "manufacturer": self.inventory.get("manufacturer", ""),
            "model": self.inventory.get("model", ""),
            "mssqlDiscovered": detected.get("mssqldiscovered", "false"),
            "mysqlDiscovered": detected.get("mysqldiscovered", "false"),
            "pgsqlDiscovered": detected.get("pgsqldiscovered", "false"),
            "portalPage": "",
            "disabledFeatures": [],
            "identityState": record.state,
            "identityReason": error.get("reason") or "",
            "identityVerdict": error.get("verdict") or "",
            "identityDiffers": error.get("differs") or [],
            "identityEvent": error.get("event") or "",
            "imageId": birth.image_id(self.paths) or "",
            "unfinishedVmId": ((record.pending or {}).get("args") or {}).get("vmId", ""),
            "tags": self.tags(),
            "identityCertificateExpires": stamp(float(expires)) if expires else "",
            "identityCertificateThumbprint": identity.get("certificateThumbprint") or "",
        }

    def local_status(self) -> dict[str, Any]:
        """`/agentstatus` (identity-and-arm-api.md A.8)."""
        status = self.status()
        names = ("status", "lastHeartbeat", "agentVersion", "resourceName", "resourceGroup", "resourceId")
        more = ("subscriptionId", "tenantId", "location", "vmId")
        renamed = {
            "errorCode": "agentErrorCode",
            "errorDetails": "agentErrorDetails",
            "errorTimestamp": "agentErrorTimestamp",
        }
        return {
            **{name: status[name] for name in (*names, *more)},
            **{ours: status[theirs] for ours, theirs in renamed.items()},
        }
