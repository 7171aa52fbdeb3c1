# SPDX-License-Identifier: Apache-2.0
"""Settings of Hawser.CustomScript as one wish. Pure; errors are HandlerError with the code 53 and one sentence."""

from __future__ import annotations

import base64
import binascii
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional
from urllib.parse import unquote, urlsplit

import contract
from contract import HandlerError

PUBLIC = ("commandToExecute", "script", "fileUris", "skipDos2Unix", "timeoutInSeconds", "workingDirectory")
PROTECTED = ("commandToExecute", "script", "fileUris")
TIMEOUT = 5400
LONGEST = 86400
SCRIPT_LIMIT = 256 * 1024  # as the vendor's, decoded and unpacked
SHELL = "/bin/sh"
_MOST_FILES = 64
# What no address may have in it as it is (RFC 3986, section 2): urlsplit overlooks some of it, a request does not.
_UNWRITABLE = re.compile(r"[\s\x00-\x20\x7f]")


@dataclass(frozen=True)
class Wish:
    """What shall be done. Exactly one of `command` and `script` is set; `files` are pairs of name and address."""

    command: Optional[str]
    script: Optional[bytes]
    files: tuple[tuple[str, str], ...]
    converts: bool
    timeout: int
    folder: Optional[str]


def parse(public: Mapping[str, Any], protected: Mapping[str, Any]) -> Wish:
    """The wish of these settings. Raises HandlerError; the value of a protected setting is never in its text."""
    contract.refuse_unknown(public, PUBLIC)
    contract.refuse_unknown(protected, PROTECTED)
    twice = sorted(name for name in PROTECTED if _given(public, name) and _given(protected, name))
    if twice:
        raise HandlerError(
            contract.SETTINGS,
            f"{' and '.join(twice)} stand in the public and in the protected settings. Give each in one place.",
        )
    command, script = (_text(public, protected, name) for name in ("commandToExecute", "script"))
    if (command is None) == (script is None):
        raise HandlerError(
            contract.SETTINGS,
            "Both commandToExecute and script are given. Give one of them."
            if command
            else "There is nothing to run. Give commandToExecute or script, in the public or the protected settings.",
        )
    folder = public.get("workingDirectory")
    if folder is not None and (not isinstance(folder, str) or not folder.startswith("/") or "\0" in folder):
        raise HandlerError(contract.SETTINGS, f"workingDirectory is {folder!r}. Give an absolute path.")
    return Wish(
        command,
        decoded(script) if script is not None else None,
        _files(public.get("fileUris") or protected.get("fileUris") or []),
        not contract.boolean(public, "skipDos2Unix", False),
        contract.number(public, "timeoutInSeconds", TIMEOUT, 1, LONGEST),
        folder,
    )


def _given(settings: Mapping[str, Any], name: str) -> bool:
    # Empty texts and lists come from templates; they mean that nothing is given.
    return settings.get(name) not in (None, "", [])


def _text(public: Mapping[str, Any], protected: Mapping[str, Any], name: str) -> Optional[str]:
    value = public.get(name) if _given(public, name) else protected.get(name) if _given(protected, name) else None
    if value is not None and (not isinstance(value, str) or "\0" in value):
        raise HandlerError(contract.SETTINGS, f"{name} is no text. Give a text.")
    return value


def decoded(script: str) -> bytes:
    """The script out of base64, unpacked if it is gzip. Raises HandlerError."""
    try:
        content = base64.b64decode("".join(script.split()), validate=True)
        if content.startswith(b"\x1f\x8b"):
            unpacker = zlib.decompressobj(wbits=31)
            content = unpacker.decompress(content, SCRIPT_LIMIT + 1)
            if len(content) <= SCRIPT_LIMIT and not unpacker.eof:
                raise ValueError("gzip ends too early")
    except (binascii.Error, ValueError, zlib.error) as error:
        raise HandlerError(
            contract.SETTINGS, "script is neither base64 nor base64 of gzip. Make it with `base64 -w0 FILE`."
        ) from error
    if not content.strip() or len(content) > SCRIPT_LIMIT:
        raise HandlerError(
            contract.SETTINGS,
            f"script is empty or larger than {SCRIPT_LIMIT} bytes. Put a larger one where fileUris can name it.",
        )
    return content


def _files(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list) or not all(isinstance(uri, str) for uri in value) or len(value) > _MOST_FILES:
        raise HandlerError(contract.SETTINGS, f"fileUris is no list of at most {_MOST_FILES} addresses. Give a list.")
    files: dict[str, str] = {}
    for index, uri in enumerate(value, 1):
        name = file_name(uri)
        # An address may hold a secret: it is named by its place in the list.
        if _UNWRITABLE.search(uri):
            raise HandlerError(
                contract.SETTINGS,
                f"Address {index} of fileUris has a blank or a control character in it. Write a blank as %20.",
            )
        if name is None:
            raise HandlerError(
                contract.SETTINGS,
                f"Address {index} of fileUris is no https address of a file. Give https://HOST/PATH/FILE.",
            )
        if name in files:
            raise HandlerError(contract.SETTINGS, f"Two addresses of fileUris give a file {name}. Rename one of them.")
        files[name] = uri
    return tuple(files.items())


def file_name(uri: str) -> Optional[str]:
    """The last part of an https address, or None when it is no name for a file."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return None
    name = unquote(parts.path).rpartition("/")[2]
    fine = parts.scheme == "https" and parts.hostname and name not in {"", ".", ".."} and len(name.encode()) <= 255
    return name if fine and name.isprintable() else None


def interpreter(content: bytes) -> list[str]:
    """The words before a script's path, as the kernel has them from its first line (execve(2)): an interpreter and at
    most one argument. The shell, where the line names none."""
    line = content.split(b"\n", 1)[0]
    words = re.split(rb"[ \t]+", line[2:].strip(b" \t"), maxsplit=1) if line.startswith(b"#!") else []
    return [os.fsdecode(word) for word in words if word] or [SHELL]


def without_carriage_returns(name: str, content: bytes) -> bytes:
    """A script as the machine's shell reads it: no byte-order mark, no carriage returns. Other files stay the same."""
    text = content[3:] if content.startswith(b"\xef\xbb\xbf") else content
    if not text.startswith(b"#!") and not name.endswith(".sh"):
        return content
    return text.replace(b"\r\n", b"\n")
