# SPDX-License-Identifier: Apache-2.0
"""extd as a real process: the life of a handler from document to report (extension-handler.md sections 10 to 17)."""

from __future__ import annotations

import json
import stat

from tests.unit.agent_extensions.kit import Extd, Hub, Site, wish


def test_a_handler_is_installed_enabled_and_reported(site: Site) -> None:
    site.package()
    with Hub(site) as hub, Extd(site) as extd:
        hub.give(site.document(wish(publicSettings={"a": 1})))
        entry = hub.wait("fake", "succeeded")
        assert (entry["code"], entry["message"], entry["version"]) == (0, "done 0", "1.0.0")
        assert entry["handler"] == {"status": "Ready", "code": 0, "message": ""}
        assert entry["status"]["operation"] == "enable"
        assert extd.stop() == 0
    assert site.calls() == ["install 1.0.0", "enable 1.0.0"]
    folder = site.folder_of()
    settings = json.loads((folder / "config/0.settings").read_text())
    assert settings["runtimeSettings"][0]["handlerSettings"]["publicSettings"] == {"a": 1}
    assert stat.S_IMODE((folder / "config/0.settings").stat().st_mode) == 0o600
    environment = (folder / "HandlerEnvironment.json").read_text()
    assert environment.startswith('[{"name": "Test.Fake", "version": 1.0, "handlerEnvironment": {"logFolder": "')
    log = site.root / "var/lib/GuestConfig/extension_logs/Test.Fake-1.0.0/CommandExecution.log"
    assert "exit code 0" in log.read_text()
    assert not (site.folder("extensions") / "plan.json").exists()
    assert list((site.folder("extensions") / "running").iterdir()) == []
