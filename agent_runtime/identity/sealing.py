# SPDX-License-Identifier: Apache-2.0
"""Sealing and unsealing: an image that can be copied without its builder's identity (docs/protocol.md section 14.5).

Order of writes, so that a crash at any of them leaves one state and a repeated `seal` ends it: the token; the journal,
which holds all of the wish but the token; the birth record; `identity.json`, which forgets the identity; then what the
identity left is cleared; then the journal goes. An image with a journal is not sealed yet.
`unseal` needs no journal: the birth record says `unsealedAt` before `identity.json` changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from agent_runtime import errors
from agent_runtime.identity import birth, evidence, machine, remains
from agent_runtime.identity.machine import Event, Record
from agent_runtime.identity.store import holds_identity, stamp
from agent_runtime.platform import local
from agent_runtime.platform.base import Signal
from agent_runtime.platform.paths import Paths
from agent_runtime.state import atomic
from agent_runtime.state.atomic import erase
from agent_runtime.version import VERSION

HERE, FIRST_BOOT, COPIED = "here", "first-boot", "evidence"


class Wish(NamedTuple):
    """What `seal` is told. `enrol`: None or `{"cloud", "profile"}`, then with `token`; `builder`: the host's name, or
    None for an image that is not running."""

    image_id: str
    enrol: Mapping[str, str] | None
    token: str | None
    force: bool
    keep_logs: bool
    builder: str | None


def state_of(paths: Paths) -> Record:
    """The record on the disk, for root while himds is stopped. One that is missing or cannot be read counts as an
    identity while anything of one is there: it is not dropped without being told. Errors: OSError."""
    try:
        return machine.from_dict(atomic.read_json(paths.identity))
    except (FileNotFoundError, ValueError):
        if birth.is_sealed(paths):
            return Record("sealed")
        lost = {"resourceId": "an identity whose file is damaged or missing"}
        return Record("parked", "", lost) if holds_identity(paths) else Record()


def unfinished(paths: Paths) -> dict[str, Any] | None:
    """The journal of a seal that was cut off. Errors: OSError; ValueError when it is damaged."""
    try:
        journal = atomic.read_json(paths.seal_journal, birth.LIMIT)
    except FileNotFoundError:
        return None
    if journal.get("v") != 1 or journal.get("step") != "seal":
        raise ValueError("seal.json is no journal of version 1")
    if not isinstance(journal.get("record"), dict) or not isinstance(journal.get("keepLogs"), bool):
        raise ValueError("seal.json does not say what was wanted")
    return {**journal, "record": birth.checked(journal["record"])}


def is_finished(paths: Paths, wish: Wish) -> bool:
    """Whether `seal` with this wish has nothing to do. Errors: OSError."""
    record = birth.read_or_none(paths)
    if record is None or state_of(paths).state != "sealed" or os.path.lexists(paths.seal_journal):
        return False
    if wish.token is not None and not hmac.compare_digest(_token(paths) or b"", wish.token.encode("ascii")):
        return False
    same = record["imageId"] == wish.image_id and record["enrol"] == wish.enrol and record["unsealedAt"] is None
    left = remains.found(paths, with_logs=False, with_token=wish.enrol is None)
    return same and not left


def check(paths: Paths, force: bool) -> None:
    """Refuse before anything is stopped or written. Errors: AZCM0027 for a connected machine without `force`, and for
    folders that are links; OSError."""
    machine.transition(state_of(paths), Event("seal", "", {"force": force}))
    remains.refuse_links(paths)


def seal(paths: Paths, wish: Wish, signals: list[Signal]) -> list[str]:
    """Seal; paths that were cleared. Errors: as `check`; OSError, and then a repeated `seal` goes on."""
    check(paths, wish.force)
    at = stamp(time.time())
    salt = os.urandom(32)
    record = {
        "v": 1,
        "imageId": wish.image_id,
        "sealedAt": at,
        "unsealedAt": None,
        "unsealedBy": None,
        "agentVersion": VERSION,
        "packageDigest": package_digest(),
        "builder": wish.builder,
        "salt": salt.hex(),
        "evidence": evidence.vector(salt, signals),
        "enrol": dict(wish.enrol) if wish.enrol else None,
    }
    if wish.token is not None:
        _replace_token(paths, wish.token)
    journal = {"v": 1, "step": "seal", "record": record, "keepLogs": wish.keep_logs}
    atomic.write_json(paths.seal_journal, journal)
    return finish(paths, journal)


def finish(paths: Paths, journal: Mapping[str, Any]) -> list[str]:
    """Do, or do again, what the journal says; paths that were cleared. Errors: AZCM0027 for folders that are links,
    OSError."""
    remains.refuse_links(paths)
    record = journal["record"]
    atomic.write_json(paths.image, record, mode=0o644)
    _write_identity(paths, Record("sealed", str(record["sealedAt"])))
    left = remains.found(paths, with_logs=not journal["keepLogs"], with_token=record["enrol"] is None)
    remains.clear(left)
    for folder in {os.path.dirname(remain.path) for remain in left}:
        local.sync_folder(folder)
    atomic.unlink(paths.seal_journal)
    local.sync_folder(paths.state)
    return [remain.path for remain in left]


def unseal(paths: Paths, by: str) -> bool:
    """Make a sealed machine `disconnected`; False when it was not sealed. `by`: HERE, FIRST_BOOT or COPIED. Errors:
    OSError, and then a repeated `unseal` goes on."""
    before = state_of(paths)
    if before.state != "sealed":
        return False
    record = birth.read_or_none(paths)
    now = stamp(time.time())
    if record is not None and record.get("unsealedAt") is None:
        atomic.write_json(paths.image, {**record, "unsealedAt": now, "unsealedBy": by}, mode=0o644)
    _write_identity(paths, machine.transition(before, Event("unseal", now)))
    return True


def reason_to_unseal(record: Mapping[str, Any], signals: list[Signal], is_first_boot: bool) -> str | None:
    """COPIED when the evidence says that this is not the builder, FIRST_BOOT when it cannot say and a first boot is
    known to be one; None: it stays sealed. Pure."""
    items = evidence.vector(bytes.fromhex(record["salt"]), signals)
    if record.get("unsealedAt") is not None:
        return str(record.get("unsealedBy") or HERE)  # an unseal that was cut off
    if evidence.is_copy(record["evidence"], items):
        return COPIED
    if is_first_boot and not evidence.is_comparable(record["evidence"], items):
        return FIRST_BOOT
    return None


def copies_can_tell(record: Mapping[str, Any], signals: list[Signal]) -> bool:
    """Whether a copy of the image as it is now, where `signals` are read, finds out by itself that it is one. Pure."""
    return evidence.tells_copies(record["evidence"], evidence.vector(bytes.fromhex(record["salt"]), signals))


def package_digest() -> str:
    """SHA-256 (hex) over the agent's own modules, by name: which build this image carries."""
    top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    total = hashlib.sha256()
    for at, folders, names in os.walk(top):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            if name.endswith(".py"):
                path = os.path.join(at, name)
                total.update(f"{os.path.relpath(path, top)}\0".encode())
                with open(path, "rb") as file:
                    total.update(hashlib.sha256(file.read()).digest())
    return total.hexdigest()


def _replace_token(paths: Paths, token: str) -> None:
    """A token that is replaced must not be found in a free block: it keeps a second name, as a remain that is
    overwritten with the others, whatever comes between."""
    aside = atomic.beside(paths.image_token)
    with contextlib.suppress(FileNotFoundError):
        os.link(paths.image_token, aside, follow_symlinks=False)
    try:
        atomic.write_bytes(paths.image_token, token.encode("ascii"))
    except BaseException:
        atomic.unlink(aside)
        raise


def use_up_token(paths: Paths) -> None:
    """The image's token was used, or never will be. Errors: OSError."""
    if os.path.lexists(paths.image_token):
        erase(paths.image_token)
        local.sync_folder(paths.state)


def read_token(paths: Paths) -> str | None:
    """The image's token; None where there is none. Errors: AZCM0023 when the file holds none."""
    content = _token(paths)
    if content is None:
        return None
    try:
        return checked_token(content.decode("ascii").strip())
    except UnicodeDecodeError:
        return checked_token("")


def checked_token(text: str) -> str:
    """An enrolment token. Errors: AZCM0023; the value is not repeated."""
    is_plain = text.isascii() and text.isprintable() and " " not in text
    if not text.startswith("hwe_") or not 16 <= len(text) <= 512 or not is_plain:
        raise errors.ParameterInvalid(
            "this is no enrolment token: it does not begin with hwe_, has other letters, or is too short or too long",
            "Take the token that the hub printed, unchanged",
        )
    return text


def _token(paths: Paths) -> bytes | None:
    try:
        return atomic.read_bytes(paths.image_token, 4096).strip()
    except (OSError, ValueError):
        return None


def _write_identity(paths: Paths, record: Record) -> None:
    """`identity.json` as himds owns it, although root writes it."""
    owner, group = local.owner_of(paths.own)
    atomic.write_json(paths.identity, record.as_dict(), owner=owner, group=group)
