# SPDX-License-Identifier: Apache-2.0
"""The other processes of this hub, over PostgreSQL: presence and notices (storage/processes.py, storage/notices.py).

A thread with a connection of its own listens and holds the presence lock. When the connection is lost it is made anew;
what was told meanwhile was not heard, so every machine is read anew then. (An asynchronous
connection would not do: presence begins before the event loop and ends after it.)
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
from sqlalchemy import URL

from control_plane.channel.live import Live
from control_plane.clock import now
from control_plane.storage import engines, processes
from control_plane.storage.database import Database
from control_plane.storage.engines import UNAVAILABLE
from control_plane.storage.notices import CHANNEL
from control_plane.storage.presence import PRESENCE

LISTEN_SECONDS = 0.5
LOOK_SECONDS = 5.0
SEEN_SECONDS = 60.0
log = logging.getLogger("hawser.hub.peers")


class Peers:
    """`epoch_is`: told of every epoch that is read, from any thread."""

    def __init__(self, database: Database, url: URL, live: Live, epoch_is: Callable[[int], None], address: str) -> None:
        self._url = url
        self._database, self._live, self._epoch_is, self._address = database, live, epoch_is, address
        self._started = now()
        self._number = 0
        self._connection: psycopg.Connection[Any] | None = None
        self._thread = threading.Thread(target=self._run, name="peers", daemon=True)
        self._stopping = threading.Event()

    def _connect(self) -> psycopg.Connection[Any]:
        connection = engines.plain(self._url)
        connection.execute(f"LISTEN {CHANNEL}".encode())
        return connection

    def _hold(self, number: int) -> None:
        """Errors: psycopg.OperationalError when somebody else has the lock: the server still keeps the connection that
        was lost."""
        query = f"SELECT pg_try_advisory_lock({PRESENCE}, {int(number)})".encode()
        row = self._connection.execute(query).fetchone() if self._connection else None
        if not row or not row[0]:
            raise psycopg.OperationalError("the presence lock is still held")

    def begin(self) -> int:
        """Enter this process and start to listen. Returns the epoch.

        Errors: engines.UNAVAILABLE, psycopg.Error.
        """
        self._connection = self._connect()
        self._number, epoch = processes.join(self._database, self._address, self._hold)
        self._database.process = self._number
        self._live.shared = True
        self._thread.start()
        return epoch

    def end(self, *, clean: bool) -> None:
        """Stop listening. `clean`: everything was written, so that the epoch may stay.

        Errors: engines.UNAVAILABLE when the clean end cannot be noted.
        """
        self._stopping.set()
        self._thread.join(10)
        try:
            if clean:
                processes.leave(self._database, self._number)
        finally:
            if self._connection is not None:
                self._connection.close()

    def find_dead(self) -> None:
        """Look whether another process has died; its death raises the epoch. From any thread.

        Errors: engines.UNAVAILABLE.
        """
        epoch = processes.find_dead(self._database)
        if epoch is not None:
            log.warning("Another process of this hub ended without saying so: epoch %d.", epoch)
            self._epoch_is(epoch)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._connection is None:
                    self._again()
                else:
                    self._listen(self._connection)
            except (psycopg.Error, OSError, *UNAVAILABLE) as error:
                log.warning("The other processes cannot be heard (%s); trying again.", str(error).strip())
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
                self._stopping.wait(LISTEN_SECONDS)

    def _again(self) -> None:
        self._connection = self._connect()
        self._hold(self._number)
        self._epoch_is(processes.rejoin(self._database, self._number, self._started, self._address))
        log.info("The other processes are heard again; every machine is read anew.")
        self._live.deaf()

    def _listen(self, connection: psycopg.Connection[Any]) -> None:
        look, seen = time.monotonic() + LOOK_SECONDS, time.monotonic() + SEEN_SECONDS
        while not self._stopping.is_set():
            for notice in connection.notifies(timeout=LISTEN_SECONDS):
                self._take(notice.payload)
                if self._stopping.is_set():
                    return
            if time.monotonic() >= look:
                look = time.monotonic() + LOOK_SECONDS
                self.find_dead()
            if time.monotonic() >= seen:
                seen = time.monotonic() + SEEN_SECONDS
                processes.seen(self._database, self._number)

    def _take(self, payload: str) -> None:
        told = json.loads(payload)
        if told["from"] == self._number:
            return
        self._live.taken(told.get("taken", ()))
        self._live.refresh(told.get("changed", ()))
        for machine_id in told.get("enrolled", ()):
            self._live.dropped(machine_id, rebase=True)
        if told.get("hub"):
            self._epoch_is(processes.epoch(self._database))
