# SPDX-License-Identifier: Apache-2.0
"""Hypothesis without deadlines: other work on the machine must not fail a test."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("hub", deadline=None, derandomize=False, print_blob=True)
settings.load_profile("hub")
