# SPDX-License-Identifier: Apache-2.0
"""Hawser.CustomScript: the real package, run as the manifest says."""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.server
import importlib.util
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.handlers.conftest import ROOT, Instance, nothing_runs, processes_of
from tests.waiting import until

SECRET = "hush-hush-7"


def load(name: str) -> ModuleType:
    """A module of the handler's folder, as its programs see it."""
    folder = str(ROOT / "handlers" / "CustomScript")
    sys.path.insert(0, folder)
    try:
        spec = importlib.util.spec_from_file_location(name, f"{folder}/{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(folder)


contract = load("contract")
wishes = load("wishes")


def coded(text: str, packed: bool = False) -> str:
    content = gzip.compress(text.encode()) if packed else text.encode()
    return base64.b64encode(content).decode()


@dataclass
class Files:
    """An https server; `broken`: so many answers break off in their middle; `raw`: what is sent first, as it is."""

    url: str = ""
    contents: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    broken: int = 0
    raw: list[bytes] = field(default_factory=list)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[Files, str]]:
    """The server and the file with its certificate."""
    made = Files()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            path = self.path.partition("?")[0]
            if made.raw:
                self.wfile.write(made.raw.pop(0))
                return
            content = made.contents.get(path)
            if content is None:
                self.send_error(404)
                return
            if content.startswith(b"http"):
                self.send_response(302)
                self.send_header("Location", content.decode())
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if made.broken:
                made.broken -= 1
                content = content[: len(content) // 2]
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            """Keep the test's output clean."""

    crt, key = tmp_path / "files.crt", tmp_path / "files.key"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=files", "-days", "2"]
    argv += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(crt)]
    subprocess.run(argv, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(crt, key)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    made.url = f"https://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made, str(crt)
    server.shutdown()
    server.server_close()
    thread.join()


def runs(script: Instance, sequence: int) -> None:
    """Wait until the script itself runs."""
    end = time.monotonic() + 20
    while script.message(sequence) != "The script runs.":
        assert time.monotonic() < end, script.message(sequence)
        time.sleep(0.02)


def test_what_has_not_begun_does_not_begin(script: Instance, tmp_path: Path) -> None:
    script.settle(0, {"commandToExecute": f"touch {tmp_path}/ran"})
    (script.root / "wanted").write_text("0")
    assert script.run("disable", 0) == (0, "")
    argv = [str(script.root / "handler.py"), "work"]
    subprocess.run(argv, env={"PATH": "/usr/bin:/bin", "ConfigSequenceNumber": "0"}, check=True)
    assert "disabled before" in script.message(0)
    assert not (tmp_path / "ran").exists()


def test_a_command_runs_while_enable_has_returned(script: Instance, tmp_path: Path) -> None:
    assert script.run("install") == (0, "")
    command = f"until [ -e {tmp_path}/go ]; do sleep 0.1; done; echo out; echo err >&2"
    assert script.enable(0, {"commandToExecute": command}) == (0, "")
    assert script.status(0)["status"] == "transitioning"
    (tmp_path / "go").touch()
    status = script.ends(0)
    assert (status["status"], status["code"]) == ("success", 0)
    assert script.message(0) == "The script ended with the exit code 0.\n[stdout]\nout\n\n[stderr]\nerr\n"
    shown = {part["name"]: part["formattedMessage"]["message"] for part in status["substatus"]}
    assert shown == {"StdOut": "out\n", "StdErr": "err\n"}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", ["public", "protected"])
def test_a_script_runs(script: Instance, packed: bool, place: str) -> None:
    text = "#!/usr/bin/python3\r\nprint('a' + 'b')\r\n"
    public, protected = {"script": coded(text, packed)}, None
    if place == "protected":
        public, protected = {}, {"script": coded(text, packed)}
    script.enable(0, public, protected)
    assert script.ends(0)["status"] == "success"
    assert "[stdout]\nab\n" in script.message(0)


def test_a_protected_command_is_seen_nowhere(script: Instance) -> None:
    command = f"test {SECRET} = hush-hush-7 && tr '\\0' ' ' </proc/$$/cmdline && sleep 1"
    script.enable(3, None, {"commandToExecute": command})
    seen = set()
    while script.status(3)["status"] == "transitioning":
        for pid in processes_of(script.root):
            with contextlib.suppress(OSError):
                seen.add(Path(f"/proc/{pid}/cmdline").read_bytes())
        time.sleep(0.05)
    assert script.status(3)["status"] == "success", script.message(3)
    assert "/bin/sh" in script.message(3)
    assert seen
    assert not any(SECRET.encode() in line for line in seen)
    assert SECRET not in script.everything_written()
    assert not list((script.root / "download").glob("*.script"))


def test_the_end_of_a_stream_is_kept_and_signatures_are_not(script: Instance) -> None:
    script.enable(0, {"commandToExecute": "seq 1 5000; echo 'https://h/f?sv=1&sig=abc%3D&x=1'; exit 7"})
    status = script.ends(0)
    assert (status["status"], status["code"]) == ("error", 7)
    out = next(part for part in status["substatus"] if part["name"] == "StdOut")["formattedMessage"]["message"]
    assert len(out.encode()) == 4096
    assert out.endswith("4999\n5000\nhttps://h/f?sv=1&sig=***&x=1\n")
    assert len(script.message(0).encode()) < 4096
    assert "abc%3D" not in script.everything_written()


@pytest.mark.parametrize(
    ("public", "protected", "words"),
    [
        ({}, None, "nothing to run"),
        (None, None, "nothing to run"),
        ({"commandToExecute": ""}, {"script": ""}, "nothing to run"),
        ({"commandToExecute": "a", "script": "YQ=="}, None, "Both commandToExecute and script"),
        ({"commandToExecute": "a"}, {"script": "YQ=="}, "Both commandToExecute and script"),
        (
            {"commandToExecute": "a"},
            {"commandToExecute": "a"},
            "commandToExecute stand in the public and in the protected",
        ),
        ({"commandToExecute": "a", "fileUris": ["https://h/a"]}, {"fileUris": ["https://h/a"]}, "fileUris stand in"),
        ({"script": "äö"}, None, "script is neither base64"),
        ({"script": coded("echo a" * 50, packed=True)[:24]}, None, "script is neither base64"),
        ({"script": coded(" \n")}, None, "script is empty"),
        ({"script": coded("a" * (wishes.SCRIPT_LIMIT + 1), packed=True)}, None, "script is empty or larger"),
        ({"commandToExecute": "a", "commandToExcute": "b"}, None, "Unknown settings: commandToExcute"),
        ({"commandToExecute": "a", "timeoutInSeconds": "soon"}, None, "timeoutInSeconds is 'soon'"),
        ({"commandToExecute": "a", "timeoutInSeconds": True}, None, "timeoutInSeconds is True"),
        ({"commandToExecute": "a", "timeoutInSeconds": 0}, None, "from 1 to"),
        ({"commandToExecute": "a", "skipDos2Unix": "perhaps"}, None, "true or false"),
        ({"commandToExecute": "a", "workingDirectory": "here"}, None, "absolute path"),
        ({"commandToExecute": ["a"]}, None, "commandToExecute is no text"),
        ({"commandToExecute": "a", "fileUris": "https://h/a"}, None, "fileUris is no list"),
        ({"commandToExecute": "a", "fileUris": ["http://h/a"]}, None, "Address 1 of fileUris"),
        ({"commandToExecute": "a", "fileUris": ["https://h/a", "https://h/"]}, None, "Address 2 of fileUris"),
        ({"commandToExecute": "a", "fileUris": ["https://h/%2e%2e"]}, None, "Address 1 of fileUris"),
        *(
            (
                {"commandToExecute": "a", "fileUris": [f"https://h/a{blank}b?sig={SECRET}"]},
                None,
                "Write a blank as %20.",
            )
            for blank in (" ", "\t", "\r\n", "\x00", "\x7f")
        ),
        ({"commandToExecute": "a", "fileUris": ["https://h/a", "https://i/a?x"]}, None, "Two addresses"),
        (["a"], None, "publicSettings is no object"),
    ],
)
def test_wrong_settings_are_one_sentence(script: Instance, public: Any, protected: Any, words: str) -> None:
    code, said = script.enable(0, public, protected)
    assert code == 53
    assert words in said
    assert "Traceback" not in said
    status = script.status(0)
    assert (status["status"], status["code"]) == ("error", 53)
    assert words in script.message(0)
    assert not (script.root / "mrseq").exists()
    assert SECRET not in said + script.everything_written()


def test_a_settings_file_without_a_byte_is_no_settings(script: Instance) -> None:
    (script.root / "config" / "0.settings").touch()
    code, said = script.run("enable", 0)
    assert code == 53
    assert "nothing to run" in said


def test_the_number_is_found_where_the_agent_does_not_say_it(script: Instance) -> None:
    script.settle(9, {"commandToExecute": "echo nine"})
    os.utime(script.root / "config" / "9.settings", (1, 1))
    script.settle(2, {"commandToExecute": "echo two"})
    assert script.run("enable") == (0, "")
    assert "two" in (script.ends(2) and script.message(2))


def test_an_envelope_that_is_not_ours(script: Instance) -> None:
    script.settle(0, {}, {"commandToExecute": "true"})
    for path in script.lib.glob("*.prv"):
        subprocess.run(["openssl", "genrsa", "-out", str(path), "2048"], check=True, capture_output=True)
    code, said = script.run("enable", 0)
    assert code == 54
    assert "cannot be decrypted" in said
    for path in script.lib.glob("*.prv"):
        path.unlink()
    code, said = script.run("enable", 0)
    assert code == 54
    assert "is not there" in said


def test_a_machine_without_openssl(script: Instance, tmp_path: Path) -> None:
    script.settle(0, {}, {"commandToExecute": "true"})
    code, said = script.run("enable", 0, PATH=str(tmp_path))
    assert (code, "Install openssl" in said) == (52, True)
    code, said = script.run("install", PATH=str(tmp_path))
    assert (code, "Install openssl" in said) == (52, True)


def test_without_an_environment_file(script: Instance) -> None:
    (script.root / "HandlerEnvironment.json").unlink()
    code, said = script.run("enable", 0)
    assert code == 52
    assert "HandlerEnvironment.json cannot be used" in said


def test_the_same_number_never_runs_twice(script: Instance, tmp_path: Path) -> None:
    wish = {"commandToExecute": f"echo x >>{tmp_path}/ran"}
    for _ in range(3):
        assert script.enable(0, wish)[0] == 0
    script.ends(0)
    before = (script.root / "status" / "0.status").read_text()
    assert script.enable(0, wish) == (0, "")
    assert (script.root / "status" / "0.status").read_text() == before
    script.enable(1, wish)
    script.ends(1)
    assert (tmp_path / "ran").read_text() == "x\nx\n"


def test_a_script_that_was_cut_off_is_said_and_not_repeated(script: Instance, tmp_path: Path) -> None:
    script.enable(0, {"commandToExecute": f"echo x >>{tmp_path}/ran; exec sleep 60"})
    end = time.monotonic() + 20
    while not (tmp_path / "ran").exists() and time.monotonic() < end:
        time.sleep(0.05)
    for pid in processes_of(script.root):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert script.run("enable", 0) == (0, "")
    assert (script.status(0)["status"], script.status(0)["code"]) == ("error", 56)
    assert "not run twice" in script.message(0)
    assert (tmp_path / "ran").read_text() == "x\n"


def test_a_protected_script_that_was_cut_off_is_nowhere_on_the_disk(script: Instance, tmp_path: Path) -> None:
    text = f"#!/bin/sh -e\n# {SECRET}\ntouch {tmp_path}/ran\nsleep 60\n"
    script.enable(0, {}, {"script": coded(text)})
    runs(script, 0)
    while not (tmp_path / "ran").exists():
        time.sleep(0.02)
    for pid in processes_of(script.root):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    found = [path for path in script.lib.parent.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert found == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"#!/bin/sh\n", ["/bin/sh"]),
        (b"#! /usr/bin/env python3 -s \necho", ["/usr/bin/env", "python3 -s"]),
        (b"#!/bin/sh\t-e\r\n", ["/bin/sh", "-e\r"]),
        (b"#!\n", ["/bin/sh"]),
        (b"echo\n#!/bin/cat", ["/bin/sh"]),
        (b"", ["/bin/sh"]),
    ],
)
def test_the_first_line_names_the_interpreter_as_for_the_kernel(content: bytes, words: list[str]) -> None:
    assert wishes.interpreter(content) == words


def test_a_later_wish_waits_and_the_last_one_counts(script: Instance, tmp_path: Path) -> None:
    for sequence in range(3):
        assert script.enable(sequence, {"commandToExecute": f"echo {sequence} >>{tmp_path}/ran; sleep 1"})[0] == 0
        if sequence == 0:
            while not (tmp_path / "ran").exists():
                time.sleep(0.02)
    assert script.ends(2)["status"] == "success"
    assert script.ends(0)["status"] == "success"
    assert script.ends(1)["code"] == 56
    assert "sequence number 2" in script.message(1)
    assert (tmp_path / "ran").read_text() == "0\n2\n"


def test_time_is_up(script: Instance) -> None:
    script.enable(0, {"commandToExecute": "trap '' TERM; echo begun; sleep 60 & wait", "timeoutInSeconds": "1"})
    status = script.ends(0)
    assert (status["status"], status["code"]) == ("error", 56)
    assert "stopped after 1 s" in script.message(0)
    assert "begun" in script.message(0)
    assert script.run("disable")[0] == 0
    nothing_runs(script.root)


def test_disable_waits_then_stops(script: Instance) -> None:
    script.enable(0, {"commandToExecute": "sleep 1; echo done"})
    runs(script, 0)
    assert script.run("disable") == (0, "")
    assert "done" in script.message(0)
    script.enable(1, {"commandToExecute": "sleep 60"})
    runs(script, 1)
    # The same program, less patient.
    program = script.root / "handler.py"
    program.write_text(program.read_text().replace("PATIENCE = 60.0", "PATIENCE = 0.2"))
    assert script.run("disable") == (0, "")
    assert script.status(1)["code"] == 56
    assert processes_of(script.root) == []


def full_disk(script: Instance, mark: Path) -> None:
    """For what `enable` leaves behind the disk is full as long as there is a file `mark`."""
    running = script.root / "running.py"
    running.write_text(running.read_text().replace("ROOM_PAUSE = 5.0", "ROOM_PAUSE = 0.1"))
    with open(script.root / "contract.py", "a", encoding="utf-8") as program:
        program.write(f"""
import errno

_genuine = write


def write(path, content, mode=0o600):
    if sys.argv[1] == "work" and os.path.exists({str(mark)!r}):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    _genuine(path, content, mode)
""")


def test_an_end_that_the_disk_has_no_room_for_is_written_later(script: Instance, tmp_path: Path) -> None:
    full_disk(script, tmp_path / "full")
    script.enable(0, {"commandToExecute": f"touch {tmp_path}/full; echo done; exit 7"})
    until((tmp_path / "full").exists, "the script runs")
    time.sleep(0.5)
    assert script.run("enable", 0) == (0, "")
    assert script.status(0)["status"] == "transitioning"
    (tmp_path / "full").unlink()
    assert script.ends(0)["code"] == 7
    assert "done" in script.message(0)


def test_a_script_whose_number_the_disk_has_no_room_for_runs_later(script: Instance, tmp_path: Path) -> None:
    (tmp_path / "full").touch()
    full_disk(script, tmp_path / "full")
    for sequence in range(2):
        assert script.enable(sequence, {"commandToExecute": f"echo {sequence} >>{tmp_path}/ran"}) == (0, "")
        time.sleep(0.5)
    assert not (tmp_path / "ran").exists()
    (tmp_path / "full").unlink()
    assert script.ends(1)["status"] == "success"
    assert "sequence number 1" in script.message(0)
    assert (tmp_path / "ran").read_text() == "1\n"


def test_nobody_waits_for_room_when_the_extension_goes(script: Instance, tmp_path: Path) -> None:
    full_disk(script, tmp_path / "full")
    program = script.root / "handler.py"
    program.write_text(program.read_text().replace("PATIENCE = 60.0", "PATIENCE = 0.2"))
    script.enable(0, {"commandToExecute": f"touch {tmp_path}/full"})
    until((tmp_path / "full").exists, "the script runs")
    time.sleep(0.5)
    assert processes_of(script.root)
    began = time.monotonic()
    assert script.run("disable") == (0, "")
    assert time.monotonic() - began < 10
    assert processes_of(script.root) == []


def test_what_nobody_expected_quotes_no_address(script: Instance) -> None:
    running = script.root / "running.py"
    running.write_text(running.read_text().replace("    opener = ", "    raise RuntimeError(uri)\n    opener = "))
    uris = [f"https://h/f?sig={SECRET}&X-Signature={SECRET}"]
    script.enable(0, {"commandToExecute": "true"}, {"fileUris": uris})
    assert script.ends(0)["code"] == 56
    nothing_runs(script.root)
    log = (script.logs / "handler.log").read_text()
    assert "raise RuntimeError(uri)\nRuntimeError" in log
    assert SECRET not in script.everything_written()


def test_an_answer_that_is_no_http_is_tried_again(script: Instance, files: tuple[Files, str]) -> None:
    server, script.variables["SSL_CERT_FILE"] = files
    server.contents = {"/f": b"whole"}
    server.raw = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhal", b"no HTTP\r\n\r\n"]
    script.enable(0, {"commandToExecute": "cat f", "fileUris": [f"{server.url}/f?sig={SECRET}"]})
    assert script.ends(0)["status"] == "success", script.message(0)
    assert "whole" in script.message(0)
    assert len(server.asked) == 3
    assert "Traceback" not in (script.logs / "handler.log").read_text()


@pytest.mark.parametrize("address", ["https://me:{secret}@h/f", "https://h:{secret}/f"])
def test_an_address_that_cannot_be_asked_is_not_quoted(script: Instance, address: str) -> None:
    script.enable(0, {"commandToExecute": "true"}, {"fileUris": [address.format(secret=SECRET)]})
    assert script.ends(0)["code"] == 55
    assert "f cannot be fetched: no whole answer (InvalidURL)" in script.message(0)
    assert SECRET not in script.everything_written()


def test_a_broken_download_is_tried_again(script: Instance, files: tuple[Files, str]) -> None:
    server, script.variables["SSL_CERT_FILE"] = files
    server.contents = {"/a/run.sh": b"\xef\xbb\xbf#!/bin/sh\r\ncat data.bin\r\n", "/data.bin": b"one\r\n" * 100}
    server.broken = 1
    uris = [f"{server.url}/a/run.sh?sig={SECRET}", f"{server.url}/data.bin"]
    script.enable(0, {"commandToExecute": "./run.sh | wc -c; grep -c '\r' data.bin"}, {"fileUris": uris})
    assert script.ends(0)["status"] == "success", script.message(0)
    assert "500\n100\n" in script.message(0)
    assert len(server.asked) == 3
    assert SECRET not in script.everything_written()


@pytest.mark.parametrize("converts", [True, False])
def test_carriage_returns(script: Instance, files: tuple[Files, str], converts: bool) -> None:
    server, script.variables["SSL_CERT_FILE"] = files
    server.contents = {"/run.sh": b"#!/bin/sh\r\ntrue\r\n"}
    wish = {
        "fileUris": [f"{server.url}/run.sh"],
        "commandToExecute": "wc -c <run.sh",
        "skipDos2Unix": str(not converts),
    }
    script.enable(0, wish)
    script.ends(0)
    assert f"[stdout]\n{15 if converts else 17}\n" in script.message(0)


@pytest.mark.parametrize(
    ("path", "trusted", "words"),
    [
        ("/missing", True, "missing cannot be fetched: HTTP status 404"),
        ("/away", True, "leads away from https"),
        ("/fine", False, "CERTIFICATE_VERIFY_FAILED"),
    ],
)
def test_a_file_that_cannot_be_fetched(
    script: Instance, files: tuple[Files, str], path: str, trusted: bool, words: str
) -> None:
    server, certificate = files
    server.contents = {"/away": b"http://127.0.0.1:1/x", "/fine": b"x"}
    if trusted:
        script.variables["SSL_CERT_FILE"] = certificate
    script.enable(0, {"commandToExecute": "true", "fileUris": [f"{server.url}{path}?sig={SECRET}"]})
    assert script.ends(0)["code"] == 55
    assert words in script.message(0)
    assert SECRET not in script.everything_written()


def test_a_working_directory(script: Instance, tmp_path: Path) -> None:
    script.enable(0, {"commandToExecute": "pwd", "workingDirectory": str(tmp_path)})
    script.ends(0)
    assert f"[stdout]\n{tmp_path}\n" in script.message(0)
    script.enable(1, {"commandToExecute": "pwd", "workingDirectory": "/nowhere"})
    assert script.ends(1)["code"] == 53


@pytest.mark.parametrize("direction", ["up", "down"])
def test_an_update_does_not_run_old_settings(script: Instance, packages: Path, tmp_path: Path, direction: str) -> None:
    script.enable(4, {"commandToExecute": f"echo x >>{tmp_path}/ran"})
    script.ends(4)
    other = Instance(script.lib, script.package, "1.0.1" if direction == "up" else "0.9.0")
    if direction == "up":
        told = {"VERSION": other.version, "AZURE_GUEST_AGENT_UPDATING_FROM_VERSION": script.version}
        assert other.run("update", 4, **told) == (0, "")
    else:
        told = {"VERSION": other.version, "AZURE_GUEST_AGENT_UPDATING_FROM_VERSION": other.version}
        assert script.run("update", 4, **told) == (0, "")
    assert script.run("uninstall", 4) == (0, "")
    other.settle(4, {"commandToExecute": f"echo x >>{tmp_path}/ran"})
    assert other.run("enable", 4) == (0, "")
    time.sleep(0.5)
    assert (tmp_path / "ran").read_text() == "x\n"


def test_a_command_that_is_none(script: Instance) -> None:
    done = subprocess.run([str(script.root / "handler.py"), "explode"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Usage" in done.stderr


@given(
    st.dictionaries(
        st.sampled_from([*wishes.PUBLIC, "other"]), st.none() | st.text() | st.integers() | st.lists(st.text())
    ),
    st.dictionaries(st.sampled_from(wishes.PROTECTED), st.text(min_size=4) | st.lists(st.text())),
)
def test_any_settings_are_a_wish_or_one_sentence(public: dict[str, Any], protected: dict[str, Any]) -> None:
    try:
        wish, refused = wishes.parse(public, protected), None
    except contract.HandlerError as error:
        wish, refused = None, error
    if refused:
        assert refused.code == 53
        assert "\n" not in str(refused)
    else:
        assert (wish.command is None) != (wish.script is None)
        assert all("/" not in name for name, _uri in wish.files)


@given(st.binary())
def test_only_scripts_are_converted(content: bytes) -> None:
    assert wishes.without_carriage_returns("data.bin", b"\x00" + content) == b"\x00" + content
    script = wishes.without_carriage_returns("x", b"#!" + content)
    assert b"\r\n" not in script
    assert wishes.without_carriage_returns("x", script) == script
