# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of hawser.machine.run_command; the work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_command
short_description: Run a script on a machine by way of the hub
version_added: 0.1.0
description:
  - Has the machine's agent run a script, waits for its end and returns its exit code and what it wrote.
  - Runs on the controller and touches no host; C(delegate_to) is not needed. The machine need not be reachable by
    Ansible, so this also helps where ssh does not work any more.
  - A run command stays at the hub under its name until it is removed. One with the same name is run again.
author:
  - The hawser project (@hawser)
options:
  name:
    description: Name of the run command on the machine, at most 36 characters.
    type: str
    required: true
  state:
    description:
      - V(present) runs the script.
      - V(absent) removes the run command; a script that runs is ended.
    type: str
    choices: [present, absent]
    default: present
  machine:
    description: Name of the machine. By default the name of the host in the inventory.
    type: str
  script:
    description: The script. Everybody who may read the machine sees it. Exactly one of it and O(script_file) is needed.
    type: str
  script_file:
    description: A file on the controller with the script, looked for as C(ansible.builtin.copy) does.
    type: path
  parameters:
    description: Environment variables of the script on Linux, arguments C(-name value) on Windows.
    type: dict
  arguments:
    description: Positional arguments of the script.
    type: list
    elements: raw
  protected_parameters:
    description: As O(parameters); never returned.
    type: dict
  protected_arguments:
    description: As O(arguments), after them; never returned.
    type: list
    elements: raw
  run_as_user:
    description: User to run the script as. By default root or Local System.
    type: str
  run_as_password:
    description: Password of O(run_as_user), where the system needs it; never returned.
    type: str
  once:
    description:
      - Leave the machine alone where the same script with the same parameters, arguments and user has run under this
        name and ended well.
      - To compare what is protected, a salted digest of it stands in the tag C(hawser-protected-digest).
    type: bool
    default: false
  timeout:
    description: Seconds that the script may run; then the agent ends it.
    type: int
    default: 600
  wait:
    description: Wait for the script's end. Without it the task ends when the hub has taken the command.
    type: bool
    default: true
  wait_timeout:
    description: Seconds to wait at most. By default O(timeout) and 300 seconds.
    type: int
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
    details: Runs nothing and says that it would.
  diff_mode:
    support: none
  idempotent:
    support: partial
    details: With O(once=true) or O(state=absent).
  platform:
    support: full
    platforms: all
  async:
    support: none
notes:
  - The task fails if the script ends with another exit code than 0; use C(failed_when) to judge otherwise.
  - The hub keeps the last 4 KiB of each stream.
  - A request whose answer was lost is sent again, and the hub does not run the script twice for it.
seealso:
  - module: hawser.machine.extension
"""

EXAMPLES = r"""
- name: Restart a service on a machine that ssh does not reach
  hawser.machine.run_command:
    name: restart
    resource_group: servers
    script: systemctl restart myapp
    timeout: 60

- name: Run a file with parameters
  hawser.machine.run_command:
    name: migrate
    resource_group: servers
    script_file: migrate.sh
    parameters:
      STAGE: production
    protected_parameters:
      DB_PASSWORD: "{{ my_vaulted_password }}"
    once: true
  register: migrated

- name: Remove the run command
  hawser.machine.run_command:
    name: restart
    resource_group: servers
    state: absent
"""

RETURN = r"""
rc:
  description: Exit code of the script, or V(null) if it is not known.
  type: int
  returned: success
stdout:
  description: The end of what the script wrote on standard output.
  type: str
  returned: success
stderr:
  description: The end of what the script wrote on standard error.
  type: str
  returned: success
stdout_lines:
  description: RV(stdout) by lines.
  type: list
  elements: str
  returned: success
stderr_lines:
  description: RV(stderr) by lines.
  type: list
  elements: str
  returned: success
execution_state:
  description: Pending, Running, Succeeded, Failed, TimedOut, Canceled or Unknown.
  type: str
  returned: success
execution_message:
  description: What the agent says of it.
  type: str
  returned: success
start:
  description: When the script was started.
  type: str
  returned: success
end:
  description: When it ended.
  type: str
  returned: success
run_command:
  description: The run command as ARM shows it, or V(null).
  type: dict
  returned: success
steps:
  description: What was seen of the operation, and after how many seconds.
  type: list
  elements: dict
  returned: success
"""
