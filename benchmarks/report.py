# SPDX-License-Identifier: Apache-2.0
"""Figures as rows, and docs/benchmarks.md out of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_HERD = (
    "A machine sends fifty heartbeats a second from a process of its own that goes before the others on its core, "
    "first alone, then while copies of its disk wake on other hardware, a hundred a second, and ask whose identity "
    "they hold. Each copy makes a connection for every question, obeys `Retry-After`, and ends in quarantine or, "
    "having enrolled under a name of its own, with its first heartbeat. Times count from the moment at which a copy "
    "woke; memory is the hub's own (unique set size). Herds of up to a hundred wake three times: times are those of "
    "the middle run, what went wrong is of all three, memory that of the worst. What is known of copies is on the "
    "disk; in memory stay a digest for each that nobody has decided about, and what the allocator keeps for the next "
    "herd."
)
# Name of a part, its heading, and what must be known to read its figures.
TITLES: dict[str, tuple[str, str]] = {
    "checkins": (
        "Hub: check-ins",
        (
            "Authenticated, over TLS connections that are kept alive, the hub on one core and the generator on "
            "the other. A check-in is answered before its hot row is written: rows are written in batches, at the "
            "latest half a second later, with SQLite's `synchronous=FULL`. What a loss of power takes with it is "
            "what the epoch is for. Credential slots, desired state and everything else are on the disk before "
            "they are answered."
        ),
    ),
    "records": (
        "Hub: many machines in the database",
        (
            "The rows are written in bulk, with certificates issued by the hub's CA and tokens signed by its "
            "authority; machines share 64 connections, as behind a proxy. Check-ins begin at the rate of the "
            "whole fleet (one in five minutes each), whether the hub keeps up or not; a latency counts from the "
            "moment at which the call was due. At the first call of a machine the hub reads its record from the "
            "database; later ones find it in memory."
        ),
    ),
    "held": (
        "Hub: held connections, changes, cold start",
        (
            "Every machine has a TLS connection and a held check-in of its own. Memory is the hub's own (unique "
            "set size) after against before, without the kernel's buffers. A change is a PATCH of tags, twenty a "
            "second; it has taken effect when the machine has the document. For the cold start the hub is killed "
            "with SIGKILL and started again at once; machines come back by the agent's own back-off (full jitter, "
            "1 s doubled to 300 s), which is part of the time."
        ),
    ),
    "queries": (
        "Hub: fleet queries",
        "`GET /hawser/v1/machines` with filters, orders and pages; the time is the client's, TLS included.",
    ),
    "wishes": (
        "Hub: a wish for an extension until enable has begun",
        (
            "Every machine waits on a held check-in of its own. A PUT of an extension for each machine, twenty a "
            "second at most; the machine fetches its document and reports that enable has begun, and then that it "
            "went well, as an agent does whose packages are there and whose handlers take no time. A time ends when "
            "the hub has taken the first of these reports."
        ),
    ),
    "large_package": (
        "Agent: memory for a large package",
        (
            "A package with one stored entry that cannot be compressed, signed and published at a hub, downloaded, "
            "verified and unpacked by the workers of a real extd, all on one machine. Peaks of resident memory "
            "(VmHWM), those of workers seen every 5 ms, against those of a package with 1 MB in it just before."
        ),
    ),
    "herd_quarantine": ("Hub: copies that wake together, policy quarantine", _HERD),
    "herd_adopt": ("Hub: copies that wake together, policy adopt", _HERD),
    "twins": (
        "Verdicts about twins",
        (
            "Simulated time: the real decisions of hub and agent (branches of a lease, verdicts, comparison of "
            "evidence) over machines whose truth is known; the world around them is a model. Normal life is reboots, "
            "migrations, other cards and disks, failed readings, lost answers, power cuts that take the lease, hubs "
            "that are killed or restored a day old, snapshots restored in place, an event a day and machine. A copy is "
            "a cold clone, a snapshot with memory, a backup restored beside the original, or a disk written to other "
            "hardware; it differs in everything, in what a hypervisor gives a copy, in cards and disk alone, or in "
            "nothing. Heartbeats come within five minutes; what is measured of a copy ends with the hub's word, for "
            "what follows takes no simulated time (see the part on adopted copies). A perfect copy is always held or "
            "renamed, but nobody can say whether it is the copy or the original that is: those are not counted as "
            "wronged."
        ),
    ),
    "power": (
        "Agent: power lost in a step",
        (
            "Simulated disk: the agent's real code, whose writes are recorded; then the power goes at a random one of "
            "them, and what was not synced is there, is not there, or is torn. In two of five the power goes once more "
            "in the boot that follows. RSA, the network and the service manager are not real here; the lane `kills` "
            "has them. Steps that are broken on purpose are caught by the tests."
        ),
    ),
    "idle": (
        "Agent: idle services",
        "Connected, nothing assigned; the distribution's Python on a systemd-nspawn host.",
    ),
    "tokens": (
        "Agent: local token endpoint",
        "himds on one core, its clients on the other, from the cache.",
    ),
    "changes": (
        "Agent: a change at the hub until it is in effect",
        (
            "A tag is set at the hub; it has taken effect when `/metadata/instance` on the host shows it, asked "
            "each 20 ms."
        ),
    ),
    "rollout": (
        "Rollout",
        "Same run, same inventory, 20 forks; three runs each in turn, medians.",
    ),
    "enabling": (
        "Extensions: a wish at the hub until enable begins on a real host",
        (
            "From the PUT to the first act of the handler's enable, one wish after another. What the host needs alone "
            "begins where extd begins to carry out a verified document (by its log), without the time in which it "
            "fetches the package and its metadata; the rest is over it: hub, network, himds, the verification of "
            "document and package."
        ),
    ),
    "extended_idle": (
        "Extensions: idle services with one installed",
        "A handler that has nothing to do any more; a minute after it was enabled.",
    ),
    "limits": (
        "Extensions: a limit that holds",
        (
            "Three busy loops of one extension, below the default of Linux (30 % of one core); by the account of the "
            "slice's control group, against the host's clock."
        ),
    ),
}
# Bars of the project's design that no part measures, and why not.
NOT_MEASURED = (
    "Idle CPU on Windows (≤ 0.07 % of one core): there are no services for Windows yet.",
    "10,000 copies that wake together, adopted: `make bench-long` alone takes so long. In quarantine they are below.",
    "Idle CPU over an hour (≤ 0.02 % of one core): `make bench-long` alone takes so long.",
    "CPU time of workers, spread over time: they are processes that end, and are in no figure of idle services.",
    "arcproxy by itself: it is not in this release.",
    "Policy held at 5 % of one core, ± 1 point: this release evaluates no policies.",
    "Extensions held at 5 % of one core on Windows, ± 1 point: there is no extension service for Windows yet.",
    "One remote command for each converged host: a count, shown by `tests/integration/test_collection_hosts.py`.",
)


@dataclass(frozen=True)
class Row:
    """One figure. `bar` is for people; `limit` is the number: at most that, or, if it is negative, at least -limit."""

    what: str
    figure: float
    unit: str
    bar: str
    limit: float | None

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None where there is none."""
        if self.limit is None:
            return None
        return self.figure >= -self.limit if self.limit < 0 else self.figure <= self.limit

    def as_dict(self) -> dict[str, Any]:
        """For the JSON file."""
        return {"what": self.what, "figure": self.figure, "unit": self.unit, "bar": self.bar, "met": self.met}


@dataclass(frozen=True)
class Part:
    """What was measured together, until `taken` (ISO 8601). `problem`: why there are no rows, or empty."""

    name: str
    taken: str
    seconds: int
    rows: list[Row]
    problem: str = ""

    @property
    def met(self) -> bool:
        """Whether it could be measured and no bar was missed."""
        return not self.problem and all(row.met is not False for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """For the JSON file."""
        rows = [row.as_dict() for row in self.rows]
        return {
            "name": self.name,
            "taken": self.taken,
            "seconds": self.seconds,
            "rows": rows,
            "problem": self.problem,
        }


def completed(found: Mapping[str, Any], former: Mapping[str, Any] | None, order: Sequence[str]) -> dict[str, Any]:
    """A run of some parts, the others as a `former` run found them, each with its machine. `order`: of all parts."""
    parts = {part["name"]: {**part, "machine": found["machine"]} for part in found["parts"]}
    if former is not None:
        parts = {part["name"]: {"machine": former["machine"], **part} for part in former["parts"]} | parts
    return {
        "machine": found["machine"],
        "parts": [parts[name] for name in order if name in parts],
        "left_out": [name for name in order if name not in parts],
    }


def _number(figure: float) -> str:
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.3g}"


def _machine(on: Mapping[str, Any]) -> str:
    return (
        f"{on['cpu']}, {on['cores']} cores, {on['memory_gib']} GiB, {on['system']}, Linux {on['kernel']}, Python "
        f"{on['python']}"
    )


def _table(part: Mapping[str, Any], *, with_machine: bool) -> list[str]:
    words = {True: "met", False: "**missed**", None: ""}
    title, note = TITLES[part["name"]]
    lines = ["", f"## {title}", "", note, ""]
    if part["problem"]:
        return [*lines, f"Could not be measured: {part['problem']}"]
    lines += ["| What | Figure | Bar | |", "|---|---|---|---|"]
    lines += [
        f"| {row['what']} | {_number(row['figure'])} {row['unit']} | {row['bar']} | {words[row['met']]} |".replace(
            "  ", " "
        )
        for row in part["rows"]
    ]
    commit = f", of commit {part['commit']}" if part.get("commit") else ""
    where = f", on {_machine(part['machine'])}" if with_machine else ""
    return [*lines, "", f"Taken in {part['seconds']} s, until {part['taken']}{commit}{where}."]


def not_reached(found: Mapping[str, Any]) -> list[str]:
    """One line for each bar that was missed and each part that is not there."""
    lines = [
        f"{row['what']}: {_number(row['figure'])} {row['unit']}, the bar is {row['bar']}"
        for part in found["parts"]
        for row in part["rows"]
        if row["met"] is False
    ]
    lines += [f"{TITLES[part['name']][0]}: could not be measured" for part in found["parts"] if part["problem"]]
    return lines + [f"{TITLES[name][0]}: not measured" for name in found["left_out"]]


def _long(found: Mapping[str, Any]) -> list[str]:
    """What `make bench-long` is, and which figures of the page are of it."""
    taken = [TITLES[part["name"]][0] for part in found["parts"] if part.get("long")]
    lines = [
        "`make bench-long` (two hours and a half) measures the same for longer: idle services for an hour in place of",
        "ten minutes, check-ins for ten minutes in place of half a minute, and every machine of the database calling.",
    ]
    if taken:
        return [*lines, f"Of such a run are: {', '.join(taken)}."]
    return [*lines, "**No figures of such a run are published**: everything on this page is of `make bench`."]


def document(found: Mapping[str, Any]) -> str:
    """The page of `machine`, `parts`, `left_out` as benchmarks/run.py writes them."""
    missed = not_reached(found)
    several = any(part["machine"] != found["machine"] for part in found["parts"])
    where = (
        "Each part names the machine that it was taken on." if several else f"Taken on {_machine(found['machine'])}."
    )
    lines = [
        "<!-- SPDX-License-Identifier: Apache-2.0 -->",
        "# Measured figures",
        "",
        "Written by `make bench`; the numbers as JSON are in `benchmarks/results/latest.json`. A hub, its hosts,",
        "simulated machines and the controller share the machine. Bars are those of the project's own design.",
        "",
        *_long(found),
        "",
        where,
        "",
        "## Not reached",
        "",
        *([f"- {line}" for line in missed] or ["Every bar was met."]),
        "",
        "## Not measured here",
        "",
        *(f"- {line}" for line in NOT_MEASURED),
    ]
    for part in found["parts"]:
        lines += _table(part, with_machine=several)
    return "\n".join(lines) + "\n"
