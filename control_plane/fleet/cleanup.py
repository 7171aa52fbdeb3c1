# SPDX-License-Identifier: Apache-2.0
"""Clean-up rules: what is done, by itself, with machines that have been silent for long. Off until enabled.

Only the time counts in which the hub listened: an outage of the hub makes no machine older. A run that finds more than
its share of the fleet does nothing, for that is the look of a fault and not of machines that were taken away.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from control_plane.arm import locks
from control_plane.arm.machine_body import tags as checked_tags
from control_plane.arm.paths import MachineId
from control_plane.arm.roles import HUB, Action
from control_plane.arm.status import DISCONNECTED, EXPIRED
from control_plane.bodies import one_of, text, whole
from control_plane.clock import now
from control_plane.errors import ApiError, bad_content
from control_plane.fleet.filters import FleetFilter, tag
from control_plane.storage import audit, fleet
from control_plane.storage.database import Database
from control_plane.storage.fleet import Moment
from control_plane.storage.fleet_models import CleanupRule, Listening, MachineState, Outage
from control_plane.storage.models import Heartbeat, Machine, ResourceGroup
from control_plane.storage.resource_models import Lock

DELETE, TAG = "delete", "tag"
DAY = 86400
LEAST_DAYS = 1
DEFAULT_PERCENT = 10
SETTLED = 3600
EVERY, CHECK_EVERY = DAY, 600
CHUNK = 100
SHOWN = 100
_NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,63}$")
_MEMBERS = frozenset({"status", "olderThanDays", "resourceGroup", "tag", "action", "setTag", "maxPercent", "enabled"})
log = logging.getLogger("hawser.hub.cleanup")


@dataclass(frozen=True)
class Rule:
    """`status`: Disconnected (which Expired machines are too) or Expired. `days`: of silence that the hub listened to.
    `tag`: NAME or NAME=VALUE; `set_tag`: NAME=VALUE, of the action `tag`. `percent`: of the fleet, at once."""

    name: str
    status: str
    days: int
    action: str
    group: str | None = None
    tag: str | None = None
    set_tag: str | None = None
    percent: int = DEFAULT_PERCENT


@dataclass(frozen=True)
class Silent:
    """A machine that a rule may be about."""

    machine_id: int
    resource_id: str
    seen: int


@dataclass(frozen=True)
class Result:
    """What a run did, or would do. `refused`: more than `limit` matched, so nothing was done. `locked`: how many a
    lock protects; `machines`: the first SHOWN of those matched."""

    dryRun: bool  # noqa: N815 - the name in JSON
    matched: int
    limit: int
    done: int
    refused: bool
    locked: int
    machines: tuple[str, ...]


def check_name(name: str) -> str:
    """Errors: ApiError 400."""
    if not _NAME.fullmatch(name):
        raise ApiError(
            400, "InvalidRuleName", "The name of a rule has 1 to 64 lower-case letters, digits and '-'.", target="name"
        )
    return name


def read(name: str, body: Mapping[str, Any]) -> tuple[Rule, bool]:
    """A rule as docs/schemas/cleanup-rule.schema.json describes it, and whether it is enabled.

    Errors: ApiError 400 naming the member.
    """
    given = dict(body)
    unknown = sorted(set(given) - _MEMBERS)
    if unknown:
        raise bad_content(f"There is no member '{unknown[0][:80]}' of a clean-up rule.", unknown[0][:80])
    action = one_of(given, "action", (DELETE, TAG))
    set_tag, wanted_tag = text(given, "setTag", 769, required=False), text(given, "tag", 769, required=False)
    if (set_tag is not None) != (action == TAG) or (set_tag is not None and not set_tag.partition("=")[2]):
        raise bad_content("'setTag', NAME=VALUE, goes with the action 'tag' and with no other.", "setTag")
    if set_tag is not None:
        checked_tags(dict([set_tag.split("=", 1)]))
    if wanted_tag is not None:
        tag(wanted_tag)
    enabled = given.get("enabled", False)
    if not isinstance(enabled, bool):
        raise bad_content("'enabled' must be true or false.", "enabled")
    rule = Rule(
        name=check_name(name),
        status=one_of(given, "status", (DISCONNECTED, EXPIRED)),
        days=whole(given, "olderThanDays", LEAST_DAYS, 3650),
        action=action,
        group=text(given, "resourceGroup", 90, required=False),
        tag=wanted_tag,
        set_tag=set_tag,
        percent=whole(given, "maxPercent", 1, 100) if "maxPercent" in given else DEFAULT_PERCENT,
    )
    return rule, enabled


def shown(rule: Rule, enabled: bool) -> dict[str, Any]:
    """A rule with the names of its members in JSON."""
    return {
        "name": rule.name,
        "status": rule.status,
        "olderThanDays": rule.days,
        "resourceGroup": rule.group,
        "tag": rule.tag,
        "action": rule.action,
        "setTag": rule.set_tag,
        "maxPercent": rule.percent,
        "enabled": enabled,
    }


def stored(row: CleanupRule) -> Rule:
    """The rule of a row."""
    return Rule(name=row.name, **row.rule)


def silence(seen: int, at: int, outages: Iterable[tuple[int, int]]) -> int:
    """Seconds of silence that the hub listened to. Pure. `outages`: pairs (began, ended)."""
    deaf = sum(max(0, min(ended, at) - max(began, seen)) for began, ended in outages)
    return max(0, at - seen - deaf)


def limit(fleet_size: int, percent: int) -> int:
    """How many machines a run may change; one at least, so that a small fleet can be cleaned up too."""
    return max(1, fleet_size * percent // 100)


def _ready(session: Session, at: int) -> tuple[int, list[tuple[int, int]]]:
    """Until when the hub listened, and its outages.

    Errors: ApiError 409 while it is too soon after its start to judge anybody.
    """
    row = session.get(Listening, 1)
    heard = min(at, row.alive) if row else 0
    if row is None or heard - row.since < SETTLED:
        raise ApiError(
            409,
            "HubNotSettled",
            f"The hub has listened for less than {SETTLED // 60} minutes; machines that are back are not known yet.",
        )
    return heard, [(item.began, item.ended) for item in session.scalars(select(Outage))]


def matching(session: Session, rule: Rule, at: int) -> list[Silent]:
    """The machines that a rule is about, the longest silent first.

    Errors: ApiError 409 `HubNotSettled`.
    """
    heard, outages = _ready(session, at)
    words = (EXPIRED,) if rule.status == EXPIRED else (DISCONNECTED, EXPIRED)
    wanted = FleetFilter(groups=(rule.group.lower(),) if rule.group else (), tags=(tag(rule.tag),) if rule.tag else ())
    query = (
        fleet.joined(select(Machine.id, Machine.subscription_id, ResourceGroup.name, Machine.name, Heartbeat.seen))
        .join(MachineState, MachineState.machine_id == Machine.id)
        .where(
            *fleet.conditions(wanted, (HUB,), Moment(at)),
            MachineState.status.in_(words),
            Heartbeat.seen < heard - rule.days * DAY,
        )
        .order_by(Heartbeat.seen)
    )
    rows = [
        Silent(key, str(MachineId(sub, group, name)), seen) for key, sub, group, name, seen in session.execute(query)
    ]
    return [item for item in rows if silence(item.seen, heard, outages) > rule.days * DAY]


def _is_done(rule: Rule, machine: Machine) -> bool:
    if rule.set_tag is None:
        return False
    name, _, value = rule.set_tag.partition("=")
    return machine.tags.get(name) == value


def _carry_out(session: Session, rule: Rule, found: Sequence[Silent], at: int) -> list[tuple[int, dict[str, int]]]:
    """Change machines that are still as silent as they were; their ids and generations."""
    actor = audit.Actor("rule", rule.name)
    changed = []
    for item in found:
        machine = session.get(Machine, item.machine_id)
        beat = session.get(Heartbeat, item.machine_id)
        if machine is None or beat is None or beat.seen != item.seen or _is_done(rule, machine):
            continue
        detail = {"rule": rule.name, "silentSince": item.seen}
        if rule.set_tag is None:
            session.delete(machine)
            audit.record(session, actor, Action.MACHINE_DELETE.value, item.resource_id, detail=detail)
        else:
            name, _, value = rule.set_tag.partition("=")
            kept = {key: text_ for key, text_ in machine.tags.items() if key.lower() != name.lower()}
            machine.tags = checked_tags({**kept, name: value})
            machine.generations = {**machine.generations, "resource": machine.generations.get("resource", 0) + 1}
            machine.modified = at
            audit.record(session, actor, Action.MACHINE_WRITE.value, item.resource_id, detail={**detail, "tag": name})
        changed.append((item.machine_id, dict(machine.generations)))
    return changed


Changed = Callable[[int, dict[str, int]], None]


def teller(rule: Rule, tagged: Changed, deleted: Callable[[int], None]) -> Changed:
    """What `run` calls, of the two that the live machines know."""
    return (lambda machine_id, _generations: deleted(machine_id)) if rule.action == DELETE else tagged


def run(database: Database, rule: Rule, changed: Changed, *, dry: bool, force: bool) -> Result:
    """Carry out a rule now. `changed`: told of each machine after the change is committed. `force`: also beyond the
    rule's share of the fleet.

    Errors: ApiError 409 `HubNotSettled`.
    """
    at = now()
    with database.read() as session:
        found = matching(session, rule, at)
        size = session.scalar(select(func.count()).select_from(Machine)) or 0
        held = [(lock.scope, lock.level) for lock in session.scalars(select(Lock))]
    method = "DELETE" if rule.action == DELETE else "PATCH"
    free = [item for item in found if locks.standing_against(method, item.resource_id, held) is None]
    most = limit(size, rule.percent)
    refused = len(free) > most and not force
    done = 0
    if not dry and not refused:
        for start in range(0, len(free), CHUNK):
            with database.write() as session:
                part = _carry_out(session, rule, free[start : start + CHUNK], at)
            done += len(part)
            for machine_id, generations in part:
                changed(machine_id, generations)
    result = Result(
        dry, len(free), most, done, refused, len(found) - len(free), tuple(i.resource_id for i in free[:SHOWN])
    )
    if not dry:
        _note(database, rule, result, at)
    return result


def _note(database: Database, rule: Rule, result: Result, at: int) -> None:
    with database.write() as session:
        row = session.get(CleanupRule, rule.name)
        if row is not None:
            row.last_run, row.last_result = at, {**asdict(result), "machines": list(result.machines)}
        if result.refused:
            audit.record(
                session,
                audit.Actor("rule", rule.name),
                Action.MACHINE_DELETE.value if rule.action == DELETE else Action.MACHINE_WRITE.value,
                f"/cleanupRules/{rule.name}",
                outcome="Refused",
                code="TooManyMachines",
                detail={"matched": result.matched, "limit": result.limit},
            )
            log.error(
                "Rule '%s' found %d machines, more than its %d: nothing was done.",
                rule.name,
                result.matched,
                result.limit,
            )


class Cleaner:
    """Runs enabled rules once a day, while the hub serves."""

    def __init__(self, database: Database, tagged: Changed, deleted: Callable[[int], None]) -> None:
        self._database, self._tagged, self._deleted = database, tagged, deleted

    async def run(self) -> None:
        """Ends when cancelled."""
        while True:
            await asyncio.sleep(CHECK_EVERY)
            try:
                await asyncio.to_thread(self.turn, now())
            except Exception:
                log.exception("Clean-up rules could not be run; they are tried again.")

    def turn(self, at: int) -> None:
        """Run what is due. Over PostgreSQL whoever takes a rule first runs it."""
        with self._database.read() as session:
            due = list(session.scalars(select(CleanupRule.name).where(*_due(at))))
        for name in due:
            with self._database.write() as session:
                row = session.scalars(
                    select(CleanupRule).where(CleanupRule.name == name, *_due(at)).with_for_update(skip_locked=True)
                ).one_or_none()
                if row is None:
                    continue
                row.last_run = at
                rule = stored(row)
            try:
                run(self._database, rule, teller(rule, self._tagged, self._deleted), dry=False, force=False)
            except ApiError as error:
                log.info("Rule '%s' waits: %s", name, error.message)


def _due(at: int) -> tuple[Any, ...]:
    return (CleanupRule.enabled, func.coalesce(CleanupRule.last_run, 0) <= at - EVERY)
