# SPDX-License-Identifier: Apache-2.0
"""When a crowd of connections has gone, and is told once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from control_plane.connections import CROWD, Tide


def test_a_crowd_that_leaves_is_noticed_once() -> None:
    tide = Tide()
    for count in range(1, 4 * CROWD + 1):
        tide.rise(count)
    ebbs = [count for count in range(4 * CROWD - 1, -1, -1) if tide.ebbed(count)]
    assert ebbs[0] == CROWD  # three quarters have gone
    assert ebbs[1:] == [CROWD // 4]  # and so has the rest


def test_a_second_crowd_is_noticed_again() -> None:
    tide = Tide()
    for _ in range(3):
        tide.rise(2 * CROWD)
        assert tide.ebbed(0)
        assert not tide.ebbed(0)


@given(st.lists(st.integers(0, CROWD - 1)))
def test_few_connections_are_no_crowd(counts: list[int]) -> None:
    tide = Tide()
    for count in counts:
        tide.rise(count)
        assert not tide.ebbed(count // 8)
