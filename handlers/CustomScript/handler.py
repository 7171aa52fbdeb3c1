#!/usr/bin/python3 -EsSB
# SPDX-License-Identifier: Apache-2.0
"""Hawser.CustomScript: fetches files and runs one command or script for each sequence number of its settings.

`enable` returns at once; the work goes on in a process of its own, `work`, which survives a restart of the agent. A
sequence number is noted in `mrseq` before its script is started and is never run again: a script that was cut off is
reported, not repeated. Commands, settings and exit codes: docs/extensions.md.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import contract
import wishes
from contract import HandlerError, Place

# An orderly end is given this long before a script is stopped, because the extension or its version goes.
PATIENCE = 60.0


def resident(place: Place) -> contract.Resident:
    """The process that works."""
    return contract.Resident(place.root / "work.lock")


def enable(place: Place) -> None:
    """Check the settings and start the work. Says nothing when this sequence number has run."""
    sequence = contract.current_sequence(place, os.environ)
    if contract.read_number(place.root / "mrseq") == sequence:
        report_cut_off(place, sequence)
        return
    try:
        public, protected = contract.read_settings(place, sequence)
        wishes.parse(public, protected)
    except HandlerError as error:
        contract.write_status(place, sequence, "enable", "error", error.code, str(error))
        raise
    # A later wish takes the place of one that waits for the work before it to end.
    contract.write(place.root / "wanted", str(sequence).encode())
    contract.write_status(place, sequence, "enable", "transitioning", 0, "The work goes on.")
    contract.leave_behind(place, "work", ConfigSequenceNumber=str(sequence))


def report_cut_off(place: Place, sequence: int) -> None:
    """A status that would say for ever that work goes on, while nobody works, is put right."""
    if contract.status_word(place, sequence) == "transitioning" and not resident(place).alive():
        message = (
            "The script was cut off, by a restart of the machine or because its process was killed, and is not run "
            "twice. Give forceUpdateTag another value to run it again."
        )
        contract.write_status(place, sequence, "enable", "error", contract.STOPPED, message)


def disable(place: Place) -> None:
    """Let a running script come to its end for a while, then stop it. What has not begun does not begin."""
    (place.root / "wanted").unlink(missing_ok=True)
    if not resident(place).wait(PATIENCE):
        place.log(f"disable: the script has not ended after {PATIENCE:g} s and is stopped")
        resident(place).stop(30)


def update(place: Place) -> None:
    """Bring `mrseq` over, so that the new version does not run old settings again.

    The agent copies it too. For a downgrade it runs the command of the old version; both versions are then named by
    variables that name the new one, so the other folder is the one that is not ours.
    """
    names = {os.environ.get(name, "") for name in ("VERSION", "AZURE_GUEST_AGENT_UPDATING_FROM_VERSION")}
    folders = [place.root.parent / f"{place.name}-{version}" for version in sorted(names) if version]
    others = [folder for folder in folders if folder != place.root and folder.is_dir()]
    for other in others:
        for source, target in ((other, place.root), (place.root, other)):
            if (source / "mrseq").is_file() and not (target / "mrseq").exists():
                contract.write(target / "mrseq", (source / "mrseq").read_bytes())


def uninstall(place: Place) -> None:
    """Nothing may run any more; what was fetched goes."""
    resident(place).stop(30)
    shutil.rmtree(place.root / "download", ignore_errors=True)


def install(place: Place) -> None:
    """Say now what would be missing later."""
    if shutil.which("openssl") is None:
        raise HandlerError(contract.MISSING, "There is no program openssl in PATH. Install openssl.")
    place.log("install: ready")


def work(place: Place) -> None:
    """The process that fetches and runs; nobody waits for it."""
    import running

    sequence = contract.current_sequence(place, os.environ)
    with resident(place).held():
        if running.with_room(lambda: take(place, sequence)):
            running.carry_out(place, sequence)


def take(place: Place, sequence: int) -> bool:
    """Whether the script of this number is to be started; if so, the number is noted. Errors: OSError; then it may be
    asked again."""
    newest = contract.read_number(place.root / "wanted")
    if newest != sequence:
        message = (
            "The extension was disabled before its script was started."
            if newest is None
            else f"The settings with the sequence number {newest} came before the script of these was started."
        )
        contract.write_status(place, sequence, "enable", "error", contract.STOPPED, message)
        return False
    if contract.read_number(place.root / "mrseq") == sequence:
        return False
    contract.write(place.root / "mrseq", str(sequence).encode())
    return True


if __name__ == "__main__":
    contract.main(
        str(Path(__file__)),
        {
            "install": install,
            "enable": enable,
            "update": update,
            "disable": disable,
            "uninstall": uninstall,
            "work": work,
        },
    )
