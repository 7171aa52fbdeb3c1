# SPDX-License-Identifier: Apache-2.0
"""What Windows knows of its machine: registry, firmware table, memory. Standard library only, nothing is started.

Members are those of linux.py. What this release does not read on Windows is empty, never guessed: network interfaces
and disks; its services do not run there yet (docs/windows.md).
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from typing import Any

from agent_runtime import errors
from agent_runtime.platform import smbios
from agent_runtime.platform.base import Signal

assert sys.platform == "win32"  # noqa: S101 - read by the type checker

import winreg  # noqa: E402 - only Windows has it

_RAW_SMBIOS = int.from_bytes(b"RSMB", "big")
_CURRENT = r"SOFTWARE\Microsoft\Windows NT\CurrentVersion"
_PROCESSORS = r"HARDWARE\DESCRIPTION\System\CentralProcessor"
_DOMAIN = r"SYSTEM\CurrentControlSet\Services\Tcpip\Parameters"
# Win32 services of agent-overview.txt: display name, service name.
SERVICES = (
    ("Azure Hybrid Instance Metadata Service", "himds"),
    ("Azure Arc Proxy", "arcproxy"),
    ("Guest configuration Extension Service", "ExtensionService"),
    ("Guest configuration Arc Service", "GCArcService"),
)
_STATES = {1: "stopped", 2: "starting", 3: "stopping", 4: "running", 5: "resuming", 6: "pausing", 7: "paused"}
_NO_SUCH_SERVICE = 1060


class _Memory(ctypes.Structure):
    """MEMORYSTATUSEX."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        ("rest", ctypes.c_uint64 * 6),
    )


class _ServiceStatus(ctypes.Structure):
    """SERVICE_STATUS."""

    _fields_ = (("kind", ctypes.c_uint32), ("state", ctypes.c_uint32), ("rest", ctypes.c_uint32 * 5))


class Windows:
    """One look at the machine. Every method reads afresh."""

    def signals(self) -> list[Signal]:
        """The signals that this release reads on Windows."""
        found = _firmware()
        firmware = (
            ("dmi_uuid", found.uuid),
            ("dmi_serial", found.serial),
            ("dmi_asset_tag", found.asset_tag),
        )
        table = "firmware:RSMB"
        unread = ("boot_id", "tpm_key", "vmgenid", "cloud_instance_id", "disk_id", "macs")
        return [
            self._machine_id(),
            *(
                Signal(name, "ok", value, table) if value else Signal(name, "absent", None, table)
                for name, value in firmware
            ),
            *(Signal(name, "absent", None) for name in unread),
        ]

    @staticmethod
    def _machine_id() -> Signal:
        source = r"registry:SOFTWARE\Microsoft\Cryptography\MachineGuid"
        try:
            value = _registry(r"SOFTWARE\Microsoft\Cryptography", "MachineGuid")
        except PermissionError:
            return Signal("machine_id", "denied", None, source)
        except OSError:
            return Signal("machine_id", "error", None, source)
        return Signal("machine_id", "ok", value, source) if value else Signal("machine_id", "absent", None, source)

    def boot_id(self) -> str | None:
        """Windows has no identifier of a boot."""
        return None

    def inventory(self, version: str) -> dict[str, Any]:
        """The data of an `inventory` report (docs/protocol.md section 8)."""
        found, memory, processors = _firmware(), _memory(), _processors()
        computer, domain = socket.gethostname(), _text(_DOMAIN, "Domain")
        fqdn = f"{computer}.{domain}" if domain else computer
        release = sys.getwindowsversion()
        server = release.product_type != 1
        return {
            "osType": "windows",
            "osName": "windows",
            "osVersion": f"{release.major}.{release.minor}.{release.build}",
            "osSku": _text(_CURRENT, "ProductName") or "Windows",
            "osEdition": _text(_CURRENT, "EditionID"),
            "computerName": computer,
            "machineFqdn": fqdn,
            "dnsFqdn": fqdn,
            "adFqdn": "",
            "domainName": domain,
            "vmUuid": found.uuid,
            "agentVersion": version,
            "manufacturer": found.manufacturer,
            "model": found.model,
            "serialNumber": found.serial,
            "smbiosAssetTag": found.asset_tag,
            "hardwareProfile": {
                "totalPhysicalMemoryInBytes": memory,
                "numberOfCpuSockets": 0,
                "processors": [],
            },
            "networkProfile": {"networkInterfaces": []},
            "storageProfile": {"disks": []},
            "firmwareProfile": {"serialNumber": found.serial, "type": ""},
            "detectedProperties": {
                "architecture": os.environ.get("PROCESSOR_ARCHITECTURE", "").lower(),
                "cloudprovider": "N/A",
                "manufacturer": found.manufacturer,
                "model": found.model,
                "serialNumber": found.serial,
                "logicalCoreCount": str(os.cpu_count() or 1),
                "processorNames": ", ".join(sorted(set(processors))),
                "productType": "server" if server else "workstation",
                "totalPhysicalMemoryInBytes": str(memory),
                "totalPhysicalMemoryInGigabytes": str(round(memory / 1024**3)),
            },
            "cloudMetadata": {"provider": "N/A"},
        }


def services() -> list[dict[str, str]]:
    """`displayName`, `serviceName` and `status` of the agent's services, asked of the service manager: the words of
    Windows, or `not installed`, or `unknown` where it does not answer."""
    control = ctypes.WinDLL("advapi32", use_last_error=True)
    control.OpenSCManagerW.restype = control.OpenServiceW.restype = ctypes.c_void_p
    manager = control.OpenSCManagerW(None, None, 1)  # SC_MANAGER_CONNECT
    found = []
    for display, name in SERVICES:
        state = _state(control, manager, name) if manager else "unknown"
        found.append({"displayName": display, "serviceName": name, "status": state})
    if manager:
        control.CloseServiceHandle(ctypes.c_void_p(manager))
    return found


def _state(control: Any, manager: int, name: str) -> str:
    handle = control.OpenServiceW(ctypes.c_void_p(manager), name, 4)  # SERVICE_QUERY_STATUS
    if not handle:
        return "not installed" if ctypes.get_last_error() == _NO_SUCH_SERVICE else "unknown"
    status = _ServiceStatus()
    answered = control.QueryServiceStatus(ctypes.c_void_p(handle), ctypes.byref(status))
    control.CloseServiceHandle(ctypes.c_void_p(handle))
    return _STATES.get(status.state, "unknown") if answered else "unknown"


def refuse_service(name: str) -> int:
    """Say that a service of the agent does not run here yet; the exit code of AZCM0003."""
    problem = errors.NotSupported(f"{name} does not run on Windows in this release", "See docs/windows.md")
    sys.stderr.write(f"error: {problem.code}: {problem.message}\nremedy: {problem.remedy}\n")
    return problem.exit_code


def operating_system() -> dict[str, str]:
    """What `show --os` says (local.py)."""
    release = sys.getwindowsversion()
    return {
        "osName": _text(_CURRENT, "ProductName") or "Windows",
        "osVersion": _text(_CURRENT, "DisplayVersion") or _text(_CURRENT, "ReleaseId"),
        "osKernel": f"{release.major}.{release.minor}.{release.build}",
        "osArchitecture": os.environ.get("PROCESSOR_ARCHITECTURE", ""),
        "osHostname": socket.gethostname(),
    }


def _registry(key: str, name: str) -> str:
    """A text of HKEY_LOCAL_MACHINE; empty when it is not there. Errors: OSError."""
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key, 0, winreg.KEY_READ | winreg.KEY_WOW64_64KEY) as opened:
            value, _ = winreg.QueryValueEx(opened, name)
    except FileNotFoundError:
        return ""
    return value.strip() if isinstance(value, str) else ""


def _text(key: str, name: str) -> str:
    try:
        return _registry(key, name)
    except OSError:
        return ""


def _processors() -> list[str]:
    """The name of each logical processor."""
    return [
        name
        for number in range(os.cpu_count() or 1)
        if (name := _text(f"{_PROCESSORS}\\{number}", "ProcessorNameString"))
    ]


def _memory() -> int:
    """Bytes of memory that Windows manages; 0 when it does not say."""
    status = _Memory(length=ctypes.sizeof(_Memory))
    return int(status.total) if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)) else 0


def _firmware() -> smbios.Firmware:
    """GetSystemFirmwareTable: a RawSMBIOSData of eight bytes of head, then the structures."""
    ask = ctypes.windll.kernel32.GetSystemFirmwareTable
    size = ask(_RAW_SMBIOS, 0, None, 0)
    if not 8 < size <= 1 << 20:
        return smbios.Firmware()
    buffer = ctypes.create_string_buffer(size)
    given = ask(_RAW_SMBIOS, 0, buffer, size)
    return smbios.read(buffer.raw[8 : min(given, size)])
