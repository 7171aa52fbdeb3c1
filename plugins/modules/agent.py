# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of hawser.machine.agent; the work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: agent
short_description: Compare the installed agent with the version that is wanted
version_added: 0.1.0
description:
  - Says whether the agent has to be installed or upgraded. It never installs anything; the role
    P(hawser.machine.agent#role) does.
author:
  - The hawser project (@hawser)
options:
  version:
    description: The version that is wanted. Without it, any version is right.
    type: str
extends_documentation_fragment:
  - hawser.machine._attributes
  - hawser.machine._attributes.host
attributes:
  check_mode:
    support: full
    details: In check mode it says changed if the agent has to be installed or upgraded; otherwise it never does, as it
      changes nothing itself.
  diff_mode:
    support: full
  idempotent:
    support: full
  platform:
    support: full
    platforms: linux, windows
  async:
    support: none
seealso:
  - module: hawser.machine.machine
"""

EXAMPLES = r"""
- name: Find hosts that have another agent
  hawser.machine.agent:
    version: 1.0.0.1
  become: true
  register: agent

- name: Name them
  ansible.builtin.debug:
    msg: "{{ agent.reasons }}"
  when: agent.install_required or agent.upgrade_required
"""

RETURN = r"""
install_required:
  description: Whether the agent is not installed.
  type: bool
  returned: always
upgrade_required:
  description: Whether the agent has another version than O(version).
  type: bool
  returned: always
agent_version:
  description: The installed version, or V(null).
  type: str
  returned: always
  sample: 1.0.0.1
reasons:
  description: What differed from the description.
  type: list
  elements: dict
  returned: always
  contains:
    path:
      description: The key that differs.
      type: str
      sample: connection.name
    expected:
      description: What is described.
      type: raw
    actual:
      description: What was found.
      type: raw
error:
  description: Code, message and remedy of what went wrong.
  type: dict
  returned: on failure
  sample: {code: AZCM0020, message: There is no location nowhere, remedy: Use one of local}
"""
