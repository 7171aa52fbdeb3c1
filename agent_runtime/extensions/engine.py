# SPDX-License-Identifier: Apache-2.0
"""The extension service's own work: from a verified document to extensions that run, one step at a time.

Documents are kept by service/desired.py. A change of the document, of the local configuration or of the binding, and
each start, make a plan (plan.py); its steps (steps.py) are journalled in plan.json, so that a service that was killed
goes on with the step it was in. What is found is reported (reports.py). Run commands (commands.py)
and upgrades of the agent itself (agent_runtime/upgrade) go their own way.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Optional

from agent_runtime import errors
from agent_runtime.extensions import heartbeat, lists, ownkey, plan, reports, results, runner, status, wishes
from agent_runtime.extensions.carrier import Carrier, journal
from agent_runtime.extensions.commands import Commands
from agent_runtime.extensions.steps import NO_MANIFEST, Call, Steps
from agent_runtime.extensions.store import Store
from agent_runtime.extensions.timing import Timing
from agent_runtime.extensions.watch import Watch
from agent_runtime.extensions.wishes import Wish
from agent_runtime.service import worker
from agent_runtime.service.desired import Host
from agent_runtime.service.loop import Event, Timer, sleep
from agent_runtime.upgrade.wishes import Upgrades

KIND = "extensions"


class Goal(NamedTuple):
    """What a round works towards: the document's content and where it comes from, and the effective config."""

    content: wishes.Content
    machine: str
    generation: int
    has_expired: bool
    config: Mapping[str, Any]


class Engine:
    """The work of extd. `call` runs a worker's verb; tests give their own."""

    def __init__(self, host: Host, call: Optional[Call] = None, timing: Timing = Timing()) -> None:  # noqa: B008
        self._host = host
        self._log = host.log
        self._timing = timing
        self._store = Store(host.paths.extensions)
        self._call = call or self._worker
        places = runner.places(host.paths, "running")
        self._runner = runner.Runner(host.loop, *places, host.log, **runner.systemd())
        config = self._config
        self._steps = Steps(host.paths, host.log, self._runner, self._call, host.profile, config, timing)
        self._watch = Watch(host.loop, host.log, self._steps.layout, timing, self._judged, self._heard, self._lost)
        self._reporter = reports.Reporter(
            host.loop, timing.report, self._data, lambda data: host.report(KIND, data), reports.ends
        )
        self._commands = Commands(host, self._call, timing)
        self._upgrades = Upgrades(host)
        self._work = Event()
        # What has failed is tried again when somebody wants something, not when only another's time has come.
        self._is_asked = True
        self._wished: dict[str, Wish] = {}
        # Of the round that goes on, or was the last: its goal, idents that it takes away, and what was said of those
        # that waited because it failed.
        self._goal_now: Optional[Goal] = None
        self._leaving: set[str] = set()
        self._held_up: dict[str, results.Result] = {}
        # Handlers whose files are gone: those that the next round will find, and when one was found last.
        self._missing: set[str] = set()
        self._missed_at: dict[str, float] = {}
        # The next try of a round that failed: one is enough, however often others have asked for it meanwhile.
        self._retry: Optional[Timer] = None
        # The next look at the clock, while something is held back because the document has expired by it.
        self._clock: Optional[Timer] = None
        self._carrier = Carrier(
            host.loop,
            host.log,
            self._store,
            self._steps,
            self._runner,
            self._watch,
            timing,
            self._reporter.changed,
            self._is_superseded,
            self._again,
        )

    def look(self) -> None:
        """Document, configuration or binding may have changed."""
        self._is_asked = True
        self._work.set()
        self._commands.look()
        self._upgrades.look()

    async def run(self) -> None:
        """Works for ever."""
        damage = self._store.open()
        if damage:
            self._log.error(damage)
        self._host.loop.spawn(self._watch.run(), "status of extensions")
        self._host.loop.spawn(self._commands.run(), "run commands")
        self._host.loop.spawn(self._trim_events(), "events of extensions")
        self._host.loop.spawn(self._upgrades.run(), "upgrade of the agent")
        self._work.set()
        while True:
            await self._work.wait()
            self._work.clear()
            asked, self._is_asked = self._is_asked, False
            try:
                await self._round(asked)
            except (OSError, errors.AgentError) as problem:
                filename = getattr(problem, "filename", None)
                where = f"{filename}: " if isinstance(filename, str) else ""
                why = getattr(problem, "strerror", None) or str(problem)
                self._put_off(asked, why, where)
            except Exception as problem:  # noqa: BLE001 - a service that dies of it dies of it at each start
                self._put_off(asked, f"{type(problem).__name__}: {problem}")

    def _put_off(self, asked: bool, reason: str, where: str = "") -> None:
        self._is_asked = self._is_asked or asked
        self._log.error(f"extensions wait: {where}{reason}")
        if self._retry is not None:
            self._retry.cancel()
        self._retry = self._host.loop.later(self._timing.failure, self._work.set)
        try:
            if self._goal_now is not None:
                self._watch.follow(self._store.own())
            if self._goal_now is not None and not self._goal_now.has_expired:
                self._say_why_it_waits(self._goal_now, reason)
        except Exception as problem:  # noqa: BLE001 - it may be what has failed just now
            self._log.error(f"why extensions wait cannot be told: {type(problem).__name__}: {problem}")

    def _say_why_it_waits(self, goal: Goal, reason: str) -> None:
        """Of all that is allowed and not done, from memory: what fails is mostly the disk."""
        self._take_up(goal)
        records, said = self._store.own(), self._store.results
        wished = [plan.effective(wish, records.get(wish.key), goal.generation) for wish in goal.content.wishes]
        now, told = time.time(), {}
        for wish in wished:
            if lists.refusal(wish.publisher, wish.type, goal.config):
                continue
            old = said.get(wish.ident)
            is_known = old is not None and old["sequence"] == wish.sequence
            if old is not None and is_known and old["state"] in ("installing", "removing"):
                told[wish.ident] = results.held_up(old, "installing", reason, now)
            elif old is None or not is_known or (old["state"] != "failed" and not self._holds(wish)):
                told[wish.ident] = results.held_up(results.of_wish(wish, old, now), "installing", reason, now)
        for ident in (self._leaving & set(said)) - {wish.ident for wish in wished}:
            told[ident] = results.held_up(said[ident], "removing", reason, now)
        # Every try says the same: the hub hears of it once.
        said.update({ident: results.unless_same(made, self._held_up.get(ident)) for ident, made in told.items()})
        self._held_up = {ident: said[ident] for ident in told}
        self._reporter.changed()

    async def _trim_events(self) -> None:
        while True:
            await sleep(self._timing.events)
            records = list(self._store.records.values())
            known = [(f"{record['publisher']}.{record['type']}", record["version"]) for record in records]
            self._steps.layout.trim_events((handler, version) for handler, version in known if version is not None)

    def _config(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        return self._host.config() or ({}, {})

    def _again(self, seconds: float) -> None:
        self._host.loop.later(seconds, self._work.set)

    def _is_superseded(self) -> bool:
        """Whether something has changed since this round began."""
        return self._work.is_set

    async def _worker(self, verb: str, arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
        return await worker.run(self._host.loop, verb, arguments, seconds)

    # -- rounds

    async def _round(self, asked: bool) -> None:
        """Brings what is there to what is wished, as far as it goes; `asked`: also what has failed before. Errors:
        OSError, AgentError of a worker; the next round goes on."""
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        goal = self._goal_now = self._goal()
        if goal is None:
            self._watch.follow({})
            return
        begun = self._store.plan()
        if begun is not None and begun.get("machine") == goal.machine and (begun["step"] or begun["run"]):
            self._log.info("going on with what was interrupted")
            # What is begun is ended; the rest is planned anew.
            await self._carrier.carry_out({**begun, "chains": begun["chains"][: begun["at"] + 1]})
        await self._steps.govern(list(self._store.records.values()))
        while not self._is_superseded():
            self._store.drop_plan()
            made = await self._journal(goal, asked)
            asked = False
            self._store.save()
            self._watch.follow(self._store.own())
            self._reporter.changed()
            if not made["chains"] or not await self._carrier.carry_out(made):
                break
        self._forget_certificates()
        self._reporter.changed()

    def _goal(self) -> Optional[Goal]:
        """None when nothing may be done: no document, switched off, or no machine to be."""
        payload = self._host.kept(KIND)
        known = self._host.config()
        if payload is None or known is None or not known[1]["extensions.enabled"]:
            return None
        try:
            content = wishes.read(payload["content"])
        except ValueError as problem:
            self._log.error(f"the document of extensions cannot be carried out: {problem}")
            return None
        has_expired = payload["exp"] <= time.time()
        return Goal(content, str(payload["machine"]).lower(), int(payload["generation"]), has_expired, known[1])

    async def _journal(self, goal: Goal, asked: bool) -> dict[str, Any]:
        """A new plan, and what it says of each extension. Errors: OSError, AgentError of the worker."""
        self._take_up(goal)
        self._lose_what_is_gone()
        content = goal.content
        self._wished = {wish.ident: wish for wish in content.wishes}
        held = {fault.name.lower() for fault in content.faults}
        held |= {f"{fault.publisher}.{fault.type}".lower() for fault in content.faults if fault.publisher}
        given_up = set() if asked else {wish.ident for wish in content.wishes if self._is_given_up(wish)}
        held |= {wish.key for wish in content.wishes if wish.ident in given_up}
        forbidden = {wish.key: lists.refusal(wish.publisher, wish.type, goal.config) for wish in content.wishes}
        planned = functools.partial(
            plan.make,
            self._store.records,
            content.wishes,
            held,
            forbidden,
            self._carrier.awake,
            goal.generation,
            machine=goal.machine,
        )
        made = planned(frozen=goal.has_expired)
        if goal.has_expired and planned().chains != made.chains:
            self._await_clock()
        leaving = [chain["names"] for chain in made.chains if chain["kind"] in ("remove", "drop")]
        self._leaving = {ident for names in leaving for ident in names}
        records = self._store.own()
        wished = [plan.effective(wish, records.get(wish.key), goal.generation) for wish in content.wishes]
        self._say_what_is_wished([wish for wish in wished if wish.ident not in given_up], content.faults, made)
        own = await self._own(content.certificates, wished)
        return journal(goal.machine, goal.generation, made.chains, wished, own, content.certificates)

    def _await_clock(self) -> None:
        """Looks at the clock again later: it may have been ahead, and nobody says when it is right again."""
        if self._clock is None:
            self._clock = self._host.loop.later(self._timing.clock, self._look_at_clock)

    def _look_at_clock(self) -> None:
        self._clock = None
        payload = self._host.kept(KIND)
        if payload is not None and payload["exp"] <= time.time():
            self._await_clock()
        else:
            self._work.set()

    def _take_up(self, goal: Goal) -> None:
        """From now on this is the document that is carried out, and reported on."""
        if (self._store.machine, self._store.generation) != (goal.machine, goal.generation):
            self._carrier.tries.clear()
        if self._store.machine != goal.machine:
            # What was said was said of another machine's wishes.
            self._store.results = {}
        self._store.machine, self._store.generation = goal.machine, goal.generation

    def _lose_what_is_gone(self) -> None:
        """A handler whose files somebody has removed is not installed (extension-handler.md section 10)."""
        self._missing.clear()
        for key, record in self._store.records.items():
            if record["version"] is not None and not self._is_whole(record):
                self._log.warning(f"{record['publisher']}.{record['type']} {record['version']} has lost its files")
                lost = {"version": None, "state": plan.NOT_INSTALLED}
                self._store.records[key] = {**record, **lost}

    def _is_whole(self, record: plan.Record) -> bool:
        return self._steps.layout.is_whole(f"{record['publisher']}.{record['type']}", record["version"])

    def _say_what_is_wished(self, wished: Iterable[Wish], faults: Iterable[wishes.Fault], made: plan.Plan) -> None:
        now = time.time()
        before = self._store.results
        # Of what is not planned, what was said stands.
        after = {ident: entry for ident, entry in before.items() if ident in self._wished}
        for wish in wished:
            old = before.get(wish.ident)
            if wish.ident in made.refused:
                after[wish.ident] = results.refused(wish, made.refused[wish.ident], old, now)
            elif old is None or old["sequence"] != wish.sequence or not self._holds(wish):
                after[wish.ident] = results.of_wish(wish, old, now)
            elif old["by"] == results.HOST:
                # What failed, or waited, was another wish than this one, which is there.
                after[wish.ident] = {**results.of_wish(wish, old, now), "state": "transitioning"}
                self._watch.refresh(wish.key, wish.ident)
            else:
                after[wish.ident] = old
        for fault in faults:
            after[fault.name.lower()] = results.refused(fault, fault.reason, before.get(fault.name.lower()), now)
        for record in self._store.own().values():
            for ident, known in record["extensions"].items():
                entry = results.blank(
                    known["name"], record["publisher"], record["type"], record["version"] or "", known["sequence"], now
                )
                after.setdefault(ident, before.get(ident, entry))
        self._store.results = after

    def _is_given_up(self, wish: Wish) -> bool:
        """Whether the host has said that this very wish failed, and no former version is to be brought back. What waits
        for the clock has not been tried."""
        old, record = self._store.results.get(wish.ident), self._store.own().get(wish.key)
        if old is None or not results.stands(old) or old["sequence"] != wish.sequence:
            return False
        if old["message"] == plan.EXPIRED:
            return False
        rejected = record["rejected"] if record is not None else None
        return not (rejected and rejected[1] == self._store.generation)

    def _holds(self, wish: Wish) -> bool:
        """Whether the extension is there as wished, so that what was said of it still counts."""
        record = self._store.own().get(wish.key)
        known = (record or {"extensions": {}})["extensions"].get(wish.ident)
        if not known or not record or plan.is_remade(record, wish):
            return False
        return bool(known["enabled"] and record["version"] == wish.version)

    async def _own(self, certificates: Mapping[str, str], wished: Iterable[Wish]) -> list[str]:
        """Thumbprints of certificates of extd's own key, among those that are named; a worker looks at them."""
        named = {wish.thumbprint for wish in wished if wish.thumbprint}
        asked = {name: pem for name, pem in certificates.items() if name in named}
        if not asked:
            return []
        question = {"key": ownkey.key_path(self._host.paths), "certificates": asked}
        answer = await self._call("own-certificates", question, 60.0)
        own = [str(name) for name in answer["own"]]
        self._store.certificates = sorted({*self._store.certificates, *own})
        return own

    def _forget_certificates(self) -> None:
        """Removes certificates and keys that no extension's settings name any more."""
        named = {
            known["thumbprint"] for record in self._store.records.values() for known in record["extensions"].values()
        }
        for thumbprint in set(self._store.certificates) - named:
            self._steps.layout.forget_certificate(thumbprint)
        kept = sorted(name for name in named if name)
        if kept != self._store.certificates:
            self._store.certificates = kept
            self._store.save()

    # -- what the handlers say

    def _judged(self, key: str, ident: str, verdict: status.Verdict) -> None:
        found = self._enabled(key, ident)
        if found is None or (verdict == status.MISSING and self._lost(key, ident)):
            return
        record, known, old = found
        if verdict == status.MISSING and old["sequence"] == known["sequence"] and old["state"] in reports.FINAL:
            return  # what was said of this sequence stands, though the file is gone
        if old["by"] == results.HOST:
            return  # it has failed, or waits: what the version that is there says is no answer to that
        made = results.judged(old, record, ident, verdict, time.time())
        wish = self._wished.get(ident)
        has_succeeded = made["state"] == "succeeded"
        goes_back = record["fresh"] and made["state"] == "failed" and wish is not None and bool(wish.rollback_to)
        # The first final word on a version decides for good, also where it is the one that was said of the former.
        is_first = record["fresh"] and (has_succeeded or goes_back)
        if has_succeeded:
            record["fresh"] = False
        if made == old and not is_first:
            return
        self._store.results[ident] = made
        if made["state"] != old["state"]:
            self._log.info(f"{made['name']} {made['version']} is {made['state']}: {made['message'][:500]}")
        self._changed()
        if wish is not None and goes_back:
            record["fresh"] = False
            self._carrier.take_back(wish, self._store.generation, made["message"])
            self.look()

    def _enabled(self, key: str, ident: str) -> Optional[tuple[plan.Record, Mapping[str, Any], results.Result]]:
        """The handler, the extension, and what was said of it. None: what was cut off may have left places that are
        looked at, of what is not enabled any more, or was another machine's."""
        record, old = self._store.own().get(key), self._store.results.get(ident)
        known = record["extensions"].get(ident) if record is not None else None
        if record is None or old is None or not known or not known["enabled"] or record["version"] is None:
            return None
        return record, known, old

    def _lost(self, key: str, ident: str) -> bool:
        """Whether the files of an enabled handler, whose status file is not there, are gone. Then it is installed
        again; not so one that removes them itself whenever it is: that has failed, until somebody wants something."""
        found = self._enabled(key, ident)
        if found is None or self._is_whole(found[0]):
            return False
        record, _, old = found
        if key not in self._missing and not results.stands(old):
            self._miss(key, record, ident, old)
        return True

    def _miss(self, key: str, record: plan.Record, ident: str, old: results.Result) -> None:
        now = time.monotonic()
        if now - self._missed_at.get(key, float("-inf")) >= self._timing.missed:
            self._missed_at[key] = now
            self._missing.add(key)
            self._work.set()
            return
        text = f"{record['publisher']}.{record['type']} {record['version']} has lost its files again"
        self._log.error(text)
        self._store.results[ident] = results.failed(old, "enable", NO_MANIFEST, text, time.time())
        self._changed()

    def _heard(self, key: str, told: heartbeat.Health) -> None:
        record = self._store.own().get(key)
        for ident in record["extensions"] if record is not None else ():
            if ident in self._store.results:
                self._store.results[ident] = results.with_handler(self._store.results[ident], told, time.time())
        self._changed()

    def _changed(self) -> None:
        try:
            self._store.save()
        except OSError as problem:
            self._log.error(f"results of extensions cannot be kept: {problem.strerror}")
        self._carrier.moved.set()
        self._reporter.changed()

    def _data(self) -> Optional[dict[str, Any]]:
        if not self._host.serves(KIND, self._store.machine):
            return None
        return reports.assemble(self._store.generation, self._store.results.values())
