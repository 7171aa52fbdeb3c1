# SPDX-License-Identifier: Apache-2.0
"""Whom an external identity provider may send in, and with which roles: a pure reading of claims and configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from control_plane.arm import scopes
from control_plane.arm.roles import HUB, ROLES
from control_plane.errors import ApiError, OperatorError
from control_plane.people import users


@dataclass(frozen=True)
class Admitted:
    """`subject`: issuer and subject, which are who it is; `name`: what to call him here; `roles`: (role, scope)."""

    subject: str
    name: str
    email: str | None
    roles: tuple[tuple[str, str], ...]


def check(section: Mapping[str, Any]) -> None:
    """Errors: OperatorError for a role or a scope that is none, which the schema cannot know."""
    for rule in section["admit"]:
        if "role" in rule and rule["role"] not in ROLES:
            raise OperatorError(f"oidc.admit names a role '{rule['role']}'.", f"The roles are: {', '.join(ROLES)}.")
        if scopes.read(rule.get("scope", HUB)) is None:
            raise OperatorError(
                f"oidc.admit names a scope '{rule['scope']}'.",
                "Use / or the id of a subscription, a resource group or a machine.",
            )


def _values(claims: Mapping[str, Any], name: str) -> Sequence[str]:
    found = claims.get(name)
    if name == "email" and claims.get("email_verified") is not True:
        return ()  # an address that nobody proved is a wish
    given = found if isinstance(found, list) else [found]
    return [item for item in given if isinstance(item, str)]


def decide(section: Mapping[str, Any], claims: Mapping[str, Any]) -> Admitted:
    """Who it is, if one of the rules of `admit` fits; every rule that fits gives its role.

    Errors: ApiError 403 `NotAdmitted`: no rule fits, or no usable name.
    """
    fitting = [rule for rule in section["admit"] if rule["value"] in _values(claims, rule["claim"])]
    if not fitting:
        raise ApiError(403, "NotAdmitted", "This account may not sign in here. Ask who runs the hub to admit it.")
    names = _values(claims, section["name_claim"])
    try:
        users.check_name(names[0] if names else "")
    except ApiError as error:
        raise ApiError(
            403, "NotAdmitted", f"The claim '{section['name_claim']}' of this account holds no usable name."
        ) from error
    emails = _values(claims, "email")
    email = emails[0] if emails and len(emails[0]) <= 254 else None
    held = dict.fromkeys((rule["role"], rule.get("scope", HUB)) for rule in fitting if "role" in rule)
    return Admitted(f"{claims['iss']}|{claims['sub']}", names[0], email, tuple(held))
