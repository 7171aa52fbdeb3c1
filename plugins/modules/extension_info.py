# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of hawser.machine.extension_info; the work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: extension_info
short_description: Read the extensions of a machine
version_added: 0.1.0
description:
  - Asks the hub for one extension of a machine, or for all of them.
  - Runs on the controller and touches no host; C(delegate_to) is not needed.
author:
  - The hawser project (@hawser)
options:
  name:
    description: Name of the extension. Without it, all extensions of the machine.
    type: str
  machine:
    description: Name of the machine. By default the name of the host in the inventory.
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
seealso:
  - module: hawser.machine.extension
"""

EXAMPLES = r"""
- name: Read what is installed on this host's machine
  hawser.machine.extension_info:
    resource_group: servers
  register: installed

- name: Show what failed
  ansible.builtin.debug:
    msg: "{{ installed.extensions | selectattr('properties.provisioningState', 'eq', 'Failed') |
      map(attribute='properties.instanceView.status.message') | list }}"
"""

RETURN = r"""
extensions:
  description: The extensions as ARM shows them, with their instance views. Empty if there is none, or no such machine.
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
      description: Publisher, type, version, public settings, provisioning state and instance view.
      type: dict
"""
