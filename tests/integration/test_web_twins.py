# SPDX-License-Identifier: Apache-2.0
"""Twins on the page: who sees them, and what an operator decides there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration import web_fleet
from tests.integration.hub_machine import Machine
from tests.integration.hub_process import HubProcess
from tests.integration.test_web import Visitor, hidden


@pytest.fixture(scope="module")
def hub(make_hub: Callable[..., HubProcess]) -> HubProcess:
    made = make_hub("--location", "hamburg")
    web_fleet.make_user(made)
    web_fleet.make_user(made, "reader", "Reader")
    return made


@pytest.fixture(scope="module")
def originals(hub: HubProcess) -> list[Machine]:
    return web_fleet.copy_some(hub, hub.token(hub.principal("rollout", "Owner")))


@pytest.fixture
def ada(hub: HubProcess) -> Visitor:
    visitor = Visitor(hub)
    visitor.sign_in()
    return visitor


def test_twins_are_listed_and_decided(hub: HubProcess, ada: Visitor, originals: list[Machine]) -> None:
    page = ada.get("/fleet/twins")
    assert page.status_code == 200
    assert page.text.count("kiosk01-ham-copy") == 3
    assert "dmi_uuid, dmi_serial" in page.text
    assert page.text.count('value="adopt"') == 4
    (twin,) = [item for item in hub.json("twins") if item["hostname"] == "erp01-rot-copy0"]
    fields = {"csrf": hidden(page.text)["csrf"], "twin": str(twin["id"]), "decision": "reject"}
    assert ada.post("/fleet/twins/decide", {**fields, "csrf": ""}).status_code == 403
    assert ada.post("/fleet/twins/decide", {**fields, "decision": "delete"}).status_code == 400
    assert ada.post("/fleet/twins/decide", {**fields, "twin": "99999"}).status_code == 404
    done = ada.post("/fleet/twins/decide", fields)
    assert (done.status_code, done.headers["location"]) == (303, f"/fleet/twins?decided={twin['id']}")
    assert "is told when it next asks" in ada.get(done.headers["location"]).text
    assert hub.json("twins", "show", str(twin["id"]))["state"] == "rejected"
    assert ada.get("/fleet/twins?state=rejected").text.count("-copy") == 1
    assert ada.get("/fleet/twins?state=perhaps").status_code == 400


def test_a_machine_shows_its_twins(ada: Visitor, originals: list[Machine]) -> None:
    text = ada.get(f"/fleet/machine?id={originals[0].resource_id}").text
    assert text.count("kiosk01-ham-copy") == 3
    assert "A twin is open: clone" in text
    assert 'href="/fleet/twins"' in text


def test_a_reader_sees_twins_and_decides_nothing(hub: HubProcess, originals: list[Machine]) -> None:
    reader = Visitor(hub)
    reader.sign_in("reader")
    page = reader.get("/fleet/twins")
    assert page.text.count("-copy") == 4
    assert 'value="adopt"' not in page.text
    number = str(next(item["id"] for item in hub.json("twins") if item["name"] == "kiosk01-ham"))
    fields = {"csrf": hidden(page.text)["csrf"], "twin": number, "decision": "adopt"}
    assert reader.post("/fleet/twins/decide", fields).status_code == 403
    assert hub.json("twins", "show", number)["decision"] is None
    (row,) = hub.rows("SELECT actor, code FROM audit WHERE action = 'twins/decide' AND actor = 'reader'")
    assert row == ("reader", "AuthorizationFailed")


def test_whoever_sees_no_twins_has_no_such_page(hub: HubProcess, tmp_path: Path) -> None:
    web_fleet.make_user(hub, "porter", "Onboarding")
    porter = Visitor(hub)
    porter.sign_in("porter")
    assert "/fleet/twins" not in porter.get("/fleet").text
    assert porter.get("/fleet/twins").status_code == 403
