# SPDX-License-Identifier: Apache-2.0
"""The inventory and a hub that is busy, refuses, breaks off or lies: the whole list or none, and one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.collection_controller import Controller
from tests.integration.collection_fake_hub import Answer, FakeHub, fake_hub

BUSY = Answer(429, {"error": {"code": "TooManyRequests", "message": "Later."}}, {"Retry-After": "0"})


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[FakeHub, Controller]]:
    with fake_hub(tmp_path) as (made, variables):
        yield made, Controller(tmp_path, variables)


def page(*names: str, more: str | None = None, **members: Any) -> Answer:
    rows = [
        {"id": f"/subscriptions/s/resourceGroups/g/providers/Microsoft.HybridCompute/machines/{name}", "name": name,
         "resourceGroup": "g", "subscriptionId": "s", "tags": {}, "osType": "linux", **members}
        for name in names
    ]  # fmt: skip
    return Answer(200, {"value": rows, "nextLink": more and "{url}" + more})


def names(controller: Controller, **options: Any) -> set[str]:
    return set(controller.listed(**options)["_meta"]["hostvars"])


def test_busy_in_the_midst_of_the_pages_is_waited_for(hub: tuple[FakeHub, Controller]) -> None:
    made, controller = hub
    made.answers = [BUSY, page("a", "b", more="/two"), BUSY, Answer(503, {}), page("c")]
    assert names(controller) == {"a", "b", "c"}
    assert made.asked[-1] == "/two"


def test_busy_for_ever_fails_after_some_tries(hub: tuple[FakeHub, Controller]) -> None:
    made, controller = hub
    made.answers = [page("a", more="/two"), BUSY]
    said = controller.fails()
    assert "AZCM0026" in said
    assert "TooManyRequests: Later" in said
    assert len(made.asked) == 1 + 6


def test_a_long_wait_is_said(hub: tuple[FakeHub, Controller]) -> None:
    made, controller = hub
    made.answers = [Answer(429, {}, {"Retry-After": "1800"})]
    assert "Try again in 1800 seconds" in controller.fails()
    assert len(made.asked) == 1


def test_half_a_page_is_no_page(hub: tuple[FakeHub, Controller]) -> None:
    made, controller = hub
    made.answers = [page("a", more="/two"), Answer(200, {"value": [], "nextLink": None}, cut=True)]
    assert "the answer broke off" in controller.fails()
    made.answers = [page("a", more="/two"), Answer(200, {"value": [{"id": "/x"}]}, cut=True), page("b")]
    assert names(controller) == {"a", "b"}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(403, {"error": {"code": "AuthorizationFailed", "message": "No role."}}), "AZCM0042"),
        (Answer(401, {"error": {"code": "InvalidAuthenticationToken", "message": "No."}}), "AZCM0041"),
        (Answer(200, {"value": "x"}), "without a list"),
        (Answer(200, {"value": [{"name": "b"}]}), "no resource"),
        (Answer(200, {"value": [], "nextLink": "https://elsewhere.example/x"}), "goes on at"),
        (Answer(200, {"value": [], "nextLink": "{url}/two"}), "goes on at"),
    ],
    ids=["forbidden", "token", "no list", "no resource", "elsewhere", "circle"],
)
def test_a_page_that_fails_fails_the_list(hub: tuple[FakeHub, Controller], answer: Answer, words: str) -> None:
    made, controller = hub
    made.answers = [page("a", more="/two"), answer]
    said = controller.fails()
    assert words in said
    assert "hush-hush" not in said
    # Who goes on without the source gets none of its hosts.
    done = controller.run(
        "ansible-inventory", "-i", controller.source(), "--graph", ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED="false"
    )
    assert "--a" not in done.stdout


def test_what_ends_at_ssh_is_an_address(hub: tuple[FakeHub, Controller]) -> None:
    made, controller = hub
    made.answers = [page("a", address="-oProxyCommand=touch${IFS}x", addresses=["-x", "fe80::1%x", 7, "10.0.0.9"])]
    host = controller.listed()["_meta"]["hostvars"]["a"]
    assert host["ansible_host"] == "10.0.0.9"
    assert host["hawser_machine"]["addresses"] == ["10.0.0.9"]


def test_a_machine_on_two_pages_is_one_host(hub: tuple[FakeHub, Controller]) -> None:
    made, controller = hub
    made.answers = [page("a", more="/two", location="x"), page("a", "b", location="y", support={"state": "ageing"})]
    listed = controller.listed()["_meta"]["hostvars"]
    assert {name: host["hawser_machine"]["location"] for name, host in listed.items()} == {"a": "y", "b": "y"}
    assert listed["a"]["hawser_machine"]["support"] == {"state": "ageing"}
