# SPDX-License-Identifier: Apache-2.0
"""extd as a real process: the life of a handler from document to report (extension-handler.md sections 10 to 17)."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import time
from typing import Any

import pytest

from tests.unit.agent_extensions.kit import Extd, Hub, Site, certificate_of, command, envelope, wish
from tests.waiting import until


def test_a_handler_is_installed_enabled_and_reported(site: Site) -> None:
    site.package()
    with Hub(site) as hub, Extd(site) as extd:
        hub.give(site.document(wish(publicSettings={"a": 1})))
        entry = hub.wait("fake", "succeeded")
        assert (entry["code"], entry["message"], entry["version"]) == (0, "done 0", "1.0.0")
        assert entry["handler"] == {"status": "Ready", "code": 0, "message": ""}
        assert entry["status"]["operation"] == "enable"
        until(lambda: not (site.folder("extensions") / "plan.json").exists(), "plan ended")
        assert extd.stop() == 0
    assert site.calls() == ["install 1.0.0", "enable 1.0.0"]
    folder = site.folder_of()
    settings = json.loads((folder / "config/0.settings").read_text())
    assert settings["runtimeSettings"][0]["handlerSettings"]["publicSettings"] == {"a": 1}
    assert stat.S_IMODE((folder / "config/0.settings").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    environment = (folder / "HandlerEnvironment.json").read_text()
    assert environment.startswith('[{"name": "Test.Fake", "version": 1.0, "handlerEnvironment": {"logFolder": "')
    assert (folder / "config/HandlerState").read_text() == "Enabled"
    told = {"name": "Test.Fake", "version": "1.0.0", "status": "Ready", "code": 0, "message": ""}
    assert json.loads((folder / "config/HandlerStatus").read_text()) == told
    log = site.root / "var/lib/GuestConfig/extension_logs/Test.Fake-1.0.0/CommandExecution.log"
    assert "exit code 0" in log.read_text()
    assert list((site.folder("extensions") / "running").iterdir()) == []


def test_the_life_of_an_extension_to_its_removal(site: Site) -> None:
    site.package()
    with Hub(site) as hub:
        with Extd(site) as extd:
            hub.give(site.document(wish()))
            hub.wait("fake", "succeeded", sequence=0)
            hub.give(site.document(wish(sequence=1, publicSettings={"a": 2})))
            hub.wait("fake", "succeeded", sequence=1)
            assert extd.stop() == 0
        with Extd(site) as extd:
            until(lambda: site.calls()[3:] == ["enable 1.0.0"], "enabled again at the start")
            hub.give(site.document())
            hub.gone("fake")
            assert extd.stop() == 0
    assert site.calls()[4:] == ["disable 1.0.0", "uninstall 1.0.0"]
    assert site.calls()[:3] == ["install 1.0.0", "enable 1.0.0", "enable 1.0.0"]
    assert not site.folder_of().exists()
    assert site.record() is None
    assert not list((site.root / "opt/GC_Ext/downloads").iterdir())
    assert (site.root / "var/lib/GuestConfig/extension_logs/Test.Fake-1.0.0").exists()


def test_a_hub_that_was_restored_has_nothing_done_again(site: Site) -> None:
    site.package()
    yesterday = wish(sequence=3, publicSettings={"of": "yesterday"})
    with Hub(site) as hub:
        with Extd(site) as extd:
            hub.give(site.document(wish(sequence=5, publicSettings={"of": "today"})))
            hub.wait("fake", "succeeded", sequence=5)
            hub.give(site.document(yesterday, wish("more", kind="More")))
            hub.wait("more", "failed")  # there is no such package; the document has been taken
            assert hub.wait("fake", "succeeded", sequence=5)["version"] == "1.0.0"
            assert extd.stop() == 0
        assert site.calls() == ["install 1.0.0", "enable 1.0.0"]
        with Extd(site) as extd:
            until(lambda: site.calls()[2:] == ["enable 1.0.0"], "enabled again at the start")
            assert extd.stop() == 0
        settings = site.folder_of() / "config"
        assert [path.name for path in settings.glob("*.settings")] == ["5.settings"]
        assert "today" in (settings / "5.settings").read_text()
        with Extd(site) as extd:
            hub.give(site.document(wish(sequence=5, incarnation="18-1790000001")))
            until(
                lambda: site.calls()[-4:] == ["disable 1.0.0", "uninstall 1.0.0", "install 1.0.0", "enable 1.0.0"],
                "anew",
            )
            assert extd.stop() == 0


def test_protected_settings_reach_the_handler_and_nobody_else(site: Site) -> None:
    secret = "it is a secret, 7391"
    site.package()
    library = site.root / "var/lib/waagent"
    site.way(
        "enable",
        f"""thumb=$(sed 's/.*Thumbprint": "\\([0-9A-F]*\\)".*/\\1/' config/0.settings)
sed 's/.*"protectedSettings": "\\([^"]*\\)".*/\\1/' config/0.settings | base64 -d |
openssl cms -decrypt -inform DER -recip {library}/$thumb.crt -inkey {library}/$thumb.prv >{site.root}/seen || exit 9
""",
    )
    with Hub(site) as hub, Extd(site) as extd:
        thumbprint, pem = certificate_of(site.csr)
        _, foreign = certificate_of(certificate_request())
        protected: dict[str, Any] = {
            "protectedSettings": envelope(pem, json.dumps({"password": secret}), site.root),
            "protectedSettingsCertThumbprint": thumbprint,
        }
        hub.give(site.document(wish(**protected), certificates={thumbprint: pem}))
        hub.wait("fake", "succeeded")
        assert json.loads((site.root / "seen").read_text()) == {"password": secret}
        assert stat.S_IMODE((library / f"{thumbprint}.prv").stat().st_mode) == 0o600
        hub.give(site.document(wish(sequence=1, **protected), certificates={thumbprint: foreign}))
        entry = hub.wait("fake", "failed", sequence=1)
        assert entry["code"] == 1000
        assert "not for a key of this machine" in entry["message"]
        assert site.calls() == ["install 1.0.0", "enable 1.0.0"]
        hub.give(site.document())
        hub.gone("fake")
        until(lambda: not (library / f"{thumbprint}.prv").exists(), "key removed")
        assert extd.stop() == 0
    (site.root / "seen").unlink()
    kept = [path for path in site.root.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert kept == []


def certificate_request() -> str:
    done = subprocess.run(
        ["openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout", "/dev/null"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("verb", ["install", "enable", "disable", "uninstall"])
@pytest.mark.parametrize("moment", ["running", "ended"])
def test_a_kill_in_a_step_neither_loses_nor_repeats_it(site: Site, verb: str, moment: str) -> None:
    """`running`: killed while the command runs, started again while it still does; `ended`: it ends in between."""
    site.package()
    site.way(verb, f"while [ ! -e {site.root}/go ]; do sleep 0.02; done")
    if verb in ("disable", "uninstall"):
        (site.root / "go").touch()
    with Hub(site) as hub:
        with Extd(site) as extd:
            hub.give(site.document(wish()))
            if verb in ("disable", "uninstall"):
                hub.wait("fake", "succeeded")
                (site.root / "go").unlink()
                hub.give(site.document())
            until(lambda: site.calls()[-1:] == [f"{verb} 1.0.0"], f"{verb} runs")
            extd.kill()
        if moment == "ended":
            (site.root / "go").touch()
            until(lambda: list((site.folder("extensions") / "running").glob("*/exit")), "the command ended by itself")
        with Extd(site) as extd:
            if moment == "running":
                until(lambda: "going on with what was interrupted" in site.log("extensions"), "picked up")
                time.sleep(0.2)
                (site.root / "go").touch()
            if verb in ("disable", "uninstall"):
                hub.gone("fake")
            else:
                hub.wait("fake", "succeeded")
            assert extd.stop() == 0
    expected = ["install 1.0.0", "enable 1.0.0", "disable 1.0.0", "uninstall 1.0.0"]
    assert site.calls() == expected[: 4 if verb in ("disable", "uninstall") else 2]


def test_a_restart_of_the_service_leaves_the_running_command_alone(site: Site) -> None:
    site.package()
    site.way("install", f"while [ ! -e {site.root}/go ]; do sleep 0.02; done")
    with Hub(site) as hub:
        with Extd(site) as extd:
            hub.give(site.document(wish()))
            until(lambda: site.calls() == ["install 1.0.0"], "install runs")
            assert extd.stop() == 0
        with Extd(site) as extd:
            (site.root / "go").touch()
            hub.wait("fake", "succeeded")
            assert extd.stop() == 0
    assert site.calls() == ["install 1.0.0", "enable 1.0.0"]


def test_reports_wait_for_himds_and_refusals_travel_beside_them(site: Site) -> None:
    site.package()
    document = site.document(wish())
    folder = site.folder("extensions")
    with Extd(site) as extd:
        with Hub(site) as hub:
            hub.give(document)
            until(lambda: site.calls() == ["install 1.0.0", "enable 1.0.0"], "enabled")
            hub.wait("fake", "succeeded")
        (folder / "queue").mkdir(exist_ok=True)
        (site.folder_of() / "status/0.status").write_text(
            '[{"status": {"status": "error", "code": 3, "formattedMessage": {"lang": "en", "message": "later"}}}]'
        )
        until((folder / "queue/report-state-extensions.json").exists, "report kept")
        with Hub(site) as hub:
            assert hub.wait("fake", "failed")["message"] == "later"
            until(lambda: not (folder / "queue/report-state-extensions.json").exists(), "report handed over")
            hub.give(site.document(wish(), machine="99999999-57f1-4f11-9d6d-0f3f9d1d2c3b"))
            until(lambda: any("desired" in report for report in hub.reports), "refusal reported")
            refusal = next(report["desired"] for report in hub.reports if "desired" in report)
            assert refusal == {"kind": "extensions", "accepted": False, "reason": "machine"}
            assert extd.stop() == 0


def test_without_a_binding_nothing_is_carried_out_and_extensions_stay(site: Site) -> None:
    site.package()
    with Hub(site) as hub, Extd(site) as extd:
        hub.give(site.document(wish()))
        hub.wait("fake", "succeeded")
        site.unbind()
        hub.tell("disconnected")
        until(lambda: "removed" in site.log("extensions"), "document dropped")
        time.sleep(0.3)
        assert extd.stop() == 0
    assert site.calls() == ["install 1.0.0", "enable 1.0.0"]
    assert site.folder_of().exists()


@pytest.mark.parametrize("state", ["parked", "quarantined", "connecting", "expired"])
def test_nothing_is_carried_out_for_an_identity_in_doubt(site: Site, state: str) -> None:
    """The disk of a machine that was in the middle of something was copied, and himds has noticed."""
    site.package()
    site.package(kind="More")
    site.way("install", f"[ $version = 1.0.0 ] && [ -e {site.root}/first ] || exec sleep 60")
    (site.root / "first").touch()
    with Hub(site) as hub:
        with Extd(site) as extd:
            hub.give(site.document(wish()))
            hub.wait("fake", "succeeded")
            (site.root / "first").unlink()
            hub.give(site.document(wish(), wish("more", kind="More")))
            until(lambda: site.calls()[2:] == ["install 1.0.0"], "install runs")
            extd.kill()
        (run,) = (site.folder("extensions") / "running").iterdir()
        os.killpg(int((run / "pid").read_text().split()[0]), signal.SIGKILL)
        assert (site.folder("extensions") / "plan.json").exists()
        (site.root / "first").touch()
        hub.state = state
        with Extd(site) as extd:
            hub.give(site.commands(command(f"touch {site.root}/ran")), "runcommands")
            until(lambda: site.kept("extensions", "runcommands"), "document kept")
            time.sleep(0.3)
            assert site.calls() == ["install 1.0.0", "enable 1.0.0", "install 1.0.0"]
            assert not (site.root / "ran").exists()
            hub.tell("connected")
            hub.wait("more", "succeeded")
            hub.ends("run", "Succeeded")
            until(lambda: not (site.folder("extensions") / "plan.json").exists(), "plan ended")
            hub.tell(state)
            until(lambda: site.log("extensions").count(f"identity is {state}") == 2, "told")
            before, document = site.calls(), site.document()
            hub.give(document)
            until(lambda: site.kept("extensions", "extensions") == document, "document kept")
            time.sleep(0.3)
            assert site.calls() == before
            assert site.folder_of().exists()
            assert extd.stop() == 0


def test_a_lost_connection_to_himds_is_no_doubt(site: Site) -> None:
    site.package(trouble="network")
    with Extd(site) as extd:
        with Hub(site) as hub:
            hub.give(site.document(wish()))
            hub.wait("fake", "installing", operation="download")
        site.package()
        until(lambda: site.calls() == ["install 1.0.0", "enable 1.0.0"], "enabled while himds is away")
        assert extd.stop() == 0
