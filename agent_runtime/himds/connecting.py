# SPDX-License-Identifier: Apache-2.0
"""Getting and giving up an identity, step by step, each step on the disk before it is begun (docs/protocol.md
section 5)."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from agent_runtime import errors
from agent_runtime.himds.extd import Certificate
from agent_runtime.himds.extd import forget as forget_certificate
from agent_runtime.himds.identity import Known, resource_id
from agent_runtime.himds.watch import Watch
from agent_runtime.hub.client import SKEW_WARNING, Hub, HubRefusal, as_agent_error
from agent_runtime.identity import birth, machine
from agent_runtime.identity.store import certificate_path, descent_of, key_path
from agent_runtime.service import worker
from agent_runtime.service.ipc import Progress
from agent_runtime.service.loop import Cancelled, Loop, Timeout, TimeoutExpired
from agent_runtime.state import atomic
from agent_runtime.state.atomic import erase
from agent_runtime.version import VERSION

CONNECT_SECONDS = 600.0
_NEEDED = ("cloud", "tenantId", "subscriptionId", "resourceGroup", "location", "resourceName", "vmId", "accessToken")


def checked(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Arguments of `connect` without the token, and the token. Errors: AZCM0016, AZCM0023. Pure."""
    for name in _NEEDED:
        value = arguments.get(name)
        if not isinstance(value, str) or not value or len(value) > 16384:
            raise errors.ParameterMissing(f"connect needs {name}")
    tags = arguments.get("tags") or {}
    if not isinstance(tags, dict) or not all(isinstance(item, str) for pair in tags.items() for item in pair):
        raise errors.ParameterInvalid("tags must be an object of texts")
    if arguments.get("automaticUpgrade") not in (None, True, False):
        raise errors.ParameterInvalid("automaticUpgrade must be true, false or null")
    try:
        uuid.UUID(arguments["vmId"])
    except ValueError:
        raise errors.ParameterInvalid("vmId must be a GUID") from None
    kept = {name: arguments[name] for name in _NEEDED if name != "accessToken"}
    made = {
        **kept,
        "tags": tags,
        "correlationId": arguments.get("correlationId") or str(uuid.uuid4()),
        "automaticUpgrade": arguments.get("automaticUpgrade"),
    }
    return made, arguments["accessToken"]


class Connecting:
    """One `connect`. `first_checkin` makes the first heartbeat with a credential and takes over what it brings. With
    `adopt` a held machine gets a name of its own; when that fails it is held as before."""

    def __init__(
        self,
        loop: Loop,
        known: Known,
        watch: Watch,
        extd: Certificate,
        open_hub: Callable[[Mapping[str, Any]], Hub],
        progress: Progress,
        adopt: bool = False,
    ) -> None:
        self._loop = loop
        self._known = known
        self._watch = watch
        self._adopt = adopt
        self._descent = descent_of(known.identity) + 1 if adopt else 0
        self._lease = dict(known.lease)
        self._extd = extd
        self._open_hub = open_hub
        self._progress = progress
        self._made = False

    async def run(
        self, arguments: Mapping[str, Any], first_checkin: Callable[[Hub, dict[str, Any]], Any]
    ) -> tuple[Hub, dict[str, Any]]:
        """The hub's client and the result of the verb. Errors: of the tree; then what this call made is gone again."""
        args, token = checked(arguments)
        profile = self._known.profile(args["cloud"])
        hub = self._open_hub(profile)
        try:
            event = "adopt" if self._adopt else "begin"
            is_resumed = machine.resumes(self._known.store.record, args)
            self._known.store.apply(event, args=args, requestId=str(uuid.uuid4()))
            if not is_resumed:
                # Of an attempt for another machine, which may be at the hub with it.
                erase(key_path(self._known.paths, 1, self._descent))
        except BaseException:
            hub.close()
            raise
        try:
            with Timeout(self._loop, CONNECT_SECONDS):
                if self._adopt:
                    self._leave_behind()
                identity = await self._steps(hub, args, token, first_checkin)
            self._known.keep_evidence(self._watch.items)
            self._known.store.apply("connected", identity=identity)
        except BaseException as problem:  # noqa: BLE001 - whatever ends it, what it made is taken back
            await self._undo(hub, args, token, problem)
            hub.close()
            raise self._explained(problem) from None
        self._progress(100, "Connected")
        warnings = []
        if abs(hub.offset) > SKEW_WARNING:
            warnings.append(
                f"the clock of this machine differs from the hub's by {abs(hub.offset):.0f} s; correct it, "
                "tokens depend on it"
            )
        return hub, {"resourceId": identity["resourceId"], "vmId": identity["vmId"], "warnings": warnings}

    def _leave_behind(self) -> None:
        """What came with the copied name, but its key: that goes when the machine has its own."""
        paths = self._known.paths
        for folder in (paths.desired, paths.outbox):
            if os.path.isdir(folder):
                for name in os.listdir(folder):
                    erase(os.path.join(folder, name))
        forget_certificate(paths)
        self._known.forget()

    async def _steps(
        self, hub: Hub, args: dict[str, Any], token: str, first_checkin: Callable[[Hub, dict[str, Any]], Any]
    ) -> dict[str, Any]:
        paths, store = self._known.paths, self._known.store
        self._progress(5, "Making the machine's key")
        key = key_path(paths, 1, self._descent)
        made = await worker.run(self._loop, "make-key", {"path": key, "name": args["vmId"]})
        store.apply("step", step="put")
        self._progress(20, "Creating the machine at the hub")
        where = resource_id(args)
        automatic = args.get("automaticUpgrade")
        body = {
            "location": args["location"],
            "tags": args["tags"],
            "identity": {"type": "SystemAssigned"},
            "properties": {
                "vmId": args["vmId"],
                "clientPublicKey": made["clientPublicKey"],
                "osType": "linux",
                **({} if automatic is None else {"agentUpgrade": {"enableAutomaticUpgrade": automatic}}),
            },
        }
        resource = await hub.put_machine(where, token, body)
        self._made = True
        store.apply("step", step="enrol")
        self._progress(40, "Enrolling")
        settings_csr = await self._extd.request(args["vmId"])
        answer = await self._enrol(hub, args, token, where, made["csr"], settings_csr)
        slot = int(answer["slot"])
        if slot != 1:
            # Enrolled before, and the hub has forgotten that answer: the first slot's key goes once this one is ours.
            first, key = key, key_path(paths, slot, self._descent)
            atomic.write_bytes(key, atomic.read_bytes(first))
        certificate = certificate_path(paths, slot, self._descent)
        atomic.write_bytes(certificate, answer["certificate"].encode("ascii"))
        about = await worker.run(self._loop, "describe-certificate", {"certificate": certificate, "key": key})
        self._extd.keep(settings_csr or "", answer.get("settingsCertificate"))
        identity = {
            **{
                name: args[name]
                for name in ("subscriptionId", "resourceGroup", "resourceName", "location", "cloud", "vmId")
            },
            "resourceId": resource.get("id") or where,
            "tenantId": answer["tenantId"],
            "vmUuid": self._known.inventory.get("vmUuid", ""),
            "clientId": answer["clientId"],
            "principalId": answer["principalId"],
            "certificateThumbprint": about["thumbprint"],
            "certificateExpires": about["notAfter"],
            "correlationId": args["correlationId"],
            "slot": slot,
            **({"descent": self._descent} if self._descent else {}),
        }
        store.apply("step", step="checkin")
        self._progress(70, "Sending the first heartbeat")
        self._known.lease = {
            "epoch": answer["epoch"],
            "slot": identity["slot"],
            "nonce": answer["nonce"],
            "generations": {},
        }
        await first_checkin(hub, identity)
        return identity

    async def _enrol(
        self, hub: Hub, args: dict[str, Any], token: str, where: str, csr: str, settings_csr: str | None
    ) -> dict[str, Any]:
        items = self._watch.read(args["tenantId"])
        pending = self._known.store.record.pending or {}
        return await hub.enrol(
            token,
            {
                "requestId": pending["requestId"],
                "resourceId": where,
                "vmId": args["vmId"],
                "csr": csr,
                "settingsCsr": settings_csr,
                "agentVersion": VERSION,
                "osType": "linux",
                "evidence": {"digest": self._watch.digest, "items": items},
                "imageId": birth.image_id(self._known.paths),
            },
        )

    async def _undo(self, hub: Hub, args: dict[str, Any], token: str, problem: BaseException) -> None:
        """Take back what this call made. A service that is being stopped does not: the connect goes on after its
        start. Where the machine stays at the hub its key stays too: the next attempt for it goes on with them."""
        if isinstance(problem, Cancelled):
            return
        event = "failed"
        if self._made:
            try:
                with Timeout(self._loop, 30):
                    await hub.delete_machine(resource_id(args), token)
            except (HubRefusal, errors.AgentError, TimeoutExpired) as left:
                event = "cut_off"
                self._known.log.warning(
                    f"the machine {resource_id(args)} could not be deleted at the hub again: {left}"
                )
        explained = self._explained(problem)
        self._known.forget()
        code, message = getattr(explained, "code", "AZCM0002"), getattr(explained, "message", str(explained))
        self._known.log.error(f"connect failed: {code}: {message}")
        try:
            self._known.store.apply(event, error=None)
        except OSError as full:
            self._known.log.error(f"the end of this connect is written down later: {full.strerror}")
            return
        if self._adopt:
            # The newest nonce proves the held branch.
            self._known.keep_lease(**self._lease)

    @staticmethod
    def _explained(problem: BaseException) -> BaseException:
        if isinstance(problem, HubRefusal):
            return as_agent_error(problem, errors.MachineNotCreated)
        if isinstance(problem, TimeoutExpired):
            return errors.ConnectFailed(f"connecting took longer than {CONNECT_SECONDS:g} s")
        if isinstance(problem, OSError):
            what = problem.filename or "a file"
            return errors.ConnectFailed(
                f"{what} cannot be written: {problem.strerror}", "Make room on the disk, then connect again"
            )
        if isinstance(problem, (KeyError, TypeError, ValueError)):
            return errors.ConnectFailed(
                f"the hub's answer is not what the protocol says ({problem!r})", "Check the hub's version"
            )
        return problem


async def disconnect(known: Known, hub: Hub | None, token: str | None, local_only: bool) -> dict[str, Any]:
    """Delete the machine at the hub, then forget the identity. Errors: AZCM0043, AZCM0016; then nothing has changed."""
    record = known.store.record
    where = (record.identity or {}).get("resourceId", "")
    if record.state == "connecting":
        raise errors.ConfigurationConflict("another command is connecting this machine", "Wait until it has ended")
    if record.state in machine.HELD and not local_only:
        # Whose the machine at the hub is, is just what is in question.
        raise errors.ConfigurationConflict(
            f"the identity of this machine is {record.state}: the machine at the hub may be another's",
            "Use --force-local-only, then connect under a name of its own",
        )
    deleted = False
    if record.state in machine.BOUND and not local_only:
        if not token:
            raise errors.ParameterMissing(
                "disconnect needs a credential that may delete the machine at the hub",
                "Give one, or use --force-local-only to leave the machine at the hub",
            )
        if hub is None:
            raise errors.CloudNotObtained(f"the profile of the cloud {known.identity.get('cloud')} is gone")
        try:
            deleted = await hub.delete_machine(where, token)
        except HubRefusal as refusal:
            raise as_agent_error(refusal, errors.MachineNotDeleted) from None
    known.forget()
    known.store.apply("release")
    forget_certificate(known.paths)
    atomic.unlink(known.paths.adoption)
    return {"resourceId": where, "deleted": deleted}
