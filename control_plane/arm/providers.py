# SPDX-License-Identifier: Apache-2.0
"""Resource providers: which namespaces and types this hub answers for, in which versions, and their operations."""

from __future__ import annotations

from typing import Any

from control_plane.arm import paths
from control_plane.arm.roles import Action
from control_plane.call import HubCall
from control_plane.errors import ApiError
from control_plane.http import Reply
from control_plane.storage import machines

API_VERSIONS = [
    "2026-07-15",
    "2026-06-16-preview",
    "2025-01-13",
    "2024-07-10",
    "2024-05-20-preview",
    "2022-12-27",
    "2022-11-10",
    "2022-03-10",
    "2021-05-20",
    "2020-08-02",
    "2019-12-12",
]

_RESOURCES_VERSIONS = ["2024-11-01", "2022-09-01", "2021-04-01", "2019-10-01"]
_AUTHORIZATION_VERSIONS = ["2022-04-01", "2020-05-01", "2016-09-01"]

# Resource types that this hub answers for, with what each can do. Guest configuration is registered by onboarding tools
# before they connect.
_TRACKED = "SupportsTags, SupportsLocation"
_PROVIDERS: dict[str, dict[str, str]] = {
    "Microsoft.HybridCompute": {
        "machines": f"SystemAssignedResourceIdentity, {_TRACKED}",
        "machines/extensions": _TRACKED,
        "machines/runCommands": _TRACKED,
        "machines/licenseProfiles": _TRACKED,
        "licenses": _TRACKED,
        "gateways": _TRACKED,
        "privateLinkScopes": _TRACKED,
        "settings": "SupportsExtension",
        "operations": "None",
    },
    "Microsoft.GuestConfiguration": {"guestConfigurationAssignments": "SupportsExtension"},
    "Microsoft.Compute": {"virtualMachines": "None"},
    "Microsoft.Resources": {
        "subscriptions": "None",
        "resourceGroups": _TRACKED,
        "resources": "None",
        "tags": "SupportsExtension",
        "tenants": "None",
    },
    "Microsoft.Authorization": {
        "locks": "SupportsExtension",
        "roleAssignments": "SupportsExtension",
        "roleDefinitions": "SupportsExtension",
    },
}
_VERSIONS = {"Microsoft.Resources": _RESOURCES_VERSIONS, "Microsoft.Authorization": _AUTHORIZATION_VERSIONS}

_OPERATIONS = (
    ("Microsoft.HybridCompute/machines/read", "Azure Arc machines", "Read any Azure Arc machines"),
    ("Microsoft.HybridCompute/machines/write", "Azure Arc machines", "Writes an Azure Arc machines"),
    ("Microsoft.HybridCompute/machines/delete", "Azure Arc machines", "Deletes an Azure Arc machines"),
    ("Microsoft.HybridCompute/machines/extensions/read", "Azure Arc machines extensions", "Reads any extensions"),
    ("Microsoft.HybridCompute/machines/extensions/write", "Azure Arc machines extensions", "Installs or Updates any"),
    ("Microsoft.HybridCompute/machines/extensions/delete", "Azure Arc machines extensions", "Deletes any extensions"),
    ("Microsoft.HybridCompute/machines/runCommands/read", "Azure Arc runCommands", "Reads any runCommands"),
    ("Microsoft.HybridCompute/machines/runCommands/write", "Azure Arc runCommands", "Installs or Updates any"),
    ("Microsoft.HybridCompute/machines/runCommands/delete", "Azure Arc runCommands", "Deletes any runCommands"),
    ("Microsoft.HybridCompute/licenses/read", "Azure Arc licenses", "Reads any Azure Arc licenses"),
    ("Microsoft.HybridCompute/licenses/write", "Azure Arc licenses", "Installs or Updates an Azure Arc licenses"),
    ("Microsoft.HybridCompute/licenses/delete", "Azure Arc licenses", "Deletes an Azure Arc licenses"),
    ("Microsoft.HybridCompute/gateways/read", "Arc Gateway", "Reads any Arc gateways"),
    ("Microsoft.HybridCompute/gateways/write", "Arc Gateway", "Creates or Updates an Arc gateway"),
    ("Microsoft.HybridCompute/gateways/delete", "Arc Gateway", "Deletes an Arc gateway"),
    ("Microsoft.HybridCompute/settings/read", "Arc settings", "Reads any Arc settings"),
    ("Microsoft.HybridCompute/settings/write", "Arc settings", "Writes Arc settings"),
    ("Microsoft.HybridCompute/privateLinkScopes/read", "Private Link Scopes", "Read any privateLinkScopes"),
    ("Microsoft.HybridCompute/privateLinkScopes/write", "Private Link Scopes", "Writes a privateLinkScopes"),
    ("Microsoft.HybridCompute/privateLinkScopes/delete", "Private Link Scopes", "Deletes a privateLinkScopes"),
    ("Microsoft.HybridCompute/register/action", "Resource provider", "Registers the subscription for the provider"),
)


def _provider_json(prefix: str, namespace: str, locations: list[str]) -> dict[str, Any]:
    versions = _VERSIONS.get(namespace, API_VERSIONS)
    return {
        "id": f"{prefix}/providers/{namespace}",
        "namespace": namespace,
        "registrationPolicy": "RegistrationRequired",
        "registrationState": "Registered",
        "resourceTypes": [
            {
                "resourceType": name,
                "locations": locations,
                "apiVersions": versions,
                "defaultApiVersion": versions[0],
                "capabilities": capabilities,
            }
            for name, capabilities in _PROVIDERS[namespace].items()
        ],
    }


def _provider(call: HubCall, namespace: str, action: Action) -> Reply:
    with call.hub.database.read() as session:
        found = call.subscription(session)
        names = [item.display_name for item in machines.locations(session)]
    prefix = f"/subscriptions/{found.id}"
    call.require(action, prefix)
    return Reply(200, _provider_json(prefix, namespace, names))


def list_providers(call: HubCall) -> Reply:
    """GET /subscriptions/{id}/providers."""
    with call.hub.database.read() as session:
        found = call.subscription(session)
        names = [item.display_name for item in machines.locations(session)]
    prefix = f"/subscriptions/{found.id}"
    call.require(Action.PROVIDER_READ, prefix)
    return Reply(200, {"value": [_provider_json(prefix, item, names) for item in _PROVIDERS]})


def provider_in_path(path: str) -> str:
    """The namespace that a path names last, in its own spelling.

    Errors: ApiError 404 `InvalidResourceNamespace`.
    """
    segments = path.lower().split("/")
    places = [place for place, segment in enumerate(segments[:-1]) if segment == "providers"]
    given = segments[places[-1] + 1] if places else ""
    for namespace in _PROVIDERS:
        if namespace.lower() == given:
            return namespace
    raise ApiError(404, "InvalidResourceNamespace", f"The resource namespace '{given}' is invalid.")


def get_provider(call: HubCall) -> Reply:
    """GET /subscriptions/{id}/providers/{namespace}."""
    return _provider(call, provider_in_path(call.http.path), Action.PROVIDER_READ)


def register_provider(call: HubCall) -> Reply:
    """POST /subscriptions/{id}/providers/{namespace}/register: every provider here is registered already."""
    return _provider(call, provider_in_path(call.http.path), Action.PROVIDER_REGISTER)


def list_operations(_call: HubCall) -> Reply:
    """GET /providers/Microsoft.HybridCompute/operations."""
    value = [
        {
            "name": name,
            "isDataAction": False,
            "display": {
                "provider": paths.PROVIDER,
                "resource": resource,
                "operation": description,
                "description": description,
            },
        }
        for name, resource, description in _OPERATIONS
    ]
    return Reply(200, {"value": value})
