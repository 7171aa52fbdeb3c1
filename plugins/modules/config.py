# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of hawser.machine.config; the work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config
short_description: Set config properties of the agent on a host
version_added: 0.1.0
description:
  - Describes config properties of the agent, such as proxy, extension lists and modes.
  - They are kept on the host and cannot be changed from the hub.
author:
  - The hawser project (@hawser)
options:
  config:
    description:
      - Properties and their values. Lists may be given as lists.
      - V(null) clears a property; properties that are not named are left alone.
    type: dict
    required: true
  on_missing:
    description:
      - What to do if the agent is not installed (outside of check mode, which always reports).
      - With V(report) the task succeeds and returns RV(install_required).
    type: str
    choices: [fail, report]
    default: fail
extends_documentation_fragment:
  - hawser.machine._attributes
  - hawser.machine._attributes.host
attributes:
  check_mode:
    support: full
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
- name: Forbid one extension and go back to the default mode
  hawser.machine.config:
    config:
      extensions.blocklist: [Example.Publisher/CustomScript]
      config.mode: null
  become: true
"""

RETURN = r"""
install_required:
  description: Whether the agent is not installed.
  type: bool
  returned: always
upgrade_required:
  description: Always V(false); no version is wanted here.
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
before:
  description: The described keys as they were.
  type: dict
  returned: always
after:
  description: The described keys as they are now (in check mode as they would be).
  type: dict
  returned: always
steps:
  description: What was done and how long it took.
  type: list
  elements: dict
  returned: always
  sample: [{name: connect, seconds: 1.9}]
error:
  description: Code, message and remedy of what went wrong.
  type: dict
  returned: on failure
  sample: {code: AZCM0020, message: There is no location nowhere, remedy: Use one of local}
"""
