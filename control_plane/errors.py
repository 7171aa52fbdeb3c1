# SPDX-License-Identifier: Apache-2.0
"""Errors of the hub.

HubError                 anything that is told to a caller or an operator in one sentence
├── ApiError             has an HTTP status and a code; written as the ARM envelope (identity-and-arm-api.md C.1)
│   └── TokenError       written as the authority's envelope (identity-and-arm-api.md B.4)
└── OperatorError        a command that cannot be carried out: message and remedy on standard error, exit code 1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class HubError(Exception):
    """Root of the tree; `message` is one sentence for people."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class OperatorError(HubError):
    """A command of `hawser-hub` that cannot be carried out, with what to do about it."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class ApiError(HubError):
    """An answer with an error envelope. `headers` are added to the response; `about`, `action`: the resource that a
    refused write was about and what was to be done, for the audit, where the path does not say it; `lacks`: the action
    and the scope that the caller has no right to."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        target: str | None = None,
        details: Sequence[Mapping[str, Any]] | None = None,
        headers: Mapping[str, str] | None = None,
        about: str | None = None,
        action: str | None = None,
        lacks: tuple[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.about = about
        self.action = action
        self.lacks = lacks
        self.code = code
        self.target = target
        self.details = details
        self.headers = dict(headers or {})

    def envelope(self) -> dict[str, Any]:
        """`{"error": {"code", "message", "target"?, "details"?}}`."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.target is not None:
            error["target"] = self.target
        if self.details:
            error["details"] = [dict(item) for item in self.details]
        return {"error": error}


class TokenError(ApiError):
    """Refusal of the authority; `aadsts` is the number that SDKs show (table of section B.4)."""

    def __init__(self, status: int, error: str, aadsts: int, message: str, *, suberror: str | None = None) -> None:
        super().__init__(status, error, f"AADSTS{aadsts}: {message}")
        self.aadsts = aadsts
        self.suberror = suberror


def bad_content(message: str, target: str | None = None) -> ApiError:
    """400 `InvalidRequestContent`: the body cannot be used as it is."""
    return ApiError(400, "InvalidRequestContent", message, target=target)


def not_found(resource_id: str) -> ApiError:
    """404 `ResourceNotFound` for one resource."""
    return ApiError(404, "ResourceNotFound", f"The Resource '{resource_id}' was not found.")


def forbidden(message: str) -> ApiError:
    """403 `AuthorizationFailed`."""
    return ApiError(403, "AuthorizationFailed", message)


def for_operator(error: ApiError, listing: str) -> OperatorError:
    """A refusal of the API as the command line tells it. `listing`: the command that lists what is there."""
    if error.code not in ("ResourceNotFound", "SubscriptionNotFound"):
        remedy = "Correct that, and run the command again; --help says what may be given."
    elif error.code == "SubscriptionNotFound":
        remedy = "See the output of 'init'."
    else:
        remedy = f"See 'hawser-hub {listing}'."
    return OperatorError(error.message, remedy)
