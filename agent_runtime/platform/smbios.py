# SPDX-License-Identifier: Apache-2.0
"""Reading the firmware's table (SMBIOS reference specification 3.x, sections 6.1 and 7.1, 7.2, 7.4). Pure."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import NamedTuple

_SYSTEM, _CHASSIS, _END = 1, 3, 127
_HEAD = 4


class Firmware(NamedTuple):
    """Empty where the table has nothing; `uuid` in lower case."""

    manufacturer: str = ""
    model: str = ""
    serial: str = ""
    uuid: str = ""
    asset_tag: str = ""


def read(table: bytes) -> Firmware:
    """What the structures of a table say. A damaged table gives what stands before the damage."""
    manufacturer = model = serial = unique = tag = ""
    for kind, formatted, texts in _structures(table):
        if kind == _SYSTEM:
            manufacturer, model, serial = (_text(formatted, texts, offset) for offset in (4, 5, 7))
            # The first three fields are little-endian since version 2.6 (section 7.2.1).
            raw = formatted[8:24]
            if len(raw) == 16 and raw not in (bytes(16), b"\xff" * 16):
                unique = str(uuid.UUID(bytes_le=raw))
        elif kind == _CHASSIS:
            tag = _text(formatted, texts, 8)
    return Firmware(manufacturer, model, serial, unique, tag)


def _structures(table: bytes) -> Iterator[tuple[int, bytes, list[bytes]]]:
    """Type, formatted part, strings."""
    at = 0
    while at + _HEAD <= len(table):
        kind, length = table[at], table[at + 1]
        if length < _HEAD or kind == _END:
            return
        ends = table.find(b"\0\0", at + length)
        if ends < 0:
            return
        yield kind, table[at : at + length], table[at + length : ends].split(b"\0")
        at = ends + 2


def _text(formatted: bytes, texts: list[bytes], offset: int) -> str:
    """The string that the number at `offset` names; numbers begin at 1, 0 is none."""
    number = formatted[offset] if offset < len(formatted) else 0
    return texts[number - 1].decode("ascii", "replace").strip() if 0 < number <= len(texts) else ""
