# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of hawser.machine.agent_info; the work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: agent_info
short_description: Read what the agent on a host says about itself
version_added: 0.1.0
description:
  - Runs C(azcmagent show --json) on the host. It needs no privileges.
  - A host without the agent is no error; it gives RV(installed) false.
author:
  - The hawser project (@hawser)
options: {}
extends_documentation_fragment:
  - hawser.machine._attributes
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
    platforms: linux, windows
  async:
    support: none
seealso:
  - module: hawser.machine.machine_info
"""

EXAMPLES = r"""
- name: Read the state of the agent
  hawser.machine.agent_info:
  register: info

- name: Show it
  ansible.builtin.debug:
    msg: "{{ info.agent.status if info.installed else 'not installed' }}"
"""

RETURN = r"""
installed:
  description: Whether the agent is installed.
  type: bool
  returned: success
agent:
  description: The object that C(azcmagent show --json) prints, or V(null).
  type: dict
  returned: success
  sample: {status: Connected, resourceName: web01, resourceGroup: servers, agentVersion: 1.0.0.1}
"""
