# SPDX-License-Identifier: Apache-2.0
"""The firmware's table as Windows hands it out."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.platform.smbios import Firmware, read

# The first three fields are little-endian: this is 00112233-4455-6677-8899-aabbccddeeff.
UNIQUE = bytes.fromhex("33221100554477668899aabbccddeeff")


def structure(kind: int, body: bytes, *texts: str) -> bytes:
    """A structure: its type, its length, handle 0, its body, its strings."""
    strings = b"".join(text.encode() + b"\0" for text in texts) or b"\0"
    return struct.pack("<BBH", kind, 4 + len(body), 0) + body + strings + b"\0"


def system(unique: bytes = UNIQUE, numbers: bytes = b"\1\2\0\3") -> bytes:
    return structure(1, numbers + unique + b"\6\0\0", "Maker ", "Model 7", "SN-1")


CHASSIS = structure(3, b"\0\3\0\0\1" + bytes(8), "TAG-9")
END = structure(127, b"")


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (b"", Firmware()),
        (
            structure(0, bytes(20), "BIOS") + system() + CHASSIS + END,
            Firmware("Maker", "Model 7", "SN-1", "00112233-4455-6677-8899-aabbccddeeff", "TAG-9"),
        ),
        (system(bytes(16)) + END, Firmware("Maker", "Model 7", "SN-1")),
        (system(b"\xff" * 16) + END, Firmware("Maker", "Model 7", "SN-1")),
        (system(b"") + END, Firmware("Maker", "Model 7", "SN-1")),
        (system(numbers=b"\0\x09\0\xff") + END, Firmware(uuid="00112233-4455-6677-8899-aabbccddeeff")),
        (END + system(), Firmware()),
        (b"\x01\x02\0\0" + system(), Firmware()),
        (system() + CHASSIS[:-3], Firmware("Maker", "Model 7", "SN-1", "00112233-4455-6677-8899-aabbccddeeff")),
    ],
)
def test_what_the_structures_say(table: bytes, expected: Firmware) -> None:
    assert read(table) == expected


@given(st.binary(max_size=200))
def test_a_damaged_table_does_no_harm(table: bytes) -> None:
    assert all(isinstance(value, str) for value in read(table))
    assert all(isinstance(value, str) for value in read(system() + table))
