# SPDX-License-Identifier: Apache-2.0
"""What the rest of the agent asks of an operating system; one module each answers it."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol


class Signal(NamedTuple):
    """A reading of the evidence vector. `status`: ok, absent, denied or error; `value` is None unless ok; `source`:
    where it was read, never the value."""

    name: str
    status: str
    value: str | None
    source: str = ""


class Machine(Protocol):
    """One look at the machine; every method reads afresh."""

    def signals(self) -> list[Signal]:
        """The signals of the evidence vector."""

    def boot_id(self) -> str | None:
        """Identifier of this boot."""

    def inventory(self, version: str) -> dict[str, Any]:
        """The data of an `inventory` report (docs/protocol.md section 8)."""
