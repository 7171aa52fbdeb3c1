# SPDX-License-Identifier: Apache-2.0
"""Names for machines that have none, and the tickets to take them up (docs/protocol.md sections 14.2 and 14.4).

A name is kept for one asker until its ticket expires. Writers follow each other (storage/engines.py), so that of any
number of machines with one host name each gets another name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from control_plane.arm import paths
from control_plane.authority import claims as rules
from control_plane.authority.audiences import TICKET
from control_plane.clock import rfc3339
from control_plane.errors import ApiError, forbidden
from control_plane.fleet import profiles
from control_plane.hub import Hub
from control_plane.storage import audit, machines
from control_plane.storage import twins as rows
from control_plane.storage.models import Machine, Principal, Ticket
from control_plane.storage.twin_models import Enrolment, EnrolmentToken, Origin, TokenUse, Twin

SPEAKER = "hawser-hub enrolment"
RESERVED_AGAIN_SECONDS = 60
_SUFFIX = 4
_TRIES = 64


@dataclass(frozen=True)
class Wish:
    """Who asks for a name. `asker`: what it is known by again; `place`: subscription, group and location where the
    profile names none; the rest: see storage/twin_models.py."""

    asker: str
    hostname: str
    digest: str
    profile: str
    settings: profiles.Settings
    image_id: str | None = None
    vm_id: str | None = None
    parent: str | None = None
    builder: str | None = None
    token_id: str | None = None
    twin_id: int | None = None
    place: tuple[str, str, str] | None = None


def speaker_id(tenant_id: str) -> str:
    """Client id of the principal below."""
    return str(uuid5(NAMESPACE_URL, f"urn:hawser:{tenant_id}:enrolment"))


def speaker(session: Session, tenant_id: str, at: int) -> Principal:
    """The principal in whose name the hub gives out tickets: without roles and credentials. Made when it is first
    needed; whoever revokes it switches joining and adopting off.

    Errors: ApiError 403 `AuthorizationFailed` then.
    """
    client_id = speaker_id(tenant_id)
    found = session.get(Principal, client_id)
    if found is None:
        found = Principal(
            id=client_id,
            object_id=str(uuid5(NAMESPACE_URL, f"urn:hawser:{tenant_id}:enrolment:object")),
            name=SPEAKER,
            name_key=SPEAKER.lower(),
            created=at,
            revoked=None,
        )
        session.add(found)
        session.flush()
    if found.revoked is not None:
        raise forbidden(f"The principal '{SPEAKER}' was revoked: no machine joins or is adopted.")
    return found


def asker(*parts: str | None) -> str:
    """What an asker is known by: SHA-256, hex."""
    return hashlib.sha256("\0".join(part or "" for part in parts).encode("utf-8", "replace")).hexdigest()


def _place(session: Session, wish: Wish) -> tuple[str, str, str]:
    settings = wish.settings
    if settings.subscriptionId and settings.resourceGroup:
        subscription, group = settings.subscriptionId, settings.resourceGroup
    elif wish.place is not None:
        subscription, group = wish.place[0], wish.place[1]
    else:
        raise ApiError(
            403,
            "AuthorizationFailed",
            f"The profile '{wish.profile}' names no resource group to enrol in. An operator sets it with 'hawser-hub "
            "profiles set'.",
        )
    if machines.find_subscription(session, subscription) is None:
        raise ApiError(404, "SubscriptionNotFound", f"The subscription '{subscription}' could not be found.")
    known = [item.name for item in machines.locations(session)]
    wanted = settings.location or (wish.place[2] if wish.place else None)
    return subscription, group, wanted if wanted in known else known[0]


def _is_free(session: Session, wish: Wish, subscription: str, group: str, name: str, at: int) -> bool:
    container = machines.find_group(session, subscription, group)
    machine = machines.find_machine(session, container, name) if container else None
    if machine is not None and (wish.vm_id is None or machine.vm_id != wish.vm_id):
        return False
    kept = session.scalars(
        select(Enrolment).where(
            Enrolment.subscription_id == subscription,
            Enrolment.group_key == group.lower(),
            Enrolment.name_key == name.lower(),
        )
    ).one_or_none()
    if kept is None or kept.asker == wish.asker:
        return True
    if kept.expires > at:
        return False
    session.delete(kept)
    session.flush()
    return True


def _name(session: Session, wish: Wish, subscription: str, group: str, at: int) -> str:
    seed = (wish.vm_id or wish.asker).replace("-", "")
    base = profiles.machine_name(wish.settings.nameTemplate, wish.hostname, wish.profile, wish.image_id, seed[:_SUFFIX])
    suffixes = [seed[start : start + _SUFFIX] for start in range(0, 8, _SUFFIX)]
    for number in range(_TRIES):
        suffix = suffixes[number - 1] if 0 < number <= len(suffixes) else uuid4().hex[: _SUFFIX + number // 8]
        name = base if number == 0 else profiles.with_suffix(base, suffix)
        if _is_free(session, wish, subscription, group, name, at):
            return name
    raise ApiError(409, "Conflict", f"No name like '{base}' is free in the resource group '{group}'.")


def _kept(session: Session, wish: Wish, at: int) -> tuple[Enrolment, str] | None:
    """What was kept for this asker before, if it is still good for it, with its location."""
    row = session.scalars(select(Enrolment).where(Enrolment.asker == wish.asker)).one_or_none()
    if row is None:
        return None
    place = _place(session, wish)
    resource = paths.machine_id(row.resource_id)
    same = row.digest == wish.digest and row.vm_id == wish.vm_id
    if same and resource and _is_free(session, wish, resource.subscription, resource.group, resource.name, at):
        return row, place[2]
    session.delete(row)
    session.flush()
    return None


def offer(hub: Hub, session: Session, wish: Wish, at: int) -> dict[str, Any]:
    """The member `enrolment` of an answer: a name, and a ticket to take it up with.

    Errors: ApiError 403, 404, 409.
    """
    maker = speaker(session, hub.settings.tenant_id, at)
    expires = at + rules.TICKET_SECONDS
    found = _kept(session, wish, at)
    if found is None:
        subscription, group, location = _place(session, wish)
        name = _name(session, wish, subscription, group, at)
        row = Enrolment(
            ticket_id=str(uuid4()),
            asker=wish.asker,
            subscription_id=subscription,
            group_key=group.lower(),
            name_key=name.lower(),
            resource_id=str(paths.MachineId(subscription, group, name)),
            vm_id=wish.vm_id,
            digest=wish.digest,
            profile=wish.profile,
            image_id=wish.image_id,
            parent=wish.parent,
            builder=wish.builder,
            token_id=wish.token_id,
            twin_id=wish.twin_id,
            expires=expires,
        )
        session.add(row)
        audit.record(
            session,
            audit.Actor("machine", wish.parent or wish.vm_id or "unknown"),
            "tickets/connect",
            row.resource_id,
            detail={"profile": wish.profile, "imageId": wish.image_id, "parent": wish.parent, "ticket": row.ticket_id},
        )
    else:
        row, location = found
        row.expires = expires
    _ticket(session, row, maker, at, expires)
    session.flush()
    subject = rules.Subject(maker.id, maker.object_id)
    claims = rules.access_claims(
        hub.settings.url, hub.settings.tenant_id, subject, TICKET, rules.SECRET, at, rules.TICKET_SECONDS, row.ticket_id
    )
    return {
        "ticket": hub.tokens.sign({**claims, "jti": row.ticket_id, "evd": wish.digest}),
        "expiresOn": rfc3339(expires),
        "resourceId": row.resource_id,
        "location": location,
        "tenantId": hub.settings.tenant_id,
        "tags": dict(wish.settings.tags),
    }


def _ticket(session: Session, row: Enrolment, maker: Principal, at: int, expires: int) -> None:
    ticket = session.get(Ticket, row.ticket_id)
    if ticket is None:
        operations = [{"operation": "connect", "resourceId": row.resource_id}]
        session.add(
            Ticket(
                id=row.ticket_id, principal_id=maker.id, operations=operations, created=at, expires=expires, spent=[]
            )
        )
    else:
        ticket.expires = expires


def check(hub: Hub, session: Session, ticket: Ticket, digest: str, vm_id: str) -> None:
    """A ticket that the hub gave out is good for the machine that asked alone, and for the name that is kept for it.

    Errors: ApiError 403 `TicketMismatch`.
    """
    if ticket.principal_id != speaker_id(hub.settings.tenant_id):
        return
    row = session.get(Enrolment, ticket.id)
    if row is None or row.digest != digest or (row.vm_id is not None and row.vm_id != vm_id):
        raise ApiError(
            403,
            "TicketMismatch",
            "The ticket was given to another machine: the evidence is not that of the one that asked for it.",
        )


def used(session: Session, ticket_id: str, machine: Machine, at: int) -> bool:
    """A machine has enrolled with a ticket: False when it is not one that the hub gave out; else its token is counted,
    and where it comes from is written down.

    Errors: ApiError 401 `InvalidEnrolmentToken`, 403 `EnrolmentTokenSpent`; nothing is kept then.
    """
    row = session.get(Enrolment, ticket_id)
    if row is None:
        return False
    if row.token_id is not None:
        # One at a time, over all processes of the hub: uses are counted under this lock.
        token = session.get(EnrolmentToken, row.token_id, with_for_update=True)
        if token is None or token.revoked is not None:
            raise invalid_token()
        count(session, token, machine.vm_id, at)
    session.merge(
        Origin(
            machine_id=machine.id,
            profile=row.profile,
            image_id=row.image_id,
            parent=row.parent,
            builder=row.builder,
            how="adopted" if row.parent else "joined",
            at=at,
        )
    )
    twin = session.get(Twin, row.twin_id) if row.twin_id is not None else None
    original = session.get(Machine, twin.machine_id) if twin is not None else None
    if twin is not None and original is not None:
        twin.state, twin.became, twin.last = rows.ADOPTED, row.resource_id, at
        rows.add_history(twin, at, "adopted", became=row.resource_id)
        rows.tell(session, original, twin, at, audit.Actor("machine", machine.client_id), "twins/adopted")
    session.delete(row)
    return True


def connected(session: Session, machine: Machine, image_id: str | None, at: int) -> None:
    """A machine has enrolled as somebody of the fleet's staff asked: the image that it says it comes from is written
    down. What was known of it before stays: a machine that joined connects again after a repair."""
    if image_id is None or session.get(Origin, machine.id) is not None:
        return
    session.add(Origin(machine_id=machine.id, profile=profiles.DEFAULT, image_id=image_id, how="connected", at=at))


def is_spent(session: Session, token: EnrolmentToken, vm_id: str) -> bool:
    """True when the token has no use left for this machine; one that is counted already is not counted again."""
    if session.get(TokenUse, (token.id, vm_id)) is not None:
        return False
    uses = session.scalar(select(func.count()).where(TokenUse.token_id == token.id)) or 0
    return uses >= token.uses


def check_reserved(session: Session, token: EnrolmentToken, vm_id: str, at: int) -> None:
    """A token keeps no more names at once than it has uses left.

    Errors: ApiError 429: it may be another machine's turn when those that have names have taken them up, or not.
    """
    if session.get(TokenUse, (token.id, vm_id)) is not None:
        return
    uses = session.scalar(select(func.count()).where(TokenUse.token_id == token.id)) or 0
    kept = session.scalar(
        select(func.count()).where(
            Enrolment.token_id == token.id,
            Enrolment.expires > at,
            Enrolment.asker != asker("join", token.id, vm_id),
            Enrolment.vm_id.not_in(select(TokenUse.vm_id).where(TokenUse.token_id == token.id)),
        )
    )
    if uses + (kept or 0) >= token.uses:
        raise ApiError(
            429,
            "TooManyRequests",
            "All that is left of the enrolment token is kept for machines that are joining now; ask again later.",
            headers={"Retry-After": str(RESERVED_AGAIN_SECONDS)},
        )


def count(session: Session, token: EnrolmentToken, vm_id: str, at: int) -> None:
    """Count a machine. Errors: ApiError 403 `EnrolmentTokenSpent`."""
    if is_spent(session, token, vm_id):
        raise spent(f"it was good for {token.uses} machines")
    if session.get(TokenUse, (token.id, vm_id)) is None:
        session.add(TokenUse(token_id=token.id, vm_id=vm_id, at=at))


def invalid_token() -> ApiError:
    """401: unknown, or revoked."""
    return ApiError(
        401,
        "InvalidEnrolmentToken",
        "The enrolment token is not known here, or was revoked. Make another one with 'hawser-hub profiles token'.",
    )


def spent(why: str) -> ApiError:
    """403: the token's limits."""
    return ApiError(
        403,
        "EnrolmentTokenSpent",
        f"The enrolment token cannot be used: {why}. Make another one with 'hawser-hub profiles token'.",
    )
