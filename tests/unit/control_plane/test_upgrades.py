# SPDX-License-Identifier: Apache-2.0
"""Decisions about upgrades of the agent: wishes, automatic ones, the last attempt in ARM's words. All pure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from control_plane.bodies import is_guid
from control_plane.errors import ApiError
from control_plane.upgrades import view, wish

ROOT = Path(__file__).resolve().parents[3]
PUBLISHED = ["1.0.0.1", "1.0.0.9", "1.0.0.10"]
GUID = "11111111-57f1-4f11-9d6d-0f3f9d1d2c3b"


def test_the_shape_of_reports_is_documented() -> None:
    name = "report-agent.schema.json"
    assert (ROOT / "control_plane/upgrades" / name).read_bytes() == (ROOT / "docs/schemas" / name).read_bytes()


def written(before: dict[str, Any] | None, sent: dict[str, Any] | None, running: str | None = "1.0.0.1") -> Any:
    merged = {key: value for key, value in {**(before or {}), **(sent or {})}.items() if value is not None}
    return wish.written(before, sent, merged, PUBLISHED, running)


def test_a_version_without_a_correlation_id_is_a_new_wish_each_time() -> None:
    first = written(None, {"desiredVersion": "1.0.0.9"})
    assert first["desiredVersion"] == "1.0.0.9"
    assert is_guid(first["correlationId"])
    again = written(first, {"desiredVersion": "1.0.0.9"})
    assert again["desiredVersion"] == "1.0.0.9"
    assert again["correlationId"] != first["correlationId"]
    # ARM's PUT of the whole object is no new wish.
    assert written(first, dict(first)) == first
    given = written(None, {"desiredVersion": "1.0.0.9", "correlationId": GUID})
    assert given == {"desiredVersion": "1.0.0.9", "correlationId": GUID}
    assert written(given, given) == given


def test_what_is_not_published_is_refused_and_says_what_there_is() -> None:
    for version in ("1.0.0.2", "1.0", "x", ""):
        with pytest.raises(ApiError) as caught:
            written(None, {"desiredVersion": version})
        assert caught.value.code == "AgentVersionNotFound"
        assert "1.0.0.10" in caught.value.message
    # What was wished while it was published stays when the whole object is sent again.
    old = {"desiredVersion": "0.9.0.0", "correlationId": GUID}
    assert written(old, old) == old


@pytest.mark.parametrize(
    ("wanted", "running", "found"),
    [
        ({}, "1.0.0.1", "1.0.0.10"),
        ({}, None, None),
        ({}, "", None),
        ({}, "1.0.0.10", None),
        ({}, "2.0.0.0", None),
        ({"desiredVersion": "1.0.0.9"}, "1.0.0.9", "1.0.0.10"),
        ({"desiredVersion": "1.0.0.10"}, "1.0.0.9", None),
    ],
)
def test_automatic_upgrades_take_the_newest_once(
    wanted: dict[str, Any], running: str | None, found: str | None
) -> None:
    assert wish.automatic(wanted, PUBLISHED, running).get("desiredVersion") == found


def test_switching_automatic_upgrades_on_begins_one() -> None:
    assert written(None, {"enableAutomaticUpgrade": True}, None) == {"enableAutomaticUpgrade": True}
    made = written(None, {"enableAutomaticUpgrade": True}, "1.0.0.1")
    assert (made["enableAutomaticUpgrade"], made["desiredVersion"]) == (True, "1.0.0.10")
    assert written(None, {"enableAutomaticUpgrade": True}, "1.0.0.10") == {"enableAutomaticUpgrade": True}
    assert written(None, {"enableAutomaticUpgrade": False}) == {"enableAutomaticUpgrade": False}
    pinned = written(made, {"desiredVersion": "1.0.0.9"})
    assert (pinned["enableAutomaticUpgrade"], pinned["desiredVersion"]) == (True, "1.0.0.9")
    with pytest.raises(ApiError, match="takes no older one") as caught:
        written(made, {"desiredVersion": "1.0.0.9"}, "1.0.0.10")
    assert caught.value.code == "AgentVersionOlder"
    back = written(made, {"desiredVersion": "1.0.0.9", "enableAutomaticUpgrade": False}, "1.0.0.10")
    assert back["desiredVersion"] == "1.0.0.9"


def test_nothing_published_is_nothing_to_do() -> None:
    assert wish.automatic({}, [], "1.0.0.1") == {}


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("downloading", None),
        ("installing", None),
        ("waiting", None),
        ("rolling back", None),
        ("succeeded", "Success"),
        ("rolled back", "Failed"),
        ("failed", "Failed"),
    ],
)
def test_the_last_attempt(state: str, status: str | None) -> None:
    told = {"desiredVersion": "1.0.0.9", "state": state, "message": "m", "at": "2026-11-28T12:00:00Z"}
    data = {**told, "generation": 3, "correlationId": "a"}
    shown = view.attempt(data, {"desiredVersion": "1.0.0.9", "correlationId": "a"}, "1.0.0.1")
    assert shown.get("lastAttemptStatus") == status
    assert (shown["lastAttemptDesiredVersion"], shown["lastAttemptMessage"]) == ("1.0.0.9", "m")
    # The same version wished once more has not ended yet; of another version, or by hand, what was told stands.
    again = {"desiredVersion": "1.0.0.9", "correlationId": "b"}
    assert "lastAttemptStatus" not in view.attempt(data, again, "1.0.0.1")
    assert view.attempt(data, again, "1.0.0.9").get("lastAttemptStatus") == ("Success" if status else None)
    assert view.attempt(data, {"desiredVersion": "1.0.0.10", "correlationId": "b"}, "1.0.0.1") == shown
    by_hand = {**data, "generation": None, "correlationId": None}
    assert view.attempt(by_hand, again, "1.0.0.1") == shown
