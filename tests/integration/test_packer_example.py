# SPDX-License-Identifier: Apache-2.0
"""The playbooks that docs/golden-images.md gives to Packer, to the letter, on a host that becomes an image; with the
variables that Packer sets."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.collection_site import ROOT, Run, Site, site

pytestmark = pytest.mark.hosts
PACKER = ("-e", "packer_build_name=web", "-e", "packer_builder_type=qemu")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site"), ["image01"]) as made:
        yield made


def examples() -> list[str]:
    """The YAML of the section about Packer: install.yml and seal.yml."""
    section = re.split(r"^### ", (ROOT / "docs/golden-images.md").read_text(), flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith("With Packer")]
    return re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def packer(ground: Site, playbook: str, *argv: str) -> Run:
    """A provisioner: its playbook lies beside the template, with package and profile."""
    (ground.work / "packer.yml").write_text(playbook)
    return ground.play(str(ground.work / "packer.yml"), *PACKER, *argv)


def test_the_example_installs_connects_nothing_and_seals(ground: Site, tmp_path: Path) -> None:
    install, seal = examples()
    shutil.copy(ground.variables["agent_package_path"], ground.work / "azcmagent.deb")
    run = packer(ground, install)
    assert run.code == 0, run.output
    (host,) = ground.lab.hosts.values()
    assert host.run(["sh", "-c", "ls /root"]).output == ""

    connecting = ground.play("hawser.machine.site", *PACKER)
    assert connecting.code == 2
    assert "AZCM0027: this host is being made into an image (packer_builder_type is qemu)" in connecting.output
    assert ground.machines() == {}

    ground.hub.run(
        *("profiles", "set", "web", "--subscription", ground.hub.subscription_id),
        *("-g", "servers", "--location", "local"),
    )
    made = ground.hub.json("profiles", "token", "web", "--uses", "1", "--days", "1", "--image", "web-2026-11")
    token = tmp_path / "web-token.yml"
    token.touch(mode=0o600)
    token.write_text(json.dumps({"image_seal_token": made["token"]}))
    names = "image_seal_image_id=web-2026-11 image_seal_profile=web"
    run = packer(ground, seal, "--extra-vars", names, "--extra-vars", f"@{token}")
    assert run.code == 0, run.output
    shown = json.loads(host.run(["azcmagent", "show", "--json"], check=False).output)
    assert (shown["identityState"], shown["imageId"]) == ("sealed", "web-2026-11")
    assert made["token"] not in run.output
