# SPDX-License-Identifier: Apache-2.0
"""How simulated machines reach the hub: addresses, trust, limits of time, and what an answer with an error says."""

from __future__ import annotations

import json
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.simulator.keys import Pool
from benchmarks.simulator.wire import Answer

JSON = "application/json"


class Refusal(Exception):
    """An answer with an error (docs/protocol.md section 9). `after`: seconds of Retry-After, if it gave any; `body`:
    the answer's object, empty when it was none."""

    def __init__(self, answer: Answer) -> None:
        try:
            body = json.loads(answer.body)
        except ValueError:
            body = {}
        self.body: dict[str, Any] = body if isinstance(body, dict) else {}
        error = self.body.get("error")
        self.status = answer.status
        if isinstance(error, dict):
            self.code, self.message = str(error.get("code")), str(error.get("message"))
        else:
            self.code = str(self.body.get("suberror") or error) if error else f"Status{answer.status}"
            self.message = str(self.body.get("error_description", "")) if error else answer.body[:200].decode("latin-1")
        told = answer.headers.get("retry-after", "")
        self.after = float(told) if told.isascii() and told.isdigit() else None
        super().__init__(f"{self.status} {self.code}: {self.message[:300]}")


@dataclass(frozen=True)
class Pace:
    """The agent's times (docs/protocol.md sections 6 and 13), in seconds; tests may shorten them.

    `spread`: machines begin to run at a random moment within it. `gone`: pause of a machine whose identity the hub
    took out of use.
    """

    first: float = 1.0
    last: float = 300.0
    hold: int = 300
    spread: float = 0.0
    connect: float = 30.0
    answer: float = 60.0
    gone: float = 3600.0


@dataclass
class Site:
    """What all machines of a fleet share. `urls`: addresses of one hub or of several over one database; the first
    names the authority. `on_document(machine, kind, generation)` is called when desired state has arrived;
    `on_enable(machine)` when the hub has taken the report that its extensions are being enabled;
    `on_exchange(operation, seconds)` after each answer."""

    urls: list[str]
    tls: ssl.SSLContext
    tenant: str
    pace: Pace
    keys: Pool = field(default_factory=Pool)
    # What went wrong, whatever machine it was: answers by status, errors by code, connections that could not be used.
    statuses: Counter[int] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    broken: int = 0
    on_document: Callable[[Any, str, int], None] | None = None
    on_enable: Callable[[Any], None] | None = None
    on_exchange: Callable[[str, float], None] | None = None

    @property
    def token_path(self) -> str:
        """Path of the token endpoint."""
        return f"/{self.tenant}/oauth2/v2.0/token"

    def host(self, number: int) -> str:
        """URL of address `number`, counted round."""
        return self.urls[number % len(self.urls)]
