# SPDX-License-Identifier: Apache-2.0
"""himds, the identity and metadata service: started by himdsd.service, or from a checkout with `--root DIR --port N`."""

from __future__ import annotations

import os
import signal
import sys

from agent_runtime import errors
from agent_runtime.himds.endpoint import PORT
from agent_runtime.platform import paths as places
from agent_runtime.service.log import Log
from agent_runtime.service.loop import Loop
from agent_runtime.version import VERSION

INSTALLED_UNDER = "/opt/"


def _options(argv: list[str]) -> tuple[str, int]:
    """`--root DIR --port N`, for tests; an installed himds takes no options."""
    if not argv:
        return "", PORT
    if len(argv) != 4 or argv[0] != "--root" or argv[2] != "--port" or os.path.abspath(__file__).startswith(INSTALLED_UNDER):
        sys.stderr.write("himds takes no options; it is started by himdsd.service\n")
        raise SystemExit(errors.CommandFailed("").exit_code)
    return os.path.abspath(argv[1]), int(argv[3])


def main() -> int:
    """Run until SIGTERM. Exit code 0 after a clean stop, 6 when it cannot begin."""
    from agent_runtime.himds.service import Himds
    from agent_runtime.platform.linux import Linux

    root, port = _options(sys.argv[1:])
    paths = places.here(root)
    log = Log(paths.himds_log)
    loop = Loop(lambda name, error: log.error(f"{name}: {type(error).__name__}: {error}"))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.on_signal(number, loop.stop)
    try:
        service = Himds(loop, paths, Linux(), port, log)
        service.start()
    except OSError as error:
        what = error.filename or f"port {port} of the loopback address"
        log.error(f"AZCM0006: himds cannot start: {what}: {error.strerror}")
        sys.stderr.write(f"himds cannot start: {what}: {error.strerror}\n")
        return 6
    log.info(f"himds {VERSION} started")
    loop.run()
    log.info("himds stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
