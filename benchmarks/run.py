# SPDX-License-Identifier: Apache-2.0
"""Measures, part by part, and writes benchmarks/results/ and docs/benchmarks.md.

    python -m benchmarks.run [--long] [--parts checkins held …] [--hosts 40] [--idle-seconds 600] [--small] [--dry]

What was measured is written part by part, the bars beside the figures; parts that were left out keep what an earlier
run found, with its time and machine, or are named as missing. `--small` and `--dry` are for trying the program: small
numbers, and nothing written.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks import extension_host_parts, extension_parts, herd_parts, host_parts, hub_parts, model_parts
from benchmarks.report import Part, Row, completed, document
from lab import LabError
from lab.demo.layout import ROOT, Layout
from lab.demo.start import Steps, stop

LATEST = Path(__file__).resolve().parent / "results" / "latest.json"
HOST_PARTS = {**host_parts.PARTS, **extension_host_parts.PARTS}
NAMES = (*hub_parts.PARTS, *extension_parts.PARTS, *herd_parts.PARTS, *model_parts.PARTS, *HOST_PARTS)


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    cpu = next(line for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if "model name" in line)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    release = platform.freedesktop_os_release()
    return {
        "cpu": cpu.partition(":")[2].strip(),
        "cores": os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1),
        "kernel": platform.release(),
        "system": release.get("PRETTY_NAME", ""),
        "python": platform.python_version(),
    }


def commit() -> str:
    """What is measured: `1a2b3c4`, with `-dirty` behind it when something was changed since; empty outside of git."""
    git = ("git", "-C", str(ROOT))
    # Its own results change with each part.
    changes = ("status", "--porcelain", "--", ".", ":!benchmarks/results", ":!docs/benchmarks.md")
    try:
        name, changed = (
            subprocess.run((*git, *words), capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "--short", "HEAD"), changes)
        )
        return f"{name}-dirty" if changed else name
    except (OSError, subprocess.CalledProcessError):
        return ""


def measured(name: str, work: Callable[[], list[Row]], report: Callable[[str], None]) -> Part:
    """One part; what went wrong in it is its result then, and the others go on."""
    report(f"measuring: {name}")
    begun = time.monotonic()
    try:
        rows, problem = work(), ""
    except Exception as error:  # noqa: BLE001 - a part that fails must not cost the others
        print(f"bench: {name}: {type(error).__name__}: {error}", file=sys.stderr)
        rows, problem = [], f"{type(error).__name__}: {error}".splitlines()[0]
    return Part(name, _now(), round(time.monotonic() - begun), rows, problem)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _former() -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(LATEST.read_bytes())
    except FileNotFoundError:
        return None
    return found


def alone(
    parts: Mapping[str, Callable[[Any], list[Row]]], names: list[str], scale: Any, report: Callable[[str], None]
) -> Iterator[Part]:
    """Those of `parts` that are named, which need nothing but a scale: hubs of their own, or simulated time."""
    for name, work in _chosen(parts, names):
        yield measured(name, partial(work, scale), report)


def on_hosts(names: list[str], hosts: int, seconds: float, report: Callable[[str], None]) -> Iterator[Part]:
    """The parts with real hosts, which are made for them and removed."""
    chosen = _chosen(HOST_PARTS, names)
    if not chosen:
        return
    layout = Layout(top=ROOT / ".cache" / "bench", name="bench")
    try:
        site = host_parts.begin(layout, hosts, seconds, report)
        for name, work in chosen:
            yield measured(name, partial(work, site), report)
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        for name, _ in chosen:
            yield Part(name, _now(), 0, [], str(error))
    finally:
        stop(layout, report)


def _chosen(parts: Mapping[str, Any], names: list[str]) -> list[tuple[str, Any]]:
    return [(name, work) for name, work in parts.items() if name in names]


def main() -> int:
    """Command line; 1 when a bar is missed or something could not be measured."""
    parser = argparse.ArgumentParser(prog="benchmarks.run", description="Measure, and write the figures down.")
    parser.add_argument("--long", action="store_true", help="idle services for an hour, all records calling")
    parser.add_argument("--small", action="store_true", help="small numbers, to see that the program works")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    parser.add_argument("--parts", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--hosts", type=int)
    parser.add_argument("--idle-seconds", type=float)
    options = parser.parse_args()
    scale = hub_parts.SMALL if options.small else hub_parts.LONG if options.long else hub_parts.MODERATE
    hosts = options.hosts or (3 if options.small else 40)
    seconds = options.idle_seconds or (10.0 if options.small else 3600.0 if options.long else 600.0)
    report = Steps()
    life = model_parts.SMALL if options.small else model_parts.WHOLE
    herds = herd_parts.SMALL if options.small else herd_parts.LONG if options.long else herd_parts.WHOLE
    extensions = extension_parts.SMALL if options.small else extension_parts.WHOLE
    run = chain(
        alone(hub_parts.PARTS, options.parts, scale, report),
        alone(extension_parts.PARTS, options.parts, extensions, report),
        alone(herd_parts.PARTS, options.parts, herds, report),
        alone(model_parts.PARTS, options.parts, life, report),
        on_hosts(options.parts, hosts, seconds, report),
    )
    here, former, parts = machine(), None if options.dry else _former(), list[Part]()
    common = {"long": options.long, "commit": commit()}  # before the results, which are files of the repository
    text = ""
    for part in run:
        parts.append(part)
        told = {"machine": here, "parts": [{**part.as_dict(), **common} for part in parts]}
        found = completed(told, former, NAMES)
        text = document(found)
        if not options.dry:  # after each, so that a run that is ended early leaves what it has found
            LATEST.parent.mkdir(exist_ok=True)
            LATEST.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
            (ROOT / "docs" / "benchmarks.md").write_text(text, encoding="utf-8")
    print(text)
    return 0 if all(part.met for part in parts) else 1


if __name__ == "__main__":
    sys.exit(main())
