# SPDX-License-Identifier: Apache-2.0
"""The residents' HTTP: compared with h11 on what both take, and fuzzed for what nobody may send."""

from __future__ import annotations

import contextlib

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent_runtime.service import http

TOKENS = st.text(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_!#$%&'*+.^`|~", min_size=1, max_size=12
)
VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)
TARGETS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)


def with_h11(data: bytes) -> h11.Request | None:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    event = connection.next_event()
    return event if isinstance(event, h11.Request) else None


@given(
    TOKENS, TARGETS, st.dictionaries(TOKENS.filter(lambda name: name.lower() not in http._SINGLE), VALUES, max_size=5)
)
def test_a_request_means_what_h11_takes_it_for(method: str, target: str, fields: dict[str, str]) -> None:
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in fields.items())]
    data = "\r\n".join([*lines, "", ""]).encode("ascii")
    theirs = with_h11(data)
    assert theirs is not None
    ours = http.parse_request(data)
    assert ours is not None
    assert (ours.method.encode(), ours.target.encode()) == (theirs.method, theirs.target)
    merged: dict[str, str] = {}
    for name, value in theirs.headers:
        key, text = name.decode(), value.decode()
        merged[key] = f"{merged[key]}, {text}" if key in merged else text
    assert ours.headers == merged


@settings(max_examples=500)
@given(st.binary(max_size=300))
@example(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n")
@example(b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n")
@example(b"GET / HTTP/1.1\nHost: a\n\n")
def test_bytes_give_a_request_a_wait_or_one_kind_of_error(data: bytes) -> None:
    with contextlib.suppress(http.HttpError):
        request = http.parse_request(data)
        assert request is None or (request.method and request.target)


@given(st.binary(max_size=200), st.lists(st.integers(1, 40), max_size=20))
def test_a_body_does_not_depend_on_how_it_was_cut(body: bytes, cuts: list[int]) -> None:
    chunks = [body[at : at + 7] for at in range(0, len(body), 7)]
    wire = b"".join(b"%x;ext=1\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\nTrailer: x\r\n\r\n"
    reader = http.BodyReader(http.Response(200, {"transfer-encoding": "chunked"}))
    out, at = b"", 0
    for cut in [*cuts, len(wire)]:
        piece = wire[at : at + cut]
        if piece and not reader.done:
            out += reader.feed(piece)
        at += cut
    assert reader.done
    assert out == body


@settings(max_examples=300)
@given(st.binary(max_size=100))
def test_chunks_of_noise_are_refused_or_waited_for(data: bytes) -> None:
    reader = http.BodyReader(http.Response(200, {"transfer-encoding": "chunked"}))
    with contextlib.suppress(http.HttpError):
        reader.feed(data)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/2\r\nHost: a\r\n\r\n",
        b"GET /\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: x\r\nAuthorization: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nMetadata: false\r\nMetadata: true\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 70 + b"\r\n",
        b"GET /" + b"a" * 20000,
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(data: bytes) -> None:
    with pytest.raises(http.HttpError):
        http.parse_request(data)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"transfer-encoding": "chunked", "content-length": "3"}, b"abc"),
        ({"transfer-encoding": "gzip"}, b"abc"),
        ({"content-length": "-1"}, b""),
        ({"content-length": "2"}, b"abc"),
        ({"content-length": "1e3"}, b""),
        ({"transfer-encoding": "chunked"}, b"zz\r\n"),
        ({"transfer-encoding": "chunked"}, b"2\r\nabcd"),
        ({"transfer-encoding": "chunked"}, b"0\r\n\r\nmore"),
    ],
)
def test_an_ambiguous_length_is_refused(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(http.HttpError):
        http.BodyReader(http.Response(200, headers)).feed(body)


def test_an_answer_that_was_cut_off_is_noticed() -> None:
    reader = http.BodyReader(http.Response(200, {"content-length": "5"}))
    reader.feed(b"abc")
    with pytest.raises(http.HttpError):
        reader.end()


def test_a_header_value_cannot_break_out_of_its_line() -> None:
    with pytest.raises(ValueError, match="line break"):
        http.request_bytes("GET", "/", "h", {"A": "b\r\nC: d"}, b"")
