# SPDX-License-Identifier: Apache-2.0
"""A real Chromium for tests of the page. It trusts the hub's CA by the fingerprint of the key that the hub serves: this
certificate is taken and no other, which is what a CA installed in the system would mean here."""

from __future__ import annotations

import base64
import hashlib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.integration.hub_process import HubProcess
from tests.integration.web_fleet import PASSWORD, USER

_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def _fingerprint(hub: HubProcess) -> str:
    """SHA-256 of the public key that the hub serves, after its certificate was verified with the hub's CA."""
    where = urlsplit(hub.url)
    context = ssl.create_default_context(cafile=hub.ca_file)
    with (
        socket.create_connection((where.hostname, where.port), 10) as plain,
        context.wrap_socket(plain, server_hostname=where.hostname) as secured,
    ):
        der = secured.getpeercert(binary_form=True)
    assert der is not None
    key = x509.load_der_x509_certificate(der).public_key()
    public = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(public).digest()).decode()


@contextmanager
def chromium(hub: HubProcess) -> Iterator[Browser]:
    """Debian's Chromium, which takes this hub's certificate."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=[*_ARGUMENTS, f"--ignore-certificate-errors-spki-list={_fingerprint(hub)}"],
        )
        yield browser
        browser.close()


def context(browser: Browser, **options: Any) -> BrowserContext:
    """A window with cookies of its own."""
    made: BrowserContext = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
    made.set_default_timeout(15000)
    return made


def watched(page: Page, hub: HubProcess) -> list[str]:
    """Everything that should not happen on a page; empty at the end of a test."""
    troubles: list[str] = []

    def told(line: ConsoleMessage) -> None:
        # Tests beside this one make bridges for their hosts; the browser drops its requests then, and the page goes on.
        if line.type == "error" and "net::ERR_NETWORK_CHANGED" not in line.text:
            troubles.append(line.text)

    page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
    page.on("console", told)
    page.on("request", lambda sent: None if sent.url.startswith(hub.url) else troubles.append(sent.url))
    return troubles


def sign_in(page: Page, hub: HubProcess, name: str = USER, password: str = PASSWORD, to: str = "/fleet") -> None:
    """Through the form."""
    page.goto(hub.url + to)
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "/signin" not in url)
