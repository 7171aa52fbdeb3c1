# SPDX-License-Identifier: Apache-2.0
"""People: passwords, sessions, external sign-in."""
