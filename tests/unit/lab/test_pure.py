# SPDX-License-Identifier: Apache-2.0
"""Decisions of the lab, over plain data."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import LabError, cgroup, fleet, kernel, ledger, network, process

KINDS = ("process", "cgroup", "unit", "interface", "mount", "kernel", "file", "tree", "maker")
NET = ipaddress.IPv4Network


@pytest.mark.parametrize("command", ["sh", "a b", "x) y (z", "((", ")"])
def test_start_time_survives_any_command_name(command: str) -> None:
    stat = f"42 ({command}) S 1 42 42 0 -1 4194560 {' '.join(str(n) for n in range(10, 22))} 777 0 0"
    assert process.parse_state(stat) == "S"
    assert process.parse_start_time(stat) == 777  # the fields before it are 1 to 21


def test_start_time_of_this_process_is_what_the_kernel_says() -> None:
    import os

    started = process.start_time(os.getpid())
    assert started is not None
    assert process.alive(os.getpid(), started)
    assert not process.alive(os.getpid(), started + 1)


entries = st.lists(st.fixed_dictionaries({"kind": st.sampled_from(KINDS), "path": st.integers().map(str)}), max_size=20)


@given(entries)
def test_processes_go_first_and_the_rest_newest_first(made: list[dict[str, str]]) -> None:
    order = ledger.removal_order(made)
    assert sorted(map(json.dumps, order)) == sorted(map(json.dumps, made))
    rank = {
        "cgroup": 0,
        "unit": 0,
        "process": 1,
        "interface": 2,
        "mount": 3,
        "kernel": 4,
        "file": 5,
        "tree": 5,
        "maker": 6,
    }
    assert [rank[str(entry["kind"])] for entry in order] == sorted(rank[entry["kind"]] for entry in made)
    mounts = [entry for entry in made if entry["kind"] == "mount"]
    assert [entry for entry in order if entry["kind"] == "mount"] == mounts[::-1]


@given(entries, st.integers(min_value=0, max_value=60))
def test_a_torn_last_line_is_left_out(made: list[dict[str, str]], cut: int) -> None:
    lines = b"".join(json.dumps(entry).encode() + b"\n" for entry in made)
    torn = json.dumps({"kind": "mount", "path": "/never/made"}).encode()[:cut]
    assert ledger.parse(lines + torn) == made


@pytest.mark.parametrize(
    ("wanted", "routes", "clash"),
    [
        ("198.18.0.0/24", [], None),
        ("198.18.0.0/24", ["default", "10.0.0.0/8"], None),
        ("198.18.0.0/24", ["198.18.0.128/25"], "198.18.0.128/25"),
        ("198.18.0.0/24", ["198.18.0.7"], "198.18.0.7"),
        ("198.18.1.0/24", ["198.18.0.0/15"], "198.18.0.0/15"),
    ],
)
def test_overlapping(wanted: str, routes: list[str], clash: str | None) -> None:
    assert network.overlapping(NET(wanted), routes) == clash


def test_first_free_goes_round_what_is_used_and_says_when_nothing_is_left() -> None:
    assert network.first_free(["198.18.0.0/24", "198.18.1.0/24"]) == NET("198.18.2.0/24")
    with pytest.raises(LabError, match=r"in use.*Stop other labs"):
        network.first_free(["198.18.0.0/15"])


def test_interfaces_fit_the_kernels_fifteen_characters() -> None:
    assert len(network.bridge_name("a" * 8)) == 15
    assert len(network.host_interface("a" * 8 + "-200")) == 15


@pytest.mark.parametrize(
    ("lab", "hosts"), [("Demo", ["a"]), ("toolongname", ["a"]), ("ok", ["A"]), ("ok", ["a", "a"]), ("ok", ["-a"])]
)
def test_names_that_cannot_be_are_refused(lab: str, hosts: list[str]) -> None:
    with pytest.raises(LabError):
        fleet.check_names(lab, hosts)


def test_kernel_settings_are_raised_only_where_too_low() -> None:
    enough = dict(kernel.RAISED)
    assert kernel.needed(enough) == {}
    low = {**enough, "kernel.keys.maxkeys": 200}
    assert kernel.needed(low) == {"kernel.keys.maxkeys": kernel.RAISED["kernel.keys.maxkeys"]}


HYBRID = """\
29 1 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
30 29 0:27 / /sys/fs/cgroup/systemd rw shared:9 - cgroup cgroup rw,xattr,name=systemd
31 29 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
32 29 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
"""


def test_hierarchies_are_found_in_either_form() -> None:
    assert cgroup.parse_mounts(HYBRID) == cgroup.Hierarchies(
        unified=Path("/sys/fs/cgroup/unified"), named=Path("/sys/fs/cgroup/systemd")
    )
    pure = "29 1 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n"
    assert cgroup.parse_mounts(pure) == cgroup.Hierarchies(unified=Path("/sys/fs/cgroup"), named=None)
