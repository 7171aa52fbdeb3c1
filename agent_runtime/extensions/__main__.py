# SPDX-License-Identifier: Apache-2.0
"""extd, the extension service: verifies and keeps what shall be installed, and installs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from agent_runtime.extensions import ownkey
from agent_runtime.extensions.engine import Engine
from agent_runtime.platform import paths as places
from agent_runtime.service import desired, desired_store, root


def duty(paths: places.Paths) -> desired.Duty:
    """Takes `extensions`, `runcommands` and `agent` (docs/protocol.md section 7); owns a key of its own."""
    return desired.Duty(
        service="extd",
        kinds=("extensions", "runcommands", "agent", desired_store.TRUST),
        report_kind="extensions",
        folder=paths.extensions,
        log=paths.gc_ext_log,
        enabled=lambda config: bool(config["extensions.enabled"]),
        request=ownkey.request,
        work=Engine,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until it is told to stop; the exit code."""
    folder, _ = root.take(list(sys.argv[1:] if arguments is None else arguments))
    paths = places.here(folder)
    return desired.serve(duty(paths), paths)


if __name__ == "__main__":
    sys.exit(main())
