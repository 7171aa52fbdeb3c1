# SPDX-License-Identifier: Apache-2.0
"""A fleet to look at: machines that really enrol and report, and, behind the hub's back, a past for some of them."""

from __future__ import annotations

import random
import time
from typing import Any

from control_plane.hub import open_database
from control_plane.storage import history
from control_plane.storage.fleet_models import FleetCount, MachineEvent
from control_plane.storage.models import Heartbeat, Machine
from tests.integration import hub_machine
from tests.integration.hub_process import HubProcess

USER, PASSWORD = "ada", "a quiet harbour at noon"
_DAY = 86400
_BEFORE = {"Connected": "Disconnected", "Disconnected": "Connected", "Expired": "Disconnected"}
_SYSTEMS = (
    ("linux", "debian", "12.8", "Debian GNU/Linux 12 (bookworm)"),
    ("linux", "ubuntu", "24.04", "Ubuntu 24.04.1 LTS"),
    ("linux", "rhel", "9.5", "Red Hat Enterprise Linux 9.5"),
    ("windows", "windows", "10.0.20348.2849", "Windows Server 2022 Datacenter"),
    ("linux", "sles", "15.6", "SUSE Linux Enterprise Server 15 SP6"),
)
_ROLES = (
    ("web", "storefront", "prod", 12),
    ("app", "storefront", "prod", 10),
    ("db", "databases", "prod", 8),
    ("mail", "office", "prod", 3),
    ("file", "office", "prod", 3),
    ("build", "engineering", "dev", 8),
    ("test", "engineering", "test", 8),
    ("scada", "terminal-4", "prod", 4),
    ("edge", "terminal-4", "prod", 4),
)
_SITES = ("hamburg", "bremerhaven", "rotterdam")
# Options of the hub that has this fleet.
LOCATIONS = tuple(word for site in _SITES for word in ("--location", f"{site}={site}"))
_VERSIONS = (("1.2.0.118", "2026-10-20"), ("1.1.4.97", "2026-06-02"), ("0.9.8.40", "2025-09-15"))


def names() -> list[tuple[str, str, str, str]]:
    """Name, group, environment and location of each machine."""
    found = []
    for role, group, environment, number in _ROLES:
        for index in range(1, number + 1):
            site = _SITES[(index + len(role)) % 3]
            found.append((f"{role}{index:02}-{site[:3]}", group, environment, site))
    return found


def inventory(name: str, number: int, source: random.Random) -> dict[str, Any]:
    """What such a host reports."""
    kind = 3 if name.startswith(("file", "mail")) else number % 5
    system, os_name, version, sku = _SYSTEMS[kind]
    released = _VERSIONS[_version(number)]
    mac = ":".join(f"{source.randrange(256):02x}" for _ in range(3))
    return {
        "osType": system,
        "osName": os_name,
        "osVersion": version,
        "osSku": sku,
        "computerName": name,
        "machineFqdn": f"{name}.harbour.example",
        "dnsFqdn": f"{name}.harbour.example",
        "agentVersion": released[0],
        "agentReleased": released[1],
        "manufacturer": "Dell Inc." if number % 3 else "VMware, Inc.",
        "model": "PowerEdge R660" if number % 3 else "VMware20,1",
        "serialNumber": f"{source.randrange(16**7):07X}",
        "hardwareProfile": {
            "totalPhysicalMemoryInBytes": (16, 32, 64, 128)[number % 4] * 2**30,
            "numberOfCpuSockets": 2,
            "processors": [{"name": "Intel(R) Xeon(R) Gold 6430", "numberOfCores": 16}] * 2,
        },
        "firmwareProfile": {"serialNumber": "", "type": "EFI"},
        "storageProfile": {"disks": [{"path": "/dev/sda", "diskType": "SSD", "maxSizeInBytes": 480 * 10**9}]},
        "networkProfile": {
            "networkInterfaces": [
                {
                    "name": "eno1",
                    "macAddress": f"b0:7b:25:{mac}",
                    "ipAddresses": [
                        {
                            "address": f"10.{20 + number % 3}.{number // 20}.{10 + number}",
                            "ipAddressVersion": "IPv4",
                            "subnet": {"addressPrefix": f"10.{20 + number % 3}.{number // 20}.0/24"},
                        },
                        {"address": f"fd12:3456:{number % 3}::{10 + number:x}", "ipAddressVersion": "IPv6"},
                    ],
                }
            ]
        },
    }


def _version(number: int) -> int:
    return 2 if number % 11 == 7 else 1 if number % 4 == 2 else 0


CONFIGURATION = {
    "proxyUrl": "http://proxy.harbour.example:3128",
    "proxyBypass": ["Arc"],
    "incomingConnectionsPorts": [],
    "extensionsAllowList": [],
    "extensionsBlockList": [],
    "extensionsEnabled": "true",
    "guestConfigurationEnabled": "true",
    "configMode": "full",
}
SERVICES = {
    "extensionService": {"status": "running", "startupType": "automatic"},
    "guestConfigurationService": {"status": "running", "startupType": "automatic"},
}


def enrol(hub: HubProcess, token: str, limit: int | None = None) -> list[hub_machine.Machine]:
    """Machines that went through all of the protocol; the last two of a whole fleet never checked in."""
    source = random.Random(7)
    made = []
    wanted = names()[:limit]
    for number, (name, group, environment, site) in enumerate(wanted):
        machine = hub_machine.Machine(hub, name, group)
        tags = {"env": environment, "owner": ("platform", "retail", "port-ops")[number % 3]}
        if group == "databases":
            tags["backup"] = "daily"
        assert machine.put(token, location=site, tags=tags).status_code == 200
        version = _VERSIONS[_version(number)][0]
        if limit is None and number >= len(wanted) - 2:
            continue
        for answer in (machine.enrol(token, agentVersion=version), machine.ask_token()):
            assert answer.status_code == 200, answer.text
        assert machine.checkin(agentVersion=version).status_code == 200
        data = inventory(name, number, source)
        for kind, report in (("inventory", data), ("configuration", CONFIGURATION), ("services", SERVICES)):
            assert machine.report(kind, report).status_code == 200
        made.append(machine)
    return made


def give_past(hub: HubProcess, silent: dict[str, int]) -> None:
    """Of a hub that is stopped: 90 days of counts, an age for every machine, and for those in `silent` the seconds
    since their last heartbeat."""
    source, at = random.Random(3), int(time.time())
    database = open_database(hub.data)
    try:
        with database.write() as session:
            told: list[tuple[int, Machine, str, str]] = []
            for machine in session.query(Machine).all():
                beat = session.get(Heartbeat, machine.id)
                if beat is None:
                    continue
                age = source.randrange(20, 400) * _DAY + source.randrange(_DAY)
                age += 90 * _DAY if machine.name in silent else 0
                machine.created = machine.modified = at - age
                machine.enrolled = at - age + 40
                beat.connected_since = at - source.randrange(1, 18) * _DAY - source.randrange(_DAY)
                back = silent.get(machine.name)
                beat.seen = at - back if back else at - source.randrange(3, 280)
                if back:
                    beat.connected_since = min(beat.connected_since, beat.seen - 4000)
                group = next(item[1] for item in names() if item[0] == machine.name)
                for event in session.query(MachineEvent).filter_by(machine_id=machine.id):
                    event.at = machine.created
                moments = [(beat.connected_since - 5400, "Disconnected"), (beat.connected_since, "Connected")]
                if back:
                    moments.append((beat.seen + 900, "Disconnected"))
                if back and back > 45 * _DAY:
                    moments.append((beat.seen + 45 * _DAY, "Expired"))
                told += [(moment, machine, group, word) for moment, word in moments]
            for moment, machine, group, word in sorted(told, key=lambda item: item[0]):
                data = {"from": _BEFORE[word], "to": word}
                session.add(history.about(machine, group, history.STATUS, moment, data, None))
            # As the hub thins them: five minutes for two days, hours for sixty, days before.
            for span, begin, end in ((300, 2, 0), (3600, 60, 2), (86400, 90, 60)):
                for moment in range(at - at % span - begin * _DAY, at - at % span - end * _DAY, span):
                    session.merge(_count(hub.subscription_id, span, moment, at))
    finally:
        database.close()


def _count(subscription: str, span: int, moment: int, at: int) -> FleetCount:
    """A fleet that grew from 38 to 60, with an outage of a site twelve days and one nine hours ago."""
    source = random.Random(moment // 7200)
    days = (at - moment) / _DAY
    total = 60 - int(days / 4)
    lost = source.choice((2, 3, 3, 4))
    for centre, width, depth in ((12.0, 0.5, 14), (0.38, 0.06, 9), (55, 1.5, 11)):
        if abs(days - centre) < max(width, span / _DAY / 2):
            lost += depth
    expired, awaiting = (1 if days < 30 else 0) + (1 if days < 5 else 0), 2 if days < 3 else 1
    return FleetCount(
        span=span,
        at=moment,
        subscription_id=subscription,
        connected=total - lost - expired - awaiting,
        disconnected=lost,
        expired=expired,
        awaiting=awaiting,
    )


SILENT = {
    "web07-bre": 5400,
    "test03-bre": 3 * 3600,
    "edge02-ham": 26 * 3600,
    "build05-bre": 4 * _DAY,
    "db06-rot": 61 * _DAY,
    "test08-ham": 47 * _DAY,
}


def make_user(hub: HubProcess, name: str = USER, role: str = "Owner") -> None:
    """A person who can sign in with PASSWORD."""
    path = hub.data / "password"
    path.write_text(PASSWORD)
    path.chmod(0o600)
    hub.run("user", "create", name, "--role", role, "--password-file", str(path))


def copy_some(hub: HubProcess, token: str) -> list[hub_machine.Machine]:
    """Two machines whose disks were copied; the copies have asked whose identity they hold. Returns the originals."""
    found = []
    for name, copies in (("kiosk01-ham", 3), ("erp01-rot", 1)):
        here = hub_machine.vector(machine_id=name, dmi_uuid=name, dmi_serial=name)
        machine = hub_machine.Machine(hub, name, group="storefront", evidence=here, boot=f"boot-{name}")
        machine.connect(token, location="hamburg")
        with hub_machine.beating(machine):
            for number in range(copies):
                there = hub_machine.vector(machine_id=name, dmi_uuid=f"{name}-{number}", dmi_serial=f"{number}")
                twin = machine.copy(evidence=there, boot=f"boot-{name}-{number}")
                assert twin.ask(hostname=f"{name}-copy{number}").status_code == 403
        found.append(machine)
    return found
