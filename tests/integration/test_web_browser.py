# SPDX-License-Identifier: Apache-2.0
"""The page in a real Chromium: live changes, keyboard, phone, themes, without script."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.integration import web_browser, web_fleet
from tests.integration.hub_machine import API, Machine
from tests.integration.hub_process import HubProcess


@pytest.fixture(scope="module")
def hub(make_hub: Callable[..., HubProcess]) -> HubProcess:
    made = make_hub(*web_fleet.LOCATIONS)
    web_fleet.make_user(made)
    return made


@pytest.fixture(scope="module")
def token(hub: HubProcess) -> str:
    return hub.token(hub.principal("rollout", "Owner"))


@pytest.fixture(scope="module")
def machines(hub: HubProcess, token: str) -> list[Machine]:
    return web_fleet.enrol(hub, token, 4)


@pytest.fixture(scope="module")
def browser(hub: HubProcess) -> Iterator[Browser]:
    with web_browser.chromium(hub) as made:
        yield made


@pytest.fixture(scope="module")
def signed_in(browser: Browser, hub: HubProcess, machines: list[Machine]) -> dict[str, object]:
    """Cookies of a person who signed in through the form."""
    window = web_browser.context(browser)
    web_browser.sign_in(window.new_page(), hub)
    state = dict(window.storage_state())
    window.close()
    return state


@pytest.fixture
def page(browser: Browser, hub: HubProcess, signed_in: dict[str, object]) -> Iterator[Page]:
    window = web_browser.context(browser, storage_state=signed_in)
    made = window.new_page()
    troubles = web_browser.watched(made, hub)
    made.goto(f"{hub.url}/fleet")
    yield made
    window.close()
    assert troubles == []


def test_changes_appear_in_the_open_page(hub: HubProcess, page: Page, token: str, machines: list[Machine]) -> None:
    row = page.locator(f'tr[data-id="{machines[1].resource_id.lower()}"]')
    expect(row).to_contain_text("Connected")
    page.evaluate("document.documentElement.dataset.same = 'yes'")
    with page.expect_response(lambda answer: "/fleet/stream" in answer.url):
        page.reload()
    page.evaluate("document.documentElement.dataset.same = 'yes'")
    answer = machines[1].http.patch(
        f"{hub.url}{machines[1].resource_id}",
        params=API,
        json={"tags": {"berth": "seven"}},
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    )
    assert answer.status_code == 200
    expect(row).to_contain_text("seven")
    new = Machine(hub, "tug01-ham", "harbour")
    new.connect(token, location="hamburg")
    expect(page.locator("tr", has_text="tug01-ham")).to_contain_text("Connected")
    expect(page.locator("#found")).to_contain_text("5 machines")
    expect(page.locator("#said")).not_to_be_empty()
    assert page.evaluate("document.documentElement.dataset.same") == "yes"  # it was never loaded anew
    gone = new.http.delete(
        f"{hub.url}{new.resource_id}", params=API, headers={"Authorization": f"Bearer {token}"}, timeout=30
    )
    assert gone.status_code == 204
    expect(page.locator("#found")).to_contain_text("4 machines")
    expect(page.locator("tr", has_text="tug01-ham")).to_have_count(0)


def test_the_fleet_is_used_with_the_keyboard_alone(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("/")  # a character alone is no shortcut: speech input would trip over it
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.type("web02")
    page.keyboard.press("Enter")
    page.wait_for_url("**/fleet?search=web02")
    expect(page.locator("tr[data-id]")).to_have_count(1)
    page.locator("tr[data-id] a").first.focus()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("web02-rot")


def test_the_theme_is_kept_and_there_before_the_first_paint(page: Page) -> None:
    def ground() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = ground()
    button = page.get_by_role("button", name="Theme")
    button.click()
    button.click()
    expect(button).to_have_text("Theme: dark")
    assert ground() != light
    page.reload(wait_until="commit")
    page.wait_for_selector("body")
    assert (page.evaluate("document.documentElement.dataset.theme"), ground() != light) == ("dark", True)


PATHS = ["/fleet", "/fleet/history", "/fleet/events", "/fleet/twins", "/fleet/audit", "machine"]
# Controls whose size is not that of a line of text, and boxes of those that are too small (WCAG 2.2, 2.5.8).
SMALL = """() => [...document.querySelectorAll("button, .button, select, summary, .tag, .check, nav a")]
    .filter(item => item.checkVisibility())
    .map(item => [item.outerHTML.slice(0, 60), item.getBoundingClientRect()])
    .filter(([_, box]) => box.width < 24 || box.height < 24)
    .map(([text, box]) => `${text} ${box.width}x${box.height}`)"""


@pytest.mark.parametrize("width", [320, 360])
@pytest.mark.parametrize("path", PATHS)
def test_a_phone_shows_everything_without_scrolling_sideways(
    browser: Browser, hub: HubProcess, signed_in: dict[str, object], machines: list[Machine], path: str, width: int
) -> None:
    phone = {"viewport": {"width": width, "height": 780}, "is_mobile": True, "has_touch": True}
    window = web_browser.context(browser, storage_state=signed_in, permissions=["clipboard-write"], **phone)
    shown = window.new_page()
    shown.goto(hub.url + (f"/fleet/machine?id={machines[0].resource_id}" if path == "machine" else path))
    assert shown.evaluate("document.documentElement.scrollWidth") == width
    last = shown.get_by_role("navigation").get_by_role("link").last.bounding_box()
    assert last is not None
    assert last["x"] + last["width"] <= width
    assert shown.evaluate(SMALL) == []
    window.close()


def test_a_phone_sorts_the_fleet(
    browser: Browser, hub: HubProcess, signed_in: dict[str, object], machines: list[Machine]
) -> None:
    phone = {"viewport": {"width": 390, "height": 780}, "is_mobile": True, "has_touch": True}
    window = web_browser.context(browser, storage_state=signed_in, **phone)
    shown = window.new_page()
    shown.goto(f"{hub.url}/fleet?search=web&status=Connected")
    names = shown.locator("tr[data-id] th").all_inner_texts()
    assert len(names) > 1
    shown.get_by_label("Sorted by").select_option("Name, descending")
    shown.get_by_role("button", name="Sort").click()
    shown.wait_for_url(lambda url: "sort=-name" in url)
    assert "search=web" in shown.url
    assert "status=Connected" in shown.url
    assert shown.locator("tr[data-id] th").all_inner_texts() == names[::-1]
    expect(shown.get_by_label("Sorted by")).to_have_value("-name")
    shown.set_viewport_size({"width": 1440, "height": 780})
    expect(shown.get_by_label("Sorted by")).to_be_hidden()
    window.close()


def test_everything_but_what_is_live_works_without_script(
    browser: Browser, hub: HubProcess, machines: list[Machine]
) -> None:
    window = web_browser.context(browser, java_script_enabled=False, color_scheme="dark", reduced_motion="reduce")
    shown = window.new_page()
    web_browser.sign_in(shown, hub)
    shown.get_by_text("Filters", exact=True).click()
    shown.get_by_label("Location").select_option("hamburg")
    shown.get_by_role("button", name="Apply").click()
    expect(shown.locator("tr[data-id]")).to_have_count(1)
    shown.get_by_role("link", name="web03-ham").click()
    shown.get_by_label("Name of tag 1", exact=True).fill("pier")
    shown.get_by_label("Value of tag 1", exact=True).fill("nine")
    shown.get_by_role("button", name="Save tags").click()
    expect(shown.get_by_text("The tags are saved.")).to_be_visible()
    expect(shown.get_by_label("Name of tag 1", exact=True)).to_have_value("pier")
    shown.get_by_role("button", name="Sign out").click()
    expect(shown.get_by_role("heading", level=1)).to_have_text("Sign in")
    window.close()


def test_a_lost_connection_is_told_and_mended(
    browser: Browser, hub: HubProcess, signed_in: dict[str, object], machines: list[Machine]
) -> None:
    window = web_browser.context(browser, storage_state=signed_in)
    shown = window.new_page()
    with shown.expect_response(lambda answer: "/fleet/stream" in answer.url):
        shown.goto(f"{hub.url}/fleet")
    expect(shown.locator("#lost")).to_be_hidden()
    hub.stop()
    expect(shown.locator("#lost")).to_contain_text("The live connection is lost")
    hub.start()
    expect(shown.locator("#lost")).to_be_hidden(timeout=60000)
    window.close()


def test_twins_appear_in_the_open_page(page: Page, hub: HubProcess, token: str) -> None:
    with page.expect_response(lambda answer: "/fleet/stream" in answer.url):
        page.goto(f"{hub.url}/fleet/twins")
    page.evaluate("document.documentElement.dataset.same = 'yes'")
    expect(page.get_by_role("heading", name="No twins")).to_be_visible()
    web_fleet.copy_some(hub, token)
    expect(page.locator("tbody tr")).to_have_count(4)
    expect(page.locator("#said")).not_to_be_empty()
    assert page.evaluate("document.documentElement.dataset.same") == "yes"
