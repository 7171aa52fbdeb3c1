# SPDX-License-Identifier: GPL-3.0-or-later
"""Attributes of modules, in one wording."""

from __future__ import annotations


class ModuleDocFragment:
    """What every module is asked about; each module gives its own `support`."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Says what it would change without changing it.
  diff_mode:
    description: Shows what differs, before and after.
  idempotent:
    description: Run again with the same options, it changes nothing.
  platform:
    description: Operating systems of the hosts that it works on.
  async:
    description: Works with C(async).
"""

    GROUP = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/hawser.machine.machine) in C(module_defaults) to set the options of the hub for all these
      modules.
    support: full
    membership:
      - hawser.machine.machine
"""

    HOST = r"""
options: {}
notes:
  - One remote command does the work. The desired state goes to C(azcmagent apply -) on standard input, in check mode
    to C(azcmagent plan -).
    Nothing is copied to the host, and it needs no Python.
  - The commands need root; use C(become) on POSIX hosts. On Windows connect as an administrator; C(become) is refused
    there.
  - Where standard input cannot be carried (become method C(su), connection C(paramiko_ssh)) the desired state travels
    as a file
    that only its owner can read and that is removed afterwards.
  - The variable C(hawser_program) of a host names another path of azcmagent than the one its packages install.
"""
