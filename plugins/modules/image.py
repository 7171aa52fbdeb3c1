# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of hawser.machine.image; the work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image
short_description: Seal a host as an image that can be copied, unseal it, or give a copy a name of its own
version_added: 0.1.0
description:
  - Makes a host safe to copy. Its keys, its binding and what it has of the hub are cleared; every machine made from the
    image gets an identity of its own.
  - The last step before an image is taken. The host must not be connected, unless O(force=true).
  - A sealed host costs one remote command and stays as it is.
author:
  - The hawser project (@hawser)
options:
  state:
    description:
      - V(sealed) seals the host. V(unsealed) makes the builder usable again, so that the image can be changed.
      - V(specialised) is for copies. One that is sealed is unsealed and joins the hub by the enrolment profile of its
        image; a clone whose identity is held takes up the name that the hub offers it. What is connected is left alone.
    type: str
    choices: [sealed, unsealed, specialised]
    default: sealed
  image_id:
    description: Name of the image, kept by every machine made from it. Needed with O(state=sealed).
    type: str
  enroll_on_first_boot:
    description: Name of the hub's enrolment profile by which copies join the hub by themselves at their first boot.
    type: str
  enrolment_token:
    description:
      - The enrolment token for O(enroll_on_first_boot), made with C(hawser-hub profiles token).
      - It lies in the image, readable by root of every copy, until the copy is connected.
      - Needed only when the host is sealed by this task.
    type: str
  cloud:
    description: Name of the cloud profile for O(enroll_on_first_boot). By default the only one that the host has.
    type: str
  is_copy:
    description:
      - With O(state=specialised), says that a sealed host is a copy where its platform gives no evidence of that.
      - Never true for the image's builder, which would become one of the machines and spend one use of the token.
    type: bool
    default: false
  force:
    description: Drop the identity of a connected host. The machine at the hub stays and has to be deleted there.
    type: bool
    default: false
  keep_logs:
    description: Leave the agent's logs in the image.
    type: bool
    default: false
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
    platforms: linux
  async:
    support: none
seealso:
  - module: hawser.machine.machine
  - module: hawser.machine.config
"""

EXAMPLES = r"""
- name: Seal the image
  hawser.machine.image:
    image_id: web-2026-11
  become: true

- name: Seal an image whose copies join by themselves
  hawser.machine.image:
    image_id: web-2026-11
    enroll_on_first_boot: web
    enrolment_token: "{{ lookup('ansible.builtin.file', 'web.token') }}"
  become: true

- name: Let a copy join now
  hawser.machine.image:
    state: specialised
  become: true

- name: Change the image again
  hawser.machine.image:
    state: unsealed
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
      sample: image.state
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
  sample: [{name: seal, seconds: 0.4}]
error:
  description: Code, message and remedy of what went wrong.
  type: dict
  returned: on failure
  sample: {code: AZCM0027, message: This machine is connected, remedy: Disconnect it first}
"""
