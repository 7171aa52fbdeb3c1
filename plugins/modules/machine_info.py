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
  statuses:
    description: Machines of these statuses alone, for the scopes that are no single machine.
    type: list
    elements: str
    choices: [AwaitingConnection, Connected, Disconnected, Expired]
  os_types:
    description: Machines of these operating systems alone.
    type: list
    elements: str
    choices: [linux, windows]
  locations:
    description: Machines at these locations alone.
    type: list
    elements: str
  agent_versions:
    description: Machines with these versions of the agent alone.
    type: list
    elements: str
  tags:
    description: Machines alone that have all of these tags; V(null) stands for any value.
    type: dict
  search:
    description: Machines alone that have this text in their name, computer name or tags.
    type: str
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
notes:
  - The hub filters. O(scope=machine) takes no filter.
seealso:
  - module: hawser.machine.agent_info
  - plugin: hawser.machine.machines
    plugin_type: inventory
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

- name: Show whose agent is out of support
  ansible.builtin.debug:
    msg: "{{ fleet.machines | selectattr('fleet.support.state', 'defined') |
      rejectattr('fleet.support.state', 'eq', 'supported') | map(attribute='name') | list }}"
  run_once: true

- name: Read the production machines that are silent
  hawser.machine.machine_info:
    scope: subscription
    statuses: [Disconnected, Expired]
    tags:
      env: production
  run_once: true
  register: silent
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
    fleet:
      description: The same machine in the hub's fleet query, which knows what ARM has no member for, among it
        C(lastHeartbeat), C(address), C(addresses) and C(support), the support of its agent's version. Members that a
        newer hub adds are here too. V(null) if the machine was made or deleted meanwhile.
      type: dict
"""
