# SPDX-License-Identifier: Apache-2.0
"""What is measured of extensions on real hosts: from a wish to enable, memory with one installed, a limit held."""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import requests

from agent_runtime.extensions import governance
from benchmarks import packages
from benchmarks.host_parts import Site, on_host, resource_id, signed_in
from benchmarks.report import Row
from benchmarks.site import API
from lab import Host, LabError
from lab.demo.start import hub_json

LOG = "/var/lib/GuestConfig/ext_mgr_logs/gc_ext.log"
HANDLER = f"{packages.PUBLISHER}.{packages.TYPE}"
STAMPS = "/root/bench-enabled"
LIMIT_PERCENT = governance.DEFAULTS["linux"]
# More than there are cores, so that nothing but its limit keeps it from a whole one.
BURN = """    for number in 1 2 3; do
        (while :; do :; done) </dev/null >/dev/null 2>&1 &
        echo $! >>burning
    done"""
STOP = "    kill $(cat burning)"
_LINE = re.compile(rf'^time=(\S+) level=info msg="(?:(download) of {HANDLER} .*done|\w+ of {HANDLER} .*begins)"$')
PATIENCE_SECONDS = 120.0


class Extension:
    """The measured extension on a host."""

    def __init__(self, site: Site, host: Host) -> None:
        self._session = signed_in(site)
        self._url = f"{site.access.url}{resource_id(site, host)}/extensions/bench"

    def put(self, version: str, **settings: object) -> float:
        """Wish for it, and wait until the operation has ended; when the wish was sent, in Unix seconds.

        Errors: LabError.
        """
        sent = time.time()
        self._ended(self._session.put(self._url, params=API, json=packages.wish(version, **settings), timeout=30))
        return sent

    def remove(self) -> None:
        """Errors: LabError."""
        self._ended(self._session.delete(self._url, params=API, timeout=30))

    def _ended(self, answer: requests.Response) -> None:
        answer.raise_for_status()
        ends = time.monotonic() + PATIENCE_SECONDS
        while (address := answer.headers.get("Azure-AsyncOperation")) and time.monotonic() < ends:
            told = self._session.get(address, timeout=30).json()
            if told["status"] == "Succeeded":
                return
            if told["status"] != "InProgress":
                raise LabError(f"The measured extension failed: {told}", f"See {LOG} on the host.")
            time.sleep(0.2)
        if address:
            raise LabError(f"The measured extension took longer than {PATIENCE_SECONDS:g} s.", f"See {LOG}.")


def publish(site: Site, version: str, enable: str, disable: str = "    :") -> None:
    """Put a version of the measured extension into the repository of the site's hub."""
    with tempfile.TemporaryDirectory(prefix="hawser-bench-") as folder:
        path = packages.write(Path(folder) / "package.zip", version, enable=enable, disable=disable)
        hub_json(site.layout, ["artefacts", "add", str(path), "--json"])
    hub_json(site.layout, ["artefacts", "sign", "--keys", str(site.layout.artefact_keys), "--json"])
    hub_json(site.layout, ["artefacts", "publish", "--json"])


@contextmanager
def installed(site: Site, version: str, enable: str, disable: str = "    :") -> Iterator[tuple[Host, Extension]]:
    """The first host, with a version on it that is published for that, and removed from the host at the end."""
    publish(site, version, enable, disable)
    host = site.hosts[0]
    extension = Extension(site, host)
    extension.put(version)
    try:
        yield host, extension
    finally:
        extension.remove()


def without_host(log: str, sent: float, enabled: float) -> float:
    """Of the time from a wish to enable (Unix seconds), what the engine did not need for itself: until it began, and
    until it had the package, where one was fetched. Pure. `log`: text of extd's own.

    Errors: ValueError when the log has no beginning between the two.
    """
    begun = fetched = 0.0
    for line in log.splitlines():
        if (found := _LINE.match(line)) is None:
            continue
        at = datetime.fromisoformat(found[1]).timestamp()
        if sent <= at <= enabled:
            begun, fetched = (begun, at) if found[2] else (at, 0.0)
    if not begun:
        raise ValueError("the log does not say when the engine began")
    return max(begun, fetched) - sent


def enabling(site: Site, changes: int = 20, installs: int = 20) -> list[Row]:
    """From a wish at the hub to the first act of enable: new settings, and an extension that was not there."""
    version, host = "1.0.0", site.hosts[0]
    publish(site, version, f"    date +%s.%N >>{STAMPS}")
    extension = Extension(site, host)
    figures: dict[str, list[tuple[float, float]]] = {"new settings": [], "a new extension": []}

    def turn(number: int) -> tuple[float, float]:
        sent = extension.put(version, number=number)
        enabled = float(host.read(STAMPS).split()[-1])
        return enabled - sent, without_host(host.read(LOG).decode(), sent, enabled)

    for number in range(installs):
        figures["a new extension"].append(turn(number))
        extension.remove()
    turn(0)  # it stays now
    for number in range(1, changes + 1):
        figures["new settings"].append(turn(number))
    extension.remove()
    rows = []
    for name, found in figures.items():
        what = f"{name} wished at the hub until enable begins on a real host, {len(found)} times"
        over = sorted(time for _, time in found)
        rows += [
            Row(f"{what}: p50", statistics.median(whole for whole, _ in found), "s", "", None),
            Row(f"{what}: of which the host alone, p50", statistics.median(a - b for a, b in found), "s", "", None),
            Row(f"{what}: over the host alone, p50", statistics.median(over), "s", "", None),
            Row(f"{what}: over the host alone, p95", over[int(0.95 * len(over))], "s", "< 1", 1),
        ]
    return rows


def extended_idle(site: Site, settle: float = 60.0, seconds: float = 60.0) -> list[Row]:
    """Memory of the three services with an extension installed."""
    with installed(site, "1.0.1", "    :") as (host, _):
        time.sleep(settle)
        found = on_host(host, "resident.py", "--seconds", str(seconds), timeout=seconds + 60)
    return [
        Row(
            "three idle services with an extension installed, summed PSS",
            found["sum_pss_kib"] / 1024,
            "MiB",
            "≤ 30",
            30,
        ),
        Row("extd of these, PSS", found["extd"]["pss_kib"] / 1024, "MiB", "", None),
        Row("extd of these, RSS", found["extd"]["rss_kib"] / 1024, "MiB", "", None),
    ]


def limits(site: Site, seconds: float = 20.0) -> list[Row]:
    """An extension that takes all that it gets, at its limit.

    Errors: LabError where the kernel limits nobody's time on the processor on the hosts.
    """
    with installed(site, "1.0.2", BURN, STOP) as (host, _):
        watch = ["--slice", governance.slice_of(HANDLER), "--seconds", str(seconds)]
        found = on_host(host, "slice_watch.py", *watch, timeout=seconds + 60)
    if not found["writable"]:
        raise LabError(
            "The cpu controller is not writable on the hosts of this machine: a limit is set, and nothing holds it.",
            "The lane `vm` shows it held by a kernel of its own.",
        )
    if found["limit_percent"] != LIMIT_PERCENT:
        raise LabError(f"The slice's limit is {found['limit_percent']} %.", f"It should be {LIMIT_PERCENT} %.")
    return [
        Row(f"extension that takes what it gets, over {seconds:g} s", found["used_percent"], "% of a core", "", None),
        Row(
            f"its distance from the limit of {LIMIT_PERCENT} %",
            abs(found["used_percent"] - LIMIT_PERCENT),
            "points",
            "≤ 1",
            1,
        ),
    ]


PARTS: dict[str, Callable[[Site], list[Row]]] = {
    "enabling": enabling,
    "extended_idle": extended_idle,
    "limits": limits,
}
