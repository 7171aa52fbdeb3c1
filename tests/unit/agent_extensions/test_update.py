# SPDX-License-Identifier: Apache-2.0
"""Updates and downgrades: the order of calls, what they are told, and what is left of failures (extension-handler.md
section 11)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.extensions.layout import Layout
from agent_runtime.platform import paths as places
from agent_runtime.state import atomic
from tests.unit.agent_extensions.kit import Desk, Site, live, wish

LOW, HIGH = "1.9.0", "1.10.0"


def packages(site: Site, **manifest: Any) -> None:
    for version in (LOW, HIGH):
        site.package(version, manifest=manifest)


async def installed(desk: Desk, version: str, *more: dict[str, Any]) -> None:
    desk.give(wish(version=version, sequence=4), *more)
    await desk.wait("fake", "succeeded", version=version)
    await desk.idle()
    (desk.site.root / "calls").unlink()


@pytest.mark.parametrize("is_up", [True, False], ids=["up", "down"])
@pytest.mark.parametrize("with_install", [True, False], ids=["with", "without"])
@pytest.mark.parametrize("goes_on", [True, False], ids=["on", "stop"])
@pytest.mark.parametrize("failing", [None, "disable", "update", "uninstall"])
def test_the_matrix(site: Site, is_up: bool, with_install: bool, goes_on: bool, failing: str | None) -> None:
    old, new = (LOW, HIGH) if is_up else (HIGH, LOW)
    mode = "UpdateWithInstall" if with_install else "updatewithoutinstall"
    packages(site, updateMode=mode, continueOnUpdateFailure=str(goes_on))
    runs = new if is_up else old
    order = [f"disable {old}", f"update {runs}", f"uninstall {old}"]
    order += [f"install {new}"] if with_install else []
    order += [f"enable {new}"]
    is_well = failing is None or (goes_on and failing != "update")
    if not is_well:
        order = order[: [call.partition(" ")[0] for call in order].index(str(failing)) + 1]

    async def scenario(desk: Desk) -> None:
        await installed(desk, old)
        if failing is not None:
            site.way(failing, "exit 7")
        desk.give(wish(version=new, sequence=4))
        if is_well:
            await desk.wait("fake", "succeeded", version=new)
        else:
            entry = await desk.wait("fake", "failed", code=1008)
            assert entry["version"] == old
            assert entry["handler"]["status"] == ("Ready" if failing == "disable" else "NotReady")
        await desk.idle()

    live(site, scenario)
    assert site.calls() == order
    lines = {line.partition(" ")[0]: line.split("|")[1:] for line in site.full_calls()}
    if "update" in lines:
        off = "7" if failing == "disable" else "0"
        told = [f"new={new}", f"old={old if is_up else new}", "un=", f"off={off}", "offs="]
        assert lines["update"] == ["seq=4", "ext=", *told]
    if is_well:
        code = "7" if failing == "uninstall" else "0"
        assert f"un={code}" in lines["enable"]
        assert (site.folder_of(new) / "mrseq").read_text() == "4\n"
        assert not site.folder_of(old).exists()
        assert list((site.root / "opt/GC_Ext/downloads").iterdir()) == [archive(site, new)]
    else:
        assert site.folder_of(old).exists()
        state = {"disable": "Enabled", "update": "FailedUpgrade", "uninstall": "FailedUpgrade"}[str(failing)]
        record = site.record() or {}
        assert (record["version"], record["state"]) == (old, state)


def archive(site: Site, version: str) -> Path:
    return site.root / f"opt/GC_Ext/downloads/extensions_Test.Fake_{version}_linux.zip"


def test_a_failed_update_is_repeated_as_a_whole_by_the_next_document(site: Site) -> None:
    packages(site)

    async def scenario(desk: Desk) -> None:
        await installed(desk, LOW)
        site.way("update", "exit 1")
        desk.give(wish(version=HIGH, sequence=4))
        await desk.wait("fake", "failed", code=1008)
        site.free("update")
        desk.give(wish(version=HIGH, sequence=4))
        await desk.wait("fake", "succeeded", version=HIGH)

    live(site, scenario)
    again = [f"update {HIGH}", f"uninstall {LOW}", f"install {HIGH}", f"enable {HIGH}"]
    assert site.calls() == [f"disable {LOW}", f"update {HIGH}", *again]


@pytest.mark.parametrize("failing", ["disable", "update", "uninstall", "install", "enable", "status"])
def test_a_version_that_fails_is_taken_back_where_the_document_says_so(site: Site, failing: str) -> None:
    packages(site)

    async def scenario(desk: Desk) -> None:
        await installed(desk, LOW)
        bad = LOW if failing in ("disable", "uninstall") else HIGH
        text = "say error 1 broken; exit 0" if failing == "status" else f"[ ! -e {site.root}/bad ] || exit 3"
        site.way(f"{'enable' if failing == 'status' else failing}-{bad}", text)
        (site.root / "bad").touch()
        desk.give(wish(version=HIGH, sequence=4, rollbackTo=LOW))
        await desk.until(lambda: "going back" in site.log("extensions"), "taken back")
        (site.root / "bad").unlink()
        entry = await desk.wait("fake", "succeeded", version=LOW, sequence=4)
        assert f"version {HIGH} was tried and taken back" in entry["message"]
        await desk.idle()

    live(site, scenario)
    calls = site.calls()
    assert calls[-1] == f"enable {LOW}"
    assert (site.record() or {})["version"] == LOW
    assert not site.folder_of(HIGH).exists()
    assert list((site.root / "opt/GC_Ext/downloads").iterdir()) == [archive(site, LOW)]

    async def restart(desk: Desk) -> None:
        site.generation -= 1
        desk.give(wish(version=HIGH, sequence=4, rollbackTo=LOW))
        await desk.until(lambda: len(site.calls()) > len(calls), "enabled again")
        await desk.idle()

    live(site, restart)
    assert site.calls()[len(calls) :] == [f"enable {LOW}"]


@pytest.mark.parametrize("is_late", [True, False], ids=["late", "at once"])
def test_a_version_that_has_succeeded_is_not_taken_back_after_a_restart(site: Site, is_late: bool) -> None:
    packages(site)

    async def update(desk: Desk) -> None:
        await installed(desk, LOW)
        late = "say transitioning 0 busy; (sleep 0.3; say success 0 fine) & exit 0"
        site.way(f"enable-{HIGH}", late if is_late else "exit 0")
        desk.give(wish(version=HIGH, sequence=4, rollbackTo=LOW))
        await desk.wait("fake", "succeeded", version=HIGH)
        await desk.idle()

    live(site, update)
    assert (site.record() or {})["fresh"] is False

    async def hiccup(desk: Desk) -> None:
        site.generation -= 1
        site.way(f"enable-{HIGH}", "exit 0")
        desk.give(wish(version=HIGH, sequence=4, rollbackTo=LOW))
        await desk.until(lambda: site.calls()[-2:] == [f"enable {HIGH}"] * 2, "enabled again")
        await desk.idle()
        word = {"status": "error", "formattedMessage": {"lang": "en", "message": "a hiccup"}}
        (site.folder_of(HIGH) / "status/4.status").write_text(json.dumps([{"status": word}]))
        await desk.wait("fake", "failed", version=HIGH, message="a hiccup")
        await desk.idle()

    live(site, hiccup)
    assert "going back" not in site.log("extensions")
    assert (site.record() or {})["version"] == HIGH


# What a handler of scripts does: a sequence number that it remembers is not run again.
SCRIPT = """remembered=$(cat "$AZURE_GUEST_AGENT_EXTENSION_PATH/${own}mrseq" 2>/dev/null)
[ "$remembered" = "$ConfigSequenceNumber" ] && exit 0
echo "$own$ConfigSequenceNumber" >>"$root/work"
"""


@pytest.mark.parametrize("names", [("fake",), ("fake", "two")], ids=["one", "several"])
@pytest.mark.parametrize("goes_back", [True, False], ids=["back", "again"])
def test_a_failed_installation_of_a_version_runs_no_script_again(
    site: Site, goes_back: bool, names: tuple[str, ...]
) -> None:
    packages(site, supportsMultipleExtensions=len(names) > 1)
    site.way("enable", SCRIPT)
    if len(names) > 1:
        site.way("update", f'cp "$AZURE_GUEST_AGENT_EXTENSION_PATH"/../Test.Fake-{LOW}/*.mrseq .')
    memory = site.folder("extensions") / "memory/test.fake"

    def wished(version: str, **more: Any) -> list[dict[str, Any]]:
        return [wish(name, version, 4, **more) for name in names]

    async def update(desk: Desk) -> None:
        desk.give(*wished(LOW))
        for name in names:
            await desk.wait(name, "succeeded", version=LOW)
        await desk.idle()
        site.way(f"install-{HIGH}", "exit 52")
        desk.give(*wished(HIGH, rollbackTo=LOW if goes_back else None))
        if not goes_back:
            await desk.wait("fake", "failed", code=1007)
            await desk.idle()
            desk.give(*wished(HIGH))
            await desk.wait("fake", "failed", code=1007)
            await desk.idle()
            assert (memory / "status").is_dir()
            site.free(f"install-{HIGH}")
            desk.give(*wished(HIGH))
        for name in names:
            entry = await desk.wait(name, "succeeded", version=LOW if goes_back else HIGH)
            assert entry["status"]["formattedMessage"]["message"] == "done 4"
        await desk.idle()
        assert not memory.exists()
        # A number that is new is run, once.
        desk.give(*wished(LOW if goes_back else HIGH)[1:], wish("fake", LOW if goes_back else HIGH, 5))
        await desk.wait("fake", "succeeded", sequence=5)

    live(site, update)
    done = (site.root / "work").read_text().split()
    assert done == (["4", "5"] if len(names) == 1 else ["fake.4", "two.4", "fake.5"])


@pytest.mark.parametrize("names", [("fake",), ("fake", "two")], ids=["one", "several"])
def test_an_extension_made_anew_is_not_given_what_the_former_one_of_its_name_ran(
    site: Site, names: tuple[str, ...]
) -> None:
    packages(site, supportsMultipleExtensions=len(names) > 1)
    site.way("enable", SCRIPT)

    async def scenario(desk: Desk) -> None:
        desk.give(*(wish(name, LOW, 4) for name in names))
        for name in names:
            await desk.wait(name, "succeeded", version=LOW)
        await desk.idle()
        site.way(f"install-{HIGH}", "exit 52")
        desk.give(*(wish(name, HIGH, 4) for name in names))
        await desk.wait("fake", "failed", code=1007)
        await desk.idle()
        site.free(f"install-{HIGH}")
        desk.give(*(wish(name, HIGH, 4, incarnation="18-1790000000") for name in names[:1]))
        await desk.wait("fake", "succeeded", version=HIGH)

    live(site, scenario)
    first = ["4"] if len(names) == 1 else ["fake.4", "two.4"]
    assert (site.root / "work").read_text().split() == [*first, first[0]]


def test_several_extensions_of_one_handler_come_over(site: Site) -> None:
    packages(site, supportsMultipleExtensions="true")
    both = [wish("one", HIGH, 2), wish("two", HIGH, 5)]

    async def scenario(desk: Desk) -> None:
        desk.give(wish("one", LOW, 2), wish("two", LOW, 5))
        await desk.wait("one", "succeeded")
        await desk.wait("two", "succeeded")
        await desk.idle()
        (site.root / "calls").unlink()
        site.way("update", f'cp "$AZURE_GUEST_AGENT_EXTENSION_PATH"/../Test.Fake-{LOW}/*.mrseq .')
        site.way("disable-two", "exit 0")
        desk.give(*both)
        await desk.wait("one", "succeeded", version=HIGH)
        await desk.wait("two", "succeeded", version=HIGH)
        await desk.idle()
        desk.give(both[0])
        await desk.until(lambda: "two" not in desk.last(), "two is gone")
        await desk.idle()

    live(site, scenario)
    told = [line.split("|") for line in site.full_calls()]
    assert [f"{parts[0]} {parts[2]} {parts[1]}" for parts in told] == [
        f"disable {LOW} ext=one seq=2",
        f"disable {LOW} ext=two seq=5",
        f"update {HIGH} ext= seq=0",
        f"uninstall {LOW} ext= seq=0",
        f"install {HIGH} ext= seq=0",
        f"enable {HIGH} ext=one seq=2",
        f"enable {HIGH} ext=two seq=5",
        f"disable {HIGH} ext=two seq=5",
    ]
    codes = json.loads(told[2][7].removeprefix("offs="))
    assert codes == [{"extensionName": "one", "exitCode": 0}, {"extensionName": "two", "exitCode": 0}]
    folder = site.folder_of(HIGH)
    assert sorted(path.name for path in folder.glob("*.mrseq")) == ["one.mrseq"]
    assert sorted(path.name for path in (folder / "config").glob("*.settings")) == ["one.2.settings"]


@pytest.mark.parametrize(
    ("last", "state", "message"),
    [
        ("operation=enable; say success 0 'the end'; exit 0", "succeeded", "the end"),
        ("operation=enable; say error 56 stopped; exit 0", "failed", "stopped"),
        ("say success 0 'switched off'", "transitioning", "busy"),
    ],
    ids=["ended", "stopped", "of its own"],
)
def test_a_script_that_ends_while_disable_waits_for_it_is_heard_of(
    site: Site, last: str, state: str, message: str
) -> None:
    packages(site)
    site.way("enable", SCRIPT)
    site.way(f"enable-{LOW}", 'say transitioning 0 busy; echo 4 >"$AZURE_GUEST_AGENT_EXTENSION_PATH/mrseq"; exit 0')
    site.way("disable", last)

    async def scenario(desk: Desk) -> None:
        desk.give(wish(version=LOW, sequence=4))
        await desk.wait("fake", "transitioning", version=LOW, message="busy")
        await desk.idle()
        desk.give(wish(version=HIGH, sequence=4))
        await desk.wait("fake", state, version=HIGH, message=message)
        await desk.idle()

    live(site, scenario)
    assert (site.root / "work").read_text() == "4\n"


def word(status: str, message: str) -> str:
    said = {"operation": "enable", "status": status, "formattedMessage": {"lang": "en", "message": message}}
    return json.dumps([{"status": said}])


@pytest.mark.parametrize(
    ("kept", "later", "own", "stands"),
    [
        (word("transitioning", ""), word("success", "old"), None, "later"),
        ("[{", word("success", "old"), None, "later"),
        (word("transitioning", ""), "[{", None, "kept"),
        (word("transitioning", "1"), word("transitioning", "2"), None, "kept"),
        (word("success", ""), word("error", "late"), None, "kept"),
        (word("transitioning", ""), word("success", "old"), word("transitioning", "new"), "own"),
        (word("transitioning", ""), word("success", "old"), word("error", "new"), "own"),
        (None, word("success", "old"), None, "later"),
    ],
)
def test_whose_word_stands_after_a_change_of_version(
    tmp_path: Path, kept: str | None, later: str, own: str | None, stands: str
) -> None:
    layout = Layout(places.linux(str(tmp_path)))
    old, new = (Path(layout.status("Test.Fake", version, 4, None)) for version in (LOW, HIGH))
    for path in (old, new):
        path.parent.mkdir(parents=True)
    if kept is not None:
        old.write_text(kept)
    layout.keep("Test.Fake", LOW, HIGH)
    old.write_text(later)
    if own is not None:
        new.write_text(own)
    layout.carry("Test.Fake", LOW, HIGH)
    assert new.read_text() == {"kept": kept, "later": later, "own": own}[stands]


class KilledError(BaseException):
    """What kill -9 does: nothing of this process runs any more."""


@pytest.mark.parametrize("is_written", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=[pytest.mark.lane("kills"), pytest.mark.timeout(1800)])])
def test_killed_at_any_write_an_update_is_carried_out_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_written: bool, stride: int
) -> None:
    genuine = atomic.write_bytes
    number = int(is_written) * (stride // 2)
    while True:
        site = Site(tmp_path / str(number))
        packages(site)
        site.way("enable", SCRIPT)

        async def prepare(desk: Desk) -> None:
            await installed(desk, LOW)

        live(site, prepare)
        left = number

        def killing(path: str, *arguments: Any, **more: Any) -> None:
            nonlocal left
            left -= 1
            if left == -1:
                if is_written:
                    genuine(path, *arguments, **more)
                raise KilledError
            genuine(path, *arguments, **more)

        async def update(desk: Desk, site: Site = site) -> None:
            site.generation = 1
            desk.give(wish(version=HIGH, sequence=4))
            await desk.wait("fake", "succeeded", version=HIGH)
            await desk.idle()

        monkeypatch.setattr(atomic, "write_bytes", killing)
        try:
            live(site, update)
        except KilledError:
            was_killed = True
        else:
            was_killed = False
        monkeypatch.setattr(atomic, "write_bytes", genuine)
        live(site, update)
        calls = [call for call in site.calls() if not call.startswith("enable")]
        assert calls == [f"disable {LOW}", f"update {HIGH}", f"uninstall {LOW}", f"install {HIGH}"], number
        assert (site.record() or {})["version"] == HIGH
        assert not site.folder_of(LOW).exists()
        assert (site.root / "work").read_text().split() == ["4"], number
        if not was_killed:
            break
        number += stride
    assert number > 20
