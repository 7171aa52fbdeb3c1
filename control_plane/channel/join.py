# SPDX-License-Identifier: Apache-2.0
"""`POST /channel/v1/join`: a machine made from an image asks for a name (docs/protocol.md section 14.4)."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

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


def digest(token: str) -> str:
    """What is kept of a token: SHA-256, hex. Enough for 256 random bits of our own making."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _token(session: Session, given: str, image_id: str | None, vm_id: str, at: int) -> EnrolmentToken:
    """Errors: ApiError 401 `InvalidEnrolmentToken`, 403 `EnrolmentTokenSpent`."""
    wanted = digest(given)
    found = session.scalars(select(EnrolmentToken).where(EnrolmentToken.digest == wanted)).one_or_none()
    if found is None or not hmac.compare_digest(found.digest, wanted) or found.revoked is not None:
        raise enrolments.invalid_token()
    if found.expires <= at:
        raise enrolments.spent(f"it ended on {rfc3339(found.expires)}")
    if found.image_id is not None and found.image_id != image_id:
        raise enrolments.spent(f"it is for the image '{found.image_id}' alone")
    if enrolments.is_spent(session, found, vm_id):
        raise enrolments.spent(f"it was good for {found.uses} machines")
    return found


def join(hub: Hub, body: dict[str, Any]) -> dict[str, Any]:
    """The answer: an enrolment.

    Errors: ApiError 400, 401 `InvalidEnrolmentToken`, 403 (`EnrolmentTokenSpent`, `AuthorizationFailed`), 404, 409.
    """
    check_protocol(body)
    guid(body, "requestId")
    vm_id = guid(body, "vmId")
    given = needed_text(body, "token", 256)
    hostname = needed_text(body, "hostname", MAX_HOSTNAME)
    image_id = profiles.image_id(body.get("imageId"))
    builder = text(body, "builderEvidenceDigest", 64, required=False)
    if builder is not None and not evidence.is_digest(builder):
        raise bad_content("'builderEvidenceDigest' must be null or 64 hexadecimal digits.", "builderEvidenceDigest")
    vector = evidence.read(body)
    at = now()
    try:
        with hub.database.write() as session:
            token = _token(session, given, image_id, vm_id, at)
            enrolments.check_reserved(session, token, vm_id, at)
            wish = enrolments.Wish(
                asker=enrolments.asker("join", token.id, vm_id),
                hostname=hostname,
                digest=vector["digest"],
                profile=token.profile,
                settings=rows.profile(session, token.profile),
                image_id=image_id,
                vm_id=vm_id,
                builder=builder,
                token_id=token.id,
            )
            return enrolments.offer(hub, session, wish, at)
    except ApiError as error:
        audit.refused(hub.database, audit.Actor("machine", vm_id), "machines/join", "/", error.code, None)
        raise
