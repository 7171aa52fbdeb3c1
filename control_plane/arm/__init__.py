# SPDX-License-Identifier: Apache-2.0
"""ARM-compatible REST API (identity-and-arm-api.md section C)."""
