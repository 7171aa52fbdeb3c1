# SPDX-License-Identifier: Apache-2.0
"""`make demo`: a hub and real hosts on this machine, the agent rolled out to them by the collection."""
