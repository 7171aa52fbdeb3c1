# SPDX-License-Identifier: Apache-2.0
"""Publishers, types and versions of extensions that the hub's artefacts have (identity-and-arm-api.md C.4, C.7).

The same in every location, and open to whoever is known to the hub: packages are public (docs/protocol.md 15.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from control_plane.arm import paths
from control_plane.arm.roles import Action
from control_plane.call import HubCall
from control_plane.errors import not_found
from control_plane.extensions import versions
from control_plane.http import Reply
from control_plane.storage import catalogue
from control_plane.storage.catalogue import Package

_VERSION_TYPE = f"{paths.PROVIDER}/locations/publishers/extensionTypes/versions"
_SYSTEMS = {"linux": "Linux", "windows": "Windows"}


def _found(call: HubCall, names: Sequence[str] = ()) -> list[Package]:
    """Packages of a publisher, or of a publisher and type."""
    with call.hub.database.read() as session:
        known = catalogue.packages(session)
    wanted = [name.lower() for name in names]
    return [item for item in known if [item.publisher.lower(), item.type.lower()][: len(wanted)] == wanted]


def _listed(base: str, names: Sequence[str]) -> Reply:
    spelled = {name.lower(): name for name in names}
    return Reply(200, {"value": [{"id": f"{base}/{spelled[key]}", "name": spelled[key]} for key in sorted(spelled)]})


def list_publishers(call: HubCall) -> Reply:
    """GET publishers."""
    return _listed(call.http.path.rstrip("/"), [item.publisher for item in _found(call)])


def list_types(call: HubCall) -> Reply:
    """GET extensionTypes of a publisher."""
    return _listed(call.http.path.rstrip("/"), [item.type for item in _found(call, call.names[1:2])])


def _uri(origin: str, package: Package) -> str:
    """Where a package can be fetched: its target with a consistent snapshot's name (docs/protocol.md section 15.3)."""
    folder, _, file = package.path.rpartition("/")
    return f"{origin}/artefacts/targets/{folder}/{package.sha256}.{file}"


def _version_json(call: HubCall, base: str, same: Sequence[Package], *, whole: bool) -> dict[str, Any]:
    """One version over all its packages. `whole`: with what version 2 of the metadata has."""
    first = same[0]
    properties: dict[str, Any] = {
        "version": first.version,
        "extensionType": first.type,
        "publisher": first.publisher,
    }
    if whole:
        systems = sorted({_SYSTEMS.get(item.os, item.os) for item in same})
        properties |= {
            "extensionUris": [_uri(call.http.origin, item) for item in same],
            "operatingSystem": ", ".join(systems),
            "architecture": sorted({item.arch for item in same}),
        }
    return {"id": f"{base}/{first.version}", "name": first.version, "type": _VERSION_TYPE, "properties": properties}


def _versions(known: Sequence[Package]) -> list[list[Package]]:
    grouped: dict[tuple[int, ...], list[Package]] = {}
    for item in known:
        grouped.setdefault(versions.parts(item.version), []).append(item)
    return [grouped[key] for key in sorted(grouped)]


def _list_versions(call: HubCall, names: Sequence[str], *, whole: bool) -> Reply:
    base = call.http.path.rstrip("/")
    found = _versions(_found(call, names))
    return Reply(200, {"value": [_version_json(call, base, same, whole=whole) for same in found]})


def _one_version(call: HubCall, names: Sequence[str], *, whole: bool) -> Reply:
    """Errors: ApiError 404."""
    asked = call.names[-1]
    for same in _versions(_found(call, names)):
        if versions.is_version(asked) and versions.same(same[0].version, asked):
            base = call.http.path.rstrip("/").rpartition("/")[0]
            return Reply(200, _version_json(call, base, same, whole=whole))
    raise not_found(call.http.path)


def list_versions(call: HubCall) -> Reply:
    """GET versions (metadata version 2)."""
    return _list_versions(call, call.names[1:3], whole=True)


def get_version(call: HubCall) -> Reply:
    """GET of one version (metadata version 2)."""
    return _one_version(call, call.names[1:3], whole=True)


def list_versions_here(call: HubCall) -> Reply:
    """GET versions below a subscription (metadata version 1)."""
    call.require(Action.EXTENSION_READ, f"/subscriptions/{call.names[0]}")
    return _list_versions(call, call.names[2:4], whole=False)


def get_version_here(call: HubCall) -> Reply:
    """GET of one version below a subscription (metadata version 1)."""
    call.require(Action.EXTENSION_READ, f"/subscriptions/{call.names[0]}")
    return _one_version(call, call.names[2:4], whole=False)
