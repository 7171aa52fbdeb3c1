# SPDX-License-Identifier: Apache-2.0
"""`Microsoft.HybridCompute/machines/extensions`, `upgradeExtensions` and `addExtensions`.

What a machine has to do something about is answered 202 with an operation; the rest is finished at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from control_plane.arm import locks, operations, paging, paths
from control_plane.arm.locations import known_location
from control_plane.arm.roles import Action
from control_plane.bodies import ARM_BODY
from control_plane.call import HubCall
from control_plane.errors import ApiError, not_found
from control_plane.extensions import versions, wish, writing
from control_plane.extensions.operations import settle
from control_plane.extensions.progress import FAILED, UNDER_WAY, Wait
from control_plane.extensions.view import extension_json
from control_plane.extensions.wish import Wish
from control_plane.extensions.writing import Author, Written
from control_plane.http import Reply
from control_plane.storage import extensions, machines
from control_plane.storage.extensions import Kept
from control_plane.storage.models import Machine


def find_machine(call: HubCall, session: Session) -> tuple[Machine, str]:
    """The machine in the path, and its id in the case of its creation.

    Errors: ApiError 404.
    """
    group = call.group(session)
    machine = machines.find_machine(session, group, call.names[2])
    if machine is None:
        raise not_found(str(paths.MachineId(*call.names[:3])))
    return machine, str(paths.MachineId(group.subscription_id, group.name, machine.name))


def where(call: HubCall) -> str:
    """The id that rights are asked at: the machine's."""
    return str(paths.MachineId(*call.names[:3]))


def _find(call: HubCall, session: Session) -> tuple[Machine, Kept]:
    machine, place = find_machine(call, session)
    wanted = f"{place}/extensions/{call.names[3]}"
    kept = extensions.find(session, wanted.lower())
    if kept is None:
        raise not_found(wanted)
    return machine, kept


def author_of(call: HubCall) -> Author:
    """The caller as what is written names it."""
    return Author(call.at, call.caller.client_id, call.caller.audit_type)


def announce(call: HubCall, machine: Machine, before: Mapping[str, int]) -> None:
    """After the commit: wake the machine if what is wished of it is other than `before`."""
    if machine.generations != before:
        call.hub.live.changed(machine.id, dict(machine.generations))


def get_extension(call: HubCall) -> Reply:
    """GET, with what the machine told of it."""
    call.require(Action.EXTENSION_READ, where(call))
    with call.hub.database.read() as session:
        return Reply(200, extension_json(_find(call, session)[1]))


def head_extension(call: HubCall) -> Reply:
    """HEAD: 204 when it is there."""
    call.require(Action.EXTENSION_READ, where(call))
    with call.hub.database.read() as session:
        _find(call, session)
    return Reply(204)


def list_extensions(call: HubCall) -> Reply:
    """GET of all that a machine has, in pages."""
    call.require(Action.EXTENSION_READ, where(call))
    after, size = paging.wanted(call)
    with call.hub.database.read() as session:
        machine, _ = find_machine(call, session)
        found = [kept for kept in extensions.of_machine(session, machine.id) if kept.row.resource_id > after]
    value = [extension_json(kept) for kept in found[:size]]
    return Reply(200, paging.page(call, value, found[size - 1].row.resource_id if len(found) > size else None))


def check_location(session: Session, machine: Machine, given: str | None) -> None:
    """Errors: ApiError 400, 409 for another location than the machine's, in which all is that hangs below it."""
    if given is None:
        return
    found = known_location(session, given, paths.EXTENSION_TYPE, "LocationNotAvailableForResourceType")
    if found != machine.location:
        raise ApiError(
            409,
            "InvalidResourceLocation",
            f"The machine '{machine.name}' is in location '{machine.location}', and so is what hangs below it; nothing "
            f"can be made in location '{found}'.",
            target="location",
        )


def _told(wanted: Wish, written: Written) -> dict[str, Any]:
    """What the audit keeps: which members were sent, and never what is in the settings."""
    row, members = written.kept.row, sorted(wanted.properties)
    if wanted.protected is not None:
        members.append("protectedSettings")
    return {
        "handler": row.handler_key,
        "version": row.version,
        "sequence": row.sequence,
        "members": members,
        "changed": written.work,
    }


def _write(call: HubCall, session: Session, machine: Machine, place: str, name: str, wanted: Wish) -> Written:
    written = writing.write(session, machine, place, name, wanted, author_of(call), call.hub.keys.settings_key)
    call.record(session, Action.EXTENSION_WRITE, written.kept.resource.resource_id, _told(wanted, written))
    return written


def _answer(call: HubCall, session: Session, machine: Machine, kept: Kept) -> Reply:
    """202 with an operation that waits for the machine while it has something to do, else 200."""
    shown = extension_json(kept)
    settle(session, machine.id, call.at)  # of what was wished before
    if kept.row.state not in UNDER_WAY:
        return Reply(200, shown)
    target = kept.resource.resource_id
    headers = operations.begun(call, session, Action.EXTENSION_WRITE, target, machine, [writing.wait_for(kept)])
    return Reply(202, shown, headers)


def put_extension(call: HubCall) -> Reply:
    """PUT: 202 with an operation, or 200 when nothing is left to do. A member that is not sent stays as it is."""
    call.require(Action.EXTENSION_WRITE, where(call))
    wish.check_name(call.names[3])
    wanted = wish.read(call.body(ARM_BODY))
    with call.hub.database.write() as session:
        machine, place = find_machine(call, session)
        before = machine.generations
        check_location(session, machine, wanted.location)
        written = _write(call, session, machine, place, call.names[3], wanted)
        answer = _answer(call, session, machine, written.kept)
    announce(call, machine, before)
    return answer


def patch_extension(call: HubCall) -> Reply:
    """PATCH: as PUT, of one that is there and stays; without a location."""
    call.require(Action.EXTENSION_WRITE, where(call))
    wanted = wish.read(call.body(ARM_BODY))
    with call.hub.database.write() as session:
        machine, kept = _find(call, session)
        writing.check_there(kept.resource, kept.row.removed)
        before = machine.generations
        place = kept.resource.resource_id.rpartition("/extensions/")[0]
        written = _write(call, session, machine, place, kept.resource.name, wanted)
        answer = _answer(call, session, machine, written.kept)
    announce(call, machine, before)
    return answer


def delete_extension(call: HubCall) -> Reply:
    """DELETE: 202 with an operation; 204 when there is none, or the machine never was enrolled."""
    call.require(Action.EXTENSION_DELETE, where(call))
    with call.hub.database.write() as session:
        machine, place = find_machine(call, session)
        before = machine.generations
        kept = extensions.find(session, f"{place}/extensions/{call.names[3]}".lower())
        if kept is None:
            return Reply(204)
        target, wait = kept.resource.resource_id, writing.wait_for(kept)
        gone = writing.remove(session, machine, kept, call.at)
        call.record(session, Action.EXTENSION_DELETE, target, {"handler": kept.row.handler_key})
        settle(session, machine.id, call.at)
        answer = Reply(204)
        if not gone:
            waits = [Wait(wait.resource_id, wait.name, wait.version, wait.sequence, remove=True)]
            headers = operations.begun(call, session, Action.EXTENSION_DELETE, target, machine, waits)
            answer = Reply(202, None, headers)
    announce(call, machine, before)
    return answer


def _to_upgrade(
    session: Session, machine: Machine, kept: Sequence[Kept], targets: Mapping[str, str | None]
) -> list[tuple[Kept, str]]:
    """Extensions that are to move, with their versions; what has failed is tried again. All of one handler move
    together.

    Errors: ApiError 400 for a handler that the machine does not have, or a version that there is not.
    """
    there = {item.row.handler_key for item in kept}
    for key in targets:
        if key not in there:
            raise ApiError(
                400,
                "ExtensionNotFound",
                f"The machine '{machine.name}' has no extension of '{key[:257]}'. It has: "
                f"{', '.join(sorted(there)) or 'none'}.",
                target="extensionTargets",
            )
    found = []
    for key in targets or there:
        mine = [item for item in kept if item.row.handler_key == key]
        known, asked = writing.packages_for(session, machine, key), targets.get(key)
        if not known and asked is None:
            continue  # nothing newer of what the artefacts have no more
        wished = {**mine[0].resource.properties, "typeHandlerVersion": asked, "autoUpgradeMinorVersion": False}
        version = writing.version_for(known, wished)
        for item in mine:
            current = versions.parts(item.row.version)
            is_low = asked is None and versions.parts(version) < current
            if not is_low and (versions.parts(version) != current or item.row.state == FAILED):
                found.append((item, version))
    return found


def upgrade_extensions(call: HubCall) -> Reply:
    """POST upgradeExtensions: those that are named, or all, to a version or the newest. 200 when all have it."""
    call.require(Action.EXTENSION_WRITE, where(call))
    targets = wish.read_upgrade(call.body() if call.http.body else {})
    with call.hub.database.write() as session:
        machine, place = find_machine(call, session)
        before = machine.generations
        kept = [item for item in extensions.of_machine(session, machine.id) if item.row.removed is None]
        moves = _to_upgrade(session, machine, kept, targets)
        for item, version in moves:
            locks.refuse(session, machine.subscription_id, "PUT", item.resource.resource_id)
            writing.move(session, machine, item, version, call.at, automatic=False)
            detail = {"handler": item.row.handler_key, "version": version}
            call.record(session, Action.EXTENSION_WRITE, item.resource.resource_id, detail)
        settle(session, machine.id, call.at)
        named = [item for item in kept if not targets or item.row.handler_key in targets]
        waits = [writing.wait_for(item) for item in named if item.row.state in UNDER_WAY]
        answer = Reply(200)
        if waits:
            headers = operations.begun(call, session, Action.EXTENSION_WRITE, place, machine, waits)
            answer = Reply(202, None, headers)
    announce(call, machine, before)
    return answer


def add_extensions(call: HubCall) -> Reply:
    """POST addExtensions: several at once, each named after its type. All are written, or none."""
    call.require(Action.EXTENSION_WRITE, where(call))
    wanted = wish.read_many(call.body(ARM_BODY))
    with call.hub.database.write() as session:
        machine, place = find_machine(call, session)
        before = machine.generations
        written = []
        for item in wanted:
            name = str(item.properties.get("type", ""))
            if name:
                wish.check_name(name)
                locks.refuse(session, machine.subscription_id, "PUT", f"{place}/extensions/{name}")
            written.append(_write(call, session, machine, place, name, item).kept)
        settle(session, machine.id, call.at)
        shown = {"extensions": [extension_json(kept)["properties"] for kept in written]}
        waits = [writing.wait_for(kept) for kept in written if kept.row.state in UNDER_WAY]
        answer = Reply(200, shown)
        if waits:
            headers = operations.begun(call, session, Action.EXTENSION_WRITE, place, machine, waits, shown)
            answer = Reply(202, shown, headers)
    announce(call, machine, before)
    return answer
