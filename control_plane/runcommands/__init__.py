# SPDX-License-Identifier: Apache-2.0
"""Run commands of machines: scripts that callers of ARM have run, and how they went."""
