# SPDX-License-Identifier: Apache-2.0
"""Branches of a machine's lease (docs/protocol.md section 14.3). Pure, but for the random part of a nonce.

Every holder of an identity goes on from the last nonce that it was given; two holders make two branches. The hot row
keeps the main branch alone. Any other branch is kept by its holder: its nonce carries, sealed by the hub, what the hub
has to know of it. So a hub remembers any number of branches without a byte of memory, across clean restarts, and over
several processes.

A nonce is 12 bytes, 16 characters base64url: a kind, what it carries, and a seal (BLAKE2s, keyed, over machine, epoch
and the bytes before it). Seals are short: who guesses one has guessed a nonce of the identity whose key it holds
already, and gains an accusation of itself.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass

from control_plane.channel.verdict import SILENCE, Lease

_MAIN, _OTHER = 0x00, 0x40
_KIND, _LEVEL, _LOST, _SAME_BOOT = 0xC0, 0x03, 0x04, 0x08
_UNIT = 8  # seconds; of the times in a nonce
_WRAP = 1 << 24
_LONGEST = 0xFF


@dataclass(frozen=True, slots=True)
class Other:
    """What a nonce of another branch carries. `advances`: how often the branch has been presented, 2 at most; `lost`:
    it began with the nonce before the last, as after a lost answer; `same_boot`: its holder had not been booted since
    the nonce that it began with; `issued`: Unix seconds; `still`: seconds for which the main branch had not advanced
    then; `main`: the mark of the main branch's nonce."""

    advances: int
    lost: bool
    same_boot: bool
    issued: int
    still: int
    main: bytes


@dataclass(frozen=True, slots=True)
class Held:
    """What a check-in presents: epoch, nonce, request id, and boot id (None: not told)."""

    epoch: int
    nonce: str
    request_id: str
    boot_id: str | None


@dataclass(frozen=True, slots=True)
class Main:
    """The main branch as the hot row has it."""

    epoch: int
    nonce: str
    previous: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Step:
    """What a check-in did. `main`, `previous`: nonces of the main branch afterwards; `given`: the nonce for the answer.
    `older_boot`: of a FORK, True when the presenting branch has the older boot chain, so that the main one is the
    copy's if the evidence does not tell."""

    lease: Lease
    main: str
    previous: str
    given: str
    older_boot: bool = False


class Seal:
    """Makes and reads the nonces of one machine in one epoch of the hub."""

    def __init__(self, key: bytes, machine_id: int, epoch: int) -> None:
        self._key = hashlib.sha256(b"hawser lease\0" + key).digest()
        self._about = f"{machine_id}:{epoch}:".encode()

    def _tag(self, data: bytes, size: int) -> bytes:
        return hashlib.blake2s(self._about + data, digest_size=size, key=self._key).digest()

    def main(self, boot_id: str | None) -> str:
        """A new nonce of the main branch, with a mark of the boot that it is given to."""
        data = bytes([_MAIN]) + secrets.token_bytes(5) + boot_mark(boot_id)
        return _text(data + self._tag(data, 3))

    def boot(self, nonce: str) -> bytes | None:
        """The mark of the boot that a main nonce was given to; None for any other text."""
        data = _bytes(nonce)
        if data is None or data[0] & _KIND != _MAIN or not hmac.compare_digest(data[9:], self._tag(data[:9], 3)):
            return None
        return data[6:9]

    def other(self, branch: Other) -> str:
        """A nonce of another branch."""
        flags = _OTHER | branch.advances | (_LOST if branch.lost else 0) | (_SAME_BOOT if branch.same_boot else 0)
        issued = (branch.issued // _UNIT) % _WRAP
        still = min(branch.still // _UNIT, _LONGEST)
        data = bytes([flags]) + issued.to_bytes(3, "big") + bytes([still]) + branch.main
        return _text(data + self._tag(data, 4))

    def read(self, nonce: str, at: int) -> Other | None:
        """The other branch that a nonce belongs to; None when it is no such nonce, or its holder was silent for longer
        than SILENCE: then nothing is concluded from it."""
        data = _bytes(nonce)
        if data is None or data[0] & _KIND != _OTHER or not hmac.compare_digest(data[8:], self._tag(data[:8], 4)):
            return None
        age = (at // _UNIT - int.from_bytes(data[1:4], "big")) % _WRAP * _UNIT
        if age > SILENCE:
            return None
        flags = data[0]
        return Other(
            flags & _LEVEL, bool(flags & _LOST), bool(flags & _SAME_BOOT), at - age, data[4] * _UNIT, data[5:8]
        )


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii")


def _bytes(nonce: str) -> bytes | None:
    if len(nonce) != 16 or not nonce.isascii():
        return None
    try:
        return base64.b64decode(nonce, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None


def mark(nonce: str) -> bytes:
    """Three bytes by which a nonce is known again."""
    return hashlib.blake2s(nonce.encode("utf-8", "replace"), digest_size=3).digest()


def boot_mark(boot_id: str | None) -> bytes:
    """Three bytes by which a boot is known again; zeros: not told."""
    return hashlib.blake2s(boot_id.encode("utf-8", "replace"), digest_size=3).digest() if boot_id else bytes(3)


def boots_differ(one: bytes | None, another: bytes) -> bool:
    """True for marks of two boots that were both told and are not the same."""
    return one is not None and any(one) and any(another) and one != another


def step(seal: Seal, hub_epoch: int, row: Main | None, held: Held, at: int) -> Step:
    """What a check-in of a machine does to its branches.

    `row` None: the machine was never heard. `at`: Unix seconds.
    """
    if row is None or row.epoch != hub_epoch:
        # Another epoch of the row: hot rows were lost with the last process, so nothing can be concluded.
        return Step(Lease.REBASE, made := seal.main(held.boot_id), held.nonce[:16], made)
    if held.request_id == row.request_id:
        return Step(Lease.REPEAT, row.nonce, row.previous, row.nonce)
    if held.nonce == row.nonce:
        return Step(Lease.ADVANCE, made := seal.main(held.boot_id), row.nonce, made)
    now = mark(row.nonce)
    # The nonce before the last one proves nothing, whatever it says: the answer to it may have been lost.
    branch = seal.read(held.nonce, at) if held.nonce != row.previous else None
    if branch is None:
        return _begun(seal, row, held, at, now, known=held.epoch == hub_epoch)
    if branch.main != now:
        if branch.advances >= 2:
            older = branch.same_boot and boots_differ(seal.boot(row.nonce), boot_mark(held.boot_id))
            return Step(Lease.FORK, row.nonce, row.previous, held.nonce, older)
        return _advanced(seal, row, branch, at, 0, now)
    still = branch.still + at - branch.issued
    if still >= SILENCE:
        lease = Lease.RECOVERED if branch.lost else Lease.ROLLBACK
        return Step(lease, made := seal.main(held.boot_id), held.nonce, made)
    return _advanced(seal, row, branch, at, still, now)


def _begun(seal: Seal, row: Main, held: Held, at: int, now: bytes, *, known: bool) -> Step:
    lost = held.nonce == row.previous or not known
    before = seal.boot(held.nonce)
    same = before is not None and any(before) and before == boot_mark(held.boot_id)
    given = seal.other(Other(0, lost, same, at, 0, now))
    return Step(Lease.LOST if lost else Lease.CONFLICT, row.nonce, row.previous, given)


def _advanced(seal: Seal, row: Main, branch: Other, at: int, still: int, now: bytes) -> Step:
    given = seal.other(Other(min(2, branch.advances + 1), branch.lost, branch.same_boot, at, still, now))
    return Step(Lease.OTHER, row.nonce, row.previous, given)


def _is_given(row: Main, nonce: str) -> bool:
    """True for the main branch's nonce and the one before."""
    given = nonce.encode("utf-8", "replace")
    return any(hmac.compare_digest(given, one.encode("utf-8", "replace")) for one in (row.nonce, row.previous) if one)


def is_main(seal: Seal, hub_epoch: int, row: Main | None, nonce: str, at: int) -> bool:
    """True for the nonce of the main branch's holder: the last or the one before, or one of a branch that the same boot
    began with it after a lost answer (an agent that ends while its heartbeat is held loses the answer) and since which
    the main one has not advanced. A copy on another disk was booted, and knows neither."""
    if row is None or row.epoch != hub_epoch:
        return False
    if _is_given(row, nonce):
        return True
    branch = seal.read(nonce, at)
    return branch is not None and branch.lost and branch.same_boot and branch.main == mark(row.nonce)


def newest(seal: Seal, hub_epoch: int, row: Main | None, epoch: int, nonce: str, at: int) -> bool:
    """True for the nonce of the holder that was heard last: the main branch's, the one it was heard with (the answer
    is lost whenever an agent ends while its heartbeat is held), or one of another branch since which the main one has
    not advanced."""
    if row is None or row.epoch != hub_epoch or epoch != hub_epoch:
        return False
    if _is_given(row, nonce):
        return True
    branch = seal.read(nonce, at)
    return branch is not None and branch.main == mark(row.nonce)
