# SPDX-License-Identifier: Apache-2.0
"""Carries a plan out, one step at a time, and says of each extension how far it is.

`plan.json` is the journal: `{"v": 1, "machine", "generation", "chains", "wishes", "own", "certificates", "at": number
of the chain, "step": number of the step, "run": null or name of the run that was begun for it, "facts": of the chain,
"failed": idents whose settings or enable failed in this chain}`. A process that was killed goes on with the step it was
in; a command that ran on meanwhile is picked up by the name of its run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Optional

from agent_runtime.extensions import plan, reports, results, texts
from agent_runtime.extensions.runner import Runner
from agent_runtime.extensions.steps import COMMANDS, GENERAL, Outcome, Scene, Steps
from agent_runtime.extensions.store import Store
from agent_runtime.extensions.timing import Timing
from agent_runtime.extensions.watch import Watch
from agent_runtime.extensions.wishes import Wish
from agent_runtime.service.log import Log
from agent_runtime.service.loop import Event, Loop, Timeout, TimeoutExpired


class Carrier:
    """`report`: something may have changed; `is_superseded`: something newer waits, which is looked at between two
    chains; `again`: make another plan in so many seconds. `awake`: (key, ident) enabled since the process began."""

    def __init__(
        self,
        loop: Loop,
        log: Log,
        store: Store,
        steps: Steps,
        runner: Runner,
        watch: Watch,
        timing: Timing,
        report: Callable[[], None],
        is_superseded: Callable[[], bool],
        again: Callable[[float], None],
    ) -> None:
        self._loop = loop
        self._log = log
        self._store = store
        self._steps = steps
        self._runner = runner
        self._watch = watch
        self._timing = timing
        self._report = report
        self._is_superseded = is_superseded
        self._again = again
        self.moved = Event()
        self.awake: set[tuple[str, str]] = set()
        self.tries: dict[str, int] = {}

    async def carry_out(self, journal: dict[str, Any]) -> bool:
        """Goes through a plan; whether another is needed at once. A new document takes over between two chains."""
        self._store.save_plan(journal)
        self._runner.forget_others(journal["run"])
        again = False
        while journal["at"] < len(journal["chains"]):
            chain = journal["chains"][journal["at"]]
            if journal["step"] == 0 and journal["run"] is None:
                skipped = await self._gate(chain, journal)
                if self._is_superseded():
                    break
                if not skipped and not plan.is_possible(chain, self._store.records.get(_key(chain))):
                    skipped = "its handler could not be brought to the version that is wished"
                if skipped:
                    self._fail(chain["names"], "enable", Outcome(False, GENERAL, skipped))
                    self._next_chain(journal)
                    continue
                self._begin(chain, journal)
            self._watch.busy = _key(chain)
            try:
                again = await self._chain(chain, journal) or again
            finally:
                self._watch.busy = ""
            self._next_chain(journal)
        self._store.drop_plan()
        return again

    def _blank(self, publisher: str, kind: str) -> plan.Record:
        return plan.blank(publisher, kind, self._store.machine)

    def _next_chain(self, journal: dict[str, Any]) -> None:
        journal.update({"at": journal["at"] + 1, "step": 0, "run": None, "facts": {}, "failed": []})
        self._store.save_plan(journal)

    def _begin(self, chain: plan.Chain, journal: dict[str, Any]) -> None:
        self._log.info(f"{chain['kind']} of {_title(chain)} begins")
        repeats = [ident for ident in chain["names"] if chain["kind"] == "enable" and self._is_repeat(chain, ident)]
        journal["facts"]["repeats"] = repeats
        for ident in chain["names"]:
            if ident not in repeats:
                self._say(ident, lambda old: results.begun(old, chain, time.time()))
        self._report()

    def _say(self, ident: str, change: Callable[[results.Result], results.Result]) -> None:
        """Changes what is said of an extension, if anything is."""
        old = self._store.results.get(ident)
        if old is not None:
            self._store.results[ident] = change(old)

    def _is_repeat(self, chain: plan.Chain, ident: str) -> bool:
        """Whether enable is only repeated, because the service has begun: that alone changes nothing to report."""
        record = self._store.records.get(_key(chain))
        known = (record or {"extensions": {}})["extensions"].get(ident)
        old = self._store.results.get(ident)
        if old is None or old["state"] == "failed":
            return False
        return bool(known and known["enabled"] and known["sequence"] == old["sequence"])

    async def _gate(self, chain: plan.Chain, journal: Mapping[str, Any]) -> str:
        """Waits until the extensions of lower levels have ended well; why this chain is skipped, empty when it is
        not (extension-handler.md section 20)."""
        if chain["kind"] in ("remove", "drop"):
            return ""
        lower = [wish["name"].lower() for wish in journal["wishes"] if wish["level"] < chain["level"]]
        end = time.monotonic() + self._timing.dependency
        while True:
            states = {ident: self._store.results[ident]["state"] for ident in lower if ident in self._store.results}
            failed = sorted(ident for ident, state in states.items() if state == "failed")
            waiting = sorted(ident for ident, state in states.items() if state not in reports.FINAL)
            if failed:
                return f"{self._store.results[failed[0]]['name']}, on which it depends, has failed"
            if not waiting or self._is_superseded():
                return ""
            if time.monotonic() >= end:
                return f"{self._store.results[waiting[0]]['name']}, on which it depends, has not ended well in time"
            self.moved.clear()
            try:
                with Timeout(self._loop, self._timing.dependency_look):
                    await self.moved.wait()
            except TimeoutExpired:
                pass

    async def _chain(self, chain: plan.Chain, journal: dict[str, Any]) -> bool:
        """Goes through the steps of a chain; whether the former version has to be brought back."""
        while journal["step"] < len(chain["steps"]):
            step = chain["steps"][journal["step"]]
            outcome = await self._step(step, chain, journal)
            is_end = not plan.goes_on(step, outcome.is_well, journal["facts"])
            journal["step"] = len(chain["steps"]) if is_end else journal["step"] + 1
            run, journal["run"] = journal["run"], None
            if is_end:
                self._abort(chain, step, outcome)
                journal["failed"] = list(chain["names"])
            self._store.save_plan(journal)
            if run is not None:
                self._runner.forget(run)
            self._report()
        key = _key(chain)
        if chain["kind"] in ("remove", "drop"):
            self._say_gone(chain, journal)
        rolls_back = bool(journal["failed"]) and self._reject(chain, journal)
        self._settle(key)
        return rolls_back

    def _say_gone(self, chain: plan.Chain, journal: Mapping[str, Any]) -> None:
        """What is gone is missing from the report, unless another extension of its name comes."""
        there = self._store.records.get(_key(chain), {"extensions": {}})["extensions"]
        wished = {wish["name"].lower(): Wish(**wish) for wish in journal["wishes"]}
        for ident in chain["names"]:
            if ident in wished:
                self._store.results[ident] = results.of_wish(wished[ident], None, time.time())
            elif ident not in there:
                self._store.results.pop(ident, None)

    def _say_failed_removal(self, names: Iterable[str], step: plan.Step, outcome: Outcome) -> None:
        """What a handler does badly on its way out is said and stops nothing; what cannot be deleted is still there."""
        verb = step["do"]
        if verb == "delete":
            self._fail(names, verb, outcome)
        elif verb in COMMANDS:
            for ident in names:
                if step["name"] in (None, ident):
                    self._say(
                        ident, lambda old: results.going_on(old, verb, outcome.code, outcome.message, time.time())
                    )

    async def _step(self, step: plan.Step, chain: plan.Chain, journal: dict[str, Any]) -> Outcome:
        """One step, its effect on handlers.json written."""
        key, facts = _key(chain), journal["facts"]
        if not plan.is_due(step, facts) or (step["do"] == "enable" and step["name"] in journal["failed"]):
            return Outcome(True)
        if step["do"] in COMMANDS and journal["run"] is None:
            journal["run"] = os.urandom(16).hex()
            self._store.save_plan(journal)
        record = self._store.records.get(key) or self._blank(chain["publisher"], chain["type"])
        if chain["kind"] == "install":
            record = {**record, "machine": self._store.machine}
        wished = {wish["name"].lower(): Wish(**wish) for wish in journal["wishes"]}
        scene = Scene(chain, facts, record, wished, tuple(journal["own"]), journal["certificates"])
        outcome = await self._steps.do(step, scene, str(journal["run"]))
        self._note(step, chain, outcome, facts, record)
        if chain["kind"] in ("remove", "drop") and not outcome.is_well:
            self._say_failed_removal(chain["names"], step, outcome)
        wish = scene.wish(step["name"], step["version"]) if step["name"] and step["version"] else None
        after = plan.applied(record, chain, step, outcome.is_well, facts, wish)
        self._store.records.pop(key, None)
        if after is not None:
            self._store.records[key] = after
        if step["do"] == "enable":
            await self._enabled(step, chain, outcome, journal)
        elif step["do"] == "settings" and not outcome.is_well:
            journal["failed"] = [*journal["failed"], step["name"]]
            self._fail([step["name"]], "enable", outcome)
        self._store.save()
        return outcome

    def _note(
        self, step: plan.Step, chain: plan.Chain, outcome: Outcome, facts: dict[str, Any], record: plan.Record
    ) -> None:
        """What the rest of the chain needs to know of a step, and the log's line of it."""
        facts.update(outcome.facts)
        verb, name = step["do"], step["name"]
        if verb == "disable" and outcome.exit_code is not None:
            known = record["extensions"].get(name, {"name": name})
            facts["disabled"] = {**facts.get("disabled", {}), known["name"]: outcome.exit_code}
        if verb == "uninstall":
            facts["uninstalled"] = outcome.exit_code
        if outcome.is_well and verb in (*COMMANDS, "download", "unpack"):
            self._log.info(f"{verb} of {_title(chain, step)} done")
        elif not outcome.is_well and outcome.message:
            self._log.error(f"{verb} of {_title(chain, step)} failed ({outcome.code}): {outcome.message}")

    async def _enabled(self, step: plan.Step, chain: plan.Chain, outcome: Outcome, journal: dict[str, Any]) -> None:
        key, ident = _key(chain), step["name"]
        if not outcome.is_well:
            journal["failed"] = [*journal["failed"], ident]
            self._fail([ident], "enable", outcome)
            return
        self.awake.add((key, ident))
        self._say_state(key)
        self._watch.follow(self._store.own())
        await self._watch.first(key, ident)

    def _abort(self, chain: plan.Chain, step: plan.Step, outcome: Outcome) -> None:
        """A chain has ended before its end."""
        names = chain["names"]
        if chain["kind"] == "update":
            self.awake -= {(key, ident) for key, ident in self.awake if key == _key(chain)}
            if step["do"] in ("disable", "uninstall"):
                outcome = outcome._replace(code=1008)
        tries = self.tries.get(_key(chain), 0) + (not outcome.is_moving)
        if outcome.is_passing and tries < self._timing.download_tries:
            self.tries[_key(chain)] = tries
            self._again(self._timing.download_pause)
            failed = "" if outcome.is_moving else f"try {tries} of {self._timing.download_tries} failed: "
            text = f"{failed}{outcome.message}"
            for ident in names:
                self._say(ident, lambda old: results.waiting(old, step["do"], text, time.time()))
            return
        self._fail(names, step["do"], outcome)
        record = self._store.records.get(_key(chain))
        told = results.handler_of(record, outcome.code, outcome.message)
        there = record["version"] if record is not None else None
        for ident in names:
            self._say(ident, lambda old: _told(old, there, told))

    def _fail(self, names: Iterable[str], verb: str, outcome: Outcome) -> None:
        for ident in names:
            self._say(ident, lambda old: results.failed(old, verb, outcome.code, outcome.message, time.time()))
        self._store.save()

    def _reject(self, chain: plan.Chain, journal: Mapping[str, Any]) -> bool:
        """Notes that a version has been tried and has failed; whether there is a former one to go back to."""
        for wish in journal["wishes"]:
            made = Wish(**wish)
            # An enable that is only repeated, long after it went well, is no reason to take a version back.
            has_failed = made.ident in journal["failed"] and made.ident not in journal["facts"].get("repeats", ())
            is_meant = has_failed and made.key == _key(chain) and chain["to"] == made.version
            result = self._store.results.get(made.ident, {})
            if is_meant and made.rollback_to and made.rollback_to != made.version and result.get("state") == "failed":
                self.take_back(made, journal["generation"], str(result["message"]))
                return True
        return False

    def take_back(self, wish: Wish, generation: int, reason: str) -> None:
        """The next plan brings back the version before the one that is wished."""
        record = self._store.records.get(wish.key) or self._blank(wish.publisher, wish.type)
        why = texts.cut(reason, texts.TEXT_LIMIT // 2)
        self._store.records[wish.key] = {**record, "rejected": [wish.version, generation, why]}
        self._log.warning(f"{wish.handler} {wish.version} has failed; going back to {wish.rollback_to}")
        self.awake -= {(key, ident) for key, ident in self.awake if key == wish.key}
        self._store.save()

    def _say_state(self, key: str) -> None:
        """The handler is enabled, whatever becomes of each of its extensions."""
        record = self._store.records[key]
        for ident in record["extensions"] if record["state"] == plan.ENABLED else ():
            self._say(ident, lambda old: results.with_handler(old, results.handler_of(record), time.time()))

    def _settle(self, key: str) -> None:
        """After a chain: handler states, the files that are watched, the word for tools that look."""
        record = self._store.records.get(key)
        if record is not None:
            if record["rejected"] and record["rejected"][1] != self._store.generation:
                record["rejected"] = None
            if record["version"] is not None:
                self._say_settled(record)
                self._mirror(record)
        self._store.save()
        self._watch.follow(self._store.own())
        self._report()

    def _say_settled(self, record: plan.Record) -> None:
        """Where an enable has failed the handler is installing no more; why it failed is said of the extension."""
        for ident in record["extensions"]:
            result = self._store.results.get(ident)
            if result is not None and result["handler"]["status"] == "Installing":
                self._store.results[ident] = results.with_handler(result, results.handler_of(record), time.time())

    def _mirror(self, record: plan.Record) -> None:
        known, said = record["extensions"], self._store.results
        health = next((said[ident]["handler"] for ident in known if ident in said), results.handler_of(record))
        several = {one["name"]: bool(one["enabled"]) for one in known.values()} if record["multi"] else {}
        handler = f"{record['publisher']}.{record['type']}"
        self._steps.layout.mirror(handler, record["version"], record["state"], health, several)


def journal(
    machine: str,
    generation: int,
    chains: list[plan.Chain],
    wished: Iterable[Wish] = (),
    own: Iterable[str] = (),
    certificates: Optional[Mapping[str, str]] = None,
) -> dict[str, Any]:
    """The journal of a plan that begins; `own`: thumbprints of the certificates that are of extd's own key. Pure."""
    return {
        "v": 1,
        "machine": machine,
        "generation": generation,
        "chains": chains,
        "wishes": [wish._asdict() for wish in wished],
        "own": list(own),
        "certificates": dict(certificates or {}),
        "at": 0,
        "step": 0,
        "run": None,
        "facts": {},
        "failed": [],
    }


def _told(result: results.Result, version: Optional[str], handler: Mapping[str, Any]) -> results.Result:
    made = results.with_handler(result, handler, time.time())
    return {**made, "version": version or made["version"]}


def _key(chain: plan.Chain) -> str:
    return f"{chain['publisher']}.{chain['type']}".lower()


def _title(chain: plan.Chain, step: Optional[plan.Step] = None) -> str:
    version = step["version"] if step is not None else chain["to"] or chain["from"]
    extension = f" for {step['name']}" if step is not None and step["name"] else ""
    return f"{chain['publisher']}.{chain['type']} {version or ''}{extension}".rstrip()
