# SPDX-License-Identifier: Apache-2.0
"""One delivery: a webhook, or an e-mail. What is sent is made by pure functions (docs/api.md, Notifications)."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import smtplib
import ssl
from collections import Counter
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx

from control_plane.clock import now, rfc3339
from control_plane.errors import HubError, OperatorError
from control_plane.fleet.targets import MIN_WEBHOOK_SECRET, Mail, Target, Webhook, secret
from control_plane.fleet.watch_rows import TRANSITIONS

SCHEMA = 1
MAX_BYTES = 256 * 1024
MAX_EVENTS = 500
MAX_LINES = 200
SMTP_TIMEOUT = 30


class DeliveryError(HubError):
    """It did not arrive, and is tried again; `gone`: the receiver wants no more (410)."""

    def __init__(self, message: str, *, gone: bool = False) -> None:
        super().__init__(message)
        self.gone = gone


def body_of(hub: str, target: str, events: Sequence[Mapping[str, Any]], dropped: int, at: int) -> tuple[bytes, int]:
    """The body of a webhook, and how many of `events` are in it: as many as fit into MAX_EVENTS and MAX_BYTES."""
    kept = list(events[:MAX_EVENTS])
    while True:
        body = {
            "schema": SCHEMA,
            "hub": hub,
            "target": target,
            "sentAt": rfc3339(at),
            "dropped": dropped,
            "test": not events,
            "events": kept,
        }
        data = json.dumps(body, separators=(",", ":")).encode()
        if len(data) <= MAX_BYTES or len(kept) <= 1:
            return data, len(kept)
        kept = kept[: max(1, len(kept) * MAX_BYTES // len(data) - 1)]


def signature(key: bytes, timestamp: int, body: bytes) -> str:
    """`v1=` and the HMAC-SHA-256, in hexadecimal digits, of the timestamp, a dot and the body."""
    return "v1=" + hmac.new(key, f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


def _context(ca_file: Any) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except (OSError, ssl.SSLError) as error:
        raise DeliveryError(f"The CA in {ca_file} cannot be used ({error}).") from error


async def post(way: Webhook, body: bytes, at: int) -> None:
    """POST a body. 2xx is success; redirects are not followed, an answer's body is not read.

    Errors: DeliveryError.
    """
    try:
        key = await asyncio.to_thread(secret, way.secret_file, MIN_WEBHOOK_SECRET)
    except OperatorError as error:
        raise DeliveryError(f"{error.message} {error.remedy}") from error
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "hawser-hub",
        "Hawser-Delivery": str(uuid4()),
        "Hawser-Timestamp": str(at),
        "Hawser-Signature": signature(key, at, body),
    }
    context = await asyncio.to_thread(_context, way.ca_file)
    try:
        async with (
            asyncio.timeout(way.timeout),
            httpx.AsyncClient(verify=context, timeout=way.timeout, follow_redirects=False) as client,
            client.stream("POST", way.url, content=body, headers=headers) as answer,
        ):
            status = answer.status_code
    except TimeoutError as error:
        raise DeliveryError(f"There was no answer within {way.timeout} seconds.") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise DeliveryError(f"It could not be reached ({type(error).__name__}: {error}).") from error
    if not 200 <= status < 300:
        raise DeliveryError(f"It answered {status}.", gone=status == 410)


def subject(hub: str, events: Sequence[Mapping[str, Any]]) -> str:
    """`[hawser] 12 machines Disconnected, 1 Recovered (hub.example.org)`."""
    counts = Counter(str(event["transition"]) for event in events)
    told = ", ".join(f"{counts[word]} {word}" for word in TRANSITIONS if counts[word])
    first, _, rest = told.partition(" ")
    noun = "machine" if first == "1" else "machines"
    return f"[hawser] {first} {noun} {rest} ({urlsplit(hub).hostname})" if told else f"[hawser] test ({hub})"


def message(hub: str, way: Mail, events: Sequence[Mapping[str, Any]], dropped: int) -> EmailMessage:
    """One mail for all of `events`, a line each; the first MAX_LINES of them."""
    lines = [
        f"{event['transition']:<13} {event['at']}  {event['name']}\n{'':<13} {event['resourceId']}"
        for event in events[:MAX_LINES]
    ]
    if len(events) > MAX_LINES:
        lines.append(f"... and {len(events) - MAX_LINES} more: {hub}")
    if dropped:
        lines.append(f"{dropped} earlier messages could not be delivered and were given up.")
    if not events:
        lines.append("This is a test of a notification target. No machine has changed.")
    made = EmailMessage()
    made["Subject"] = subject(hub, events)
    made["From"], made["To"] = way.sender, ", ".join(way.to)
    made["Date"], made["Message-ID"] = formatdate(), make_msgid(domain=urlsplit(hub).hostname)
    made["Auto-Submitted"] = "auto-generated"
    made.set_content("\n".join([*lines, "", f"-- \n{hub}", ""]))
    return made


def send(way: Mail, mail: EmailMessage) -> None:
    """Hand a mail to the server, over TLS alone.

    Errors: DeliveryError.
    """
    try:
        password = secret(way.password_file).decode() if way.password_file else None
        context = _context(way.ca_file)
        if way.tls == "tls":
            client: smtplib.SMTP = smtplib.SMTP_SSL(way.server, way.port, timeout=SMTP_TIMEOUT, context=context)
        else:
            client = smtplib.SMTP(way.server, way.port, timeout=SMTP_TIMEOUT)
        with client:
            if way.tls == "starttls":
                client.starttls(context=context)
            if way.username is not None and password is not None:
                client.login(way.username, password)
            client.send_message(mail)
    except OperatorError as error:
        raise DeliveryError(f"{error.message} {error.remedy}") from error
    except (OSError, smtplib.SMTPException, UnicodeDecodeError) as error:
        raise DeliveryError(f"The mail server did not take it ({type(error).__name__}: {error}).") from error


async def deliver(hub: str, target: Target, events: Sequence[Mapping[str, Any]], dropped: int) -> int:
    """Tell a target of `events`, or send a test when there are none. Returns how many it was told of: the first ones.

    Errors: DeliveryError.
    """
    at = now()
    if isinstance(target.way, Webhook):
        body, count = body_of(hub, target.name, events, dropped, at)
        await post(target.way, body, at)
        return count
    await asyncio.to_thread(send, target.way, message(hub, target.way, events, dropped))
    return len(events)
