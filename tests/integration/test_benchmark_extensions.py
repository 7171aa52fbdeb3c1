# SPDX-License-Identifier: Apache-2.0
"""The figures of extensions can be measured: every part once, with small numbers, on what it is measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks import extension_host_parts, extension_parts, packages
from benchmarks.extension_parts import Scale
from benchmarks.host_parts import Site
from benchmarks.report import Row
from lab import Lab, LabError
from lab.demo.handout import RESOURCE_GROUP, Access
from lab.demo.layout import Layout
from lab.demo.start import make_repository
from tests.integration import hub_process
from tests.integration.connected_host import connect, install


def figures(rows: list[Row]) -> dict[str, float]:
    """By their names without what was measured, which stands before a colon."""
    return {row.what.rpartition(": ")[2]: row.figure for row in rows}


def test_wishes_reach_machines_that_wait() -> None:
    found = figures(extension_parts.wishes(Scale(waiting=12, ballast=0)))
    assert 0 < found["of which the report to the hub, p95"] < found["p95"]
    assert found["answers that a healthy hub does not give"] == 0
    assert found["wishes that the hub says succeeded"] == 12


def test_a_package_is_delivered_under_watch() -> None:
    rows = extension_parts.large_package(Scale(waiting=0, ballast=8 << 20))
    found = figures(rows)
    assert {"of which the worker downloading", "of which the worker unpacking"} <= set(found)
    assert found["extd, peak RSS with the small one"] > 1
    assert found["its largest worker, peak RSS with the small one"] > 1
    assert [row.bar for row in rows if row.limit is not None] == ["< 8"]


@pytest.fixture(scope="module")
def site(make_lab: Callable[..., Lab], agent_deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A hub and a connected host, with what of a demo's folders the parts look at."""
    lab = make_lab("bench01")
    layout = Layout(tmp_path_factory.mktemp("bench") / "site")
    for folder in (layout.secret.parent, layout.ca.parent):
        folder.mkdir(parents=True)
    hub = hub_process.make(layout.hub, "--location", "local", host=str(lab.gateway))
    make_repository(layout)
    hub.start()
    owner = hub.principal("bench", "Owner")
    layout.secret.write_text(owner["clientSecret"])
    layout.ca.write_text(Path(hub.ca_file).read_text())
    host = lab.hosts["bench01"]
    install(host, agent_deb)
    connect(host, hub, owner, RESOURCE_GROUP)
    access = Access(hub.url, hub.tenant_id, hub.subscription_id, owner["clientId"])
    yield Site(layout, access, [host], {}, 1.0)
    assert hub.stop() == 0


@pytest.mark.hosts
def test_wishes_reach_a_real_host(site: Site) -> None:
    rows = extension_host_parts.enabling(site, changes=1, installs=1)
    for start in (0, 4):
        found = figures(rows[start : start + 4])
        assert 0 < found["over the host alone, p50"] < found["p50"]
        assert found["of which the host alone, p50"] > 0


@pytest.mark.hosts
def test_memory_with_an_extension_installed(site: Site) -> None:
    found = figures(extension_host_parts.extended_idle(site, settle=0, seconds=1))
    assert 0 < found["extd of these, PSS"] < found["three idle services with an extension installed, summed PSS"]


@pytest.mark.hosts
def test_a_limit_is_measured_or_said_not_to_be_held(site: Site) -> None:
    group = site.hosts[0].run(["cat", "/sys/fs/cgroup/cgroup.controllers"]).output.split()
    if "cpu" in group:
        assert figures(extension_host_parts.limits(site, seconds=5))["its distance from the limit of 30 %"] < 15
    else:
        with pytest.raises(LabError, match="cpu controller is not writable"):
            extension_host_parts.limits(site, seconds=1)
    assert site.hosts[0].run(["pgrep", "-f", f"{packages.TYPE}-1.0.2"], check=False).code != 0, "it is stopped"
