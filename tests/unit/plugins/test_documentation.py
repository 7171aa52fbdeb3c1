# SPDX-License-Identifier: Apache-2.0
"""Documentation, specs, action group and roles say the same."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.hawser.machine.plugins.plugin_utils import _errors as errors
from ansible_collections.hawser.machine.plugins.plugin_utils import _spec as spec

ROOT = Path(__file__).parents[3]
MODULES = sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py"))
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())
PACKAGE = "ansible_collections.hawser.machine.plugins"


def test_the_modules_of_this_version_are_there() -> None:
    assert MODULES == [
        "access_token", "agent", "agent_info", "config", "connection", "extension", "extension_info", "image",
        "machine", "machine_info", "network_check", "run_command", "wait_ready",
    ]  # fmt: skip
    assert sorted(path.stem for path in (ROOT / "plugins/action").glob("*.py")) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_action_and_documentation_belong_together(module: str) -> None:
    action = importlib.import_module(f"{PACKAGE}.action.{module}").ActionModule
    assert module == action.MODULE
    assert spec.argument_spec(module) == action.SPEC
    documented = spec.documentation(module)
    assert documented["module"] == module
    assert documented["version_added"]


@pytest.mark.parametrize("module", MODULES)
def test_examples_fit_the_spec(module: str) -> None:
    source = importlib.import_module(f"{PACKAGE}.modules.{module}")
    tasks = yaml.safe_load(source.EXAMPLES)
    own = [task for task in tasks if f"hawser.machine.{module}" in task]
    assert own
    for task in own:
        spec.validate(module, spec.argument_spec(module), task[f"hawser.machine.{module}"] or {})
    assert isinstance(yaml.safe_load(source.RETURN), dict)


def test_the_action_group_is_who_takes_credentials() -> None:
    group = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())["action_groups"]["machine"]
    assert group == [module for module in MODULES if "client_secret" in spec.argument_spec(module)]
    for module in group:
        assert "hawser.machine._attributes.group" in spec.documentation(module)["extends_documentation_fragment"]


def test_secrets_are_marked() -> None:
    marked = spec.argument_spec("machine")
    assert {name for name, option in marked.items() if option["no_log"]} == {"access_token", "client_secret"}


def test_a_fault_of_a_suboption_does_not_show_a_secret() -> None:
    image = {"image_id": ["x"], "enrolment_token": "hush-hush", "force": "hush-hush"}
    with pytest.raises(errors.OptionError) as caught:
        spec.validate("machine", spec.argument_spec("machine"), {"image": image})
    assert "hush-hush" not in caught.value.message
    assert spec.argument_spec("machine")["image"]["options"]["enrolment_token"]["no_log"] is True


def test_a_fault_does_not_show_a_secret() -> None:
    with pytest.raises(errors.OptionError) as caught:
        spec.validate("machine", spec.argument_spec("machine"), {"client_secret": "hush-hush", "state": "hush-hush"})
    assert "hush-hush" not in caught.value.message


def defaults_of(role: str) -> dict[str, Any]:
    path = ROOT / "roles" / role / "defaults/main.yml"
    return yaml.safe_load(path.read_text()) or {} if path.exists() else {}


@pytest.mark.parametrize("role", ROLES)
def test_role_defaults_are_the_documented_ones(role: str) -> None:
    specs = yaml.safe_load((ROOT / "roles" / role / "meta/argument_specs.yml").read_text())["argument_specs"]
    documented = {name: option["default"] for name, option in specs["main"]["options"].items() if "default" in option}
    assert documented == defaults_of(role)
    assert all(name.startswith(f"{role}_") for name in specs["main"]["options"])
    assert (ROOT / "roles" / role / "README.md").is_file()
    assert yaml.safe_load((ROOT / "roles" / role / "meta/main.yml").read_text())["dependencies"] == []


@pytest.mark.parametrize("path", sorted((ROOT / "plugins").rglob("*.py")), ids=str)
def test_licence_and_independence(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# SPDX-License-Identifier: GPL-3.0-or-later\n")
    assert "import agent_runtime" not in text
    assert "from agent_runtime" not in text
    assert "control_plane" not in text
