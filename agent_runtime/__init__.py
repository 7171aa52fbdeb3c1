# SPDX-License-Identifier: Apache-2.0
"""The agent: azcmagent, himds, gcad, extd and their workers."""
