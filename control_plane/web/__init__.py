# SPDX-License-Identifier: Apache-2.0
"""What is ours and not ARM: `/hawser/v1` and health."""
