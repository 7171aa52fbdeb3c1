# SPDX-License-Identifier: Apache-2.0
"""An upgrade of the agent as plain data: its states, what each waits for, and what the watchdog decides. Pure.

    downloading ──> installing ──> waiting ──> succeeded
         │              └──────────────┴──> rolling back ──> rolled back
         └──> failed <──────────────────────────┘

A journal (docs/protocol.md section 15.6) goes through these functions and is written before anything is done; whoever
was killed takes up the one that was written last, looks at the machine again, and comes to the same end. Nothing is
installed before both packages are there, so the way back needs no network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Optional

from agent_runtime.extensions import versions

DOWNLOADING, INSTALLING, WAITING, SUCCEEDED = "downloading", "installing", "waiting", "succeeded"
ROLLING_BACK, ROLLED_BACK, FAILED = "rolling back", "rolled back", "failed"
FINAL = (SUCCEEDED, ROLLED_BACK, FAILED)
STATES = (DOWNLOADING, INSTALLING, WAITING, ROLLING_BACK, *FINAL)

DEADLINE = 600
"""Seconds that a new version has for its first heartbeat, unless the wish says otherwise."""
DEADLINES = (10, 3600)
SETTLE_SECONDS = 15
"""That the new version must have been in order without a break: one that crashes is started again every few seconds."""
BACK_SECONDS = 120
"""For the former version to answer once it is installed again."""
TRIES = 3
"""Of an installation that was cut off."""
BACK_PAUSES = (30, 3600)
"""Seconds between tries to put the former version back: each is twice the one before, and there is no last one."""
DOWNLOADS = 20
"""Of a download that the hub wishes, while what is in its way may pass: an hour and a half with DOWNLOAD_PAUSES."""
DOWNLOAD_PAUSES = (5, 300)
BOOTS = 3
"""A reboot gives the new version its whole deadline again, so often."""

# What is done next.
INSTALL, RESTORE, WAIT, END = "install", "restore", "wait", "end"

Journal = dict[str, Any]


class Wish(NamedTuple):
    """An upgrade that somebody wants. `by`: hub or command; `generation`, `correlation`: of the hub's document, if it
    is the hub's; `automatic`: it never goes back to an older version; `machine`: vmId, empty while it is not
    connected."""

    by: str
    machine: str
    cloud: str
    installed: str
    version: str
    format: str
    deadline: int = DEADLINE
    generation: Optional[int] = None
    correlation: Optional[str] = None
    automatic: bool = False


class Seen(NamedTuple):
    """One look at the machine. `package`: its version, empty where there is none; `whole`: it is configured;
    `answers`: the version of the himds that answers, or empty; `beat`: that one has had a heartbeat answered since it
    was last out of order, and has no trouble with the hub now; `services`: those of root's that are connected to it;
    `trouble`: why not; `boot`, `seconds`: id of this boot and time in it that the machine was awake."""

    package: str
    whole: bool
    answers: str
    beat: bool
    services: frozenset[str]
    trouble: str
    boot: str
    seconds: float


def begun(wish: Wish, ident: str, program: str, now: str) -> Journal:
    """The journal of an upgrade that begins. `program`: the installed agent's worker; `now`: RFC 3339."""
    return {
        "v": 1,
        "id": ident,
        "by": wish.by,
        "machine": wish.machine,
        "generation": wish.generation,
        "correlationId": wish.correlation,
        "cloud": wish.cloud,
        "from": wish.installed,
        "to": wish.version,
        "format": wish.format,
        "deadline": wish.deadline,
        "program": program,
        "begun": now,
        "state": DOWNLOADING,
        "at": now,
        "message": f"Downloading version {wish.version}",
        "error": None,
        "new": None,
        "old": None,
        "connected": False,
        "services": [],
        "tries": 0,
        "clock": None,
        "well": None,
        "boots": 0,
        "steps": [{"state": DOWNLOADING, "at": now, "message": f"Downloading version {wish.version}"}],
    }


def is_final(journal: Mapping[str, Any]) -> bool:
    """Whether nothing is to be done any more."""
    return journal["state"] in FINAL


def _into(journal: Mapping[str, Any], state: str, message: str, now: str, **more: Any) -> Journal:
    step = {"state": state, "at": now, "message": message}
    fresh = {"state": state, "at": now, "message": message, "tries": 0, "clock": None, "well": None, "boots": 0}
    return {**journal, **fresh, "steps": [*journal["steps"], step], **more}


def fetched(
    journal: Mapping[str, Any],
    new: Mapping[str, str],
    old: Mapping[str, str],
    connected: bool,
    services: Iterable[str],
    now: str,
) -> Journal:
    """Both packages, `{"path", "sha256"}`, are there. `connected`, `services`: as the former version stood, which is
    what the new one has to come up to."""
    if journal["state"] != DOWNLOADING:
        return dict(journal)
    found = {"new": dict(new), "old": dict(old), "connected": connected, "services": sorted(services)}
    return _into(journal, INSTALLING, f"Installing version {journal['to']}", now, **found)


def refused(journal: Mapping[str, Any], error: Mapping[str, Any], now: str) -> Journal:
    """Nothing was changed, and will not be. `error`: `{"code", "message", "remedy"}`."""
    if journal["state"] != DOWNLOADING:
        return dict(journal)
    return _into(journal, FAILED, str(error["message"]), now, error=dict(error))


def postponed(journal: Mapping[str, Any], error: Mapping[str, Any], now: str) -> Journal:
    """What kept the packages from being fetched may pass. Who asked for it by hand is told at once; a wish of the hub's
    is carried out later, for most of a fleet may have come at a bad moment."""
    if journal["by"] != "hub" or journal["tries"] + 1 >= DOWNLOADS:
        return refused(journal, error, now)
    if journal["state"] != DOWNLOADING:
        return dict(journal)
    message = f"{journal['steps'][-1]['message']}; waiting: {error['message']}"
    return {**journal, "tries": journal["tries"] + 1, "message": message, "at": now}


def pause(journal: Mapping[str, Any], luck: float) -> float:
    """Seconds before the next try of a download, or of the way back; `luck` from 0 to 1 spreads a fleet."""
    if not journal["tries"]:
        return 0.0
    first, last = BACK_PAUSES if journal["state"] == ROLLING_BACK else DOWNLOAD_PAUSES
    return float(min(last, first << min(journal["tries"] - 1, 16))) * (1 + luck) / 2


def tried(journal: Mapping[str, Any]) -> Journal:
    """A package is about to be given to the package manager."""
    return {**journal, "tries": journal["tries"] + 1}


def ran(journal: Mapping[str, Any], why: str, now: str) -> Journal:
    """The package manager has ended; `why` it failed, empty when it did not."""
    if why and journal["state"] == INSTALLING:
        return _into(journal, ROLLING_BACK, f"Version {journal['to']} could not be installed: {why}", now)
    if why and journal["state"] == ROLLING_BACK:
        message = f"{journal['steps'][-1]['message']}; version {journal['from']} is not back yet: {why}"
        return {**journal, "message": message, "at": now}
    return dict(journal)


def decide(journal: Mapping[str, Any], seen: Seen, now: str) -> tuple[Journal, str]:
    """The journal after a look, and what is done next: INSTALL, RESTORE, WAIT or END. Not while it is downloading."""
    if is_final(journal):
        return dict(journal), END
    strange = _strange(journal, seen)
    if strange:
        return _into(journal, FAILED, strange, now), END
    if journal["state"] == INSTALLING:
        return _installing(journal, seen, now)
    if journal["state"] == WAITING:
        return _waiting(journal, seen, now)
    return _rolling_back(journal, seen, now)


def _strange(journal: Mapping[str, Any], seen: Seen) -> str:
    """What somebody else has done to the package meanwhile, which stays as it is."""
    if not seen.package:
        return "The agent was removed while it was being upgraded; it stays removed"
    if seen.whole and seen.package not in (journal["from"], journal["to"]):
        return f"Version {seen.package} was installed by somebody else meanwhile; it stays"
    return ""


def _installing(journal: Mapping[str, Any], seen: Seen, now: str) -> tuple[Journal, str]:
    if seen.whole and seen.package == journal["to"]:
        message = f"Version {journal['to']} is installed; waiting for its first heartbeat"
        if not journal["connected"]:
            message = f"Version {journal['to']} is installed; waiting for its services"
        made = _into(journal, WAITING, message, now)
        return {**made, "clock": {"boot": seen.boot, "seconds": seen.seconds}}, WAIT
    if journal["tries"] >= TRIES:
        message = f"The installation of version {journal['to']} was cut off {TRIES} times"
        return _into(journal, ROLLING_BACK, message, now), RESTORE
    return dict(journal), INSTALL


def _waiting(journal: Mapping[str, Any], seen: Seen, now: str) -> tuple[Journal, str]:
    if seen.package == journal["from"] and seen.whole:
        return _into(
            journal, ROLLED_BACK, f"Version {journal['from']} was installed by somebody else meanwhile", now
        ), END
    if not seen.whole:
        return _into(journal, ROLLING_BACK, f"Version {journal['to']} is not whole any more", now), RESTORE
    made, left = _time_left(journal, seen, journal["deadline"])
    missing, well = lacks(journal, seen), journal.get("well")
    if not missing:
        if well is None or well["boot"] != seen.boot:
            return {**made, "well": {"boot": seen.boot, "seconds": seen.seconds}}, WAIT
        if seen.seconds - well["seconds"] < SETTLE_SECONDS:
            return made, WAIT
        return _into(journal, SUCCEEDED, f"Version {journal['to']} is in force", now), END
    made["well"] = None
    if left > 0:
        return made, WAIT
    message = f"Version {journal['to']} was not in order after {journal['deadline']} s: {missing}"
    return _into(journal, ROLLING_BACK, message, now), RESTORE


def _rolling_back(journal: Mapping[str, Any], seen: Seen, now: str) -> tuple[Journal, str]:
    if not (seen.whole and seen.package == journal["from"]):
        # Tried for ever: nobody else can reach a machine whose agent is broken.
        return dict(journal), RESTORE
    why = journal["steps"][-1]["message"]
    if seen.answers == journal["from"]:
        return _into(journal, ROLLED_BACK, why, now), END
    made, left = _time_left(journal, seen, BACK_SECONDS)
    if left > 0:
        return made, WAIT
    message = f"{why}; version {journal['from']} was put back, but himds does not answer"
    return _into(journal, FAILED, message, now), END


def lacks(journal: Mapping[str, Any], seen: Seen) -> str:
    """What the new version has not come up to yet; empty when it is in order."""
    if seen.answers != journal["to"]:
        other = f"himds answers as version {seen.answers}" if seen.answers else "himds does not answer"
        return f"{other} ({seen.trouble})" if seen.trouble else other
    gone = sorted(set(journal["services"]) - seen.services)
    if gone:
        return f"not connected to himds: {', '.join(gone)}"
    if journal["connected"] and not seen.beat:
        return f"no heartbeat was answered ({seen.trouble})" if seen.trouble else "no heartbeat was answered"
    return ""


def _time_left(journal: Mapping[str, Any], seen: Seen, limit: float) -> tuple[Journal, float]:
    """Seconds left, and the journal in which the count goes on. The machine's clock says nothing, it may be set; time
    in which the machine was off or asleep is nobody's fault."""
    clock = journal["clock"]
    if clock is None or clock["boot"] != seen.boot:
        boots = journal["boots"] + (clock is not None)
        left = limit if boots <= BOOTS else 0.0
        return {**journal, "boots": boots, "clock": {"boot": seen.boot, "seconds": seen.seconds}}, left
    return dict(journal), clock["seconds"] + limit - seen.seconds


def mark(wish: Wish) -> dict[str, Any]:
    """What makes a wish of the hub this very one: the version, for this machine, and who asked for it."""
    return {"machine": wish.machine, "version": wish.version, "correlationId": wish.correlation}


def is_settled(wish: Wish, last: Optional[Mapping[str, Any]]) -> bool:
    """Whether the hub's wish needs no upgrade any more: its version is installed, or the last upgrade was for it; an
    automatic one also where a newer version is installed."""
    if wish.version == wish.installed or (wish.automatic and not versions.is_newer(wish.version, wish.installed)):
        return True
    known = last is not None and {
        "machine": last["machine"],
        "version": last["to"],
        "correlationId": last["correlationId"],
    }
    return last is not None and last["by"] == wish.by and known == mark(wish)


def report(journal: Mapping[str, Any]) -> dict[str, Any]:
    """What the hub is told (docs/protocol.md section 15.6)."""
    return {
        "generation": journal["generation"],
        "correlationId": journal["correlationId"],
        "desiredVersion": journal["to"],
        "fromVersion": journal["from"],
        "state": journal["state"],
        "message": str(journal["message"])[:1024],
        "begun": journal["begun"],
        "at": journal["at"],
    }
