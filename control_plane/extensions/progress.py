# SPDX-License-Identifier: Apache-2.0
"""What a machine's report means for a wish, and what wishes mean for operations that wait for them. Pure.

Reports: docs/protocol.md section 15.2; an automatic upgrade that was rolled back: extension-handler.md section 11.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from control_plane.extensions import versions

CREATING, UPDATING, DELETING = "Creating", "Updating", "Deleting"
SUCCEEDED, FAILED, CANCELED = "Succeeded", "Failed", "Canceled"
RUNNING = "InProgress"
UNDER_WAY = (CREATING, UPDATING, DELETING)

KEPT_SECONDS = 6 * 3600
"""How long an operation waits for a machine (agent-surface.md: operations for an offline machine)."""
RETRY_SECONDS = 3600
"""After an automatic upgrade that was rolled back, or an older version that was wished (extension-handler.md 11)."""
LONGEST_RETRY_SECONDS = 86400
EXPIRED = "ExtensionOperationTimeout"
MISMATCH = "ExtensionVersionMismatch"
PREEMPTED = "OperationPreempted"
LONGEST = 4096


@dataclass(frozen=True)
class Wished:
    """What of an extension's row decides. `generation`: from which of the machine's documents on the wish holds;
    `behind`: a machine may have carried out a higher sequence that this hub has forgotten: then that counts."""

    sequence: int
    version: str
    rollback_to: str | None
    generation: int
    removed: bool
    state: str
    behind: bool = False

    def means(self, sequence: int) -> bool:
        """Whether what is reported of a sequence is said of this wish."""
        return sequence == self.sequence or (self.behind and sequence > self.sequence)


@dataclass(frozen=True)
class Verdict:
    """`state`: provisioningState from now on; `gone`: the removal has ended; `rolled_back`: an automatic upgrade failed
    and the former version is back; `error`: the hub's own reason for a failure that the machine knows nothing of."""

    state: str
    gone: bool = False
    rolled_back: bool = False
    error: Mapping[str, str] | None = None


def _is(item: Mapping[str, Any], version: str | None) -> bool:
    """True when the reported extension has this version. An empty one is none."""
    return bool(item["version"]) and version is not None and versions.same(item["version"], version)


def judge(wished: Wished, item: Mapping[str, Any] | None, generation: int) -> Verdict:
    """What a report says of one wish. `item`: its extension in the report, None when it is missing there; `generation`:
    of the report. One of an older document than the wish changes nothing."""
    same = Verdict(wished.state)
    if generation < wished.generation:
        return same
    if wished.removed:
        if item is None:
            return Verdict(SUCCEEDED, gone=True)
        failed = item["state"] == "failed" and item["operation"] in ("disable", "uninstall")
        return Verdict(FAILED) if failed else same
    if item is None:
        return same
    if wished.means(item["sequence"]) and item["state"] == "failed":
        return Verdict(FAILED)
    if wished.means(item["sequence"]) and item["state"] == "succeeded":
        if _is(item, wished.version):
            return Verdict(SUCCEEDED)
        if _is(item, wished.rollback_to):  # what is not carried out yet would be installing
            return Verdict(SUCCEEDED, rolled_back=True)
        if item["sequence"] == wished.sequence and not wished.behind:
            return Verdict(FAILED, error=_mismatch(item["version"], wished.version))
    return same


def _mismatch(reported: str, wished: str) -> dict[str, str]:
    text = f"The machine reports version {reported or 'none'} of the extension in the place of {wished}."
    return {"code": MISMATCH, "message": f"{text} Look at its gc_ext.log, or write the extension again."}


def pause(age: int) -> int:
    """Seconds until an automatic upgrade that was taken back is tried again, of a version that has been there for
    `age` seconds: as long again, so that each pause is twice the one before; an hour at least, a day at most. Pure."""
    return max(RETRY_SECONDS, min(age, LONGEST_RETRY_SECONDS))


def message_of(item: Mapping[str, Any]) -> str:
    """What is told to people of a reported extension: the agent's text, else the handler's."""
    status = item.get("status") or {}
    formatted = status.get("formattedMessage")
    inner = formatted.get("message") if isinstance(formatted, Mapping) else None
    found = item.get("message") or inner or item.get("handler", {}).get("message") or ""
    return found[:LONGEST] if isinstance(found, str) else ""


def error_of(item: Mapping[str, Any]) -> dict[str, str]:
    """Code and message of a reported failure."""
    status = item.get("status") or {}
    code = item.get("code") or status.get("code") or "ExtensionFailed"
    text = message_of(item) or f"The operation {item.get('operation')} of the extension failed without a message."
    return {"code": str(code)[:64], "message": text}


def expired(name: str, heard: str | None, connected: bool, waited: int) -> dict[str, str]:
    """Code and message of a wish that no outcome came of in time. `heard`: time of the last heartbeat; `waited`: the
    time, in seconds."""
    within = f"within {waited / 3600:.3g} hours"
    if connected:
        text = f"The machine '{name}' is connected and has not reported an outcome {within}. Look at its gc_ext.log."
    elif heard is None:
        text = f"The machine '{name}' has never been connected, and was not {within}."
    else:
        text = f"The machine '{name}' was not connected {within}; it was last heard at {heard}."
    return {"code": EXPIRED, "message": text + " The wish is kept: the machine carries it out when it can."}


@dataclass(frozen=True)
class Wait:
    """One extension that an operation waits for. `resource_id`: of its row; `version`, `sequence`: what was wished;
    `remove`: its end."""

    resource_id: int
    name: str
    version: str
    sequence: int
    remove: bool = False


@dataclass(frozen=True)
class Standing:
    """How an extension stands: its wish, and why it failed if it did."""

    wished: Wished
    error: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Outcome:
    """How an operation has ended: Succeeded, Failed or Canceled, with an error unless it succeeded."""

    status: str
    error: dict[str, Any] | None = None


_PREEMPTED = "The wish for the extension '{name}' was replaced by a newer one."


def _one(wait: Wait, standing: Standing | None) -> Outcome | None:
    preempted = Outcome(CANCELED, {"code": PREEMPTED, "message": _PREEMPTED.format(name=wait.name)})
    if standing is None:
        return Outcome(SUCCEEDED) if wait.remove else preempted
    wished = standing.wished
    if wished.removed != wait.remove:
        return preempted
    other = wished.sequence != wait.sequence or not versions.same(wished.version, wait.version)
    if not wait.remove and other:
        return preempted
    if wished.state == FAILED:
        return Outcome(FAILED, dict(standing.error or {"code": "ExtensionFailed", "message": "The extension failed."}))
    return Outcome(SUCCEEDED) if wished.state == SUCCEEDED and not wait.remove else None


def outcome(waits: Sequence[Wait], standings: Mapping[int, Standing]) -> Outcome | None:
    """How an operation that waits for all of `waits` has ended; None: it has not. `standings`: by `resource_id`."""
    found = [_one(wait, standings.get(wait.resource_id)) for wait in waits]
    if any(item is None for item in found):
        return None
    bad = [(wait, item) for wait, item in zip(waits, found, strict=True) if item and item.status != SUCCEEDED]
    if not bad:
        return Outcome(SUCCEEDED)
    first = next((item for _, item in bad if item.status == FAILED), bad[0][1])
    if len(waits) == 1 or first.error is None:
        return first
    return replace(first, error=_together(bad))


def _together(bad: Iterable[tuple[Wait, Outcome]]) -> dict[str, Any]:
    """One error over those of several extensions."""
    details = [{**(item.error or {}), "target": wait.name} for wait, item in bad]
    names = ", ".join(f"'{item['target']}'" for item in details)
    return {"code": details[0]["code"], "message": f"These extensions failed: {names}.", "details": details}
