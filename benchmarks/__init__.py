# SPDX-License-Identifier: Apache-2.0
"""Measured figures: `make bench` (about a quarter of an hour), `make bench-long` (an hour and a half)."""
