# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of hawser.machine.access_token; the work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: access_token
short_description: Get an access token for the controller's service principal
version_added: 0.1.0
description:
  - Gets a token from the hub's authority by client credentials, on the controller.
  - Tasks with M(hawser.machine.machine) do not need it; they get what they need themselves. It is for calls of your
    own to APIs that trust the hub.
  - The result holds the token, as that is its purpose. Put C(no_log=true) on the task, and on every task that uses the
    registered result;
    Ansible would show it with C(-v) otherwise.
author:
  - The hawser project (@hawser)
options:
  resource:
    description: The audience that the token is for. By default the hub's ARM endpoint.
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
    details: Gets a token in check mode too.
  diff_mode:
    support: none
  idempotent:
    support: full
    details: Within one run of Ansible the same token is returned until two minutes before its end.
  platform:
    support: full
    platforms: all
  async:
    support: none
notes:
  - O(subscription_id), O(resource_group), O(location) and O(access_token) have no effect here; they are accepted for
    the action group's sake.
"""

EXAMPLES = r"""
- name: Get a token for ARM
  hawser.machine.access_token:
  register: token
  run_once: true
  no_log: true

- name: Call an API with it
  ansible.builtin.uri:
    url: "{{ lookup('ansible.builtin.env', 'HAWSER_ARM') }}/subscriptions?api-version=2022-12-01"
    ca_path: "{{ lookup('ansible.builtin.env', 'HAWSER_CA_FILE') }}"
    headers:
      Authorization: "Bearer {{ token.access_token }}"
  delegate_to: localhost
  run_once: true
  no_log: true
"""

RETURN = r"""
access_token:
  description: The token.
  type: str
  returned: success
expires_on:
  description: When it ends, in Unix seconds.
  type: int
  returned: success
token_type:
  description: How it is sent.
  type: str
  returned: success
  sample: Bearer
"""
