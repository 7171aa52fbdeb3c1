# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of hawser.machine.machine_info; the work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: machine_info
short_description: Read machines as the hub sees them
version_added: 0.1.0
description:
  - Asks the hub for one machine, for a resource group or for a subscription.
  - Runs on the controller and touches no host; C(delegate_to) is not needed. For a whole group use C(run_once).
author:
  - The hawser project (@hawser)
options:
  name:
    description: Name of the machine, for O(scope=machine). By default the name of the host in the inventory.
    type: str
  scope:
    description: How much to read.
    type: str
    choices: [machine, resource_group, subscription]
    default: machine
  cloud_profile:
    description: The profile of the hub, a dictionary or the path of a JSON file on the controller; it gives addresses,
      tenant and CA.
    type: raw
extends_documentation_fragment:
  - hawser.machine._hub
  - hawser.machine._hub.place
  - hawser.machine._attributes
  - hawser.machine._attributes.group
attributes:
  check_mode:
    support: full
    details: It reads only.
  diff_mode:
    support: none
  idempotent:
    support: full
  platform:
    support: full
    platforms: all
  async:
    support: none
seealso:
  - module: hawser.machine.agent_info
"""

EXAMPLES = r"""
- name: Read this host's machine
  hawser.machine.machine_info:
    resource_group: servers
  register: mine

- name: Read the fleet once
  hawser.machine.machine_info:
    scope: subscription
  run_once: true
  register: fleet

- name: Show who is connected
  ansible.builtin.debug:
    msg: "{{ fleet.machines | selectattr('properties.status', 'eq', 'Connected') | map(attribute='name') }}"
  run_once: true
"""

RETURN = r"""
machines:
  description: The machines as ARM shows them. Empty if there is none.
  type: list
  elements: dict
  returned: success
  contains:
    id:
      description: Resource id.
      type: str
    name:
      description: Name.
      type: str
    location:
      description: Location.
      type: str
    tags:
      description: Tags.
      type: dict
    properties:
      description: Status, versions, operating system, profiles.
      type: dict
"""
