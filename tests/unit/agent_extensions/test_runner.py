# SPDX-License-Identifier: Apache-2.0
"""Commands that outlive whoever began them: claimed once, picked up, under systemd and without it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.extensions import commandlog, endings, runner
from agent_runtime.extensions.runner import Command, Ended, Runner
from agent_runtime.platform import processes
from agent_runtime.service.log import Log
from agent_runtime.service.loop import Loop, sleep
from agent_runtime.state import atomic

# What systemd-run does with its arguments, as far as we rely on it.
SYSTEMD_RUN = """#!/bin/sh
echo "$@" >>{folder}/asked
{failing}
while [ "${{1#--}}" != "$1" ]; do shift; done
case "$*" in *'$'*) echo "systemd would expand this" >&2; exit 9 ;; esac
(sleep 0.2; exec setsid "$@" </dev/null >/dev/null 2>&1) &
"""


def drive(tmp_path: Path, scenario: Callable[[Runner], Awaitable[Any]], **programs: str) -> Any:
    loop = Loop(lambda *_: None)
    made = Runner(loop, str(tmp_path / "running"), str(tmp_path / "memory"), Log(str(tmp_path / "log")), **programs)
    os.makedirs(tmp_path / "running", exist_ok=True)

    async def act() -> Any:
        try:
            return await scenario(made)
        finally:
            loop.stop()

    task = loop.spawn(act(), "scenario")
    loop.run()
    if task.error:
        raise task.error
    return task.result


def command(tmp_path: Path, text: str, seconds: float = 20, **environment: str) -> Command:
    return Command("Test.Fake", text, str(tmp_path), environment, seconds)


def program(tmp_path: Path, name: str, text: str) -> str:
    path = tmp_path / name
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def holders(folder: Path, text: bytes) -> list[str]:
    """Files below a folder that hold a text."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path.relative_to(folder)) for path in found if text in path.read_bytes()]


def test_a_command_runs_once_whatever_is_asked_twice(tmp_path: Path) -> None:
    async def scenario(made: Runner) -> list[Ended]:
        one = command(tmp_path, f"echo x >>{tmp_path}/ran; echo out; echo err >&2; exit 3", A='it\'s a "$b"')
        return [await made.run("a", one), await made.run("a", one)]

    first, second = drive(tmp_path, scenario)
    assert (first.code, first.out, first.err) == (3, "out\n", "err\n")
    assert second.code == 3
    assert (tmp_path / "ran").read_text() == "x\n"
    assert not list((tmp_path / "memory").iterdir()), "what may be secret is gone before the command begins"


@pytest.mark.parametrize("more", [-1, 0, 1, 1 << 20])
def test_of_very_much_output_beginning_and_end_are_kept(tmp_path: Path, more: int) -> None:
    """No blank in it: a word without end is kept as well."""
    size = runner.OUTPUT_LIMIT + more

    async def scenario(made: Runner) -> Ended:
        return await made.run("a", command(tmp_path, f"head -c {size - 8} /dev/zero | tr '\\0' x; printf ' the end'"))

    ended = drive(tmp_path, scenario)
    assert ended.out.endswith("x the end")
    if more <= 0:
        assert len(ended.out) == size
        return
    head, left, tail = ended.out.split("\n")
    assert left == f"[{size - len(head) - len(tail)} bytes left out]"
    assert (len(head), len(tail)) == (runner.OUTPUT_LIMIT // 2, runner.OUTPUT_LIMIT // 2)
    assert ended.err == ""


def test_values_reach_the_command_as_they_are(tmp_path: Path) -> None:
    value = "a 'b' \"c\" $d `e` \\f\ng"

    async def scenario(made: Runner) -> Ended:
        return await made.run("a", command(tmp_path, 'printf %s "$VALUE"', VALUE=value))

    assert drive(tmp_path, scenario).out == value


def test_a_run_that_nobody_claimed_is_begun_and_a_late_wrapper_does_nothing(tmp_path: Path) -> None:
    """The service was killed between writing down the run and starting its wrapper, which comes too late."""
    folder = tmp_path / "running/a"
    folder.mkdir(parents=True)
    (folder / "command.json").write_text(json.dumps({"started": 1.0, "boot": "another"}))
    (tmp_path / "late").write_text(f"echo late >>{tmp_path}/ran")
    late = f"run={folder} given={tmp_path}/late folder={tmp_path}\n{runner.WRAPPER}"

    async def scenario(made: Runner) -> Ended:
        assert made.started("a") is None
        assert subprocess.run(["/bin/sh", "-c", late], check=False).returncode == 0  # noqa: ASYNC221
        return await made.run("a", command(tmp_path, f"echo well >>{tmp_path}/ran"))

    assert drive(tmp_path, scenario).code == 0
    assert (tmp_path / "ran").read_text() == "well\n"


def test_what_a_command_is_given_is_in_memory_alone_and_not_for_long(tmp_path: Path) -> None:
    """Killed before the wrapper has taken it: neither the journal of the disk nor the next start may keep a secret."""
    idle = program(tmp_path, "systemd-run", "#!/bin/sh\n")
    folders = (str(tmp_path / "running"), str(tmp_path / "memory"))
    loop = Loop(lambda *_: None)
    made = Runner(loop, *folders, Log(str(tmp_path / "log")), systemd_run=idle)
    task = loop.spawn(made.begin("a", command(tmp_path, "echo s3cret-text", SECRET="s3cret")), "begin")

    async def look() -> list[str]:
        while not (tmp_path / "running/a/command.json").exists():
            await sleep(0.01)
        holding = holders(tmp_path, b"s3cret")
        task.cancel()
        made.forget_others()
        loop.stop()
        return holding

    looking = loop.spawn(look(), "look")
    loop.run()
    assert looking.result == ["memory/a"]
    assert not list((tmp_path / "memory").iterdir())


def test_a_run_of_an_earlier_boot_is_begun_again(tmp_path: Path) -> None:
    folder = tmp_path / "running/a"
    folder.mkdir(parents=True)
    (folder / "command.json").write_text(json.dumps({"started": 1.0, "boot": "another"}))
    (folder / "pid").write_text("1 1")

    async def scenario(made: Runner) -> Ended:
        return await made.run("a", command(tmp_path, "exit 5"))

    assert drive(tmp_path, scenario).code == 5


def test_a_wrapper_that_was_killed_is_a_killed_command(tmp_path: Path) -> None:
    async def scenario(made: Runner) -> Ended:
        return await made.run("a", command(tmp_path, "kill -9 $PPID; sleep 5"))

    assert drive(tmp_path, scenario).code == runner.KILLED_CODE


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.parametrize("code", [0, 3])
def test_a_command_that_fills_the_disk_ends_as_it_says(small_disk: Path, code: int) -> None:
    async def scenario(made: Runner) -> Ended:
        filling = f"dd if=/dev/zero of={small_disk}/all bs=4096 2>/dev/null; exit {code}"
        ended = await made.run("a", command(small_disk, filling))
        with pytest.raises(OSError, match="No space left"):
            atomic.write_bytes(f"{small_disk}/more", b"x")
        return ended

    assert drive(small_disk, scenario).code == code


def test_a_command_whose_end_could_not_be_written_has_ended(tmp_path: Path) -> None:
    async def scenario(made: Runner) -> list[Ended]:
        first = await made.run("a", command(tmp_path, "exit 4"))
        (tmp_path / "running/a/exit").write_bytes(b"")
        return [first, await made.run("a", command(tmp_path, "exit 5"))]

    first, again = drive(tmp_path, scenario)
    assert (first.code, again.code) == (4, runner.LOST_CODE)
    told = endings.sentence("install", "Test.Fake 1", "/", "", again, 1.0)
    assert "has ended, but its exit code could not be written" in told
    assert "exit code not known" in commandlog.entry(0.0, "install", {}, again)


def test_where_the_kernel_has_no_pidfd_a_timer_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "handle_of", lambda _: None)
    monkeypatch.setattr(runner, "LOOK_PAUSE", 0.1)

    async def scenario(made: Runner) -> Ended:
        return await made.run("a", command(tmp_path, "sleep 0.3; exit 4"))

    assert drive(tmp_path, scenario).code == 4


@pytest.mark.parametrize("failing", ["", "exit 1"], ids=["runs", "refuses"])
def test_under_systemd_a_command_is_a_service_and_without_its_help_a_session(tmp_path: Path, failing: str) -> None:
    fake = program(tmp_path, "systemd-run", SYSTEMD_RUN.format(folder=tmp_path, failing=failing))
    control = program(tmp_path, "systemctl", f'#!/bin/sh\necho "$@" >>{tmp_path}/controlled\nexit 1\n')

    async def scenario(made: Runner) -> Ended:
        await made.limit([["set-property", "--runtime", "x.slice", "CPUQuota=30%"]])
        return await made.run("a1", command(tmp_path, 'ps -o ppid= -p "$PPID"; exit 6', SECRET="s3cret"))

    ended = drive(tmp_path, scenario, systemd_run=fake, systemctl=control)
    assert ended.code == 6
    # The wrapper is a child of ours only where systemd has refused.
    assert (ended.out.strip() == str(os.getpid())) is bool(failing)
    asked = (tmp_path / "asked").read_text()
    assert "--unit=hawser-extension-a1.service --slice=hawser-extensions-Test.Fake.slice" in asked
    assert "s3cret" not in asked
    assert "x.slice CPUQuota=30%" in (tmp_path / "controlled").read_text()
    log = (tmp_path / "log").read_text()
    assert "going on without this limit" in log
    assert ("running it plainly" in log) is bool(failing)


@pytest.mark.parametrize("leap", [86400.0, -86400.0])
def test_a_clock_that_is_set_gives_a_command_neither_more_time_nor_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leap: float
) -> None:
    """The service was started again in between."""
    now, since = time.time, processes.boot_seconds

    async def begun(made: Runner) -> None:
        await made.begin("a", command(tmp_path, "sleep 0.5; exit 3"))
        await made.begin("b", command(tmp_path, "exec sleep 60"))

    async def ended(made: Runner) -> list[Ended]:
        found = [await made.run("a", command(tmp_path, "exit 9"))]
        monkeypatch.setattr(processes, "boot_seconds", lambda: since() + 19.5)
        return [*found, await made.run("b", command(tmp_path, "exit 9"))]

    drive(tmp_path, begun)
    monkeypatch.setattr(time, "time", lambda: now() + leap)
    first, second = drive(tmp_path, ended)
    assert (first.code, second.code) == (3, None)
    assert first.seconds < 20 <= second.seconds


def test_at_its_limit_the_unit_is_killed(tmp_path: Path) -> None:
    fake = program(tmp_path, "systemd-run", SYSTEMD_RUN.format(folder=tmp_path, failing=""))
    control = program(tmp_path, "systemctl", f'#!/bin/sh\necho "$@" >>{tmp_path}/controlled\n')

    async def scenario(made: Runner) -> Ended:
        ended = await made.run("a", command(tmp_path, f"sleep 60 & echo $! >{tmp_path}/child; wait", seconds=0.5))
        await sleep(0.1)
        return ended

    assert drive(tmp_path, scenario, systemd_run=fake, systemctl=control).code is None
    assert "kill --signal=SIGKILL hawser-extension-a.service" in (tmp_path / "controlled").read_text()
    assert not processes.is_there(int((tmp_path / "child").read_text()))
