# SPDX-License-Identifier: GPL-3.0-or-later
"""The hub out of resolved options, for everything that runs on the controller: actions, inventory, lookup."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

from ansible import constants as C  # noqa: N812 - the field's name
from ansible_collections.hawser.machine.plugins.plugin_utils import _settings
from ansible_collections.hawser.machine.plugins.plugin_utils._hub import Hub, TokenCache


def open_hub(found: dict[str, Any], profile: dict[str, Any] | None) -> Hub:
    """The hub that options name which `_settings.resolve` has filled in; nothing is sent yet. Raises OptionError."""
    ca_file = found.get("ca_file")
    if ca_file:
        ca_file = os.path.expanduser(str(ca_file))
    elif profile and profile.get("ca_pem"):
        ca_file = _ca_file_of(str(profile["ca_pem"]))
    return Hub(_settings.hub_settings(found, ca_file), TokenCache(C.DEFAULT_LOCAL_TMP))


def _ca_file_of(pem: str) -> str:
    """A file with a profile's CA in Ansible's temporary directory of this run; `open_url` takes a file only."""
    path = Path(C.DEFAULT_LOCAL_TMP) / f"hawser-ca-{hashlib.sha256(pem.encode()).hexdigest()}.pem"
    if not path.exists():
        descriptor, name = tempfile.mkstemp(prefix="hawser-", dir=C.DEFAULT_LOCAL_TMP)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(pem)
        os.replace(name, path)
    return str(path)
