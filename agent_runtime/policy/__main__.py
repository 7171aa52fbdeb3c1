# SPDX-License-Identifier: Apache-2.0
"""gcad, the policy service: verifies and keeps the assignments of this machine. Evaluating them is a later part's."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from agent_runtime.platform import paths as places
from agent_runtime.service import desired, desired_store, root


def duty(paths: places.Paths) -> desired.Duty:
    """Takes `policy` and `trust` (docs/protocol.md section 7). Monitor mode switches it off (agent-surface.md 15)."""
    return desired.Duty(
        service="gcad",
        kinds=("policy", desired_store.TRUST),
        report_kind="policy",
        folder=paths.policy,
        log=paths.gc_agent_log,
        enabled=lambda config: bool(config["guestconfiguration.enabled"]),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until it is told to stop; the exit code."""
    folder, _ = root.take(list(sys.argv[1:] if arguments is None else arguments))
    paths = places.here(folder)
    return desired.serve(duty(paths), paths)


if __name__ == "__main__":
    sys.exit(main())
