# SPDX-License-Identifier: Apache-2.0
"""Real systemd hosts on one machine, for the tests and the demo. See docs/lab.md."""

from lab.errors import LabError
from lab.fleet import Lab
from lab.host import Completed, Host, HostSpec
from lab.ledger import Ledger, destroy

__all__ = ["Completed", "Host", "HostSpec", "Lab", "LabError", "Ledger", "destroy"]
