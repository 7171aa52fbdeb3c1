# SPDX-License-Identifier: Apache-2.0
"""Static files of the page. Their names carry a hash of their content, so that browsers may keep them for ever."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.responses import Response

from control_plane.errors import ApiError

_FOLDER = Path(__file__).parent / "static"
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
_HEADERS = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "Vary": "Accept-Encoding",
}


@dataclass(frozen=True)
class Asset:
    """One file: as it is and packed."""

    name: str
    media: str
    plain: bytes
    packed: bytes


@cache
def _read() -> tuple[dict[str, str], dict[str, Asset]]:
    paths: dict[str, str] = {}
    found: dict[str, Asset] = {}
    for file in sorted(_FOLDER.iterdir()):
        if file.suffix not in _TYPES:
            continue
        data = file.read_bytes()
        name = f"{file.stem}.{hashlib.sha256(data).hexdigest()[:12]}{file.suffix}"
        paths[file.name] = f"/static/{name}"
        found[name] = Asset(name, _TYPES[file.suffix], data, gzip.compress(data, 9, mtime=0))
    return paths, found


def path_of(name: str) -> str:
    """Where `style.css` is served."""
    return _read()[0][name]


def takes_gzip(accepted: str) -> bool:
    """Whether `Accept-Encoding` names gzip, and not with the weight nought."""
    for part in accepted.lower().split(","):
        name, _, weight = part.partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def serve(path: str, accepted: str) -> Response:
    """GET /static/NAME.

    Errors: ApiError 404.
    """
    asset = _read()[1].get(path.removeprefix("/static/"))
    if asset is None:
        raise ApiError(404, "NotFound", "There is no such file.")
    headers = {**_HEADERS, "Content-Type": asset.media}
    if takes_gzip(accepted):
        return Response(asset.packed, headers={**headers, "Content-Encoding": "gzip"})
    return Response(asset.plain, headers=headers)
