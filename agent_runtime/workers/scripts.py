# SPDX-License-Identifier: Apache-2.0
"""What run commands need before they begin (docs/protocol.md section 15.5): the script from its address, and what is in
an envelope. Runs in a worker."""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import ssl
import subprocess
import urllib.error
import urllib.request
from typing import Any, Optional
from urllib.parse import urlsplit

from agent_runtime import errors
from agent_runtime.hub.proxy import reason
from agent_runtime.state import atomic

LIMIT = 1024 * 1024
WAIT_SECONDS = 60.0


def open_envelope(arguments: dict[str, Any]) -> dict[str, Any]:
    """`{"key": path, "envelope": base64 of DER CMS EnvelopedData}` → `{"content": the JSON object in it}`. Errors:
    ExtensionFailed when the key does not open it. What is inside is in no message."""
    failed = errors.ExtensionFailed(
        "the protected parameters are not for a key of this machine, or damaged", "Run the command again"
    )
    try:
        sealed = base64.b64decode(arguments["envelope"], validate=True)
        done = subprocess.run(
            ["openssl", "cms", "-decrypt", "-inform", "DER", "-inkey", arguments["key"]],
            input=sealed,
            capture_output=True,
            check=False,
        )
        # Without the right key openssl goes on with a wrong one, so that nobody learns from its answer.
        content = json.loads(done.stdout) if done.returncode == 0 else None
    except FileNotFoundError:
        raise errors.ExtensionFailed("openssl is not installed on this machine", "Install it") from None
    except (binascii.Error, ValueError):
        raise failed from None
    if not isinstance(content, dict):
        raise failed
    return {"content": content}


def fetch_script(arguments: dict[str, Any]) -> dict[str, Any]:
    """`{"url", "proxy", "path"}` → `{"length"}`: the script at an https address, believed by the CAs of the system, in
    the file `path`, mode 0700. `proxy`: `http://[user:password@]host:port` or null. Errors: NetworkFailed,
    ExtensionFailed when it is longer than LIMIT; OSError."""
    url = arguments["url"]
    host = urlsplit(url).hostname or ""
    opener = _opener(arguments["proxy"])
    try:
        with opener.open(url, timeout=WAIT_SECONDS) as answer:
            content = answer.read(LIMIT + 1)
    except urllib.error.HTTPError as problem:
        # An address of the server's choice is in what urllib says of a redirection.
        led = ", which leads away from https or in circles" if 300 <= problem.code < 400 else ""
        told = f"it answered with status {problem.code}{led}"
        raise errors.NetworkFailed(f"the script could not be downloaded from {host}: {told}") from None
    except (OSError, http.client.HTTPException, ValueError) as problem:
        raise errors.NetworkFailed(f"the script could not be downloaded from {host}: {_why(problem)}") from None
    if len(content) > LIMIT:
        raise errors.ExtensionFailed(f"the script at {host} is longer than {LIMIT >> 20} MiB")
    atomic.write_bytes(arguments["path"], content, mode=0o700)
    return {"length": len(content)}


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows no address but https."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme != "https":
            raise urllib.error.HTTPError("", code, "away from https", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(proxy: Optional[str]) -> urllib.request.OpenerDirector:
    made = urllib.request.OpenerDirector()
    handlers = (
        urllib.request.ProxyHandler({"https": proxy} if proxy else {}),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    )
    for handler in handlers:
        made.add_handler(handler)
    return made


def _why(problem: Exception) -> str:
    """In a few words, in which no address is."""
    cause = problem.reason if isinstance(problem, urllib.error.URLError) else problem
    return reason(cause) if isinstance(cause, OSError) else "the answer is no HTTP"
