# SPDX-License-Identifier: Apache-2.0
"""When the tag `bench` of this machine has a value, by the local metadata endpoint; asked fifty times a second.

Runs on the managed host, needs the standard library only, and prints one JSON object: ``{"seen": Unix seconds}``.
The hosts of the laboratory share the clock of the machine that they run on.
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.request

URL = "http://127.0.0.1:40342/metadata/instance?api-version=2020-06-01"
MOST_SECONDS = 60


def tag() -> str | None:
    request = urllib.request.Request(URL, headers={"Metadata": "true"})
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        rows = json.load(answer)["compute"]["tagsList"]
    return next((row["value"] for row in rows if row["name"] == "bench"), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--value", required=True)
    wanted = parser.parse_args().value
    ends = time.monotonic() + MOST_SECONDS
    while time.monotonic() < ends:
        if tag() == wanted:
            print(json.dumps({"seen": time.time()}))
            return
        time.sleep(0.02)
    raise SystemExit(f"the tag did not become {wanted} within {MOST_SECONDS} s")


if __name__ == "__main__":
    main()
