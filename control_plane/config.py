# SPDX-License-Identifier: Apache-2.0
"""DATA/config.yaml: what the operator may set for a running hub. Absent: every default. Read at the start and again on
SIGHUP; a file that is wrong stops the start with one sentence, and is refused at a SIGHUP while the old one stays in
force. Its schema is docs/schemas/hub-config.schema.json (shipped beside this module).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import fastjsonschema
import yaml

from control_plane import schema_words
from control_plane.addresses import network
from control_plane.errors import OperatorError
from control_plane.people import admission

CONFIG_FILE = "config.yaml"
_MAX = 256 * 1024
_SCHEMA = Path(__file__).parent / "config.schema.json"
# Sections that another document than docs/operations.md describes.
DOCUMENTS = {
    "notifications": "docs/api.md, Notifications",
    "oidc": "docs/hub.md, Sign-in with an external provider",
    "database": "docs/operations.md, Database",
}


@cache
def _validator() -> Any:
    return fastjsonschema.compile(json.loads(_SCHEMA.read_bytes()))


def load(data: Path) -> Mapping[str, Any]:
    """The sections of a hub's file, defaults filled in; those defaults alone if it has none.

    Errors: as `read`.
    """
    return read(data / CONFIG_FILE, missing=b"")


def read(path: Path, *, missing: bytes | None = None) -> Mapping[str, Any]:
    """The sections of a file. `missing`: what stands for a file that is not there.

    Errors: OperatorError naming the member that is wrong, and the document that describes it.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        if missing is None:
            raise OperatorError(f"There is no file {path}.", "Name one that is there.") from error
        raw = missing
    except OSError as error:
        raise OperatorError(f"{path} cannot be read ({error.strerror}).", "Let the hub's user read it.") from error
    if len(raw) > _MAX:
        raise OperatorError(f"{path} is larger than {_MAX} bytes.", "It holds settings alone; keep data elsewhere.")
    try:
        found = yaml.safe_load(raw)
        sections: dict[str, Any] = _validator()({} if found is None else found)
    except yaml.YAMLError as error:
        raise OperatorError(f"{path} is not YAML: {_yaml_problem(error)}.", _compare("")) from error
    except fastjsonschema.JsonSchemaValueException as error:
        member = schema_words.member(error)
        where = f"'{member}' of {path}" if member else str(path)
        raise OperatorError(f"{where} {schema_words.predicate(error)}.", _compare(member)) from error
    networks = {
        "trusted_proxies": sections.get("trusted_proxies", ()),
        "metrics.allow": sections.get("metrics", {}).get("allow", ()),
    }
    for name, items in networks.items():
        for item in items:
            if network(item) is None:
                raise OperatorError(
                    f"'{name}' of {path} names '{item}', which is no network.", "Write one like 192.0.2.0/24."
                )
    if "oidc" in sections:
        admission.check(sections["oidc"])
    return sections


def _yaml_problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem or error.context} in line {error.problem_mark.line + 1}"
    return str(error).splitlines()[0]


def _compare(member: str) -> str:
    """The remedy: the document that describes the section of `member`."""
    section = re.split(r"[.\[]", member, maxsplit=1)[0]
    return f"Compare it with {DOCUMENTS.get(section, 'docs/operations.md, Configuration')}."
