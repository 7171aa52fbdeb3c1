# SPDX-License-Identifier: Apache-2.0
"""Which hosts of an inventory share an identity."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.hawser.machine.plugins.filter.twins import FilterModule
from ansible_collections.hawser.machine.plugins.plugin_utils._twins import listed, twins
from hypothesis import given
from hypothesis import strategies as st

ID = "0123456789abcdef0123456789abcdef"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIexample root@builder"


def host(vm: str = "", state: str = "connected", thumbprint: str = "", files: str = "", **more: Any) -> dict[str, Any]:
    shown = {"vmId": vm, "identityState": state, "identityCertificateThumbprint": thumbprint, **more}
    return {"agent": shown, "files": files}


def test_hosts_of_their_own_are_no_twins() -> None:
    assert twins({}) == []
    assert twins({"a": host("1", thumbprint="A"), "b": host("2", thumbprint="B"), "c": {"agent": None}}) == []


def test_what_is_shared_is_named_once_for_a_group() -> None:
    found = twins({name: host("1", thumbprint="AB" if name == "a" else "ab", files=f"{ID}\n{KEY}\n") for name in "ab"})
    assert [entry["hosts"] for entry in found] == [["a", "b"]]
    assert found[0]["shares"] == ["certificate", "machine at the hub", "machine id", "SSH host key"]
    assert found[0]["sentence"].startswith("a and b share an identity (certificate, machine at the hub, ")


def test_virtual_machines_that_were_copied_with_their_generation_id_are_named() -> None:
    line = "vmgenid " + " ".join(f"{number:02x}" for number in range(16))
    (found,) = twins(
        {"a": {"files": line}, "b": {"files": f"{ID}\n{line}\n"}, "c": {"files": line.replace("0f", "10")}}
    )
    assert (found["hosts"], found["shares"]) == (["a", "b"], ["generation id"])
    for nothing in ("vmgenid", "vmgenid " + " ".join(["00"] * 16)):
        assert twins({"a": {"files": nothing}, "b": {"files": nothing}}) == []


def test_groups_that_share_different_things_are_different_groups() -> None:
    found = twins({"a": host("1", files=ID), "b": host("1", files=ID), "c": host("2", files=f"{ID}\r\n")})
    assert [(entry["hosts"], entry["shares"]) for entry in found] == [
        (["a", "b", "c"], ["machine id"]),
        (["a", "b"], ["machine at the hub"]),
    ]


@pytest.mark.parametrize("state", ["sealed", "disconnected", "connecting"])
def test_what_is_not_connected_has_no_identity_to_share(state: str) -> None:
    assert twins({"a": host("1", state), "b": host("1", state)}) == []


@pytest.mark.parametrize("state", ["parked", "quarantined"])
def test_a_clone_is_named_though_the_original_is_not_among_the_hosts(state: str) -> None:
    (found,) = twins({"a": host("1", state, resourceName="web01")})
    assert found["sentence"] == f"a is {state}, because its identity is that of web01 at the hub"
    assert (found["hosts"], found["shares"]) == (["a"], [])


@pytest.mark.parametrize("text", ["", "uninitialized", "short", ID + "0", "no such file or directory", "# ssh-rsa"])
def test_text_that_is_no_identity_is_not_shared(text: str) -> None:
    assert twins({"a": {"files": text}, "b": {"files": text}}) == []


@given(st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["1", "2", "3", ""])))
def test_two_hosts_are_in_one_group_if_and_only_if_they_share(ids: dict[str, str]) -> None:
    found = twins({name: host(vm) for name, vm in ids.items()})
    together = {(x, y) for entry in found for x in entry["hosts"] for y in entry["hosts"] if x < y}
    assert together == {(x, y) for x in ids for y in ids if x < y and ids[x] == ids[y] != ""}


def test_lists_in_sentences() -> None:
    assert [listed(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]


@pytest.mark.parametrize("wrong", [[], "x", {"a": 1}])
def test_the_filter_refuses_what_is_no_dictionary_of_dictionaries(wrong: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="takes a dictionary"):
        FilterModule().filters()["twins"](wrong)
