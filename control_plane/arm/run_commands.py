# SPDX-License-Identifier: Apache-2.0
"""`Microsoft.HybridCompute/machines/runCommands`. PUT is 201 or 200 and never 202, whatever still runs
(identity-and-arm-api.md C.4)."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from control_plane.arm import operations, paging
from control_plane.arm.extensions import announce, author_of, check_location, find_machine, where
from control_plane.arm.roles import Action
from control_plane.bodies import ARM_BODY
from control_plane.call import HubCall
from control_plane.errors import not_found
from control_plane.extensions.operations import settle
from control_plane.extensions.progress import UNDER_WAY
from control_plane.extensions.writing import check_there
from control_plane.http import Reply
from control_plane.runcommands import wish, writing
from control_plane.runcommands.view import command_json
from control_plane.runcommands.wish import Wish
from control_plane.storage import run_commands
from control_plane.storage.models import Machine
from control_plane.storage.run_commands import KeptCommand


def _find(call: HubCall, session: Session) -> tuple[Machine, str, KeptCommand]:
    machine, place = find_machine(call, session)
    wanted = f"{place}/runCommands/{call.names[3]}"
    kept = run_commands.find(session, wanted.lower())
    if kept is None:
        raise not_found(wanted)
    return machine, place, kept


def get_command(call: HubCall) -> Reply:
    """GET, with how it went."""
    call.require(Action.RUN_COMMAND_READ, where(call))
    with call.hub.database.read() as session:
        return Reply(200, command_json(_find(call, session)[2]))


def list_commands(call: HubCall) -> Reply:
    """GET of all that a machine has, in pages."""
    call.require(Action.RUN_COMMAND_READ, where(call))
    after, size = paging.wanted(call)
    with call.hub.database.read() as session:
        machine, _ = find_machine(call, session)
        found = [kept for kept in run_commands.of_machine(session, machine.id) if kept.row.resource_id > after]
    value = [command_json(kept) for kept in found[:size]]
    return Reply(200, paging.page(call, value, found[size - 1].row.resource_id if len(found) > size else None))


def _write(call: HubCall, session: Session, machine: Machine, place: str, name: str, wanted: Wish) -> Reply:
    """Write it, and answer with an operation while the machine has something to do; a repeated request with that of
    the first one."""
    whole, author, wished = call.http.method == "PUT", author_of(call), f"{place}/runCommands/{name}"
    request_id = call.http.headers.get("x-ms-client-request-id", "")
    request = writing.request_of(request_id, wished, wanted, author, call.hub.keys.settings_key, whole=whole)
    before = run_commands.find(session, wished.lower())
    if before is not None and writing.repeats(before, request, call.at):
        target, waits = before.resource.resource_id, [writing.wait_for(before)]
        headers = operations.former(call, session, Action.RUN_COMMAND_WRITE, target, machine, waits)
        return Reply(200, command_json(before), headers)
    kept = writing.write(session, machine, place, name, wanted, author, request, whole=whole)
    target = kept.resource.resource_id
    # Never what the script is: only which members were sent.
    members = sorted([*wanted.properties, *(wanted.protected or ())])
    detail: dict[str, Any] = {"sequence": kept.row.sequence, "members": members}
    call.record(session, Action.RUN_COMMAND_WRITE, target, detail)
    settle(session, machine.id, call.at)
    headers = {}
    if kept.row.state in UNDER_WAY:
        waits = [writing.wait_for(kept)]
        headers = operations.begun(call, session, Action.RUN_COMMAND_WRITE, target, machine, waits)
    return Reply(201 if before is None else 200, command_json(kept), headers)


def put_command(call: HubCall) -> Reply:
    """PUT: 201 made, 200 run again."""
    call.require(Action.RUN_COMMAND_WRITE, where(call))
    wanted = wish.read(call.body(ARM_BODY))
    with call.hub.database.write() as session:
        machine, place = find_machine(call, session)
        before = machine.generations
        wish.check_name(call.names[3], machine.os_type or "")
        check_location(session, machine, wanted.location)
        answer = _write(call, session, machine, place, call.names[3], wanted)
    announce(call, machine, before)
    return answer


def patch_command(call: HubCall) -> Reply:
    """PATCH: 200; stops the former run and runs again when it changes what runs, tags alone do not."""
    call.require(Action.RUN_COMMAND_WRITE, where(call))
    wanted = wish.read(call.body(ARM_BODY))
    with call.hub.database.write() as session:
        machine, place, kept = _find(call, session)
        check_there(kept.resource, kept.row.removed)
        before = machine.generations
        answer = _write(call, session, machine, place, kept.resource.name, wanted)
    announce(call, machine, before)
    return answer


def delete_command(call: HubCall) -> Reply:
    """DELETE: 202 with an operation; 204 when there is none, or the machine never was enrolled."""
    call.require(Action.RUN_COMMAND_DELETE, where(call))
    with call.hub.database.write() as session:
        machine, place = find_machine(call, session)
        before = machine.generations
        kept = run_commands.find(session, f"{place}/runCommands/{call.names[3]}".lower())
        if kept is None:
            return Reply(204)
        target, wait = kept.resource.resource_id, writing.wait_for(kept, remove=True)
        gone = writing.remove(session, machine, kept, call.at)
        call.record(session, Action.RUN_COMMAND_DELETE, target)
        settle(session, machine.id, call.at)
        answer = Reply(204)
        if not gone:
            headers = operations.begun(call, session, Action.RUN_COMMAND_DELETE, target, machine, [wait])
            answer = Reply(202, None, headers)
    announce(call, machine, before)
    return answer
