# SPDX-License-Identifier: Apache-2.0
"""`hawser-hub serve`: one process on one data directory, TLS always, clean stop."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import uvicorn
from sqlalchemy import update

from control_plane import logs, threads
from control_plane.addresses import as_sockets_show
from control_plane.app import build
from control_plane.channel.peers import Peers
from control_plane.connections import bound_untaken, guarded, raise_file_limit
from control_plane.errors import OperatorError
from control_plane.hub import Hub, open_hub
from control_plane.reload import Reload
from control_plane.storage.engines import UNAVAILABLE, described
from control_plane.storage.models import HubState
from control_plane.tls import Tls

LOCK_FILE = "hub.lock"
STOP_SECONDS = 5
KEEP_ALIVE_SECONDS = 330  # longer than a hold, so that an idle agent keeps its connection
SWITCH_SECONDS = 0.0002
"""How long a thread goes on while the loop, which answers heartbeats, wants to. Python's own 5 ms, several times for
each request, are felt when the hub has much to write."""
log = logging.getLogger("hawser.hub")


class Server(uvicorn.Server):
    """Answers held check-ins as soon as it is asked to stop."""

    def __init__(
        self,
        config: uvicorn.Config,
        stopping: Callable[[], None],
        ready: Callable[[], None],
        reload: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._reload = reload
        self._stopping = stopping
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say that the hub is ready once it listens."""
        await super().startup(sockets)
        if self.started:
            # What is there now stays: a full collection that looks at all of it holds the loop up for 40 ms.
            gc.collect()
            gc.freeze()
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what is held, then let uvicorn end connections."""
        self._stopping()
        await super().shutdown(sockets)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Run until told to stop; unlike uvicorn's, the signal is not raised again afterwards."""
        sys.setswitchinterval(SWITCH_SECONDS)
        with asyncio.Runner(loop_factory=self.config.get_loop_factory()) as runner:
            runner.run(self._serve_quietly(sockets))

    async def _serve_quietly(self, sockets: list[socket.socket] | None) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        threads.prepare()
        await self._serve(sockets)


def lock(data: Path) -> int:
    """Hold DATA/hub.lock for the life of the process.

    Errors: OperatorError when another hub holds it, or the directory cannot be written.
    """
    path = data / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OperatorError(
            f"{path} cannot be written ({error.strerror}).",
            "Give the hub's user write access to the data directory, and the file system free space.",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise OperatorError(
            f"Another hub is running on {data}.", "Stop it first, or give this one a data directory of its own."
        ) from None
    return descriptor


def check_writable(data: Path) -> None:
    """Errors: OperatorError when a file of a few KiB cannot be written and kept."""
    probe = data / ".probe"
    try:
        with probe.open("wb") as stream:
            stream.write(b"\0" * 65536)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise OperatorError(
            f"{data} cannot be written ({error.strerror}).",
            "Free some space on its file system, or give the hub's user write access.",
        ) from error
    finally:
        probe.unlink(missing_ok=True)


def check_holds_hub(hub: Hub) -> None:
    """Errors: OperatorError when the database has no tables: config.yaml names another one, or none."""
    if hub.database.revision() is None:
        raise OperatorError(
            f"The database of {hub.data} is empty.",
            "Name the right one in section 'database' of config.yaml, or restore a backup.",
        )


def parse_listen(text: str) -> tuple[str, int]:
    """Address and port of `ADDR:PORT`, `[ADDR]:PORT`.

    Errors: OperatorError.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise OperatorError(f"'{text}' is not an address and a port.", "Write it as 0.0.0.0:8443 or [::]:8443.")
    return host.strip("[]"), int(port)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Errors: OperatorError when the port is taken or the address is not one of this machine.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound_untaken(listening)
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise OperatorError(
            f"The hub cannot listen on {host}:{port} ({error.strerror}).",
            "End what uses the port, or choose another address with --listen.",
        ) from error
    listening.setblocking(False)
    return listening


def begin(hub: Hub, address: str = "") -> int:
    """Raise the epoch if the last run did not end cleanly (over PostgreSQL: if any process did not); mark this one as
    running. Returns the epoch. `address`: where this process listens.

    Errors: engines.UNAVAILABLE, psycopg.Error.
    """
    if hub.database.url is not None:
        hub.peers = Peers(hub.database, hub.database.url, hub.live, hub.set_epoch, address)
        return hub.peers.begin()
    with hub.database.write() as session:
        state = session.get_one(HubState, 1)
        if not state.clean:
            state.epoch += 1
        state.clean = False
        return state.epoch


def end(hub: Hub, *, clean: bool = True) -> None:
    """Mark the stop; one that is not `clean` lets the next start (over PostgreSQL: any other process) raise the epoch.

    Errors: OperatorError when a clean stop cannot be written; the epoch is raised then, which harms nobody.
    """
    try:
        if hub.peers is not None:
            hub.peers.end(clean=clean)
        elif clean:
            with hub.database.write() as session:
                session.execute(update(HubState).values(clean=True))
    except UNAVAILABLE as error:
        raise OperatorError(
            f"The clean stop could not be noted ({described(error)}).",
            "Make the database usable, with free space; the next start raises the epoch.",
        ) from error


def serve(data: Path, listen: str | None) -> None:
    """Run until SIGTERM or SIGINT.

    Errors: OperatorError with one sentence and a remedy when it cannot start.
    """
    hub = open_hub(data)
    logs.set_up(hub.config.get("logging", {}))
    held = lock(data) if hub.database.path is not None else None  # PostgreSQL may have many processes
    try:
        check_writable(data)
        check_holds_hub(hub)
        hub.database.migrate()
        tls = Tls(data, hub.settings)
        host, port = parse_listen(listen) if listen else ("0.0.0.0", hub.settings.port)  # noqa: S104 - documented default
        listening = bind(host, port)
        hub.set_epoch(begin(hub, f"{socket.gethostname()} {host}:{port}"))

        reload = Reload(hub, tls)
        proxies = as_sockets_show(hub.config.get("trusted_proxies", ()))
        most = min(raise_file_limit(), hub.config.get("limits", {}).get("connections", 1 << 20))

        def ready() -> None:
            sys.stdout.write(f"hawser-hub ready on {host}:{port} as {hub.settings.url} (epoch {hub.epoch})\n")
            sys.stdout.flush()

        config = uvicorn.Config(
            build(hub, reload.run),
            http=guarded(most),
            ws="none",
            loop="uvloop",
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=bool(proxies),
            forwarded_allow_ips=proxies,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
            ssl_context_factory=lambda _config, _default: tls.context,
        )

        def stopping() -> None:
            hub.live.stop()
            hub.bus.stop()

        server = Server(config, stopping, ready, reload.ask)
        server.run([listening])
        end(hub, clean=not server.force_exit and not hub.live.unwritten)
    except (*UNAVAILABLE, psycopg.Error) as error:
        raise OperatorError(
            f"The database cannot be used ({described(error)}).", "Check that it runs, rights and free space."
        ) from error
    finally:
        hub.database.close()
        if held is not None:
            os.close(held)
