# SPDX-License-Identifier: Apache-2.0
"""Which machines are meant: the parameters of the fleet query as plain data. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from control_plane import support
from control_plane.arm.paths import folded_location
from control_plane.arm.status import AWAITING, CONNECTED, DISCONNECTED, EXPIRED
from control_plane.bodies import is_guid
from control_plane.clock import parse_rfc3339
from control_plane.errors import ApiError

STATUSES = (AWAITING, CONNECTED, DISCONNECTED, EXPIRED)
OS_TYPES = ("linux", "windows")
SUPPORT = (support.SUPPORTED, support.ENDED, support.UNKNOWN)
ORDERS = ("name", "status", "lastHeartbeat", "agentVersion", "location")
PARAMETERS = (
    "subscriptionId",
    "resourceGroup",
    "name",
    "status",
    "tag",
    "osType",
    "location",
    "agentVersion",
    "support",
    "search",
    "seenBefore",
    "seenAfter",
)
MAX_WORDS = 50
MAX_TAGS = 10
MAX_SEARCH = 256


@dataclass(frozen=True)
class FleetFilter:
    """An empty member asks for nothing. `groups`, `search`, `os_types`, `locations`: lower case; `tags`: name and
    value, None for any; `seen_before`, `seen_after`: Unix seconds, of the last heartbeat."""

    subscription_id: str | None = None
    groups: tuple[str, ...] = ()
    name: str | None = None
    statuses: tuple[str, ...] = ()
    tags: tuple[tuple[str, str | None], ...] = ()
    os_types: tuple[str, ...] = ()
    locations: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    support: tuple[str, ...] = ()
    search: str | None = None
    seen_before: int | None = None
    seen_after: int | None = None


@dataclass(frozen=True)
class Order:
    """`by`: one of ORDERS."""

    by: str = "name"
    descending: bool = False


def bad_parameter(name: str, what: str) -> ApiError:
    """400 `InvalidParameter` naming the parameter."""
    return ApiError(400, "InvalidParameter", f"The query parameter '{name}' {what}.", target=name)


def _words(name: str, text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not found or len(found) > MAX_WORDS:
        raise bad_parameter(name, f"must hold 1 to {MAX_WORDS} values, separated by commas")
    return found


def _known(name: str, text: str, known: Iterable[str]) -> tuple[str, ...]:
    words = {word.lower(): word for word in known}
    found = _words(name, text)
    for word in found:
        if word.lower() not in words:
            raise bad_parameter(name, f"must be of {', '.join(words.values())}")
    return tuple(words[word.lower()] for word in found)


def time_parameter(name: str, text: str | None) -> int | None:
    """Unix seconds of an RFC 3339 time, of 1970 what is before.

    Errors: ApiError 400 when it is none.
    """
    if text is None:
        return None
    found = parse_rfc3339(text.replace(" ", "+"))  # a '+' that was not escaped arrives as a blank
    if found is None:
        raise bad_parameter(name, "must be a time of RFC 3339, for example 2026-11-23T10:00:00Z")
    return max(found, 0)


def tag(text: str) -> tuple[str, str | None]:
    """`name` or `name=value`; what follows the first '=' is the value.

    Errors: ApiError 400.
    """
    name, separator, value = text.partition("=")
    if not 0 < len(name) <= 512 or len(value) > 256:
        raise bad_parameter("tag", "must be NAME or NAME=VALUE, a name of 1 to 512 characters, a value of at most 256")
    return name.lower(), value if separator else None


def read(pairs: Sequence[tuple[str, str]]) -> FleetFilter:
    """The filter of a request's query: names in lower case, in their order, repeated ones included. Names that are no
    filters are left alone; an empty value counts as absent.

    Errors: ApiError 400 naming the parameter.
    """
    given = {name: value for name, value in pairs if value}
    tags = tuple(dict.fromkeys(tag(value) for name, value in pairs if name == "tag" and value))
    if len(tags) > MAX_TAGS:
        raise bad_parameter("tag", f"may be given {MAX_TAGS} times at most")
    subscription = given.get("subscriptionid")
    if subscription is not None and not is_guid(subscription):
        raise bad_parameter("subscriptionId", "must be a GUID")
    search = given.get("search", "").strip().lower()
    if len(search) > MAX_SEARCH:
        raise bad_parameter("search", f"must have at most {MAX_SEARCH} characters")
    return FleetFilter(
        subscription_id=subscription.lower() if subscription else None,
        groups=tuple(word.lower() for word in _words("resourceGroup", given["resourcegroup"]))
        if "resourcegroup" in given
        else (),
        name=given["name"].lower() if "name" in given else None,
        statuses=_known("status", given["status"], STATUSES) if "status" in given else (),
        tags=tags,
        os_types=_known("osType", given["ostype"], OS_TYPES) if "ostype" in given else (),
        locations=tuple(folded_location(word) for word in _words("location", given["location"]))
        if "location" in given
        else (),
        versions=_words("agentVersion", given["agentversion"]) if "agentversion" in given else (),
        support=_known("support", given["support"], SUPPORT) if "support" in given else (),
        search=search or None,
        seen_before=time_parameter("seenBefore", given.get("seenbefore")),
        seen_after=time_parameter("seenAfter", given.get("seenafter")),
    )


def support_days(at: int) -> tuple[str, str]:
    """The first and the last day of release (`YYYY-MM-DD`) of versions that are supported at `at`; what is later is
    unknown, as support.py says."""
    today = datetime.fromtimestamp(at, UTC).date()
    first = date(today.year - 1, 3, 1) if (today.month, today.day) == (2, 29) else today.replace(year=today.year - 1)
    return first.isoformat(), datetime.fromtimestamp(at + 86400, UTC).date().isoformat()


def order(text: str | None) -> Order:
    """`$orderby`: a name of ORDERS, then `asc` or `desc`.

    Errors: ApiError 400.
    """
    if not text:
        return Order()
    word, _, direction = text.strip().partition(" ")
    known = {name.lower(): name for name in ORDERS}
    if word.lower() not in known or direction.strip().lower() not in ("", "asc", "desc"):
        raise bad_parameter("$orderby", f"must be one of {', '.join(ORDERS)}, with asc or desc behind it")
    return Order(known[word.lower()], direction.strip().lower() == "desc")


def switch(name: str, text: str | None) -> bool:
    """`true` or `false`; absent is false.

    Errors: ApiError 400.
    """
    if (text or "false").lower() not in ("true", "false"):
        raise bad_parameter(name, "must be true or false")
    return (text or "").lower() == "true"
