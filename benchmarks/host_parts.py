# SPDX-License-Identifier: Apache-2.0
"""What is measured with real hosts: idle services, the token endpoint, changes that arrive, the rollout."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from benchmarks.report import Row
from benchmarks.site import API
from lab import Host, LabError
from lab.demo.handout import RESOURCE_GROUP, Access, variables
from lab.demo.layout import Layout
from lab.demo.start import start
from lab.fleet import Lab

HERE = Path(__file__).resolve().parent
PORT = 9447
# After a start the services settle: compiling, first heartbeat, inventory.
SETTLE_SECONDS = 120
CHANGES = 7


@dataclass
class Site:
    """The hub and the hosts of a run, agents rolled out. `seconds`: how long idle services are watched."""

    layout: Layout
    access: Access
    hosts: list[Host]
    environment: dict[str, str]
    seconds: float


def begin(layout: Layout, hosts: int, seconds: float, report: Callable[[str], None]) -> Site:
    """Boot the hosts, roll out, let them settle.

    Errors: LabError.
    """
    start(layout, hosts, PORT)
    access = Access(**json.loads(layout.principal.read_text(encoding="utf-8")))
    secret = layout.secret.read_text(encoding="utf-8").strip()
    environment = {**os.environ, **variables(access, layout, secret)}
    report(f"letting the services settle for {SETTLE_SECONDS} s")
    time.sleep(SETTLE_SECONDS)
    made = list(Lab.attach(layout.top, cache=layout.cache).hosts.values())
    return Site(layout, access, made, environment, seconds)


def on_host(host: Host, script: str, *arguments: str, timeout: float) -> dict[str, Any]:
    """Run a measuring script of this directory on a host and read the JSON it prints."""
    done = host.run(
        ["python3", "-I", "-", *arguments], stdin=(HERE / script).read_text(encoding="utf-8"), timeout=timeout
    )
    found: dict[str, Any] = json.loads(done.output)
    return found


def idle(site: Site) -> list[Row]:
    """Memory, CPU time and wake-ups of the three services of a connected host with nothing to do."""
    seconds = site.seconds
    found = on_host(site.hosts[0], "resident.py", "--seconds", str(seconds), timeout=seconds + 60)
    wakeups = max(found[unit]["wakeups_per_minute"] for unit in ("himdsd", "gcad", "extd"))
    span = f"{seconds / 60:g} min"
    return [
        Row("three idle services, summed PSS", found["sum_pss_kib"] / 1024, "MiB", "≤ 30", 30),
        Row("three idle services, summed RSS", found["sum_rss_kib"] / 1024, "MiB", "", None),
        Row(f"idle CPU over {span}, percent of one core", found["sum_cpu_percent"], "%", "≤ 0.02", 0.02),
        Row(f"wake-ups of the busiest service over {span}", wakeups, "a minute", "≤ 12", 12),
    ]


def tokens(site: Site) -> list[Row]:
    """Challenge and token pairs from the cache; himds on one core, the clients on another."""
    host = site.hosts[0]
    pid = host.run(["systemctl", "show", "--property=MainPID", "--value", "himdsd"]).output.strip()
    cores = sorted(os.sched_getaffinity(0))
    host.run(["taskset", "--cpu-list", "--pid", str(cores[0]), pid])
    try:
        found = on_host(host, "token_load.py", "--seconds", "10", "--cpu", str(cores[-1]), timeout=120)
    finally:
        host.run(["taskset", "--cpu-list", "--pid", ",".join(map(str, cores)), pid])
    if found["errors"]:
        raise LabError(f"{found['errors']} token requests failed.", "See himds.log on the host.")
    return [
        Row("token endpoint, challenge and token pairs", found["pairs_per_second"], "a second", "≥ 2000", -2000),
        Row("token endpoint, p99 of a pair", found["p99_ms"], "ms", "< 10", 10),
    ]


def signed_in(site: Site) -> requests.Session:
    """A session at ARM with the rights of the site's principal."""
    session = requests.Session()
    session.trust_env, session.verify = False, str(site.layout.ca)
    answer = session.post(
        f"{site.access.url}/{site.access.tenant_id}/oauth2/v2.0/token",
        data={
            "grant_type": "client_credentials",
            "client_id": site.access.client_id,
            "client_secret": site.layout.secret.read_text(encoding="utf-8").strip(),
            "scope": f"{site.access.url}/.default",
        },
        timeout=30,
    )
    answer.raise_for_status()
    session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    return session


def resource_id(site: Site, host: Host) -> str:
    """Of a host of the site."""
    place = f"/subscriptions/{site.access.subscription_id}/resourceGroups/{RESOURCE_GROUP}"
    return f"{place}/providers/Microsoft.HybridCompute/machines/{host.name}"


def changes(site: Site) -> list[Row]:
    """A tag set at the hub until the machine's metadata has it, on three hosts, one change after another."""
    session = signed_in(site)

    def tags(host: Host, wanted: dict[str, str] | None) -> dict[str, str]:
        """Set the tags at the hub, or read them."""
        answer = session.request(
            "GET" if wanted is None else "PATCH",
            f"{site.access.url}{resource_id(site, host)}",
            params=API,
            json=None if wanted is None else {"tags": wanted},
            timeout=30,
        )
        answer.raise_for_status()
        told: dict[str, str] = answer.json()["tags"]
        return told

    chosen = site.hosts[:3]
    before = [tags(host, None) for host in chosen]
    found: list[float] = []
    with ThreadPoolExecutor(1) as pool:
        for number in range(CHANGES):
            for host in chosen:
                value = f"change-{number}"
                watch = pool.submit(on_host, host, "tag_watch.py", "--value", value, timeout=90)
                time.sleep(1)  # the watcher runs before the change is made
                sent = time.time()
                tags(host, {"bench": value})
                found.append(watch.result()["seen"] - sent)
    for host, former in zip(chosen, before, strict=True):
        tags(host, former)  # the rollout that is measured next finds converged hosts
    turn = sorted(found)
    what = f"change at the hub to effect on a real host, {len(turn)} changes on {len(chosen)} hosts"
    return [
        Row(f"{what}: p50", statistics.median(turn), "s", "", None),
        Row(f"{what}: p95", turn[int(0.95 * len(turn))], "s", "< 3", 3),
    ]


def timed(argv: list[str], environment: dict[str, str]) -> tuple[float, float, str]:
    """Wall seconds, CPU seconds of the controller, output."""
    before, begun = os.times(), time.monotonic()
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    wall, after = time.monotonic() - begun, os.times()
    if done.returncode != 0:
        raise LabError(f"`{' '.join(argv)}` ended with {done.returncode}.", done.stdout[-2000:])
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, cpu, done.stdout


def converged(site: Site) -> list[Row]:
    """The converged playbook against one bare command on every host, in turn, three times; medians."""
    hosts = len(site.hosts)
    bare = [str(site.layout.programs / "ansible"), "hawser", "-m", "ansible.builtin.raw", "-a", "true"]
    playbook = [str(site.layout.programs / "ansible-playbook"), "hawser.machine.site"]
    figures: dict[str, list[tuple[float, float]]] = {"raw": [], "site": []}
    for _ in range(3):
        for name, argv in (("raw", bare), ("site", playbook)):
            wall, cpu, output = timed(argv, site.environment)
            if name == "site" and output.count("changed=0 ") != hosts:
                raise LabError("The playbook changed a converged host.", output[-2000:])
            figures[name].append((wall, cpu))
    bare_wall, wall = (statistics.median(wall for wall, _ in figures[name]) for name in ("raw", "site"))
    raw_cpu, site_cpu = (statistics.median(cpu for _, cpu in figures[name]) for name in ("raw", "site"))
    return [
        Row(f"`ansible -m raw -a true`, {hosts} hosts", bare_wall, "s", "", None),
        Row(f"converged playbook, {hosts} hosts", wall, "s", "≤ twice raw", 2 * bare_wall),
        Row("controller's CPU, raw", raw_cpu, "s", "", None),
        Row("controller's CPU, converged playbook", site_cpu, "s", "", None),
    ]


PARTS: dict[str, Callable[[Site], list[Row]]] = {
    "idle": idle,
    "tokens": tokens,
    "changes": changes,
    "rollout": converged,
}
