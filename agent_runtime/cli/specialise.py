# SPDX-License-Identifier: Apache-2.0
"""`azcmagent specialise`: gives a copy its own name (docs/golden-images.md). Ours.

Two ways: an image that enrols on first boot joins with the token it carries; a twin whose identity is held takes up the
name that the hub offers. Either is done again until it has succeeded; where nothing is due, nothing is done.
"""

from __future__ import annotations

import os
import random
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agent_runtime import errors
from agent_runtime.cli.parsing import switch
from agent_runtime.hub import backoff
from agent_runtime.identity import machine
from agent_runtime.platform import local
from agent_runtime.state import atomic

if TYPE_CHECKING:
    from agent_runtime.cli.asking import Enrolment, Reply
    from agent_runtime.cli.parsing import Parser
    from agent_runtime.cli.session import Session


def configure(parser: Parser) -> None:
    switch(parser, "--look", "only compare this machine with the one that was connected, now")


def run(session: Session) -> int:
    """Exit code 0 also when nothing was due. Waits as long as the hub says, and says so.

    Errors: AZCM0012 for a token that is spent, AZCM0026, AZCM0041, AZCM0044 while the hub offers no name, AZCM0061.
    """
    if session.args.look:
        state = session.himds().call("look", {}).get("state")
        session.out.result({"status": "success", "state": state}, f"The identity of this machine is {state}")
        return 0
    state, result = alone(session, session.out.line)
    data = {"status": "success", "changed": result is not None, "resourceId": (result or {}).get("resourceId")}
    words = f"Connected: {result['resourceId']}" if result else f"Nothing is due: this machine is {state}"
    session.out.result(data, words)
    return 0


def alone(session: Session, say: Callable[[str], None]) -> tuple[str, dict[str, Any] | None]:
    """The state that was found, and what connecting came to: None when nothing was due. Errors: as `run`.

    A hub that says when to come again is asked again then (docs/protocol.md section 13), however often it says so: this
    ends with its answer, or with the process. `say` is told of every wait.
    """
    asked = 0
    while True:
        asked += 1
        try:
            # The service manager's unit and somebody's hand may want the same: the second finds it done.
            with local.alone(session.paths.state, waits=True):
                return _specialise(session)
        except errors.AgentError as busy:
            if busy.retry_after is None:
                raise
            wait, why = backoff.delay(asked, random.random(), busy.retry_after), busy.message
        # Nothing is held meanwhile: other commands go on, and a signal ends it at once.
        say(f"Waiting for {wait:.0f} s, as the hub has asked: {why}")
        time.sleep(wait)


def _specialise(session: Session) -> tuple[str, dict[str, Any] | None]:
    from agent_runtime.cli import binding

    state = str(session.himds().status().get("identityState"))
    if state in machine.HELD:
        return state, _adopt(session)
    if state == "disconnected":
        return state, _join(session)
    if state == "connected":
        binding.settled(session, is_held=False)
        if os.path.lexists(session.paths.joining):
            _has_joined(session)  # and was cut off before it said so
    return state, None


def _join(session: Session) -> dict[str, Any] | None:
    """Join by the image's token. None when the image does not say so, or its builder unsealed it by hand."""
    from agent_runtime.cli import asking, binding, imaging
    from agent_runtime.identity import birth, sealing

    paths = session.paths
    record = birth.read_or_none(paths)
    token = sealing.read_token(paths)
    if record is None or token is None or record.get("unsealedAt") is None:
        return None
    if not imaging.joins(imaging.image_of(session, None)):
        return None
    profile = session.cloud(record["enrol"]["cloud"])
    tenant = str(profile["tenant_id"])
    asked = session.himds().call("question", {"tenantId": tenant})["body"]
    self_given = _self_given(session)
    channel = asking.Channel(profile, session.config())
    reply = channel.post(
        "join",
        {
            **asked,
            **self_given,
            "token": token,
            "imageId": record["imageId"],
            "builderEvidenceDigest": _builder_digest(record),
        },
    )
    offered = _offered(reply, profile["name"], tenant)
    try:
        result = binding.connect(session, offered.place, offered.ticket, session.out.progress, self_given["vmId"])
    except (errors.MachineNotCreated, errors.NameTaken) as refusal:
        # The name was taken, or the machine changed, since the hub offered it: the next attempt gets another offer.
        raise errors.ConnectFailed(f"the hub's offer was good no longer: {refusal.message}") from None
    _has_joined(session)
    return result


def _has_joined(session: Session) -> None:
    """The token has done its work."""
    from agent_runtime.identity import sealing

    sealing.use_up_token(session.paths)
    atomic.unlink(session.paths.joining)


def _self_given(session: Session) -> dict[str, str]:
    """vmId and request id of this machine, the same at every attempt: the hub counts the token once."""
    path = session.paths.joining
    try:
        found = atomic.read_json(path, 4096)
        return {name: str(uuid.UUID(found[name])) for name in ("vmId", "requestId")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        made = {"vmId": str(uuid.uuid4()), "requestId": str(uuid.uuid4())}
        atomic.write_json(path, {"v": 1, **made})
        return made


def _builder_digest(record: dict[str, Any]) -> str:
    from agent_runtime.identity import evidence

    return evidence.digest(record["evidence"])


def _offered(reply: Reply, cloud: str, tenant: str) -> Enrolment:
    """The enrolment in an answer to `join`. Errors: by the hub's code (docs/protocol.md section 14.4)."""
    from agent_runtime.cli import asking

    if reply.status == 200:
        return asking.enrolment_of(reply.body, cloud, tenant)
    if reply.code == "InvalidEnrolmentToken":
        raise errors.CredentialInvalid(
            f"the hub does not know this image's enrolment token: {reply.message}", "Seal the image with another token"
        )
    if reply.code == "EnrolmentTokenSpent":
        raise errors.TokenInvalid(
            f"this image's enrolment token is spent: {reply.message}",
            "Connect this machine with 'azcmagent connect', or seal the image with another token",
        )
    raise _refused(reply)


def _adopt(session: Session) -> dict[str, Any] | None:
    """Take up the name that the hub offers a held machine; None when it is the one it was after all."""
    from agent_runtime.cli import asking, binding
    from agent_runtime.extensions import ownkey

    bound = binding.settled(session, is_held=True)
    if bound is None:
        raise errors.ConfigurationConflict(
            "nobody bound this machine to an identity, so it cannot change it by itself",
            "Run 'azcmagent disconnect --force-local-only', then connect this machine",
        )
    profile = session.cloud(str(bound.get("cloud")))
    asked = session.himds().call("question", {})
    credential = {**asked["credential"], **_own_paths(session, asked["credential"])}
    channel = asking.Channel(profile, session.config())
    reply = channel.question(credential, asked["body"], str(bound.get("vmId")))
    if reply.status == 200:
        session.himds().call("checkin", {})  # himds asks for itself, and takes the answer
        return None
    if reply.status == 409 and isinstance(reply.body.get("enrolment"), dict):
        offered = asking.enrolment_of(reply.body["enrolment"], profile["name"], str(bound.get("tenantId")))
        # extd's key came with the disk: protected settings for the original could be read here.
        ownkey.forget(session.paths)
        result = binding.connect(session, offered.place, offered.ticket, session.out.progress, adopt=True)
        session.tell_himds()
        _restart_services(session)
        return result
    if reply.status in (403, 409):
        raise errors.NameTaken(
            f"the hub offers this machine no name of its own: {reply.message}",
            "See 'azcmagent show'; by hand: 'azcmagent disconnect --force-local-only', then connect under another name",
        )
    raise _refused(reply)


def _own_paths(session: Session, told: dict[str, Any]) -> dict[str, str]:
    """Where the key of a credential lies by root's own reckoning: himds names numbers, no paths."""
    from agent_runtime.identity import store

    numbers = store.numbers_of(os.path.basename(str(told.get("key"))))
    if numbers is None:
        raise errors.InternalError("himds names a key that cannot be the machine's")
    descent, slot = numbers
    paths = session.paths
    return {
        "key": store.key_path(paths, slot, descent),
        "certificate": store.certificate_path(paths, slot, descent),
    }


def _restart_services(session: Session) -> None:
    """They make themselves at home under the new name; extd with a key of its own."""
    from agent_runtime.cli import imaging

    imaging.systemctl(imaging.image_of(session, None), "try-restart", "--no-block", "gcad.service", "extd.service")


def _refused(reply: Reply) -> errors.AgentError:
    if reply.status in (408, 429) or reply.status >= 500:
        text = f"the hub is not available now ({reply.message})"
        return errors.NetworkFailed(text, "Run the command again later", reply.retry_after)
    if reply.status == 401:
        return errors.CredentialInvalid(f"the hub refused the machine's proof: {reply.message}")
    return errors.ConnectFailed(f"{reply.message} ({reply.code or reply.status})")
