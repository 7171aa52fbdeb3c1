# SPDX-License-Identifier: Apache-2.0
"""Measured figures: `make bench` (about 45 minutes), `make bench-long` (about two hours and a half)."""
