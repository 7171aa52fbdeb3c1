# SPDX-License-Identifier: Apache-2.0
"""The service manager is told once that a service is ready (sd_notify(3))."""

from __future__ import annotations

import socket
import uuid
from pathlib import Path

import pytest

from agent_runtime.service import notify


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told_and_children_know_nothing_of_it(tmp_path: Path, abstract: bool) -> None:
    name = f"hawser-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if abstract else str(tmp_path / "notify"))
        manager.settimeout(5)
        environment = {"NOTIFY_SOCKET": f"@{name}" if abstract else str(tmp_path / "notify"), "LANG": "C"}
        assert notify.ready(environment) is True
        assert manager.recv(100) == b"READY=1"
        assert environment == {"LANG": "C"}
        assert notify.ready(environment) is False


def test_a_manager_that_is_not_there_is_no_fault(tmp_path: Path) -> None:
    assert notify.ready({"NOTIFY_SOCKET": str(tmp_path / "none")}) is False
