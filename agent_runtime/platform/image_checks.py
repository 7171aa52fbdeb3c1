# SPDX-License-Identifier: Apache-2.0
"""What of the operating system an image should not carry, and which of its own tools clears it
(clone-specialization.md sections 3 and 6). Looked at, never changed."""

from __future__ import annotations

import base64
import fnmatch
import os
import re
from typing import NamedTuple

READ_LIMIT = 256 * 1024
# `cloud-init clean` writes it, so that systemd makes a new id at the next boot (machine-id(5)).
_NO_MACHINE_ID = ("", "uninitialized")


class Finding(NamedTuple):
    """`item`: a short name; `path`: where; `remedy`: the tool that clears it. `is_identity`: copies would be taken for
    one machine by somebody."""

    item: str
    path: str
    remedy: str
    is_identity: bool


class _Rule(NamedTuple):
    item: str
    pattern: str
    remedy: str
    is_identity: bool


_CLOUD = "cloud-init clean --logs --seed --machine-id"
_RULES = (
    _Rule(
        "SSH host keys", "/etc/ssh/ssh_host_*_key", "remove /etc/ssh/ssh_host_*; a first-boot tool makes new ones", True
    ),
    _Rule("Kerberos host keytab", "/etc/krb5.keytab", "leave the domain, or remove /etc/krb5.keytab", True),
    _Rule("domain join", "/var/lib/sss/db/cache_*.ldb", "leave the domain with 'realm leave'", True),
    _Rule("subscription of the system", "/etc/pki/consumer/key.pem", "subscription-manager clean", True),
    _Rule("Salt minion's id and key", "/etc/salt/pki/minion/minion.pem", "remove /etc/salt/pki/minion", True),
    _Rule("Puppet agent's key", "/etc/puppetlabs/puppet/ssl/private_keys/*.pem", "puppet ssl clean", True),
    _Rule("SSM agent's registration", "/var/lib/amazon/ssm/Vault/Store/*", "amazon-ssm-agent -register -clear", True),
    _Rule("Azure Linux agent's state", "/var/lib/waagent/*.crt", "waagent -deprovision", True),
    _Rule("osquery's host id", "/var/osquery/osquery.db", "stop osqueryd and remove /var/osquery/osquery.db", True),
    _Rule("copied random seed", "/var/lib/systemd/random-seed", "remove it; the system makes a new one", False),
    _Rule("DHCP leases", "/var/lib/dhcp/*.lease*", "remove the leases", False),
    _Rule("DHCP leases", "/var/lib/dhclient/*.lease*", "remove the leases", False),
    _Rule("DHCP leases", "/var/lib/NetworkManager/*.lease", "remove the leases", False),
    _Rule("persistent network rules", "/etc/udev/rules.d/70-persistent-net.rules", "remove the file", False),
    _Rule("cloud-init's instance", "/var/lib/cloud/data/instance-id", _CLOUD, False),
)


def findings(root: str = "") -> list[Finding]:
    """What is there below `root`."""
    found = []
    content = _text(root, "/etc/machine-id")
    if content is not None and content not in _NO_MACHINE_ID:
        remedy = f"{_CLOUD}; without cloud-init: truncate --size 0 /etc/machine-id"
        found.append(Finding("machine id", "/etc/machine-id", remedy, True))
    dbus = f"{root}/var/lib/dbus/machine-id"
    if os.path.isfile(dbus) and not os.path.islink(dbus):
        found.append(
            Finding("machine id of D-Bus", "/var/lib/dbus/machine-id", "make it a link to /etc/machine-id", True)
        )
    for rule in _RULES:
        places = [place for place in _matching(root, rule.pattern) if not is_extds(root + place)]
        if places:
            found.append(Finding(rule.item, places[0], rule.remedy, rule.is_identity))
    return found


def is_extds(path: str) -> bool:
    """Whether it is a certificate of extd's key, beside those of the Azure Linux agent: it names the machine
    (docs/protocol.md section 3)."""
    if not path.endswith(".crt"):
        return False
    body = (_text("", path) or "").partition("-----BEGIN CERTIFICATE-----")[2].partition("-----END")[0]
    try:
        return b"urn:hawser:machine:" in base64.b64decode(body)
    except ValueError:
        return False


def warnings(root: str = "") -> list[str]:
    """Sentences about settings that keep copies from noticing that they are copies."""
    told = []
    for path in _matching(root, "/etc/cloud/cloud.cfg") + _matching(root, "/etc/cloud/cloud.cfg.d/*.cfg"):
        text = _text(root, path) or ""
        if re.search(r"^\s*manual_cache_clean\s*:\s*(?:true|yes|on|1)\s*(?:#.*)?$", text, re.MULTILINE | re.IGNORECASE):
            told.append(
                f"{path} sets manual_cache_clean: cloud-init does not notice a new instance, so copies keep the "
                "builder's instance id; remove the setting, or run 'cloud-init clean' in the image"
            )
    if os.path.lexists(f"{root}/var/lib/cloud/instance/manual-clean"):
        told.append("/var/lib/cloud/instance/manual-clean has the effect of manual_cache_clean; run 'cloud-init clean'")
    return told


def _matching(root: str, pattern: str) -> list[str]:
    folder, name = os.path.split(pattern)
    try:
        names = sorted(os.listdir(root + folder))
    except OSError:
        return []
    return [f"{folder}/{found}" for found in names if fnmatch.fnmatchcase(found, name)]


def _text(root: str, path: str) -> str | None:
    try:
        with open(root + path, "rb") as file:
            return file.read(READ_LIMIT).decode("utf-8", "replace").strip()
    except OSError:
        return None
