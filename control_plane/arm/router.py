# SPDX-License-Identifier: Apache-2.0
"""From an ARM request to its handler: api-version, authentication, routing, headers, errors, audit of refusals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from control_plane import callers, threads
from control_plane.arm import (
    actions,
    authorization,
    batch,
    extension_catalogue,
    extensions,
    general,
    groups,
    kinds,
    lacking,
    listing,
    locks,
    machines,
    operations,
    paths,
    private_link,
    providers,
    run_commands,
    tags,
    typed,
)
from control_plane.arm.roles import Action, Caller
from control_plane.bodies import ARM_BODY
from control_plane.call import Handler, HubCall
from control_plane.clock import now
from control_plane.errors import ApiError
from control_plane.http import Call, Reply, error_of, json_response, read_call
from control_plane.hub import Hub
from control_plane.storage import audit, resources
from control_plane.storage.machines import find_subscription

_S = "subscriptions/*"
_G = f"{_S}/resourcegroups/*"
_P = f"providers/{paths.PROVIDER.lower()}"
_M = f"{_G}/{_P}/machines/*"
_VM = "providers/microsoft.compute/virtualmachines"
_GUEST_PROVIDER = "providers/microsoft.guestconfiguration"
_GUEST = f"{_GUEST_PROVIDER}/guestconfigurationassignments"
_PUBLISHERS = f"{_P}/locations/*/publishers"
_VERSIONS = f"{_PUBLISHERS}/*/extensiontypes/*/versions"
_SCOPES = f"{_G}/{_P}/privatelinkscopes"
_LOCKS = "/providers/microsoft.authorization/locks"
_TAGS = "/providers/microsoft.resources/tags/*"
_ASSIGNMENTS = "/providers/microsoft.authorization/roleassignments"
_DEFINITIONS = "/providers/microsoft.authorization/roledefinitions"

_NO_GUEST_CONFIGURATION = lacking.refused(
    Action.MACHINE_WRITE,
    "This version of the hub carries no guest configuration, so that machine '{name}' can be assigned none.",
)
_NO_PATCHES = lacking.refused(
    Action.MACHINE_WRITE,
    "The agent of machine '{name}' does not assess or install patches; use the tools of its operating system.",
)

ROUTES: dict[str, dict[str, Handler]] = {
    "tenants": {"GET": general.list_tenants},
    "subscriptions": {"GET": general.list_subscriptions},
    _S: {"GET": general.get_subscription},
    f"{_S}/locations": {"GET": general.list_locations},
    f"{_S}/providers": {"GET": providers.list_providers},
    f"{_S}/resources": {"GET": listing.list_resources},
    f"{_S}/tagnames": {"GET": tags.list_names},
    f"{_S}/resourcegroups": {"GET": groups.list_groups},
    f"{_G}/resources": {"GET": listing.list_resources},
    _G: {
        "GET": groups.get_group,
        "HEAD": groups.head_group,
        "PUT": groups.put_group,
        "PATCH": groups.patch_group,
        "DELETE": groups.delete_group,
    },
    f"{_P}/operations": {"GET": providers.list_operations},
    f"{_GUEST_PROVIDER}/operations": {"GET": lacking.none_listed},
    # Ansible's inventory asks for them with every run.
    f"{_S}/{_VM}": {"GET": lacking.none_in(Action.COMPUTE_READ)},
    f"{_G}/{_VM}": {"GET": lacking.none_in(Action.COMPUTE_READ)},
    f"{_S}/{_GUEST}": {"GET": lacking.none_in(Action.RESOURCE_READ)},
    f"{_G}/{_GUEST}": {"GET": lacking.none_in(Action.RESOURCE_READ)},
    f"{_M}/{_GUEST}": {"GET": lacking.none_listed_below(Action.RESOURCE_READ)},
    f"{_M}/{_GUEST}/*": {
        "GET": lacking.none_below(Action.RESOURCE_READ),
        "PUT": _NO_GUEST_CONFIGURATION,
        "DELETE": lacking.none_below(Action.MACHINE_WRITE),
    },
    f"{_M}/{_GUEST}/*/reports": {"GET": lacking.none_below(Action.RESOURCE_READ)},
    f"{_M}/{_GUEST}/*/reports/*": {"GET": lacking.none_below(Action.RESOURCE_READ)},
    f"{_S}/{_P}/machines": {"GET": machines.list_machines},
    f"{_G}/{_P}/machines": {"GET": machines.list_machines},
    _M: {
        "GET": machines.get_machine,
        "HEAD": machines.head_machine,
        "PUT": machines.put_machine,
        "PATCH": machines.patch_machine,
        "DELETE": machines.delete_machine,
    },
    f"{_M}/networkprofile": {"GET": machines.get_network_profile},
    f"{_M}/extensions": {"GET": extensions.list_extensions},
    f"{_M}/extensions/*": {
        "GET": extensions.get_extension,
        "HEAD": extensions.head_extension,
        "PUT": extensions.put_extension,
        "PATCH": extensions.patch_extension,
        "DELETE": extensions.delete_extension,
    },
    f"{_M}/upgradeextensions": {"POST": extensions.upgrade_extensions},
    f"{_M}/addextensions": {"POST": extensions.add_extensions},
    f"{_M}/runcommands": {"GET": run_commands.list_commands},
    f"{_M}/runcommands/*": {
        "GET": run_commands.get_command,
        "PUT": run_commands.put_command,
        "PATCH": run_commands.patch_command,
        "DELETE": run_commands.delete_command,
    },
    f"{_M}/assesspatches": {"POST": _NO_PATCHES},
    f"{_M}/installpatches": {"POST": _NO_PATCHES},
    f"{_M}/licenseprofiles": {"GET": typed.lister(kinds.LICENSE_PROFILE)},
    f"{_M}/licenseprofiles/*": typed.methods(kinds.LICENSE_PROFILE),
    f"{_M}/privatelinkscopes/*": {"GET": private_link.details_of_machine},
    f"{_M}/{_P}/settings/*": typed.methods(kinds.SETTINGS),
    f"{_S}/{_P}/validatelicense": {"POST": typed.validate_license},
    f"{_S}/{_P}/locations/*/operationstatus/*": {"GET": operations.status},
    f"{_S}/{_P}/locations/*/operationresults/*": {"GET": operations.result},
    f"{_S}/{_P}/locations/*/privatelinkscopes/*": {"GET": private_link.details},
    f"{_SCOPES}/*/privatelinkresources": {"GET": private_link.nothing},
    f"{_SCOPES}/*/privatelinkresources/*": {"GET": private_link.absent},
    f"{_SCOPES}/*/privateendpointconnections": {"GET": private_link.nothing},
    f"{_SCOPES}/*/privateendpointconnections/*": {
        "GET": private_link.absent,
        "PUT": private_link.put_connection,
        "DELETE": private_link.absent,
    },
    f"{_SCOPES}/*/networksecurityperimeterconfigurations": {"GET": private_link.nothing},
    f"{_SCOPES}/*/networksecurityperimeterconfigurations/*": {"GET": private_link.absent},
    f"{_SCOPES}/*/networksecurityperimeterconfigurations/*/reconcile": {"POST": private_link.absent},
    _PUBLISHERS: {"GET": extension_catalogue.list_publishers},
    f"{_PUBLISHERS}/*/extensiontypes": {"GET": extension_catalogue.list_types},
    _VERSIONS: {"GET": extension_catalogue.list_versions},
    f"{_VERSIONS}/*": {"GET": extension_catalogue.get_version},
    f"{_S}/{_VERSIONS}": {"GET": extension_catalogue.list_versions_here},
    f"{_S}/{_VERSIONS}/*": {"GET": extension_catalogue.get_version_here},
}
for _kind in (kinds.LICENSE, kinds.GATEWAY, kinds.PRIVATE_LINK_SCOPE):
    for _container in (_S, _G):
        ROUTES[f"{_container}/providers/{_kind.key}"] = {"GET": typed.lister(_kind)}
    ROUTES[f"{_G}/providers/{_kind.key}/*"] = typed.methods(_kind)

# What may hang below any scope within a subscription.
EXTENDING: dict[str, dict[str, Handler]] = {
    _LOCKS: {"GET": locks.list_locks},
    f"{_LOCKS}/*": {"GET": locks.get_lock, "PUT": locks.put_lock, "DELETE": locks.delete_lock},
    _TAGS: {"GET": tags.get_tags, "PUT": tags.put_tags, "PATCH": tags.patch_tags, "DELETE": tags.delete_tags},
}
_ROLES: dict[str, dict[str, Handler]] = {
    _ASSIGNMENTS: {"GET": authorization.list_assignments},
    f"{_ASSIGNMENTS}/*": {
        "GET": authorization.get_assignment,
        "PUT": authorization.put_assignment,
        "DELETE": authorization.delete_assignment,
    },
    _DEFINITIONS: {"GET": authorization.list_definitions},
    f"{_DEFINITIONS}/*": {"GET": authorization.get_definition},
}
EXTENDING |= _ROLES
ROUTES |= {end.lstrip("/"): methods for end, methods in _ROLES.items()}  # at the whole hub


def find(method: str, path: str) -> tuple[Handler, tuple[str, ...]]:
    """The handler of a request and the names in its path.

    Errors: ApiError 404 (no such path, namespace or type), 405 (no such method here).
    """
    route = paths.read(path)
    if route is None:
        raise ApiError(404, "NotFound", "There is nothing at this path.")
    methods = ROUTES.get(route.shape) or _extending(route.shape) or _provider_route(route.shape)
    if methods is None:
        if "providers" in route.shape.split("/"):
            namespace = providers.provider_in_path(path)
            parts = path.rstrip("/").split("/")
            lower = [part.lower() for part in parts]
            last = len(parts) - 1 - lower[::-1].index("providers")
            kind = "/".join(parts[last + 2 :][::2])
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


def _extending(shape: str) -> Mapping[str, Handler] | None:
    """Tags and locks, whatever they are of: their handlers know what exists."""
    if not shape.startswith(f"{_S}/"):
        return None
    return next((found for end, found in EXTENDING.items() if shape.endswith(end)), None)


def _provider_route(shape: str) -> Mapping[str, Handler] | None:
    """`S/providers/{namespace}` and `../register`, whatever the namespace: the handler knows which exist."""
    parts = shape.split("/")
    if parts[:3] != ["subscriptions", "*", "providers"]:
        return None
    if len(parts) == 4:
        return {"GET": providers.get_provider}
    return {"POST": providers.register_provider} if len(parts) == 5 and parts[4] == "register" else None


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
            f"'{','.join(providers.API_VERSIONS)}'.",
        )
    return version.lower()


def _carry_out(hub: Hub, http: Call) -> Reply:
    at = now()
    with hub.database.read() as session:
        caller = callers.authenticate(hub, session, http.headers.get("authorization"), at)
    try:
        check_api_version(http.query)
        if http.path.lower().rstrip("/") != "/batch":
            return _one(hub, http, caller, at)
        if http.method != "POST":
            raise ApiError(405, "MethodNotAllowed", "A batch is a POST.", headers={"Allow": "POST"})
        items = batch.read(http.body)
    except ApiError as error:
        _audit_refusal(hub, http, caller, error)
        raise
    return Reply(200, batch.answers(items, lambda item: _in_batch(hub, http, caller, at, item)))


def _one(hub: Hub, http: Call, caller: Caller, at: int) -> Reply:
    if "\x00" in http.path:  # PostgreSQL takes no text with it, and nothing has such a name
        raise ApiError(400, "InvalidResourceName", "A name must not hold the character NUL.")
    handler, names = find(http.method, http.path)
    _check_subscription(hub, http.path, names)
    if http.method in actions.WRITES:
        locks.check(hub, caller, http.method, http.path)
    return handler(HubCall(hub, http, caller, names, at))


def carry_out_for(hub: Hub, http: Call, caller: Caller, at: int) -> Reply:
    """One request of somebody whom another part of the hub has authenticated; refused writes are audited.

    Errors: ApiError.
    """
    try:
        return _one(hub, http, caller, at)
    except ApiError as error:
        _audit_refusal(hub, http, caller, error)
        raise


def _in_batch(hub: Hub, http: Call, caller: Caller, at: int, item: batch.Item) -> Reply:
    """One request of a batch. It stands and falls by itself."""
    inner = replace(http, method=item.method, path="/batch", body=item.body)
    try:
        inner = batch.call_of(http, item, hub.settings.known_hosts, hub.settings.url)
        check_api_version(inner.query)
        reply = _one(hub, inner, caller, at)
    except Exception as error:  # noqa: BLE001 - one request's fault is that one's answer
        told = error_of(error)
        if isinstance(error, ApiError):
            _audit_refusal(hub, inner, caller, told)
        return Reply(told.status, told.envelope(), {**answer_headers(inner), **told.headers})
    return replace(reply, headers={**answer_headers(inner), **reply.headers})


def _audit_refusal(hub: Hub, http: Call, caller: Caller, error: ApiError) -> None:
    if http.method in actions.WRITES:
        actor = audit.Actor(caller.kind, caller.audit_name)
        action = actions.of(http.method, http.path, exists=_exists(hub, http.path)) or http.method
        audit.refused(hub.database, actor, action, error.about or http.path, error.code, http.request_id)


def _exists(hub: Hub, path: str) -> bool:
    """False when the path is that of a machine that is not there."""
    if "\x00" in path or paths.machine_id(path) is None:
        return True
    with hub.database.read() as session:
        return resources.target(session, path) is not None


def _check_subscription(hub: Hub, path: str, names: tuple[str, ...]) -> None:
    """An unknown subscription is told as such before rights are looked at, as onboarding tools expect."""
    if names and path.lower().startswith("/subscriptions/"):
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
        http = replace(http, path=paths.without_gaps(http.path))
        headers = answer_headers(http)
        if http.path.lower().rstrip("/") == "/metadata/endpoints":
            return JSONResponse(general.endpoints(hub, check_api_version(http.query)), headers=headers)
        reply = await threads.run(_carry_out, hub, http, limiter=hub.limits.room)
    except Exception as error:  # noqa: BLE001 - the edge: everything becomes an answer
        told = callers.challenge(hub, error_of(error))
        body = None if request.method == "HEAD" else told.envelope()
        return json_response(told.status, body, {**headers, **told.headers})
    return json_response(reply.status, reply.body, {**headers, **reply.headers})
