# SPDX-License-Identifier: Apache-2.0
"""Lane kills: 500 times kill -9 of the agent's real processes at a random moment of a step, against a real hub.
Afterwards the machine boots, and is one machine: never two, never none."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration import hub_process
from tests.integration.agent_process import ENVIRONMENT, Agent
from tests.integration.hub_process import REPOSITORY, HubProcess
from tests.integration.test_agent_image_specialise import BUILDER, copied, shown
from tests.integration.test_himds import ARM

pytestmark = [pytest.mark.lane("kills"), pytest.mark.timeout(3600)]
KILLS = 100
# The unit azcmagent-specialise tries again every 30 s; nobody waits for it here.
ATTEMPTS = 6
WEB = "web"


class Site:
    """A hub, and folders for machines. `ends`: how each step's machines came to rest."""

    def __init__(self, hub: HubProcess, work: Path) -> None:
        self.hub, self.work, self.ends = hub, work, Counter[str]()
        self.owner = hub.principal("owner", "Owner")
        hub.run("profiles", "set", WEB, "--subscription", hub.subscription_id, "-g", "fleet", "--location", "local")
        hub.run("profiles", "set", "default", "--clones", "adopt")
        self.secret = hub.json("profiles", "token", WEB, "--uses", "1000", "--days", "1")["token"]

    def connected(self, name: str) -> Agent:
        """A machine that is connected; himds stands still."""
        agent = Agent(self.work / name)
        agent.hardware(**{**BUILDER, "dmi_uuid": str(uuid.uuid4())})
        agent.start()
        agent.add_cloud(self.hub)
        done = agent.connect(self.hub, self.hub.token(self.owner), name)
        assert done.returncode == 0, done.stdout
        assert agent.stop() == 0
        return agent

    def sealed(self, name: str) -> Agent:
        """An image whose copies join by themselves."""
        agent = Agent(self.work / name)
        agent.hardware(**BUILDER)
        agent.start()
        agent.add_cloud(self.hub)
        assert agent.stop() == 0
        words = ("seal", "--image-id", "web-1", "--enroll-on-first-boot", WEB, "--token-file", "-")
        assert agent.run(*words, stdin=self.secret).returncode == 0
        return agent

    def copy(self, agent: Agent, name: str) -> Agent:
        """Its disk on hardware of its own."""
        made = copied(agent, self.work / name)
        made.hardware(**{**BUILDER, "dmi_uuid": str(uuid.uuid4())})
        return made

    def machines(self) -> dict[str, tuple[str, str]]:
        """Enrolled machines: vmId to name and status."""
        enrolled = {row[0] for row in self.hub.rows("SELECT vm_id FROM machines WHERE enrolled IS NOT NULL")}
        listed = self.hub.json("machines")
        return {item["vmId"]: (item["name"], item["status"]) for item in listed if item["vmId"] in enrolled}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    work = tmp_path_factory.mktemp("kills")
    hub = hub_process.make(work / "hub", "--location", "local=Laboratory").start()
    try:
        yield Site(hub, work)
    finally:
        hub.stop()


def killed(agent: Agent, words: tuple[str, ...], seconds: float) -> None:
    """Begin a command, and kill it after so many seconds: it, himds, or both."""
    process = subprocess.Popen(
        agent.argv(*words),
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(seconds)
    which = random.choice(("command", "himds", "both")) if agent.himds is not None else "command"
    if which != "himds":
        process.kill()
    if which != "command":
        agent.stop(signal.SIGKILL)
    process.wait(120)
    if agent.himds is not None:
        agent.stop(signal.SIGKILL)


def lasting(work: Callable[[], Any]) -> float:
    """Seconds that it takes when nobody is killed."""
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def moment(whole: float) -> float:
    """A random moment of a step that takes so long; what is before is the start of the interpreter."""
    return whole * random.uniform(0.3, 1.05)


def boot(agent: Agent) -> dict[str, Any]:
    """What the units do at a boot; `show` when the machine has come to rest."""
    done = agent.run("unseal", "--if-copied", "--json")
    assert done.returncode == 0, done.stdout
    agent.start()
    for _ in range(ATTEMPTS):
        done = agent.run("specialise", "--json")
        found = shown(agent)
        if found["identityState"] == "sealed" or (done.returncode == 0 and found["status"] == "Connected"):
            break
        time.sleep(1)
    return found


def check_connected(site: Site, agent: Agent, found: dict[str, Any], *, waits: bool = False) -> None:
    """One identity, that works, and that root's services and the hub know as this machine. `waits`: for the certificate
    of its next key, which may be there."""
    assert (found["identityState"], found["status"]) == ("connected", "Connected"), (found, agent.log)
    assert agent.token(ARM).status_code == 200
    record = json.loads((agent.state / "state/identity.json").read_text())
    bound = json.loads((agent.state / "binding.json").read_text())
    assert bound["vmId"] == found["vmId"] == record["identity"]["vmId"]
    assert "previous" not in bound
    keys = sorted(path.name for path in (agent.state / "certs").glob("*.key"))
    if waits and len(keys) == 2:
        slot = record["identity"]["slot"]
        assert keys == [f"identity-{slot}.key", f"identity-{slot + 1}.key"]
    else:
        assert len(keys) == 1, keys
    assert site.machines()[found["vmId"]] == (found["resourceName"], "Connected")


def told(site: Site, step: str, capfd: pytest.CaptureFixture[str]) -> None:
    with capfd.disabled():
        sys.stdout.write(f"\n{step}: {KILLS} kills, {dict(site.ends)}\n")
    site.ends.clear()


def test_seal(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    agent = site.connected("seal-0")
    words = ("seal", "--image-id", "web-1", "--force")
    trial = copied(agent, site.work / "seal-trial")
    whole = lasting(lambda: trial.run(*words))
    for number in range(1, KILLS + 1):
        killed(agent, words, moment(whole))
        found = boot(agent)
        site.ends[found["identityState"]] += 1
        if found["identityState"] == "connected":
            check_connected(site, agent, found)
            assert agent.stop() == 0
            continue
        assert found["identityState"] == "sealed", found
        assert agent.stop() == 0
        left = json.loads(agent.run("seal", "--check", "--agent-only", "--json").stdout)
        assert left["status"] == "clean", left
        assert not list((agent.state / "certs").iterdir())
        agent = site.connected(f"seal-{number}")
    told(site, "seal", capfd)


@pytest.mark.parametrize("step", ["unseal", "specialise"])
def test_a_copy_of_a_sealed_image(site: Site, step: str, capfd: pytest.CaptureFixture[str]) -> None:
    image = site.sealed(f"image-{step}")
    before = len(site.machines())
    words = ("unseal", "--if-copied") if step == "unseal" else ("specialise",)

    def begun(name: str) -> Agent:
        made = site.copy(image, name)
        if step == "specialise":
            assert made.run("unseal", "--if-copied").returncode == 0
            made.start()
        return made

    trial = begun(f"{step}-trial")
    whole = lasting(lambda: trial.run(*words))
    if trial.himds is not None:
        trial.stop()
    check_connected(site, trial, boot(trial))
    trial.stop()
    for number in range(KILLS):
        made = begun(f"{step}-{number}")
        killed(made, words, moment(whole))
        found = boot(made)
        check_connected(site, made, found)
        site.ends[found["identityState"]] += 1
        assert made.stop() == 0
        shutil.rmtree(made.root)
    assert len(site.machines()) == before + KILLS + 1, "a machine was enrolled twice"
    told(site, step, capfd)


def test_the_token_was_counted_once_for_each(site: Site) -> None:
    (row,) = site.hub.json("profiles", "show", WEB)["tokens"]
    joined = site.hub.rows("SELECT count(*) FROM origins WHERE how = 'joined'")[0][0]
    assert row["used"] == joined


def test_adopt(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    original = site.connected("adopt-original")
    image = copied(original, site.work / "adopt-image")
    original.start()
    name, names = shown(original)["resourceName"], set[str]()
    before = len(site.machines())

    def begun(number: int) -> Agent:
        made = site.copy(image, f"adopt-{number}")
        made.start()
        ends = time.monotonic() + 30
        while not (made.state / "state/adopt.json").exists():
            assert time.monotonic() < ends, made.log
            time.sleep(0.02)
        return made

    trial = begun(0)
    whole = lasting(lambda: trial.run("specialise"))
    check_connected(site, trial, shown(trial))
    trial.stop()
    for number in range(1, KILLS + 1):
        made = begun(number)
        killed(made, ("specialise",), moment(whole))
        found = boot(made)
        check_connected(site, made, found)
        names.add(found["resourceName"])
        site.ends[found["identityState"]] += 1
        assert made.stop() == 0
        shutil.rmtree(made.root)
    assert len(names) == KILLS
    assert len(site.machines()) == before + KILLS + 1, "a machine was enrolled twice"
    check_connected(site, original, shown(original))
    assert shown(original)["resourceName"] == name
    assert original.stop() == 0
    told(site, "adopt", capfd)


class Renewing:
    """A machine of its own, whose certificate is due: after a lost answer the hub gives the next one not before it is
    sure that nobody else uses the identity (docs/protocol.md section 6)."""

    def __init__(self, site: Site, name: str) -> None:
        self.agent = site.connected(name)
        self.path = self.agent.state / "state/identity.json"
        record = json.loads(self.path.read_text())
        record["identity"]["certificateExpires"] = time.time() + 44 * 86400
        self.path.write_text(json.dumps(record))
        self.slot = int(record["identity"]["slot"])

    @property
    def is_renewed(self) -> bool:
        return bool(json.loads(self.path.read_text())["identity"]["slot"] > self.slot)

    def wait(self, *, refused: bool) -> str:
        """How it comes to rest. `refused`: the hub may want to wait."""
        ends = time.monotonic() + 60
        while not self.is_renewed:
            if refused and "the certificate is not renewed now: The hub cannot tell which holder" in self.agent.log:
                return "waits"
            assert time.monotonic() < ends, self.agent.log
            time.sleep(0.02)
        return "renewed"


def test_renew(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    first = Renewing(site, "renew")
    begun = time.monotonic()
    first.agent.start()
    first.wait(refused=False)
    whole = time.monotonic() - begun
    first.agent.stop()
    for number in range(KILLS):
        machine = Renewing(site, f"renew-{number}")
        agent = machine.agent
        agent.start()
        time.sleep(random.uniform(0.0, whole * 1.2))
        agent.stop(signal.SIGKILL)
        before = "renewed" if machine.is_renewed else "not yet"
        found = boot(agent)
        assert (found["identityState"], found["status"]) == ("connected", "Connected"), (found, agent.log)
        after = machine.wait(refused=True)
        site.ends[f"{before}, then {after}"] += 1
        ends = time.monotonic() + 30
        while after == "renewed" and len(list((agent.state / "certs").glob("*.key"))) > 1 and time.monotonic() < ends:
            time.sleep(0.05)
        check_connected(site, agent, shown(agent), waits=after == "waits")
        assert agent.stop() == 0
    told(site, "renew", capfd)
