# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that can go wrong on the controller.

HawserError              one sentence, a remedy, the AZCM code if there is one
├── OptionError          an option or variable is missing or wrong: nothing was sent
├── CarriageError        this connection cannot carry the desired state to the host
├── AnswerError          the host's answer is not the JSON object that the protocol promises
└── HubError             the hub refused, failed or could not be reached
"""

from __future__ import annotations

from typing import Any


class HawserError(Exception):
    """Base of the tree. `message` is one sentence without the final dot, `remedy` one sentence that says what to do."""

    code: str | None = None

    def __init__(self, message: str, remedy: str, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message.rstrip(". ")
        self.remedy = remedy.rstrip(". ")
        if code is not None:
            self.code = code

    def as_result(self) -> dict[str, Any]:
        """What a task result says about the error: `failed`, `msg`, and `error` in the apply answer's shape."""
        prefix = f"{self.code}: " if self.code else ""
        return {
            "failed": True,
            "msg": f"{prefix}{self.message}. {self.remedy}.",
            "error": {"code": self.code, "message": self.message, "remedy": self.remedy},
        }


class OptionError(HawserError):
    """An option, or the variable that stands for it, is missing or wrong."""

    code = "AZCM0023"


class CarriageError(HawserError):
    """The connection or become method cannot carry the JSON, or not on this system."""


class AnswerError(HawserError):
    """The program on the host answered something else than one JSON object."""


class HubError(HawserError):
    """The hub answered with an error or not at all.

    `status` is the HTTP status (0: no answer), `hub_code` the code of the error envelope (docs/protocol.md section 9).
    """

    def __init__(self, message: str, remedy: str, code: str | None = None, status: int = 0, hub_code: str = "") -> None:
        super().__init__(message, remedy, code)
        self.status = status
        self.hub_code = hub_code
