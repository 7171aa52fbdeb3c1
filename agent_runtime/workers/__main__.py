# SPDX-License-Identifier: Apache-2.0
"""A worker: `python3 -I …/agent_runtime/workers/__main__.py VERB`, JSON in, one JSON object out. See
service/worker.py."""

from __future__ import annotations

import importlib
import json
import os
import sys

LIBRARY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, LIBRARY)
sys.path.insert(1, os.path.join(LIBRARY, "vendor"))

from agent_runtime import errors  # noqa: E402 - the path comes first: an isolated interpreter does not know it

# A verb imports only what it needs: resolving a name must not load cryptography.
VERBS = {
    "make-key": ("keys", "make_key"),
    "sign-assertion": ("keys", "sign_assertion"),
    "describe-certificate": ("keys", "describe_certificate"),
    "own-certificates": ("keys", "own_certificates"),
    "verify-document": ("documents", "verify_for_worker"),
    "resolve": ("names", "resolve"),
    "fetch-package": ("packages", "fetch_package"),
    "find-agent": ("packages", "find_agent"),
    "begin-upgrade": ("upgrades", "begin_upgrade"),
    "resume-upgrade": ("upgrades", "resume_upgrade"),
    "open-envelope": ("scripts", "open_envelope"),
    "fetch-script": ("scripts", "fetch_script"),
    "unpack-package": ("unpacking", "unpack_package"),
}


def main() -> int:
    """Exit code 0 with an answer, also when the answer is an error."""
    try:
        module, function = VERBS[sys.argv[1]]
        verb = getattr(importlib.import_module(f"agent_runtime.workers.{module}"), function)
        answer = verb(json.load(sys.stdin))
    except errors.AgentError as error:
        answer = {"error": error.as_dict()}
    except OSError as error:
        answer = {"error": errors.InternalError(f"{error.filename or 'a file'}: {error.strerror}").as_dict()}
    try:
        json.dump(answer, sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(1)  # the program that asked has ended: nobody reads this, nor a traceback
    return 0


if __name__ == "__main__":
    sys.exit(main())
