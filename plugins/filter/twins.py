# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter that finds hosts with one identity."""

# Documentation stands first for ansible-test.
# ruff: noqa: E402

from __future__ import annotations

DOCUMENTATION = r"""
name: twins
short_description: Hosts that share an identity, or are held as clones
version_added: 0.1.0
description:
  - Compares what hosts say of themselves, and names those that hold the same identity.
  - The playbook C(hawser.machine.verify_unique) asks the hosts and uses this filter.
author:
  - The hawser project (@hawser)
options:
  _input:
    description:
      - A dictionary with a dictionary for each host.
      - In it, C(agent) is what M(hawser.machine.agent_info) returned under that name, and C(files) the text of
        C(/etc/machine-id), of the public SSH host keys, and a line with C(vmgenid) and the sixteen bytes of the virtual
        machine's generation id, in hexadecimal digits. Any of it may be missing.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Refuse hosts that share an identity
  ansible.builtin.assert:
    that: found | hawser.machine.twins | length == 0
  vars:
    found:
      web01: {agent: "{{ hostvars.web01.looked.agent }}"}
      web02: {agent: "{{ hostvars.web02.looked.agent }}"}
"""

RETURN = r"""
_value:
  description: Groups of hosts, the largest first. Empty when every host is a machine of its own.
  type: list
  elements: dict
  contains:
    hosts:
      description: The hosts of the group.
      type: list
      elements: str
    shares:
      description: What they share. Empty for a host that is held as a clone of a machine that is not among them.
      type: list
      elements: str
    sentence:
      description: The same for people.
      type: str
      sample: web01 and web02 share an identity (certificate and machine at the hub)
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.hawser.machine.plugins.plugin_utils._twins import twins


def _filter(found: Any) -> list[dict[str, Any]]:
    if not isinstance(found, Mapping) or not all(isinstance(facts, Mapping) for facts in found.values()):
        raise AnsibleFilterError("hawser.machine.twins takes a dictionary with a dictionary for each host.")
    return twins(found)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file."""
        return {"twins": _filter}
