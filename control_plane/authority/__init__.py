# SPDX-License-Identifier: Apache-2.0
"""Token authority: discovery, keys, client credentials (identity-and-arm-api.md section B)."""
