# SPDX-License-Identifier: Apache-2.0
"""What the demo hands to people: connection.json, env.sh, inventory, settings of Ansible and ssh. Text out of data."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lab.demo.layout import Layout
from lab.host import Host

RESOURCE_GROUP = "demo"
LOCATION = "local"
WEB_USER = "demo"


@dataclass(frozen=True)
class Access:
    """How to use the hub of the demo."""

    url: str
    tenant_id: str
    subscription_id: str
    client_id: str


@dataclass(frozen=True)
class Package:
    """The agent's package that the hosts get."""

    path: Path
    sha256: str
    version: str


def connection(access: Access, layout: Layout, hosts: Sequence[Host]) -> dict[str, Any]:
    """connection.json: everything a client of people's own needs. Paths are absolute."""
    return {
        "arm": access.url,
        "authority": access.url,
        "web": access.url,
        "web_user": WEB_USER,
        "web_password_file": str(layout.web_password),
        "tenant_id": access.tenant_id,
        "client_id": access.client_id,
        "client_secret_file": str(layout.secret),
        "ca_file": str(layout.ca),
        "subscription_id": access.subscription_id,
        "resource_group": RESOURCE_GROUP,
        "location": LOCATION,
        "inventory": str(layout.inventory),
        "hosts": [
            {
                "name": host.name,
                "address": str(host.address),
                "os": "linux",
                "connection": "ssh",
                "user": "root",
                "port": 22,
                "private_key_file": str(host.private_key),
            }
            for host in hosts
        ],
    }


def variables(access: Access, layout: Layout, secret: str) -> dict[str, str]:
    """Every variable that our modules, the Azure SDKs, az, azure.azcollection, curl, Node and Ansible read.

    az and azure.azcollection take a list of clouds at `ARM_CLOUD_METADATA_URL`: that of 2019-05-01, the last version
    that answers one.
    """
    return {
        "HAWSER_ARM": access.url,
        "HAWSER_AUTHORITY": access.url,
        "HAWSER_TENANT_ID": access.tenant_id,
        "HAWSER_CLIENT_ID": access.client_id,
        "HAWSER_CLIENT_SECRET_FILE": str(layout.secret),
        "HAWSER_CA_FILE": str(layout.ca),
        "HAWSER_SUBSCRIPTION_ID": access.subscription_id,
        "HAWSER_RESOURCE_GROUP": RESOURCE_GROUP,
        "HAWSER_LOCATION": LOCATION,
        "HAWSER_HUB_DATA": str(layout.hub),
        "AZURE_AUTHORITY_HOST": access.url,
        "AZURE_TENANT_ID": access.tenant_id,
        "AZURE_TENANT": access.tenant_id,
        "AZURE_CLIENT_ID": access.client_id,
        "AZURE_CLIENT_SECRET": secret,
        "AZURE_SECRET": secret,
        "AZURE_SUBSCRIPTION_ID": access.subscription_id,
        "AZURE_CLOUD_ENVIRONMENT": access.url,
        "AZURE_CORE_INSTANCE_DISCOVERY": "false",
        "AZURE_DISABLE_INSTANCE_DISCOVERY": "true",
        "ARM_CLOUD_METADATA_URL": f"{access.url}/metadata/endpoints?api-version=2019-05-01",
        "REQUESTS_CA_BUNDLE": str(layout.ca_bundle),
        "SSL_CERT_FILE": str(layout.ca_bundle),
        "CURL_CA_BUNDLE": str(layout.ca_bundle),
        "NODE_EXTRA_CA_CERTS": str(layout.ca),
        "ANSIBLE_CONFIG": str(layout.ansible_config),
        "ANSIBLE_HOME": str(layout.ansible_home),
        "ANSIBLE_INVENTORY": str(layout.inventory),
        "ANSIBLE_COLLECTIONS_PATH": str(layout.collections),
    }


def shell(values: dict[str, str], programs: Path) -> str:
    """env.sh, to be read by a POSIX shell."""
    lines = ["# Read it: . .demo/env.sh", *(f"export {key}={shlex.quote(value)}" for key, value in values.items())]
    path = shlex.quote(str(programs))
    lines.append(f'case ":$PATH:" in *:{path}:*) ;; *) export PATH={path}:"$PATH" ;; esac')
    return "\n".join(lines) + "\n"


def inventory(access: Access, layout: Layout, hosts: Sequence[Host], package: Package) -> str:
    """The inventory; JSON is YAML."""
    first = hosts[0]
    known_hosts = shlex.quote(str(first.known_hosts))
    document = {
        "all": {
            "children": {
                "hawser": {
                    "hosts": {host.name: {"ansible_host": str(host.address)} for host in hosts},
                    "vars": {
                        "ansible_user": "root",
                        "ansible_ssh_private_key_file": str(first.private_key),
                        "ansible_ssh_common_args": f"-F none -o UserKnownHostsFile={known_hosts}",
                        "ansible_pipelining": True,
                        "ansible_python_interpreter": "/usr/bin/python3",
                        "agent_cloud_profile": str(layout.profile),
                        "agent_subscription_id": access.subscription_id,
                        "agent_resource_group": RESOURCE_GROUP,
                        "agent_location": LOCATION,
                        "agent_tags": {"env": "demo"},
                        "agent_version": package.version,
                        "agent_package_path": str(package.path),
                        "agent_package_sha256": package.sha256,
                    },
                }
            }
        }
    }
    return json.dumps(document, indent=2) + "\n"


def ansible_config(layout: Layout, hosts: int) -> str:
    """Ansible's settings. No shared ssh connections: they are processes that would outlive the demo's end."""
    return f"""[defaults]
inventory = {layout.inventory}
collections_path = {layout.collections}
home = {layout.ansible_home}
forks = {min(20, max(5, hosts))}
host_key_checking = true
retry_files_enabled = false
callback_result_format = yaml

[ssh_connection]
ssh_args = -o ControlMaster=no -o ControlPath=none
"""


def ssh_config(hosts: Sequence[Host]) -> str:
    """Lets people say `ssh -F .demo/ssh_config web01`."""
    blocks = [
        f'Host {host.name}\n  HostName {host.address}\n  User root\n  IdentityFile "{host.private_key}"\n'
        f'  UserKnownHostsFile "{host.known_hosts}"\n  StrictHostKeyChecking yes\n'
        for host in hosts
    ]
    return "\n".join(blocks)


def age(moment: str | None, now: datetime) -> str:
    """How long ago an RFC 3339 time was, in words."""
    if moment is None:
        return "never"
    seconds = max(0, int((now - datetime.fromisoformat(moment)).total_seconds()))
    if seconds < 120:
        return f"{seconds} s ago"
    return f"{seconds // 60} min ago"


def fleet(machines: Sequence[dict[str, Any]], now: datetime) -> str:
    """The fleet as a table."""
    header = ("NAME", "OS", "AGENT", "STATUS", "LAST HEARTBEAT", "ADDRESS")
    rows = [
        (
            str(machine["name"]),
            str(machine["os"] or "-"),
            str(machine["agentVersion"] or "-"),
            str(machine["status"]),
            age(machine["lastHeartbeat"], now),
            str(machine["address"] or "-"),
        )
        for machine in machines
    ]
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    )
    return "\n".join(lines)


def web_page(access: Access, layout: Layout) -> str:
    """Where the fleet page is, and who may sign in."""
    return (
        f"The fleet page: {access.url}/fleet\n"
        f"  sign in as {WEB_USER}; the password is in {layout.web_password}, the CA to trust in {layout.ca}"
    )


def suggestions(host: Host) -> str:
    """Five commands worth trying."""
    metadata = "http://localhost:40342/metadata/instance?api-version=2020-06-01"
    return "\n".join(
        (
            "Worth trying next (the first line once in each shell):",
            "  . .demo/env.sh",
            "  hawser-hub machines",
            f"  ssh -F .demo/ssh_config {host.name} azcmagent show",
            f"  ssh -F .demo/ssh_config {host.name} \"curl -s -H Metadata:true '{metadata}'\"",
            '  ansible-playbook hawser.machine.site --diff -e \'{"agent_tags": {"env": "mine"}}\'',
            "  ansible hawser -m hawser.machine.agent_info",
            "make demo-stop removes everything.",
        )
    )
