# SPDX-License-Identifier: Apache-2.0
"""Figures as rows, and docs/benchmarks.md out of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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


def _number(figure: float) -> str:
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.3g}"


def document(found: Mapping[str, Any]) -> str:
    """The page of a run: `taken`, `machine`, `rows` as benchmarks/run.py writes them."""
    on = found["machine"]
    words = {True: "met", False: "**missed**", None: ""}
    lines = [
        "<!-- SPDX-License-Identifier: Apache-2.0 -->",
        "# Measured figures",
        "",
        "Written by `make bench`; the numbers as JSON are in `benchmarks/results/latest.json`. A hub, its hosts and",
        "the controller share the machine; hosts are systemd-nspawn containers with the Python of their distribution.",
        "",
        f"Taken {found['taken']} on {on['cpu']}, {on['cores']} cores, {on['memory_gib']} GiB, {on['system']},",
        f"Linux {on['kernel']}, Python {on['python']}.",
        "",
        "| What | Figure | Bar | |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['what']} | {_number(row['figure'])} {row['unit']} | {row['bar']} | {words[row['met']]} |"
        for row in found["rows"]
    ]
    return "\n".join(lines) + "\n"
