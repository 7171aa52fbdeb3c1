# SPDX-License-Identifier: Apache-2.0
"""`azcmagent extension list|remove` as a real process (agent-surface.md section 5.6)."""

from __future__ import annotations

import json
import zipfile

import pytest

from tests.unit.agent_cli.conftest import Done
from tests.unit.agent_cli.conftest import Machine as Prompt
from tests.unit.agent_extensions.kit import Desk, Extd, Hub, Site, live, wish


def prompt(site: Site) -> Prompt:
    made = Prompt.__new__(Prompt)
    made.root, made.state = site.root, site.state
    return made


def run(site: Site, *words: str) -> Done:
    return prompt(site).run("extension", *words)


async def two(desk: Desk) -> None:
    desk.give(wish("one", kind="Many"), wish("two", kind="Many"), wish())
    for name in ("one", "two", "fake"):
        await desk.wait(name, "succeeded")
    await desk.idle()


@pytest.fixture
def furnished(site: Site) -> Site:
    site.package(kind="Many", manifest={"supportsMultipleExtensions": True})
    site.package()
    live(site, two)
    (site.root / "calls").unlink()
    return site


def test_what_is_there_is_listed(furnished: Site) -> None:
    done = run(furnished, "list")
    folder = furnished.folder_of()
    assert done.out.splitlines()[0].split() == ["EXTENSION", "VERSION", "EXTENSION", "PATH", "STATE"]
    assert done.out.splitlines()[1].split()[:4] == ["Fake", "1.0.0", str(folder), "ENABLED,"]
    listed = run(furnished, "list", "--json").json["extensions"]
    assert [(item["type"], [known["name"] for known in item["extensions"]]) for item in listed] == [
        ("Fake", ["fake"]),
        ("Many", ["one", "two"]),
    ]
    assert run(furnished, "list").code == 0


def test_logs_have_what_handlers_say_and_nothing_that_they_were_told(furnished: Site) -> None:
    (furnished.folder_of().parent / f"{'AB' * 20}.prv").write_text("key")
    path = furnished.root / "logs.zip"
    assert prompt(furnished).run("logs", "-o", str(path)).code == 0
    with zipfile.ZipFile(path) as archive:
        names = [name.removeprefix(str(furnished.root).lstrip("/")) for name in archive.namelist()]
    of_fake = [name.rpartition("Test.Fake-1.0.0/")[2] for name in names if "/waagent/Test.Fake" in name]
    assert sorted(of_fake) == ["HandlerEnvironment.json", "HandlerManifest.json", "status/0.status"]
    assert "/var/lib/GuestConfig/extensions/handlers.json" in names
    assert not [name for name in names if name.endswith((".settings", ".prv", ".key", ".crt"))]


def test_what_another_machine_wished_is_marked_and_can_be_removed(furnished: Site) -> None:
    """The furnished handlers are those of `m`, whose disk this was."""
    done = run(furnished, "list")
    assert done.out.splitlines()[1].split()[-2:] == ["ENABLED,", "FOREIGN"]
    assert [item["foreign"] for item in run(furnished, "list", "--json").json["extensions"]] == [True, True]
    furnished.bind("M")
    assert "FOREIGN" not in run(furnished, "list").out
    furnished.unbind()
    assert "FOREIGN" not in run(furnished, "list").out, "a machine without a name has no foreign ones"
    furnished.bind("x")
    assert run(furnished, "remove", "-n", "Fake").code == 0
    assert furnished.calls() == ["disable 1.0.0", "uninstall 1.0.0"]


def test_nothing_is_listed_where_nothing_is(site: Site) -> None:
    assert run(site, "list").out == "No extension\n"
    assert run(site, "list", "--json").json == {"extensions": []}
    assert run(site, "remove", "--all").out == "There is no extension on this machine\n"


def test_a_handler_is_removed_by_its_type_and_an_extension_by_its_name(furnished: Site) -> None:
    assert run(furnished, "remove", "-n", "FAKE").code == 0
    assert furnished.calls() == ["disable 1.0.0", "uninstall 1.0.0"]
    assert not furnished.folder_of().exists()
    done = run(furnished, "remove", "--name", "one", "--json")
    assert done.json == {"status": "success", "removed": ["one"], "warnings": []}
    assert furnished.calls()[2:] == ["disable 1.0.0"]
    assert (furnished.record("Many") or {})["extensions"].keys() == {"two"}
    assert run(furnished, "remove", "-n", "one").code == 23


def test_all_are_removed_over_failures_and_come_back_with_the_service(furnished: Site) -> None:
    furnished.way("uninstall", "exit 4")
    done = run(furnished, "remove", "-a", "--json")
    assert done.code == 0
    assert done.json["removed"] == ["Fake", "Many"]
    assert all("exit code 4" in warning for warning in done.json["warnings"])
    assert len(done.json["warnings"]) == 2
    assert run(furnished, "list").out == "No extension\n"
    with Hub(furnished) as hub, Extd(furnished) as extd:
        hub.give(furnished.document(wish()))
        hub.wait("fake", "succeeded")
        assert extd.stop() == 0


def test_the_service_must_stand_still(furnished: Site) -> None:
    with Hub(furnished) as hub, Extd(furnished) as extd:
        hub.give(furnished.document(wish()))
        hub.wait("fake", "succeeded")
        done = run(furnished, "remove", "--all")
        assert done.code == 72
        assert "AZCM0072: the extension service is running" in done.out
        assert "systemctl stop extd" in done.out
        assert run(furnished, "list").code == 0
        assert extd.stop() == 0


def test_a_command_that_still_runs_is_waited_for_by_the_user(site: Site) -> None:
    site.package()
    site.way("install", f"until [ -e {site.root}/go ]; do sleep 0.02; done")

    async def stopped(desk: Desk) -> None:
        desk.give(wish())
        await desk.until(lambda: site.calls() == ["install 1.0.0"], "install runs")

    live(site, stopped)
    done = run(site, "remove", "--all")
    assert done.code == 72
    (site.root / "go").touch()


@pytest.mark.parametrize(
    ("words", "code"), [(["remove"], 16), (["remove", "-a", "-n", "x"], 23), (["remove", "-n", "x"], 23)]
)
def test_bad_input(site: Site, words: list[str], code: int) -> None:
    done = run(site, *words)
    assert done.code == code
    assert "remedy: " in done.out


def test_a_damaged_memory_is_said_so(site: Site) -> None:
    (site.folder("extensions") / "handlers.json").write_text("{")
    done = run(site, "list", "--json")
    assert (done.code, json.loads(done.out)["error"]["code"]) == (72, "AZCM0072")
