# SPDX-License-Identifier: Apache-2.0
"""What the operator's commands do, on the data directory; a hub may be running on it at the same time."""
