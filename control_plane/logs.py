# SPDX-License-Identifier: Apache-2.0
"""Logs of the running hub: one line a request, and the request's id in every line that was written for it.

The id is the answer's `x-ms-request-id` and the audit row's. Paths are written without their query; bodies, tokens and
headers never are. Format `json` has one object a line; `text` is for people at a terminal.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from pythonjsonlogger.json import JsonFormatter

LEVELS = ("debug", "info", "warning", "error")
_TEXT = "%(asctime)s %(levelname)s %(name)s [%(request)s]: %(message)s"
_JSON = "%(asctime)s %(levelname)s %(name)s %(request)s %(message)s"
access = logging.getLogger("hawser.hub.access")


@dataclass
class Trace:
    """One request. `caller`: kind and name, once it is known."""

    request_id: str
    caller: str = "-"


_current: ContextVar[Trace | None] = ContextVar("request", default=None)


def begin() -> Trace:
    """A new request in this context; what runs in threads for it inherits the context."""
    trace = Trace(str(uuid4()))
    _current.set(trace)
    return trace


def request_id() -> str:
    """The id of the request that is being answered; a new one outside of any."""
    trace = _current.get()
    return trace.request_id if trace else str(uuid4())


def known(kind: str, name: str) -> None:
    """Say who is calling."""
    trace = _current.get()
    if trace is not None:
        trace.caller = f"{kind}:{name}"


class _Request(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Every line is kept; it gets the request's id."""
        trace = _current.get()
        record.request = trace.request_id if trace else "-"
        return True


def set_up(config: Mapping[str, Any]) -> None:
    """Section `logging` of config.yaml: `format` auto, json or text; `level`. Repeated, it replaces what was set up."""
    form = config.get("format", "auto")
    as_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_Request())
    handler.setFormatter(
        logging.Formatter(_TEXT)
        if as_text
        else JsonFormatter(
            _JSON, rename_fields={"asctime": "time", "levelname": "level", "name": "logger"}, timestamp=False
        )
    )
    logging.basicConfig(level=str(config.get("level", "info")).upper(), handlers=[handler], force=True)
    for noisy in ("alembic", "httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def answered(trace: Trace, method: str, path: str, status: int, seconds: float, peer: str) -> None:
    """The line of a request. `path` is cut at 200 characters; a line break in it cannot forge another line."""
    shown = path[:200].encode("unicode_escape").decode("ascii")
    access.info(
        "%s %s %d %.0f ms",
        method[:16],
        shown,
        status,
        seconds * 1000,
        extra={
            "method": method[:16],
            "path": shown,
            "status": status,
            "milliseconds": round(seconds * 1000, 1),
            "caller": trace.caller,
            "peer": peer,
        },
    )
