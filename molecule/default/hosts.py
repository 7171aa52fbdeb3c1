# SPDX-License-Identifier: Apache-2.0
"""Boots and removes the hosts: `hosts.py up DIRECTORY NAME…` prints addresses as JSON, `hosts.py down DIRECTORY`."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lab import Lab, destroy  # noqa: E402 - the checkout is not installed


def name_of(directory: Path) -> str:
    """The lab's name, one for each directory: a run that was cut off stands in nobody's way."""
    return "m" + hashlib.sha256(str(directory).encode()).hexdigest()[:7]


def up(directory: Path, names: list[str]) -> None:
    """Boot the hosts; a lab that is there already is taken as it is."""
    cache = ROOT / ".cache/lab"
    if (directory / "lab.json").exists():
        lab = Lab.attach(directory, cache=cache)
    else:
        directory.mkdir(parents=True, exist_ok=True)
        lab = Lab(directory, name=name_of(directory), hosts=names, cache=cache)
        lab.start()
        lab.save()
    addresses = {name: str(host.address) for name, host in lab.hosts.items()}
    sys.stdout.write(json.dumps({"addresses": addresses, "private_key": str(lab.private_key)}))


def down(directory: Path) -> None:
    """Remove what the lab's ledger names."""
    if (directory / "ledger.jsonl").exists():
        destroy(directory / "ledger.jsonl", lambda _line: None)


if __name__ == "__main__":
    action, place, *rest = sys.argv[1:]
    if action == "up":
        up(Path(place), rest)
    else:
        down(Path(place))
