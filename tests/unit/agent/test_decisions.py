# SPDX-License-Identifier: Apache-2.0
"""Decisions of himds over plain data: back-off, what an answer of the hub means, who may ask the local endpoint."""

from __future__ import annotations

import json
import os
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime import errors
from agent_runtime.himds import endpoint
from agent_runtime.himds.challenges import OUTSTANDING, Challenges
from agent_runtime.himds.checkin import held_state
from agent_runtime.himds.identity import agent_status
from agent_runtime.hub import backoff
from agent_runtime.hub.client import HubRefusal, as_agent_error, refusal_of, unix_of
from agent_runtime.hub.proxy import proxy_for
from agent_runtime.hub.transport import Answer
from agent_runtime.identity import evidence
from agent_runtime.platform.base import Signal
from agent_runtime.state.outbox import Outbox

VECTORS = pathlib.Path(__file__).parents[2] / "vectors"


@given(st.integers(1, 100), st.floats(0, 0.999), st.one_of(st.none(), st.floats(0, 1e9)))
def test_a_pause_is_bounded_and_obeys_the_hub(failures: int, chance: float, retry_after: float | None) -> None:
    pause = backoff.delay(failures, chance, retry_after)
    assert 0 <= pause <= backoff.RETRY_AFTER_LIMIT * 1.1
    if retry_after is None:
        assert pause <= min(backoff.LAST, 2 ** (failures - 1))
    else:
        assert pause >= min(retry_after, backoff.RETRY_AFTER_LIMIT)


@given(st.lists(st.booleans(), max_size=60))
def test_a_hold_stays_within_its_bounds_and_recovers(ends: list[bool]) -> None:
    hold, cut = backoff.HOLD_LAST, 0
    for full in ends:
        before = hold
        hold, cut = backoff.next_hold(hold, cut, full)
        assert backoff.HOLD_FIRST <= hold <= backoff.HOLD_LAST
        assert full or hold <= before
    for _ in range(6):
        hold, cut = backoff.next_hold(hold, cut, full=True)
    assert hold == backoff.HOLD_LAST


def test_one_lost_connection_does_not_shorten_the_hold() -> None:
    assert backoff.next_hold(300, 0, full=False) == (300, 1)
    assert backoff.next_hold(300, 1, full=False) == (150, 0)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "LocationNotAvailableForResourceType", "AZCM0020"),
        (409, "Conflict", "AZCM0044"),
        (409, "ScopeLocked", "AZCM0042"),
        (403, "TicketSpent", "AZCM0012"),
        (401, "InvalidAuthenticationToken", "AZCM0012"),
        (401, "ExpiredAuthenticationToken", "AZCM0012"),
        (403, "AuthorizationFailed", "AZCM0042"),
        (404, "SubscriptionNotFound", "AZCM0042"),
        (429, "TooManyRequests", "AZCM0026"),
        (503, "ServiceUnavailable", "AZCM0026"),
    ],
)
def test_an_answer_of_the_hub_has_its_documented_code(status: int, code: str, expected: str) -> None:
    body = json.dumps({"error": {"code": code, "message": "because."}}).encode()
    refusal = refusal_of(Answer(status, {"retry-after": "7"}, body))
    assert (refusal.code, refusal.message, refusal.retry_after) == (code, "because", 7)
    error = as_agent_error(refusal, errors.MachineNotCreated)
    assert error.code == expected
    assert error.remedy


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": 7}', b"\xff" * 10, b"[" * 5000])
def test_an_answer_without_an_envelope_still_has_a_sentence(body: bytes) -> None:
    assert "status 502" in refusal_of(Answer(502, {}, body)).message


@pytest.mark.parametrize(
    ("code", "event"),
    [
        ("superseded", "park"),
        ("identity_conflict", "park"),
        ("quarantined", "quarantine"),
        ("TooManyRequests", None),
        ("ResourceNotFound", None),
    ],
)
def test_only_a_verdict_takes_the_identity_out_of_use(code: str, event: str | None) -> None:
    assert held_state(HubRefusal(409, code, "")) == event


@pytest.mark.parametrize(
    ("part", "config", "environment", "expected"),
    [
        ("Arc", {}, {}, None),
        ("Arc", {"proxy.url": "http://p:1"}, {}, "http://p:1"),
        ("Arc", {"proxy.url": "http://p:1"}, {"HTTPS_PROXY": "http://q:2"}, "http://p:1"),
        ("Arc", {"proxy.url": ""}, {"HTTPS_PROXY": "http://q:2"}, "http://q:2"),
        ("Arc", {"proxy.url": "http://p:1", "proxy.bypass": ["arc"]}, {}, None),
        ("ARM", {"proxy.url": "http://p:1", "proxy.bypass": ["Arc"]}, {}, "http://p:1"),
    ],
)
def test_the_proxy_of_a_part(
    part: str, config: dict[str, object], environment: dict[str, str], expected: str | None
) -> None:
    assert proxy_for(part, config, environment, "https://hub.example.org:8443/x")[0] == expected


@pytest.mark.parametrize(
    ("listed", "url", "expected"),
    [
        ("hub.example.org", "https://hub.example.org/x", True),
        ("HUB.example.org", "https://Hub.Example.org.:8443", True),
        (".example.org", "https://hub.example.org", True),
        ("*.example.org", "https://hub.example.org", True),
        ("example.org", "https://hub.example.org", True),
        ("example.org", "https://hubexample.org", False),
        ("other, localhost hub.example.org", "https://hub.example.org", True),
        ("hub.example.org:8443", "https://hub.example.org:8443/x", True),
        ("hub.example.org:443", "https://hub.example.org", True),
        ("hub.example.org:8443", "https://hub.example.org", False),
        ("10.0.0.5", "https://10.0.0.5:8443", True),
        ("10.0.0.5:8443", "https://10.0.0.5:8443", True),
        ("10.0.0.0/8", "https://10.9.9.9", True),
        ("10.0.0.0/8", "https://11.9.9.9", False),
        ("10.0.0.0/99 0.0.0.5", "https://10.0.0.5", False),
        ("fd00::/8", "https://[fd00::1]:8443", True),
        ("[fd00::1]:8443", "https://[fd00::1]:8443", True),
        ("[fd00::1]:8443", "https://[fd00::1]", False),
        ("::1", "https://[::1]", True),
        ("*", "https://anything", True),
        ("* .", "https://anything", True),
        (". *.", "https://anything", False),
        ("", "https://anything", False),
        ("x", "https://[bad", False),
    ],
)
def test_no_proxy_names_hosts(listed: str, url: str, expected: bool) -> None:
    found, word = proxy_for("Arc", {}, {"HTTPS_PROXY": "http://q:2", "NO_PROXY": listed}, url)
    assert (found is None) == expected
    assert word == ("bypassed" if expected else "set")
    # The agent's own proxy is not the environment's.
    assert proxy_for("Arc", {"proxy.url": "http://p:1"}, {"no_proxy": listed}, url)[0] == "http://p:1"


def test_dates_of_answers() -> None:
    assert unix_of("Sun, 06 Nov 1994 08:49:37 GMT") == 784111777
    assert unix_of("Sunday, 06-Nov-94 08:49:37 GMT") is None
    assert unix_of("") is None


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        (None, True),
        ("localhost:40342", True),
        ("LOCALHOST:40342", True),
        ("127.0.0.1:40342", True),
        ("[::1]:40342", True),
        ("localhost", True),
        ("localhost:80", False),
        ("evil.example:40342", False),
        ("localhost.evil.example:40342", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
    ],
)
def test_whose_names_the_local_endpoint_answers_to(host: str | None, ours: bool) -> None:
    assert endpoint.host_is_ours(host, 40342) is ours


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=80))
def test_any_target_has_a_path_and_a_query(target: str) -> None:
    path, query = endpoint.query_of(target)
    assert path == path.lower()
    assert all(query)


def test_of_a_query_name_that_stands_twice_the_first_counts() -> None:
    assert endpoint.query_of("/a/?x=1&x=2&y=%20+")[1] == {"x": "1", "y": "  "}


@pytest.mark.parametrize(
    ("state", "age", "word"),
    [
        ("connected", 0, "Connected"),
        ("connected", 900, "Connected"),
        ("connected", 901, "Disconnected"),
        ("disconnected", 0, "Disconnected"),
        ("connecting", 0, "Disconnected"),
        ("parked", 0, "Disconnected"),
        ("quarantined", 0, "Disconnected"),
        ("expired", 0, "Expired"),
    ],
)
def test_the_documented_word_for_a_state(state: str, age: float, word: str) -> None:
    assert agent_status(state, 1000.0, 1000.0 + age) == word


def test_a_machine_that_the_hub_does_not_know_is_disconnected_at_once() -> None:
    assert agent_status("connected", 1000.0, 1000.0, "AZCM0042") == "Disconnected"
    assert agent_status("connected", 1000.0, 1000.0, "AZCM0026") == "Connected"


@pytest.mark.parametrize(
    "case", json.loads((VECTORS / "evidence.json").read_text(encoding="utf-8"))["cases"], ids=lambda case: case["name"]
)
def test_evidence_is_digested_as_the_vector_says(case: dict[str, object]) -> None:
    signals = [Signal(**signal) for signal in case["signals"]]  # type: ignore[attr-defined]
    items = evidence.vector(str(case["tenantId"]), signals)
    assert items == case["items"]
    assert evidence.digest(items) == evidence.digest(reversed(items)) == case["digest"]


def test_challenges_are_bounded_and_a_wrong_guess_spends_one(tmp_path: pathlib.Path) -> None:
    challenges = Challenges(str(tmp_path))
    paths = [challenges.new() for _ in range(OUTSTANDING + 5)]
    assert len(os.listdir(tmp_path)) == OUTSTANDING
    assert not os.path.exists(paths[0])
    secret = pathlib.Path(paths[-1]).read_text(encoding="ascii")
    assert not challenges.redeem(secret[:-1] + ("0" if secret[-1] != "0" else "1"))
    assert not challenges.redeem(secret)
    assert challenges.redeem(pathlib.Path(paths[-2]).read_text(encoding="ascii"))
    assert not any(challenges.redeem(guess) for guess in ("", "x", "é" * 100, secret[:32]))


def test_reports_wait_in_order_until_they_are_acknowledged(tmp_path: pathlib.Path) -> None:
    outbox = Outbox(str(tmp_path / "outbox"))
    first, second = outbox.put("services", {"n": 1}), outbox.put("services", {"n": 2})
    (tmp_path / "outbox" / "000000000000000-damaged.json").write_text("{")
    assert [report["id"] for report in outbox.batch()] == [first, second]
    outbox.acknowledge([first])
    assert [report["id"] for report in Outbox(str(tmp_path / "outbox")).batch()] == [second]


def test_a_report_made_after_the_clock_was_set_back_waits_behind_the_others(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = Outbox(str(tmp_path / "outbox"))
    made = []
    for at in (2_000_000_000.0, 1_900_000_000.0, 1_900_000_000.0):
        monkeypatch.setattr("agent_runtime.state.outbox.time.time", lambda at=at: at)
        made.append(outbox.put("services", {}))
    (tmp_path / "outbox" / "x-somebody's.json").write_text("{")
    made.append(outbox.put("services", {}))
    assert [report["id"] for report in outbox.batch()] == made
