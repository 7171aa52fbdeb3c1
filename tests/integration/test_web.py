# SPDX-License-Identifier: Apache-2.0
"""The page against a real hub, by HTTP: sign-in, cookies, forms, rights, escaping, sizes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
import requests

from control_plane.clock import now
from control_plane.hub import open_database
from control_plane.people import sessions
from control_plane.web.signing import FORM_COOKIE
from tests.integration import fleet_rows, hub_process, web_fleet
from tests.integration.extension_machine import catalogue_of, package
from tests.integration.hub_machine import API, Machine
from tests.integration.hub_process import HubProcess
from tests.integration.web_fleet import PASSWORD, USER

EVIL = '<script>alert("x")</script>\'; DROP TABLE machines;--'


@pytest.fixture(scope="module")
def hub(make_hub: Callable[..., HubProcess]) -> HubProcess:
    made = make_hub(*web_fleet.LOCATIONS)
    web_fleet.make_user(made)
    web_fleet.make_user(made, "reader", "Reader")
    return made


@pytest.fixture(scope="module")
def machines(hub: HubProcess) -> list[Machine]:
    return web_fleet.enrol(hub, hub.token(hub.principal("rollout", "Owner")), 4)


class Visitor:
    """A browser without script. Cookies are kept as a browser keeps them; redirects are looked at."""

    def __init__(self, hub: HubProcess) -> None:
        self.hub, self.http = hub, hub.session()

    def get(self, path: str, **options: object) -> requests.Response:
        return self.http.get(self.hub.url + path, timeout=30, allow_redirects=False, **options)  # type: ignore[arg-type]

    def post(self, path: str, fields: dict[str, str], **headers: str) -> requests.Response:
        return self.http.post(self.hub.url + path, data=fields, headers=headers, timeout=30, allow_redirects=False)

    def sign_in(self, name: str = USER, password: str = PASSWORD, to: str = "/fleet") -> requests.Response:
        form = self.get(f"/signin?to={to}").text
        return self.post("/signin", {**hidden(form), "name": name, "password": password})

    @property
    def token(self) -> str:
        return str(self.http.cookies.get(sessions.COOKIE, ""))


def hidden(text: str) -> dict[str, str]:
    """The hidden fields of a page."""
    return {name: unescape(value) for name, value in re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', text)}


def audited(hub: HubProcess, target: str) -> list[dict[str, str]]:
    """Audit entries about a machine."""
    return [json.loads(line) for line in hub.run("audit", "--target", target, "--json").stdout.splitlines()]


@pytest.fixture
def nobody(hub: HubProcess) -> Visitor:
    return Visitor(hub)


@pytest.fixture(scope="module")
def ada(hub: HubProcess) -> Visitor:
    visitor = Visitor(hub)
    assert visitor.sign_in().status_code == 303
    return visitor


def test_pages_lead_to_the_sign_in_and_back(nobody: Visitor) -> None:
    assert nobody.get("/").headers["location"] == "/fleet"
    answer = nobody.get("/fleet?status=Expired&tag=a%3Db")
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        "/signin?to=/fleet%3Fstatus%3DExpired%26tag%3Da%253Db",
    )
    done = nobody.sign_in(to=answer.headers["location"].partition("to=")[2])
    assert (done.status_code, done.headers["location"]) == (303, "/fleet?status=Expired&tag=a%3Db")
    assert nobody.get("/signin").headers["location"] == "/fleet"


def test_cookies_are_bound_to_the_hub(nobody: Visitor) -> None:
    form = nobody.get("/signin")
    assert re.fullmatch(
        rf"{FORM_COOKIE}=\S{{43}}; Path=/; Secure; HttpOnly; SameSite=Strict", form.headers["set-cookie"]
    )
    done = nobody.sign_in()
    cookie = next(item for item in done.raw.headers.getlist("set-cookie") if item.startswith(sessions.COOKIE + "="))
    assert {part.strip() for part in cookie.split(";")} >= {"Path=/", "Secure", "HttpOnly", "SameSite=Lax"}
    assert "Domain" not in cookie


@pytest.mark.parametrize(
    "to", ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)", ""]
)
def test_nobody_is_sent_elsewhere(nobody: Visitor, to: str) -> None:
    form = nobody.get("/signin").text
    done = nobody.post("/signin", {**hidden(form), "name": USER, "password": PASSWORD, "to": to})
    assert done.headers["location"] == "/fleet"


def test_a_sign_in_gives_a_session_of_its_own(hub: HubProcess, nobody: Visitor) -> None:
    planted = "A" * 43
    nobody.http.cookies.set(sessions.COOKIE, planted, domain="127.0.0.1", path="/", secure=True)
    nobody.sign_in()
    first = nobody.token
    assert first not in ("", planted)
    nobody.http.cookies.clear()
    assert nobody.get("/fleet", cookies={sessions.COOKIE: planted}).status_code == 303
    form = nobody.get("/signin")
    again = nobody.post(
        "/signin",
        {**hidden(form.text), "name": USER, "password": PASSWORD},
        Cookie=f"{sessions.COOKIE}={first}; {form.headers['set-cookie'].split(';')[0]}",
    )
    assert again.status_code == 303
    assert Visitor(hub).get("/fleet", cookies={sessions.COOKIE: first}).status_code == 303  # the former one has ended


def test_a_wrong_password_is_told_in_one_sentence_and_then_throttled(hub: HubProcess, nobody: Visitor) -> None:
    said = nobody.sign_in("grace", "not the password")
    assert said.status_code == 401
    assert re.search(r'role="alert"[^>]*>Name or password is wrong, or the user is disabled\.<', said.text)
    assert "not the password" not in said.text
    codes = [nobody.sign_in("grace", "not the password").status_code for _ in range(5)]
    assert codes == [401] * 4 + [429]
    assert "retry-after" in nobody.sign_in("grace", "not the password").headers


def test_a_sign_in_form_from_elsewhere_is_refused(hub: HubProcess, nobody: Visitor) -> None:
    fields = {"name": USER, "password": PASSWORD, "to": "/fleet", "form": "x"}
    assert nobody.post("/signin", fields).status_code == 403
    form = nobody.get("/signin").text
    foreign = nobody.post(
        "/signin", {**hidden(form), **fields, "form": hidden(form)["form"]}, Origin="https://evil.example"
    )
    assert foreign.status_code == 403
    assert nobody.token == ""


def test_sign_out_needs_the_form_and_ends_the_session(nobody: Visitor) -> None:
    nobody.sign_in()
    csrf, token = hidden(nobody.get("/fleet").text)["csrf"], nobody.token
    assert nobody.post("/signout", {}).status_code == 403
    assert nobody.post("/signout", {"csrf": csrf}, Origin="null").status_code == 403
    assert nobody.get("/signout").status_code == 405
    assert nobody.post("/signout", {"csrf": csrf}).headers["location"] == "/signin"
    assert nobody.get("/fleet", cookies={sessions.COOKIE: token}).status_code == 303


def test_every_page_has_the_headers_that_keep_it_to_itself(ada: Visitor, machines: list[Machine]) -> None:
    pages = [
        "/signin",
        "/fleet",
        "/fleet/history",
        "/fleet/events",
        "/fleet/audit",
        "/fleet/none",
        f"/fleet/machine?id={machines[0].resource_id}",
    ]
    for path in pages:
        answer = ada.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert (answer.headers["x-content-type-options"], answer.headers["cache-control"]) == ("nosniff", "no-store")
        assert not re.search(
            r"<script(?![^>]* src=\"/static/)|\sstyle=|\son\w+=|<style|(?:href|src|action)=\"(?!/|#main|https://127\.)",
            answer.text,
        )


def test_static_files_are_kept_for_ever_and_pages_are_packed(ada: Visitor) -> None:
    page = ada.get("/fleet", headers={"Accept-Encoding": "gzip"})
    assert page.headers["content-encoding"] == "gzip"
    for path in re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text):
        found = ada.get(path, headers={"Accept-Encoding": "gzip"})
        assert (found.status_code, found.headers["cache-control"]) == (200, "public, max-age=31536000, immutable")
        assert found.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in ada.get("/fleet", headers={"Accept-Encoding": "identity"}).headers
    assert ada.get("/static/page.js").status_code == 404


def test_an_empty_fleet_says_what_to_do_next(hub: HubProcess, tmp_path: Path) -> None:
    empty = hub_process.make(tmp_path / "empty").start()
    try:
        web_fleet.make_user(empty)
        visitor = Visitor(empty)
        visitor.sign_in()
        assert "hawser.machine.site" in visitor.get("/fleet").text
        assert visitor.get("/fleet/history").status_code == 200
    finally:
        assert empty.stop() == 0


def test_filters_stand_in_the_address(ada: Visitor, machines: list[Machine]) -> None:
    def names(query: str) -> list[str]:
        return re.findall(r'<th scope="row"><a [^>]+>([^<]+)</a>', ada.get(f"/fleet{query}").text)

    assert names("") == sorted(machine.name for machine in machines)
    assert names("?search=web02") == ["web02-rot"]
    assert names("?status=Expired&status=Disconnected") == []
    assert names("?tag=owner%3Dretail&sort=-name") == sorted(names("?tag=owner%3Dretail"), reverse=True)
    assert names("?location=hamburg&osType=linux&resourceGroup=storefront") == ["web03-ham"]
    assert len(names("?sort=lastHeartbeat&unknown=1")) == 4
    for wrong in ("?sort=colour", "?status=Happy", "?subscriptionId=1", "?after=forged", "?search=%00"):
        assert ada.get(f"/fleet{wrong}").status_code == 400, wrong


def test_markup_in_names_and_tags_is_text(hub: HubProcess, ada: Visitor, machines: list[Machine]) -> None:
    path = f"/fleet/machine?id={machines[1].resource_id}"
    fields = {**hidden(ada.get(path).text), "name-0": "note<b>", "value-0": EVIL}
    saved = ada.post("/fleet/machine/tags", {**fields, "id": machines[1].resource_id})
    assert saved.status_code in (303, 400)
    if saved.status_code == 400:  # tags' names have their own rules
        fields["name-0"] = "note"
        saved = ada.post("/fleet/machine/tags", {**fields, "id": machines[1].resource_id})
    assert saved.status_code == 303, saved.text
    assert (
        machines[1].report("inventory", {"osSku": EVIL, "osType": "linux", "computerName": "<i>x"}).status_code == 200
    )
    for page in ("/fleet", path, "/fleet/events", "/fleet/audit", f"/fleet?search={EVIL}", f"/fleet?tag=note={EVIL}"):
        text = ada.get(page).text
        assert "<script>alert" not in text, page
    assert "&lt;script&gt;alert" in ada.get(path).text
    assert "Drop table".upper() in ada.get(path).text


def test_the_extensions_of_a_machine(hub: HubProcess, ada: Visitor, machines: list[Machine]) -> None:
    target, token = machines[0].resource_id, hub.token(hub.principal("scripts", "Owner"))
    page = f"/fleet/machine?id={target}"
    assert "<h2>Extensions</h2>" not in ada.get(page).text
    catalogue_of(hub, [package("Hawser", "CustomScript", "1.0.3")])
    wish = {"properties": {"publisher": "Hawser", "type": "CustomScript"}}
    headers = {"Authorization": f"Bearer {token}"}
    put = hub.session().put(f"{hub.url}{target}/extensions/script", params=API, json=wish, headers=headers, timeout=30)
    assert put.status_code == 202
    assert "Creating" in ada.get(page).text
    item = {
        "name": "script",
        "publisher": "Hawser",
        "type": "CustomScript",
        "version": "1.0.3",
        "sequence": 0,
        "state": "failed",
        "operation": "enable",
        "code": 1009,
        "message": EVIL,
        "status": None,
        "handler": {"status": "NotReady", "code": 1009, "message": ""},
        "at": "2026-11-28T10:00:00Z",
    }
    assert machines[0].report("extensions", {"generation": 1, "extensions": [item]}).status_code == 200
    text = ada.get(page).text
    assert "<h2>Extensions</h2>" in text
    assert "code 1009" in text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    said = {"status": "success", "substatus": [{"name": "AppHealthStatus", "status": "error"}]}
    unhealthy = {**item, "state": "succeeded", "code": 0, "status": said}
    assert machines[0].report("extensions", {"generation": 1, "extensions": [unhealthy]}).status_code == 200
    assert "Succeeded, unhealthy" in ada.get(page).text


def test_the_upgrade_of_an_agent(hub: HubProcess, ada: Visitor, machines: list[Machine]) -> None:
    target, token = machines[0].resource_id, hub.token(hub.principal("upgrades", "Owner"))
    page = f"/fleet/machine?id={target}"
    assert "Last upgrade" not in ada.get(page).text
    wish = {"properties": {"agentUpgrade": {"enableAutomaticUpgrade": True}}}
    headers = {"Authorization": f"Bearer {token}"}
    assert hub.session().patch(f"{hub.url}{target}", params=API, json=wish, headers=headers, timeout=30).ok
    attempt = {
        "generation": 1,
        "correlationId": None,
        "desiredVersion": "1.0.0.2",
        "fromVersion": "1.0.0.1",
        "state": "rolled back",
        "message": f"no heartbeat {EVIL}",
        "begun": "2026-11-28T10:00:00Z",
        "at": "2026-11-28T10:10:00Z",
    }
    assert machines[0].report("agent", attempt).status_code == 200
    text = ada.get(page).text
    assert "the newest" in text
    assert "to 1.0.0.2: failed" in text
    assert "no heartbeat &lt;script&gt;" in text
    assert "<script>alert" not in text


def test_an_agent_whose_support_has_ended_is_flagged(ada: Visitor, machines: list[Machine]) -> None:
    machine = machines[0]
    pages = (f"/fleet?search={machine.name}", f"/fleet/machine?id={machine.resource_id}")
    flag = 'title="Released 2024-02-29, supported until 2025-02-28">support ended</span>'
    assert not any("support ended" in ada.get(page).text for page in pages)
    assert machine.checkin(agentVersion="0.9.0.1").status_code == 200
    data = {"osType": "linux", "agentVersion": "0.9.0.1", "agentReleased": "2024-02-29"}
    assert machine.report("inventory", data).status_code == 200
    for page in pages:
        assert flag in ada.get(page).text


def test_tags_are_edited_with_a_form_and_audited(hub: HubProcess, ada: Visitor, machines: list[Machine]) -> None:
    target = machines[2].resource_id
    before = hidden(ada.get(f"/fleet/machine?id={target}").text)
    fields = {**before, "id": target, "name-0": "env", "value-0": "test"}
    assert ada.post("/fleet/machine/tags", {**fields, "csrf": ""}).status_code == 403
    saved = ada.post("/fleet/machine/tags", fields)
    assert saved.status_code == 303
    assert "The tags are saved" in ada.get(saved.headers["location"]).text
    assert machines[2].checkin(hold=0).json()["generations"]["resource"] == 2  # the machine is told
    late = ada.post("/fleet/machine/tags", {**fields, "value-0": "late"})
    assert (late.status_code, "Somebody else changed the tags" in late.text) == (409, True)
    twice = ada.post(
        "/fleet/machine/tags",
        {**hidden(ada.get(f"/fleet/machine?id={target}").text), "id": target, "name-0": "a", "name-1": "A"},
    )
    assert (twice.status_code, "given twice" in twice.text) == (400, True)
    entries = audited(hub, target)
    assert [item["actor"] for item in entries if item["action"].endswith("machines/write")] == [USER]


def test_the_audit_shows_names_beside_ids(hub: HubProcess, ada: Visitor, machines: list[Machine]) -> None:
    target = machines[0].resource_id
    (entry,) = [item for item in audited(hub, target) if item["action"].endswith("machines/create")]
    assert entry["actorName"]
    told = f'{entry["actorName"]} <span class="muted">{entry["actorType"]} {entry["actor"]}</span>'
    for page in (f"/fleet/audit?target={target}", f"/fleet/machine?id={target}"):
        assert told in ada.get(page).text
    line = hub.run("audit", "--target", target).stdout
    assert f"{entry['actorType']} {entry['actor']} ({entry['actorName']})  " in line
    assert f"user {USER}  session/create" in hub.run("audit", "--actor", USER).stdout


def test_a_reader_reads_and_no_more(hub: HubProcess, ada: Visitor, machines: list[Machine]) -> None:
    reader = Visitor(hub)
    reader.sign_in("reader")
    target = machines[0].resource_id
    text = reader.get(f"/fleet/machine?id={target}").text
    assert "Save tags" not in text
    assert "Delete this machine" not in text
    assert "Who changed it" not in text
    assert "/fleet/audit" not in text
    denied = reader.get("/fleet/audit")
    assert denied.status_code == 403
    assert all(
        word in denied.text for word in ("<strong>", "Hawser.Hub/audit/read", "Contributor, Owner", "the whole hub")
    )
    assert "hawser-hub role assign" in denied.text
    assert "object id" not in denied.text
    digest = hidden(ada.get(f"/fleet/machine?id={target}").text)["digest"]
    fields = {"csrf": hidden(text)["csrf"], "id": target, "digest": digest, "name-0": "x", "name": machines[0].name}
    assert reader.post("/fleet/machine/tags", fields).status_code == 403
    assert reader.post("/fleet/machine/delete", fields).status_code == 403
    refused = [item for item in audited(hub, target) if item["outcome"] == "Refused"]
    assert {item["actor"] for item in refused} == {"reader"}


def test_a_machine_is_deleted_when_its_name_was_typed(hub: HubProcess, ada: Visitor, machines: list[Machine]) -> None:
    target = machines[3].resource_id
    form = ada.get(f"/fleet/machine/delete?id={target}")
    assert form.status_code == 200
    wrong = ada.post("/fleet/machine/delete", {**hidden(form.text), "name": "another"})
    assert (wrong.status_code, "nothing was deleted" in wrong.text) == (400, True)
    done = ada.post("/fleet/machine/delete", {**hidden(form.text), "name": machines[3].name})
    assert (done.status_code, done.headers["location"]) == (303, "/fleet")
    assert ada.get(f"/fleet/machine?id={target}").status_code == 404
    assert ada.get("/fleet/machine?id=nonsense").status_code == 400
    machines.pop()


def test_the_stream_of_a_page_ends_with_its_session(hub: HubProcess, nobody: Visitor) -> None:
    assert nobody.get("/fleet/stream").status_code == 401
    assert nobody.get("/fleet?part=list").status_code == 401
    nobody.sign_in()
    with nobody.http.get(f"{hub.url}/fleet/stream", stream=True, timeout=30) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert next(answer.iter_content(None)).startswith(b"retry:")


def test_ten_thousand_machines_make_a_small_page(tmp_path: Path) -> None:
    large = hub_process.make(tmp_path / "large")
    database = open_database(large.data)
    try:
        with database.write() as session:
            fleet_rows.fill(session, 10_000, now(), large.subscription_id)
    finally:
        database.close()
    large.start()
    try:
        web_fleet.make_user(large)
        visitor = Visitor(large)
        visitor.sign_in()
        page = visitor.get("/fleet?sort=-lastHeartbeat")
        assert "10,000</strong> machines" in page.text
        assert len(page.text.encode()) < 100_000
        assert page.text.count("<tr data-id") == 50
        following = unescape(re.findall(r'href="([^"]+)" rel="next"', page.text)[0])
        ids = [re.findall(r'data-id="([^"]+)"', text) for text in (page.text, visitor.get(following).text)]
        assert len(set(ids[0]) | set(ids[1])) == 100
    finally:
        assert large.stop() == 0
