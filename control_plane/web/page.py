# SPDX-License-Identifier: Apache-2.0
"""`/`: what answers here and where its parts are. Nothing about the fleet, because nobody has signed in."""

from __future__ import annotations

from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from control_plane.hub import Hub

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>hawser hub</title><style>:root{{color-scheme:light dark}}body{{font:1rem/1.5 system-ui;margin:2rem auto;
max-width:44rem;padding:0 1rem}}td{{padding:.2rem 1.5rem .2rem 0;overflow-wrap:anywhere}}</style></head>
<body><h1>hawser hub</h1><p>The control plane of the machines connected to <strong>{host}</strong>. The fleet is listed
by <code>hawser-hub machines</code> on the hub, and by any ARM client.</p><table>{rows}</table></body></html>
"""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def endpoint(hub: Hub, _request: Request) -> Response:
    """The page; links to what needs no sign-in."""
    settings = hub.settings
    links = {
        "ARM": f"{settings.url}/metadata/endpoints?api-version=2022-09-01",
        "Authority": f"{settings.url}/{settings.tenant_id}/v2.0/.well-known/openid-configuration",
        "Health": f"{settings.url}/healthz",
    }
    rows = "".join(
        f'<tr><td>{name}</td><td><a href="{escape(link)}">{escape(link)}</a></td></tr>' for name, link in links.items()
    )
    return HTMLResponse(_PAGE.format(host=escape(settings.host), rows=rows), headers=_HEADERS)
