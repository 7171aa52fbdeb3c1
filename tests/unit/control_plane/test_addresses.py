# SPDX-License-Identifier: Apache-2.0
"""Under which address a caller is counted, and whose word about it is believed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from control_plane.addresses import as_sockets_show, counted, within


@pytest.mark.parametrize(
    ("peer", "shown"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("::1", "::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unknown", "unknown"),
    ],
)
def test_a_site_is_counted_as_one(peer: str, shown: str) -> None:
    assert counted(peer) == shown


@given(st.text(max_size=60))
def test_no_text_breaks_the_count(peer: str) -> None:
    counted(peer)
    assert not within(peer, [])


def test_within() -> None:
    assert within("::ffff:10.1.2.3", ["10.0.0.0/8"])
    assert within("10.1.2.3", ["10.1.2.3"])
    assert not within("11.1.2.3", ["10.0.0.0/8", "2001:db8::/32"])
    assert not within("unknown", ["0.0.0.0/0"])


@pytest.mark.parametrize(
    ("peer", "told", "caller"),
    [
        ("192.0.2.10", "203.0.113.5", "203.0.113.5"),
        ("::ffff:192.0.2.10", "203.0.113.5", "203.0.113.5"),
        ("192.0.2.10", "127.0.0.1, 203.0.113.5", "203.0.113.5"),  # what the caller says of himself is not believed
        ("192.0.2.10", "203.0.113.5, 192.0.2.11", "203.0.113.5"),  # two balancers, one behind the other
        ("198.51.100.1", "203.0.113.5", "198.51.100.1"),  # nobody's balancer
        ("192.0.2.10", None, "192.0.2.10"),
    ],
)
def test_the_nearest_hop_that_is_no_balancer_is_the_caller(peer: str, told: str | None, caller: str) -> None:
    seen: list[str] = []

    async def application(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope["client"][0])

    wrapped = ProxyHeadersMiddleware(application, as_sockets_show(["192.0.2.10", "192.0.2.11/31"]))
    headers = [] if told is None else [(b"x-forwarded-for", told.encode())]
    scope: Any = {"type": "http", "client": (peer, 1), "headers": headers, "scheme": "https"}
    asyncio.run(wrapped(scope, None, None))  # type: ignore[arg-type]
    assert seen == [caller]
