# SPDX-License-Identifier: Apache-2.0
"""`/hawser/v1`: what is ours and not ARM; same tokens, error envelope and paging."""
