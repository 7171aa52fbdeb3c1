# SPDX-License-Identifier: Apache-2.0
"""Enrolment and renewal of machine credentials (docs/protocol.md sections 3, 5 and 6)."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from sqlalchemy import select
from sqlalchemy.orm import Session

from control_plane import callers, pki
from control_plane.arm import paths
from control_plane.arm.roles import Action, Caller, allows, refusal
from control_plane.bodies import guid, integer, needed_text, one_of, text
from control_plane.channel import enrolments, evidence, verdict
from control_plane.channel.branches import Seal
from control_plane.channel.callers import check_protocol
from control_plane.channel.live import Record
from control_plane.clock import now, rfc3339
from control_plane.errors import ApiError, bad_content, not_found
from control_plane.fleet import profiles
from control_plane.hub import Hub
from control_plane.storage import agent_packages, audit, machines
from control_plane.storage.models import Answered, Credential, Heartbeat, Machine, SettingsCertificate, Ticket
from control_plane.upgrades import keeper as upgrades


def remembered(session: Session, machine_id: int, request_id: str, operation: str) -> dict[str, Any] | None:
    """The answer that this request got before, if it was answered."""
    found = session.get(Answered, (machine_id, request_id))
    if found is None:
        return None
    if found.operation != operation:
        raise bad_content("'requestId' was used for another request.", "requestId")
    return found.answer


def remember(session: Session, machine_id: int, request_id: str, operation: str, answer: dict[str, Any]) -> None:
    """Keep an answer for 24 hours, in the transaction of what it tells."""
    session.add(
        Answered(machine_id=machine_id, request_id=request_id, operation=operation, answer=answer, created=now())
    )


def _may_enrol(caller: Caller, target: str) -> None:
    if not allows(caller, Action.MACHINE_CREATE, target):
        raise refusal(caller, Action.MACHINE_CREATE, target)


def _spend(hub: Hub, session: Session, caller: Caller, target: str, digest: str, vm_id: str) -> None:
    """`connect` of a ticket is good for one enrolment, one that the hub gave out for that of the machine that asked.

    Errors: ApiError 403 `TicketSpent`, `TicketMismatch`.
    """
    if caller.grant is None:
        return
    ticket = session.get_one(Ticket, caller.grant.ticket_id)
    if target.lower() in ticket.spent:
        raise ApiError(403, "TicketSpent", "The ticket was used for an enrolment before; ask for a new one.")
    enrolments.check(hub, session, ticket, digest, vm_id)
    ticket.spent = [*ticket.spent, target.lower()]


def _chain(hub: Hub, certificate: x509.Certificate) -> str:
    return (pki.certificate_pem(certificate) + pki.certificate_pem(hub.keys.machine_ca.certificate)).decode()


def _settings_certificate(hub: Hub, session: Session, machine: Machine, csr: str) -> str:
    """A certificate of extd's key. Errors: ApiError 400; 409 `SettingsKeyInUse` for a key that another machine has too,
    by a copied disk: who holds it could read what is meant for that machine."""
    key = pki.read_csr(csr, "settingsCsr")
    digest = pki.key_digest(key)
    other = session.scalars(
        select(Machine.name)
        .join(SettingsCertificate, SettingsCertificate.machine_id == Machine.id)
        .where(SettingsCertificate.key == digest, Machine.id != machine.id)
    ).first()
    if other is not None:
        raise ApiError(
            409,
            "SettingsKeyInUse",
            f"The key of 'settingsCsr' is also that of the machine '{other}': one is a copy of the other. "
            "Remove /var/lib/GuestConfig/extensions/keys on the copy and restart extd, which makes a key of its own; "
            "then write the protected settings of that machine again.",
            target="settingsCsr",
        )
    certificate = pki.issue_machine(hub.keys.machine_ca, key, machine.client_id, machine.vm_id, encipher=True)
    chain = _chain(hub, certificate)
    expires = int(certificate.not_valid_after_utc.timestamp())
    session.merge(SettingsCertificate(machine_id=machine.id, certificate=chain, expires=expires, key=digest))
    return chain


def _settings_certificate_or_none(hub: Hub, session: Session, machine: Machine, csr: str | None) -> str | None:
    """That of an enrolment, which does not fail for it: the machine can ask again. Errors: ApiError 400."""
    try:
        return None if csr is None else _settings_certificate(hub, session, machine, csr)
    except ApiError as refusal:
        if refusal.status != 409:
            raise
        return None


def _credential(hub: Hub, machine: Machine, csr_key: Any, slot: int, state: str) -> Credential:
    certificate = pki.issue_machine(hub.keys.machine_ca, csr_key, machine.client_id, machine.vm_id)
    return Credential(
        machine_id=machine.id,
        slot=slot,
        thumbprint=pki.thumbprint(certificate),
        certificate=_chain(hub, certificate),
        expires=int(certificate.not_valid_after_utc.timestamp()),
        state=state,
        created=now(),
    )


def _target(session: Session, body: dict[str, Any]) -> tuple[paths.MachineId, Machine]:
    resource = paths.machine_id(needed_text(body, "resourceId", 1024))
    if resource is None:
        raise bad_content("'resourceId' is not the id of a machine.", "resourceId")
    group = machines.find_group(session, resource.subscription, resource.group)
    machine = machines.find_machine(session, group, resource.name) if group else None
    if machine is None:
        raise not_found(str(resource))
    return resource, machine


def _check_machine(session: Session, machine: Machine, vm_id: str, key_text: str) -> None:
    if machine.vm_id != vm_id or (machine.enrolled is not None and machine.client_public_key != key_text):
        raise ApiError(
            409,
            "Conflict",
            f"The name '{machine.name}' belongs to a machine with another identity. Choose another name, or delete "
            "that machine first.",
        )
    if machine.client_public_key != key_text:
        raise bad_content("The key of 'csr' is not the 'clientPublicKey' of the machine.", "csr")
    twin = session.scalars(
        select(Machine.name).where(Machine.vm_id == vm_id, Machine.id != machine.id, Machine.enrolled.is_not(None))
    ).first()
    if twin is not None:
        raise ApiError(409, "Conflict", f"The vmId is in use by the machine '{twin}'. Connect with a new one.")


def enrol(hub: Hub, authorization: str | None, body: dict[str, Any]) -> dict[str, Any]:
    """POST /channel/v1/enrol.

    Errors: ApiError 400, 401, 403 (`AuthorizationFailed`, `TicketSpent`, `TicketMismatch`, `EnrolmentTokenSpent`), 404,
    409.
    """
    with hub.database.read() as session:
        caller = callers.authenticate(hub, session, authorization, now())
    try:
        return _enrol(hub, caller, body)
    except ApiError as error:
        actor = audit.Actor(caller.kind, caller.client_id)
        audit.refused(hub.database, actor, "machines/enrol", str(body.get("resourceId"))[:1024], error.code, None)
        raise


def _enrol(hub: Hub, caller: Caller, body: dict[str, Any]) -> dict[str, Any]:
    check_protocol(body)
    request_id, vm_id = guid(body, "requestId"), guid(body, "vmId")
    key = pki.read_csr(needed_text(body, "csr", 16384), "csr")
    settings_csr = text(body, "settingsCsr", 16384, required=False)
    version = needed_text(body, "agentVersion", 64)
    os_type = one_of(body, "osType", ("linux", "windows"))
    vector, image_id = evidence.read(body), profiles.image_id(body.get("imageId"))
    at = now()
    with hub.database.write() as session:
        resource = paths.machine_id(needed_text(body, "resourceId", 1024))
        if resource is not None:
            _may_enrol(caller, str(resource))
        resource, machine = _target(session, body)
        before = remembered(session, machine.id, request_id, "enrol")
        if before is not None:
            return {**before, "serverTime": rfc3339(at)}
        _check_machine(session, machine, vm_id, pki.public_key_text(key))
        _spend(hub, session, caller, str(resource), vector["digest"], vm_id)
        slot = _replace_credentials(hub, session, machine, key)
        nonce = Seal(hub.keys.lease_key, machine.id, hub.epoch).main(None)
        heartbeat = session.get(Heartbeat, machine.id)
        if heartbeat is not None:
            heartbeat.epoch = 0  # enrolled anew: its next nonce proves nothing
        machine.enrolled, machine.evidence, machine.agent_version = at, vector, version
        machine.properties = {**machine.properties, "osType": os_type}
        upgrades.move(session, machine, agent_packages.versions(session))
        if caller.grant is None or not enrolments.used(session, caller.grant.ticket_id, machine, at):
            enrolments.connected(session, machine, image_id, at)
        answer = {
            "protocol": 1,
            "epoch": hub.epoch,
            "slot": slot.slot,
            "nonce": nonce,
            "certificate": slot.certificate,
            "settingsCertificate": _settings_certificate_or_none(hub, session, machine, settings_csr),
            "clientId": machine.client_id,
            "principalId": machine.principal_id,
            "tenantId": hub.settings.tenant_id,
            "serverTime": rfc3339(at),
        }
        remember(session, machine.id, request_id, "enrol", answer)
        actor = audit.Actor(caller.kind, caller.client_id)
        audit.record(session, actor, "machines/enrol", str(resource), detail={"vmId": vm_id, "slot": slot.slot})
    hub.live.dropped(machine.id, rebase=True)
    return answer


def _replace_credentials(hub: Hub, session: Session, machine: Machine, key: Any) -> Credential:
    """A first credential, or the one of an enrolment that is repeated: everything before it is retired."""
    rows = session.scalars(select(Credential).where(Credential.machine_id == machine.id)).all()
    for row in rows:
        row.state = verdict.RETIRED
    made = _credential(hub, machine, key, max((row.slot for row in rows), default=0) + 1, verdict.CURRENT)
    session.add(made)
    session.flush()
    return made


def renew(hub: Hub, record: Record, body: dict[str, Any]) -> dict[str, Any]:
    """POST /channel/v1/renew: the next slot of the identity, extd's certificate, or both.

    Until its first use the next slot can be asked for again (a lost answer); a new request replaces it.
    Errors: ApiError 400, 409 `SettingsKeyInUse`.
    """
    check_protocol(body)
    request_id, slot = guid(body, "requestId"), integer(body, "slot", 1, 1 << 31)
    csr, settings_csr = text(body, "csr", 16384, required=False), text(body, "settingsCsr", 16384, required=False)
    if csr is None and settings_csr is None:
        raise bad_content("'csr' or 'settingsCsr' must be given.", "csr")
    at = now()
    with hub.database.write() as session:
        before = remembered(session, record.machine_id, request_id, "renew")
        if before is not None:
            return {**before, "serverTime": rfc3339(at)}
        machine = session.get(Machine, record.machine_id)
        if machine is None:
            raise not_found(record.resource_id)
        answer: dict[str, Any] = {"protocol": 1, "slot": slot, "serverTime": rfc3339(at)}
        if csr is not None:
            made = next_credential(hub, session, machine, slot, csr)
            answer |= {"slot": made.slot, "certificate": made.certificate}
        if settings_csr is not None:
            answer["settingsCertificate"] = _settings_certificate(hub, session, machine, settings_csr)
        remember(session, machine.id, request_id, "renew", answer)
        actor = audit.Actor("machine", machine.client_id)
        audit.record(session, actor, "machines/renew", record.resource_id, detail={"slot": answer["slot"]})
    hub.live.dropped(record.machine_id)
    return answer


def next_credential(hub: Hub, session: Session, machine: Machine, slot: int, csr: str) -> Credential:
    """The credential after `slot`, for a new key; another that was not used yet is taken back.

    Errors: ApiError 400 for a key that was used before.
    """
    key = pki.read_csr(csr, "csr")
    key_text = pki.public_key_text(key)
    rows = session.scalars(select(Credential).where(Credential.machine_id == machine.id)).all()
    for row in rows:
        shown = x509.load_pem_x509_certificate(row.certificate.encode()).public_key()
        if pki.public_key_text(shown) == key_text and row.state != verdict.NEXT:  # type: ignore[arg-type]
            raise bad_content("Renewal needs a new key; that of 'csr' was used before.", "csr")
        if row.state == verdict.NEXT:
            session.delete(row)
    session.flush()
    made = _credential(hub, machine, key, slot + 1, verdict.NEXT)
    session.add(made)
    session.flush()
    return made
