#!/usr/bin/python3 -EsSB
# SPDX-License-Identifier: Apache-2.0
"""Hawser.HealthProbe: asks an application on the machine every few seconds whether it is healthy, and reports it.

`enable` starts a small process of its own, `watch`, that probes until `disable` stops it. The status of the extension
is `success` as soon as there is a verdict; the verdict itself is the sub-status AppHealthStatus. Settings:
docs/extensions.md.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import contract
import health
import heart
import probes
from contract import HandlerError, Place

SLACK = 60.0  # seconds that a turn may take longer than its settings say before nobody believes in it any more
_WORDS = {health.INITIALIZING: "transitioning", health.HEALTHY: "success", health.UNHEALTHY: "error"}


def resident(place: Place) -> contract.Resident:
    """The process that probes."""
    return contract.Resident(place.root / "watch.lock")


def enable(place: Place) -> None:
    """Check the settings and start the process that probes; one with the same settings goes on."""
    sequence = contract.current_sequence(place, os.environ)
    try:
        public, protected = contract.read_settings(place, sequence)
        contract.refuse_unknown(protected, ())
        probes.parse(public)
    except HandlerError as error:
        resident(place).stop(10)
        contract.write_status(place, sequence, "enable", "error", error.code, str(error))
        raise
    if resident(place).alive() and contract.read_number(place.root / "mrseq") == sequence:
        return
    resident(place).stop(10)
    contract.write(place.root / "mrseq", str(sequence).encode())
    report(place, sequence, health.INITIALIZING, "no verdict yet")
    contract.leave_behind(place, "watch", ConfigSequenceNumber=str(sequence))
    # The next command must find it: it would start a second one.
    if not resident(place).wait(30, alive=True):
        message = f"The process that probes did not start. Look at {place.logs / 'handler.log'}."
        contract.write_status(place, sequence, "enable", "error", 1, message)
        raise HandlerError(1, message)


def report(place: Place, sequence: int, state: str, reason: str) -> None:
    """The status of the extension and, as its sub-status, that of the application."""
    word = "transitioning" if state == health.INITIALIZING else "success"
    message = f"The application is {state.lower()}: {reason}."
    contract.write_status(place, sequence, "enable", word, 0, message, [("AppHealthStatus", _WORDS[state], state)])


def beat(place: Place, state: str) -> None:
    """The handler's heartbeat: the process lives, whatever the application does."""
    said = {"lang": "en-US", "message": f"The application is {state.lower()}."}
    beats = [{"version": 1.0, "heartbeat": {"status": "ready", "code": 0, "formattedMessage": said}}]
    contract.write(place.heartbeat, contract.dump(beats))


def watch(place: Place) -> None:
    """Probe until SIGTERM. The status is written when the verdict changes, so that the hub hears of changes alone."""

    def stop(_number: int, _frame: Any) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    sequence = contract.current_sequence(place, os.environ)
    wish = probes.parse(contract.read_settings(place, sequence)[0])
    turn = wish.interval + wish.timeout + SLACK
    begin = time.monotonic()
    known = health.Health()
    said, trouble = known.state, ""

    def complain(error: OSError) -> None:
        # A full disk, or no process to be had: it passes, and without a heartbeat nobody believes the verdict.
        nonlocal trouble
        if trouble != str(error):
            place.log(f"watch: {error}; going on")
        trouble = str(error)

    beats = heart.Heart(lambda state: beat(place, state), complain, said, turn)
    with resident(place).held(), beats.beating():
        while True:
            due = time.monotonic() + wish.interval
            try:
                good, reason = probes.probe(wish)
                known = health.judge(known, good, time.monotonic() - begin < wish.grace, wish.count)
                if known.state != said:
                    report(place, sequence, known.state, reason)
                said = known.state
                beats.lives(said)
                trouble = ""
            except OSError as error:
                beats.ails()
                complain(error)
            time.sleep(max(0.0, due - time.monotonic()))


def disable(place: Place) -> None:
    """Stop probing. The last verdict stays in the status."""
    resident(place).stop(10)
    place.heartbeat.unlink(missing_ok=True)


def nothing(place: Place) -> None:
    """Nothing to do: there is no state but the process, which `disable` has stopped."""
    place.log("ready")


if __name__ == "__main__":
    contract.main(
        str(Path(__file__)),
        {
            "install": nothing,
            "enable": enable,
            "update": nothing,
            "disable": disable,
            "uninstall": disable,
            "watch": watch,
        },
    )
