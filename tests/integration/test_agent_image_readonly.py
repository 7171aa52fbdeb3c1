# SPDX-License-Identifier: Apache-2.0
"""Sealing where nothing can be written: one sentence, and no service is touched."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.agent_process import Agent


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """A machine on a file system that has been made read-only."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], check=True)
    try:
        agent = Agent(tmp_path / "machine")
        (agent.state / "certs/identity-1.key").write_text("left over")
        (agent.root / "etc").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        yield agent
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("words", [("seal", "--image-id", "web-1"), ("seal", "--image-id", "web-1", "--force")])
def test_a_read_only_root_gives_one_clear_sentence(agent: Agent, words: tuple[str, ...]) -> None:
    done = agent.run(*words)
    assert done.returncode == 69, done.stdout
    assert "read-only: nothing was changed" in done.stdout
    assert len(done.stdout.strip().splitlines()) == 2


def test_a_mounted_image_that_is_read_only_gives_the_same(
    agent: Agent, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Agent(tmp_path_factory.mktemp("host"))
    done = other.run("seal", "--image-id", "web-1", "--root", str(agent.root))
    assert done.returncode == 69, done.stdout
    assert "read-only: nothing was changed" in done.stdout


def test_apply_answers_with_it(agent: Agent) -> None:
    wish = {"schema": 1, "image": {"state": "sealed", "image_id": "web-1"}}
    done = agent.run("apply", "-", stdin=json.dumps(wish))
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["error"]["code"], answer["changed"]) == (69, "AZCM0069", False)


def test_such_an_image_can_still_be_checked(agent: Agent) -> None:
    done = agent.run("seal", "--check", "--json")
    assert done.returncode == 27
    assert "identity-1.key" in json.loads(done.stdout)["error"]["message"]
