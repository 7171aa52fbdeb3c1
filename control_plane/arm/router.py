# SPDX-License-Identifier: Apache-2.0
"""From an ARM request to its handler: api-version, authentication, routing, headers, errors, audit of refusals."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from control_plane import callers
from control_plane.arm import general, groups, machines, paths
from control_plane.bodies import ARM_BODY
from control_plane.call import Handler, HubCall
from control_plane.clock import now
from control_plane.errors import ApiError
from control_plane.http import Call, Reply, error_of, json_response, read_call
from control_plane.hub import Hub
from control_plane.storage import audit
from control_plane.storage.machines import find_subscription

_S = "subscriptions/*"
_G = f"{_S}/resourcegroups/*"
_P = f"providers/{paths.PROVIDER.lower()}"
_M = f"{_G}/{_P}/machines/*"
_VM = "providers/microsoft.compute/virtualmachines"

ROUTES: dict[str, dict[str, Handler]] = {
    "tenants": {"GET": general.list_tenants},
    "subscriptions": {"GET": general.list_subscriptions},
    _S: {"GET": general.get_subscription},
    f"{_S}/locations": {"GET": general.list_locations},
    f"{_S}/providers": {"GET": general.list_providers},
    f"{_S}/resourcegroups": {"GET": groups.list_groups},
    _G: {
        "GET": groups.get_group,
        "HEAD": groups.head_group,
        "PUT": groups.put_group,
        "PATCH": groups.patch_group,
        "DELETE": groups.delete_group,
    },
    f"{_P}/operations": {"GET": general.list_operations},
    f"{_S}/{_VM}": {"GET": general.no_virtual_machines},
    f"{_G}/{_VM}": {"GET": general.no_virtual_machines},
    f"{_S}/{_P}/machines": {"GET": machines.list_machines},
    f"{_G}/{_P}/machines": {"GET": machines.list_machines},
    _M: {
        "GET": machines.get_machine,
        "PUT": machines.put_machine,
        "PATCH": machines.patch_machine,
        "DELETE": machines.delete_machine,
    },
    f"{_M}/networkprofile": {"GET": machines.get_network_profile},
    f"{_M}/extensions": {"GET": machines.list_extensions},
    f"{_M}/runcommands": {"GET": machines.list_run_commands},
}
_WRITES = frozenset({"PUT", "PATCH", "POST", "DELETE"})


def find(method: str, path: str) -> tuple[Handler, tuple[str, ...]]:
    """The handler of a request and the names in its path.

    Errors: ApiError 404 (no such path, namespace or type), 405 (no such method here).
    """
    route = paths.read(path)
    if route is None:
        raise ApiError(404, "NotFound", "There is nothing at this path.")
    methods = ROUTES.get(route.shape) or _provider_route(route.shape)
    if methods is None:
        if "providers" in route.shape.split("/"):
            namespace = general.provider_in_path(path)
            parts = path.rstrip("/").split("/")
            lower = [part.lower() for part in parts]
            kind = "/".join(parts[lower.index("providers") + 2 :][::2])
            raise ApiError(
                404,
                "InvalidResourceType",
                f"The resource type '{kind}' could not be found in the namespace '{namespace}' here.",
            )
        raise ApiError(404, "NotFound", "There is nothing at this path.")
    if method not in methods:
        raise ApiError(
            405,
            "MethodNotAllowed",
            f"The method {method} is not supported here.",
            headers={"Allow": ", ".join(sorted(methods))},
        )
    return methods[method], route.names


def _provider_route(shape: str) -> Mapping[str, Handler] | None:
    """`S/providers/{namespace}` and `../register`, whatever the namespace: the handler knows which exist."""
    parts = shape.split("/")
    if parts[:3] != ["subscriptions", "*", "providers"]:
        return None
    if len(parts) == 4:
        return {"GET": general.get_provider}
    return {"POST": general.register_provider} if len(parts) == 5 and parts[4] == "register" else None


def check_api_version(query: Mapping[str, str]) -> str:
    """The api-version.

    Errors: ApiError 400 `MissingApiVersionParameter`, `InvalidApiVersionParameter`.
    """
    version = query.get("api-version", "")
    if not version:
        raise ApiError(
            400,
            "MissingApiVersionParameter",
            "The api-version query parameter (?api-version=) is required for all requests.",
        )
    if not paths.is_api_version(version):
        raise ApiError(
            400,
            "InvalidApiVersionParameter",
            f"The api-version '{version[:40]}' is invalid. The supported versions are "
            f"'{','.join(general.API_VERSIONS)}'.",
        )
    return version.lower()


def _carry_out(hub: Hub, http: Call) -> Reply:
    at = now()
    with hub.database.read() as session:
        caller = callers.authenticate(hub, session, http.headers.get("authorization"), at)
    try:
        check_api_version(http.query)
        handler, names = find(http.method, http.path)
        _check_subscription(hub, names)
        return handler(HubCall(hub, http, caller, names, at))
    except ApiError as error:
        if http.method in _WRITES:
            actor = audit.Actor(caller.kind, caller.audit_name)
            audit.refused(hub.database, actor, http.method, http.path, error.code, http.request_id)
        raise


def _check_subscription(hub: Hub, names: tuple[str, ...]) -> None:
    """An unknown subscription is told as such before rights are looked at, as onboarding tools expect."""
    if names:
        with hub.database.read() as session:
            if find_subscription(session, names[0]) is None:
                raise ApiError(404, "SubscriptionNotFound", f"The subscription '{names[0]}' could not be found.")


def answer_headers(http: Call) -> dict[str, str]:
    """Headers of every ARM answer (identity-and-arm-api.md C.1)."""
    headers = {
        "x-ms-request-id": http.request_id,
        "x-ms-correlation-request-id": http.correlation_id,
        "Cache-Control": "no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    client_id = http.headers.get("x-ms-client-request-id", "")
    if http.headers.get("x-ms-return-client-request-id", "").lower() == "true" and len(client_id) <= 256:
        headers["x-ms-client-request-id"] = client_id
    return headers


async def endpoint(hub: Hub, request: Request) -> Response:
    """The ASGI side of every ARM path."""
    settings = hub.settings
    headers: dict[str, str] = {}
    try:
        http = await read_call(request, ARM_BODY, settings.url, settings.known_hosts)
        headers = answer_headers(http)
        if http.path.lower().rstrip("/") == "/metadata/endpoints":
            return JSONResponse(general.endpoints(hub, check_api_version(http.query)), headers=headers)
        reply = await run_in_threadpool(_carry_out, hub, http)
    except Exception as error:  # noqa: BLE001 - the edge: everything becomes an answer
        told = callers.challenge(hub, error_of(error))
        body = None if request.method == "HEAD" else told.envelope()
        return json_response(told.status, body, {**headers, **told.headers})
    return json_response(reply.status, reply.body, {**headers, **reply.headers})
