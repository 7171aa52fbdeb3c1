# SPDX-License-Identifier: Apache-2.0
"""The TUF repository that packages are delivered by (docs/protocol.md section 15.3)."""
