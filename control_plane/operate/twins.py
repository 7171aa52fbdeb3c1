# SPDX-License-Identifier: Apache-2.0
"""Twins and images on the command line. A running hub takes up a decision within seconds (channel/twins.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from control_plane.arm.roles import HUB
from control_plane.clock import now
from control_plane.errors import ApiError, OperatorError, for_operator
from control_plane.fleet import twins
from control_plane.operate.database import opened
from control_plane.setup import operator

_EVERYWHERE = (HUB,)


def newest(data: Path, states: tuple[str, ...], limit: int) -> list[dict[str, Any]]:
    """Twins, the newest first."""
    with opened(data) as (database, _settings), database.read() as session:
        found, _more = twins.page(session, _EVERYWHERE, states, None, limit)
        return [twins.shown(row) for row in found]


def one(data: Path, number: int) -> dict[str, Any]:
    """Errors: OperatorError when there is none."""
    try:
        with opened(data) as (database, _settings), database.read() as session:
            return twins.shown(twins.find(session, number))
    except ApiError as error:
        raise for_operator(error, "twins") from error


def decide(data: Path, number: int, decision: str) -> dict[str, Any]:
    """Errors: OperatorError: no such twin, or it is settled."""
    try:
        with opened(data) as (database, _settings), database.write() as session:
            return twins.decide(session, twins.find(session, number), decision, operator(), now())
    except ApiError as error:
        raise for_operator(error, "twins") from error


def images(data: Path) -> list[dict[str, Any]]:
    """Images that machines come from, by name."""
    with opened(data) as (database, _settings), database.read() as session:
        return twins.images(session, _EVERYWHERE)


def image(data: Path, name: str) -> list[dict[str, Any]]:
    """The machines of an image.

    Errors: OperatorError when there are none.
    """
    with opened(data) as (database, _settings), database.read() as session:
        found = twins.descendants(session, _EVERYWHERE, name)
    if not found:
        raise OperatorError(f"No machine comes from an image '{name}'.", "See 'hawser-hub images'.")
    return found
