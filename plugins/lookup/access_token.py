# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lookup of tokens for the controller's service principal."""

# Documentation stands first for ansible-test.
# ruff: noqa: E402

from __future__ import annotations

DOCUMENTATION = r"""
name: access_token
short_description: A token for the controller's service principal
version_added: 0.1.0
description:
  - Gets a token from the hub's authority by client credentials, on the controller, and returns its text.
  - Within one run of Ansible the same token is returned until two minutes before its end, to all hosts and forks.
  - Neither the lookup nor its errors show the token or the secret. What a task does with it is another matter; put
    C(no_log=true) on a task that has it among its arguments.
author:
  - The hawser project (@hawser)
options:
  _terms:
    description: The audiences that tokens are for. By default one token for the hub's ARM endpoint.
    type: list
    elements: str
  cloud_profile:
    description: The profile of the hub, a dictionary or the path of a JSON file on the controller (relative to the
      play); it gives addresses, tenant and CA.
    type: raw
extends_documentation_fragment:
  - hawser.machine._hub
seealso:
  - module: hawser.machine.access_token
"""

EXAMPLES = r"""
- name: Ask ARM for the subscriptions
  ansible.builtin.uri:
    url: "{{ lookup('ansible.builtin.env', 'HAWSER_ARM') }}/subscriptions?api-version=2022-12-01"
    ca_path: "{{ lookup('ansible.builtin.env', 'HAWSER_CA_FILE') }}"
    headers:
      Authorization: "Bearer {{ lookup('hawser.machine.access_token') }}"
  delegate_to: localhost
  run_once: true
  no_log: true

- name: Call an application that trusts the hub
  ansible.builtin.uri:
    url: https://vault.example.org/keys
    headers:
      Authorization: "Bearer {{ lookup('hawser.machine.access_token', 'https://vault.azure.net') }}"
  delegate_to: localhost
  no_log: true
"""

RETURN = r"""
_raw:
  description: One token for each audience.
  type: list
  elements: str
"""

import os
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible_collections.hawser.machine.plugins.plugin_utils import _controller, _settings
from ansible_collections.hawser.machine.plugins.plugin_utils._errors import HawserError


class LookupModule(LookupBase):  # type: ignore[misc]
    """Fetches tokens by client credentials."""

    def run(self, terms: list[Any], variables: Mapping[str, Any] | None = None, **kwargs: Any) -> list[str]:
        """One token for each audience in `terms`, one for ARM without any."""
        self.set_options(var_options=variables, direct=kwargs)
        options = self.get_options()
        try:
            profile = _settings.load_profile(options.pop("cloud_profile"), self._loader.get_basedir())
            found = _settings.resolve(options, os.environ, profile)
            found["access_token"] = None  # one that was got elsewhere says nothing about other audiences
            hub = _controller.open_hub(found, profile)
            return [str(hub.token(str(term) if term else None)["access_token"]) for term in terms or [None]]
        except HawserError as error:
            raise AnsibleError(str(error.as_result()["msg"])) from None
