# SPDX-License-Identifier: Apache-2.0
"""Fetches what a wish names, runs it and writes down how it ended. A process by itself (`handler.py work`)."""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar

import contract
import wishes
from contract import HandlerError, Place

TRIES = 5
STALL = 60  # seconds without a byte
GRACE = 5.0  # between SIGTERM and SIGKILL
ROOM_PAUSE = 5.0  # seconds until a full disk is tried again
_SHOWN = 1500  # of each stream in the message, which the report cuts to 4 KiB; the sub-states have 4 KiB of each
_FULL = (errno.ENOSPC, errno.EDQUOT)
_T = TypeVar("_T")


class _StoppedError(Exception):
    """SIGTERM: the extension is disabled."""


def carry_out(place: Place, sequence: int) -> None:
    """Do all of it; whatever happens, the status says how it ended."""
    signal.signal(signal.SIGTERM, _stop)
    folder = place.root / "download" / str(sequence)
    word, code, message = "error", contract.STOPPED, "The work ended with an error of its own; see handler.log."
    try:
        wish = wishes.parse(*contract.read_settings(place, sequence))
        shutil.rmtree(folder.parent, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, uri in wish.files:
            fetch(place, folder, name, uri, wish.converts)
        contract.write_status(place, sequence, "enable", "transitioning", 0, "The script runs.")
        code = run(folder, wish)
        word = "success" if code == 0 else "error"
        message = f"The script ended with the exit code {code}."
    except HandlerError as error:
        code, message = error.code, str(error)
    except _StoppedError:
        message = "The script was stopped, because the extension was disabled, removed or replaced."
    except OSError as error:
        message = f"The script could not be run: {error.strerror}: {error.filename}."
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with_room(lambda: write_end(place, sequence, folder, word, code, message))


def _stop(_number: int, _frame: Any) -> None:
    raise _StoppedError


def with_room(write_all: Callable[[], _T]) -> _T:
    """What `write_all` returns; it is called again while the disk is full. SIGTERM does not cut a call off, and between
    two of them does what it does otherwise. Errors: those of `write_all`, but for a full disk."""
    while True:
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        try:
            return write_all()
        except OSError as error:
            if error.errno not in _FULL:
                raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        time.sleep(ROOM_PAUSE)


def write_end(place: Place, sequence: int, folder: Path, word: str, code: int, message: str) -> None:
    """The final status: one sentence, and the ends of both streams."""
    out, err = (contract.tail(folder.with_suffix(name)) for name in (".stdout", ".stderr"))
    text = "\n".join([message, "[stdout]", contract.last(out, _SHOWN), "[stderr]", contract.last(err, _SHOWN)])
    streams = (("StdOut", "success", out), ("StdErr", "success", err))
    contract.write_status(place, sequence, "enable", word, code, text, streams)


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """A redirection may not lead to an address that nobody vouches for."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Optional[urllib.request.Request]:
        if not newurl.lower().startswith("https://"):
            raise HandlerError(
                contract.UNFETCHED, "A redirection leads away from https. Give the file's final address."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(place: Place, folder: Path, name: str, uri: str, converts: bool) -> None:
    """Put the file of an https address into the folder. Tries again what may go well later. Raises HandlerError."""
    opener = urllib.request.build_opener(_NoDowngrade)
    partial = folder.with_suffix(".part")
    for attempt in range(1, TRIES + 1):
        try:
            with opener.open(uri, timeout=STALL) as answer, open(partial, "wb") as file:
                shutil.copyfileobj(answer, file)
                length = answer.headers.get("Content-Length")
                if length is not None and file.tell() != int(length):
                    raise OSError("the answer broke off")
            break
        except urllib.error.HTTPError as error:
            error.close()
            reason, again = f"HTTP status {error.code}", error.code in {408, 429, 500, 502, 503, 504}
        except OSError as error:
            cause = getattr(error, "reason", error)
            reason, again = str(cause), "CERTIFICATE_VERIFY_FAILED" not in str(cause)
        except (http.client.HTTPException, ValueError) as error:
            # Their texts may quote the address, and with it its secret.
            reason, again = f"no whole answer ({type(error).__name__})", not isinstance(error, http.client.InvalidURL)
        place.log(f"fetching {name}, attempt {attempt}: {reason}")
        if not again or attempt == TRIES:
            partial.unlink(missing_ok=True)
            raise HandlerError(
                contract.UNFETCHED,
                f"{name} cannot be fetched: {reason}. Check its address in fileUris, and the network.",
            )
        time.sleep(2.0 ** (attempt - 1))
    if converts and partial.stat().st_size <= wishes.SCRIPT_LIMIT:
        content = partial.read_bytes()
        partial.write_bytes(wishes.without_carriage_returns(name, content))
    partial.chmod(0o700)
    os.replace(partial, folder / name)


def run(folder: Path, wish: wishes.Wish) -> int:
    """Run the command or script to its end and return its exit code. Raises HandlerError when its time is up."""
    content = wish.script if wish.script is not None else f"{wish.command}\n".encode()
    if wish.converts:
        content = wishes.without_carriage_returns(".sh", content)
    argv = wishes.interpreter(content) if wish.script is not None else [wishes.SHELL]
    if wish.folder is not None and not Path(wish.folder).is_dir():
        raise HandlerError(contract.SETTINGS, f"workingDirectory {wish.folder} is no folder. Make it, or leave it out.")
    # No argument, for others may read command lines, and no file of a disk, for nobody removes that after a power cut:
    # it may be a protected setting.
    with contextlib.ExitStack() as stack:
        script = stack.enter_context(open(os.memfd_create("script"), "wb"))
        script.write(content)
        script.flush()
        out, err = (stack.enter_context(open(folder.with_suffix(name), "wb")) for name in (".stdout", ".stderr"))
        process = subprocess.Popen(
            [*argv, f"/proc/self/fd/{script.fileno()}"],
            cwd=wish.folder or folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            pass_fds=[script.fileno()],
        )
        try:
            code = process.wait(wish.timeout)
        except subprocess.TimeoutExpired:
            contract.end_group(process, GRACE)
            raise HandlerError(
                contract.STOPPED,
                f"The script was stopped after {wish.timeout} s. Give timeoutInSeconds more, up to {wishes.LONGEST}.",
            ) from None
        except _StoppedError:
            contract.end_group(process, GRACE)
            raise
    return code if code >= 0 else 128 - code
