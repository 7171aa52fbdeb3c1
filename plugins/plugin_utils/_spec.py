# SPDX-License-Identifier: GPL-3.0-or-later
"""Argument specs out of module documentation: what a module documents is what its action accepts.

Read when an action plugin is imported, which happens once in the parent of all forks.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.hawser.machine.plugins.plugin_utils._errors import OptionError
from ansible_collections.hawser.machine.plugins.plugin_utils._secrets import without_secrets

_COLLECTION = "hawser.machine"
_PACKAGE = "ansible_collections.hawser.machine.plugins"
_KEPT = ("type", "required", "default", "choices", "elements", "aliases")
SECRET_OPTIONS = frozenset(
    {
        "access_token",
        "client_secret",
        "enrolment_token",
        "protected_arguments",
        "protected_parameters",
        "protected_settings",
        "run_as_password",
    }
)
# Shorter parts of a structure are no secrets by themselves, and to mask every "on" or "443" would spoil the result.
_LEAST = 4

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _options(documented: dict[str, Any]) -> dict[str, Any]:
    """Turn the `options` of a documentation block into an argument spec."""
    spec: dict[str, Any] = {}
    for name, entry in documented.items():
        option = {key: entry[key] for key in _KEPT if key in entry}
        if "suboptions" in entry:
            option["options"] = _options(entry["suboptions"])
        option["no_log"] = name in SECRET_OPTIONS
        spec[name] = option
    return spec


def _load(text: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load(text, Loader=_Loader)  # noqa: S506 - both are safe loaders
    return loaded


def documentation(module: str) -> dict[str, Any]:
    """The DOCUMENTATION of a module of this collection, its own fragments merged in."""
    doc = _load(importlib.import_module(f"{_PACKAGE}.modules.{module}").DOCUMENTATION)
    for fragment in doc.get("extends_documentation_fragment", []):
        if not fragment.startswith(_COLLECTION + "."):
            continue
        name, _dot, section = fragment[len(_COLLECTION) + 1 :].partition(".")
        holder = importlib.import_module(f"{_PACKAGE}.doc_fragments.{name}").ModuleDocFragment
        text = getattr(holder, (section or "documentation").upper())
        doc["options"] = {**_load(text).get("options", {}), **doc.get("options", {})}
    return doc


def argument_spec(module: str) -> dict[str, Any]:
    """The argument spec that a module's documentation describes."""
    return _options(documentation(module).get("options") or {})


def secrets_in(arguments: dict[str, Any]) -> list[str]:
    """The values of secret options, those of suboptions too; of a structure its leaves."""
    found: list[str] = []
    for name, value in arguments.items():
        if name in SECRET_OPTIONS and isinstance(value, (dict, list, tuple)):
            found += [leaf for leaf in _leaves(value) if len(leaf) >= _LEAST]
        elif name in SECRET_OPTIONS:
            found += [str(value)] if value else []
        elif isinstance(value, dict):
            found += secrets_in(value)
    return found


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def validate(module: str, spec: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Check and convert a task's arguments; an OptionError names every fault, without the value of a secret."""
    result = ArgumentSpecValidator(spec).validate(arguments)
    if result.error_messages:
        secrets = set(secrets_in(arguments))
        text = "; ".join(message.rstrip(".") for message in result.error_messages)
        raise OptionError(
            f"{module} does not accept these options: {without_secrets(text, secrets)}",
            f"See `ansible-doc {_COLLECTION}.{module}`",
        )
    return dict(result.validated_parameters)
