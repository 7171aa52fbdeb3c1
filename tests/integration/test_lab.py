# SPDX-License-Identifier: Apache-2.0
"""The lab itself: hosts are real and separate, can be hurt, and leave nothing behind, not even after kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import Host, HostSpec, Lab, LabError, destroy
from lab.ledger import Ledger
from tests.conftest import CACHE, ROOT, RUNS

pytestmark = pytest.mark.hosts


@pytest.fixture(scope="module")
def lab(make_lab: Callable[..., Lab]) -> Lab:
    return make_lab("one", HostSpec("two", disk_mib=48, dmi={"product_uuid": "4c4c4544-0000-1000-8000-000000000001"}))


@pytest.fixture
def one(lab: Lab) -> Host:
    return lab.hosts["one"]


def _reaches(source: Host, target: Host) -> bool:
    probe = f"exec 3<>/dev/tcp/{target.address}/22 && head -c 4 <&3"
    return source.run(["timeout", "2", "bash", "-c", probe], check=False).output == "SSH-"


def test_each_host_is_itself(lab: Lab) -> None:
    one, two = lab.hosts.values()
    for host in (one, two):
        assert host.run(["hostname"]).output.strip() == host.name
        assert host.run(["systemctl", "is-system-running"]).output.strip() == "running"
        assert host.read("/sys/class/dmi/id/sys_vendor") == b"Hawser\n"
    for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id", "/sys/class/dmi/id/product_uuid"):
        assert one.run(["cat", path]).output != two.run(["cat", path]).output, path
    assert two.read("/sys/class/dmi/id/product_uuid") == b"4c4c4544-0000-1000-8000-000000000001\n"
    assert host.run(["ls", "/sys/class/net"]).output.split() == ["host0", "lo"]


def test_hosts_do_not_share_control_groups(lab: Lab) -> None:
    for host in lab.hosts.values():
        listed = host.run(["cat", "/sys/fs/cgroup/system.slice/ssh.service/cgroup.procs"]).output.split()
        # Another host's process would be listed as 0: a number outside of this host's.
        assert listed
        assert "0" not in listed


def test_ssh_knows_the_host_and_both_users(one: Host) -> None:
    for user, uid in (("root", "0"), ("app", "1000")):
        done = subprocess.run([*one.ssh_argv(user), "id -u"], capture_output=True, text=True, check=False, timeout=20)
        assert (done.returncode, done.stdout.strip()) == (0, uid), done.stderr


def test_a_command_that_fails_says_where_and_why(one: Host) -> None:
    with pytest.raises(LabError, match=r"`ls /none` on one ended with 2: .*No such file"):
        one.run(["ls", "/none"])
    assert one.run(["sh", "-c", "cat; exit 3"], check=False, stdin="hello").code == 3
    assert one.run(["id", "-un"], user="app").output.strip() == "app"


def test_the_network_can_be_cut_and_restored(lab: Lab) -> None:
    one, two = lab.hosts.values()
    assert _reaches(one, two)
    two.cut_network()
    assert not _reaches(one, two)
    assert two.run(["hostname"]).output.strip() == "two"
    two.restore_network()
    assert _reaches(one, two)


def test_hosts_reach_nothing_but_their_bridge(one: Host) -> None:
    assert [line.split()[0] for line in one.run(["ip", "-4", "route"]).output.splitlines()] == [
        "198.18." + str(one.address).split(".")[2] + ".0/24"
    ]


def test_a_killed_service_comes_back_by_systemd(one: Host) -> None:
    before = one.run(["systemctl", "show", "--property=MainPID", "--value", "ssh"]).output
    one.kill("ssh.service", signal.SIGKILL)
    one.run(["sh", "-c", "until systemctl is-active --quiet ssh; do sleep 0.1; done"], timeout=20)
    assert one.run(["systemctl", "show", "--property=MainPID", "--value", "ssh"]).output != before


def test_a_host_boots_under_a_tight_umask(make_lab: Callable[..., Lab]) -> None:
    before = os.umask(0o077)
    try:
        made = make_lab("tight")
    finally:
        os.umask(before)
    assert made.hosts["tight"].run(["stat", "-c", "%a", "/"]).output.strip() == "755"


def test_a_full_disk_is_full(lab: Lab) -> None:
    two = lab.hosts["two"]
    two.fill_disk()
    said = two.run(["dd", "if=/dev/zero", "of=/var/more", "bs=4k", "count=1"], check=False)
    assert "No space left on device" in said.errors
    two.free_disk()
    two.run(["dd", "if=/dev/zero", "of=/var/more", "bs=4k", "count=1"])
    with pytest.raises(LabError, match="disk_mib"):
        lab.hosts["one"].fill_disk()


def _traces(name: str) -> list[str]:
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if f"hawser-{name} " in line]
    links = [path.name for path in Path("/sys/class/net").iterdir() if name in path.name]
    groups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/hawser-{name}-*")]
    return [*mounts, *links, *groups]


@pytest.mark.usefixtures("hosts_possible")
def test_nothing_is_left_after_kill_9_of_the_maker() -> None:
    name = f"k{os.getpid() % 100000}"
    directory = RUNS / name
    script = (
        "import os, signal, sys; from pathlib import Path; from lab import Lab\n"
        f"Lab(Path({str(directory)!r}), name={name!r}, hosts=['a', 'b'], cache=Path({str(CACHE)!r})).start()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert len(_traces(name)) >= 6
    recorded = [entry for entry in Ledger(directory / "ledger.jsonl").entries() if entry["kind"] == "process"]
    assert len(recorded) == 2
    destroy(directory / "ledger.jsonl")
    assert _traces(name) == []
    assert list(directory.iterdir()) == []
    directory.rmdir()


def test_a_process_that_took_over_a_recorded_number_is_spared(tmp_path: Path) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        ledger = Ledger(tmp_path / "ledger.jsonl")
        ledger.begin()
        ledger.record("process", name="gone", pid=bystander.pid, started=1)
        destroy(ledger.path)
        time.sleep(0.1)
        assert bystander.poll() is None
        assert not ledger.path.exists()
    finally:
        bystander.kill()
        bystander.wait()


def test_a_lab_of_the_same_name_is_refused_and_the_first_one_unharmed(lab: Lab, tmp_path: Path) -> None:
    twin = Lab(tmp_path, name=lab.name, hosts=["one"], cache=CACHE)
    with pytest.raises(LabError, match="exists already"):
        twin.start()
    assert _reaches(*lab.hosts.values())
    assert not twin.ledger.path.exists()
