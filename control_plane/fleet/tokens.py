# SPDX-License-Identifier: Apache-2.0
"""Profiles and their enrolment tokens in the database, for the API and the command line (docs/protocol.md 14.4)."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from control_plane.arm.locations import known_location
from control_plane.arm.paths import MACHINE_TYPE
from control_plane.bodies import whole
from control_plane.channel.join import digest
from control_plane.clock import rfc3339
from control_plane.errors import ApiError, bad_content
from control_plane.fleet import profiles
from control_plane.storage import machines
from control_plane.storage.twin_models import EnrolmentToken, Profile, TokenUse

PREFIX = "hwe_"
MAX_USES = 100_000
MAX_DAYS = 90
MAX_PROFILES = 500


def every(session: Session) -> list[dict[str, Any]]:
    """All profiles by name, `default` with what holds while nobody has set it."""
    found = {row.name: profile_json(row) for row in session.scalars(select(Profile))}
    found.setdefault(profiles.DEFAULT, _unset())
    return [found[name] for name in sorted(found)]


def _unset() -> dict[str, Any]:
    return {"name": profiles.DEFAULT, **profiles.shown(profiles.FALLBACK), "created": None, "modified": None}


def profile_json(row: Profile) -> dict[str, Any]:
    """A profile as JSON."""
    return {
        "name": row.name,
        **profiles.shown(profiles.stored(row.settings)),
        "created": rfc3339(row.created),
        "modified": rfc3339(row.modified),
    }


def find(session: Session, name: str) -> dict[str, Any]:
    """Errors: ApiError 404."""
    row = session.get(Profile, name)
    if row is not None:
        return profile_json(row)
    if name == profiles.DEFAULT:
        return _unset()
    raise _missing(name)


def _missing(name: str) -> ApiError:
    return ApiError(404, "ResourceNotFound", f"There is no enrolment profile '{name[:64]}'.")


def put(session: Session, name: str, body: Mapping[str, Any], at: int, *, keep: bool) -> tuple[dict[str, Any], bool]:
    """Make or change a profile. `keep`: what is not sent stays. Returns it, and True when it was made.

    Errors: ApiError 400, 404 for a subscription or a location that is none, 409 for too many.
    """
    profiles.check_name(name)
    row = session.get(Profile, name)
    before = profiles.stored(row.settings) if row is not None else None
    if row is None and name == profiles.DEFAULT:
        before = profiles.FALLBACK
    settings = profiles.read(body, before if keep else None)
    if settings.subscriptionId and machines.find_subscription(session, settings.subscriptionId) is None:
        raise ApiError(404, "SubscriptionNotFound", f"There is no subscription '{settings.subscriptionId}'.")
    if settings.location:
        known_location(session, settings.location, MACHINE_TYPE, "LocationNotAvailableForResourceType", status=404)
    made = row is None
    if row is None:
        if (session.scalar(select(func.count()).select_from(Profile)) or 0) >= MAX_PROFILES:
            raise ApiError(409, "TooManyProfiles", f"There are {MAX_PROFILES} profiles already; remove one first.")
        row = Profile(name=name, settings={}, created=at, modified=at)
        session.add(row)
    row.settings, row.modified = profiles.shown(settings), at
    return profile_json(row), made


def delete(session: Session, name: str) -> bool:
    """Remove a profile with its tokens; machines that have it fall back to what `default` is made with. False when
    there was none."""
    row = session.get(Profile, name)
    if row is None:
        return False
    session.delete(row)
    return True


def make_token(session: Session, name: str, body: Mapping[str, Any], by: str, at: int) -> tuple[str, dict[str, Any]]:
    """A new token of a profile: its text, which nobody is told again, and its description. `body`: `uses` (1 to
    100,000), `days` (1 to 90), `imageId`.

    Errors: ApiError 400, 404.
    """
    unknown = set(body) - {"uses", "days", "imageId"}
    if unknown:
        raise bad_content(f"There is no member '{min(unknown)[:80]}' here.", min(unknown)[:80])
    uses, days = whole(body, "uses", 1, MAX_USES), whole(body, "days", 1, MAX_DAYS)
    image = profiles.image_id(body.get("imageId"))
    if session.get(Profile, name) is None:
        if name == profiles.DEFAULT:
            raise ApiError(409, "Conflict", "The profile 'default' names no resource group; set it first.")
        raise _missing(name)
    token = PREFIX + secrets.token_urlsafe(32)
    row = EnrolmentToken(
        id=str(uuid4()),
        profile=name,
        digest=digest(token),
        image_id=image,
        uses=uses,
        created=at,
        created_by=by[:128],
        expires=at + days * 86400,
        revoked=None,
    )
    session.add(row)
    session.flush()
    return token, token_json(session, row)


def tokens(session: Session, name: str) -> list[dict[str, Any]]:
    """The tokens of a profile, the newest first; never their text."""
    query = select(EnrolmentToken).where(EnrolmentToken.profile == name).order_by(EnrolmentToken.created.desc())
    return [token_json(session, row) for row in session.scalars(query.order_by(EnrolmentToken.id))]


def token_json(session: Session, row: EnrolmentToken) -> dict[str, Any]:
    """A token as JSON, without its text."""
    used = session.scalar(select(func.count()).where(TokenUse.token_id == row.id)) or 0
    return {
        "id": row.id,
        "profile": row.profile,
        "imageId": row.image_id,
        "uses": row.uses,
        "used": used,
        "created": rfc3339(row.created),
        "createdBy": row.created_by,
        "expires": rfc3339(row.expires),
        "revoked": rfc3339(row.revoked) if row.revoked else None,
    }


def revoke(session: Session, name: str, token_id: str, at: int) -> dict[str, Any] | None:
    """No machine joins with it any more. None when there is no such token in the profile."""
    row = session.get(EnrolmentToken, token_id)
    if row is None or row.profile != name:
        return None
    row.revoked = row.revoked or at
    return token_json(session, row)
