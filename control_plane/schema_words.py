# SPDX-License-Identifier: Apache-2.0
"""What a JSON Schema refuses, as a sentence for people. Values are not repeated: one could be a secret."""

from __future__ import annotations

import json
from typing import Any

import fastjsonschema

_KINDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}
_SHOWN = 5


def member(error: fastjsonschema.JsonSchemaValueException, root: str = "") -> str:
    """The place of what is wrong: `notifications.targets[0].webhook`, below `root`; empty at the top of it."""
    place = str(error.name)[len("data") :]
    return root + place if root else place.removeprefix(".")


def predicate(error: fastjsonschema.JsonSchemaValueException) -> str:
    """What follows the name of the place: `must be a whole number`. A property with a pattern says by its description
    what the pattern asks for."""
    rule, value = str(error.rule), error.value
    wanted: Any = error.rule_definition
    schema: dict[str, Any] = error.definition if isinstance(error.definition, dict) else {}
    if rule == "additionalProperties" and isinstance(value, dict):
        known = schema.get("properties", {})
        return f"takes no member {_listed([_key(key) for key in value if key not in known])}"
    if rule == "required" and isinstance(value, dict):
        return f"lacks {_listed([name for name in wanted if name not in value])}"
    if rule == "oneOf":
        alternatives = [name for item in wanted for name in item["required"]]
        return f"must have exactly one of {_listed(alternatives)}"
    if rule == "type":
        kinds = wanted if isinstance(wanted, list) else [wanted]
        return f"must be {' or '.join(_KINDS[kind] for kind in kinds)}"
    if rule == "enum":
        return f"must be one of {', '.join(item if isinstance(item, str) else json.dumps(item) for item in wanted)}"
    if rule in ("minimum", "maximum"):
        return f"must be at {'least' if rule == 'minimum' else 'most'} {wanted}"
    if rule in ("minLength", "minItems", "maxLength", "maxItems"):
        unit = "characters" if rule.endswith("Length") else "items"
        return f"must have at {'least' if rule.startswith('min') else 'most'} {wanted} {unit}"
    if rule == "uniqueItems":
        return "names something twice"
    return f"must be {schema['description']}" if "description" in schema else "does not have the form that it must have"


def _key(key: object) -> str:
    if isinstance(key, str):
        return f"'{key[:100]}'"
    if isinstance(key, bool):  # YAML 1.1
        return "'on', 'yes' or 'true'" if key else "'off', 'no' or 'false'"
    return f"'{str(key)[:100]}'"


def _listed(names: list[str]) -> str:
    *first, last = names[:_SHOWN]
    return f"{', '.join(first)} and {last}" if first else last
