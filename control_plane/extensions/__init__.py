# SPDX-License-Identifier: Apache-2.0
"""Extensions of machines: what callers of ARM wish, what machines are told, what they report of it."""
