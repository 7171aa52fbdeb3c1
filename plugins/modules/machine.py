# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of hawser.machine.machine; the work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: machine
short_description: Bring a host's connection, configuration and tags to a described state
version_added: 0.1.0
description:
  - Describes all of a host in one task and lets C(azcmagent) on the host plan and do what is missing.
  - A host that is connected under another name, group, subscription, location or cloud is disconnected and connected
    anew.
    Tags that differ are repaired without connecting anew.
  - A converged host costs one remote command, and the hub nothing.
  - Where something has to be done at the hub, the controller fetches one ticket that is good for this host alone.
author:
  - The hawser project (@hawser)
options:
  state:
    description:
      - Whether the host shall be connected.
      - V(disconnected) also deletes the machine at the hub.
    type: str
    choices: [connected, disconnected]
    default: connected
  name:
    description: Name of the machine at the hub. By default the name of the host in the inventory.
    type: str
  cloud_profile:
    description:
      - The profile of the hub, a dictionary or the path of a JSON file on the controller (relative to the play).
      - It is written to the host. It is the only root of trust that the agent has.
    type: raw
  cloud:
    description: Name of a cloud profile that the host has already. By default the name in O(cloud_profile).
    type: str
  tags:
    description:
      - All tags of the machine. Tags that are not named here are removed. If the option is absent, tags are left alone.
      - Numbers and booleans are written as texts.
    type: dict
  config:
    description:
      - Config properties of the agent, such as C(proxy.url) or C(extensions.blocklist).
      - V(null) clears a property; properties that are not named are left alone.
    type: dict
  image:
    description:
      - Seals the host as an image, or unseals it. Neither goes with a connection, so use it with O(state=disconnected),
        which lets go of a connected host first.
      - M(hawser.machine.image) does this alone, and gives copies a name of their own.
    type: dict
    suboptions:
      state:
        description: As of M(hawser.machine.image).
        type: str
        choices: [sealed, unsealed]
        default: sealed
      image_id:
        description: Name of the image. Needed with O(image.state=sealed).
        type: str
      enroll_on_first_boot:
        description: Name of the hub's enrolment profile by which copies join the hub by themselves.
        type: str
      enrolment_token:
        description: The enrolment token for O(image.enroll_on_first_boot).
        type: str
      cloud:
        description: Name of the cloud profile for O(image.enroll_on_first_boot). By default the only one.
        type: str
      force:
        description: Drop the identity of a host that stays connected. The machine at the hub stays.
        type: bool
        default: false
      keep_logs:
        description: Leave the agent's logs in the image.
        type: bool
        default: false
  correlation_id:
    description: A GUID that the hub stores with the connection.
    type: str
  force_local_only:
    description:
      - With O(state=disconnected), forget the connection on the host without asking the hub.
      - The machine at the hub stays and has to be deleted there.
    type: bool
    default: false
  agent_version:
    description: Version of the agent that the host should have. The task says so if it has another; it never installs.
    type: str
  on_missing:
    description:
      - What to do if the agent is not installed (outside of check mode, which always reports).
      - With V(report) the task succeeds and returns RV(install_required); it does the same with RV(upgrade_required)
        if another version
        than O(agent_version) refuses the description.
    type: str
    choices: [fail, report]
    default: fail
extends_documentation_fragment:
  - hawser.machine._hub
  - hawser.machine._hub.place
  - hawser.machine._attributes
  - hawser.machine._attributes.group
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
  - module: hawser.machine.connection
  - module: hawser.machine.config
  - module: hawser.machine.image
  - module: hawser.machine.wait_ready
"""

EXAMPLES = r"""
- name: Connect a host and describe all of it
  hawser.machine.machine:
    cloud_profile: profile.json
    resource_group: servers
    location: local
    tags:
      env: demo
    config:
      extensions.enabled: true
      proxy.bypass: [ARM]
  become: true

- name: Let go of a host and make it an image
  hawser.machine.machine:
    state: disconnected
    image:
      image_id: web-2026-11
  become: true

- name: Take a host out of the fleet
  hawser.machine.machine:
    state: disconnected
  become: true
"""

RETURN = r"""
install_required:
  description: Whether the agent is not installed.
  type: bool
  returned: always
upgrade_required:
  description: Whether the agent has another version than O(agent_version).
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
