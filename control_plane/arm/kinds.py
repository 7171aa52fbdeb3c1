# SPDX-License-Identifier: Apache-2.0
"""Resource types that are kept as callers write them: one row for each, with the schema of its `properties`.

Status codes: identity-and-arm-api.md C.4; members: C.9 and the public API specification of Microsoft.HybridCompute.
Members that only the service writes are taken and ignored, because clients send whole objects back.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import fastjsonschema

from control_plane import schema_words
from control_plane.arm.paths import EXTENSION_TYPE, MACHINE_TYPE, PROVIDER, RUN_COMMAND_TYPE
from control_plane.arm.roles import Action
from control_plane.errors import bad_content

_TEXT = {"type": "string", "maxLength": 512}
_RESOURCE_ID = {"type": "string", "maxLength": 512, "pattern": "^/subscriptions/", "description": "a resource id"}
_FLAG = {"type": "boolean"}


def _choice(*words: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(words)}


def _object(**members: Any) -> dict[str, Any]:
    return {"type": "object", "properties": members}


def _texts(limit: int) -> dict[str, Any]:
    return {"type": "array", "maxItems": limit, "items": _TEXT}


@dataclass(frozen=True)
class Kind:
    """A type. `made`: status of the PUT that makes one; `location`: one must be given; `long`: writes are answered as
    long-running operations; `only_name`: the one name there may be; `patchable`: members a PATCH may change, None: all.
    """

    type: str
    read: Action
    write: Action
    delete: Action | None
    schema: dict[str, Any]
    made: int
    location: bool = True
    below_machine: bool = False
    long: bool = False
    only_name: str | None = None
    patchable: frozenset[str] | None = None

    @property
    def key(self) -> str:
        """The form in which types are compared."""
        return self.type.lower()


LICENSE = Kind(
    f"{PROVIDER}/licenses",
    Action.LICENSE_READ,
    Action.LICENSE_WRITE,
    Action.LICENSE_DELETE,
    _object(
        tenantId=_TEXT,
        licenseType=_choice("ESU"),
        licenseDetails=_object(
            state=_choice("Activated", "Deactivated"),
            target=_choice("Windows Server 2012", "Windows Server 2012 R2", "Windows Server 2016"),
            edition=_choice("Standard", "Datacenter"),
            type=_choice("pCore", "vCore"),
            processors={"type": "integer", "minimum": 1, "maximum": 100_000},
            volumeLicenseDetails={
                "type": "array",
                "maxItems": 10,
                "items": _object(programYear=_choice("Year 1", "Year 2", "Year 3"), invoiceId=_TEXT),
            },
        ),
    ),
    made=200,
    long=True,
)
LICENSE_PROFILE = Kind(
    f"{MACHINE_TYPE}/licenseProfiles",
    Action.LICENSE_READ,
    Action.LICENSE_WRITE,
    Action.LICENSE_DELETE,
    _object(
        esuProfile=_object(assignedLicense=_RESOURCE_ID),
        softwareAssurance=_object(softwareAssuranceCustomer=_FLAG),
        productProfile=_object(
            subscriptionStatus=_choice("Unknown", "Enabling", "Enabled", "Disabled", "Disabling", "Failed"),
            productType=_choice("WindowsServer", "WindowsIoTEnterprise"),
            productFeatures={
                "type": "array",
                "maxItems": 20,
                "items": _object(name=_TEXT, subscriptionStatus=_TEXT),
            },
        ),
    ),
    made=201,
    below_machine=True,
    long=True,
    only_name="default",
)
GATEWAY = Kind(
    f"{PROVIDER}/gateways",
    Action.GATEWAY_READ,
    Action.GATEWAY_WRITE,
    Action.GATEWAY_DELETE,
    _object(gatewayType=_choice("Public"), allowedFeatures=_texts(100), gatewayBypass=_texts(100)),
    made=201,
    long=True,
)
PRIVATE_LINK_SCOPE = Kind(
    f"{PROVIDER}/privateLinkScopes",
    Action.SCOPE_READ,
    Action.SCOPE_WRITE,
    Action.SCOPE_DELETE,
    _object(publicNetworkAccess=_choice("Enabled", "Disabled", "SecuredByPerimeter")),
    made=201,
    patchable=frozenset(),
)
SETTINGS = Kind(
    f"{PROVIDER}/settings",
    Action.SETTINGS_READ,
    Action.SETTINGS_WRITE,
    None,
    _object(gatewayProperties=_object(gatewayResourceId=_RESOURCE_ID)),
    made=201,
    location=False,
    below_machine=True,
    only_name="default",
)
KINDS = (LICENSE, LICENSE_PROFILE, GATEWAY, PRIVATE_LINK_SCOPE, SETTINGS)
LISTED = {kind.key: kind.type for kind in (LICENSE, GATEWAY, PRIVATE_LINK_SCOPE)} | {
    name.lower(): name for name in (EXTENSION_TYPE, RUN_COMMAND_TYPE)
}
"""Types that lists of all resources show, by the form they are compared in: what else hangs below a machine is found
there."""


@cache
def _validator(kind_key: str) -> Any:
    found = next(kind for kind in KINDS if kind.key == kind_key)
    return fastjsonschema.compile(found.schema, use_default=False, detailed_exceptions=True)


def _without(value: dict[str, Any], kind: Kind, prefix: str = "") -> dict[str, Any]:
    """Only members that the schema names, at any depth: others are read-only, or of a version to come."""
    schema: dict[str, Any] = kind.schema
    for part in prefix.split(".")[:-1]:
        schema = schema["properties"][part]
    kept: dict[str, Any] = {}
    for name, item in value.items():
        inner = schema["properties"].get(name)
        if inner is None or item is None:
            continue
        nested = isinstance(item, dict) and inner.get("type") == "object"
        kept[name] = _without(item, kind, f"{prefix}{name}.") if nested else item
    return kept


def properties(kind: Kind, value: object, *, patch: bool = False) -> dict[str, Any]:
    """The writable members of `properties` in a body.

    Errors: ApiError 400 `InvalidRequestContent` naming the member.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad_content("'properties' must be an object.", "properties")
    found = _without(value, kind)
    if patch and kind.patchable is not None:
        found = {name: item for name, item in found.items() if name in kind.patchable}
    try:
        _validator(kind.key)(found)
    except fastjsonschema.JsonSchemaValueException as error:
        member = schema_words.member(error, "properties")
        raise bad_content(f"'{member}' {schema_words.predicate(error)}.", member) from error
    return found


def by_key(key: str) -> Kind:
    """The type with this name, in lower case."""
    return next(kind for kind in KINDS if kind.key == key)
