# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the hub is and who the controller is: from options, then HAWSER_*, then AZURE_*, then the cloud profile."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.hawser.machine.plugins.plugin_utils._errors import OptionError

# option: variables, the first that is set counts
VARIABLES: dict[str, tuple[str, ...]] = {
    "arm": ("HAWSER_ARM",),
    "authority": ("HAWSER_AUTHORITY", "AZURE_AUTHORITY_HOST"),
    "tenant_id": ("HAWSER_TENANT_ID", "AZURE_TENANT_ID", "AZURE_TENANT"),
    "client_id": ("HAWSER_CLIENT_ID", "AZURE_CLIENT_ID"),
    "client_secret": ("HAWSER_CLIENT_SECRET", "AZURE_CLIENT_SECRET", "AZURE_SECRET"),
    "client_secret_file": ("HAWSER_CLIENT_SECRET_FILE",),
    "access_token": ("HAWSER_ACCESS_TOKEN",),
    "ca_file": ("HAWSER_CA_FILE",),
    "subscription_id": ("HAWSER_SUBSCRIPTION_ID", "AZURE_SUBSCRIPTION_ID"),
    "resource_group": ("HAWSER_RESOURCE_GROUP",),
    "location": ("HAWSER_LOCATION",),
}
_PROFILE_LIMIT = 256 * 1024
_HTTPS = re.compile(r"https://[^/\s]+(/\S*)?")


def resolve(
    options: Mapping[str, Any], environment: Mapping[str, str], profile: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The options with everything filled in that they leave open. Pure.

    A secret and a file with the secret are one thing: what stands nearer (option before HAWSER_* before AZURE_*) wins
    over both.
    """
    found = dict(options)
    secret_given = any(options.get(key) for key in ("client_secret", "client_secret_file"))
    for option, variables in VARIABLES.items():
        if option not in options or found.get(option):
            continue
        if option.startswith("client_secret") and secret_given:
            continue
        found[option] = next((environment[name] for name in variables if environment.get(name)), None)
    if found.get("client_secret_file") and found.get("client_secret") and not secret_given:
        # Both from the environment: HAWSER_CLIENT_SECRET(_FILE) stands before the AZURE_ form.
        if environment.get("HAWSER_CLIENT_SECRET"):
            found["client_secret_file"] = None
        else:
            found["client_secret"] = None
    for option in ("arm", "authority", "tenant_id"):
        if option in options and not found.get(option) and profile:
            found[option] = profile.get(option)
    for option in ("arm", "authority"):
        if found.get(option):
            found[option] = str(found[option]).rstrip("/")
    return found


def load_profile(value: Any, base: str) -> dict[str, Any] | None:
    """A cloud profile out of the option `cloud_profile`: a dictionary, or the path of a JSON file on the controller."""
    if value is None or value == "":
        return None
    if isinstance(value, Mapping):
        profile: Any = dict(value)
    else:
        path = Path(base, os.path.expanduser(str(value)))
        try:
            with path.open("rb") as file:
                data = file.read(_PROFILE_LIMIT + 1)
        except OSError as error:
            raise OptionError(
                f"the cloud profile {path} cannot be read: {error.strerror}",
                "Fetch it with `hawser-hub cloud-profile` and give its path",
            ) from error
        try:
            profile = json.loads(data) if len(data) <= _PROFILE_LIMIT else None
        except ValueError as error:
            raise OptionError(f"the cloud profile {path} is not JSON: {error}", "Fetch it anew from the hub") from error
    if not isinstance(profile, dict) or not isinstance(profile.get("name"), str):
        raise OptionError("cloud_profile is not a cloud profile: it has no name", "Use the JSON that the hub gives out")
    return profile


@dataclass(frozen=True)
class HubSettings:
    """What is needed to speak to the hub. `ca_file` may be None: then the system's CAs count."""

    arm: str
    authority: str
    tenant_id: str
    client_id: str | None
    ca_file: str | None
    client_secret: str | None = field(default=None, repr=False)
    access_token: str | None = field(default=None, repr=False)

    def cache_key(self, scope: str) -> str:
        """Names the token of this principal with this secret for this scope, and nothing of the secret."""
        parts = "\0".join([self.authority, self.tenant_id, self.client_id or "", self.client_secret or "", scope])
        return hashlib.sha256(parts.encode()).hexdigest()


def _secret_of(found: Mapping[str, Any]) -> str | None:
    """The client secret, from the option or from its file (the last newline does not belong to it)."""
    if found.get("client_secret"):
        return str(found["client_secret"])
    if not found.get("client_secret_file"):
        return None
    path = os.path.expanduser(str(found["client_secret_file"]))
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise OptionError(
            f"client_secret_file {path} cannot be read: {reason}", "Give a file that you may read"
        ) from error
    return text.strip() or None


def hub_settings(found: Mapping[str, Any], ca_file: str | None) -> HubSettings:
    """Settings out of resolved options; an OptionError names everything that is missing at once."""
    missing = [option for option in ("arm", "authority", "tenant_id") if not found.get(option)]
    secret = _secret_of(found)
    if not found.get("access_token"):
        missing += [
            option for option, value in (("client_id", found.get("client_id")), ("client_secret", secret)) if not value
        ]
    if missing:
        names = ", ".join(VARIABLES[option][0] for option in missing)
        raise OptionError(
            f"the hub is needed, and {', '.join(missing)} missing"
            if len(missing) == 1
            else f"the hub is needed, and these are missing: {', '.join(missing)}",
            f"Set the options, or {names} in the controller's environment",
            code="AZCM0016",
        )
    for option in ("arm", "authority"):
        if not _HTTPS.fullmatch(str(found[option])):
            raise OptionError(f"{option} is {found[option]}", "Give an https URL")
    if ca_file and not os.path.isfile(ca_file):
        raise OptionError(f"ca_file {ca_file} does not exist", "Give the file with the hub's CA in PEM")
    return HubSettings(
        arm=str(found["arm"]),
        authority=str(found["authority"]),
        tenant_id=str(found["tenant_id"]),
        client_id=str(found["client_id"]) if found.get("client_id") else None,
        client_secret=secret,
        access_token=str(found["access_token"]) if found.get("access_token") else None,
        ca_file=ca_file,
    )
