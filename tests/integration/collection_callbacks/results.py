# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes every task result as a line of JSON to the file HAWSER_TEST_RESULTS; ansible-core loads it, so GPL."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: results
type: aggregate
short_description: Task results as lines of JSON
description: For the tests of this repository.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """What the tests read; the text for people stays the stdout callback's business."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "results"

    def _write(self, result: Any) -> None:
        line = {
            "host": result.host.get_name(),
            "action": result.task.action,
            "task": result.task.get_name(),
            **result.result,
        }
        with open(os.environ["HAWSER_TEST_RESULTS"], "a", encoding="utf-8") as file:
            file.write(json.dumps(line, default=str) + "\n")

    def v2_runner_on_ok(self, result: Any) -> None:
        """A task that went well."""
        self._write(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: ARG002
        """A task that failed."""
        self._write(result)
