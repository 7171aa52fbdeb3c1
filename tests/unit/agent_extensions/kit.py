# SPDX-License-Identifier: Apache-2.0
"""A machine with extd on it, a folder of packages, and handlers in shell that do what a test says."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from agent_runtime.extensions.engine import Engine
from agent_runtime.extensions.layout import Layout
from agent_runtime.extensions.timing import Timing
from agent_runtime.extensions.watch import Watch
from agent_runtime.platform import paths as places
from agent_runtime.service.desired import Host
from agent_runtime.service.log import Log
from agent_runtime.service.loop import Loop, Timeout, sleep
from agent_runtime.state import config
from agent_runtime.workers import keys
from tests.unit.agent_extensions.extd import Doubles
from tests.unit.agent_services.courier import CHECKOUT, VM_ID, Courier, Machine, Service, b64, sign
from tests.waiting import until

QUICK = {
    "status_first": 0.1,
    "status_works": 0.2,
    "status_most": 0.4,
    "status_pause": 0.05,
    "dependency": 5,
    "dependency_look": 0.1,
    "report": 0.1,
    "download_pause": 0.1,
    "clock": 0.1,
    "failure": 0.2,
    "heartbeat": 0.1,
}
# What a handler does: it writes down who called it and how, then what the test has put into its way, then its status.
HANDLER = """#!/bin/sh
root='{root}'
version='{version}'
operation=$1
own=${{ConfigExtensionName:+$ConfigExtensionName.}}
status="$AZURE_GUEST_AGENT_EXTENSION_PATH/status/$own$ConfigSequenceNumber.status"
say() {{
    cat >"$status.new" <<END
[{{"version": 1.0, "timestampUTC": "2026-01-01T00:00:00Z", "status": {{"name": "fake", "operation": "$operation",
"status": "$1", "code": $2, "formattedMessage": {{"lang": "en", "message": "$3"}}}}}}]
END
    mv "$status.new" "$status"
}}
{{
    printf '%s' "$operation $version|seq=$ConfigSequenceNumber|ext=$ConfigExtensionName|new=$VERSION"
    printf '%s' "|old=$AZURE_GUEST_AGENT_UPDATING_FROM_VERSION|un=$AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE"
    printf '%s' "|off=$AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODE"
    printf '%s\n' "|offs=$AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODES_MULTIPLE_EXTENSIONS"
}} >>"$root/calls"
for way in "$operation" "$operation-$version" "$operation-$ConfigExtensionName"; do
    [ ! -f "$root/way/$way" ] || . "$root/way/$way"
done
if [ "$operation" = enable ]; then
    echo "$ConfigSequenceNumber" >"$AZURE_GUEST_AGENT_EXTENSION_PATH/${{own}}mrseq"
    say success 0 "done $ConfigSequenceNumber"
fi
exit 0
"""
COMMANDS = ("install", "enable", "disable", "update", "uninstall")


@functools.cache
def _settings_key() -> tuple[tuple[str, bytes], ...]:
    """A key takes a second to make; every machine of the tests has the same one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "settings.key"
        csr = keys.make_key({"path": str(path), "name": "extd"})["csr"]
        return (("settings.key", path.read_bytes()), ("settings.csr", csr.encode()))


class Extd(Service):
    """extd as a real process, packages coming from a folder."""

    def __init__(self, site: Site, **times: float) -> None:
        program = Path(__file__).with_name("extd.py")
        environment = {**os.environ, "EXTD_TIMING": json.dumps({**QUICK, **times})}
        command = [sys.executable, str(program), "--root", str(site.root)]
        self.process = subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.PIPE, env=environment)


class Hub(Courier):
    """An honest himds that keeps what it is told. A thread answers, so that no test has to."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.reports: list[dict[str, Any]] = []
        self.told: list[dict[str, Any]] = []
        self.hello: dict[str, Any] = {}
        self._pushed: dict[str, str] = {}
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                self.hello = self.welcome()
                for kind, document in list(self._pushed.items()):
                    self.push(document, kind)
                while True:
                    report = self.report()
                    if "extensions" in report["data"] or "desired" in report["data"]:
                        self.reports.append(report["data"])
                    if "runCommands" in report["data"]:
                        assert report["kind"] == "runcommands"
                        self.told.append(report["data"])
            except (OSError, AssertionError):
                if self.listener.fileno() < 0:
                    return

    def give(self, document: str, kind: str = "extensions") -> None:
        """Pushes a document, now and to every service that says hello."""
        self._pushed[kind] = document
        if self.hello:
            with contextlib.suppress(OSError):  # of the service that has ended; the next one says hello
                self.push(document, kind)

    def last(self) -> dict[str, dict[str, Any]]:
        """Extensions by name in the last report."""
        found = [report for report in self.reports if "extensions" in report]
        return {entry["name"]: entry for entry in found[-1]["extensions"]} if found else {}

    def wait(self, name: str, state: str, **members: Any) -> dict[str, Any]:
        """The entry of an extension once it is in a state."""

        def probe() -> dict[str, Any] | None:
            entry = self.last().get(name)
            good = entry and entry["state"] == state and all(entry[key] == value for key, value in members.items())
            return entry if good else None

        try:
            found: dict[str, Any] = until(probe, f"{name} is {state}")
        except AssertionError:
            raise AssertionError(f"{name} is not {state} {members}: {self.last().get(name)}") from None
        return found

    def command(self, name: str) -> dict[str, Any] | None:
        """A run command in the last report."""
        listed = self.told[-1]["runCommands"] if self.told else []
        return next((entry for entry in listed if entry["name"] == name), None)

    def ends(self, name: str, state: str, sequence: int = 0) -> dict[str, Any]:
        """The entry of a run command once it is in a state."""

        def probe() -> dict[str, Any] | None:
            entry = self.command(name)
            return entry if entry and (entry["executionState"], entry["sequence"]) == (state, sequence) else None

        try:
            found: dict[str, Any] = until(probe, f"{name} is {state}")
        except AssertionError:
            raise AssertionError(f"{name} is not {state}: {self.command(name)}") from None
        return found

    def gone(self, name: str) -> None:
        until(lambda: self.reports and name not in self.last(), f"{name} is gone")


class Site(Machine):
    """A machine below `root` whose cloud names a root of trust for packages."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        profile = json.loads((self.state / "clouds/demo.json").read_text())
        profile.update({"tuf_root": "{}", "artefacts": ["https://hub.test/artefacts"], "ca_pem": ""})
        (self.state / "clouds/demo.json").write_text(json.dumps(profile))
        (root / "way").mkdir()
        keys = self.folder("extensions") / "keys"
        keys.mkdir(parents=True, mode=0o700)
        for name, content in _settings_key():
            (keys / name).write_bytes(content)
        (keys / "machine.json").write_text(json.dumps({"v": 1, "machine": VM_ID}))
        self.generation = 0

    @property
    def csr(self) -> str:
        return (self.folder("extensions") / "keys/settings.csr").read_text()

    # -- handlers

    def asked(self) -> int:
        """How often a package that comes slowly was asked for."""
        path = self.root / "repo/asked"
        return path.stat().st_size if path.exists() else 0

    def package(
        self,
        version: str = "1.0.0",
        kind: str = "Fake",
        manifest: dict[str, Any] | None = None,
        files: dict[str, bytes] | None = None,
        **custom: Any,
    ) -> None:
        """Puts a version of Test.KIND into the repository."""
        folder = self.root / f"repo/extensions/Test.{kind}/{version}"
        folder.mkdir(parents=True, exist_ok=True)
        script = HANDLER.format(root=self.root, version=version).encode()
        commands = {f"{name}Command": f"/bin/handler.sh {name}" for name in COMMANDS}
        body = [{"version": 1.0, "handlerManifest": {**commands, **(manifest or {})}}]
        content = {"HandlerManifest.json": json.dumps(body).encode(), "bin/handler.sh": script, **(files or {})}
        with zipfile.ZipFile(folder / "linux.zip", "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
        told = {
            "kind": "extension",
            "publisher": "Test",
            "type": kind,
            "version": version,
            "os": "linux",
            "arch": "any",
        }
        (folder / "custom.json").write_text(json.dumps({**told, **custom}))

    def way(self, operation: str, script: str) -> None:
        """What a handler does before it goes on: shell, by operation, OPERATION-VERSION or OPERATION-EXTENSION."""
        (self.root / "way" / operation).write_text(script)

    def free(self, operation: str) -> None:
        (self.root / "way" / operation).unlink()

    def calls(self) -> list[str]:
        """`OPERATION VERSION` of every call of a handler."""
        return [line.partition("|")[0] for line in self.full_calls()]

    def full_calls(self) -> list[str]:
        path = self.root / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def folder_of(self, version: str = "1.0.0", kind: str = "Fake") -> Path:
        return self.root / f"var/lib/waagent/Test.{kind}-{version}"

    def record(self, kind: str = "Fake") -> dict[str, Any] | None:
        path = self.folder("extensions") / "handlers.json"
        found = json.loads(path.read_text())["handlers"] if path.exists() else {}
        record: dict[str, Any] | None = found.get(f"test.{kind}".lower())
        return record

    # -- documents

    def document(self, *extensions: dict[str, Any], certificates: dict[str, str] | None = None, **changes: Any) -> str:
        self.generation += 1
        content = {"extensions": list(extensions), "certificates": certificates or {}}
        return sign(self.key, kind="extensions", content=content, generation=self.generation, **changes)

    def commands(self, *commands: dict[str, Any], **changes: Any) -> str:
        """A document of kind runcommands."""
        self.generation += 1
        content = {"runCommands": list(commands), "certificates": {}}
        return sign(self.key, kind="runcommands", content=content, generation=self.generation, **changes)


class Desk:
    """The engine in this process, with a document in its hand: for what needs no service around it."""

    def __init__(self, site: Site, loop: Loop, **times: float) -> None:
        self.site = site
        self.reports: list[dict[str, Any]] = []
        self.payload: dict[str, Any] | None = None
        self.own: dict[str, Any] = {}
        paths = places.linux(str(site.root))
        log = Path(paths.gc_ext_log)
        log.parent.mkdir(parents=True, exist_ok=True)
        profile = json.loads((site.state / "clouds/demo.json").read_text())
        host = Host(
            loop,
            paths,
            Log(str(log)),
            self._kept,
            lambda: profile,
            lambda: (self.own, dict(config.effective(self.own))),
            self._report,
        )
        timing = Timing(**{**QUICK, **times})  # type: ignore[arg-type]
        self.engine = Engine(host, Doubles(loop, site.root / "repo").call, timing)

    def _kept(self, kind: str) -> dict[str, Any] | None:
        return self.payload if kind == "extensions" else None

    def _report(self, kind: str, data: dict[str, Any]) -> None:
        assert kind == "extensions"
        self.reports.append(data)

    def give(self, *extensions: dict[str, Any], certificates: dict[str, str] | None = None, **changes: Any) -> None:
        self.site.generation += 1
        content = {"extensions": list(extensions), "certificates": certificates or {}}
        head = {"machine": "m", "generation": self.site.generation, "exp": time.time() + 3600}
        self.payload = {**head, "content": content, **changes}
        self.engine.look()

    def configure(self, **values: Any) -> None:
        self.own = {name.replace("_", "."): value for name, value in values.items()}
        self.engine.look()

    def last(self) -> dict[str, dict[str, Any]]:
        return {entry["name"]: entry for entry in self.reports[-1]["extensions"]} if self.reports else {}

    async def until(self, probe: Callable[[], Any], what: str) -> Any:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            found = probe()
            if found:
                return found
            await sleep(0.01)
        raise AssertionError(f"not within 20 s: {what}: {self.last()}")

    async def wait(self, name: str, state: str, **members: Any) -> dict[str, Any]:
        def probe() -> dict[str, Any] | None:
            entry = self.last().get(name)
            now = self.reports and self.reports[-1]["generation"] == self.site.generation
            good = now and entry and entry["state"] == state
            return entry if good and entry and all(entry[key] == value for key, value in members.items()) else None

        found: dict[str, Any] = await self.until(probe, f"{name} is {state} {members}")
        return found

    async def idle(self) -> None:
        """Waits until the plan has ended."""
        plan = self.site.folder("extensions") / "plan.json"
        await self.until(lambda: not plan.exists(), "the plan has ended")


def live(site: Site, scenario: Callable[[Desk], Awaitable[None]], **times: float) -> None:
    """Runs a scenario beside the engine, which is then stopped as by SIGTERM."""
    failures: list[BaseException] = []
    loop = Loop(lambda *told: failures.append(told[1]))
    desk = Desk(site, loop, **times)

    async def act() -> None:
        try:
            with Timeout(loop, 60):
                await scenario(desk)
        finally:
            loop.stop()

    loop.spawn(desk.engine.run(), "engine")
    task = loop.spawn(act(), "scenario")
    loop.run()
    if task.error is not None:
        raise task.error
    assert not failures, failures


def wish(
    name: str = "fake", version: str = "1.0.0", sequence: int = 0, kind: str = "Fake", **more: Any
) -> dict[str, Any]:
    """An entry of a document."""
    return {
        "name": name,
        "publisher": "Test",
        "type": kind,
        "version": version,
        "incarnation": "17-1790000000",
        "sequence": sequence,
        "publicSettings": None,
        "protectedSettings": None,
        "protectedSettingsCertThumbprint": None,
        "dependencyLevel": 0,
        "rollbackTo": None,
        "package": {"path": f"extensions/Test.{kind}/{version}/linux.zip"},
        "rollbackPackage": None,
        **more,
    }


def command(script: str, name: str = "run", sequence: int = 0, **more: Any) -> dict[str, Any]:
    """An entry of a document of kind runcommands."""
    return {
        "name": name,
        "incarnation": "17-1790000000",
        "sequence": sequence,
        **({} if "scriptUri" in more else {"script": script}),
        "parameters": [],
        "protected": None,
        "protectedSettingsCertThumbprint": None,
        "runAsUser": None,
        "timeoutSeconds": None,
        "asyncExecution": False,
        "outputBlobUri": None,
        "errorBlobUri": None,
        **more,
    }


def certificate_of(csr: str) -> tuple[str, str]:
    """Thumbprint and PEM of a certificate for a request."""
    request = x509.load_pem_x509_csr(csr.encode())
    issuer = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")]))
        .public_key(request.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(issuer, hashes.SHA256())
    )
    thumbprint = hashlib.sha1(made.public_bytes(serialization.Encoding.DER)).hexdigest().upper()  # noqa: S324
    return thumbprint, made.public_bytes(serialization.Encoding.PEM).decode()


def envelope(pem: str, text: str, folder: Path) -> str:
    """`text` encrypted to a certificate, as the hub does it."""
    (folder / "recipient.crt").write_text(pem)
    command = ["openssl", "cms", "-encrypt", "-aes256", "-outform", "DER", "-binary", str(folder / "recipient.crt")]
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=True)
    return base64.b64encode(done.stdout).decode()


__all__ = ["Desk", "Extd", "Hub", "Site", "b64", "certificate_of", "command", "envelope", "live", "until", "wish"]


def nobody(*_: object) -> None:
    """Hears nothing."""


def watching(
    folder: Path,
    problems: list[BaseException],
    judged: Callable[..., None] = nobody,
    heard: Callable[..., None] = nobody,
) -> tuple[Loop, Watch]:
    """The watch over what handlers write below `folder`, on a loop that a problem ends."""

    def ended(_: str, problem: BaseException) -> None:
        problems.append(problem)
        loop.stop()

    loop, layout = Loop(ended), Layout(places.linux(str(folder)))
    return loop, Watch(loop, Log(str(folder / "log")), layout, Timing(), judged, heard, nobody)
