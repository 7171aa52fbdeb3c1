# SPDX-License-Identifier: Apache-2.0
"""python -m lab.demo check|start|stop; the Makefile calls it."""

from __future__ import annotations

import argparse
import os
import sys

from lab.demo.layout import Layout
from lab.demo.start import Steps, alone, check, start, stop
from lab.errors import LabError


def main() -> int:
    """Command line; 0 when it went well."""
    parser = argparse.ArgumentParser(prog="lab.demo", description="A hub and real hosts on this machine.")
    parser.add_argument("verb", choices=("check", "start", "stop"))
    parser.add_argument("--hosts", type=int, default=3)
    parser.add_argument("--port", type=int, default=8443)
    options = parser.parse_args()
    layout = Layout()
    os.umask(0o022)  # what is made for the hosts is read there by others than root; secrets get their modes by name
    try:
        if options.verb == "stop":
            if os.geteuid() != 0:
                raise LabError("Only root may remove what the demo made.", "Run it as root: sudo make demo-stop.")
            with alone(layout):
                stop(layout, Steps())
        elif options.verb == "start":
            with alone(layout):
                start(layout, options.hosts, options.port)
        else:
            problems = check(layout, options.hosts, options.port)
            for problem in problems:
                print(f"demo: {problem.sentence} {problem.remedy}", file=sys.stderr)
            return 1 if problems else 0
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\ndemo: interrupted. Run make demo-stop to remove what was made, or make demo to start over.",
            file=sys.stderr,
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
