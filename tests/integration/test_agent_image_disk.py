# SPDX-License-Identifier: Apache-2.0
"""A disk that is sealed from outside and copied block by block (dd): no key is in the copy, and each copy is a machine
of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.agent_process import Agent
from tests.integration.hub_process import HubProcess
from tests.waiting import until


@pytest.fixture(scope="module")
def token(hub: HubProcess) -> str:
    return hub.token(hub.principal("disk-owner", "Owner"))


@contextmanager
def mounted(disk: Path, at: Path) -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", str(disk), str(at)], check=True)
    try:
        yield at
    finally:
        # A host that boots at the same time may hold a copy of this mount for a moment, and then umount writes nothing.
        subprocess.run(["sync", "--file-system", str(at)], check=True)
        subprocess.run(["umount", str(at)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A raw disk with an ext4 file system and nothing on it."""
    path = tmp_path / "template.raw"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 48 << 20)
    # Without a journal of data: what is overwritten is overwritten in its place.
    subprocess.run(["mkfs.ext4", "-q", "-F", str(path)], check=True)
    return path


def test_a_disk_that_was_copied_block_by_block(disk: Path, hub: HubProcess, token: str, tmp_path: Path) -> None:
    with mounted(disk, tmp_path / "template") as root:
        (root / "etc").mkdir()
        agent = Agent(root)
        agent.hardware(machine_id="0123456789abcdef0123456789abcdef", dmi_uuid="4c4c4544-0042-3510-8052-b4c04f4d3233")
        agent.start()
        agent.add_cloud(hub)
        assert agent.connect(hub, token, "disk-template").returncode == 0
        until(lambda: json.loads(agent.run("show", "--json").stdout)["status"] == "Connected")
        (key,) = (agent.state / "certs").glob("*.key")
        secret = key.read_bytes().splitlines()[5]
        assert agent.run("disconnect", "--force-local-only").returncode == 0
        assert agent.stop() == 0
        # What `disconnect` leaves behind when somebody restores a key by hand, or an older agent was here.
        key.write_bytes(b"\n".join([secret] * 20))
    assert secret in disk.read_bytes()

    maker = Agent(tmp_path / "maker")
    with mounted(disk, tmp_path / "template") as root:
        assert maker.run("seal", "--root", str(root), "--check", "--agent-only").returncode == 27
        done = maker.run("seal", "--root", str(root), "--image-id", "disk-1")
        assert done.returncode == 0, done.stdout
        assert maker.run("seal", "--root", str(root), "--check", "--agent-only").returncode == 0

    copies = [tmp_path / "one.raw", tmp_path / "two.raw"]
    for copy in copies:
        subprocess.run(["dd", f"if={disk}", f"of={copy}", "bs=1M", "status=none"], check=True)
        assert secret not in copy.read_bytes()
    ids = set()
    for number, copy in enumerate(copies):
        with mounted(copy, tmp_path / f"machine{number}") as root:
            machine = Agent(root)
            machine.hardware(machine_id=f"{number}" * 32, dmi_uuid=f"4c4c4544-0042-3510-8052-00000000000{number}")
            # The hook of a first boot: an image that was sealed while it did not run has no builder to compare with.
            assert json.loads(machine.run("unseal", "--first-boot", "--json").stdout)["changed"] is True
            machine.start()
            assert machine.connect(hub, token, f"disk-copy-{number}").returncode == 0
            shown = json.loads(machine.run("show", "--json").stdout)
            assert (shown["identityState"], shown["imageId"]) == ("connected", "disk-1")
            ids.add(shown["vmId"])
            assert machine.stop() == 0
    assert len(ids) == 2
