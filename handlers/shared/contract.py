# SPDX-License-Identifier: Apache-2.0
"""What a handler finds and leaves in its folder: environment file, settings, sequence, status.

Both handlers of this repository have it by a link in their folders; the builder puts the file itself into each package.
It is no SDK: docs/extensions.md shows a handler of twenty lines that needs none of it. Python 3.9, standard library and
the program `openssl` alone.

Errors: HandlerError carries the exit code, which is also the code of the status.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, NoReturn, Optional

UNSUPPORTED = 51  # the operating system
MISSING = 52  # something that the machine must have
SETTINGS = 53  # a setting is missing or wrong
SEALED = 54  # protected settings cannot be decrypted
UNFETCHED = 55  # a file cannot be fetched
STOPPED = 56  # the work was ended before its end

TAIL = 4096
_MIB = 1024 * 1024
_SIGNATURE = re.compile(r"(?i)\b(sig=)[^&\s\"'<>]+")
_SETTINGS_FILE = re.compile(r"(\d+)\.settings")


class HandlerError(Exception):
    """One sentence that says what is wrong and what to do, and the exit code that goes with it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Place:
    """The folders of this handler on the machine; `root` is where it was unpacked."""

    root: Path
    name: str
    logs: Path
    config: Path
    status: Path
    heartbeat: Path

    def log(self, text: str) -> None:
        """Add a line to the handler's log. A log that cannot be written stops nothing."""
        with contextlib.suppress(OSError), open(self.logs / "handler.log", "a", encoding="utf-8") as file:
            file.write(f"{now()} {redacted(text)}\n")


def now() -> str:
    """RFC 3339, UTC."""
    return dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def redacted(text: str) -> str:
    """A text without the signatures of shared-access addresses."""
    return _SIGNATURE.sub(r"\1***", text)


def tail(path: Path, size: int = TAIL) -> str:
    """The last `size` bytes of a text file, redacted; empty when it is not there."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            # What is cut off may hold the beginning of something to redact.
            file.seek(max(0, file.tell() - 2 * size))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return last(redacted(text), size)


def last(text: str, size: int) -> str:
    """The end of a text, at most `size` bytes of UTF-8."""
    return text.encode("utf-8", "replace")[-size:].decode("utf-8", "ignore")


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file so that readers see the old content or the new, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def dump(value: Any) -> bytes:
    """JSON for a file that other programs read."""
    return json.dumps(value).encode() + b"\n"


def read_json(path: Path) -> Any:
    """JSON of a file of at most 1 MiB. Errors: OSError, ValueError."""
    with open(path, "rb") as file:
        content = file.read(_MIB + 1)
    if len(content) > _MIB:
        raise ValueError("it is larger than 1 MiB")
    return json.loads(content.decode("utf-8-sig"))


def find_place(root: Path) -> Place:
    """The place by HandlerEnvironment.json (extension-handler.md section 4). Raises HandlerError."""
    path = root / "HandlerEnvironment.json"
    try:
        (entry,) = read_json(path)
        folders = entry["handlerEnvironment"]
        return Place(
            root,
            str(entry["name"]),
            Path(folders["logFolder"]),
            Path(folders["configFolder"]),
            Path(folders["statusFolder"]),
            Path(folders.get("heartbeatFile") or root / "heartbeat.log"),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HandlerError(
            MISSING,
            f"{path} cannot be used ({error}). The agent writes it before it runs a handler; let it do so again.",
        ) from error


def current_sequence(place: Place, variables: Mapping[str, str]) -> int:
    """The number of the settings in force: what the agent says, else that of the file that was changed last."""
    given = variables.get("ConfigSequenceNumber", "")
    if given.isdigit():
        return int(given)
    files = [path for path in place.config.glob("*.settings") if _SETTINGS_FILE.fullmatch(path.name)]
    if not files:
        raise HandlerError(SETTINGS, f"There are no settings in {place.config}. Set the extension again.")
    return int(max(files, key=lambda path: path.stat().st_mtime).stem)


def read_settings(place: Place, sequence: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Public and protected settings, decrypted; both empty when there are none. Raises HandlerError."""
    path = place.config / f"{sequence}.settings"
    try:
        if path.stat().st_size == 0:
            return {}, {}
        (entry,) = read_json(path)["runtimeSettings"]
        settings = entry["handlerSettings"]
        public = settings.get("publicSettings") or {}
        sealed, thumbprint = settings.get("protectedSettings"), settings.get("protectedSettingsCertThumbprint")
        if not isinstance(public, dict):
            raise TypeError("publicSettings is no object")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HandlerError(SETTINGS, f"{path} cannot be used ({error}). Set the extension again.") from error
    return public, opened(place, str(sealed), str(thumbprint)) if sealed else {}


def opened(place: Place, sealed: str, thumbprint: str) -> dict[str, Any]:
    """Decrypt protected settings: base64 of a CMS envelope to the certificate beside the handlers (section 6).

    Neither the envelope nor what is in it stands on a command line. Raises HandlerError.
    """
    again = "Set the extension again, with its protected settings."
    if not re.fullmatch(r"[0-9A-Fa-f]{40}", thumbprint):
        raise HandlerError(SEALED, f"The protected settings name no certificate. {again}")
    stem = str(place.root.parent / thumbprint.upper())
    for path in (f"{stem}.crt", f"{stem}.prv"):
        if not os.path.isfile(path):
            raise HandlerError(SEALED, f"{path} is not there, so the protected settings cannot be read. {again}")
    argv = ["openssl", "cms", "-decrypt", "-inform", "DER", "-recip", f"{stem}.crt", "-inkey", f"{stem}.prv"]
    try:
        done = subprocess.run(argv, input=base64.b64decode(sealed), capture_output=True, check=False, timeout=60)
        found = json.loads(done.stdout) if done.returncode == 0 else None
    except FileNotFoundError as error:
        raise HandlerError(MISSING, "There is no program openssl in PATH. Install openssl.") from error
    except (OSError, ValueError, subprocess.SubprocessError):
        found = None
    if not isinstance(found, dict):
        raise HandlerError(SEALED, f"The protected settings cannot be decrypted with {stem}.prv. {again}")
    return found


def status_text(
    operation: str, word: str, code: int, message: str, substatus: Sequence[tuple[str, str, str]] = ()
) -> bytes:
    """A status file (section 15). `substatus`: triples of name, word and message. Pure but for the time."""

    def said(text: str) -> dict[str, str]:
        return {"lang": "en-US", "message": redacted(text)}

    status: dict[str, Any] = {
        "operation": operation,
        "configurationAppliedTime": now(),
        "status": word,
        "code": code,
        "formattedMessage": said(message),
    }
    if substatus:
        status["substatus"] = [
            {"name": name, "status": its, "code": 0, "formattedMessage": said(text)} for name, its, text in substatus
        ]
    return dump([{"version": 1.0, "timestampUTC": now(), "status": status}])


def write_status(
    place: Place,
    sequence: int,
    operation: str,
    word: str,
    code: int,
    message: str,
    substatus: Sequence[tuple[str, str, str]] = (),
) -> None:
    """Replace the status of a sequence number."""
    place.log(f"{operation} {sequence}: {word} {code}: {message.splitlines()[0] if message else ''}")
    write(place.status / f"{sequence}.status", status_text(operation, word, code, message, substatus))


def status_word(place: Place, sequence: int) -> Optional[str]:
    """The word of the status that was written last for a sequence number, or None."""
    try:
        return str(read_json(place.status / f"{sequence}.status")[0]["status"]["status"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def read_number(path: Path) -> Optional[int]:
    """The sequence number in a file such as `mrseq`, or None."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def number(settings: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    """A whole number out of settings, also when it was given as text. Raises HandlerError."""
    value = settings.get(name, default)
    text = str(value)
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,9}", text) or not least <= int(text) <= most:
        raise HandlerError(SETTINGS, f"{name} is {value!r}. Give a whole number from {least} to {most}.")
    return int(text)


def boolean(settings: Mapping[str, Any], name: str, default: bool) -> bool:
    """A truth value out of settings, also when it was given as text. Raises HandlerError."""
    value = settings.get(name, default)
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise HandlerError(SETTINGS, f"{name} is {value!r}. Give true or false.")
    return value


def refuse_unknown(settings: Mapping[str, Any], known: Sequence[str]) -> None:
    """A mistyped setting is said, not ignored. Raises HandlerError."""
    unknown = sorted(settings.keys() - set(known))
    if unknown:
        raise HandlerError(SETTINGS, f"Unknown settings: {', '.join(unknown)}. Use {', '.join(known)}.")


class Resident:
    """At most one process of the handler that outlives its commands: it holds a lock and has its number in it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Be the resident; waits until a former one has ended."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
            yield
        finally:
            os.close(descriptor)

    def alive(self) -> bool:
        """Whether there is a resident now. The lock says it, not the number: that may be another process's by now."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _signal(self, number_: int) -> None:
        """Send a signal to the resident, and to nobody else: it works in the folder of the lock."""
        pid = read_number(self._path)
        with contextlib.suppress(OSError):
            if pid and os.readlink(f"/proc/{pid}/cwd") == str(self._path.parent):
                os.kill(pid, number_)

    def wait(self, seconds: float, alive: bool = False) -> bool:
        """Whether there is no resident (or, with `alive`, that there is one), now or within that time."""
        end = time.monotonic() + seconds
        while self.alive() != alive:
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    def stop(self, seconds: float) -> None:
        """Ask the resident to end; kill it when it has not after that time."""
        for number_, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 10.0)):
            if not self.alive():
                return
            self._signal(number_)
            if self.wait(patience):
                return


def leave_behind(place: Place, *argv: str, **variables: str) -> None:
    """Start a process of the handler's own that outlives this command and holds nothing of it.

    It stays in the control group that the agent gave to the extension, and so below its limits.
    """
    with open(place.logs / "handler.log", "ab") as log:
        subprocess.Popen(
            [str(place.root / Path(sys.argv[0]).name), *argv],
            cwd=place.root,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def end_group(process: subprocess.Popen[bytes], grace: float) -> None:
    """End a process that was started in a session of its own, and its children: SIGTERM, then SIGKILL."""
    for number_, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number_)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)


def main(program: str, commands: Mapping[str, Callable[[Place], None]]) -> NoReturn:
    """Run the command that the manifest names; an error is a sentence on standard error and an exit code."""
    os.umask(0o077)
    word = sys.argv[1] if len(sys.argv) == 2 else ""
    try:
        if word not in commands:
            raise HandlerError(1, f"Usage: {program} {'|'.join(commands)}. The agent runs it as the manifest says.")
        if sys.platform != "linux":
            raise HandlerError(UNSUPPORTED, "This package is for Linux. Install the extension on a Linux machine.")
        commands[word](find_place(Path(program).resolve().parent))
    except HandlerError as error:
        print(f"{error}", file=sys.stderr)
        sys.exit(error.code)
    except Exception as error:  # noqa: BLE001 - Python would print its text, which may quote an address and its secret
        where = "".join(traceback.format_tb(error.__traceback__))
        print(f"{where}{type(error).__name__}: {getattr(error, 'strerror', None) or 'see above'}", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)
