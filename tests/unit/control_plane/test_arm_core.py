# SPDX-License-Identifier: Apache-2.0
"""Paths, status, pages and machine bodies: pure functions."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.arm import machine_body, paging, paths, router
from control_plane.arm.status import DISCONNECTED_AFTER, EXPIRED_AFTER, status
from control_plane.errors import ApiError

MACHINE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.HybridCompute/machines/m"


@given(st.text(max_size=300))
def test_any_path_is_read_or_refused(text: str) -> None:
    route = paths.read(text)
    assert route is None or route.shape.count("*") == len(route.names)
    try:
        router.find("GET", text)
    except ApiError as error:
        assert error.status in (404, 405)  # noqa: PT017 - any input: refused so, or taken


@given(st.lists(st.booleans(), min_size=len(MACHINE), max_size=len(MACHINE)))
def test_paths_have_no_case(upper: list[bool]) -> None:
    text = "".join(char.upper() if up else char for char, up in zip(MACHINE, upper, strict=True))
    handler, names = router.find("GET", text)
    assert handler is router.ROUTES[router._M]["GET"]
    assert [name.lower() for name in names] == ["s", "g", "m"]


def test_machine_ids() -> None:
    found = paths.machine_id(MACHINE)
    assert found == paths.MachineId("s", "g", "m")
    assert str(found) == MACHINE
    for wrong in (
        f"{MACHINE}/x",
        f"{MACHINE}/extensions/y",
        "/subscriptions/s",
        "",
        MACHINE.replace("/m", "/a b"),
        f"{MACHINE[:-1]}..",
    ):
        assert paths.machine_id(wrong) is None


@pytest.mark.parametrize(
    ("silence", "word"),
    [
        (0, "Connected"),
        (-3600, "Connected"),
        (DISCONNECTED_AFTER, "Connected"),
        (DISCONNECTED_AFTER + 1, "Disconnected"),
        (EXPIRED_AFTER, "Disconnected"),
        (EXPIRED_AFTER + 1, "Expired"),
    ],
)
def test_status(silence: int, word: str) -> None:
    assert status(1_000_000, 900_000, 1, 1_000_000 + silence).word == word


def test_never_seen_awaits() -> None:
    assert status(None, None, 5, 10**9) == status(None, None, 5, 6)
    assert status(None, None, 5, 6).word == "AwaitingConnection"


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**10))
def test_the_change_is_never_in_the_future_of_silence(seen: int, gap: int, at: int) -> None:
    state = status(seen, max(0, seen - gap), 0, at)
    assert state.since <= max(seen, at)


@given(st.binary(min_size=32, max_size=32), st.text(max_size=50), st.integers(0, 2**62))
def test_page_tokens_come_back_and_belong_to_one_list(key: bytes, scope: str, last: int) -> None:
    token = paging.token(key, scope, last)
    assert paging.read_token(key, scope, token) == last
    with pytest.raises(ApiError):
        paging.read_token(key, scope + "x", token)


@given(st.text(max_size=60))
def test_forged_page_tokens_are_refused(text: str) -> None:
    with pytest.raises(ApiError) as refused:
        paging.read_token(b"k" * 32, "list", text)
    assert refused.value.status == 400


def test_next_link_drops_empty_and_old_parameters() -> None:
    query = {"api-version": "2026-07-15", "$expand": "", "$skiptoken": "old", "$top": "2"}
    parts = urlsplit(paging.next_link("https://hub:8443", "/subscriptions/a b", query, "new"))
    assert (parts.scheme, parts.netloc, parts.path) == ("https", "hub:8443", "/subscriptions/a%20b")
    assert parse_qs(parts.query) == {"api-version": ["2026-07-15"], "$top": ["2"], "$skiptoken": ["new"]}


@pytest.mark.parametrize(("text", "size"), [(None, 200), ("1", 1), ("5000", 1000)])
def test_page_size(text: str | None, size: int) -> None:
    assert paging.page_size(text) == size


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "1.5", "٣", "9" * 40])
def test_bad_page_size(text: str) -> None:
    with pytest.raises(ApiError):
        paging.page_size(text)


_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
_MEMBERS = st.sampled_from(["location", "tags", "kind", "identity", "properties"])
_INNER = st.dictionaries(st.sampled_from([*machine_body._WRITABLE, "vmId", "clientPublicKey", "status"]), _JSON)


@given(st.dictionaries(_MEMBERS, _JSON | _INNER, max_size=5))
def test_any_body_is_a_wish_or_a_400(body: dict[str, Any]) -> None:
    for read in (machine_body.read_put, machine_body.read_patch):
        try:
            wish = read(body)
        except ApiError as error:
            assert error.status == 400  # noqa: PT017 - any input: refused so, or taken
        else:
            assert set(wish.properties) <= set(machine_body._WRITABLE)
            machine_body.merged({}, wish.properties)


def test_read_only_members_are_ignored() -> None:
    wish = machine_body.read_put(
        {
            "id": "x",
            "location": "local",
            "properties": {
                "status": "Connected",
                "osProfile": {"computerName": "evil", "linuxConfiguration": {"patchSettings": {}}},
                "agentUpgrade": {"desiredVersion": "1", "lastAttemptStatus": "Success"},
            },
        }
    )
    assert wish.properties == {
        "osProfile": {"linuxConfiguration": {"patchSettings": {}}},
        "agentUpgrade": {"desiredVersion": "1"},
    }


@given(st.dictionaries(st.sampled_from("abc"), st.none() | st.dictionaries(st.sampled_from("xy"), st.integers())))
def test_merging_twice_is_merging_once(wish: dict[str, Any]) -> None:
    once = machine_body.merged({"a": {"x": 0}, "z": 1}, wish)
    assert machine_body.merged(once, wish) == once
    assert once["z"] == 1
