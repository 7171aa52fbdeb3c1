# SPDX-License-Identifier: Apache-2.0
"""Writing wishes: what a PUT, a removal or an upgrade makes of an extension's rows, within the caller's transaction.

Sequence numbers rise with settings, protected settings, forceUpdateTag, and with another try of what failed; never with
tags, flags or versions (extension-handler.md section 13). Whatever the machine has to do something about raises the
generation of its document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from control_plane.errors import ApiError, bad_content
from control_plane.extensions import desired, envelope, order, versions
from control_plane.extensions.progress import (
    CREATING,
    DELETING,
    FAILED,
    RETRY_SECONDS,
    SUCCEEDED,
    UPDATING,
    Wait,
    pause,
)
from control_plane.extensions.wish import Wish, handler_key
from control_plane.storage import catalogue, extensions, restored
from control_plane.storage.catalogue import Package
from control_plane.storage.extension_models import Extension
from control_plane.storage.extensions import KEY, Kept
from control_plane.storage.models import Machine, SettingsCertificate
from control_plane.storage.resource_models import Resource

DIGEST_TAG = "hawser-protected-digest"
"""By it the Ansible collection knows protected settings again (TAG in its plugins/plugin_utils/_digest.py)."""


@dataclass(frozen=True)
class Author:
    """Who writes, and when (Unix seconds)."""

    at: int
    id: str
    type: str


@dataclass(frozen=True)
class Written:
    """An extension after a write. `made`: it is new; `work`: the machine has something to do about it."""

    kept: Kept
    made: bool
    work: bool


def wait_for(kept: Kept) -> Wait:
    """What an operation waits for that wishes this."""
    row = kept.row
    return Wait(row.resource_id, kept.resource.name, row.version, row.sequence, row.removed is not None)


def tags_after(tags: dict[str, str], sent: dict[str, str] | None, *, protected: bool) -> dict[str, str]:
    """Tags after a write. Where it sent none they stay, but for what one of them says of settings that are others now
    (`protected`): it would be taken for true."""
    if sent is not None:
        return sent
    return {name: text for name, text in tags.items() if not protected or name.lower() != DIGEST_TAG}


def raised(machine: Machine, kind: str = desired.KIND) -> int:
    """Raise the generation of one of the machine's documents, and give it."""
    generation = restored.next_generation(machine, kind)
    machine.generations = {**machine.generations, kind: generation}
    return generation


def certificate_of(session: Session, machine: Machine, member: str) -> str:
    """PEM of what is encrypted to for a machine. `member`: what of a body is to be encrypted.

    Errors: ApiError 409 when the machine has no certificate for it.
    """
    known = session.get(SettingsCertificate, machine.id)
    if known is None:
        raise ApiError(
            409,
            "SettingsCertificateMissing",
            f"The machine '{machine.name}' has no certificate to encrypt protected settings to: its extension service "
            "sends a request for one when it connects. Connect it with the service running, then write this again.",
            target=f"properties.{member}",
        )
    return envelope.pem(envelope.leaf(known.certificate))


def packages_for(session: Session, machine: Machine, key: str) -> list[Package]:
    """The packages of a handler that fit a machine."""
    host = extensions.host_of(session, machine)
    known = catalogue.of_handlers(session, [key]).get(key, [])
    return catalogue.fitting(known, host.os_type, host.arch)


def version_for(known: Sequence[Package], properties: Mapping[str, Any]) -> str:
    """The version that a wish means.

    Errors: ApiError 400 `ExtensionNotFound` when there is no package of the handler for the machine,
    `ExtensionVersionNotFound` naming the versions there are.
    """
    name = f"{properties['publisher']}.{properties['type']}"
    asked, minor = properties.get("typeHandlerVersion"), bool(properties.get("autoUpgradeMinorVersion"))
    if not known:
        raise ApiError(
            400,
            "ExtensionNotFound",
            f"The artefacts of this hub have no package of the extension '{name}' for the machine's system. Add it "
            "with 'hawser-hub artefacts add', sign and publish, or look at the publishers and types there are.",
            target="properties.type",
        )
    found = versions.resolve({item.version for item in known}, asked, minor=minor)
    if found is None:
        there = ", ".join(sorted({item.version for item in known}, key=versions.parts))
        what = f"no version {asked}" + (" or newer of the same first number" if minor else "")
        raise ApiError(
            400,
            "ExtensionVersionNotFound",
            f"The extension '{name}' has {what} for the machine's system. The versions are {there}.",
            target="properties.typeHandlerVersion",
        )
    return found


def _check_beside(others: Sequence[Kept], known: Sequence[Package], kept_name: str, version: str) -> None:
    """One handler has one version on a machine, and several extensions only if it can (section 15.1).

    Errors: ApiError 409 `Conflict`.
    """
    if not others:
        return
    first = others[0]
    if not any(item.supports_multiple for item in known if versions.same(item.version, version)):
        raise ApiError(
            409,
            "Conflict",
            f"The machine has this handler as extension '{first.resource.name}' already, and the handler does not "
            f"support several. Change that one, or delete it before '{kept_name}' is made.",
        )
    if not all(versions.same(item.row.version, version) for item in others):
        raise ApiError(
            409,
            "Conflict",
            f"The machine has this handler in version {first.row.version}, by extension '{first.resource.name}', and "
            f"can have one version of a handler at a time. Move all of them with upgradeExtensions, not to {version} "
            "here alone.",
        )


def _check_order(session: Session, machine: Machine, resource: Resource, new: Mapping[str, Any]) -> None:
    """Errors: ApiError 400 for what an extension of the machine cannot come after."""
    there = [item for item in extensions.of_machine(session, machine.id) if item.row.removed is None]
    name = resource.name.lower()
    order.check(name, {**desired.after(there), name: [other.lower() for other in new[order.MEMBER]]})


def _protect(session: Session, machine: Machine, row: Extension, protected: dict[str, Any] | None, key: bytes) -> bool:
    """Take over protected settings; True when they are other ones than before.

    Errors: ApiError 409 without a certificate to encrypt them to.
    """
    if protected is None:
        return False
    if not protected:
        had = row.protected is not None
        row.protected = row.certificate = row.digest = None
        return had
    current = certificate_of(session, machine, "protectedSettings")
    digest = envelope.digest(protected, key, f"{machine.vm_id}/{row.resource_id}")
    if row.digest == digest and row.certificate is not None and envelope.same_key(row.certificate, current):
        return False
    row.protected, row.certificate, row.digest = envelope.seal(protected, current), current, digest
    return True


def new_resource(session: Session, machine: Machine, resource_id: str, key: str, author: Author) -> Resource:
    """The row of what is made below a machine, without properties yet. `key`: its type in lower case."""
    resource = Resource(
        key=resource_id.lower(),
        resource_id=resource_id,
        type=key,
        name=resource_id.rpartition("/")[2],
        subscription_id=machine.subscription_id,
        group_id=machine.group_id,
        machine_id=machine.id,
        location=machine.location,
        tags={},
        properties={},
        created=author.at,
        created_by=author.id,
        created_by_type=author.type,
        modified=author.at,
        modified_by=author.id,
        modified_by_type=author.type,
    )
    session.add(resource)
    session.flush()
    return resource


def _check_handler(properties: Mapping[str, Any]) -> None:
    """Errors: ApiError 400 without publisher and type."""
    for member in ("publisher", "type"):
        if member not in properties:
            raise bad_content(f"'properties.{member}' is missing.", f"properties.{member}")


def check_there(resource: Resource, removed: int | None) -> None:
    """Before a change of what shall be there. `removed`: of its row.

    Errors: ApiError 409 `Conflict` for what is being removed.
    """
    if removed is not None:
        raise ApiError(
            409,
            "Conflict",
            f"'{resource.name}' is being removed, and cannot be changed. Make it anew with PUT, or wait for its end.",
        )


def _new(session: Session, machine: Machine, place: str, name: str, wish: Wish, author: Author) -> Kept:
    """Rows of an extension that is made.

    Errors: ApiError 400 without publisher and type, 409 above the limit.
    """
    _check_handler(wish.properties)
    if len(extensions.of_machine(session, machine.id)) >= desired.MAX_EXTENSIONS:
        raise ApiError(
            409, "ExtensionLimitExceeded", f"A machine may have at most {desired.MAX_EXTENSIONS} extensions."
        )
    resource = new_resource(session, machine, f"{place}/extensions/{name}", KEY, author)
    row = Extension(
        resource_id=resource.id,
        machine_id=machine.id,
        handler_key=handler_key(wish.properties["publisher"], wish.properties["type"]),
        version="",
        sequence=0,
        generation=0,
        began=author.at,
        state=CREATING,
        automatic=False,
    )
    return Kept(row, resource)


def _merged(kept: Kept, wish: Wish, *, anew: bool) -> dict[str, Any]:
    """Properties after the write. `anew`: nothing stays of what was there, but its handler.

    Errors: ApiError 400 without publisher and type, 409 for another handler than before.
    """
    old = kept.resource.properties
    new = {**({} if anew else old), **wish.properties}
    _check_handler(new)
    for member in ("publisher", "type"):
        if member in old:
            if new[member].lower() != old[member].lower():
                raise ApiError(
                    409,
                    "PropertyChangeNotAllowed",
                    f"Changing property '{member}' is not allowed; delete the extension '{kept.resource.name}' first.",
                    target=f"properties.{member}",
                )
            new[member] = old[member]
    return new


def _asks_other(wish: Wish, old: Mapping[str, Any], new: Mapping[str, Any], current: str) -> bool:
    """Whether a write asks for another version than the one that is wished. The same number as before is the one that
    upgrades began with, unless nothing upgrades any more. `old`, `new`: properties before and after."""
    asked, before = wish.properties.get("typeHandlerVersion"), old.get("typeHandlerVersion")
    if asked is None or versions.same(asked, current):
        return False
    is_exact = not new.get("autoUpgradeMinorVersion") and not new.get("enableAutomaticUpgrade")
    return is_exact or before is None or not versions.same(asked, before)


def write(
    session: Session, machine: Machine, place: str, name: str, wish: Wish, author: Author, settings_key: bytes
) -> Written:
    """Take over a wish for the extension `name`. `place`: the machine's id; `settings_key`: Keyring.settings_key. One
    that is being removed is made anew.

    Errors: ApiError 400, 409.
    """
    kept = extensions.find(session, f"{place}/extensions/{name}".lower())
    made = kept is None
    if kept is None:
        kept = _new(session, machine, place, name, wish, author)
    row, resource = kept.row, kept.resource
    revived = row.removed is not None
    new = _merged(kept, wish, anew=made or revived)
    old = {} if revived else resource.properties
    if revived:
        row.protected = row.certificate = row.digest = None
        resource.tags = {}
    known = packages_for(session, machine, row.handler_key)
    other_version = not made and _asks_other(wish, old, new, row.version)
    to_minor = bool(new.get("autoUpgradeMinorVersion")) and not old.get("autoUpgradeMinorVersion")
    version = version_for(known, new) if made or revived or other_version or to_minor else row.version
    moves = made or revived or not versions.same(version, row.version)
    if moves:
        beside = (item for item in extensions.of_machine(session, machine.id) if item.row.removed is None)
        _check_beside(
            [item for item in beside if item.row.handler_key == row.handler_key and item.row is not row],
            known,
            resource.name,
            version,
        )
    before, wanted = ({name.lower() for name in item.get(order.MEMBER) or ()} for item in (old, new))
    reordered = before != wanted
    if reordered:
        _check_order(session, machine, resource, new)
    settings = any((new.get(item) or None) != (old.get(item) or None) for item in ("settings", "forceUpdateTag"))
    protected = _protect(session, machine, row, wish.protected, settings_key)
    failed = row.state == FAILED and bool(wish.properties or wish.protected)  # tags alone are no new try
    again = not made and (settings or protected or revived or failed)
    work = moves or again or reordered
    resource.properties = new
    resource.tags = tags_after(resource.tags, wish.tags, protected=protected)
    resource.modified, resource.modified_by, resource.modified_by_type = author.at, author.id, author.type
    automatic = bool(new.get("enableAutomaticUpgrade"))
    if automatic != row.automatic or moves or again:
        row.automatic = automatic
        row.retry = author.at + RETRY_SECONDS if automatic else None
    if work:
        row.sequence = restored.next_sequence(session, resource.created, row.sequence) if again else row.sequence
        row.state = CREATING if made or revived or row.state == CREATING else UPDATING
        if revived:
            row.reported = None
        row.version, row.removed, row.code, row.message = version, None, None, None
        if moves or again:  # another order alone leaves an automatic upgrade its way back
            _stay(session, kept)
        row.generation, row.began = raised(machine), author.at
    session.add(row)
    session.flush()
    if work:
        desired.check_size(desired.content(session, machine), machine)
    return Written(kept, made, work)


def _stay(session: Session, kept: Kept) -> None:
    """Somebody wants the version that is wished: with it an automatic upgrade ends for all extensions of the handler,
    and none goes back any more."""
    for item in extensions.moved_with(session, kept):
        item.row.rollback_to = None


def move(session: Session, machine: Machine, kept: Kept, version: str, at: int, *, automatic: bool) -> None:
    """Wish for a version with the same settings: another one, or that which has failed, once more. `automatic`: the
    former one is what a failure falls back to."""
    row = kept.row
    if row.state == FAILED and not automatic:
        row.sequence = restored.next_sequence(session, kept.resource.created, row.sequence)
    if automatic:
        row.rollback_to = row.version
    else:
        _stay(session, kept)
    row.version, row.state, row.code, row.message = version, UPDATING, None, None
    row.retry = at + RETRY_SECONDS if row.automatic and not automatic else None
    row.generation, row.began = raised(machine), at
    if not automatic:
        kept.resource.properties = {**kept.resource.properties, "typeHandlerVersion": version}


def take_back(session: Session, machine: Machine, kept: Kept, at: int) -> None:
    """An automatic upgrade has failed: the former version is wished again, and the new one later. Nobody asked for it,
    so that is no failure. For all of `extensions.moved_with`."""
    row = kept.row
    came = catalogue.since(session, row.handler_key, row.version)
    row.retry = at + pause(at - came if came is not None else 0)
    row.version, row.rollback_to = row.rollback_to or row.version, None
    row.state, row.code, row.message = SUCCEEDED, None, None
    row.generation, row.began = raised(machine), at


def forget(session: Session, kept: Kept) -> None:
    """Its rows go."""
    session.delete(kept.row)
    session.delete(kept.resource)
    session.flush()


def remove(session: Session, machine: Machine, kept: Kept, at: int) -> bool:
    """Wish for its end. True: it has ended, for the machine was never enrolled and so never had it."""
    row = kept.row
    if machine.enrolled is None:
        forget(session, kept)
        raised(machine)
        return True
    if row.removed is None or row.state == FAILED:
        # A machine that could not remove it tries again with its next document.
        row.generation = raised(machine)
        row.removed = at
    if row.state != DELETING:
        row.state, row.began = DELETING, at
    row.rollback_to = row.retry = row.code = row.message = None
    return False
