# SPDX-License-Identifier: Apache-2.0
"""extd as a real process: run commands from document to report (docs/protocol.md section 15.5)."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from agent_runtime.platform import processes
from tests.unit.agent_extensions.kit import Extd, Hub, Site, certificate_of, command, envelope
from tests.unit.agent_services.courier import CHECKOUT
from tests.waiting import until

SCHEMA = json.loads((CHECKOUT / "docs/schemas/report-runcommands.schema.json").read_text())
DESIRED = json.loads((CHECKOUT / "docs/schemas/desired-runcommands.schema.json").read_text())


def give(site: Site, hub: Hub, *commands: dict[str, Any], **changes: Any) -> None:
    Draft7Validator(DESIRED).validate({"runCommands": list(commands), "certificates": {}})
    hub.give(site.commands(*commands, **changes), "runcommands")


def remains(site: Site) -> list[Path]:
    """What runs have left."""
    folder = site.folder("extensions")
    return [*folder.glob("commands/*"), *folder.glob("scripts/*")]


def test_a_hub_that_was_restored_has_nothing_run_again(site: Site) -> None:
    def script(text: str) -> str:
        return f"echo {text} >>{site.root}/ran"

    with Hub(site) as hub, Extd(site) as extd:
        give(site, hub, command(script("today"), sequence=5))
        hub.ends("run", "Succeeded", 5)
        give(site, hub, command(script("yesterday"), sequence=3), command(script("other"), "other"))
        hub.ends("other", "Succeeded")
        known = hub.command("run")
        assert known is not None
        assert (known["sequence"], known["executionState"]) == (5, "Succeeded")
        give(site, hub, command(script("anew"), sequence=0, incarnation="18-1790000001"))
        hub.ends("run", "Succeeded", 0)
        assert extd.stop() == 0
    assert (site.root / "ran").read_text() == "today\nother\nanew\n"


def test_a_script_is_run_once_and_how_it_ended_is_reported(site: Site) -> None:
    script = f"echo ran >>{site.root}/ran; echo out; echo 'https://x/y?sig=abc' >&2; exit $CODE"
    with Hub(site) as hub:
        with Extd(site) as extd:
            give(site, hub, command(script, parameters=[{"name": "CODE", "value": "0"}]))
            entry = hub.ends("run", "Succeeded")
            assert (entry["exitCode"], entry["output"], entry["error"]) == (0, "out\n", "https://x/y?sig=[hidden]\n")
            assert entry["startTime"] <= entry["endTime"]
            until(lambda: not remains(site), "nothing is left")
            give(
                site,
                hub,
                command(script, parameters=[{"name": "CODE", "value": "0"}]),
                command("exit 3", "bad"),
                command("#!/bin/cat\n", "cat"),
            )
            assert hub.ends("bad", "Failed")["exitCode"] == 3
            assert hub.ends("cat", "Succeeded")["output"] == "#!/bin/cat\n"
            assert extd.stop() == 0
        with Extd(site) as extd:
            give(site, hub, command(script, sequence=1, parameters=[{"name": "CODE", "value": "4"}]))
            assert hub.ends("run", "Failed", 1)["exitCode"] == 4
            until(lambda: hub.command("bad") is None, "what is not listed any more is gone")
            assert extd.stop() == 0
    assert (site.root / "ran").read_text() == "ran\nran\n"
    for report in hub.told:
        Draft7Validator(SCHEMA).validate(report)


def test_a_script_that_takes_too_long_is_ended(site: Site) -> None:
    with Hub(site) as hub, Extd(site) as extd:
        script = f"echo begun; sleep 60 & echo $! >{site.root}/child; wait"
        give(site, hub, command(script, timeoutSeconds=1))
        entry = hub.ends("run", "TimedOut")
        assert (entry["exitCode"], entry["output"]) == (None, "begun\n")
        assert entry["executionMessage"] == "The script took longer than 1 s and was ended."
        assert not processes.is_there(int((site.root / "child").read_text()))
        assert extd.stop() == 0


@pytest.mark.parametrize("change", ["removed", "anew"])
def test_a_script_that_is_not_wished_any_more_is_ended(site: Site, change: str) -> None:
    with Hub(site) as hub, Extd(site) as extd:
        give(site, hub, command(f"echo so far; echo $$ >{site.root}/pid; exec sleep 60"), command("sleep 60", "other"))
        until(lambda: (hub.command("run") or {}).get("output") == "so far\n", "output of what runs is reported")
        pid = int((site.root / "pid").read_text())
        assert processes.is_there(pid)
        others = () if change == "removed" else (command("echo anew", sequence=1),)
        give(site, hub, command("sleep 60", "other"), *others)
        if change == "removed":
            until(lambda: hub.command("run") is None, "gone")
        else:
            assert hub.ends("run", "Succeeded", 1)["output"] == "anew\n"
        assert not processes.is_there(pid)
        assert hub.ends("other", "Running")["startTime"]
        give(site, hub)
        until(lambda: hub.told[-1]["runCommands"] == [], "all gone")
        until(lambda: not remains(site), "nothing is left")
        assert extd.stop() == 0


@pytest.mark.parametrize("moment", ["running", "ended"])
def test_a_script_outlives_a_kill_and_runs_once(site: Site, moment: str) -> None:
    script = f"echo ran >>{site.root}/ran; while [ ! -e {site.root}/go ]; do sleep 0.02; done; echo end; exit 7"
    with Hub(site) as hub:
        with Extd(site) as extd:
            give(site, hub, command(script))
            hub.ends("run", "Running")
            extd.kill()
        if moment == "ended":
            (site.root / "go").touch()
            until(lambda: list(site.folder("extensions").glob("commands/*/exit")), "ended without the service")
        with Extd(site) as extd:
            (site.root / "go").touch()
            entry = hub.ends("run", "Failed")
            assert (entry["exitCode"], entry["output"]) == (7, "end\n")
            assert extd.stop() == 0
    assert (site.root / "ran").read_text() == "ran\n"


def test_whenever_the_service_is_killed_a_script_runs_once(site: Site) -> None:
    names = [f"c{number:02}" for number in range(12)]
    with Hub(site) as hub:
        give(site, hub, *(command(f"echo {name} >>{site.root}/ran; sleep 0.1", name) for name in names))
        for number in range(8):
            with Extd(site) as extd:
                time.sleep(0.2 + number * 0.03)
                extd.kill()
        hub.told.clear()
        with Extd(site) as extd:
            until(lambda: hub.told and states(hub) == ["Succeeded"] * 12, "all have ended well")
            assert extd.stop() == 0
    assert sorted((site.root / "ran").read_text().split()) == names


@pytest.mark.parametrize("left", ["all", "nothing"])
def test_a_script_that_the_power_was_taken_from_is_not_repeated(site: Site, left: str) -> None:
    with Hub(site) as hub:
        with Extd(site) as extd:
            give(site, hub, command(f"echo ran >>{site.root}/ran; echo $$ >{site.root}/pid; exec sleep 60"))
            hub.ends("run", "Running")
            extd.kill()
        os.kill(int((site.root / "pid").read_text()), 9)
        (path,) = site.folder("extensions").glob("commands/*/command.json")
        until((path.parent / "exit").exists, "ended")
        (path.parent / "exit").unlink()
        path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "another"}))
        if left == "nothing":
            shutil.rmtree(path.parent)
        with Extd(site) as extd:
            entry = hub.ends("run", "Failed")
            assert entry["startTime"]
            assert "restarted" in entry["executionMessage"]
            assert extd.stop() == 0
    assert (site.root / "ran").read_text() == "ran\n"


def test_protected_parameters_reach_the_script_and_nobody_else(site: Site) -> None:
    secret, plain = 'it\'s a "$secret"', "is seen"
    script = f'printf "%s|" "$WORD" "$@" >{site.root}/seen'
    with Hub(site) as hub, Extd(site) as extd:
        thumbprint, pem = certificate_of(site.csr)
        listed = {"protectedParameters": [{"name": "WORD", "value": secret}, {"name": "", "value": "second"}]}
        sealed: dict[str, Any] = {
            "protected": envelope(pem, json.dumps(listed), site.root),
            "protectedSettingsCertThumbprint": thumbprint,
        }
        parameters = [{"name": "", "value": plain}, {"name": "WORD", "value": "public"}]
        give(site, hub, command(script, parameters=parameters, **sealed))
        hub.ends("run", "Succeeded")
        assert (site.root / "seen").read_text() == f"{secret}|{plain}|second|"
        give(site, hub, command("true", sequence=1, **{**sealed, "protected": "AAAA"}))
        entry = hub.ends("run", "Failed", 1)
        assert entry["startTime"] is None
        assert "not for a key of this machine" in entry["executionMessage"]
        assert extd.stop() == 0
    (site.root / "seen").unlink()
    files = [path for path in site.root.rglob("*") if path.is_file()]
    assert [path for path in files if b"$secret" in path.read_bytes()] == []


def test_a_script_of_another_user(site: Site) -> None:
    site.root.chmod(0o755)
    with Hub(site) as hub, Extd(site) as extd:
        script = '#!/bin/bash\nid -un; id -gn; echo "$HOME $1 ${HTTPS_PROXY:-none}"; exit 5'
        give(site, hub, command(script, runAsUser="nobody", parameters=[{"name": "", "value": "a b"}]))
        entry = hub.ends("run", "Failed")
        assert (entry["exitCode"], entry["error"]) == (5, "")
        user, group, words = entry["output"].splitlines()
        assert (user, words) == ("nobody", "/nonexistent a b none")
        assert group == "nogroup"
        assert extd.stop() == 0


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"runAsUser": "nobody-here"}, "There is no user 'nobody-here'"),
        ({"outputBlobUri": "https://b/c?sig=x"}, "does not upload output"),
        ({"scriptUri": "http://h/s.sh"}, "no https address"),
        ({"scriptUri": "https://127.0.0.1:1/s.sh?sig=abc"}, "could not be downloaded from 127.0.0.1: the connection"),
        ({"parameters": [{"name": "a b", "value": ""}]}, "cannot be an environment variable"),
    ],
)
def test_what_cannot_be_started_says_why(site: Site, more: dict[str, Any], told: str) -> None:
    with Hub(site) as hub, Extd(site) as extd:
        give(site, hub, command("true", **more))
        entry = hub.ends("run", "Failed")
        assert told in entry["executionMessage"]
        assert "abc" not in entry["executionMessage"]
        assert (entry["startTime"], entry["exitCode"]) == (None, None)
        assert extd.stop() == 0


def test_the_machine_s_own_controls(site: Site) -> None:
    site.configure(extensions_blocklist=["microsoft.cplat.core/RunCommandHandlerLinux"])
    with Hub(site) as hub:
        with Extd(site) as extd:
            give(site, hub, command("true"))
            entry = hub.ends("run", "Failed")
            assert "extensions.blocklist" in entry["executionMessage"]
            assert entry["startTime"] is None
            assert extd.stop() == 0
        site.configure(extensions_enabled=False)
        with Extd(site) as extd:
            give(site, hub, command("true", sequence=1))
            time.sleep(1)
            assert hub.command("run") == entry
            assert extd.stop() == 0
        site.configure()
        with Extd(site) as extd:
            hub.ends("run", "Succeeded", 1)
            assert extd.stop() == 0


def test_several_run_beside_each_other_and_no_more_than_a_few(site: Site) -> None:
    wait = f"while [ ! -e {site.root}/go ]; do sleep 0.02; done"
    with Hub(site) as hub, Extd(site) as extd:
        give(site, hub, *(command(wait, f"c{number}") for number in range(6)))
        until(lambda: hub.told and states(hub).count("Running") == 4, "four run")
        time.sleep(0.3)
        assert sorted(states(hub)) == ["Pending"] * 2 + ["Running"] * 4
        (site.root / "go").touch()
        until(lambda: states(hub) == ["Succeeded"] * 6, "all have ended")
        assert extd.stop() == 0


def test_reports_wait_for_himds(site: Site) -> None:
    kept = site.folder("extensions") / "queue/report-state-runcommands.json"
    with Extd(site) as extd:
        with Hub(site) as hub:
            give(site, hub, command(f"while [ ! -e {site.root}/go ]; do sleep 0.02; done"))
            hub.ends("run", "Running")
        (site.root / "go").touch()
        until(lambda: kept.exists() and "Succeeded" in kept.read_text(), "report kept")
        with Hub(site) as hub:
            hub.ends("run", "Succeeded")
            until(lambda: not kept.exists(), "report handed over")
            assert extd.stop() == 0


def test_a_report_that_himds_did_not_take_in_time_is_not_told_as_another_machine_s(site: Site) -> None:
    other = "99999999-57f1-4f11-9d6d-0f3f9d1d2c3b"
    kept = site.folder("extensions") / "queue/report-state-runcommands.json"
    with Extd(site) as extd:
        with Hub(site) as hub:
            give(site, hub, command(f"while [ ! -e {site.root}/go ]; do sleep 0.02; done"))
            hub.ends("run", "Running")
        (site.root / "go").touch()
        until(lambda: kept.exists() and "Succeeded" in kept.read_text(), "report kept")
        site.bind(other)
        with Hub(site) as hub:
            give(site, hub, command("true", "other"), machine=other)
            hub.ends("other", "Succeeded")
            assert {entry["name"] for told in hub.told for entry in told["runCommands"]} == {"other"}
            assert extd.stop() == 0


def test_a_script_waits_for_a_clock_that_is_ahead(site: Site) -> None:
    ahead = site.root / "ahead"
    with Hub(site) as hub, Extd(site) as extd:
        give(site, hub, command("true", "first"))
        hub.ends("first", "Succeeded")
        hub.tell("parked")
        give(site, hub, command(f"echo ran >>{site.root}/ran"))
        until(lambda: "generation 2 verified" in site.log("extensions"), "document kept")
        ahead.touch()
        hub.tell("connected")
        time.sleep(0.5)
        assert hub.command("first") is not None
        assert not (site.root / "ran").exists()
        ahead.unlink()
        hub.ends("run", "Succeeded")
        assert extd.stop() == 0
    assert (site.root / "ran").read_text() == "ran\n"


def states(hub: Hub) -> list[str]:
    return [entry["executionState"] for entry in hub.told[-1]["runCommands"]]


def test_a_damaged_memory_repeats_nothing(site: Site) -> None:
    with Hub(site) as hub:
        with Extd(site) as extd:
            give(site, hub, command(f"echo ran >>{site.root}/ran"))
            hub.ends("run", "Succeeded")
            assert extd.stop() == 0
        (site.folder("extensions") / "runcommands.json").write_text("{")
        with Extd(site) as extd:
            assert "may have run" in hub.ends("run", "Failed")["executionMessage"]
            assert extd.stop() == 0
    assert (site.root / "ran").read_text() == "ran\n"
