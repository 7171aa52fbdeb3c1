# SPDX-License-Identifier: Apache-2.0
"""gcad and extd while the disk with their own state is full, or the clock is wrong: nothing good is refused for good,
nothing is forgotten."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.service.desired_store import Store
from agent_runtime.state import atomic
from tests.unit.agent_services.courier import CHECKOUT, VM_ID, Courier, Machine, Service, sign
from tests.waiting import until


class Gcad(Service):
    """gcad as a real process on a disk that can be full, with a clock that can be ahead."""

    def __init__(self, machine: Machine) -> None:
        program = Path(__file__).with_name("full_disk.py")
        command = [sys.executable, str(program), "--root", str(machine.root)]
        self.process = subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.PIPE)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def queue(machine: Machine) -> list[str]:
    return sorted(path.name for path in (machine.folder("policy") / "queue").iterdir())


def refuse(courier: Courier) -> dict[str, Any]:
    """The next report, which himds has no room for."""
    frame = courier.receive()
    courier.send({"v": 1, "id": frame["id"], "ok": False, "error": {"code": "AZCM0002", "message": "no room"}})
    found: dict[str, Any] = frame["args"]
    return found


def test_a_good_document_waits_for_the_disk_and_is_never_refused(machine: Machine) -> None:
    full, document = machine.root / "full", sign(machine.key, generation=2)
    with Courier(machine) as courier, Gcad(machine) as gcad:
        courier.welcome()
        full.touch()
        courier.push(sign(machine.key))
        courier.push(document)
        tries = "cannot be kept, trying again: No space left on device"
        # More often than a document may fail for its own sake.
        until(lambda: machine.log("policy").count(tries) > 7, lambda: machine.log("policy"))
        assert machine.kept("policy", "policy") is None
        full.unlink()
        until(lambda: machine.kept("policy", "policy") == document, "kept, with nobody pushing it again")
        floors = json.loads((machine.folder("policy") / "floor.json").read_text())
        assert floors == {"v": 1, "floors": {VM_ID: {"policy": 2}}}
        assert queue(machine) == []
        assert gcad.stop() == 0
    assert "refused" not in machine.log("policy")


def test_a_bad_document_is_refused_on_a_full_disk_too_and_the_service_goes_on(machine: Machine) -> None:
    full = machine.root / "full"
    with Courier(machine) as courier, Gcad(machine) as gcad:
        courier.welcome()
        courier.push(sign(machine.key, generation=7))
        until(lambda: machine.kept("policy", "policy"), "kept")
        full.touch()
        courier.push(sign(machine.key, generation=6))
        assert courier.report()["data"]["desired"] == {"kind": "policy", "accepted": False, "reason": "generation"}
        full.unlink()
        document = sign(machine.key, generation=8)
        courier.push(document)
        until(lambda: machine.kept("policy", "policy") == document, "the next one is kept")
        assert gcad.stop() == 0


def test_a_document_that_expired_by_a_wrong_clock_alone_is_kept_when_the_clock_is_right(machine: Machine) -> None:
    ahead, document = machine.root / "ahead", sign(machine.key)
    ahead.touch()
    with Courier(machine) as courier, Gcad(machine) as gcad:
        courier.welcome()
        courier.push(document)
        assert courier.report()["data"]["desired"] == {"kind": "policy", "accepted": False, "reason": "expired"}
        time.sleep(1)
        assert machine.kept("policy", "policy") is None
        assert queue(machine) == ["policy.jws"]
        ahead.unlink()
        until(lambda: machine.kept("policy", "policy") == document, "kept, with nobody pushing it again")
        assert queue(machine) == []
        assert gcad.stop() == 0
    assert machine.log("policy").count("is refused") == 1


def test_what_himds_cannot_take_is_sent_again_while_it_is_the_newest(machine: Machine) -> None:
    with Courier(machine) as courier, Gcad(machine) as gcad:
        courier.welcome()
        courier.push(sign(machine.key, kind="extensions"))
        first = refuse(courier)
        assert first["data"]["desired"]["reason"] == "kind"
        asked = time.monotonic()
        assert refuse(courier) == first
        assert time.monotonic() - asked >= 0.15, "after a pause"
        courier.push(sign(machine.key, exp=1))
        newest = refuse(courier)
        while newest == first:
            newest = refuse(courier)
        assert newest["data"]["desired"]["reason"] == "expired"
        assert courier.report() == newest
        until(lambda: queue(machine) == ["policy.jws"], "himds has it")
        courier.stream.settimeout(1) if courier.stream else None
        with pytest.raises(TimeoutError):
            courier.receive()
        assert gcad.stop() == 0


def test_a_report_without_room_is_sent_by_the_next_connection(machine: Machine) -> None:
    with Courier(machine) as courier, Gcad(machine) as gcad:
        courier.welcome()
        (machine.root / "full").touch()
        courier.push(sign(machine.key, exp=1))
        assert courier.receive()["args"]["data"]["desired"]["reason"] == "expired"
        assert courier.stream
        courier.stream.close()
        courier.welcome()
        assert courier.report()["data"]["desired"]["reason"] == "expired"
        assert gcad.stop() == 0


def test_what_could_not_be_written_counts_and_older_files_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_to_write(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = Store(str(tmp_path), ["policy"])
    store.open()
    store.enqueue("policy", "one")
    store.keep_report("policy", {"number": 1})
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "_write", refuse_to_write)
        with pytest.raises(OSError, match="No space"):
            store.enqueue("policy", "two")
        with pytest.raises(OSError, match="No space"):
            store.keep_report("policy", {"number": 2})
        with pytest.raises(OSError, match="No space"):
            store.accept("A", "policy", 2, "two")
    assert store.floor("A", "policy") == 0, "a floor that is not on the disk is none yet"
    assert store.queued("policy") == "two"
    assert store.reports() == [("policy", {"number": 2})]
    store.accept("A", "policy", 2, "two")
    store.report_sent("policy", {"number": 1})
    assert store.reports() == [("policy", {"number": 2})]
    store.report_sent("policy", {"number": 2})
    again = Store(str(tmp_path), ["policy"])
    again.open()
    assert (again.floor("A", "policy"), again.kept("policy"), again.queued("policy")) == (2, "two", None)
    assert again.reports() == store.reports() == []
