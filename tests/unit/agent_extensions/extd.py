# SPDX-License-Identifier: Apache-2.0
"""extd with a folder in the place of the repository, and with other times: `extd.py --root DIR`.

The folder is `DIR/repo`; times come as JSON in the variable EXTD_TIMING; the clock is a month ahead as long as there is
a file `DIR/ahead`. Everything else is the service itself.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from agent_runtime import errors
from agent_runtime.extensions.__main__ import duty
from agent_runtime.extensions.engine import Engine
from agent_runtime.extensions.timing import Timing
from agent_runtime.platform import paths as places
from agent_runtime.service import desired, root, worker
from agent_runtime.service.desired import Host
from agent_runtime.service.loop import Loop


def fetch(repository: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    source = repository / arguments["target"]
    told = json.loads((source.parent / "custom.json").read_text())
    if told.get("trouble") == "network":
        raise errors.NetworkFailed("the repository cannot be reached")
    if told.get("trouble") == "expired":
        raise errors.ExtensionNotAdded("what the repository says is out of date", retry_after=60.0)
    if told.get("trouble") == "slow":
        with open(repository / "asked", "a", encoding="ascii") as file:
            file.write(".")
        raise errors.NetworkFailed("half of it is there", "Wait", 0.0)
    target = Path(arguments["downloads"]) / arguments["target"].replace("/", "_")
    shutil.copyfile(source, target)
    return {"path": str(target), "length": target.stat().st_size, "sha256": "0" * 64, "custom": told}


def unpack(arguments: dict[str, Any]) -> dict[str, Any]:
    final = arguments["into"]
    partial = f"{final}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with zipfile.ZipFile(arguments["archive"]) as archive:
            archive.extractall(partial)
    except zipfile.BadZipFile:
        raise errors.InternalError("the package is no zip archive") from None
    for path in Path(partial).rglob("*"):
        path.chmod(0o700)
    os.rename(partial, final)
    return {"files": 1, "bytes": 1}


class Doubles:
    """The two verbs of packages from a folder, all others from a real worker."""

    def __init__(self, loop: Loop, repository: Path) -> None:
        self.loop = loop
        self.repository = repository

    async def call(self, verb: str, arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
        if verb == "fetch-package":
            return fetch(self.repository, arguments)
        if verb == "unpack-package":
            return unpack(arguments)
        return await worker.run(self.loop, verb, arguments, seconds)


def main() -> int:
    folder, _ = root.take(sys.argv[1:])
    paths = places.here(folder)
    genuine = time.time
    time.time = lambda: genuine() + 30 * 86400 * os.path.exists(f"{folder}/ahead")
    timing = Timing(**json.loads(os.environ.get("EXTD_TIMING", "{}")))

    def work(host: Host) -> Engine:
        return Engine(host, Doubles(host.loop, Path(folder) / "repo").call, timing)

    return desired.serve(duty(paths)._replace(work=work), paths)


if __name__ == "__main__":
    sys.exit(main())
