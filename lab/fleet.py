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
from lab.ledger import Entry, Ledger, destroy, launcher, remove, run

_LAB_NAME = re.compile(r"[a-z][a-z0-9]{0,7}")
_HOST_KEY = "etc/ssh/ssh_host_ed25519_key.pub"
_HOST_NAME = re.compile(r"[a-z]([a-z0-9-]{0,52}[a-z0-9])?")
_HOSTS_AT_ONCE = 8
_SHUTDOWN_SECONDS = 90.0


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
        for child in ("ssh", "hosts", "images"):
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
        self._boot_all(self.specs)

    def add(self, *specs: HostSpec, healthy: bool = True) -> list[Host]:
        """Boot further hosts beside those that there are, and wait until each is ready. Without `healthy` a unit of
        theirs may fail."""
        check_names(self.name, [spec.name for spec in (*self.specs, *specs)])
        if self.network.num_addresses - 12 < len(self.specs) + len(specs):
            raise LabError(f"{self.network} has no room for {len(specs)} more hosts.", "Choose a larger network.")
        self.specs += specs
        before = os.umask(0o022)
        try:
            return self._boot_all(specs, healthy)
        finally:
            os.umask(before)

    def power_off(self, name: str) -> None:
        """Shut a host down in good order. Its disk stays."""
        host = self.hosts[name]
        groups = [
            e
            for e in self.ledger.entries()
            if e["kind"] == "cgroup" and Path(e["path"]).name == f"hawser-{host.machine}"
        ]
        for entry in self._processes(name):
            # nspawn takes SIGTERM as a wish for an orderly shutdown (systemd-nspawn(1), --kill-signal).
            if not process.end(entry["pid"], entry["started"], grace=_SHUTDOWN_SECONDS):
                raise LabError(f"Host {name} does not shut down.", "See its console.log.")
        for entry in (*groups, {"kind": "interface", "name": network.host_interface(host.machine)}):
            remove(entry)

    def power_on(self, name: str) -> Host:
        """Boot a host again that was shut down, and wait until it is ready."""
        host = self.hosts[name]
        self._start(name, host.machine, self._home(name), host.root)
        host.wait_ready()
        return host

    def image(self, name: str) -> Path:
        """Copy the disk of a host that is shut down, as often as one likes: a path for `HostSpec.image`."""
        if self._supervisor(name) is not None:
            raise LabError(f"Host {name} runs: its disk changes while it is copied.", "Call power_off first.")
        target = self.directory / "images" / f"{name}-{uuid.uuid4().hex[:8]}"
        # What the host has changed; what it has not lies in the base, which nobody changes.
        run(["cp", "--archive", str(self._home(name) / "disk" / "upper"), str(target)])
        return target

    def _boot_all(self, specs: Sequence[HostSpec], healthy: bool = True) -> list[Host]:
        first = self.specs.index(specs[0]) + 1 if specs else 1
        with concurrent.futures.ThreadPoolExecutor(max_workers=_HOSTS_AT_ONCE) as pool:
            hosts = list(pool.map(self._boot, specs, range(first, first + len(specs))))
            self.hosts |= {host.name: host for host in hosts}
            patience = 60 + 3 * len(self.hosts)
            for host, _ in zip(hosts, pool.map(lambda h: h.wait_ready(patience, healthy), hosts), strict=True):
                self._report(f"{host.name} answers at {host.address}")
        # Read now, because a copy of an image may have made its own key at its first boot.
        with self.known_hosts.open("a", encoding="ascii") as known:
            for host in hosts:
                known.write(f"{host.address} {(host.root / _HOST_KEY).read_text(encoding='ascii')}")
        return hosts

    def _home(self, name: str) -> Path:
        return self.directory / "hosts" / name

    def _boot(self, spec: HostSpec, number: int) -> Host:
        home, machine = self._home(spec.name), f"{self.name}-{number}"
        address = self._address(number)
        root = self._lay_out(spec, home)
        own_address = f"{address}/{self.network.prefixlen}"
        if spec.image is None:
            _personalise(home, root, spec, own_address, self.private_key)
        _plug_in(root, spec, own_address)
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
        lower = ":".join(str(layer) for layer in (spec.image, base.path(self.cache)) if layer is not None)
        layers = f"lowerdir={lower},upperdir={disk / 'upper'},workdir={disk / 'work'}"
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

    def _processes(self, name: str) -> list[Entry]:
        return [e for e in self.ledger.entries() if e["kind"] == "process" and e["name"] == f"host {name}"]

    def _supervisor(self, name: str) -> int | None:
        started = self._processes(name)
        if not started or not process.alive(started[-1]["pid"], started[-1]["started"]):
            return None
        return int(started[-1]["pid"])

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
    """What is on the disk of a host that was installed for itself: machine id, name, keys."""
    etc = root / "etc"
    (etc / "machine-id").write_text(uuid.uuid4().hex + "\n", encoding="ascii")
    (etc / "hostname").write_text(spec.name + "\n", encoding="ascii")
    (etc / "hosts").write_text(
        f"127.0.0.1 localhost\n::1 localhost\n{address.partition('/')[0]} {spec.name}\n", encoding="ascii"
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


def _plug_in(root: Path, spec: HostSpec, address: str) -> None:
    """What is the machine's and not the disk's: its place in the network, and its hardware."""
    # The number decides: systemd's own 80-container-host0.network would ask for DHCP.
    (root / "etc" / "systemd" / "network" / "10-host0.network").write_text(
        f"[Match]\nName=host0\n\n[Network]\nAddress={address}\nLinkLocalAddressing=no\nIPv6AcceptRA=no\nLLDP=no\nEmitLLDP=no\n",
        encoding="ascii",
    )
    dmi = root / "etc" / "lab" / "dmi"
    dmi.mkdir(exist_ok=True)
    for file, content in spec.hardware().items():
        (dmi / file).write_text(content + "\n", encoding="utf-8")
        (dmi / file).chmod(0o400 if file in {"product_uuid", "product_serial"} else 0o444)
