# SPDX-License-Identifier: Apache-2.0
"""Writing run commands, within the caller's transaction. Every PUT runs again; a PATCH when it changes what runs."""

from __future__ import annotations

from sqlalchemy.orm import Session

from control_plane.errors import ApiError
from control_plane.extensions import envelope
from control_plane.extensions.desired import check_size
from control_plane.extensions.progress import CREATING, DELETING, UPDATING, Wait
from control_plane.extensions.writing import Author, certificate_of, new_resource, raised
from control_plane.runcommands import desired
from control_plane.runcommands.wish import Wish, merged
from control_plane.storage import restored, run_commands
from control_plane.storage.extension_models import RunCommand
from control_plane.storage.models import Machine
from control_plane.storage.run_commands import KEY, VERSION, KeptCommand


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


def write(
    session: Session, machine: Machine, place: str, name: str, wish: Wish, author: Author, *, whole: bool
) -> KeptCommand:
    """Take over a wish. `place`: the machine's id; `whole`: of a PUT, which makes one and always runs it.

    Errors: ApiError 400, 409.
    """
    wanted = f"{place}/runCommands/{name}"
    kept = run_commands.find(session, wanted.lower()) or _new(session, machine, wanted, author)
    row, resource = kept.row, kept.resource
    properties = merged(resource.properties, wish, whole=whole)
    runs = whole or properties != resource.properties or wish.protected is not None
    if wish.protected:
        current = certificate_of(session, machine, "protectedParameters")
        row.protected, row.certificate = envelope.seal(wish.protected, current), current
    elif whole or wish.protected is not None:
        row.protected = row.certificate = None
    resource.properties = properties
    if wish.tags is not None:
        resource.tags = wish.tags
    resource.modified, resource.modified_by, resource.modified_by_type = author.at, author.id, author.type
    if runs:
        is_new = row.sequence < 0
        row.sequence = 0 if is_new else restored.next_sequence(session, resource.created, row.sequence)
        row.state = CREATING if is_new else UPDATING
        row.removed = row.code = row.message = None
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
