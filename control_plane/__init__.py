# SPDX-License-Identifier: Apache-2.0
"""The control plane: authority, ARM-compatible API and agent channel behind one HTTPS origin."""
