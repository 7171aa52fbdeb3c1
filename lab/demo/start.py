# SPDX-License-Identifier: Apache-2.0
"""Starts the demo, step by step, each with its elapsed time; again, it only rolls out again and shows the fleet."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import os
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab import process
from lab.demo import handout, preflight
from lab.demo.layout import ROOT, Layout
from lab.errors import LabError
from lab.fleet import Lab
from lab.ledger import Ledger, destroy

Report = Callable[[str], None]


class Steps:
    """Prints a step, and how long it took."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, line: str) -> None:
        print(f"[{time.monotonic() - self._start:6.1f} s] {line}", flush=True)


def check(layout: Layout, hosts: int, port: int) -> list[preflight.Problem]:
    """What stands in the way; nothing does where the demo runs already."""
    problems = preflight.judge_request(os.geteuid(), hosts, port)
    if problems:
        return problems
    if layout.running.exists():
        return []
    facts = preflight.look(layout, port, os.environ)
    if layout.ledger.exists():
        # What is there was made by an interrupted start of our own, which the next start removes.
        facts = preflight.Facts(**{**vars(facts), "bridge_exists": False, "port_free": True})
    return preflight.judge(facts, hosts, port)


def start(layout: Layout, hosts: int, port: int) -> None:
    """Start the demo, or bring a running one up to date.

    :raises LabError: with the remedy; what was made is in the ledger, and `stop` removes it.
    """
    report = Steps()
    package = build(layout, report)
    settings = {"hosts": hosts, "port": port}
    if layout.running.exists():
        lab = _running(layout, settings, report)
    else:
        if layout.ledger.exists():
            report("removing what an interrupted start left")
            stop(layout, report)
        lab = _fresh(layout, hosts, port, package, report)
    access = handout.Access(**json.loads(layout.principal.read_text(encoding="utf-8")))
    ensure_user(layout)
    machines = list(lab.hosts.values())
    values = handout.variables(access, layout, layout.secret.read_text(encoding="utf-8").strip())
    write(layout.inventory, handout.inventory(access, layout, machines, package))
    write(layout.ansible_config, handout.ansible_config(layout, hosts))
    write(layout.ssh_config, handout.ssh_config(machines))
    write(layout.environment, handout.shell(values, layout.programs))
    write(layout.connection, json.dumps(handout.connection(access, layout, machines), indent=2) + "\n")
    install_collection(layout, report)
    report(f"rolling the agent out to {hosts} hosts: ansible-playbook hawser.machine.site")
    roll_out(layout, values)
    report("rolled out")
    print()
    print(handout.fleet(hub_json(layout, ["machines", "--json"]), datetime.now(UTC)))
    print()
    print(handout.web_page(access, layout))
    print()
    print(handout.suggestions(machines[0]))


@contextmanager
def alone(layout: Layout) -> Iterator[None]:
    """No other command makes or removes this demo meanwhile.

    :raises LabError: one does.
    """
    layout.cache.mkdir(parents=True, exist_ok=True)
    with (layout.cache / f"{layout.name}.lock").open("wb") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError(
                "Another make demo or make demo-stop is at work here.", "Wait for its end, or end it with Ctrl-C."
            ) from None
        yield


def stop(layout: Layout, report: Report) -> None:
    """Remove everything that the demo made, and nothing else."""
    if not layout.ledger.exists():
        report("nothing to stop: no demo was started here")
        return
    destroy(layout.ledger, report)
    left = sorted(path.name for path in layout.top.iterdir())
    if left:
        report(f"kept, for the demo did not make it: {', '.join(left)} in {layout.top}")
    else:
        layout.top.rmdir()
    report("the demo is gone")


def build(layout: Layout, report: Report) -> handout.Package:
    """The agent's package and the collection, built unless they are current."""
    report("building packages")
    builder = [
        str(layout.programs / "python"),
        str(ROOT / "packaging" / "build_packages.py"),
        "--out",
        str(layout.dist),
    ]
    done = subprocess.run(builder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(done.stderr.strip(), "Mend that and start again.")
    packages = list(layout.dist.glob("azcmagent_*_all.deb"))
    if len(packages) != 1:
        raise LabError(f"{layout.dist} holds {len(packages)} agent packages.", "Empty it and start again.")
    path = packages[0]
    return handout.Package(path, hashlib.sha256(path.read_bytes()).hexdigest(), path.name.split("_")[1])


def _fresh(layout: Layout, hosts: int, port: int, package: handout.Package, report: Report) -> Lab:
    problems = check(layout, hosts, port)
    if problems:
        raise LabError(problems[0].sentence, problems[0].remedy)
    layout.top.mkdir(mode=0o700, parents=True, exist_ok=True)
    names = [f"web{number:02d}" for number in range(1, hosts + 1)]
    lab = Lab(layout.top, name=layout.name, hosts=names, cache=layout.cache, report=report)
    lab.ledger.begin()
    for tree in layout.trees():
        lab.ledger.record("tree", path=str(tree))
        tree.mkdir(mode=0o700)
    for file in layout.files():
        lab.ledger.record("file", path=str(file))
    lab.prepare()
    start_hub(layout, lab.ledger, f"https://{lab.gateway}:{port}", report)
    report(f"booting {hosts} hosts ({package.path.name} comes with the playbook)")
    lab.boot()
    lab.save()
    write(layout.running, json.dumps({"hosts": hosts, "port": port}))
    return lab


def _running(layout: Layout, settings: Mapping[str, int], report: Report) -> Lab:
    before = json.loads(layout.running.read_text(encoding="utf-8"))
    if before != settings:
        raise LabError(
            f"A demo with {before['hosts']} hosts on port {before['port']} is running.", "Run make demo-stop first."
        )
    for entry in Ledger(layout.ledger).entries():
        if entry["kind"] == "process" and not process.alive(entry["pid"], entry["started"]):
            raise LabError(f"The process of {entry['name']} has ended.", "Run make demo-stop, then make demo.")
    report("the demo is running; it is brought up to date")
    return Lab.attach(layout.top, cache=layout.cache, report=report)


def start_hub(layout: Layout, ledger: Ledger, url: str, report: Report) -> None:
    """Make a hub, start it, create the principal that people use."""
    report(f"starting the hub at {url}")
    made = hub_json(layout, ["init", "--url", url, "--location", f"{handout.LOCATION}=This machine", "--json"])
    make_repository(layout)
    profile = hub_json(layout, ["cloud-profile", "--name", "demo"])
    write(layout.profile, json.dumps(profile, indent=2) + "\n", mode=0o644)
    write(layout.ca, profile["ca_pem"], mode=0o644)
    system = Path("/etc/ssl/certs/ca-certificates.crt")
    others = system.read_text(encoding="utf-8") if system.exists() else ""
    write(layout.ca_bundle, others + profile["ca_pem"], mode=0o644)
    create = ["principal", "create", "demo", "--role", "owner", "--secret-file", str(layout.secret), "--json"]
    principal = hub_json(layout, create)
    access = {
        "url": url,
        "tenant_id": made["tenantId"],
        "subscription_id": made["subscriptionId"],
        "client_id": principal["clientId"],
    }
    write(layout.principal, json.dumps(access))
    listen = url.removeprefix("https://")
    argv = [*hub_command(layout), "serve", "--listen", listen]
    with layout.hub_log.open("wb") as log:
        started = ledger.spawn("hub", argv, output=log, directory=layout.top)
    wait_healthy(url, layout.ca, started, layout.hub_log)


def make_repository(layout: Layout) -> None:
    """An empty repository of packages, so that machines trust it from the first day on (docs/operations.md)."""
    keys = layout.artefact_keys
    hub_json(layout, ["artefacts", "keys", str(keys), "--json"])
    public = ["--root-key", str(keys / "root.pub"), "--targets-key", str(keys / "targets.pub")]
    hub_json(layout, ["artefacts", "init", *public, "--json"])
    hub_json(layout, ["artefacts", "sign", "--keys", str(keys), "--json"])
    hub_json(layout, ["artefacts", "publish", "--json"])


def ensure_user(layout: Layout) -> None:
    """The person who may sign in to the fleet page, with a password of his own; made once."""
    if layout.web_password.exists():
        return
    hub_json(
        layout,
        [
            "user",
            "create",
            handout.WEB_USER,
            "--role",
            "owner",
            "--new-password-file",
            str(layout.web_password),
            "--json",
        ],
    )


def hub_command(layout: Layout) -> list[str]:
    """Start of a command line of `hawser-hub` on the demo's data."""
    return [str(layout.programs / "hawser-hub"), "--data", str(layout.hub)]


def hub_json(layout: Layout, arguments: Sequence[str]) -> Any:
    """Run `hawser-hub` and read the JSON it prints."""
    done = subprocess.run([*hub_command(layout), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"hawser-hub {arguments[0]} failed: {done.stderr.strip()}", f"See {layout.hub_log}.")
    return json.loads(done.stdout)


def wait_healthy(url: str, ca: Path, started: subprocess.Popen[bytes], log: Path, seconds: float = 30) -> None:
    """Until /healthz of a hub answers 200."""
    context = ssl.create_default_context(cafile=str(ca))
    connection = http.client.HTTPSConnection(url.removeprefix("https://"), timeout=5, context=context)
    deadline = time.monotonic() + seconds
    while True:
        try:
            connection.request("GET", "/healthz")
            if connection.getresponse().status == 200:
                return
        except (http.client.HTTPException, OSError):
            pass
        finally:
            connection.close()
        if started.poll() is not None or time.monotonic() > deadline:
            words = log.read_text(encoding="utf-8", errors="replace").strip()[-600:]
            raise LabError(f"The hub does not answer at {url}: {words or 'it said nothing'}.", f"See {log}.")
        time.sleep(0.1)


def install_collection(layout: Layout, report: Report) -> None:
    """Install the collection's artefact, unless that very one is installed."""
    artefact = next(layout.dist.glob("hawser-machine-*.tar.gz"))
    digest = hashlib.sha256(artefact.read_bytes()).hexdigest()
    stamp = layout.collections / ".artefact"
    if stamp.exists() and stamp.read_text(encoding="ascii") == digest:
        return
    report(f"installing {artefact.name}")
    galaxy = str(layout.programs / "ansible-galaxy")
    argv = [galaxy, "collection", "install", "--offline", "--force", "-p", str(layout.collections), str(artefact)]
    environment = {**os.environ, "ANSIBLE_HOME": str(layout.ansible_home), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise LabError(f"{artefact.name} does not install: {done.stderr.strip()[-600:]}", "Mend that and start again.")
    stamp.write_text(digest, encoding="ascii")


def roll_out(layout: Layout, values: Mapping[str, str]) -> None:
    """Run the playbook; its progress goes straight to the terminal."""
    path = f"{layout.programs}:{os.environ.get('PATH', os.defpath)}"
    argv = [str(layout.programs / "ansible-playbook"), "hawser.machine.site"]
    done = subprocess.run(argv, check=False, cwd=layout.top, env={**os.environ, **values, "PATH": path})
    if done.returncode != 0:
        remedy = (
            f"Its output says why; see also {layout.hub_log} and, on a host, azcmagent show. Then run make demo again."
        )
        raise LabError(f"The playbook ended with {done.returncode}.", remedy)


def write(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write a file as a whole, readable by its owner alone unless said otherwise."""
    part = path.with_name(path.name + ".part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    part.chmod(mode)
    part.replace(path)
