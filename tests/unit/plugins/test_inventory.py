# SPDX-License-Identifier: Apache-2.0
"""Names of hosts, the query and the cache's key of the inventory."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.hawser.machine.plugins.plugin_utils import _errors as errors
from ansible_collections.hawser.machine.plugins.plugin_utils import _fleet as fleet
from ansible_collections.hawser.machine.plugins.plugin_utils import _inventory as inventory
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.one_of(st.sampled_from(["web01", "WEB01", "web01_a", "localhost", "-x", "a b"]), st.text(max_size=12))


def machine(name: str, group: str = "a", subscription: str = "s1") -> dict[str, Any]:
    return {
        "id": f"/{subscription}/{group}/{name}",
        "name": name,
        "resourceGroup": group,
        "subscriptionId": subscription,
    }


@pytest.mark.parametrize(
    ("machines", "names", "shared"),
    [
        ([("web01", "a"), ("web02", "a")], ["web01", "web02"], []),
        ([("web01", "a"), ("web01", "b"), ("c", "b")], ["web01_a", "web01_b", "c"], ["web01"]),
        ([("web01", "a"), ("WEB01", "B")], ["web01_a", "WEB01_b"], ["WEB01", "web01"]),
        ([("x", "a", "s1"), ("x", "a", "s2"), ("x", "b", "s1")], ["x_a_s1", "x_a_s2", "x_b"], ["x", "x_a"]),
        ([("localhost", "a")], ["localhost_a"], ["localhost"]),
        ([("web01", "a"), ("web01", "b"), ("web01_a", "c")], ["web01_a_s1", "web01_b", "web01_a_s1"], None),
        ([("web01", "a"), ("web01", "b"), ("web01_a", "c", "s2")], ["web01_a_s1", "web01_b", "web01_a_s2"],
         ["web01", "web01_a"]),
    ],
)  # fmt: skip
def test_one_name_for_one_machine(machines: list[tuple[str, ...]], names: list[str], shared: list[str] | None) -> None:
    rows = [machine(*made) for made in machines]
    wished = [row["name"] for row in rows]
    if shared is None:
        with pytest.raises(errors.OptionError, match="several machines would be the host"):
            inventory.host_names(wished, rows)
    else:
        assert inventory.host_names(wished, rows) == (names, shared)


@given(st.lists(st.tuples(NAMES, st.sampled_from("abc"), st.sampled_from(["s1", "s2"])), max_size=8), st.randoms())
def test_names_are_safe_distinct_and_do_not_depend_on_the_order(made: list[tuple[str, str, str]], source: Any) -> None:
    rows = [machine(*item) for item in made]
    try:
        names, _ = inventory.host_names([row["name"] for row in rows], rows)
    except errors.OptionError:
        return
    assert len({name.lower() for name in names}) == len(rows)
    assert all(re.fullmatch(r"[A-Za-z0-9_]?[A-Za-z0-9._-]*", name) for name in names)
    assert not {"localhost", "all", "ungrouped"} & {name.lower() for name in names}
    turned = list(zip(rows, names, strict=True))
    source.shuffle(turned)
    again, _ = inventory.host_names([row["name"] for row, _ in turned], [row for row, _ in turned])
    assert again == [name for _, name in turned]


def test_the_query_names_what_is_asked() -> None:
    asked = {"subscription_id": "s", "resource_groups": ["a", "b"], "tags": {"x": None, "env": "a=b"}, "search": "q"}
    assert fleet.query(asked) == [
        ("subscriptionId", "s"), ("resourceGroup", "a,b"), ("tag", "env=a=b"), ("tag", "x"), ("search", "q"),
        ("$top", "1000"),
    ]  # fmt: skip


@pytest.mark.parametrize("options", [{"locations": ["a,b"]}, {"locations": [" "]}, {"locations": ["x"] * 51},
                                     {"tags": {str(number): None for number in range(11)}}])  # fmt: skip
def test_a_query_that_cannot_be_asked(options: dict[str, Any]) -> None:
    with pytest.raises(errors.OptionError):
        fleet.query(options)


def test_only_a_list_of_machines_comes_from_the_cache() -> None:
    assert inventory.rows_of([{"id": "/x"}]) == [{"id": "/x"}]
    others: list[Any] = [None, {}, "x", [1], [{}], [{"id": 1}]]
    for other in others:
        assert inventory.rows_of(other) is None
