# SPDX-License-Identifier: Apache-2.0
"""Migrations of the schema, run by storage/database.py."""
