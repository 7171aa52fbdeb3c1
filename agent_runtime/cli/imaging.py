# SPDX-License-Identifier: Apache-2.0
"""What `seal`, `unseal` and `apply` share: which image is meant, what is in it, and the services that must stand still
while it changes."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from agent_runtime import errors
from agent_runtime.cli import naming, profiles, services
from agent_runtime.identity import birth, remains, sealing
from agent_runtime.identity.remains import Remain
from agent_runtime.platform import image_checks, local
from agent_runtime.platform import paths as places
from agent_runtime.platform.base import Signal
from agent_runtime.platform.image_checks import Finding
from agent_runtime.platform.paths import Paths
from agent_runtime.state import atomic
from agent_runtime.upgrade.journal import Files

if TYPE_CHECKING:
    from agent_runtime.cli.session import Session

UNITS = ("himdsd.service", "gcad.service", "extd.service")
STOP_SECONDS = 90.0
START_SECONDS = 15.0
TOKEN_LIMIT = 4096


class Image(NamedTuple):
    """`root` is empty for this machine's own system. `is_running`: its services may run, and its hardware is the
    builder's."""

    paths: Paths
    root: str
    is_running: bool


class State(NamedTuple):
    """What is in an image. `identity`: a state of the machine's identity; `uninstalled`: there is no agent's program in
    a mounted image."""

    identity: str
    image_id: str | None
    enrol: str | None
    unfinished: bool
    remains: list[Remain]
    system: list[Finding]
    warnings: list[str]
    uninstalled: bool


def image_of(session: Session, root: str | None) -> Image:
    """This machine, or the image mounted at `root`; `/` is an image that this command was put into with chroot. Errors:
    AZCM0003 on Windows, AZCM0023 when there is no system."""
    if sys.platform == "win32":
        raise errors.NotSupported("this release seals Linux images", "See docs/windows.md")
    if not root:
        own = places.here("")
        below = session.paths.state[: -len(own.state)]
        return Image(session.paths, below, True)
    top = os.path.abspath(root).rstrip("/")
    if not os.path.isdir(f"{top}/etc"):
        raise errors.ParameterInvalid(
            "--root names no mounted image: there is no folder etc in it", "Mount the image's root file system there"
        )
    return Image(places.here(top), top, False)


def look(image: Image) -> State:
    """Errors: OSError."""
    paths = image.paths
    record = birth.read_or_none(paths)
    enrol = (record or {}).get("enrol")
    identity = sealing.state_of(paths).state
    warnings = image_checks.warnings(image.root)
    if record is None and os.path.lexists(paths.image):
        warnings.append(f"{paths.image} is damaged: the image does not know its name; seal it again")
    if identity == "sealed" and record and not sealing.copies_can_tell(record, signals(image)):
        warnings.append(
            "with its machine id left in, a copy has no evidence by which it notices that it is one: clear the "
            "machine id, or let a first-boot hook run 'azcmagent unseal --first-boot'"
        )
    found = remains.found(paths, with_token=not (identity == "sealed" and enrol))
    return State(
        identity,
        record["imageId"] if record else None,
        enrol["profile"] if enrol else None,
        os.path.lexists(paths.seal_journal),
        [item for item in found if item.path != paths.azcmagent_log],
        [*image_checks.findings(image.root), *handlers(image)],
        warnings,
        not image.is_running and not os.path.isdir(paths.program),
    )


def handlers(image: Image) -> list[Finding]:
    """Extensions that every copy will have, though nobody there has asked for them; once the image is sealed, nobody
    knows of them. Errors: OSError."""
    return [
        Finding(
            f"extension {kind} {version}",
            folder[len(image.root) :],
            f"azcmagent extension remove --name {kind}, before the image is sealed",
            False,
        )
        for kind, version, folder in remains.installed(image.paths)
    ]


def wish_of(
    image: Image,
    image_id: str | None,
    profile: str | None,
    token: str | None,
    cloud: str | None,
    force: bool,
    keep_logs: bool,
) -> sealing.Wish:
    """The wish, checked as a whole. Errors: AZCM0016, AZCM0023, AZCM0075; nothing is changed."""
    if not image_id:
        raise errors.ParameterMissing("the image needs a name", "Give --image-id, such as web-2026-11")
    if not birth.IMAGE_ID.fullmatch(image_id):
        raise errors.ParameterInvalid(
            "--image-id may have letters, digits, '.', '_' and '-', 128 at most, the first a letter or digit",
            "Give another --image-id",
        )
    enrol = None
    if profile:
        if not birth.PROFILE.fullmatch(profile):
            raise errors.ParameterInvalid(
                "the name of an enrolment profile is 1 to 64 of a-z, 0-9, '.', '_' and '-'", "Correct it"
            )
        chosen = naming.choose_cloud(cloud, profiles.load(image.paths))
        enrol = {"cloud": str(chosen["name"]), "profile": profile}
        if token is None and sealing.read_token(image.paths) is None:
            raise errors.ParameterMissing(
                "copies cannot enrol without an enrolment token", "Give --token-file FILE, or `-` for standard input"
            )
    elif token is not None:
        raise errors.ParameterMissing(
            "an enrolment token is given and no profile", "Give --enroll-on-first-boot PROFILE, or leave the token out"
        )
    builder = socket.gethostname() if image.is_running else None
    return sealing.Wish(image_id, enrol, token, force, keep_logs, builder)


def token_from(source: str) -> str:
    """The token in a file, or a line of standard input for `-`. Errors: AZCM0019, AZCM0023."""
    if source == "-":
        return sealing.checked_token(sys.stdin.readline(TOKEN_LIMIT).strip())
    from agent_runtime.cli import options_file

    return sealing.checked_token(options_file.read(source).decode("utf-8", "replace").strip())


def seal(image: Image, wish: sealing.Wish) -> list[str] | None:
    """Seal the image; paths that were cleared, None when there was nothing to do. Errors: as `seal` of the command."""
    if not os.path.isdir(image.paths.own):
        raise errors.ConfigurationConflict(
            f"there is no agent in this image: {image.paths.own} is missing", "Install the agent's package first"
        )
    try:
        if sealing.is_finished(image.paths, wish):
            return None
        Files(image.paths).check_idle()
        sealing.check(image.paths, wish.force)  # refused while the services still run
        _check_writable(image.paths)
        with standing_still(image):
            return sealing.seal(image.paths, wish, signals(image))
    except OSError as problem:
        raise explained(problem, image.paths.state) from None


def is_copied(image: Image) -> bool:
    """Whether the evidence says that this is not the machine on which the image was sealed."""
    record = birth.read_or_none(image.paths)
    return record is not None and sealing.reason_to_unseal(record, signals(image), False) == sealing.COPIED


def joins(image: Image) -> bool:
    """Whether a machine with this image enrols by itself, once it is a copy of it. Errors: AZCM0023."""
    record = birth.read_or_none(image.paths)
    if record is None or record["enrol"] is None or sealing.read_token(image.paths) is None:
        return False
    return record.get("unsealedAt") is None or record.get("unsealedBy") != sealing.HERE


def unseal(image: Image, by: str, *, starts: bool = False) -> bool:
    """Whether the machine was sealed. The services that ran go on afterwards; with `starts`, and on the builder, all of
    them do. Errors: AZCM0027, AZCM0069."""
    try:
        if sealing.state_of(image.paths).state != "sealed":
            return False
        _check_writable(image.paths)
        with standing_still(image) as running:
            done = sealing.unseal(image.paths, by)
        # At boot the service manager starts them; elsewhere somebody is waiting for them.
        start(image, UNITS if starts or by == sealing.HERE else running)
        return done
    except OSError as problem:
        raise explained(problem, image.paths.state) from None


def signals(image: Image) -> list[Signal]:
    """The evidence of the machine that the image runs on; of an image that does not run there is its machine id
    alone."""
    if sys.platform == "win32":
        raise errors.NotSupported("this release seals Linux images", "See docs/windows.md")
    else:  # noqa: RET506 - mypy judges each system's branch by itself
        from agent_runtime.platform.linux_signals import Signals

        if image.is_running:
            return Signals().read()
        return [signal for signal in Signals(image.root).read() if signal.name == "machine_id"]


def _check_writable(paths: Paths) -> None:
    """Before anything is changed or stopped. Errors: OSError."""
    probe = atomic.beside(os.path.join(paths.state, "writable"))
    os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    os.unlink(probe)


def explained(problem: OSError, where: str) -> errors.AgentError:
    """A file system that cannot be written, in one sentence with what to do. Pure."""
    if problem.errno == errno.EROFS:
        return errors.ConfigNotUpdated(
            f"the file system of {where} is read-only: nothing was changed",
            "Mount it writable; where the root is read-only by design, keep /var on a file system of its own",
        )
    from agent_runtime.cli.session import disk_error

    return disk_error(problem)


@contextmanager
def standing_still(image: Image) -> Iterator[list[str]]:
    """No service of the image runs in the block, and no other command changes it; the units that ran. Services stay
    enabled. Errors: AZCM0027 when himds runs and nothing here can stop it."""
    with _alone(image.paths):
        # At boot they do not run yet, and a stop would take their start away.
        running = [unit for unit in UNITS if systemctl(image, "is-active", "--quiet", unit)]
        if running:
            systemctl(image, "stop", *running)
        if _answers(image.paths.socket):
            raise errors.ConfigurationConflict(
                "himds is running and cannot be stopped from here", "Stop the agent's services, then try again"
            )
        yield running


def start(image: Image, units: Sequence[str]) -> None:
    """Start services, and wait for himds, so that the next command finds it."""
    if units and systemctl(image, "start", *units):
        ends = time.monotonic() + START_SECONDS
        while not _answers(image.paths.socket) and time.monotonic() < ends:
            time.sleep(0.05)


@contextmanager
def _alone(paths: Paths) -> Iterator[None]:
    try:
        with local.alone(paths.state):
            yield
    except BlockingIOError:
        raise errors.ConfigurationConflict(
            "another command is sealing, unsealing or specialising here", "Wait until it has ended"
        ) from None


def systemctl(image: Image, *words: str) -> bool:
    """Whether the service manager did it. Where it does not run, or the files are not this system's, nothing is
    asked."""
    program = next((path for path in services.SYSTEMCTL if os.access(path, os.X_OK)), None)
    if image.root or not image.is_running or program is None or not os.path.isdir("/run/systemd/system"):
        return False
    try:
        done = subprocess.run(
            [program, *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=STOP_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _answers(path: str) -> bool:
    if sys.platform == "win32":
        return False
    else:  # noqa: RET505
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(5)
            try:
                probe.connect(path)
            except OSError:
                return False
            return True
