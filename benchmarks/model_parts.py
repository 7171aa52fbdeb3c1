# SPDX-License-Identifier: Apache-2.0
"""Parts of `make bench` that measure decisions in the simulated world (tests/models), not time."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.report import Row
from control_plane.channel.verdict import SILENCE
from tests.models import agent_life, forks, power_loss, world

_SEED = 20_261_123
_DIFFERS = {
    "strong": "differs strongly",
    "weak": "differs in cards and disk alone",
    "perfect": "does not differ",
}


@dataclass(frozen=True)
class Scale:
    """`days`: machine-days of normal life; `forks`: copied machines; `losses`: of power, in each step of the agent."""

    days: int
    forks: int
    losses: int


SMALL, WHOLE = Scale(5_000, 500, 20), Scale(1_000_000, 50_000, 2_000)


def twins(scale: Scale) -> list[Row]:
    """False accusations in normal life; missed forks, wronged originals, times of forks."""
    life = world.normal_life(world.REAL, scale.days, _SEED)
    told = forks.forks(world.REAL, scale.forks, _SEED)
    what = f"{told.forks} forks"
    longest = max(life.held_seconds, default=0)
    return [
        Row(
            f"{life.days} machine-days of normal life, {life.events} events: machines accused",
            len(life.accused),
            "",
            "0",
            0,
        ),
        Row("longest that a machine without a twin was held", longest, "s", f"≤ {SILENCE}", SILENCE),
        Row(f"{what}: copies with differing evidence that went on", len(told.missed), "", "0", 0),
        Row(f"{what}: originals of those that lost their identity", len(told.wronged), "", "0", 0),
        *(
            Row(f"copies whose evidence {words}: until {end}, {name}", forks.percentile(times, part), "s", "", None)
            for kind, words in _DIFFERS.items()
            for end, times in (
                ("they are out of use", told.detected[kind]),
                ("the hub has offered them a name or put them into quarantine", told.judged[kind]),
            )
            for name, part in (("p50", 0.5), ("p95", 0.95))
        ),
    ]


def power(scale: Scale) -> list[Row]:
    """Losses of power in the agent's steps, and what the machine is when it has come to rest again."""
    rows = []
    for step in power_loss.STEPS:
        with agent_life.at_speed(), tempfile.TemporaryDirectory(prefix="hawser-bench-") as folder:
            dice = random.Random(f"{_SEED} {step.name}")
            told = power_loss.run(step, f"{folder}/root", scale.losses, dice)
        what = f"{told.crashes} losses of power in {step.name}"
        ends = ", ".join(f"{number} {state}" for state, number in sorted(told.ends.items()))
        rows.append(Row(f"{what} ({ends}): machines with no, two or a broken identity", len(told.faults), "", "0", 0))
    return rows


PARTS: dict[str, Callable[[Scale], list[Row]]] = {"twins": twins, "power": power}
