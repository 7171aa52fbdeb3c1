# SPDX-License-Identifier: Apache-2.0
"""Checks input against the shipped JSON Schemas and says what is wrong in one sentence that repeats no value."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from agent_runtime import errors

# The package carries the schemas beside its code; a checkout has them at their one source.
_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENDOR = os.path.join(os.path.dirname(_HERE), "vendor")
FOLDERS = (os.path.join(_HERE, "schemas"), os.path.join(os.path.dirname(_HERE), "docs", "schemas"))


def load(name: str) -> Any:
    """The schema `name`. Errors: AZCM0002 when the installation lacks it."""
    for folder in FOLDERS:
        path = os.path.join(folder, f"{name}.schema.json")
        if os.path.exists(path):
            with open(path, "rb") as file:
                return json.load(file)
    raise errors.InternalError(f"the schema {name} is not installed", "Install the agent's package again")


def check(name: str, value: Any, what: str) -> None:
    """Errors: AZCM0023 unless `value` follows the schema; `what` is what people call the input."""
    if VENDOR not in sys.path:
        sys.path.append(VENDOR)
    import fastjsonschema

    validate = fastjsonschema.compile(load(name))
    try:
        validate(value)
    except fastjsonschema.JsonSchemaValueException as problem:
        raise errors.ParameterInvalid(
            sentence(str(problem.name), str(problem.rule), problem.definition, problem.value, what),
            f"docs/schemas/{name}.schema.json describes what is allowed",
        ) from None


def sentence(name: str, rule: str, schema: Any, value: Any, what: str) -> str:
    """What is wrong. `name` is the place as fastjsonschema gives it (`data.connection.state`), `schema` the broken part
    of the schema and `rule` the key in it. Pure.

    Names of keys are said, values never: one could be a credential.
    """
    definition = schema.get(rule) if isinstance(schema, dict) else None
    at = name.partition(".")[2]
    where = f"{at} of {what}" if at else what
    if rule == "additionalProperties" and isinstance(value, dict):
        return f"{where} has a key that is not known: {_unknown(schema, value)}"
    if rule == "required" and isinstance(value, dict):
        missing = [key for key in definition or () if key not in value]
        return f"{where} lacks {', '.join(missing)}"
    if rule == "type":
        kinds = " or ".join(definition) if isinstance(definition, list) else str(definition)
        return f"{where} must be of type {kinds}"
    if rule in ("enum", "const"):
        allowed = definition if isinstance(definition, list) else [definition]
        return f"{where} must be {' or '.join(json.dumps(item) for item in allowed)}"
    if rule in ("maxLength", "maxItems", "maxProperties", "minLength", "minItems"):
        kind = {"Length": "letters", "Items": "items", "Properties": "keys"}[rule[3:]]
        return f"{where} must have {'at most' if rule.startswith('max') else 'at least'} {definition} {kind}"
    if rule == "pattern" and "description" in schema:
        return f"{where} must be {schema['description']}"
    return f"{where} does not have the form it must have"


def _unknown(schema: Any, value: dict[str, Any]) -> str:
    known = schema.get("properties", {}) if isinstance(schema, dict) else {}
    names = sorted(key for key in value if key not in known)
    return ", ".join(repr(name[:100]) for name in names[:5])
