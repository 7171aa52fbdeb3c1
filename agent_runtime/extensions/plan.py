# SPDX-License-Identifier: Apache-2.0
"""What has to be done so that the machine has what is wished, and what each step that was done changes. Pure.

A **record** is what is known of one handler (a JSON object of handlers.json):
`{"publisher", "type", "machine": vmId that it was wished for, empty where nobody knows, "version": installed one or
null, "state", "multi", "heartbeat", "resources": {"cpu", "memory", "services"}, "folders": [unpacked versions],
"archives": {version: path}, "extensions": {ident: {"name", "sequence", "digest", "enabled", "level", "thumbprint",
"incarnation"}}, "rejected": null or [version, generation, reason], "fresh": whether it was updated and has not
reported well since}`.
A **chain** is what is done to one handler without a pause:
`{"kind": install enable update drop remove, "publisher", "type", "from", "to", "level", "names": [ident],
"steps": […]}`, of a removal that makes room for another installation of the handler with `"anew": true`;
a **step** is `{"do", "version", "name", "fails"}`, with `"only": "install"` where the new version's updateMode decides.
`fails`: `stop` ends the chain, `go` goes on, `ask` goes on if the new version's continueOnUpdateFailure says so.
Orders: extension-handler.md sections 10 to 14 and 20.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from agent_runtime.extensions import versions
from agent_runtime.extensions.wishes import Wish

NOT_INSTALLED, INSTALLED, ENABLED, FAILED_UPGRADE = "NotInstalled", "Installed", "Enabled", "FailedUpgrade"
STOP, GO, ASK = "stop", "go", "ask"
EXPIRED = "the hub's document has expired; connect this machine to its hub again"
Record = dict[str, Any]
Chain = dict[str, Any]
Step = dict[str, Any]


class Plan(NamedTuple):
    """`chains` in their order; `refused`: reason by ident of wishes that are not acted on."""

    chains: list[Chain]
    refused: dict[str, str]


def blank(publisher: str, kind: str, machine: str = "") -> Record:
    """The record of a handler of which nothing is there."""
    return {
        "publisher": publisher,
        "type": kind,
        "machine": machine,
        "version": None,
        "state": NOT_INSTALLED,
        "multi": False,
        "heartbeat": False,
        "resources": {},
        "folders": [],
        "archives": {},
        "extensions": {},
        "rejected": None,
        "fresh": False,
    }


def make(
    records: Mapping[str, Record],
    wished: Sequence[Wish],
    held: Iterable[str] = (),
    forbidden: Optional[Mapping[str, str]] = None,
    awake: Iterable[tuple[str, str]] = (),
    generation: int = 0,
    frozen: bool = False,
    machine: str = "",
) -> Plan:
    """The plan from what is there to what is wished.

    `held`: keys and idents that must stay as they are, because their wish cannot be understood; `forbidden`: reason by
    key of handlers that the machine's lists refuse; `awake`: (key, ident) enabled since the service began: everything
    else that is there is enabled again; `frozen`: that alone is done, for a document that has expired; `machine`: whose
    wishes these are. What was wished for another, which this disk was copied from or was, is left alone until a wish
    takes it over, from the beginning.
    """
    held, forbidden, awake = set(held), dict(forbidden or {}), set(awake)
    known, records = records, own(records, machine)
    groups: dict[str, list[Wish]] = {}
    for wish in wished:
        groups.setdefault(wish.key, []).append(effective(wish, records.get(wish.key), generation))
    removals = [
        removal(record)
        for key, record in records.items()
        if not frozen and key not in groups and key not in held and not held & set(record["extensions"])
    ]
    refused: dict[str, str] = {}
    chains: list[Chain] = []
    for key, group in groups.items():
        record = records.get(key) or blank(group[0].publisher, group[0].type)
        if key in held:
            continue
        if is_installed(record) and not record["multi"] and len(group) > 1:
            refused.update({wish.ident: f"{wish.handler} takes one extension at a time" for wish in group})
            continue
        reason = forbidden.get(key, "") or (EXPIRED if frozen else "")
        if reason:
            refused.update({wish.ident: reason for wish in group if not _is_settled(record, wish)})
        mine = {ident for who, ident in awake if who == key}
        if reason:
            group = [wish for wish in group if _is_settled(record, wish) and wish.ident not in mine]
            chains.extend(_by_level(record, group, "enable"))
        else:
            if key in known and key not in records:
                chains.append({**removal(known[key]), "level": min(wish.level for wish in group), "anew": True})
            chains.extend(_chains(record, group, mine, held))
    removals.sort(key=lambda chain: -int(chain["level"]))
    chains.sort(key=lambda chain: int(chain["level"]))
    return Plan([*removals, *chains], refused)


def own(records: Mapping[str, Record], machine: str) -> dict[str, Record]:
    """Those of `records` that were wished for `machine`, or for nobody knows whom."""
    return {key: record for key, record in records.items() if record["machine"] in ("", machine)}


def effective(wish: Wish, record: Optional[Record], generation: int) -> Wish:
    """The wish, for the former version where this document's new one has been tried and has failed. A sequence below
    the one that is there is that of a hub that was restored from a backup: what is there stands."""
    known = record["extensions"].get(wish.ident) if record else None
    if known is not None and wish.sequence < known["sequence"] and is_same_life(known, wish.incarnation):
        wish = wish._replace(sequence=known["sequence"], standing=known["digest"])
    rejected = (record or {}).get("rejected")
    if wish.rollback_to and rejected and rejected[:2] == [wish.version, generation]:
        return wish.at(wish.rollback_to)
    return wish


def is_same_life(known: Mapping[str, Any], incarnation: str) -> bool:
    """Whether both are known to be of one incarnation, so that their sequence numbers can be compared."""
    return bool(incarnation) and known.get("incarnation") == incarnation


def removal(record: Record) -> Chain:
    """Takes a handler away, whatever state it is in. Failures are reported and stop nothing: users cannot remove it
    otherwise (extension-handler.md section 12). With a folder that cannot be deleted its record stays."""
    version, steps = record["version"], []
    if is_installed(record):
        steps = [_step("disable", version, ident, GO) for ident in _enabled(record)]
        steps.append(_step("uninstall", version, fails=GO))
    steps += [_step("delete", folder, fails=GO) for folder in record["folders"]]
    return _chain("remove", record, [*steps, _step("forget", version)], list(record["extensions"]), version, None)


def part(record: Record, ident: Optional[str]) -> Chain:
    """Takes away one extension of a handler that has several, or with `ident` None the handler."""
    if ident is None:
        return removal(record)
    return _chain("drop", record, _off(record, ident), [ident], record["version"], record["version"])


def _chains(record: Record, group: list[Wish], awake: set[str], held: set[str]) -> list[Chain]:
    """For one handler that is wished: what is no longer wished of it goes first."""
    wished = {wish.ident for wish in group}
    gone = [ident for ident in record["extensions"] if ident not in wished and ident not in held]
    gone += [wish.ident for wish in group if is_remade(record, wish)]
    made: list[Chain] = []
    if gone and is_installed(record) and not record["multi"]:
        # The handler remembers sequence numbers of an extension that is no more, and would not run the new one's.
        made.append({**removal(record), "level": min(wish.level for wish in group), "anew": True})
        record = blank(record["publisher"], record["type"])
    elif gone:
        steps = [step for ident in gone for step in _off(record, ident)]
        # Only steps: whether an extension of this name comes anew is another chain's.
        names = [ident for ident in gone if ident not in wished]
        chain = _chain("drop", record, steps, names, record["version"], record["version"])
        made.append({**chain, "level": min(wish.level for wish in group)})
        kept = {ident: known for ident, known in record["extensions"].items() if ident not in gone}
        record = {**record, "extensions": kept}
    if not is_installed(record):
        return [*made, *_by_level(record, group, "install")]
    stale = [folder for folder in record["folders"] if folder not in (record["version"], group[0].version)]
    if stale:
        # Left by a version that was tried and given up.
        steps = [_step("delete", folder, fails=GO) for folder in stale]
        steps.append(_step("tidy", record["version"], fails=GO))
        chain = _chain("drop", record, steps, [], record["version"], None)
        made.append({**chain, "level": min(wish.level for wish in group)})
    if not versions.same(record["version"], group[0].version):
        return [*made, *_by_level(record, group, "update")]
    todo = [wish for wish in group if not _is_settled(record, wish) or wish.ident not in awake]
    return [*made, *_by_level(record, todo, "enable")]


def _by_level(record: Record, group: list[Wish], kind: str) -> list[Chain]:
    """One chain for each dependency level of a handler's extensions; the lowest one's brings the handler."""
    made: list[Chain] = []
    for level in sorted({wish.level for wish in group}):
        now = [wish for wish in group if wish.level == level]
        version = record["version"] if kind == "enable" else now[0].version
        begins = kind != "enable" and not made
        steps = _bring(record, now, kind) if begins else []
        for wish in now:
            steps += [] if begins else [_step("settings", version, wish.ident, GO)]
            steps.append(_step("enable", version, wish.ident, GO))
        if kind != "enable" and level == max(wish.level for wish in group):
            steps.append(_step("tidy", version, fails=GO))
        names = [wish.ident for wish in now]
        chain = _chain(kind if begins else "enable", record, steps, names, record["version"], version)
        made.append({**chain, "level": level})
    return made


def _bring(record: Record, group: list[Wish], kind: str) -> list[Step]:
    """Steps of an installation or of a change of version, up to where the new version can be enabled."""
    new, old = group[0].version, record["version"]
    steps = [_step("download", new), _step("unpack", new)]
    # Of several, one that cannot be given its settings keeps nobody else waiting.
    steps += [_step("settings", new, wish.ident, GO if len(group) > 1 else STOP) for wish in group]
    if kind == "install":
        stale = [folder for folder in record["folders"] if folder != new]
        return [*(_step("delete", folder, fails=GO) for folder in stale), *steps, _step("install", new)]
    steps += [_step("keep", old), *(_step("disable", old, ident, ASK) for ident in _enabled(record))]
    return [
        *steps,
        _step("carry", old),
        _step("update", new if versions.is_newer(new, old) else old),
        _step("uninstall", old, fails=ASK),
        _step("delete", old, fails=GO),
        {**_step("install", new), "only": "install"},
    ]


def _off(record: Record, ident: str) -> list[Step]:
    version, known = record["version"], record["extensions"].get(ident)
    if known is None:
        return []
    disable = [_step("disable", version, ident, GO)] if known["enabled"] else []
    return [*disable, _step("drop", version, ident, GO)]


def _step(verb: str, version: Optional[str], name: Optional[str] = None, fails: str = STOP) -> Step:
    return {"do": verb, "version": version, "name": name, "fails": fails}


def _chain(
    kind: str, record: Record, steps: list[Step], names: list[str], old: Optional[str], new: Optional[str]
) -> Chain:
    level = max((int(known["level"]) for known in record["extensions"].values()), default=0)
    head = {"kind": kind, "publisher": record["publisher"], "type": record["type"], "from": old, "to": new}
    return {**head, "level": level, "names": names, "steps": steps}


def _enabled(record: Record) -> list[str]:
    return [ident for ident, known in record["extensions"].items() if known["enabled"]]


def is_installed(record: Record) -> bool:
    """Whether a version of the handler is there that was installed."""
    return record["version"] is not None and record["state"] in (INSTALLED, ENABLED, FAILED_UPGRADE)


def _is_settled(record: Record, wish: Wish) -> bool:
    """Whether the extension is enabled as it is wished."""
    known = record["extensions"].get(wish.ident)
    if known is None or not is_installed(record) or not versions.same(record["version"], wish.version):
        return False
    is_same = known["sequence"] == wish.sequence and known["digest"] == wish.digest
    return bool(known["enabled"] and is_same)


def is_remade(record: Record, wish: Wish) -> bool:
    """Whether this is another extension of the name of one that was removed meanwhile: its numbers begin anew, and the
    same number with other settings must never be given (extension-handler.md section 13)."""
    known = record["extensions"].get(wish.ident)
    if known is None:
        return False
    if wish.incarnation and known.get("incarnation"):
        return bool(known["incarnation"] != wish.incarnation)
    is_other = wish.sequence == known["sequence"] and wish.digest != known["digest"]
    return bool(wish.sequence < known["sequence"] or is_other)


def goes_on(step: Step, is_well: bool, facts: Mapping[str, Any]) -> bool:
    """Whether a chain goes on after a step. `facts`: of the chain, with `goOn` of the new version's manifest."""
    return is_well or step["fails"] == GO or (step["fails"] == ASK and bool(facts.get("goOn")))


def is_possible(chain: Chain, record: Optional[Record]) -> bool:
    """Whether a chain can begin: extensions are enabled only where the chain before has brought their version."""
    if chain["kind"] != "enable":
        return True
    return record is not None and is_installed(record) and versions.same(record["version"], chain["to"])


def is_due(step: Step, facts: Mapping[str, Any]) -> bool:
    """Whether a step is to be done at all; `facts` has `withInstall` of the new version's manifest."""
    return step.get("only") != "install" or bool(facts.get("withInstall", True))


def applied(
    record: Record, chain: Chain, step: Step, is_well: bool, facts: Mapping[str, Any], wish: Optional[Wish] = None
) -> Optional[Record]:
    """The record after a step that went well or did not; None: the handler is gone. May be applied twice. `facts`:
    `multi`, `heartbeat`, `resources`, `withInstall` of the manifest of the version that is coming, and `archive`."""
    verb, version = step["do"], step["version"]
    made = {**record, "extensions": dict(record["extensions"]), "archives": dict(record["archives"])}
    if verb == "forget":
        return _forgotten(made, chain) if made["folders"] else None
    if verb == "delete" and is_well:
        made["folders"] = [folder for folder in record["folders"] if folder != version]
    elif verb == "download" and is_well:
        made["archives"][version] = facts.get("archive")
    elif verb == "unpack" and is_well:
        made["folders"] = [*(folder for folder in record["folders"] if folder != version), version]
    elif verb == "tidy" and is_well:
        made["archives"] = {key: path for key, path in record["archives"].items() if key == record["version"]}
    elif verb == "drop":
        made["extensions"].pop(step["name"], None)
        _settle(made)
    elif verb == "install":
        well = {"version": version, "state": INSTALLED, "fresh": chain["kind"] == "update", **_told(facts)}
        made.update(well if is_well else {"version": None, "state": NOT_INSTALLED})
    elif verb == "update" and not is_well:
        made["state"] = FAILED_UPGRADE
    elif verb == "uninstall":
        _uninstalled(made, chain, goes_on(step, is_well, facts), facts)
    elif verb == "disable" and goes_on(step, is_well, facts):
        _turn(made, str(step["name"]), False)
    elif verb == "enable" and wish is not None:
        known = record["extensions"].get(str(step["name"]))
        made["extensions"][step["name"]] = {
            "name": wish.name,
            "sequence": wish.sequence,
            "digest": wish.digest,
            "enabled": is_well,
            "level": wish.level,
            # With settings that stand, their file was left as it is.
            "thumbprint": known["thumbprint"]
            if wish.standing and known and chain["kind"] == "enable"
            else wish.thumbprint,
            "incarnation": wish.incarnation,
        }
        _settle(made)
    return made


def _forgotten(record: Record, chain: Chain) -> Record:
    """What stays for a folder that could not be deleted: all, but where another installation takes its place."""
    if not chain.get("anew"):
        return record
    return {**blank(record["publisher"], record["type"]), "folders": record["folders"]}


def _uninstalled(record: Record, chain: Chain, goes: bool, facts: Mapping[str, Any]) -> None:
    if not goes:
        record["state"] = FAILED_UPGRADE
        return
    for ident in list(record["extensions"]):
        _turn(record, ident, False)
    if chain["kind"] == "update" and not facts.get("withInstall", True):
        record.update({"version": chain["to"], "state": INSTALLED, "fresh": True, **_told(facts)})
    else:
        record.update({"version": None, "state": NOT_INSTALLED})


def _told(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: facts[name] for name in ("multi", "heartbeat", "resources") if name in facts}


def _turn(record: Record, ident: str, on: bool) -> None:
    known = record["extensions"].get(ident)
    if known is not None:
        record["extensions"][ident] = {**known, "enabled": on}
    _settle(record)


def _settle(record: Record) -> None:
    """A handler is enabled while one of its extensions is."""
    if is_installed(record):
        on = any(known["enabled"] for known in record["extensions"].values())
        record["state"] = ENABLED if on else FAILED_UPGRADE if record["state"] == FAILED_UPGRADE else INSTALLED
