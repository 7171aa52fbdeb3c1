# SPDX-License-Identifier: Apache-2.0
"""DATA/config.yaml: what the operator may set for a running hub. Absent: every default. Read at the start and again on
SIGHUP; a file that is wrong stops the start with one sentence, and is refused at a SIGHUP while the old one stays in
force. Its schema is docs/schemas/hub-config.schema.json (shipped beside this module).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import fastjsonschema
import yaml

from control_plane.addresses import network
from control_plane.errors import OperatorError
from control_plane.people import admission

CONFIG_FILE = "config.yaml"
_MAX = 256 * 1024
_SCHEMA = Path(__file__).parent / "config.schema.json"


@cache
def _validator() -> Any:
    return fastjsonschema.compile(json.loads(_SCHEMA.read_bytes()))


def load(data: Path) -> Mapping[str, Any]:
    """The sections of the file, defaults filled in.

    Errors: OperatorError naming the member that is wrong.
    """
    path = data / CONFIG_FILE
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raw = b""
    except OSError as error:
        raise OperatorError(f"{path} cannot be read ({error.strerror}).", "Let the hub's user read it.") from error
    if len(raw) > _MAX:
        raise OperatorError(f"{path} is larger than {_MAX} bytes.", "It holds settings alone; keep data elsewhere.")
    try:
        found = yaml.safe_load(raw)
        sections: dict[str, Any] = _validator()({} if found is None else found)
    except yaml.YAMLError as error:
        raise OperatorError(f"{path} is not YAML: {error}.", "Compare it with docs/operations.md.") from error
    except fastjsonschema.JsonSchemaValueException as error:
        told = error.message.replace("data", "the file", 1) if error.name == "data" else error.message
        raise OperatorError(f"{path}: {told}.", "Compare it with docs/operations.md.") from error
    networks = {
        "trusted_proxies": sections.get("trusted_proxies", ()),
        "metrics.allow": sections.get("metrics", {}).get("allow", ()),
    }
    for name, items in networks.items():
        for item in items:
            if network(item) is None:
                raise OperatorError(f"{path}: '{item}' in {name} is no network.", "Compare it with docs/operations.md.")
    if "oidc" in sections:
        admission.check(sections["oidc"])
    return sections
