# SPDX-License-Identifier: Apache-2.0
"""The calls around the machines: endpoints, tenants, subscriptions, locations (identity-and-arm-api.md C.10)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from control_plane.arm import scopes
from control_plane.arm.roles import Action
from control_plane.call import HubCall
from control_plane.http import Reply
from control_plane.hub import Hub
from control_plane.storage import machines
from control_plane.storage.models import Subscription
from control_plane.storage.resource_models import SubscriptionTags


def endpoints(hub: Hub, api_version: str) -> Any:
    """`/metadata/endpoints`: one flat object up to 2018, an array of clouds in 2019 to 2021, one cloud from 2022."""
    url = hub.settings.url
    audiences = [f"{url}/", "https://management.core.windows.net/", "https://management.azure.com/"]
    if api_version < "2019":
        return {
            "galleryEndpoint": f"{url}/",
            "graphEndpoint": "https://graph.windows.net/",
            "portalEndpoint": f"{url}/",
            "authentication": {"loginEndpoint": f"{url}/", "audiences": audiences},
        }
    cloud = {
        "name": "hawser",
        "portal": url,
        "authentication": {
            "loginEndpoint": url,
            "audiences": audiences,
            "tenant": hub.settings.tenant_id,
            "identityProvider": "AAD",
        },
        "resourceManager": f"{url}/",
        "gallery": f"{url}/",
        "graph": "https://graph.windows.net/",
        "graphAudience": "https://graph.windows.net/",
        "microsoftGraphResourceId": "https://graph.microsoft.com/",
        "suffixes": {"keyVaultDns": "vault.azure.net", "storage": "core.windows.net"},
    }
    return [cloud] if api_version < "2022" else cloud


def _readable(call: HubCall) -> list[Subscription]:
    """Subscriptions in which the caller may see something."""
    with call.hub.database.read() as session:
        found = session.scalars(select(Subscription).order_by(Subscription.created, Subscription.id)).all()
    seen = scopes.readable(call.caller, Action.SUBSCRIPTION_READ)
    return [item for item in found if scopes.below(seen, f"/subscriptions/{item.id}")]


def _subscription_json(call: HubCall, item: Subscription) -> dict[str, Any]:
    with call.hub.database.read() as session:
        tagged = session.get(SubscriptionTags, item.id)
    return {
        "id": f"/subscriptions/{item.id}",
        "subscriptionId": item.id,
        "tenantId": call.hub.settings.tenant_id,
        "displayName": item.name,
        "state": "Enabled",
        "subscriptionPolicies": {
            "locationPlacementId": "Internal_2014-09-01",
            "quotaId": "Internal_2014-09-01",
            "spendingLimit": "Off",
        },
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
        "tags": tagged.tags if tagged else {},
    }


def list_tenants(call: HubCall) -> Reply:
    """GET /tenants."""
    settings = call.hub.settings
    tenant = {
        "id": f"/tenants/{settings.tenant_id}",
        "tenantId": settings.tenant_id,
        "displayName": settings.tenant_domain,
        "defaultDomain": settings.tenant_domain,
        "domains": [settings.tenant_domain],
        "tenantCategory": "Home",
        "tenantType": "AAD",
    }
    return Reply(200, {"value": [tenant]})


def list_subscriptions(call: HubCall) -> Reply:
    """GET /subscriptions: those the caller has a role in."""
    found = _readable(call)
    return Reply(
        200,
        {
            "value": [_subscription_json(call, item) for item in found],
            "count": {"type": "Total", "value": len(found)},
        },
    )


def get_subscription(call: HubCall) -> Reply:
    """GET /subscriptions/{id}."""
    with call.hub.database.read() as session:
        found = call.subscription(session)
    scopes.require(call.caller, Action.SUBSCRIPTION_READ, f"/subscriptions/{found.id}")
    return Reply(200, _subscription_json(call, found))


def list_locations(call: HubCall) -> Reply:
    """GET /subscriptions/{id}/locations."""
    with call.hub.database.read() as session:
        found = call.subscription(session)
        known = machines.locations(session)
    call.require(Action.SUBSCRIPTION_READ, f"/subscriptions/{found.id}")
    value = [
        {
            "id": f"/subscriptions/{found.id}/locations/{item.name}",
            "name": item.name,
            "type": "Region",
            "displayName": item.display_name,
            "regionalDisplayName": item.display_name,
            "metadata": {"regionType": "Physical", "regionCategory": "Recommended"},
        }
        for item in known
    ]
    return Reply(200, {"value": value})
