# SPDX-License-Identifier: Apache-2.0
"""GET and HEAD of `/artefacts/metadata/*` and `/artefacts/targets/**`, for everybody: nothing in there is secret, and
everything is signed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles

from control_plane import threads
from control_plane.artefacts import place as places
from control_plane.errors import ApiError
from control_plane.http import error_of, json_response
from control_plane.hub import Hub

ROOTS = frozenset({"artefacts"})
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "public, max-age=0, must-revalidate"
_static = StaticFiles(check_dir=False)


class Package(FileResponse):
    """In bigger pieces: each is a way to a thread and back."""

    chunk_size = 256 * 1024


def file_of(data: Path, path: str) -> tuple[Path, str] | None:
    """The file for a path of a URL, and how long it may be kept; None when it is no name that could be there. Pure."""
    place = places.of(data)
    _, room, name = [*path.lstrip("/").split("/", 2), "", ""][:3]
    if room == "metadata" and places.METADATA_NAME.fullmatch(name):
        return place.metadata / name, _ASK_AGAIN if name == "timestamp.json" else _FOR_EVER
    if room == "targets" and places.TARGET_NAME.fullmatch(name):
        return place.targets / name, _FOR_EVER
    return None


def _stat(path: Path) -> os.stat_result | None:
    try:
        found = path.stat(follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found if stat.S_ISREG(found.st_mode) else None


async def endpoint(hub: Hub, request: Request) -> Response:
    """A file, a part of it, 304, or an envelope with 404 or 405."""
    if request.method not in ("GET", "HEAD"):
        error = ApiError(405, "MethodNotAllowed", "Artefacts are read by GET.", headers={"Allow": "GET, HEAD"})
        return json_response(error.status, error.envelope(), error.headers)
    try:
        found = file_of(hub.data, request.scope["path"])
        about = await threads.run(_stat, found[0]) if found is not None else None
    except Exception as problem:  # noqa: BLE001 - the edge: everything becomes an answer
        told = error_of(problem)
        return json_response(told.status, told.envelope(), told.headers)
    if found is None or about is None:
        # Clients ask for the root after the newest one, and must hear of it as soon as there is one.
        error = ApiError(404, "ArtefactNotFound", "There is no such artefact.", headers={"Cache-Control": "no-store"})
        return json_response(error.status, error.envelope(), error.headers)
    response = Package(
        found[0], stat_result=about, headers={"Cache-Control": found[1], "X-Content-Type-Options": "nosniff"}
    )
    if _static.is_not_modified(response.headers, request.headers):
        return NotModifiedResponse(response.headers)
    return response
