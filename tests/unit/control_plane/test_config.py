# SPDX-License-Identifier: Apache-2.0
"""DATA/config.yaml: what is documented is right, and what is wrong is told in a sentence for people."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from control_plane import config
from control_plane.cli import main
from control_plane.reload import LIVE_SECTIONS

ROOT = Path(__file__).resolve().parents[3]
SCHEMA: dict[str, Any] = json.loads((ROOT / "control_plane/config.schema.json").read_text())
WEBHOOK = 'webhook: {url: "https://x.example/", secret_file: /x}'


def check(folder: Path, text: str) -> Result:
    (folder / "config.yaml").write_text(text)
    return CliRunner().invoke(main, ["--data", str(folder), "config", "check"], catch_exceptions=False)


def documented() -> Iterator[tuple[str, str]]:
    """Every YAML block of the documentation that sets a section of the configuration, by itself or as `hub_config`."""
    for page in sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("roles/*/README.md")]):
        for number, block in enumerate(re.findall(r"^```ya?ml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)):
            found = yaml.safe_load(block)
            if isinstance(found, dict):
                sections = found.get("hub_config", found)
                if sections.keys() & SCHEMA["properties"].keys():
                    yield f"{page.name}-{number}", yaml.safe_dump(sections)


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in documented()])
def test_what_is_documented_is_right(text: str, tmp_path: Path) -> None:
    answer = check(tmp_path, text)
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert all(section in answer.stdout for section in yaml.safe_load(text))


def test_role_and_documentation_name_what_is_taken_up_without_a_restart() -> None:
    live = yaml.safe_load((ROOT / "roles/hub/vars/main.yml").read_text())["_hub_live_sections"]
    assert set(live) == LIVE_SECTIONS
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"\(SIGHUP\) reads the file again: (.+?) are in force at once", page)
    assert set(re.findall(r"`(\w+)`", said)) == LIVE_SECTIONS


def test_every_section_with_members_to_choose_is_documented() -> None:
    shown = set().union(*(yaml.safe_load(text) for _, text in documented()))
    assert shown >= SCHEMA["properties"].keys() - {"database"}  # `init` writes that one


@pytest.mark.parametrize(
    ("text", "told", "where"),
    [
        ("logging: {level: loud}", "'logging.level' of FILE must be one of debug, info, warning, error.", "operations"),
        ("logging: [info]", "'logging' of FILE must be a mapping.", "operations"),
        ("colour: red", "FILE takes no member 'colour'.", "operations"),
        ("limits: {connections: many}", "'limits.connections' of FILE must be a whole number.", "operations"),
        ("limits: {connections: 1}", "'limits.connections' of FILE must be at least 64.", "operations"),
        (
            "metrics: {allow: [anybody]}",
            "'metrics.allow[0]' of FILE must be a network like 192.0.2.0/24.",
            "operations",
        ),
        ("oidc: {issuer: 'https://i'}", "'oidc' of FILE lacks client_id and admit.", "hub.md"),
        (
            "database: {url: 'mysql://h/n'}",
            "'database.url' of FILE must be an address like postgresql+psycopg://USER@HOST/NAME.",
            "Database",
        ),
        (
            "notifications: {targets: [{name: a}]}",
            "'notifications.targets[0]' of FILE must have exactly one of webhook and email.",
            "api.md, Notifications",
        ),
        (
            f"notifications: {{targets: [{{name: a, on: [Expired], {WEBHOOK}}}]}}",
            "'notifications.targets[0]' of FILE takes no member 'on', 'yes' or 'true'.",
            "api.md, Notifications",
        ),
        (
            f"notifications: {{targets: [{{name: a, transitions: [Expired, Expired], {WEBHOOK}}}]}}",
            "'notifications.targets[0].transitions' of FILE names something twice.",
            "api.md, Notifications",
        ),
    ],
)
def test_what_is_wrong_is_told(text: str, told: str, where: str, tmp_path: Path) -> None:
    answer = check(tmp_path, text)
    first, second = answer.stderr.splitlines()
    assert answer.exit_code == 1
    assert first == f"hawser-hub: {told.replace('FILE', str(tmp_path / 'config.yaml'))}"
    assert where in second
    document, _, heading = second.removeprefix("Compare it with ").removesuffix(".").partition(", ")
    assert re.search(rf"^##+ {re.escape(heading)}$", (ROOT / document).read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("limits: {", "is not YAML: .* in line 2"),
        ("metrics: {allow: [192.0.2.0/99]}", "'192.0.2.0/99', which is no network"),
        ("database: {url: 'postgresql://me:secret@h/n'}", "holds a password"),
        (f"notifications: {{targets: [{{name: a, {WEBHOOK}}}, {{name: a, {WEBHOOK}}}]}}", "the same name"),
        ("oidc: {issuer: 'https://i', client_id: c, admit: [{claim: a, value: b, role: Boss}]}", "a role 'Boss'"),
    ],
)
def test_what_no_schema_knows_is_told_too(text: str, told: str, tmp_path: Path) -> None:
    answer = check(tmp_path, text + "\n")
    assert answer.exit_code == 1
    assert re.search(told, answer.stderr)
    assert "secret" not in answer.stderr.replace("secret_file", "")
    assert len(answer.stderr.splitlines()) == 2


def test_a_file_is_checked_where_there_is_no_hub(tmp_path: Path) -> None:
    (tmp_path / "new.yaml").write_text("database: {url: 'postgresql://hub@h/n', password_file: /not/there/yet}\n")
    runner = CliRunner()
    told = runner.invoke(main, ["--data", str(tmp_path / "none"), "config", "check", str(tmp_path / "new.yaml")])
    assert (told.exit_code, told.stdout) == (0, f"{tmp_path}/new.yaml is right; it sets database.\n")
    missing = runner.invoke(main, ["config", "check", str(tmp_path / "none.yaml")])
    assert (missing.exit_code, "There is no file" in missing.stderr) == (1, True)
    own = runner.invoke(main, ["--data", str(tmp_path), "config", "check"])
    assert (own.exit_code, own.stdout) == (0, f"There is no {tmp_path}/config.yaml: every default holds.\n")


def test_every_pattern_says_what_it_asks_for() -> None:
    def walk(schema: Any) -> Iterator[dict[str, Any]]:
        if isinstance(schema, dict):
            yield schema
        for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
            yield from walk(part)

    lacking = [item for item in walk(SCHEMA) if isinstance(item.get("pattern"), str) and "description" not in item]
    assert lacking == []
    assert set(config.DOCUMENTS) <= SCHEMA["properties"].keys()
