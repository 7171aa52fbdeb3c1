# SPDX-License-Identifier: Apache-2.0
"""Texts of extensions, which are reported and logged: without signatures of URLs, and not without end. Pure."""

from __future__ import annotations

import re

HIDDEN = "[hidden]"
MARK = " [shortened]"
TEXT_LIMIT = 4 * 1024
# Signatures of shared access (extension-handler.md section 23), also where a URL was quoted inside another.
_SIGNATURE = re.compile(r"((?:[?&;]|%3[fF]|%26|\\u0026|\b)sig(?:=|%3[dD]))[^&\s\"'<>;\\]+", re.IGNORECASE)
_BREAK = re.compile(rb"[\s&\"'<>;\\]")
_UNSPEAKABLE = re.compile("[\x00\ud800-\udfff]")


def redacted(text: str) -> str:
    """`text` with the signature of every URL in it hidden."""
    return _SIGNATURE.sub(rf"\g<1>{HIDDEN}", text)


def whole(text: str) -> str:
    """`text` without NUL and halves of surrogate pairs, which JSON can spell and the hub refuses, with a mark for
    each."""
    return _UNSPEAKABLE.sub("\ufffd", text)


def cut(text: str, limit: int = TEXT_LIMIT) -> str:
    """`text`, `whole`, in at most `limit` bytes of UTF-8, its end marked where something is missing."""
    text = whole(text)
    encoded = text.encode("utf-8")
    if len(encoded) <= limit:
        return text
    return encoded[: max(0, limit - len(MARK))].decode("utf-8", "ignore") + MARK


def from_a_word(content: bytes) -> bytes:
    """What a program has written, from somewhere in its middle on, without the rest of a word at its beginning, which
    may be that of a signature."""
    found = _BREAK.search(content, 0, TEXT_LIMIT)
    return content[found.end() :] if found else content


def tail(content: bytes, limit: int = TEXT_LIMIT) -> str:
    """The end of what a program has written, redacted, in at most `limit` bytes of UTF-8. `content` begins further
    ahead, so that no signature is met in its middle."""
    text = redacted(whole(content.decode("utf-8", "replace")))
    encoded = text.encode("utf-8")
    return encoded[max(0, len(encoded) - limit) :].decode("utf-8", "ignore")
