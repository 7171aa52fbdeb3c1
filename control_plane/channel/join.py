# SPDX-License-Identifier: Apache-2.0
"""`POST /channel/v1/join`: a machine made from an image asks for a name (docs/protocol.md section 14.4)."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from control_plane import threads
from control_plane.bodies import guid, needed_text, text
from control_plane.channel import enrolments, evidence
from control_plane.channel.callers import check_protocol
from control_plane.clock import now, rfc3339
from control_plane.errors import ApiError, bad_content
from control_plane.fleet import profiles
from control_plane.hub import Hub
from control_plane.storage import audit
from control_plane.storage import twins as rows
from control_plane.storage.twin_models import EnrolmentToken

MAX_HOSTNAME = 255
_ACTION = "machines/join"


def digest(token: str) -> str:
    """What is kept of a token: SHA-256, hex. Enough for 256 random bits of our own making."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True)
class Asked:
    """The body, checked. `vector`: the evidence, with its digest."""

    vm_id: str
    token: str
    hostname: str
    image_id: str | None
    builder: str | None
    vector: dict[str, Any]
    peer: str


def read(body: dict[str, Any], peer: str) -> Asked:
    """The body, checked as docs/schemas/channel-join.schema.json says.

    Errors: ApiError 400.
    """
    check_protocol(body)
    guid(body, "requestId")
    builder = text(body, "builderEvidenceDigest", 64, required=False)
    if builder is not None and not evidence.is_digest(builder):
        raise bad_content("'builderEvidenceDigest' must be null or 64 hexadecimal digits.", "builderEvidenceDigest")
    return Asked(
        vm_id=guid(body, "vmId"),
        token=needed_text(body, "token", 256),
        hostname=needed_text(body, "hostname", MAX_HOSTNAME),
        image_id=profiles.image_id(body.get("imageId")),
        builder=builder,
        vector=evidence.read(body),
        peer=peer,
    )


def _token(session: Session, given: str) -> EnrolmentToken | None:
    wanted = digest(given)
    found = session.scalars(select(EnrolmentToken).where(EnrolmentToken.digest == wanted)).one_or_none()
    return found if found is not None and hmac.compare_digest(found.digest, wanted) else None


def _check(session: Session, token: EnrolmentToken, asked: Asked, at: int) -> None:
    """Errors: ApiError 401 `InvalidEnrolmentToken`, 403 `EnrolmentTokenSpent`."""
    if token.revoked is not None:
        raise enrolments.invalid_token()
    if token.expires <= at:
        raise enrolments.spent(f"it ended on {rfc3339(token.expires)}")
    if token.image_id is not None and token.image_id != asked.image_id:
        raise enrolments.spent(f"it is for the image '{token.image_id}' alone")
    if enrolments.is_spent(session, token, asked.vm_id):
        raise enrolments.spent(f"it was good for {token.uses} machines")


def _refused(hub: Hub, asked: Asked, target: str, error: ApiError) -> None:
    hub.refusals.audit(audit.Actor("machine", asked.vm_id), _ACTION, target, error.code, asked.peer)


def admit(hub: Hub, asked: Asked, at: int) -> str:
    """What the audit calls the token, if it is good; changes nothing.

    Errors: ApiError 401 `InvalidEnrolmentToken`, 403 `EnrolmentTokenSpent`.
    """
    with hub.database.read() as session:
        token = _token(session, asked.token)
        if token is None:
            error = enrolments.invalid_token()
            hub.refusals.note(_ACTION, error.code, asked.peer)
            raise error
        target = f"/profiles/{token.profile}/tokens/{token.id}"
        try:
            _check(session, token, asked, at)
        except ApiError as error:
            _refused(hub, asked, target, error)
            raise
    return target


def join(hub: Hub, asked: Asked, target: str, at: int) -> dict[str, Any]:
    """The answer: an enrolment. `target`: of `admit`.

    Errors: ApiError 401 `InvalidEnrolmentToken`, 403 (`EnrolmentTokenSpent`, `AuthorizationFailed`), 404, 409.
    """
    try:
        with hub.database.write() as session:
            token = _token(session, asked.token)
            if token is None:
                raise enrolments.invalid_token()
            _check(session, token, asked, at)
            enrolments.check_reserved(session, token, asked.vm_id, at)
            wish = enrolments.Wish(
                asker=enrolments.asker("join", token.id, asked.vm_id),
                hostname=asked.hostname,
                digest=asked.vector["digest"],
                profile=token.profile,
                settings=rows.profile(session, token.profile),
                image_id=asked.image_id,
                vm_id=asked.vm_id,
                builder=asked.builder,
                token_id=token.id,
            )
            return enrolments.offer(hub, session, wish, at)
    except ApiError as error:
        _refused(hub, asked, target, error)
        raise


async def ask(hub: Hub, body: dict[str, Any], peer: str) -> dict[str, Any]:
    """The answer.

    Errors: ApiError 400, 401 `InvalidEnrolmentToken`, 403 (`EnrolmentTokenSpent`, `AuthorizationFailed`), 404, 409,
    429 `TooManyRequests`.
    """
    hub.gate.address(peer)
    asked, at = read(body, peer), now()
    target = await threads.run(admit, hub, asked, at)
    hub.gate.everybody()
    hub.gate.heard()
    return await threads.run(join, hub, asked, target, at)
