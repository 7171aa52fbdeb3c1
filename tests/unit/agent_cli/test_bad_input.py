# SPDX-License-Identifier: Apache-2.0
"""Bad input at the command line: the documented code, one sentence with a remedy, and nothing half-made."""

from __future__ import annotations

import json
import os

import pytest

from tests.unit.agent_cli.conftest import GUID, Machine

SECRET = "hunter2-hunter2"
PLACE = ["-s", GUID, "-g", "rg", "-l", "local"]
TOKEN = ["--access-token", SECRET]

COMMANDS: list[tuple[list[str], int, str]] = [
    (["bogus"], 101, "no command 'bogus'"),
    (["show", "--bogus"], 101, "does not know --bogus"),
    (["show", "nonsense"], 23, "no property 'nonsense'"),
    (["genkey"], 3, "not supported"),
    (["upgrade"], 3, "upgrade"),
    (["upgrade", "--version", "one"], 23, "is no version"),
    (["upgrade", "--deadline", "5"], 23, "deadline"),
    (["connect"], 16, "--subscription-id, --resource-group, --location"),
    (["connect", *PLACE, "-l", "mars", *TOKEN], 20, "'mars'"),
    (["connect", *PLACE, "--cloud", "nimbus", *TOKEN], 23, "there is demo"),
    (["connect", *PLACE, "-n", "bad name", *TOKEN], 23, "'bad name'"),
    (["connect", *PLACE, "-n", "web-", *TOKEN], 23, "'web-'"),
    (["connect", *PLACE, "-n", "x" * 55, *TOKEN], 23, "name of a machine"),
    (["connect", "-s", "My subscription", "-g", "rg", "-l", "local", *TOKEN], 68, "cannot be resolved"),
    (["connect", *PLACE, "--tags", "env", *TOKEN], 23, "KEY=VALUE"),
    (["connect", *PLACE, "--tags", "a=1,a=2", *TOKEN], 23, "twice"),
    (["connect", *PLACE, "--correlation-id", "x", *TOKEN], 23, "--correlation-id is not a GUID"),
    (["connect", *PLACE], 16, "no credential"),
    (["connect", *PLACE, "-i", GUID], 16, "--service-principal-secret is missing"),
    (["connect", *PLACE, "-i", GUID, "-p", SECRET, *TOKEN], 27, "both given"),
    (["connect", *PLACE, "--use-device-code"], 3, "--use-device-code"),
    (["connect", *PLACE, "--use-azcli"], 3, "--use-azcli"),
    (["connect", *PLACE, "--service-principal-cert", "x"], 3, "--service-principal-cert"),
    (["connect", *PLACE, *TOKEN, "--gateway-id", "x"], 3, "--gateway-id"),
    (["connect", *PLACE, *TOKEN, "--private-link-scope", "x"], 3, "--private-link-scope"),
    (["connect", *PLACE, *TOKEN], 61, "himds is not running"),
    (["connect", *PLACE, "-i", GUID, "-p", SECRET], 61, "himds is not running"),
    (["connect", *PLACE, "--access-token", "@/nowhere"], 19, "/nowhere"),
    (["connect", "--config", "/nowhere"], 19, "/nowhere"),
    (["connect", *PLACE, "--service-principal-secrett", SECRET], 101, "does not know --service-principal-secrett"),
    (["connect", *PLACE, "--access-token", SECRET, SECRET], 101, "more arguments"),
    (["disconnect"], 61, "himds is not running"),
    (["config", "set", "no.such", "1"], 23, "'no.such'"),
    (["config", "set", "extensions.enabled", "perhaps"], 23, "true or false"),
    (["config", "set", "extensions.agent.cpulimit", "0"], 23, "1 to 100"),
    (["config", "set", "proxy.url", f"https://u:{SECRET}@p"], 23, "http://host:port"),
    (["config", "set", "config.mode", "full", "--add"], 23, "not a list"),
    (["config", "set", "proxy.bypass", "Arc", "--add", "--remove"], 23, "not allowed with"),
    (["config", "set", "proxy.url"], 16, "needs a value"),
    (["config", "get"], 16, "name of a property"),
    (["cloud", "add"], 16, "the file of a profile"),
    (["cloud", "add", "/nowhere"], 19, "/nowhere"),
    (["cloud", "remove", "nimbus"], 23, "'nimbus'"),
    (["cloud", "remove", "../../x"], 23, "no cloud profile"),
    (["apply", "file.json"], 23, "standard input"),
    (["check", "--cloud", "nimbus"], 23, "there is demo"),
    (["check", "--location", "mars"], 20, "'mars'"),
    (["check"], 26, "localhost:1 cannot be reached"),
]


@pytest.mark.parametrize(("words", "code", "said"), COMMANDS, ids=[" ".join(case[0])[:60] for case in COMMANDS])
def test_commands(machine: Machine, words: list[str], code: int, said: str) -> None:
    machine.add_cloud()
    before = machine.files()
    done = machine.run("--json", *words)
    assert done.code == code, done.out + done.err
    answer = done.json
    error = answer["error"]
    assert error["code"] == f"AZCM{code:04d}"
    assert said in error["message"]
    assert "\n" not in error["message"]
    assert error["remedy"]
    assert machine.files() == before
    for text in (done.out, done.err, machine.log):
        assert SECRET not in text


def test_text_form_and_log(machine: Machine) -> None:
    done = machine.run("connect", *PLACE, "-p", SECRET, "-i", GUID)
    assert done.code == 75
    lines = done.out.splitlines()
    assert lines[0].startswith("warning: the secret on the command line")
    assert lines[1] == "error: AZCM0075: this machine has no cloud profile"
    assert lines[2].startswith("remedy: ")
    assert "-p [hidden]" in machine.log
    assert "AZCM0075" in machine.log
    assert SECRET not in machine.log + done.out
    aside = machine.run("--log-stderr", "connect")
    assert aside.out == ""
    assert aside.err.startswith("error: AZCM0016")


WISHES: list[tuple[str, bytes, int, str]] = [
    ("empty", b"", 23, "empty"),
    ("no JSON", b"{", 23, "not JSON"),
    ("a list", b"[]", 23, "not a JSON object"),
    ("not UTF-8", b'{"schema": 1, "tags": {"a": "\xff"}}', 23, "UTF-8"),
    ("no schema", b"{}", 23, "lacks schema"),
    ("later schema", b'{"schema": 2}', 23, "schema of the wish must be 1"),
    ("unknown key", b'{"schema": 1, "connexion": {}}', 23, "'connexion'"),
    ("unknown key inside", b'{"schema": 1, "connection": {"state": "connected", "nom": "x"}}', 23, "'nom'"),
    ("key twice", b'{"schema": 1, "tags": {}, "tags": {}}', 23, "'tags' twice"),
    ("too deep", b'{"schema": 1, "x": ' + b"[" * 40 + b"]" * 40 + b"}", 23, "nested"),
    ("far too deep", b"[" * 100000, 23, "nested"),
    ("too large", b'{"schema": 1, "x": "' + b"x" * (256 * 1024) + b'"}', 23, "262144 bytes"),
    ("NaN", b'{"schema": NaN}', 23, "NaN"),
    ("unknown property", b'{"schema": 1, "config": {"no.such": 1}}', 23, "'no.such'"),
    ("property twice", b'{"schema": 1, "config": {"proxy.url": null, "Proxy.URL": null}}', 23, "twice"),
    ("bad value", b'{"schema": 1, "config": {"extensions.agent.cpulimit": 500}}', 23, "1 to 100"),
    ("tag that is no text", b'{"schema": 1, "tags": {"a": 1}}', 23, "tags.a of the wish must be of type string"),
    ("state", b'{"schema": 1, "connection": {"state": "sideways"}}', 23, '"connected" or "disconnected"'),
    ("image", b'{"schema": 1, "image": {"state": "sealed", "image_id": "a b"}}', 23, "1 to 128 letters, digits"),
    ("name", b'{"schema": 1, "connection": {"state": "connected", "name": "x-"}}', 23, "1 to 54 letters, digits"),
    ("himds away", b'{"schema": 1, "connection": {"state": "connected"}}', 61, "himds is not running"),
    (
        "credential of the wrong type",
        json.dumps(
            {"schema": 1, "connection": {"state": "connected", "credential": {"access_token": [SECRET]}}}
        ).encode(),
        23,
        "must be of type string",
    ),
    (
        "credential too long",
        json.dumps(
            {"schema": 1, "connection": {"state": "connected", "credential": {"access_token": SECRET * 2000}}}
        ).encode(),
        23,
        "at most 16384",
    ),
]


@pytest.mark.parametrize("verb", ["apply", "plan"])
@pytest.mark.parametrize(("name", "wish", "code", "said"), WISHES, ids=[case[0] for case in WISHES])
def test_wishes(machine: Machine, verb: str, name: str, wish: bytes, code: int, said: str) -> None:
    before = machine.files()
    done = machine.run(verb, "-", stdin=wish)
    assert done.code == code, done.out + done.err
    answer = done.json
    assert answer["error"]["code"] == f"AZCM{code:04d}"
    assert said in answer["error"]["message"]
    assert answer["changed"] is False
    assert answer["steps"] == []
    assert machine.files() == before
    for text in (done.out, done.err, machine.log):
        assert SECRET not in text


def test_a_profile_without_a_certificate_is_refused_before_anything_is_written(machine: Machine) -> None:
    broken = machine.profile(ca_pem="-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    before = machine.files()
    wish = {"schema": 1, "cloud": broken, "config": {"extensions.enabled": False}}
    done = machine.run("apply", "-", stdin=json.dumps(wish))
    assert (done.code, done.json["error"]["code"]) == (23, "AZCM0023")
    assert "ca_pem" in done.json["error"]["message"]
    added = machine.run("cloud", "add", "-", stdin=json.dumps(broken))
    assert added.code == 23
    assert machine.files() == before


def test_a_half_written_local_configuration_is_said_and_not_overwritten(machine: Machine) -> None:
    (machine.state / "localconfig.json").write_text('{"proxy.url": "http')
    before = machine.files()
    for words in (["config", "list"], ["config", "set", "extensions.enabled", "false"]):
        done = machine.run("--json", *words)
        assert done.code == 70
        assert "localconfig.json" in done.json["error"]["message"]
    assert machine.files() == before


def test_a_full_disk_is_said_and_leaves_nothing_half_made(machine: Machine) -> None:
    before = machine.files()
    profile = json.dumps(machine.profile())
    wish = json.dumps({"schema": 1, "cloud": machine.profile()})
    for words, stdin in (
        (["--json", "cloud", "add", "-"], profile),
        (["--json", "config", "set", "extensions.enabled", "false"], ""),
        (["apply", "-"], wish),
    ):
        done = machine.run(*words, stdin=stdin, full=True)
        assert done.code == 69, done.out + done.err
        error = done.json["error"]
        assert error["code"] == "AZCM0069"
        assert "space" in error["remedy"]
        assert machine.files() == before


def test_the_log_is_not_written_through_links(machine: Machine) -> None:
    treasure = machine.root / "treasure"
    treasure.write_text("")
    os.symlink(treasure, machine.state / "log/azcmagent.log")
    assert machine.run("config", "list").code == 0
    assert treasure.read_text() == ""
    os.unlink(machine.state / "log/azcmagent.log")
    os.link(treasure, machine.state / "log/azcmagent.log")
    assert machine.run("config", "list").code == 0
    assert treasure.read_text() == ""
    os.unlink(machine.state / "log/azcmagent.log")
    os.mkfifo(machine.state / "log/azcmagent.log")
    assert machine.run("config", "list").code == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
@pytest.mark.parametrize(
    "words", [["connect"], ["config", "list"], ["check"], ["logs"], ["apply", "-"], ["cloud", "list"]]
)
def test_other_users_are_told_to_be_root(machine: Machine, words: list[str]) -> None:
    done = machine.run("--json", *words, user=65534)
    assert done.code == 18
    assert done.json["error"]["code"] == "AZCM0018"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
@pytest.mark.parametrize(
    "words", [["version"], ["--version"], ["help"], ["help", "connect"], ["license"], ["connect", "--help"]]
)
def test_what_anybody_may_ask(machine: Machine, words: list[str]) -> None:
    done = machine.run(*words, user=65534)
    assert done.code == 0, done.out + done.err
    assert done.out
