# SPDX-License-Identifier: Apache-2.0
"""Discovery documents (identity-and-arm-api.md B.2)."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit


def configuration(url: str, tenant_id: str, *, v2: bool) -> dict[str, Any]:
    """OpenID configuration. First path segment of every endpoint is the tenant id; issuer on the authority's origin."""
    base = f"{url}/{tenant_id}"
    path = "oauth2/v2.0" if v2 else "oauth2"
    return {
        "token_endpoint": f"{base}/{path}/token",
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
        "token_endpoint_auth_signing_alg_values_supported": ["PS256", "RS256"],
        "jwks_uri": f"{base}/discovery/v2.0/keys" if v2 else f"{base}/discovery/keys",
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
        "scopes_supported": ["openid"],
        "issuer": f"{base}/v2.0" if v2 else f"{base}/",
        "authorization_endpoint": f"{base}/{path}/authorize",
        "grant_types_supported": ["client_credentials"],
        "claims_supported": ["sub", "iss", "aud", "exp", "iat", "nbf", "oid", "tid", "appid", "ver", "xms_mirid"],
        "tenant_region_scope": None,
        "cloud_instance_name": urlsplit(url).netloc,
        "cloud_graph_host_name": "",
        "msgraph_host": "",
        "rbac_url": "",
    }


def instance(url: str, tenant_id: str) -> dict[str, Any]:
    """Instance discovery: this authority knows itself alone."""
    host = urlsplit(url).netloc
    return {
        "tenant_discovery_endpoint": f"{url}/{tenant_id}/v2.0/.well-known/openid-configuration",
        "api-version": "1.1",
        "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
    }
