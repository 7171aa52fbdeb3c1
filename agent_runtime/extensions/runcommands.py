# SPDX-License-Identifier: Apache-2.0
"""Run commands: what a document of kind `runcommands` wants, and what is said of each (docs/protocol.md section 15.5,
agent-surface.md section 16). Pure; commands.py carries out.

An **entry** is what is known of one command: the members of the report, and `run`: null or name of the run that was
begun for it and has not ended, `seconds`: its time limit, `boot`: identifier of the boot that it was begun in,
`incarnation`: whose sequence this is, empty where the document does not say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Optional

from agent_runtime.extensions import reports, texts
from agent_runtime.extensions.results import stamp
from agent_runtime.extensions.runner import LOST_CODE
from agent_runtime.extensions.wishes import INCARNATION

KIND = "runcommands"
# By this name allow and block lists know all run commands.
PUBLISHER, TYPE = "Microsoft.CPlat.Core", "RunCommandHandlerLinux"
HANDLER = f"{PUBLISHER}.{TYPE}"
MOST = 64
AT_ONCE = 4
PENDING, RUNNING = "Pending", "Running"
FINAL = ("Succeeded", "Failed", "TimedOut", "Canceled")
# What the kernel takes in one argument or variable (MAX_ARG_STRLEN of execve(2)), with the end of the text.
VALUE_LIMIT = 128 * 1024 - 1
MEMBERS = (
    "name",
    "sequence",
    "executionState",
    "executionMessage",
    "exitCode",
    "output",
    "error",
    "startTime",
    "endTime",
    "at",
)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
# A shell ends when it is to set one of these.
_SHELLS_OWN = frozenset(("PPID", "UID", "EUID", "BASHOPTS", "SHELLOPTS", "BASH_VERSINFO"))

Entry = dict[str, Any]


class Wish(NamedTuple):
    """One command. `parameters`: pairs of name and value that are not protected; `protected`: envelope; `fault`: why it
    cannot be carried out, or empty."""

    name: str
    sequence: int
    script: str
    uri: str
    parameters: tuple[tuple[str, str], ...]
    protected: Optional[str]
    user: Optional[str]
    seconds: Optional[int]
    fault: str
    incarnation: str

    @property
    def ident(self) -> str:
        """Names of commands are compared without case."""
        return self.name.lower()


class Given(NamedTuple):
    """What a script is given: environment variables, and arguments in their order."""

    variables: dict[str, str]
    arguments: tuple[str, ...]


def read(content: Mapping[str, Any]) -> dict[str, Wish]:
    """The wishes of a document's content, by ident. Errors: ValueError when it has no list of commands with a name and
    a sequence each, or too long a one."""
    listed = content.get("runCommands")
    if not isinstance(listed, list) or len(listed) > MOST:
        raise ValueError(f"runCommands is no list of at most {MOST}")
    made = {}
    for entry in listed:
        wish = _wish(entry if isinstance(entry, dict) else {})
        if wish.ident in made:
            raise ValueError(f"two commands have the name {wish.name}")
        made[wish.ident] = wish
    return made


def _wish(entry: Mapping[str, Any]) -> Wish:
    name, sequence, user = entry.get("name"), entry.get("sequence"), entry.get("runAsUser")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or type(sequence) is not int or sequence < 0:
        raise ValueError("a command has no proper name and sequence")
    incarnation = entry.get("incarnation", "")
    if not isinstance(incarnation, str) or not INCARNATION.fullmatch(incarnation):
        raise ValueError("the incarnation of a command is not of letters, digits and hyphens")
    seconds, protected = entry.get("timeoutSeconds"), entry.get("protected")
    pairs = pairs_of(entry.get("parameters"))
    fault = _fault(entry) or ("" if pairs is not None else "The parameters have another form than documented.")
    return Wish(
        name,
        sequence,
        str(entry.get("script") or ""),
        str(entry.get("scriptUri") or ""),
        pairs or (),
        None if protected is None else str(protected),
        str(user) if user else None,
        seconds if type(seconds) is int and seconds > 0 else None,
        fault,
        incarnation,
    )


def _fault(entry: Mapping[str, Any]) -> str:
    script, uri = entry.get("script"), entry.get("scriptUri")
    if bool(script) == bool(uri) or not isinstance(script or uri, str):
        return "Give one of script and scriptUri."
    if uri and not uri.lower().startswith("https://"):
        return "scriptUri is no https address. Give one, or the script itself."
    for name in ("outputBlobUri", "errorBlobUri"):
        if entry.get(name):
            return f"This agent does not upload output. Leave {name} away: the last 4 KiB are in the instance view."
    return "" if _is_text(str(script or uri)) else "The script is no text that can be written as UTF-8."


def pairs_of(parameters: Any) -> Optional[tuple[tuple[str, str], ...]]:
    """Pairs of name and value of a list of parameters; None when it has another form."""
    listed = parameters or []
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        return None
    found = tuple((item.get("name") or "", item.get("value")) for item in listed)
    return found if all(isinstance(part, str) for pair in found for part in pair) else None


def given(parameters: Iterable[tuple[str, str]]) -> Given:
    """Named parameters as variables, of one name the last; nameless ones as arguments. Errors: ValueError, a sentence
    without the value."""
    variables, arguments = {}, []
    for number, (name, value) in enumerate(parameters, 1):
        if name and (not _VARIABLE.fullmatch(name) or name in _SHELLS_OWN):
            raise ValueError(f"The parameter {name[:80]!r} cannot be an environment variable. Choose another name.")
        if "\0" in value or not _is_text(value) or len(name) + 1 + len(value.encode("utf-8")) > VALUE_LIMIT:
            called = name[:80] or f"number {number}"
            raise ValueError(f"The parameter {called} cannot be given to a program: it is no text, or too long a one.")
        if name:
            variables[name] = value
        else:
            arguments.append(value)
    return Given(variables, tuple(arguments))


def _is_text(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class Decision(NamedTuple):
    """`stop`: idents that are to be ended and forgotten; `take`: wishes that nothing is known of yet; `lost`: idents
    that wait for a script that the document has no more."""

    stop: list[str]
    take: list[Wish]
    lost: list[str]


def decide(entries: Mapping[str, Entry], wishes: Mapping[str, Wish]) -> Decision:
    """What a document changes. A sequence below the one that is known is that of a hub that was restored from a backup:
    it was run before."""
    stays = {ident for ident, wish in wishes.items() if ident in entries and _stays(entries[ident], wish)}
    stop = [ident for ident in entries if ident not in stays]
    late = [ident for ident in stays if wishes[ident].sequence != entries[ident]["sequence"]]
    lost = [ident for ident in late if entries[ident]["executionState"] == PENDING]
    return Decision(stop, [wish for ident, wish in wishes.items() if ident not in stays], lost)


def _stays(entry: Entry, wish: Wish) -> bool:
    known = entry.get("incarnation")
    if known and wish.incarnation:
        return bool(known == wish.incarnation and wish.sequence <= entry["sequence"])
    return bool(entry["sequence"] == wish.sequence)


def waiting(entries: Mapping[str, Entry], busy: Iterable[str]) -> list[str]:
    """Idents that may begin now, in the order of the document, with those of `busy` AT_ONCE at most."""
    taken = set(busy)
    free = [ident for ident, entry in entries.items() if entry["executionState"] == PENDING and ident not in taken]
    return free[: max(0, AT_ONCE - len(taken))]


# -- what is said


def blank(wish: Wish, now: float) -> Entry:
    return {
        "name": wish.name,
        "sequence": wish.sequence,
        "executionState": PENDING,
        "executionMessage": "",
        "exitCode": None,
        "output": "",
        "error": "",
        "startTime": None,
        "endTime": None,
        "at": stamp(now),
        "run": None,
        "seconds": 0.0,
        "boot": "",
        "incarnation": wish.incarnation,
    }


def started(entry: Entry, at: float, now: float) -> Entry:
    return {**entry, "executionState": RUNNING, "startTime": stamp(at), "at": stamp(now)}


def not_started(entry: Entry, reason: str, now: float) -> Entry:
    """The script could not be started: failed without a start time."""
    return {**_ended(entry, "Failed", reason, now), "startTime": None, "endTime": None}


def abandoned(entry: Entry, boot: str, now: float) -> Entry:
    """What a service in the boot `boot` makes of a run of which nothing is left: it waits again when it cannot have
    begun, for that is seen in the same boot alone, and is not repeated when it has, or may have."""
    if entry["executionState"] == PENDING and entry["boot"] == boot:
        return {**entry, "run": None}
    reason = "The machine was restarted, or files were removed, before the script had ended. Run it again."
    return _ended({**entry, "startTime": entry["startTime"] or entry["at"]}, "Failed", reason, now)


def ended(entry: Entry, code: Optional[int], now: float) -> Entry:
    """The script has ended; `code` None: at its time limit; LOST_CODE: nobody knows how."""
    if code is None:
        reason = f"The script took longer than {entry['seconds']:g} s and was ended."
        return _ended(entry, "TimedOut", reason, now)
    if code == LOST_CODE:
        reason = "The script has ended, but its exit code could not be written. See that the disk has room."
        return _ended(entry, "Failed", reason, now)
    reason = "" if code == 0 else f"The script ended with exit code {code}."
    return {**_ended(entry, "Succeeded" if code == 0 else "Failed", reason, now), "exitCode": code}


def _ended(entry: Entry, state: str, reason: str, now: float) -> Entry:
    moment = stamp(now)
    message = texts.cut(texts.redacted(reason))
    return {**entry, "executionState": state, "executionMessage": message, "endTime": moment, "at": moment, "run": None}


def written(entry: Entry, out: bytes, err: bytes, now: float) -> Entry:
    """What the script has written so far, from ends of both streams."""
    told = {"output": texts.tail(out), "error": texts.tail(err)}
    return entry if all(entry[name] == text for name, text in told.items()) else {**entry, **told, "at": stamp(now)}


# -- the report


def assemble(generation: int, entries: Iterable[Entry]) -> dict[str, Any]:
    """The report's data; where there is too much to say, everybody's output is cut alike."""
    listed = [{name: entry[name] for name in MEMBERS} for entry in entries]
    made = {"generation": generation, "runCommands": sorted(listed, key=lambda entry: str(entry["name"]).lower())}
    return reports.within(made, "runCommands", _shortened, texts.TEXT_LIMIT)


def _shortened(entry: Mapping[str, Any], limit: int) -> dict[str, Any]:
    return {**entry, **{name: texts.tail(str(entry[name]).encode("utf-8"), limit) for name in ("output", "error")}}


def moves(last: Mapping[str, Any], data: Mapping[str, Any]) -> bool:
    """Whether a command is in another state than in the last report, or gone: output alone may wait."""
    before, now = (
        {(entry["name"], entry["sequence"]): entry["executionState"] for entry in told.get("runCommands", ())}
        for told in (last, data)
    )
    return before != now
