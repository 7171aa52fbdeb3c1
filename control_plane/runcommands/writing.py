# SPDX-License-Identifier: Apache-2.0
"""Writing run commands, within the caller's transaction. Every PUT runs again; a PATCH when it changes what runs."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy.orm import Session

from control_plane.errors import ApiError
from control_plane.extensions import envelope
from control_plane.extensions.desired import check_size
from control_plane.extensions.progress import CREATING, DELETING, UPDATING, Wait
from control_plane.extensions.writing import Author, certificate_of, new_resource, raised, tags_after
from control_plane.runcommands import desired
from control_plane.runcommands.wish import Wish, merged
from control_plane.storage import restored, run_commands
from control_plane.storage.extension_models import RunCommand
from control_plane.storage.models import Machine
from control_plane.storage.run_commands import KEY, VERSION, KeptCommand

REPEAT_SECONDS = 3600
"""For so long a request is taken for a repeated one; after it a client that always sends one id runs the same again."""


def wait_for(kept: KeptCommand, *, remove: bool = False) -> Wait:
    """What an operation waits for that wishes this."""
    return Wait(kept.row.resource_id, kept.resource.name, VERSION, kept.row.sequence, remove)


def _new(session: Session, machine: Machine, wanted: str, author: Author) -> KeptCommand:
    if len(run_commands.of_machine(session, machine.id)) >= desired.MAX_COMMANDS:
        raise ApiError(
            409,
            "RunCommandLimitExceeded",
            f"A machine may have at most {desired.MAX_COMMANDS} run commands; delete some that have run.",
        )
    resource = new_resource(session, machine, wanted, KEY, author)
    row = RunCommand(
        resource_id=resource.id, machine_id=machine.id, sequence=-1, generation=0, began=author.at, state=CREATING
    )
    return KeptCommand(row, resource)


def request_of(request_id: str, target: str, wish: Wish, author: Author, key: bytes, *, whole: bool) -> str | None:
    """What the row keeps of a request with an id: a digest of the id, who sent it and all that is wished. None without
    an id. `key`: Keyring.settings_key, for what is protected can be guessed; `whole`: of a PUT."""
    if not request_id:
        return None
    content = {"id": request_id, "author": author.id, "whole": whole, "wish": asdict(wish)}
    return envelope.digest(content, key, target.lower())


def repeats(kept: KeptCommand, request: str | None, at: int) -> bool:
    """Whether a request is the one that the wished run came of, sent again because its answer was lost: to run it once
    more would stop the script half-way."""
    row = kept.row
    same = request is not None and row.request == request
    return same and row.removed is None and at - row.began < REPEAT_SECONDS


def write(
    session: Session,
    machine: Machine,
    place: str,
    name: str,
    wish: Wish,
    author: Author,
    request: str | None,
    *,
    whole: bool,
) -> KeptCommand:
    """Take over a wish. `place`: the machine's id; `request`: of `request_of`; `whole`: of a PUT, which makes one and
    always runs it.

    Errors: ApiError 400, 409.
    """
    wanted = f"{place}/runCommands/{name}"
    kept = run_commands.find(session, wanted.lower()) or _new(session, machine, wanted, author)
    row, resource = kept.row, kept.resource
    properties = merged(resource.properties, wish, whole=whole)
    protects = whole or wish.protected is not None
    runs = protects or properties != resource.properties
    if wish.protected:
        current = certificate_of(session, machine, "protectedParameters")
        row.protected, row.certificate = envelope.seal(wish.protected, current), current
    elif protects:
        row.protected = row.certificate = None
    resource.properties = properties
    resource.tags = tags_after(resource.tags, wish.tags, protected=protects)
    resource.modified, resource.modified_by, resource.modified_by_type = author.at, author.id, author.type
    if runs:
        is_new = row.sequence < 0
        row.sequence = 0 if is_new else restored.next_sequence(session, resource.created, row.sequence)
        row.state = CREATING if is_new else UPDATING
        row.removed = row.code = row.message = None
        row.request = request
        row.generation, row.began = raised(machine, desired.KIND), author.at
    session.add(row)
    session.flush()
    if runs:
        check_size(desired.content(session, machine), machine)
    return kept


def forget(session: Session, kept: KeptCommand) -> None:
    """Its rows go."""
    session.delete(kept.row)
    session.delete(kept.resource)
    session.flush()


def remove(session: Session, machine: Machine, kept: KeptCommand, at: int) -> bool:
    """Wish for its end; a script that runs is stopped. True: it has ended, for the machine was never enrolled."""
    row = kept.row
    if machine.enrolled is None:
        forget(session, kept)
        raised(machine, desired.KIND)
        return True
    if row.removed is None:
        row.generation, row.removed = raised(machine, desired.KIND), at
    if row.state != DELETING:
        row.state, row.began = DELETING, at
    row.code = row.message = None
    return False
