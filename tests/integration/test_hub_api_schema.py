# SPDX-License-Identifier: Apache-2.0
"""Schemathesis reads the hub's own OpenAPI document and asks what it says may be asked, and what it says may not: no
answer may be a failure of the hub, or another than the document describes, whoever asks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from control_plane.api.router import OPERATIONS, Operation
from tests.integration.fleet_rows import filled
from tests.integration.hub_process import HubProcess

EXAMPLES = 20
FEWER = 5  # who is refused is refused before most of what could be wrong is looked at
# The stream does not end by itself; test_hub_api_events.py reads it.
ASKED = [operation for operation in OPERATIONS if operation.media == "application/json"]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    made, _rows = filled(tmp_path_factory.mktemp("hub") / "data", 30)
    yield made
    assert made.stop() == 0


@pytest.fixture(scope="module")
def callers(hub: HubProcess) -> dict[str, dict[str, str]]:
    """Headers of those who ask."""
    tokens = {role: hub.token(hub.principal(f"schema-{role}", role)) for role in ("Owner", "Reader")}
    return {role: {"Authorization": f"Bearer {token}"} for role, token in tokens.items()} | {"nobody": {}}


@pytest.fixture(scope="module")
def api(hub: HubProcess) -> Any:
    answer = hub.session().get(f"{hub.url}/hawser/v1/openapi.json", timeout=30)
    assert answer.status_code == 200
    return schemathesis.openapi.from_dict(answer.json())


@pytest.mark.parametrize("caller", ["Owner", "Reader", "nobody"])
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
@pytest.mark.parametrize("operation", ASKED, ids=lambda operation: f"{operation.method} {operation.path}")
def test_answers_are_what_the_document_says(
    operation: Operation,
    mode: GenerationMode,
    caller: str,
    api: Any,
    hub: HubProcess,
    callers: dict[str, dict[str, str]],
) -> None:
    session = requests.Session()
    session.trust_env = False

    @given(case=api[operation.path][operation.method].as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES if caller == "Owner" else FEWER,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        headers = callers[caller]
        answer = case.call(f"{hub.url}/hawser/v1", session=session, headers=headers, verify=hub.ca_file, timeout=30)
        if mode is GenerationMode.POSITIVE:  # what is wrong may be the token
            assert (answer.status_code == 401) == (caller == "nobody" and not operation.open)
        case.validate_response(answer, checks=CHECKS)

    try:
        ask()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE  # there is nothing that could be wrong in the request


# What no schema can say: a page's token cannot be made up, and a password may be too easy to guess.
RULES = """
[[operations]]
include-name = "{operation.method} {operation.path}"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409", "429"]
"""


def test_the_program_finds_nothing(hub: HubProcess, callers: dict[str, dict[str, str]], tmp_path: Path) -> None:
    """As docs/api.md says it, with every check that is on by itself."""
    operations = [item for item in OPERATIONS if "$skiptoken" in item.query or item.body == "user-put"]
    (tmp_path / "rules.toml").write_text("".join(RULES.format(operation=item) for item in operations))
    words = [str(Path(sys.executable).with_name("st")), "--config-file", "rules.toml", "run"]
    words += [f"{hub.url}/hawser/v1/openapi.json", "--tls-verify", hub.ca_file, "--no-color"]
    words += ["-H", f"Authorization: {callers['Owner']['Authorization']}", "--exclude-path", "/events/stream"]
    words += ["--exclude-name", "DELETE /roleAssignments/{name}"]  # it would take away its own
    words += ["--max-examples", "10", "--seed", "1"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert f"Tested: {len(ASKED) - 2}" in done.stdout  # nor does it ask for the document that it has read
