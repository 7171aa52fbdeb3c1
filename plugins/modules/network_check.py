# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of hawser.machine.network_check; the work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: network_check
short_description: Check whether a host reaches the hub
version_added: 0.1.0
description:
  - Runs C(azcmagent check --json) on the host, which asks every endpoint of the cloud profile over verified TLS,
    through the proxy if one is set.
  - Changes nothing, and needs root only where the profile can be read by root alone.
author:
  - The hawser project (@hawser)
options:
  cloud:
    description: Name of a cloud profile that the host has. By default the connected one, else the only one.
    type: str
  location:
    description: The location to check. By default the connected one.
    type: str
  fail_on_unreachable:
    description: Whether the task fails if an endpoint that is required does not answer.
    type: bool
    default: true
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
notes:
  - A host without the agent, and one without a cloud profile, fail the task whatever O(fail_on_unreachable) says, as
    nothing was checked.
seealso:
  - module: hawser.machine.wait_ready
"""

EXAMPLES = r"""
- name: Fail early where the hub cannot be reached
  hawser.machine.network_check:

- name: Look, and go on
  hawser.machine.network_check:
    cloud: main
    fail_on_unreachable: false
  register: network

- name: Say what does not answer
  ansible.builtin.debug:
    msg: "{{ network.endpoints | rejectattr('reachable') | map(attribute='endpoint') | list }}"
  when: not network.reachable
"""

RETURN = r"""
reachable:
  description: Whether every endpoint that is required answers.
  type: bool
  returned: when the endpoints were asked
cloud:
  description: The cloud profile whose endpoints were asked.
  type: str
  returned: when the endpoints were asked
  sample: main
endpoints:
  description: One entry for each endpoint.
  type: list
  elements: dict
  returned: when the endpoints were asked
  contains:
    endpoint:
      description: Its address.
      type: str
      sample: https://hub.example.org:8443
    use_case:
      description: What needs it.
      type: str
      sample: core
    required:
      description: Whether the agent cannot do without it.
      type: bool
    reachable:
      description: Whether it answered over verified TLS.
      type: bool
    private:
      description: Whether its address is a private one, or V(null) if that is not known (no address, or a proxy).
      type: bool
    tls:
      description: The version of TLS.
      type: str
      sample: TLSv1.3
    proxy:
      description: Whether a proxy is V(set), V(bypassed) or V(not set).
      type: str
    latency_ms:
      description: Milliseconds until the answer, name service and TLS included; V(null) without an answer, and from
        agents that do not measure it.
      type: int
    reason:
      description: Why it did not answer, or V(null).
      type: str
error:
  description: Code, message and remedy of what is wrong.
  type: dict
  returned: when an endpoint that is required does not answer
  sample: {code: AZCM0026, message: The connection was refused, remedy: Correct the firewall}
"""
