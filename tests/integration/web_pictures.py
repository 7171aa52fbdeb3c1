# SPDX-License-Identifier: Apache-2.0
"""Makes the pictures of docs/page.md: python -m tests.integration.web_pictures DIRECTORY"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.integration import hub_process, web_browser, web_fleet
from tests.integration.hub_process import HubProcess

_PHONE = {"viewport": {"width": 360, "height": 780}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}


def _small(path: Path) -> None:
    """As a picture of 256 colours, chosen so that rare ones (a status) stay what they are."""
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def take(hub: HubProcess, out: Path) -> None:
    """Every picture, of a running hub."""
    with web_browser.chromium(hub) as browser:
        window = web_browser.context(browser, viewport={"width": 1440, "height": 900})
        page = window.new_page()
        page.goto(f"{hub.url}/signin")
        page.screenshot(path=out / "page-signin.png")
        web_browser.sign_in(page, hub)
        page.screenshot(path=out / "page-fleet.png")
        page.goto(f"{hub.url}/fleet/history?span=90d")
        page.screenshot(path=out / "page-history.png")
        page.goto(f"{hub.url}/fleet?search=db06")
        page.locator("tr[data-id] a").first.click()
        page.get_by_role("heading", name="Timeline").wait_for()
        page.screenshot(path=out / "page-machine.png")
        kept = window.storage_state()
        for name, options in (
            ("dark", {"color_scheme": "dark", "viewport": {"width": 1440, "height": 900}}),
            ("phone", _PHONE),
        ):
            page = web_browser.context(browser, storage_state=kept, **options).new_page()
            page.goto(f"{hub.url}/fleet")
            page.screenshot(path=out / f"page-{name}.png")


def take_twins(hub: HubProcess, out: Path) -> None:
    """After the others: these machines have no past."""
    with web_browser.chromium(hub) as browser:
        page = web_browser.context(browser, viewport={"width": 1440, "height": 900}).new_page()
        web_browser.sign_in(page, hub)
        page.goto(f"{hub.url}/fleet/twins")
        page.screenshot(path=out / "page-twins.png")


def pack(out: Path) -> None:
    """Make every picture small."""
    for picture in out.glob("page-*.png"):
        _small(picture)


def main() -> None:
    """Make a hub and a fleet, take the pictures, end the hub."""
    out = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as directory:
        hub = hub_process.make(Path(directory) / "data", *web_fleet.LOCATIONS).start()
        try:
            web_fleet.make_user(hub)
            token = hub.token(hub.principal("rollout", "Owner"))
            web_fleet.enrol(hub, token)
            hub.stop()
            web_fleet.give_past(hub, web_fleet.SILENT)
            hub.start()
            take(hub, out)
            web_fleet.copy_some(hub, token)
            take_twins(hub, out)
            pack(out)
        finally:
            hub.stop()


if __name__ == "__main__":
    main()
