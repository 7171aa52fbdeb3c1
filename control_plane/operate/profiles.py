# SPDX-License-Identifier: Apache-2.0
"""Enrolment profiles and their tokens, from the operator's command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from control_plane.arm.roles import Action
from control_plane.clock import now
from control_plane.errors import ApiError, OperatorError, for_operator
from control_plane.fleet import tokens
from control_plane.operate.database import opened
from control_plane.operate.secrets import check_absent, write_secret
from control_plane.setup import operator
from control_plane.storage import audit


@contextmanager
def _changing(data: Path) -> Iterator[Session]:
    """A transaction whose refusals are told to an operator."""
    try:
        with opened(data) as (database, _settings), database.write() as session:
            yield session
    except ApiError as error:
        raise for_operator(error, "profiles") from error


def _record(session: Session, target: str, detail: Mapping[str, Any]) -> None:
    audit.record(session, operator(), Action.PROFILE_WRITE.value, f"/profiles/{target}", detail=dict(detail))


def every(data: Path) -> list[dict[str, Any]]:
    """All profiles, by name."""
    with opened(data) as (database, _settings), database.read() as session:
        return tokens.every(session)


def one(data: Path, name: str) -> dict[str, Any]:
    """A profile with its tokens.

    Errors: OperatorError when there is none.
    """
    try:
        with opened(data) as (database, _settings), database.read() as session:
            return {**tokens.find(session, name), "tokens": tokens.tokens(session, name)}
    except ApiError as error:
        raise for_operator(error, "profiles") from error


def put(data: Path, name: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Make or change a profile; what is not given stays. Returns it, and True when it was made.

    Errors: OperatorError.
    """
    with _changing(data) as session:
        answer, made = tokens.put(session, name, given, now(), keep=True)
        _record(session, name, given)
        return answer, made


def remove(data: Path, name: str) -> bool:
    """Take a profile away with its tokens. False when there was none."""
    with _changing(data) as session:
        removed = tokens.delete(session, name)
        if removed:
            _record(session, name, {"removed": True})
        return removed


def make_token(data: Path, name: str, given: Mapping[str, Any], file: Path | None) -> dict[str, Any]:
    """A new enrolment token; its text is in `token`, unless it went to `file` (0600).

    Errors: OperatorError; nothing is made then.
    """
    if file is not None:
        check_absent(file)
    with _changing(data) as session:
        text, answer = tokens.make_token(session, name, given, operator().name, now())
        _record(session, f"{name}/tokens/{answer['id']}", given)
        if file is None:
            return {**answer, "token": text}
        write_secret(file, text)
        return answer


def revoke(data: Path, name: str, token_id: str) -> None:
    """No machine joins with the token any more.

    Errors: OperatorError, also where the profile has no such token.
    """
    with _changing(data) as session:
        found = tokens.revoke(session, name, token_id, now())
        if found is None:
            raise OperatorError(
                f"The profile '{name}' has no token '{token_id}'.", f"See 'hawser-hub profiles show {name}'."
            )
        _record(session, f"{name}/tokens/{token_id}", {"revoked": True})
