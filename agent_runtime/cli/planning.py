# SPDX-License-Identifier: Apache-2.0
"""What `azcmagent apply` would do: a pure function from what is wished and what is to a plan.

Source: docs/protocol.md section 11. Nothing here reads a file, a clock or a socket; `applying` carries plans out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from agent_runtime.cli import images, naming
from agent_runtime.identity import machine
from agent_runtime.state import config as properties

# Members of `connection` that say which machine at the hub this is; a difference in one means another machine.
PLACE = ("cloud", "tenant_id", "subscription_id", "resource_group", "name", "location")
NEEDED_TO_CONNECT = ("subscription_id", "resource_group", "location")
# What himds puts into `agentErrorCode` when the hub no longer knows the machine (protocol section 9, ResourceNotFound).
DELETED_AT_HUB = "AZCM0042"

STEPS = ("unseal", "config", "disconnect", "cloud", "connect", "tags", "specialise", "seal")

Values = Mapping[str, Any]


class Wish(NamedTuple):
    """The input of `apply`, each part None when its key is absent. `config` holds parsed values, None clears; `image`
    is without its token."""

    cloud: Values | None = None
    connection: Values | None = None
    config: Values | None = None
    tags: Mapping[str, str] | None = None
    image: Values | None = None


class Actual(NamedTuple):
    """The machine as it is. `connection` has `state` (`connected` or `disconnected`), the members of PLACE,

    `resource_id`, `status`, `identity_state`, `error_code` and `correlation_id`; null where unknown.
    `config` has the machine's own values, those that differ from the defaults (`localconfig.json`). `image` has
    `state` (`sealed`, `specialised`: connected, else `unsealed`), `image_id`, `enroll_on_first_boot`, `joins`: whether
    it enrols with its image's token, `is_copied`: by its evidence, and `clean`: whether sealing ended and nothing is
    left to clear; None when nobody asked.
    """

    clouds: Mapping[str, Values]
    connection: Values
    config: Mapping[str, properties.Value]
    tags: Mapping[str, str] | None
    hostname: str
    image: Values | None = None


class Reason(NamedTuple):
    """One difference: dotted path, wished value, value now."""

    path: str
    expected: Any
    actual: Any


class Need(NamedTuple):
    """One operation at the hub that needs a credential (protocol section 4)."""

    operation: str
    resource_id: str


class Plan(NamedTuple):
    """`steps` are names out of STEPS, in that order.

    `target` is the whole place to connect to, with `tags`; None unless `connect` is a step.
    `local_only`: the machine is not deleted at the hub when it is disconnected.
    """

    reasons: tuple[Reason, ...]
    steps: tuple[str, ...]
    credential_required: tuple[Need, ...]
    warnings: tuple[str, ...]
    target: Values | None
    local_only: bool


def plan(wish: Wish, actual: Actual) -> Plan:
    """What has to be done so that `actual` becomes what `wish` says.

    Errors: those of `naming` (missing member, cloud, location, tenant), AZCM0027 for a sealed image that shall be
    connected; each before anything is changed.
    """
    reasons = [*_cloud_reasons(wish, actual), *_config_reasons(wish, actual)]
    steps = {reason.path.partition(".")[0] for reason in reasons}
    needs = []
    warnings = []
    target: Values | None = None

    place_reasons = _connection_reasons(wish, actual)
    reasons += place_reasons
    connected = actual.connection.get("state") == "connected"
    wants_connected = wish.connection is not None and wish.connection["state"] == "connected"
    # Whose the machine at the hub is, is in question while the identity is held: it is not deleted from here.
    held = actual.connection.get("identity_state") in machine.HELD
    local_only = bool(wish.connection and wish.connection.get("force_local_only")) or _is_deleted(actual) or held
    if place_reasons and wants_connected:
        if actual.connection.get("identity_state") == "sealed":
            machine.refuse_sealed()
        target = _target(wish, actual)
        steps.add("connect")
    if place_reasons and connected:
        steps.add("disconnect")
        if not local_only:
            needs.append(Need("delete", str(actual.connection.get("resource_id"))))
    if target is not None:
        needs.insert(0, Need("connect", naming.resource_id_of(target)))
    if wish.tags is not None:
        staying = connected and not place_reasons
        if not staying and target is None:
            raise naming.tags_without_machine()
        tag_reasons = _tag_reasons(wish.tags, actual.tags if connected else None)
        reasons += tag_reasons
        if staying and tag_reasons:
            steps.add("tags")
            needs.append(Need("update", str(actual.connection.get("resource_id"))))
    if connected and not place_reasons and held:
        warnings.append(
            f"the identity of this machine is {actual.connection['identity_state']}: the hub does not accept it"
        )
    stays_connected = target is not None or (connected and not place_reasons)
    image_reasons = [Reason(*found) for found in images.reasons(wish, actual, stays_connected)]
    reasons += image_reasons
    if image_reasons and wish.image is not None:
        steps |= images.steps(wish, actual)
    ordered = tuple(name for name in STEPS if name in steps)
    return Plan(tuple(reasons), ordered, tuple(needs), tuple(warnings), target, local_only)


def project(wish: Wish, actual: Actual, made: Plan) -> Actual:
    """The machine as it will be when every step of `made` has succeeded."""
    clouds = dict(actual.clouds)
    if "cloud" in made.steps and wish.cloud is not None:
        clouds[wish.cloud["name"]] = wish.cloud
    config = properties.changed(actual.config, wish.config or {})
    connection: Values = actual.connection
    tags = actual.tags
    if "disconnect" in made.steps:
        connection, tags = disconnected_view(), None
    if made.target is not None:
        place = {key: made.target[key] for key in PLACE}
        connection = {
            **disconnected_view(),
            **place,
            "state": "connected",
            "status": "Connected",
            "identity_state": "connected",
            "resource_id": naming.resource_id_of(made.target),
            "correlation_id": made.target.get("correlation_id"),
        }
        tags = made.target["tags"]
    if "tags" in made.steps:
        tags = wish.tags
    if "seal" in made.steps:
        connection, tags = disconnected_view(), None
    if "specialise" in made.steps:
        connection = {**connection, "state": "connected", "status": "Connected", "identity_state": "connected"}
    image = images.projected(wish, actual, made.steps)
    return actual._replace(clouds=clouds, config=config, connection=connection, tags=tags, image=image)


def view(wish: Wish, actual: Actual) -> dict[str, Any]:
    """The part of `actual` that the input names: `before` and `after` of the answer. Never the credential."""
    seen: dict[str, Any] = {}
    if wish.cloud is not None:
        stored = actual.clouds.get(wish.cloud["name"])
        seen["cloud"] = None if stored is None else {key: stored.get(key) for key in wish.cloud}
    if wish.connection is not None:
        named = [key for key in wish.connection if key not in ("credential", "force_local_only")]
        seen["connection"] = {key: actual.connection.get(key) for key in [*named, "status", "resource_id"]}
    if wish.config is not None:
        seen["config"] = {key: _shown(key, actual.config.get(key, _default(key))) for key in wish.config}
    if wish.tags is not None:
        seen["tags"] = None if actual.tags is None else dict(actual.tags)
    if wish.image is not None and actual.image is not None:
        seen["image"] = {key: actual.image.get(key) for key in images.SHOWN}
    return seen


def disconnected_view() -> dict[str, Any]:
    """`Actual.connection` of a machine that is not connected."""
    members = dict.fromkeys((*PLACE, "resource_id", "error_code", "correlation_id"))
    return {"state": "disconnected", "status": "Disconnected", "identity_state": "disconnected", **members}


def _cloud_reasons(wish: Wish, actual: Actual) -> list[Reason]:
    if wish.cloud is None:
        return []
    name = wish.cloud["name"]
    stored = actual.clouds.get(name)
    if stored is None:
        return [Reason("cloud", name, None)]
    keys = [*wish.cloud, *(key for key in stored if key not in wish.cloud)]
    return [
        Reason(f"cloud.{key}", wish.cloud.get(key), stored.get(key))
        for key in keys
        if wish.cloud.get(key) != stored.get(key)
    ]


def _config_reasons(wish: Wish, actual: Actual) -> list[Reason]:
    found = []
    for key, value in (wish.config or {}).items():
        expected = _default(key) if value is None else value
        now = actual.config.get(key, _default(key))
        if not properties.same(expected, now):
            found.append(Reason(f"config.{key}", _shown(key, expected), _shown(key, now)))
    # What monitor mode locks is refused here, before any step.
    properties.changed(actual.config, wish.config or {})
    return found


def _default(key: str) -> properties.Value | None:
    """What is in force where nothing is set; None where that is another than the displayed default."""
    row = properties.find(key)
    return None if row.counts_when_set else row.default


def _shown(key: str, value: Any) -> Any:
    return properties.without_password(value) if key == "proxy.url" else value


def _connection_reasons(wish: Wish, actual: Actual) -> list[Reason]:
    if wish.connection is None:
        return []
    now = actual.connection
    expected = wish.connection["state"]
    if now.get("state") != expected:
        return [Reason("connection.state", expected, now.get("state"))]
    if expected == "disconnected":
        return []
    found = [
        Reason(f"connection.{key}", wish.connection[key], now.get(key))
        for key in PLACE
        if key in wish.connection and not naming.same(key, wish.connection[key], now.get(key))
    ]
    if now.get("identity_state") == "expired":
        found.append(Reason("connection.status", "Connected", now.get("status")))
    elif _is_deleted(actual):
        found.append(Reason("connection.resource_id", now.get("resource_id"), None))
    return found


def _is_deleted(actual: Actual) -> bool:
    now = actual.connection
    return now.get("state") == "connected" and now.get("error_code") == DELETED_AT_HUB


def _tag_reasons(wished: Mapping[str, str], now: Mapping[str, str] | None) -> list[Reason]:
    have = now or {}
    keys = [*wished, *(key for key in have if key not in wished)]
    return [Reason(f"tags.{k}", wished.get(k), have.get(k)) for k in keys if wished.get(k) != have.get(k)]


def _target(wish: Wish, actual: Actual) -> dict[str, Any]:
    """Where to connect: what the wish says, then where the machine is, then what can be derived."""
    said = wish.connection or {}
    clouds = dict(actual.clouds)
    if wish.cloud is not None:
        clouds[wish.cloud["name"]] = wish.cloud
    place = {key: said.get(key, actual.connection.get(key)) for key in PLACE}
    profile = naming.choose_cloud(place["cloud"], clouds)
    naming.require({key: place[key] for key in NEEDED_TO_CONNECT}, "connection")
    place["cloud"] = profile["name"]
    if said.get("tenant_id") is None:
        place["tenant_id"] = profile["tenant_id"]
    naming.check_tenant(place["tenant_id"], profile)
    place["location"] = naming.choose_location(place["location"], profile)
    place["name"] = naming.machine_name(place["name"] or actual.hostname)
    tags = wish.tags if wish.tags is not None else (actual.tags or {})
    return {**place, "tags": dict(tags), "correlation_id": said.get("correlation_id")}
