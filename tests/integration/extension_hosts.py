# SPDX-License-Identifier: Apache-2.0
"""What tests of extensions on real hosts share: a wish by the SDK, a further version of a package, and the search of a
whole host for a text."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from azure.core.exceptions import HttpResponseError, ResourceExistsError
from azure.mgmt.hybridcompute import HybridComputeManagementClient
from azure.mgmt.hybridcompute.models import MachineExtension, MachineExtensionProperties

from lab import Host
from tests.waiting import until

SECONDS = 120
# Every file of the disk and of what is in memory as files, but for what the kernel shows as files (a lab's hosts have a
# part of /sys in /run); of the journal what it says, for its files are packed.
_SEARCH = """
cd / && mkdir -p /dev/shm/search && cat >/dev/shm/search/text || exit
trap 'rm -r /dev/shm/search' EXIT
mapfile -d '' top < <(find . -mindepth 1 -maxdepth 1 ! -name proc ! -name sys ! -name dev -print0)
grep --no-messages -rlF --devices=skip --exclude-dir=lab-sys-class --file=/dev/shm/search/text -- "${top[@]}"
files=$?
journalctl --quiet --no-pager --all --output=json >/dev/shm/search/journal || exit
grep -qF --file=/dev/shm/search/text /dev/shm/search/journal
echo "$files $?"
"""


def put(
    client: HybridComputeManagementClient, group: str, machine: str, name: str, **properties: Any
) -> MachineExtensionProperties:
    """Wish for our script extension, or for what `properties` say, and wait for the outcome.

    Errors: HttpResponseError.
    """
    wanted = {"publisher": "Hawser", "type": "CustomScript", "type_handler_version": "1.0.0", **properties}
    extension = MachineExtension(location="local", properties=MachineExtensionProperties(**wanted))

    def tried() -> MachineExtension | None:
        try:
            return client.machine_extensions.begin_create_or_update(group, machine, name, extension).result(SECONDS)
        except ResourceExistsError as early:
            # Right after connecting the machine's extension service may still be making its key.
            if "SettingsCertificateMissing" not in str(early):
                raise
            return None

    made: MachineExtension = until(tried, "no certificate for protected settings", seconds=SECONDS, pause=1)
    assert made.properties is not None
    return made.properties


def failure(failed: HttpResponseError) -> tuple[str | None, str]:
    """Code and message of an operation that failed."""
    assert failed.error is not None
    return failed.error.code, str(failed.error.message)


def places_of(host: Host, text: str) -> list[str]:
    """Where a text stands in clear on a host: paths below /, and `journal`. File systems of the kernel's are left out;
    what could not be looked at is an error, for it proves nothing."""

    def looked() -> tuple[list[str]] | None:
        *found, codes = host.run(["bash", "-c", _SEARCH], stdin=text).output.splitlines()
        files, journal = map(int, codes.split())
        if files == 2:  # a file went away meanwhile, and what was found may not be all
            return None
        assert files == (0 if found else 1)
        assert journal in (0, 1)
        return ([*found, *(["journal"] if journal == 0 else [])],)

    (found,) = until(looked, "never was the whole host searched", seconds=60)
    return list(found)


def as_version(package: Path, version: str, files: Mapping[str, bytes] | None = None, **commands: str) -> Path:
    """The same package as another version, beside it; `files` beside its own, `commands` instead of its own."""
    kept = package.name.split("_")[0]
    made = package.with_name(f"{kept}_{version}_linux.zip")
    with zipfile.ZipFile(package) as source, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename == "HandlerManifest.json":
                manifest = json.loads(content)
                manifest[0]["signingInfo"]["version"] = version
                manifest[0]["handlerManifest"].update(commands)
                content = json.dumps(manifest).encode()
            target.writestr(entry, content)
        for name, content in (files or {}).items():
            target.writestr(name, content)
    return made
