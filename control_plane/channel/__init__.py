# SPDX-License-Identifier: Apache-2.0
"""What agents call: enrol, check in, fetch desired state, report, get tokens, renew (docs/protocol.md section 6)."""
