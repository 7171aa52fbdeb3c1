# SPDX-License-Identifier: Apache-2.0
"""Machines that a restored hub does not remember: renewed, or enrolled, after the backup was made.

The database is older than the hub's keys. A certificate that the hub's own machine CA issued in a gap (between a backup
and its restoring) is a memory that the hub lost, not a forgery and not a clone: its holder keeps its identity. What a
certificate of any other time says is judged as ever. A machine whose deletion the hub remembers stays deleted.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Any
from uuid import uuid4

import jwt
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from control_plane import pki
from control_plane.arm import paths
from control_plane.arm.machines import FIRST_GENERATIONS
from control_plane.arm.roles import Action
from control_plane.authority import assertions
from control_plane.authority import claims as rules
from control_plane.bodies import is_guid
from control_plane.channel import verdict
from control_plane.errors import TokenError
from control_plane.hub import Hub
from control_plane.storage import audit, history, machines, restored
from control_plane.storage.fleet_models import MachineEvent
from control_plane.storage.models import AuditEntry, Credential, HubState, Machine, ResourceGroup

MAX_SLOT = 1 << 20


def _leaf(assertion: str) -> x509.Certificate | None:
    """The certificate that the assertion brings along; nothing is believed of it yet."""
    chain = jwt.get_unverified_header(assertion).get("x5c")
    if not isinstance(chain, list) or not chain or not isinstance(chain[0], str):
        return None
    try:
        return x509.load_der_x509_certificate(base64.b64decode(chain[0], validate=True))
    except (ValueError, binascii.Error):
        return None


def _vm_id(leaf: x509.Certificate) -> str | None:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    prefix = "urn:hawser:machine:"
    found = [uri for uri in names.get_values_for_type(x509.UniformResourceIdentifier) if uri.startswith(prefix)]
    return found[0].removeprefix(prefix) if len(found) == 1 else None


def identified(leaf: x509.Certificate, authority: x509.Certificate) -> tuple[str, str] | None:
    """Client id and vmId that the hub's machine CA certified for signing in; None for any other certificate. Pure."""
    try:
        leaf.verify_directly_issued_by(authority)
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return None
    names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    vm_id = _vm_id(leaf)
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usage or len(names) != 1 or vm_id is None:
        return None
    return str(names[0].value).lower(), vm_id


def issued(leaf: x509.Certificate) -> int:
    """When a machine's certificate was made, Unix seconds: its validity begins earlier, for clocks that are slow."""
    return int((leaf.not_valid_before_utc + pki.BACKDATE).timestamp())


def prove(
    hub: Hub,
    presented: tuple[str, assertions.Header, dict[str, Any]],
    client_id: str,
    audiences: Iterable[str],
    at: int,
) -> tuple[rules.Subject, int] | None:
    """Whom an assertion speaks for whose certificate the database does not have: (subject, machine); None when it is
    not of a gap, so that it is refused as any other.

    Errors: TokenError as assertions.verify(), and AADSTS700027 `superseded` for a certificate older than the one in
    use.
    """
    assertion, header, claims = presented
    leaf = _leaf(assertion)
    if leaf is None or not assertions.matches(header, leaf):
        return None
    with hub.database.read() as session:
        gaps = session.get_one(HubState, 1).gaps
    if not verdict.in_gap(issued(leaf), gaps):
        return None
    known = identified(leaf, hub.keys.machine_ca.certificate)
    if known is None or known[0] != client_id.lower():
        return None
    assertions.verify(assertion, header, claims, leaf, client_id, audiences, at)
    told = claims.get("hawser_machine")
    with hub.database.write() as session:
        taken = _take_back(hub, session, leaf, *known, told if isinstance(told, dict) else {}, at)
    if taken is not None:
        hub.live.dropped(taken[1], rebase=True)
    return taken


def certified(
    hub: Hub,
    assertion: str,
    header: assertions.Header,
    claims: dict[str, Any],
    client_id: str,
    audiences: Iterable[str],
    at: int,
) -> bool:
    """True for an assertion that a certificate of the hub's own machine CA was signed for, whatever became of the
    machine.

    Errors: TokenError as assertions.verify().
    """
    leaf = _leaf(assertion)
    if leaf is None or not assertions.matches(header, leaf):
        return False
    known = identified(leaf, hub.keys.machine_ca.certificate)
    if known is None or known[0] != client_id.lower():
        return False
    assertions.verify(assertion, header, claims, leaf, client_id, audiences, at)
    return True


def _take_back(
    hub: Hub, session: Session, leaf: x509.Certificate, client_id: str, vm_id: str, told: dict[str, Any], at: int
) -> tuple[rules.Subject, int] | None:
    machine = session.scalars(select(Machine).where(Machine.client_id == client_id)).one_or_none()
    action = "machines/rebase"
    if machine is None:
        machine, action = _made_again(session, leaf, client_id, vm_id, told, at), "machines/return"
    if machine is None or machine.vm_id != vm_id:
        return None
    slot = _credential(hub, session, machine, leaf, told.get("slot"), at)
    machine.enrolled = machine.enrolled or at
    group = session.get_one(ResourceGroup, machine.group_id)
    resource_id = str(paths.MachineId(machine.subscription_id, group.name, machine.name))
    audit.record(session, audit.Actor("machine", client_id), action, resource_id, detail={"vmId": vm_id, "slot": slot})
    return rules.Subject(client_id, machine.principal_id, resource_id, slot), machine.id


def _credential(
    hub: Hub, session: Session, machine: Machine, leaf: x509.Certificate, told_slot: object, at: int
) -> int:
    """The certificate becomes the machine's current one. Returns its slot: the one that the machine says, if it can be.

    Errors: TokenError when a newer one is in use.
    """
    rows = session.scalars(select(Credential).where(Credential.machine_id == machine.id)).all()
    for row in rows:
        shown = x509.load_pem_x509_certificate(row.certificate.encode())
        if row.thumbprint == pki.thumbprint(leaf):
            return row.slot  # the same assertion, twice at once
        if row.state == verdict.CURRENT and issued(shown) > issued(leaf):
            raise TokenError(401, "invalid_client", 700027, "The certificate was superseded.", suberror="superseded")
    lowest = max((row.slot for row in rows), default=0) + 1
    fits = isinstance(told_slot, int) and not isinstance(told_slot, bool) and lowest <= told_slot <= MAX_SLOT
    slot = int(told_slot) if fits else lowest  # type: ignore[call-overload]
    for row in rows:
        row.state = verdict.RETIRED
    chain = leaf.public_bytes(Encoding.PEM) + pki.certificate_pem(hub.keys.machine_ca.certificate)
    session.add(
        Credential(
            machine_id=machine.id,
            slot=slot,
            thumbprint=pki.thumbprint(leaf),
            certificate=chain.decode(),
            expires=int(leaf.not_valid_after_utc.timestamp()),
            state=verdict.CURRENT,
            created=at,
        )
    )
    session.flush()
    return slot


def _made_again(
    session: Session, leaf: x509.Certificate, client_id: str, vm_id: str, told: dict[str, Any], at: int
) -> Machine | None:
    """A resource for a machine that was enrolled after the backup, under the name it had. None when that cannot be
    done soundly: no such subscription, the name or the vmId are somebody else's by now, or it was deleted since."""
    given = told.get("resourceId")
    resource = paths.machine_id(given) if isinstance(given, str) and len(given) <= 1024 else None
    if resource is None or not is_guid(vm_id):
        return None
    subscription = machines.find_subscription(session, resource.subscription)
    if subscription is None or _deleted(session, str(resource), vm_id, issued(leaf)):
        return None
    if session.scalars(select(Machine.id).where(Machine.vm_id == vm_id)).first() is not None:
        return None
    group = machines.find_group(session, resource.subscription, resource.group)
    if group is not None and machines.find_machine(session, group, resource.name) is not None:
        return None
    places = [item.name for item in machines.locations(session)]
    location = told["location"] if told.get("location") in places else (group.location if group else places[0])
    if group is None:
        group = ResourceGroup(
            subscription_id=subscription.id,
            name=resource.group,
            name_key=resource.group.lower(),
            location=location,
            tags={},
            ticket_id=None,
            created=at,
        )
        session.add(group)
        session.flush()
    step = restored.beyond(session)
    public = leaf.public_key()
    machine = Machine(
        subscription_id=subscription.id,
        group_id=group.id,
        name=resource.name,
        name_key=resource.name.lower(),
        location=location,
        tags={},
        kind=None,
        identity_type="SystemAssigned",
        vm_id=vm_id,
        vm_id_given=True,
        client_public_key=pki.public_key_text(public),  # type: ignore[arg-type]
        properties={},
        client_id=client_id,
        principal_id=str(uuid4()),
        generations={kind: number + step if number else 0 for kind, number in FIRST_GENERATIONS.items()},
        ticket_id=None,
        created=at,
        created_by=client_id,
        created_by_type="Application",
        created_by_object=client_id,
        modified=at,
        modified_by=client_id,
        modified_by_type="Application",
    )
    session.add(machine)
    session.flush()
    return machine


def _deleted(session: Session, resource_id: str, vm_id: str, since: int) -> bool:
    """True when the hub remembers that the machine was deleted after its certificate was made."""
    told = session.scalars(
        select(MachineEvent.id).where(
            MachineEvent.kind == history.DELETED, MachineEvent.vm_id == vm_id, MachineEvent.at >= since
        )
    ).first()
    written = session.scalars(
        select(AuditEntry.id).where(
            AuditEntry.action == Action.MACHINE_DELETE,
            func.lower(AuditEntry.target) == resource_id.lower(),
            AuditEntry.outcome == "Succeeded",
            AuditEntry.at >= since,
        )
    ).first()
    return told is not None or written is not None
