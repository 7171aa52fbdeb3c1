# SPDX-License-Identifier: Apache-2.0
"""The agent's version: four numbers, as `azcmagent version` prints them and the channel reports them."""

from __future__ import annotations

VERSION = "1.0.0.1"
