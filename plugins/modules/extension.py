# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of hawser.machine.extension; the work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: extension
short_description: Describe one extension of a machine
version_added: 0.1.0
description:
  - Describes an extension at the hub, which has the machine's agent install, update, configure or remove it, and waits
    until it has.
  - Runs on the controller and touches no host; C(delegate_to) is not needed. The machine need not be reachable by
    Ansible.
  - What an option leaves open stays as it is.
author:
  - The hawser project (@hawser)
options:
  name:
    description: Name of the extension on the machine.
    type: str
    required: true
  state:
    description: Whether the machine shall have the extension.
    type: str
    choices: [present, absent]
    default: present
  machine:
    description: Name of the machine. By default the name of the host in the inventory.
    type: str
  publisher:
    description: Publisher of the handler, needed where the extension is new.
    type: str
  type:
    description: Type of the handler, needed where the extension is new.
    type: str
  type_handler_version:
    description:
      - Version of the handler, which the hub resolves when it is written. Missing numbers are 0; with
        O(auto_upgrade_minor_version) it is the newest of the same first number that is not older. Without the option
        the hub chooses the newest for a new extension.
      - What is installed is as described when it begins with these numbers, and when it is a newer one that
        O(auto_upgrade_minor_version) (of the same first number) or O(enable_automatic_upgrade) allows.
    type: str
    aliases: [version]
  auto_upgrade_minor_version:
    description: Whether a newer minor version may be taken when the extension is changed.
    type: bool
  enable_automatic_upgrade:
    description: Whether the hub upgrades the extension by itself when there is a newer version.
    type: bool
  force_update_tag:
    description: Any text. Another one than before makes the handler carry out the same settings again.
    type: str
  provision_after_extensions:
    description:
      - Names of extensions of the same machine that it comes after, all of them. Each of them must be there. An empty
        list takes back what was said before.
      - The machine enables it once those, and all others that come as early, have succeeded; when one fails, it fails.
    type: list
    elements: str
  settings:
    description: Public settings, all of them. Everybody who may read the machine sees them.
    type: dict
  protected_settings:
    description:
      - Protected settings, all of them. They travel encrypted to the machine's own key and are never returned, so they
        cannot be compared. See O(protected_settings_digest) for how a change is noticed.
      - They are sent when the extension is new, when anything else differs, and when they are others than before. An
        empty dictionary is as none.
    type: dict
  protected_settings_digest:
    description:
      - Keep a salted, slow digest of O(protected_settings) in the extension's tag C(hawser-protected-digest), so that a
        change of them is noticed by any controller. The hub drops the tag when somebody else writes other ones.
      - Whoever may read the extension can test guesses against it, some a second. Switch it off for values that can be
        guessed; then they are sent only when the extension is new or something else differs, such as
        O(force_update_tag).
    type: bool
    default: true
  wait:
    description: Wait until the machine has carried it out. Without it the task ends when the hub has taken the
      description.
    type: bool
    default: true
  timeout:
    description: Seconds to wait at most. What has been described stays described when they are over.
    type: int
    default: 1800
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
    details: Works on machines that are not connected yet.
  diff_mode:
    support: full
    details: Shows of protected settings only whether they differ.
  idempotent:
    support: full
    details: An extension that failed is tried again.
  platform:
    support: full
    platforms: all
  async:
    support: none
notes:
  - With C(-v) each change in the progress of the operation is shown.
seealso:
  - module: hawser.machine.extension_info
  - module: hawser.machine.run_command
"""

EXAMPLES = r"""
- name: Run a script once on each machine
  hawser.machine.extension:
    name: setup
    resource_group: servers
    publisher: Hawser
    type: CustomScript
    type_handler_version: "1.0"
    settings:
      fileUris: [https://files.example/setup.sh]
      commandToExecute: ./setup.sh --role web

- name: Run it again, with a secret
  hawser.machine.extension:
    name: setup
    resource_group: servers
    force_update_tag: "2026-12-01"
    settings: {}
    protected_settings:
      commandToExecute: "./setup.sh --token {{ my_vaulted_token }}"

- name: Say how healthy the application is
  hawser.machine.extension:
    name: health
    resource_group: servers
    publisher: Hawser
    type: HealthProbe
    enable_automatic_upgrade: true
    settings:
      protocol: http
      port: 8080
      requestPath: /healthz

- name: Remove an extension and do not wait for it
  hawser.machine.extension:
    name: setup
    resource_group: servers
    state: absent
    wait: false
"""

RETURN = r"""
reasons:
  description: Every difference between what is described and what was found. Nothing of protected settings is in it.
  type: list
  elements: dict
  returned: success
  sample: [{path: settings.port, expected: 8080, actual: 80}]
before:
  description: What was found of what is described.
  type: dict
  returned: success
after:
  description: What is described.
  type: dict
  returned: success
extension:
  description: The extension as ARM shows it at the end, or V(null) if there is none.
  type: dict
  returned: success
instance_view:
  description: What the machine says of it, version and status with its message, or V(null).
  type: dict
  returned: success
  sample:
    name: setup
    type: CustomScript
    typeHandlerVersion: 1.0.0
    status: {code: "0", level: Information, displayStatus: Success, message: The script ended with the exit code 0.}
steps:
  description: What was seen of the operation, and after how many seconds.
  type: list
  elements: dict
  returned: success
  sample: [{name: InProgress, percent: 40, seconds: 0.3}, {name: Succeeded, percent: 100, seconds: 4.1}]
"""
