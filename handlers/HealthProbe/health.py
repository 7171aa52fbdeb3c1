# SPDX-License-Identifier: Apache-2.0
"""When an application counts as healthy. Pure."""

from __future__ import annotations

from dataclasses import dataclass

INITIALIZING, HEALTHY, UNHEALTHY = "Initializing", "Healthy", "Unhealthy"


@dataclass(frozen=True)
class Health:
    """The verdict, and how many probes in a row have said the same (`good`: what they said)."""

    state: str = INITIALIZING
    good: bool = False
    streak: int = 0


def judge(known: Health, good: bool, in_grace: bool, count: int) -> Health:
    """The verdict after one more probe.

    It changes after `count` equal probes in a row. While the application starts (`in_grace`) failures are counted, and
    judged by the first probe after that time; an application that was healthy once has started.
    """
    streak = known.streak + 1 if good == known.good else 1
    state = known.state
    if streak >= count and (good or not in_grace or state == HEALTHY):
        state = HEALTHY if good else UNHEALTHY
    return Health(state, good, streak)
