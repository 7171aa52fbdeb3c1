# SPDX-License-Identifier: Apache-2.0
"""How long things may take and how often they are looked at (extension-handler.md sections 9, 15, 17). Seconds."""

from __future__ import annotations

from typing import NamedTuple


class Timing(NamedTuple):
    """Limits of a handler's commands and pauses of the service."""

    install: float = 15 * 60
    update: float = 15 * 60
    enable: float = 5 * 60
    disable: float = 15 * 60
    uninstall: float = 5 * 60
    # Until an extension of a lower level has ended well, and how often that is looked at.
    dependency: float = 90 * 60
    dependency_look: float = 5
    # The first look at a status after enable, and the slowest there are while the handler says that it works and
    # afterwards: so much later is heard of a script that took long, of an application that has fallen ill. A look at
    # what has not changed is one stat.
    status_first: float = 5
    status_works: float = 10
    status_most: float = 30
    # Handlers write their status without renaming: what is half is read again.
    status_tries: int = 5
    status_pause: float = 2
    # A run command that says nothing else; its script's download.
    command: float = 90 * 60
    script: float = 5 * 60
    heartbeat: float = 2 * 60
    events: float = 5 * 60
    report: float = 5
    download: float = 30 * 60
    unpack: float = 30 * 60
    download_tries: int = 10
    download_pause: float = 60
    # A handler whose files are gone is installed again at once, and not sooner than so much later once more.
    missed: float = 60 * 60
    # Between two looks at the clock, while something waits because the document has expired by it.
    clock: float = 60
    # After the disk failed us.
    failure: float = 60
