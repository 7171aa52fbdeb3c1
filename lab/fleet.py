# SPDX-License-Identifier: Apache-2.0
"""A lab: a bridge and hosts on it, made from a list of names, removed by its ledger."""

from __future__ import annotations

import concurrent.futures
import ipaddress
import json
import os
import re
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from lab import base, cgroup, kernel, network, process
from lab.errors import LabError
from lab.host import Host, HostSpec
from lab.ledger import Ledger, destroy, launcher, run

_LAB_NAME = re.compile(r"[a-z][a-z0-9]{0,7}")
_HOST_NAME = re.compile(r"[a-z]([a-z0-9-]{0,52}[a-z0-9])?")
_HOSTS_AT_ONCE = 8


class Lab:
    """Hosts with static addresses on a bridge of their own.

    :param directory: everything of the lab lies below it; removed with the lab.
    :param name: at most 8 characters, unique on the machine: bridge and machines are named after it.
    :param hosts: names, or full descriptions.
    :param cache: where the base is kept.
    :param subnet: None takes the first free one of the pool.
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str,
        hosts: Sequence[str | HostSpec],
        cache: Path,
        subnet: ipaddress.IPv4Network | None = None,
        report: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.specs = [HostSpec(host) if isinstance(host, str) else host for host in hosts]
        check_names(name, [spec.name for spec in self.specs])
        self.directory = directory.resolve()
        self.name = name
        self.cache = cache
        self.subnet = subnet
        self.ledger = Ledger(self.directory / "ledger.jsonl")
        self.hosts: dict[str, Host] = {}
        self._report = report

    destroy = staticmethod(destroy)

    @property
    def bridge(self) -> str:
        """Name of the bridge's interface."""
        return network.bridge_name(self.name)

    @property
    def network(self) -> ipaddress.IPv4Network:
        """The lab's network; known once it is started."""
        if self.subnet is None:
            raise LabError("The lab has no network yet.", "Start it first.")
        return self.subnet

    @property
    def gateway(self) -> ipaddress.IPv4Address:
        """The machine's own address on the bridge; services for the hosts listen there."""
        return next(self.network.hosts())

    def _address(self, number: int) -> ipaddress.IPv4Address:
        return self.network[10 + number]

    @property
    def private_key(self) -> Path:
        """Key that opens root and the unprivileged user on every host."""
        return self.directory / "ssh" / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """The hosts' public keys, in the form of ssh."""
        return self.directory / "ssh" / "known_hosts"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Make everything and boot all hosts; on an error what was made is removed again."""
        self.ledger.begin()
        # What is laid out for the hosts is read there by others than root; what is secret gets its mode by name.
        before = os.umask(0o022)
        try:
            self.prepare()
            self.boot()
        except BaseException:
            self.stop()
            raise
        finally:
            os.umask(before)

    def stop(self) -> None:
        """Remove everything this lab made."""
        destroy(self.ledger.path, self._report)

    def prepare(self) -> None:
        """Make the base, the keys and the bridge, into a ledger that was begun; `gateway` is usable afterwards."""
        self.ledger.record("kernel", lab=self.name)
        kernel.raise_for(self.name)
        base.ensure(self.cache, self._report)
        for child in ("ssh", "hosts"):
            self.ledger.record("tree", path=str(self.directory / child))
            (self.directory / child).mkdir(mode=0o700)
        _keygen(self.private_key)
        with kernel.locked():
            # Another lab that looks for a free network at this moment waits until this one is visible.
            routes = network.routes()
            if self.subnet is None:
                self.subnet = network.first_free(routes)
            elif (clash := network.overlapping(self.subnet, routes)) is not None:
                raise LabError(
                    f"The network {self.subnet} collides with the route to {clash}.", "Choose another network."
                )
            if self.subnet.num_addresses - 12 < len(self.specs):
                raise LabError(f"{self.subnet} has no room for {len(self.specs)} hosts.", "Choose a larger network.")
            network.make_bridge(self.ledger, self.bridge, self.subnet)

    def boot(self) -> None:
        """Boot all hosts and wait until each is ready."""
        numbers = range(1, len(self.specs) + 1)
        with concurrent.futures.ThreadPoolExecutor(max_workers=_HOSTS_AT_ONCE) as pool:
            hosts = list(pool.map(self._boot, self.specs, numbers))
            self.hosts = {host.name: host for host in hosts}
            lines = [f"{h.address} {(self._home(h.name) / 'host_key.pub').read_text(encoding='ascii')}" for h in hosts]
            self.known_hosts.write_text("".join(lines), encoding="ascii")
            patience = 60 + 3 * len(hosts)
            for host, _ in zip(hosts, pool.map(lambda h: h.wait_ready(patience), hosts), strict=True):
                self._report(f"{host.name} answers at {host.address}")

    def _home(self, name: str) -> Path:
        return self.directory / "hosts" / name

    def _boot(self, spec: HostSpec, number: int) -> Host:
        home, machine = self._home(spec.name), f"{self.name}-{number}"
        address = self._address(number)
        root = self._lay_out(spec, home)
        _personalise(home, root, spec, f"{address}/{self.network.prefixlen}", self.private_key)
        network.refuse_existing(network.host_interface(machine))
        self.ledger.record("interface", name=network.host_interface(machine))
        self._start(spec.name, machine, home, root)
        return Host(
            name=spec.name,
            address=address,
            machine=machine,
            bridge=self.bridge,
            root=root,
            private_key=self.private_key,
            known_hosts=self.known_hosts,
            supervisor=lambda: self._supervisor(spec.name),
        )

    def _lay_out(self, spec: HostSpec, home: Path) -> Path:
        root, disk = home / "root", home / "disk"
        home.mkdir()
        root.mkdir()
        disk.mkdir()
        if spec.disk_mib is not None:
            self.ledger.record("mount", path=str(disk))
            run(["mount", "-t", "tmpfs", "-o", f"size={spec.disk_mib}m,mode=0755", f"hawser-{self.name}", str(disk)])
        (disk / "upper").mkdir()
        (disk / "work").mkdir()
        self.ledger.record("mount", path=str(root))
        layers = f"lowerdir={base.path(self.cache)},upperdir={disk / 'upper'},workdir={disk / 'work'}"
        run(["mount", "-t", "overlay", "-o", layers, f"hawser-{self.name}", str(root)])
        return root

    def _start(self, name: str, machine: str, home: Path, root: Path) -> None:
        nspawn = [
            "systemd-nspawn",
            f"--directory={root}",
            "--boot",
            "--register=no",
            "--keep-unit",
            f"--network-bridge={self.bridge}",
            f"--machine={machine}",
            f"--hostname={name}",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
            "--console=pipe",
            "--quiet",
        ]
        environment = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        label = f"host {name}"
        if Path("/run/systemd/system").is_dir():
            unit = f"hawser-{machine}.service"
            self.ledger.record("unit", name=unit)
            properties = [f"--property={item}" for item in ("Delegate=yes", "KillMode=mixed", "TasksMax=4096")]
            wrapped = launcher(self.ledger.path, label, nspawn)
            run(["systemd-run", f"--unit={unit}", "--collect", "--quiet", *properties, *wrapped])
            return
        groups = cgroup.make(self.ledger, machine)
        with (home / "console.log").open("wb") as console:
            started = self.ledger.spawn(label, nspawn, cgroups=groups, output=console, environment=environment)
        deadline = time.monotonic() + 20
        while not process.children(started.pid):
            if started.poll() is not None or time.monotonic() > deadline:
                said = (home / "console.log").read_text(encoding="utf-8", errors="replace").strip()
                raise LabError(f"systemd-nspawn could not start {name}: {said[-600:]}.", "Mend that and start again.")
            time.sleep(0.01)

    def _supervisor(self, name: str) -> int | None:
        for entry in reversed(self.ledger.entries()):
            if entry["kind"] == "process" and entry["name"] == f"host {name}":
                return int(entry["pid"]) if process.alive(entry["pid"], entry["started"]) else None
        return None

    def save(self) -> None:
        """Write what `attach` needs: the lab goes on when this process ends."""
        state = {"name": self.name, "subnet": str(self.network), "hosts": [spec.name for spec in self.specs]}
        self.ledger.record("file", path=str(self.directory / "lab.json"))
        (self.directory / "lab.json").write_text(json.dumps(state), encoding="utf-8")

    @classmethod
    def attach(cls, directory: Path, *, cache: Path, report: Callable[[str], None] = lambda _line: None) -> Lab:
        """The lab that another process started and saved in this directory."""
        state = json.loads((directory / "lab.json").read_text(encoding="utf-8"))
        lab = cls(
            directory,
            name=state["name"],
            hosts=state["hosts"],
            cache=cache,
            subnet=ipaddress.IPv4Network(state["subnet"]),
            report=report,
        )
        for number, spec in enumerate(lab.specs, 1):
            name = spec.name
            lab.hosts[name] = Host(
                name=name,
                address=lab._address(number),
                machine=f"{lab.name}-{number}",
                bridge=lab.bridge,
                root=lab._home(name) / "root",
                private_key=lab.private_key,
                known_hosts=lab.known_hosts,
                supervisor=lambda name=name: lab._supervisor(name),  # type: ignore[misc]
            )
        return lab


def check_names(lab: str, hosts: Sequence[str]) -> None:
    """Refuse names that interfaces, files or DNS do not take."""
    if not _LAB_NAME.fullmatch(lab):
        raise LabError(f"'{lab}' is no name for a lab.", "Use 1 to 8 lower-case letters and digits.")
    for name in hosts:
        if not _HOST_NAME.fullmatch(name):
            raise LabError(f"'{name}' is no name for a host.", "Use lower-case letters, digits and hyphens.")
    if len(set(hosts)) != len(hosts):
        raise LabError("Two hosts have the same name.", "Give each its own.")


def _keygen(path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "hawser lab", "-f", str(path)],
        check=True,
        stdin=subprocess.DEVNULL,
    )


def _personalise(home: Path, root: Path, spec: HostSpec, address: str, client_key: Path) -> None:
    """What makes the host itself: machine id, name, address, keys, hardware."""
    etc = root / "etc"
    (etc / "machine-id").write_text(uuid.uuid4().hex + "\n", encoding="ascii")
    (etc / "hostname").write_text(spec.name + "\n", encoding="ascii")
    (etc / "hosts").write_text(
        f"127.0.0.1 localhost\n::1 localhost\n{address.partition('/')[0]} {spec.name}\n", encoding="ascii"
    )
    # The number decides: systemd's own 80-container-host0.network would ask for DHCP.
    (etc / "systemd" / "network" / "10-host0.network").write_text(
        f"[Match]\nName=host0\n\n[Network]\nAddress={address}\nLinkLocalAddressing=no\nIPv6AcceptRA=no\nLLDP=no\nEmitLLDP=no\n",
        encoding="ascii",
    )
    _keygen(home / "host_key")
    for source, target, mode in (
        ("host_key", "ssh_host_ed25519_key", 0o600),
        ("host_key.pub", "ssh_host_ed25519_key.pub", 0o644),
    ):
        destination = etc / "ssh" / target
        destination.write_bytes((home / source).read_bytes())
        destination.chmod(mode)
    public = client_key.with_suffix(".pub").read_bytes()
    for account in (root / "root", root / "home" / base.USER):
        owner = account.stat()
        keys = account / ".ssh" / "authorized_keys"
        keys.parent.mkdir(mode=0o700, exist_ok=True)
        keys.write_bytes(public)
        keys.chmod(0o600)
        for path in (keys.parent, keys):
            os.chown(path, owner.st_uid, owner.st_gid)
    dmi = etc / "lab" / "dmi"
    dmi.mkdir()
    for file, content in spec.hardware().items():
        (dmi / file).write_text(content + "\n", encoding="utf-8")
        (dmi / file).chmod(0o400 if file in {"product_uuid", "product_serial"} else 0o444)
