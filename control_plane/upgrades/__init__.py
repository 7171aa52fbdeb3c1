# SPDX-License-Identifier: Apache-2.0
"""Upgrades of the agent itself, as the hub sees them (docs/protocol.md section 15.6)."""
