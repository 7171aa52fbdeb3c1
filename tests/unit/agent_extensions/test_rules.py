# SPDX-License-Identifier: Apache-2.0
"""What the engine does and leaves alone: lists, switches, orders, packages that cannot be used (agent-surface.md 15,
extension-handler.md 3, 14, 20, 21)."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.service.loop import sleep
from agent_runtime.workers import keys
from tests.unit.agent_extensions import extd
from tests.unit.agent_extensions.kit import Desk, Site, certificate_of, envelope, live, wish

FOLDER = "repo/extensions/Test.Fake/1.0.0"


def test_lists_refuse_before_anything_is_fetched_and_never_remove(site: Site) -> None:
    site.package()
    site.package(kind="Other")

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        await desk.wait("fake", "succeeded")
        desk.configure(extensions_blocklist=["TEST/fake"])
        desk.give(wish(), wish("other", kind="Other"))
        await desk.wait("other", "succeeded")
        await desk.wait("fake", "succeeded")
        desk.give(wish(sequence=1), wish("other", kind="Other"))
        entry = await desk.wait("fake", "failed", code=1000)
        assert entry["message"] == "Test/Fake is in extensions.blocklist of this machine"
        desk.configure()
        await desk.wait("fake", "succeeded", sequence=1)
        desk.configure(extensions_allowlist=["Allow/None"])
        desk.give()
        await desk.until(lambda: not desk.last(), "both are gone")

    live(site, scenario)
    assert [call for call in site.calls() if "uninstall" in call] == ["uninstall 1.0.0"] * 2


def test_monitor_mode_is_a_list(site: Site) -> None:
    site.package()

    async def scenario(desk: Desk) -> None:
        desk.configure(config_mode="monitor")
        desk.give(wish())
        assert "config.mode is monitor" in (await desk.wait("fake", "failed"))["message"]

    live(site, scenario)
    assert site.calls() == []


def test_switched_off_nothing_is_begun_and_nothing_removed(site: Site) -> None:
    site.package()

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        await desk.wait("fake", "succeeded")
        desk.configure(extensions_enabled=False)
        reports = len(desk.reports)
        desk.give()
        await desk.until(lambda: not desk.engine._work.is_set, "looked at")
        assert len(desk.reports) == reports
        assert site.folder_of().exists()
        desk.configure()
        await desk.until(lambda: not desk.last(), "removed once it is on again")

    live(site, scenario)


def test_levels_wait_for_one_another(site: Site) -> None:
    for kind in ("Fake", "Base", "Top"):
        site.package(kind=kind)
    background = f"(until [ -e {site.root}/go ]; do sleep 0.05; done; say success 0 now) & exit 0"
    site.way("enable", f"case $0 in *Base*) say transitioning 1 wait; {background} ;; esac")
    wished = [wish("top", kind="Top", dependencyLevel=2), wish("base", kind="Base", dependencyLevel=1)]

    async def scenario(desk: Desk) -> None:
        desk.give(*wished)
        await desk.wait("base", "transitioning")
        assert site.calls() == ["install 1.0.0", "enable 1.0.0"]
        (site.root / "go").touch()
        await desk.wait("top", "succeeded")

    live(site, scenario)


@pytest.mark.parametrize(("fails", "says"), [(True, "base, on which it depends, has failed"), (False, "in time")])
def test_what_depends_on_a_failure_is_skipped_and_says_so(site: Site, fails: bool, says: str) -> None:
    site.package(kind="Base")
    site.package(kind="Top")
    site.way("enable", f"case $0 in *Base*) say {'error' if fails else 'transitioning'} 1 x; exit 0 ;; esac")

    async def scenario(desk: Desk) -> None:
        desk.give(wish("top", kind="Top", dependencyLevel=2), wish("base", kind="Base"))
        entry = await desk.wait("top", "failed", code=1000)
        assert says in entry["message"]

    live(site, scenario, dependency=0.5)
    assert site.calls() == ["install 1.0.0", "enable 1.0.0"]


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"custom": {"version": "2.0.0"}}, 1004, "another version"),
        ({"custom": {"publisher": "Other"}}, 1004, "another extension"),
        ({"custom": {"os": "windows"}}, 1004, "another system"),
        ({"custom": {"arch": "riscv"}}, 1004, "another system"),
        ({"wish": {"package": {"path": "extensions/Test.Fake/1.0.0/linux.zip", "sha256": "1" * 64}}}, 1004, "sha256"),
        ({"zip": b"no zip at all"}, 1005, "no zip archive"),
        ({"manifest": b"{"}, 1003, "is not JSON"),
        ({"manifest": b"{}"}, 1003, "is not an array"),
        ({"manifest": b'[{"handlerManifest": {"installCommand": "x"}}]'}, 1003, "no usable enableCommand"),
        ({"manifest": None}, 1002, "no manifest in the package"),
        ({"root": None}, 1004, "names no root of trust"),
    ],
)
def test_packages_that_cannot_be_used_run_nothing(site: Site, change: dict[str, Any], code: int, says: str) -> None:
    files = {"HandlerManifest.json": change["manifest"]} if change.get("manifest") else {}
    site.package(files=files)
    custom = site.root / FOLDER / "custom.json"
    custom.write_text(json.dumps({**json.loads(custom.read_text()), **change.get("custom", {})}))
    if "manifest" in change and change["manifest"] is None:
        _without_manifest(site)
    if "zip" in change:
        (site.root / FOLDER / "linux.zip").write_bytes(change["zip"])
    if "root" in change:
        path = site.state / "clouds/demo.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "tuf_root": None}))

    async def scenario(desk: Desk) -> None:
        desk.give(wish(**change.get("wish", {})))
        entry = await desk.wait("fake", "failed", code=code)
        assert says in entry["message"]
        assert entry["handler"]["code"] == code
        await desk.idle()
        desk.give()
        await desk.until(lambda: not desk.last(), "forgotten")
        await desk.idle()

    live(site, scenario)
    assert site.calls() == []
    assert not site.folder_of().exists()
    assert site.record() is None


def _without_manifest(site: Site) -> None:
    import zipfile

    with zipfile.ZipFile(site.root / FOLDER / "linux.zip", "w") as archive:
        archive.writestr("bin/handler.sh", "")


def test_a_manifest_with_a_mark_in_a_folder_below(site: Site) -> None:
    site.package(manifest={"supportsMultipleExtensions": "TRUE", "somethingNew": {}})
    with_mark = site.root / "moved"
    shutil.unpack_archive(site.root / FOLDER / "linux.zip", with_mark)
    manifest = (with_mark / "HandlerManifest.json").read_bytes()
    (with_mark / "HandlerManifest.json").unlink()
    (with_mark / "meta").mkdir()
    (with_mark / "meta/HandlerManifest.json").write_bytes(b"\xef\xbb\xbf" + manifest)
    shutil.make_archive(str(site.root / FOLDER / "linux"), "zip", with_mark)

    async def scenario(desk: Desk) -> None:
        desk.give(wish("one"), wish("two"))
        await desk.wait("one", "succeeded")
        await desk.wait("two", "succeeded")

    live(site, scenario)
    assert (site.folder_of() / "HandlerManifest.json").read_bytes() == manifest
    assert (site.folder_of() / "config/one.0.settings").exists()


@pytest.mark.parametrize("trouble", ["network", "expired"])
def test_a_repository_that_is_away_or_late_is_asked_again_and_given_up(site: Site, trouble: str) -> None:
    site.package(trouble=trouble)

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        entry = await desk.wait("fake", "installing", operation="download")
        await desk.until(lambda: "try 2 of 3" in desk.last()["fake"]["message"], "second try")
        assert entry["code"] == 0
        await desk.wait("fake", "failed", code=1004)
        site.package()
        desk.give(wish())
        await desk.wait("fake", "succeeded")

    live(site, scenario, download_tries=3, report=0.0)


def test_a_package_that_comes_slowly_is_waited_for(site: Site) -> None:
    site.package(trouble="slow")

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        await desk.wait("fake", "installing", operation="download", message="half of it is there. Wait")
        await desk.until(lambda: site.asked() > 5, "asked again and again")
        site.package()
        await desk.wait("fake", "succeeded")

    live(site, scenario, download_tries=3, report=0.0)


def test_two_extensions_of_a_handler_for_one(site: Site) -> None:
    site.package()

    async def scenario(desk: Desk) -> None:
        desk.give(wish("one"), wish("two"))
        assert "one extension at a time" in (await desk.wait("one", "failed", code=1000))["message"]
        await desk.wait("two", "failed", code=1000)
        desk.give(wish("one"))
        await desk.wait("one", "succeeded")

    live(site, scenario)


def test_faulty_entries_are_reported_and_hold_what_is_there(site: Site) -> None:
    site.package()

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        await desk.wait("fake", "succeeded")
        desk.give(wish(sequence=-1), wish("../evil", kind="Evil"), wish("a", version="1/../..", kind="B"))
        entry = await desk.wait("fake", "failed", code=1000)
        assert "sequence" in entry["message"]
        assert set(desk.last()) == {"fake", "a"}
        desk.give(wish(), wish("more", version="1.0.1"))
        assert "several versions" in (await desk.wait("more", "failed"))["message"]
        await desk.wait("fake", "failed")
        desk.give(wish())
        await desk.wait("fake", "succeeded")

    live(site, scenario)
    assert site.calls() == ["install 1.0.0", "enable 1.0.0"]


def test_an_expired_document_repeats_and_changes_nothing(site: Site) -> None:
    site.package()
    site.package("2.0.0")

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        await desk.wait("fake", "succeeded")
        await desk.idle()

    async def later(desk: Desk) -> None:
        desk.give(wish(version="2.0.0"), exp=time.time() - 1)
        assert "has expired" in (await desk.wait("fake", "failed"))["message"]
        desk.give(wish(), exp=time.time() - 1)
        await desk.until(lambda: site.calls()[2:] == ["enable 1.0.0"], "enabled again")
        await desk.wait("fake", "succeeded")
        desk.give(exp=time.time() - 1)
        await desk.until(lambda: desk.reports[-1]["generation"] == site.generation, "looked at")

    live(site, scenario)
    live(site, later)
    assert site.folder_of().exists()


def test_what_waits_for_a_clock_that_is_ahead_is_done_when_it_is_right(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.package()
    genuine = time.time

    async def scenario(desk: Desk) -> None:
        exp = genuine() + 3600
        monkeypatch.setattr(time, "time", lambda: exp)
        desk.give(wish(), exp=exp)
        assert "has expired" in (await desk.wait("fake", "failed"))["message"]
        told = len(desk.reports)
        await sleep(0.5)
        assert (len(desk.reports), site.calls()) == (told, [])
        monkeypatch.setattr(time, "time", genuine)
        await desk.wait("fake", "succeeded")
        await desk.idle()
        monkeypatch.setattr(time, "time", lambda: exp)
        desk.give(exp=exp)
        await desk.until(lambda: desk.reports[-1]["generation"] == site.generation, "taken up")
        await sleep(0.5)
        assert site.calls() == ["install 1.0.0", "enable 1.0.0"]
        monkeypatch.setattr(time, "time", genuine)
        await desk.until(lambda: site.record() is None, "removed")
        await desk.idle()
        monkeypatch.setattr(time, "time", lambda: exp)
        desk.engine.look()
        await sleep(0.5)
        assert desk.engine._clock is None, "nothing waits, and nobody looks at the clock"

    live(site, scenario)


def test_another_registrations_secret_of_the_same_number_is_taken(site: Site) -> None:
    site.package()
    seen = site.root / "seen"
    site.way("enable", f"[ -e mrseq ] || cat config/0.settings >>{seen}; echo >>{seen}")
    thumbprint, pem = certificate_of(site.csr)
    former, present = (envelope(pem, json.dumps({"secret": secret}), site.root) for secret in ("former", "present"))
    told: dict[str, Any] = {"protectedSettingsCertThumbprint": thumbprint, "publicSettings": {"a": 1}}

    async def scenario(desk: Desk) -> None:
        for machine, protected in (("former", former), ("former", former), ("present", present)):
            made = wish(protectedSettings=protected, incarnation=machine, **told)
            desk.give(made, certificates={thumbprint: pem}, machine=machine)
            await desk.wait("fake", "succeeded")
            await desk.idle()

    live(site, scenario)
    first = ["install 1.0.0", "enable 1.0.0"]
    assert site.calls() == [*first, "disable 1.0.0", "uninstall 1.0.0", *first]
    given = [json.loads(line) for line in seen.read_text().split("\n") if line]
    handed = [one["runtimeSettings"][0]["handlerSettings"]["protectedSettings"] for one in given]
    assert handed == [former, present]


def test_handlers_of_a_copied_disk_stay_until_they_are_wished_here_too(site: Site) -> None:
    """An adopted clone: its hub knows of none of them, and a wish for something else takes none away."""
    site.package()
    site.package(kind="Next")
    site.package(kind="Many", manifest={"supportsMultipleExtensions": True})

    async def original(desk: Desk) -> None:
        desk.give(wish(sequence=3), wish("one", kind="Many"), machine="original")
        for name in ("fake", "one"):
            await desk.wait(name, "succeeded")
        await desk.idle()

    async def clone(desk: Desk) -> None:
        desk.give(wish("next", kind="Next"), machine="clone")
        await desk.wait("next", "succeeded")
        await desk.idle()
        assert set(desk.last()) == {"next"}
        assert sorted(site.calls()[before:]) == ["enable 1.0.0", "install 1.0.0"], "nothing but Next's"
        desk.give(wish("next", kind="Next"), wish(sequence=3), machine="clone")
        await desk.wait("fake", "succeeded")
        await desk.idle()

    live(site, original)
    before = len(site.calls())
    assert (site.folder_of() / "mrseq").read_text() == "3\n"
    site.way("install", f"ls mrseq >>{site.root}/remembered 2>&1")
    live(site, clone)
    assert site.calls()[before + 2 :] == ["disable 1.0.0", "uninstall 1.0.0", "install 1.0.0", "enable 1.0.0"]
    assert "cannot access" in (site.root / "remembered").read_text().splitlines()[-1], "the sequence is forgotten"
    assert (site.record() or {})["machine"] == (site.record("Next") or {})["machine"] == "clone"
    assert (site.record("Many") or {})["machine"] == "original"
    assert site.folder_of(kind="Many").exists()

    async def alone(desk: Desk) -> None:
        desk.give(machine="clone")
        await desk.until(lambda: site.record() is None and site.record("Next") is None, "removed")
        await desk.idle()

    live(site, alone)
    assert (site.record("Many") or {})["state"] == "Enabled"


def test_what_was_done_for_the_former_machine_is_not_told_as_another_s(site: Site) -> None:
    site.package()
    site.way("install", f"while [ ! -e {site.root}/go ]; do sleep 0.02; done")

    async def scenario(desk: Desk) -> None:
        desk.give(wish(), machine="a")
        await desk.wait("fake", "installing", operation="install")
        await desk.until(lambda: site.calls() == ["install 1.0.0"], "install runs")
        desk.payload = None
        desk.engine.look()
        desk.give(wish(), machine="b")
        told = len(desk.reports)
        (site.root / "go").touch()
        await desk.wait("fake", "succeeded")
        await desk.idle()
        assert {report["generation"] for report in desk.reports[told:]} == {site.generation}
        told, desk.payload = len(desk.reports), None
        said = site.folder_of() / "status/0.status"
        said.write_text(said.read_text().replace("success", "error"))
        await desk.until(lambda: "fake 1.0.0 is failed" in site.log("extensions"), "heard of")
        await sleep(0.3)
        assert len(desk.reports) == told

    live(site, scenario)
    done = ["install 1.0.0", "enable 1.0.0"]
    assert site.calls() == [*done, "disable 1.0.0", "uninstall 1.0.0", *done]


def test_what_the_former_machine_s_handler_says_is_no_answer_to_the_new_one_s_wish(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.package()
    thumbprint, pem = certificate_of(site.csr)
    genuine = extd.Doubles.call

    async def slow(self: extd.Doubles, verb: str, arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
        said = site.folder_of() / "status/0.status"
        if verb == "own-certificates" and said.exists():
            said.write_text(said.read_text().replace("done 0", "of the former"))
            await sleep(1)
        return await genuine(self, verb, arguments, seconds)

    async def scenario(desk: Desk) -> None:
        desk.give(wish(), machine="a")
        await desk.wait("fake", "succeeded")
        await desk.idle()
        protected = envelope(pem, "{}", site.root)
        told: dict[str, Any] = {"protectedSettings": protected, "protectedSettingsCertThumbprint": thumbprint}
        desk.give(wish(**told), certificates={thumbprint: pem}, machine="b")
        await desk.wait("fake", "succeeded", message="done 0")
        messages = [report["extensions"][0]["message"] for report in desk.reports if report["generation"] == 2]
        assert "of the former" not in messages

    monkeypatch.setattr(extd.Doubles, "call", slow)
    live(site, scenario)


def test_a_key_that_has_changed_since_is_not_put_under_another_certificate_s_name(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.package()
    thumbprint, pem = certificate_of(site.csr)
    protected = envelope(pem, "{}", site.root)
    key, other = site.folder("extensions") / "keys/settings.key", site.root / "other.key"
    keys.make_key({"path": str(other), "name": "extd"})
    genuine = extd.fetch

    def fetch(repository: Path, arguments: dict[str, Any]) -> dict[str, Any]:
        # Root binds another machine meanwhile.
        other.replace(key)
        return genuine(repository, arguments)

    monkeypatch.setattr(extd, "fetch", fetch)

    async def scenario(desk: Desk) -> None:
        told: dict[str, Any] = {"protectedSettings": protected, "protectedSettingsCertThumbprint": thumbprint}
        desk.give(wish(**told), certificates={thumbprint: pem})
        entry = await desk.wait("fake", "failed", code=1000)
        assert "not for a key of this machine" in entry["message"]

    live(site, scenario)
    assert list((site.root / "var/lib/waagent").glob(f"{thumbprint}.*")) == []
    assert site.calls() == []


def test_records_of_the_former_version_are_those_of_its_machine(site: Site) -> None:
    site.package()

    async def original(desk: Desk) -> None:
        desk.give(wish(), machine="original")
        await desk.wait("fake", "succeeded")
        await desk.idle()

    live(site, original)
    path = site.folder("extensions") / "handlers.json"
    found = json.loads(path.read_text())
    del found["handlers"]["test.fake"]["machine"]
    path.write_text(json.dumps(found))

    async def removed(desk: Desk) -> None:
        desk.give(machine="original")
        await desk.until(lambda: site.record() is None, "removed")

    live(site, removed)


def test_a_newer_document_takes_over_between_two_handlers(site: Site) -> None:
    for kind in ("Fake", "Next"):
        site.package(kind=kind)
    site.way("install", f"until [ -e {site.root}/go ]; do sleep 0.02; done")

    async def scenario(desk: Desk) -> None:
        desk.give(wish(), wish("next", kind="Next"))
        await desk.until(lambda: site.calls() == ["install 1.0.0"], "the first install runs")
        desk.give(wish())
        (site.root / "go").touch()
        await desk.wait("fake", "succeeded")
        await desk.idle()
        assert set(desk.last()) == {"fake"}

    live(site, scenario)
    assert site.calls() == ["install 1.0.0", "enable 1.0.0"]


def test_a_damaged_memory_is_made_anew_from_the_document(site: Site) -> None:
    site.package()

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        await desk.wait("fake", "succeeded")
        await desk.idle()

    live(site, scenario)
    folder = site.folder("extensions")
    (folder / "handlers.json").write_text('{"handlers": 3}')
    (folder / "plan.json").write_text("{")
    live(site, scenario)
    assert (folder / "handlers.json.damaged").exists()
    assert site.calls() == ["install 1.0.0", "enable 1.0.0"] * 2


def test_a_log_folder_that_cannot_be_written_stops_nothing(site: Site) -> None:
    site.package()
    logs = site.root / "var/lib/GuestConfig/extension_logs/Test.Fake-1.0.0"
    logs.mkdir(parents=True)
    (logs / "CommandExecution.log").mkdir()

    async def scenario(desk: Desk) -> None:
        desk.give(wish())
        await desk.wait("fake", "succeeded")

    live(site, scenario)


def test_what_failed_is_not_tried_again_because_another_waits(site: Site) -> None:
    site.package(trouble="network")
    site.package(kind="Bad")
    site.way("install", "case $0 in *Bad*) exit 1 ;; esac")

    async def scenario(desk: Desk) -> None:
        desk.give(wish("bad", kind="Bad"), wish())
        await desk.wait("bad", "failed", code=1007)
        await desk.wait("fake", "failed", code=1004)
        assert site.calls() == ["install 1.0.0"]
        assert desk.last()["bad"]["code"] == 1007
        desk.engine.look()
        await desk.until(lambda: site.calls() == ["install 1.0.0"] * 2, "tried again when asked")
        await desk.wait("bad", "failed", code=1007)

    live(site, scenario, download_tries=4)
