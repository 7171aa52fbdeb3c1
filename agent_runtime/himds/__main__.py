# SPDX-License-Identifier: Apache-2.0
"""himds, the identity and metadata service: started by himdsd.service, or from a checkout (`--root DIR --port N`)."""

from __future__ import annotations

import os
import signal
import sys

from agent_runtime import errors
from agent_runtime.himds.endpoint import PORT
from agent_runtime.platform import paths as places
from agent_runtime.platform.base import Machine
from agent_runtime.service import notify
from agent_runtime.service.log import Log
from agent_runtime.service.loop import Loop
from agent_runtime.service.root import take as take_root
from agent_runtime.version import VERSION


def _options(argv: list[str]) -> tuple[str, int]:
    """`--root DIR --port N`, for tests; an installed himds takes no options."""
    root, rest = take_root(argv)
    if not rest:
        return root, PORT
    if root and len(rest) == 2 and rest[0] == "--port" and rest[1].isdigit():
        return root, int(rest[1])
    sys.stderr.write("himds takes no options; it is started by himdsd.service\n")
    raise SystemExit(errors.CommandFailed("").exit_code)


def main() -> int:
    """The exit code; 3 where the agent has no services yet."""
    if sys.platform == "win32":
        from agent_runtime.platform import windows

        return windows.refuse_service("himds")
    else:  # noqa: RET505 - mypy judges each system's branch by itself
        from agent_runtime.platform.linux import Linux

        return _serve(Linux())


def _serve(computer: Machine) -> int:
    """Run until SIGTERM. Exit code 0 after a clean stop, 6 when it cannot begin."""
    from agent_runtime.himds.service import Himds

    root, port = _options(sys.argv[1:])
    paths = places.here(root)
    log = Log(paths.himds_log)
    loop = Loop(lambda name, error: log.error(f"{name}: {type(error).__name__}: {error}"))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.on_signal(number, loop.stop)
    try:
        service = Himds(loop, paths, computer, port, log)
        service.start()
    except OSError as error:
        what = error.filename or f"port {port} of the loopback address"
        log.error(f"AZCM0006: himds cannot start: {what}: {error.strerror}")
        sys.stderr.write(f"himds cannot start: {what}: {error.strerror}\n")
        return 6
    log.info(f"himds {VERSION} started")
    loop.soon(lambda: _tell_ready(log))  # after the first steps of what was spawned: the local socket listens then
    loop.run()
    log.info("himds stopped")
    return 0


def _tell_ready(log: Log) -> None:
    expected = "NOTIFY_SOCKET" in os.environ
    if not notify.ready() and expected:
        log.error("the service manager could not be told that himds is ready")


if __name__ == "__main__":
    sys.exit(main())
