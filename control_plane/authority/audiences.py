# SPDX-License-Identifier: Apache-2.0
"""Which resources tokens are issued for (identity-and-arm-api.md B.4, B.5).

The text that was asked for is kept literally in `aud`; comparison ignores one trailing slash and case.
"""

from __future__ import annotations

from collections.abc import Iterable

CHANNEL = "api://hawser-channel"
TICKET = "api://hawser-ticket"

ARM_PUBLIC = ("https://management.azure.com", "https://management.core.windows.net")

# What applications on managed machines ask for. The hub vouches for the identity; whether the service believes it is
# the service's decision (it has to trust this authority's JWKS).
WELL_KNOWN = (
    "https://vault.azure.net",
    "https://managedhsm.azure.net",
    "https://storage.azure.com",
    "https://graph.microsoft.com",
    "https://graph.windows.net",
    "https://database.windows.net",
    "https://ossrdbms-aad.database.windows.net",
    "https://cosmos.azure.com",
    "https://servicebus.azure.net",
    "https://eventhubs.azure.net",
    "https://eventgrid.azure.net",
    "https://relay.azure.net",
    "https://monitor.azure.com",
    "https://monitoring.azure.com",
    "https://api.loganalytics.io",
    "https://api.applicationinsights.io",
    "https://datalake.azure.net",
    "https://batch.core.windows.net",
    "https://azconfig.io",
    "https://search.azure.com",
    "https://cognitiveservices.azure.com",
    "https://containerregistry.azure.net",
    "https://dev.azuresynapse.net",
    "https://digitaltwins.azure.net",
    "https://iothubs.azure.net",
    "https://purview.azure.net",
    "https://redis.azure.com",
    "https://appservice.azure.com",
    "https://gbl.his.arc.azure.com",
    "https://guestnotificationservice.azure.com",
)


def folded(resource: str) -> str:
    """The form in which resources are compared."""
    return resource.removesuffix("/").lower()


def arm_audiences(url: str) -> frozenset[str]:
    """Folded audiences that the ARM side accepts: its own URL and those of the public cloud that SDKs ask for."""
    return frozenset(folded(item) for item in (url, *ARM_PUBLIC))


def is_known(resource: str, url: str, added: Iterable[str]) -> bool:
    """True when an application token may be issued for `resource`. Tickets are never issued by the token endpoint."""
    wanted = folded(resource)
    known = (url, *ARM_PUBLIC, *WELL_KNOWN, CHANNEL, *added)
    return any(folded(item) == wanted for item in known)


def resource_of_scope(scope: str) -> str | None:
    """The resource of `<resource>/.default`: exactly that suffix is stripped, so that a trailing slash survives."""
    resource = scope.removesuffix("/.default")
    return resource if resource and resource != scope else None
