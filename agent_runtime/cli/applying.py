# SPDX-License-Identifier: Apache-2.0
"""The shell round `planning`: reads the wish, looks at the machine, carries out the steps of a plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from agent_runtime import errors
from agent_runtime.cli import jsoninput, planning, schema
from agent_runtime.state import config as properties

if TYPE_CHECKING:
    from agent_runtime.cli.session import Session
    from agent_runtime.identity.sealing import Wish as SealWish

# Members of the `status` verb (protocol section 12) and what `connection` calls them.
_STATUS = {
    "cloud": "cloud",
    "tenantId": "tenant_id",
    "subscriptionId": "subscription_id",
    "resourceGroup": "resource_group",
    "resourceName": "name",
    "location": "location",
    "resourceId": "resource_id",
    "correlationId": "correlation_id",
    "agentErrorCode": "error_code",
    "status": "status",
    "identityState": "identity_state",
}
_NOT_CONNECTED = ("disconnected", "connecting", "sealed", None)


class Secrets(NamedTuple):
    """What of a wish no view may show: the access token, and the enrolment token of an image."""

    access: str | None
    enrolment: str | None


def read_wish(content: bytes, limit: int) -> tuple[planning.Wish, Secrets]:
    """The wish, and its secrets apart from it, so that no view of the wish can show them.

    Errors: AZCM0016, AZCM0023; one sentence, no value repeated. Names of config properties are judged here too.
    """
    wish = jsoninput.parse(content, limit)
    if not isinstance(wish, dict):
        raise errors.ParameterInvalid("the wish is not a JSON object", 'Send {"schema": 1, …}')
    schema.check("apply-input", wish, "the wish")
    connection = wish.get("connection")
    token = None
    if connection is not None:
        token = (connection.get("credential") or {}).get("access_token")
        connection = {key: value for key, value in connection.items() if key != "credential"}
    config = wish.get("config")
    if config is not None:
        config = _parsed(config)
    image = wish.get("image")
    enrolment = None
    if image is not None:
        enrolment = image.get("token")
        image = {key: value for key, value in image.items() if key != "token"}
    return planning.Wish(wish.get("cloud"), connection, config, wish.get("tags"), image), Secrets(token, enrolment)


def look(session: Session, wish: planning.Wish) -> planning.Actual:
    """The machine as it is, as far as the wish asks. Errors: AZCM0061 when himds is needed and does not answer."""
    connection = planning.disconnected_view()
    tags = None
    hostname = ""
    image = _image(session) if wish.image is not None else None
    is_sealed = image is not None and image["state"] == "sealed"  # without a connection; its services may stand still
    if wish.connection is not None or wish.tags is not None:
        from agent_runtime.cli.connect import host_name

        hostname = (wish.connection or {}).get("name") or host_name()
    if not is_sealed and (wish.connection is not None or wish.tags is not None or image is not None):
        status = _status(session, wish)
        connection = connection_of(status)
        tags = status.get("tags") if connection["state"] == "connected" else None
    session.forget_caches()
    config = properties.load(session.paths) if wish.config is not None else {}
    clouds = session.clouds() if wish.cloud is not None or wish.connection is not None else {}
    return planning.Actual(clouds, connection, config, tags, hostname, image)


def _status(session: Session, wish: planning.Wish) -> dict[str, Any]:
    """Of himds; of the files where only the image is asked about, and where nothing runs because it is sealed."""
    try:
        return session.himds().status()
    except errors.HimdsUnreachable:
        from agent_runtime.identity import birth, sealing

        if (wish.connection is not None or wish.tags is not None) and not birth.is_sealed(session.paths):
            raise
    record = sealing.state_of(session.paths)
    return {**(record.identity or {}), "identityState": record.state}


def _image(session: Session) -> dict[str, Any]:
    """`Actual.image`."""
    from agent_runtime.cli import imaging

    here = imaging.image_of(session, None)
    found = imaging.look(here)
    return {
        "state": {"sealed": "sealed", "connected": "specialised"}.get(found.identity, "unsealed"),
        "image_id": found.image_id,
        "enroll_on_first_boot": found.enrol,
        "is_copied": found.identity == "sealed" and imaging.is_copied(here),
        "joins": imaging.joins(here),
        "clean": not found.unfinished and not any(item.is_identity for item in found.remains),
    }


def connection_of(status: dict[str, Any]) -> dict[str, Any]:
    """`Actual.connection` out of the answer of the `status` verb. Pure."""
    state = "disconnected" if status.get("identityState") in _NOT_CONNECTED else "connected"
    # himds shows blanks where nothing is known (agent-surface.md section 5.4); here that is null.
    return {"state": state, **{ours: status.get(theirs) or None for theirs, ours in _STATUS.items()}}


def check_new_profile(wish: planning.Wish, made: planning.Plan) -> None:
    """Errors: AZCM0023 for a profile that is to be written and holds no certificate; before anything is changed."""
    if wish.cloud is not None and "cloud" in made.steps:
        from agent_runtime.cli import profiles

        profiles.check_ca(wish.cloud)


def carry_out(
    session: Session, name: str, wish: planning.Wish, made: planning.Plan, secrets: Secrets, body: dict[str, Any]
) -> float:
    """One step; its seconds. Warnings go into `body`. Errors: those of the step."""
    began = time.monotonic()
    if name == "config":
        properties.update(session.paths, wish.config or {})
    elif name == "cloud":
        from agent_runtime.cli import profiles

        profiles.save(session.paths, wish.cloud or {})
    elif name in ("seal", "unseal", "specialise"):
        _image_step(session, name, wish.image or {}, secrets.enrolment, body["warnings"].append)
    else:
        _at_hub(session, name, wish, made, secrets.access, body)
    if name in ("config", "cloud"):
        body["warnings"] += session.tell_himds()
    return round(time.monotonic() - began, 3)


def _image_step(
    session: Session, name: str, image: Mapping[str, Any], token: str | None, warn: Callable[[str], None]
) -> None:
    from agent_runtime.cli import imaging
    from agent_runtime.identity import sealing

    here = imaging.image_of(session, None)
    if name == "unseal":
        by = sealing.HERE if image["state"] == "unsealed" else sealing.FIRST_BOOT
        if by == sealing.FIRST_BOOT and imaging.is_copied(here):
            by = sealing.COPIED
        imaging.unseal(here, by, starts=True)
        return
    if name == "specialise":
        from agent_runtime.cli import specialise

        imaging.start(here, imaging.UNITS)
        specialise.alone(session, warn)
        return
    imaging.seal(here, _sealing_wish(session, image, token))


def _sealing_wish(session: Session, image: Mapping[str, Any], token: str | None) -> SealWish:
    from agent_runtime.cli import imaging
    from agent_runtime.identity import sealing

    if token is not None:
        sealing.checked_token(token)
    return imaging.wish_of(
        imaging.image_of(session, None),
        image["image_id"],
        image.get("enroll_on_first_boot"),
        token,
        image.get("cloud"),
        bool(image.get("force")),
        bool(image.get("keep_logs")),
    )


def check_image(session: Session, wish: planning.Wish, made: planning.Plan, token: str | None) -> None:
    """Errors: AZCM0016, AZCM0023, AZCM0075 for an image that could not be sealed; before anything is changed."""
    if "seal" in made.steps and wish.image is not None:
        _sealing_wish(session, wish.image, token)


def _at_hub(
    session: Session, name: str, wish: planning.Wish, made: planning.Plan, token: str | None, body: dict[str, Any]
) -> None:
    from agent_runtime.cli import binding

    if name == "disconnect":
        binding.disconnect(session, None if made.local_only else token, made.local_only)
    elif name == "connect" and made.target is not None:
        result = binding.connect(session, made.target, token or "", _unheard)
        body["warnings"] += [str(warning) for warning in result.get("warnings") or ()]
    elif name == "tags":
        session.himds().call("set_tags", {"accessToken": token, "tags": dict(wish.tags or {})})


def _unheard(_percent: int, _step: str) -> None:
    """Standard output belongs to the answer, so progress has nowhere to go."""


def _parsed(config: dict[str, Any]) -> dict[str, Any]:
    """Names and values as the property table has them; null stays null. Errors: AZCM0023."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = properties.find(key).name
        if name in found:
            raise errors.ParameterInvalid(f"the wish names the config property {name} twice", "Name it once")
        found[name] = None if value is None else properties.parse(name, value)
    return found
