# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Inventory of the machines that a hub knows."""

# Documentation stands first for ansible-test.
# ruff: noqa: E402

from __future__ import annotations

DOCUMENTATION = r"""
name: machines
short_description: Machines of a hub as hosts
version_added: 0.1.0
description:
  - Lists the machines that the controller's principal may read at the hub, and makes a host of each.
  - The file's name has to end with C(.hawser.yml) or C(.hawser.yaml), or be C(hawser.yml) or C(hawser.yaml).
  - All hosts are in the group C(hawser), on which the playbooks of this collection act; those with a known operating
    system in its children C(hawser_linux) and C(hawser_windows).
  - The list is whole or there is none. If one page cannot be had after the tries of the client (a C(Retry-After) of up
    to a minute is obeyed), the source fails and adds no host. Ansible itself goes on without a source that fails unless
    C(any_unparsed_is_failed) is set in the section C([inventory]) of C(ansible.cfg).
author:
  - The hawser project (@hawser)
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices: [hawser.machine.machines]
  cloud_profile:
    description: The profile of the hub, a dictionary or the path of a JSON file (relative to this file); it gives
      addresses, tenant and CA.
    type: raw
  subscription_id:
    description: List this subscription alone. By default everything that the principal may read. No variable of the
      environment stands for it.
    type: str
  resource_groups:
    description: List these resource groups alone.
    type: list
    elements: str
  statuses:
    description: List machines of these statuses alone.
    type: list
    elements: str
    choices: [AwaitingConnection, Connected, Disconnected, Expired]
  os_types:
    description: List machines of these operating systems alone.
    type: list
    elements: str
    choices: [linux, windows]
  locations:
    description: List machines at these locations alone.
    type: list
    elements: str
  agent_versions:
    description: List machines with these versions of the agent alone.
    type: list
    elements: str
  tags:
    description: List machines alone that have all of these tags; V(null) stands for any value.
    type: dict
  search:
    description: List machines alone that have this text in their name, computer name or tags.
    type: str
  include_host_filters:
    description:
      - Jinja expressions; a machine for which none of them is true is left out. Without any, all machines are in.
      - They see the members of RV(ignore:hawser_machine) by their names, and C(hawser_machine).
      - An expression that fails is an error whatever O(strict) says, as a machine must not be lost unnoticed.
    type: list
    elements: str
    default: []
  exclude_host_filters:
    description: Jinja expressions; a machine for which one of them is true is left out. Errors are errors, as with
      O(include_host_filters).
    type: list
    elements: str
    default: []
  hostnames:
    description:
      - Jinja expressions for the name of the host; the first one that gives a text which is not empty counts, and the
        machine's name if none does.
      - Characters that have a meaning in host patterns or paths become C(_).
      - A name that several machines would have (compared without case), and one that means something else to Ansible
        (C(localhost), C(127.0.0.1), C(all), C(ungrouped)), is given to none of them. Each of them is called
        C(NAME_RESOURCEGROUP), and C(NAME_RESOURCEGROUP_SUBSCRIPTION) if that is not enough, and a warning says so.
    type: list
    elements: str
    default: [name]
  on_clash:
    description: What to do if several machines would have one name, V(qualify) as O(hostnames) says, or V(fail).
    type: str
    choices: [qualify, fail]
    default: qualify
  connection_variables:
    description:
      - Whether to say how hosts are reached.
      - C(ansible_host) becomes the address that the machine's last heartbeat came from, else the first one that it
        reported. Behind a proxy or address translation set it by O(compose), for example to C(addresses | first).
      - The group C(hawser_windows) gets C(ansible_connection), and with V(ssh) also C(ansible_shell_type). Variables in
        your C(group_vars) stand above those of the group, O(compose) stands above C(ansible_host).
    type: bool
    default: true
  windows_connection:
    description: Connection plugin of Windows hosts.
    type: str
    choices: [winrm, psrp, ssh]
    default: winrm
extends_documentation_fragment:
  - hawser.machine._hub
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
notes:
  - Each host has C(hawser_machine), the machine as the hub's fleet query shows it (C(id), C(name), C(resourceGroup),
    C(subscriptionId), C(location), C(tags), C(status), C(lastHeartbeat), C(agentVersion), C(osType), C(osName),
    C(osVersion), C(osSku), C(address), C(addresses), C(vmId), and whatever a newer hub adds), and C(agent_name), the
    machine's name, so that the role P(hawser.machine.agent#role) never renames a machine whose host is called
    otherwise.
  - Expressions in O(compose), O(groups), O(keyed_groups), O(hostnames) and the filters see these members by their
    names.
  - Texts that come from the hub are never templates.
  - Texts of O(client_id), O(client_secret), O(access_token) and the other credentials may be templates.
  - The cache holds the list and no credential. Its key is made of the file, the hub, the principal's id and the
    filters.
seealso:
  - module: hawser.machine.machine_info
"""

EXAMPLES = r"""
# fleet.hawser.yml: everything that the principal may read. HAWSER_CLIENT_ID and HAWSER_CLIENT_SECRET_FILE are set.
plugin: hawser.machine.machines
cloud_profile: profile.json
---
# web.hawser.yml: connected web servers of one subscription, grouped by tag, operating system and location
plugin: hawser.machine.machines
cloud_profile: profile.json
subscription_id: 11111111-2222-3333-4444-555555555555
statuses: [Connected]
tags:
  tier: web
  owner: null
keyed_groups:
  - key: tags.env | default('none')
    prefix: env
  - key: osType
    prefix: os
  - key: location
    prefix: location
groups:
  old_agent: agentVersion is version('1.2', '<')
compose:
  ansible_host: addresses | first
  ansible_user: "'deploy'"
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_timeout: 600
cache_connection: .cache/inventory
---
# named.hawser.yml: names from a tag, and no machines of the laboratory
plugin: hawser.machine.machines
cloud_profile: profile.json
hostnames:
  - tags.fqdn | default('')
  - name
exclude_host_filters:
  - resourceGroup | lower == 'laboratory'
client_secret: "{{ lookup('ansible.builtin.file', '/run/secrets/hawser') }}"
"""

import os
from typing import Any

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible_collections.hawser.machine.plugins.plugin_utils import _controller, _fleet, _inventory, _settings
from ansible_collections.hawser.machine.plugins.plugin_utils._errors import HawserError
from ansible_collections.hawser.machine.plugins.plugin_utils._hub import Hub

FILTERS = (
    "subscription_id",
    "resource_groups",
    "statuses",
    "os_types",
    "locations",
    "agent_versions",
    "tags",
    "search",
)
CREDENTIALS = (
    "arm",
    "authority",
    "tenant_id",
    "client_id",
    "client_secret",
    "client_secret_file",
    "access_token",
    "ca_file",
)
GROUP = "hawser"


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):  # type: ignore[misc]
    """Reads the fleet query of a hub."""

    NAME = "hawser.machine.machines"

    def verify_file(self, path: str) -> bool:
        """Whether the file is meant for this plugin, by its name."""
        name = os.path.basename(path)
        meant = name in {"hawser.yml", "hawser.yaml"} or name.endswith((".hawser.yml", ".hawser.yaml"))
        return meant and bool(super().verify_file(path))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Add the machines to the inventory, all of them or none."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        before = set(inventory.hosts)
        try:
            rows = self._chosen(self._rows(path, cache))
            self._add(rows, self._names(rows))
        except (HawserError, AnsibleError) as error:
            for name in set(inventory.hosts) - before:
                inventory.remove_host(inventory.hosts[name])
            if isinstance(error, HawserError):
                raise AnsibleParserError(str(error.as_result()["msg"])) from None  # a cause would be told once more
            raise

    def _text(self, option: str) -> Any:
        value = self.get_option(option)
        return self.templar.template(value) if isinstance(value, str) else value

    def _hub(self, path: str) -> Hub:
        profile = _settings.load_profile(self._text("cloud_profile"), os.path.dirname(os.path.abspath(path)))
        given = {option: self._text(option) for option in CREDENTIALS}
        return _controller.open_hub(_settings.resolve(given, os.environ, profile), profile)

    def _rows(self, path: str, cache: bool) -> list[dict[str, Any]]:
        """The machines, from the cache if the user wants one and it holds them."""
        query = _fleet.query({option: self.get_option(option) for option in FILTERS})
        hub = self._hub(path)
        if not self.get_option("cache"):
            return _inventory.once(hub.fleet(query))
        asked = [hub.settings.arm, hub.settings.tenant_id, hub.settings.client_id or "", repr(query)]
        key = f"{self.get_cache_key(path)}_{_inventory.cache_suffix(asked)}"
        if cache:
            try:
                cached = _inventory.rows_of(self._cache[key])
            except KeyError:
                cached = None
            if cached is not None:
                return cached
        rows = _inventory.once(hub.fleet(query))
        self._cache[key] = rows
        return rows

    @staticmethod
    def _seen(row: dict[str, Any]) -> dict[str, Any]:
        """What expressions see of a machine."""
        return {**row, "hawser_machine": row}

    def _evaluate(self, expression: str, row: dict[str, Any], what: str) -> Any:
        try:
            return self._compose(expression, self._seen(row))
        except Exception as error:
            raise AnsibleParserError(f"{what} `{expression}` fails for {row['id']}: {error}") from error

    def _holds(self, expression: str, row: dict[str, Any], what: str) -> bool:
        self.templar.available_variables = self._seen(row)
        try:
            return bool(self.templar.evaluate_conditional(expression))
        except Exception as error:
            raise AnsibleParserError(f"{what} `{expression}` fails for {row['id']}: {error}") from error

    def _chosen(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        include, exclude = self.get_option("include_host_filters"), self.get_option("exclude_host_filters")
        return [
            row
            for row in rows
            if (not include or any(self._holds(test, row, "include_host_filters:") for test in include))
            and not any(self._holds(test, row, "exclude_host_filters:") for test in exclude)
        ]

    def _names(self, rows: list[dict[str, Any]]) -> list[str]:
        expressions = self.get_option("hostnames")
        if expressions == ["name"]:  # what most fleets have costs no templates
            wished = [str(row["name"]) for row in rows]
        else:
            wished = [self._wished_name(expressions, row) for row in rows]
        names, shared = _inventory.host_names(wished, rows)
        if shared and self.get_option("on_clash") == "fail":
            raise AnsibleParserError(
                f"Several machines would have one name, or a name that Ansible gives another meaning: "
                f"{', '.join(shared)}. Correct hostnames, or set on_clash to qualify."
            )
        if shared:
            self.display.warning(
                f"These names of hosts are not unique, or mean something else to Ansible; their machines are called "
                f"NAME_RESOURCEGROUP: {', '.join(shared)}"
            )
        return names

    def _wished_name(self, expressions: list[str], row: dict[str, Any]) -> str:
        for expression in expressions:
            found = self._evaluate(expression, row, "hostnames:")
            if found is not None and str(found).strip():
                return str(found)
        return str(row["name"])

    def _add(self, rows: list[dict[str, Any]], names: list[str]) -> None:
        self.inventory.add_group(GROUP)
        for group in (f"{GROUP}_linux", f"{GROUP}_windows"):
            self.inventory.add_group(group)
            self.inventory.add_child(GROUP, group)
        reach = self.get_option("connection_variables")
        if reach:
            windows = self.get_option("windows_connection")
            self.inventory.set_variable(f"{GROUP}_windows", "ansible_connection", windows)
            if windows == "ssh":
                self.inventory.set_variable(f"{GROUP}_windows", "ansible_shell_type", "powershell")
        strict = self.get_option("strict")
        for name, row in zip(names, rows, strict=True):
            system = str(row.get("osType")).lower()
            self.inventory.add_host(name, group=f"{GROUP}_{system}" if system in {"linux", "windows"} else GROUP)
            self.inventory.set_variable(name, "hawser_machine", row)
            self.inventory.set_variable(name, "agent_name", row["name"])
            if reach and row.get("address"):
                self.inventory.set_variable(name, "ansible_host", row["address"])
            seen = self._seen(row)
            self._set_composite_vars(self.get_option("compose"), seen, name, strict=strict)
            self._add_host_to_composed_groups(self.get_option("groups"), seen, name, strict=strict)
            self._add_host_to_keyed_groups(self.get_option("keyed_groups"), seen, name, strict=strict)
