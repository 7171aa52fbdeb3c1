# SPDX-License-Identifier: GPL-3.0-or-later
"""A described extension against the one that ARM shows (identity-and-arm-api.md C.7). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.hawser.machine.plugins.plugin_utils import _digest
from ansible_collections.hawser.machine.plugins.plugin_utils._errors import OptionError

# option: member of ARM's `properties`
MEMBERS = {
    "publisher": "publisher",
    "type": "type",
    "type_handler_version": "typeHandlerVersion",
    "auto_upgrade_minor_version": "autoUpgradeMinorVersion",
    "enable_automatic_upgrade": "enableAutomaticUpgrade",
    "force_update_tag": "forceUpdateTag",
    "provision_after_extensions": "provisionAfterExtensions",
    "settings": "settings",
}
_NUMBERS = re.compile(r"\d{1,9}(\.\d{1,9}){0,3}")
DESCRIBED, OTHER = "as described", "something else, or unknown"


def numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version. Raises OptionError."""
    if not _NUMBERS.fullmatch(version):
        raise OptionError(f"the version {version} is none", "Give one to four numbers with dots")
    return tuple(int(part) for part in version.split("."))


def version_fits(wished: str, actual: str | None, minor: bool, automatic: bool) -> bool:
    """Whether an installed version is what a wish means.

    `1.0` fits any 1.0.x. With minor upgrades a newer one of the same major version is right too, with automatic
    upgrades any newer one.
    """
    if not actual or not _NUMBERS.fullmatch(actual):
        return False
    wish, found = numbers(wished), numbers(actual)
    if found[: len(wish)] == wish:
        return True
    return found > wish and (automatic or (minor and found[0] == wish[0]))


def _equal(option: str, expected: Any, actual: Any) -> bool:
    if option in {"publisher", "type"}:
        return str(expected).lower() == str(actual or "").lower()
    if option == "settings":
        return (expected or {}) == (actual or {})
    if option == "provision_after_extensions":
        return {str(name).lower() for name in expected} == {str(name).lower() for name in actual or ()}
    return bool(expected == actual)


def leaves(path: str, expected: Any, actual: Any) -> Iterator[dict[str, Any]]:
    """The differences of two values, down to the members of dictionaries."""
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        for key in sorted({*expected, *actual}, key=str):
            yield from leaves(f"{path}.{key}", expected.get(key), actual.get(key))
    elif expected != actual:
        yield {"path": path, "expected": expected, "actual": actual}


def differences(options: Mapping[str, Any], found: Mapping[str, Any] | None, resource_id: str) -> list[dict[str, Any]]:
    """Why the extension is not as described: path, expected, actual. Nothing of protected settings is in it.

    What an option leaves open is right as it is. A failed extension is not as described.
    """
    if found is None:
        return [{"path": "extension", "expected": "present", "actual": "absent"}]
    properties = found.get("properties") or {}
    reasons: list[dict[str, Any]] = []
    for option, member in MEMBERS.items():
        expected, actual = options.get(option), properties.get(member)
        if expected is None:
            continue
        if option == "type_handler_version":
            if not _version_is_right(options, properties):
                reasons.append({"path": option, "expected": expected, "actual": actual})
        elif not _equal(option, expected, actual):
            reasons += leaves(option, expected, actual or {} if option == "settings" else actual)
    if options.get("protected_settings") and options["protected_settings_digest"]:
        tag = (found.get("tags") or {}).get(_digest.TAG)
        if not _digest.matches(tag, options["protected_settings"], resource_id):
            reasons.append({"path": "protected_settings", "expected": DESCRIBED, "actual": OTHER})
    state = str(properties.get("provisioningState") or "Succeeded")
    if state.lower() in {"failed", "canceled"}:
        reasons.append({"path": "provisioning_state", "expected": "Succeeded", "actual": state})
    return reasons


def _version_is_right(options: Mapping[str, Any], properties: Mapping[str, Any]) -> bool:
    def flag(option: str) -> bool:
        given = options.get(option)
        return bool(properties.get(MEMBERS[option]) if given is None else given)

    view = properties.get("instanceView") or {}
    minor, automatic = flag("auto_upgrade_minor_version"), flag("enable_automatic_upgrade")
    return any(
        version_fits(str(options["type_handler_version"]), version, minor, automatic)
        for version in (properties.get("typeHandlerVersion"), view.get("typeHandlerVersion"))
    )


def check(options: Mapping[str, Any], found: Mapping[str, Any] | None) -> None:
    """Refuse what the hub would refuse, and say what to do."""
    if options.get("type_handler_version") is not None:
        numbers(str(options["type_handler_version"]))
    missing = [option for option in ("publisher", "type") if not options.get(option)]
    if found is None and missing:
        raise OptionError(
            f"the extension is not there, and {' and '.join(missing)} missing", "Set publisher and type of the handler"
        )
    if found is None:
        return
    for option in ("publisher", "type"):
        actual = (found.get("properties") or {}).get(option)
        if options.get(option) and not _equal(option, options[option], actual):
            raise OptionError(
                f"the extension has the {option} {actual}, described is {options[option]}",
                "Remove the extension first (state: absent), or give the new one another name",
            )


def body_of(
    options: Mapping[str, Any], found: Mapping[str, Any] | None, location: str, resource_id: str
) -> dict[str, Any]:
    """The body of the PUT: what is there, and over it what is described.

    Protected settings go with every PUT that describes them; the hub keeps the former ones when there are none.
    """
    former = (found or {}).get("properties") or {}
    properties = {member: former[member] for member in MEMBERS.values() if former.get(member) is not None}
    properties |= {member: options[option] for option, member in MEMBERS.items() if options.get(option) is not None}
    tags = dict((found or {}).get("tags") or {})
    if options.get("protected_settings"):
        properties["protectedSettings"] = options["protected_settings"]
        tags.pop(_digest.TAG, None)
        if options["protected_settings_digest"]:
            tags[_digest.TAG] = _digest.digest(options["protected_settings"], resource_id)
    return {"location": location, "tags": tags, "properties": properties}


def described(options: Mapping[str, Any]) -> dict[str, Any]:
    """The described state, for `--diff`."""
    if options["state"] == "absent":
        return {}
    shown = {option: options[option] for option in MEMBERS if options.get(option) is not None}
    if options.get("protected_settings"):
        shown["protected_settings"] = DESCRIBED
    return shown


def actual(
    options: Mapping[str, Any], found: Mapping[str, Any] | None, reasons: list[dict[str, Any]]
) -> dict[str, Any]:
    """What is there of the described options, for `--diff`; all of it when the extension shall go."""
    if found is None:
        return {}
    properties = found.get("properties") or {}
    wanted = MEMBERS if options["state"] == "absent" else [name for name in MEMBERS if options.get(name) is not None]
    shown = {option: properties.get(MEMBERS[option]) for option in wanted}
    paths = {reason["path"] for reason in reasons}
    if "type_handler_version" in shown and options["state"] == "present" and "type_handler_version" not in paths:
        # Another text for what is meant is no difference.
        shown["type_handler_version"] = options["type_handler_version"]
    if options.get("protected_settings") and options["state"] == "present":
        shown["protected_settings"] = OTHER if "protected_settings" in paths else DESCRIBED
    if "provisioning_state" in paths:
        shown["provisioning_state"] = properties.get("provisioningState")
    return shown


def status_text(found: Mapping[str, Any] | None) -> str:
    """The message of the instance view, for the sentence that says why an extension failed; may be empty."""
    view = ((found or {}).get("properties") or {}).get("instanceView") or {}
    return str((view.get("status") or {}).get("message") or "").strip()
