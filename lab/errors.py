# SPDX-License-Identifier: Apache-2.0
"""What can go wrong in the lab: one error, always with a remedy."""

from __future__ import annotations


class LabError(Exception):
    """A sentence that says what happened and one that says what to do about it."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}"
