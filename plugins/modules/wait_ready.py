# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of hawser.machine.wait_ready; the work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: wait_ready
short_description: Wait until the hub has heard from a machine
version_added: 0.1.0
description:
  - Waits until the hub says that the machine is Connected and its last heartbeat is recent. This is a gate for the end
    of a wave.
  - A hub that cannot be reached, or is busy, is asked again until the time is up.
  - Runs on the controller and touches no host; C(delegate_to) is not needed.
author:
  - The hawser project (@hawser)
options:
  name:
    description: Name of the machine. By default the name of the host in the inventory.
    type: str
  timeout:
    description: Seconds to wait at most.
    type: int
    default: 300
  interval:
    description: Seconds between two looks, at least 1.
    type: int
    default: 5
  heartbeat_age:
    description: Seconds that the last heartbeat may be old, by the hub's clock. A healthy machine sends one every 300
      seconds at least.
    type: int
    default: 330
  agent_version:
    description: Version that the machine must report. Without it, any version is right.
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
    details: Looks once, returns RV(ready) and does not fail, whatever the machine lacks.
  diff_mode:
    support: none
  idempotent:
    support: full
  platform:
    support: full
    platforms: all
  async:
    support: none
"""

EXAMPLES = r"""
- name: Wait until this host's machine is connected
  hawser.machine.wait_ready:
    resource_group: servers
    timeout: 60
"""

RETURN = r"""
ready:
  description: Whether the machine is ready. Always true outside of check mode, as the task fails otherwise.
  type: bool
  returned: success
lacking:
  description: What it lacks, as part of a sentence, or V(null).
  type: str
  returned: success
machine:
  description: Status, last heartbeat, version and address of the machine, or V(null) if the hub does not know it.
  type: dict
  returned: success
  sample: {name: web01, status: Connected, lastHeartbeat: "2026-11-23T10:00:00Z", agentVersion: 1.0.0.1}
waited:
  description: Seconds that it took.
  type: float
  returned: success
"""
