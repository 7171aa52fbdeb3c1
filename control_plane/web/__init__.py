# SPDX-License-Identifier: Apache-2.0
"""What people see in a browser, and health."""
