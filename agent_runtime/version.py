# SPDX-License-Identifier: Apache-2.0
"""The agent's version: four numbers, as `azcmagent version` prints them and the channel reports them. RELEASED is the
day of this version's release (UTC); both lines change together. Support ends a year after it (support.py)."""

from __future__ import annotations

VERSION = "1.0.0.1"
RELEASED = "2026-11-23"
