# SPDX-License-Identifier: Apache-2.0
"""What happens to the fleet as a whole: events, history, who is told of them, what is cleaned up."""
