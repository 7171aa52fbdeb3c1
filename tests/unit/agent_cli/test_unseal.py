# SPDX-License-Identifier: Apache-2.0
"""What becomes of a sealed image that starts: a copy unseals, a template does not, and nothing connects before."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent_runtime.identity import birth, sealing
from agent_runtime.platform import paths as places
from agent_runtime.platform.base import Signal

from .conftest import Machine
from .test_seal import WORDS, birth_record, identity, inhabited


@pytest.mark.parametrize(
    ("builder", "now", "warned"),
    [
        ({"machine_id": "m"}, {"machine_id": "m"}, True),
        # Cleared after it was sealed, before, or by the template's next boot.
        ({"machine_id": "m"}, {"machine_id": None}, False),
        ({"machine_id": None}, {"machine_id": None}, False),
        ({"machine_id": "m"}, {"machine_id": "n"}, False),
        ({"dmi_uuid": "a", "machine_id": "m"}, {"machine_id": "m"}, False),
        ({"dmi_uuid": None, "machine_id": "m"}, {"dmi_uuid": "a", "machine_id": "m"}, True),
    ],
)
def test_a_first_boot_hook_is_asked_for_where_copies_need_one(
    builder: dict[str, str | None], now: dict[str, str | None], warned: bool
) -> None:
    assert sealing.copies_can_tell(_sealed_on(*_signals(**builder)), _signals(**now)) is not warned


def _signals(**values: str | None) -> list[Signal]:
    return [Signal(name, "ok" if value else "absent", value) for name, value in values.items()]


def _sealed_on(*signals: Signal) -> dict[str, Any]:
    from agent_runtime.identity import evidence

    return birth_record(evidence=evidence.vector(bytes(32), signals))


@pytest.mark.parametrize(
    ("builder", "now", "first_boot", "by"),
    [
        # A template that boots again, also after its machine id was cleaned.
        ({"dmi_uuid": "a", "machine_id": "m"}, {"dmi_uuid": "a", "machine_id": "n"}, True, None),
        ({"dmi_uuid": "a"}, {"dmi_uuid": "a"}, True, None),
        ({"dmi_uuid": "a"}, {"dmi_uuid": "b"}, False, "evidence"),
        ({"vmgenid": "a", "dmi_uuid": "a"}, {"vmgenid": "b", "dmi_uuid": "a"}, False, "evidence"),
        ({"machine_id": "m"}, {"machine_id": "n"}, False, "evidence"),
        ({"machine_id": "m"}, {"machine_id": "m"}, True, None),
        # Nothing to compare: only a first boot, or an explicit hook, can tell.
        ({"dmi_uuid": None}, {"dmi_uuid": "b"}, False, None),
        ({"dmi_uuid": None}, {"dmi_uuid": "b"}, True, "first-boot"),
        ({"dmi_uuid": "a"}, {"dmi_uuid": None}, False, None),
        ({}, {}, False, None),
        ({}, {}, True, "first-boot"),
    ],
)
def test_a_copy_unseals_and_a_template_does_not(
    builder: dict[str, str | None], now: dict[str, str | None], first_boot: bool, by: str | None
) -> None:
    record = _sealed_on(*_signals(**builder))
    assert sealing.reason_to_unseal(record, _signals(**now), first_boot) == by


def test_unsealing_says_so_before_it_is_done(machine: Machine) -> None:
    inhabited(machine, "disconnected")
    machine.run(*WORDS)
    paths = places.linux(str(machine.root))
    assert birth.is_sealed(paths)
    assert machine.run("unseal", "--if-copied", "--json").json["changed"] is False
    done = machine.run("unseal", "--here", "--json")
    assert (done.json["changed"], done.json["by"], identity(machine)) == (True, "here", "disconnected")
    assert not birth.is_sealed(paths)
    assert machine.run("unseal", "--here", "--json").json["changed"] is False
    # Cut off between its two writes, it is ended by the next.
    record = {**json.loads((machine.state / "state/identity.json").read_text()), "state": "sealed"}
    (machine.state / "state/identity.json").write_text(json.dumps(record))
    assert machine.run("unseal", "--if-copied", "--json").json["changed"] is True
    assert identity(machine) == "disconnected"


def test_connect_in_a_sealed_image_says_that_it_is_one(machine: Machine) -> None:
    """himds, which would say so too, does not run there."""
    inhabited(machine, "disconnected")
    assert machine.run(*WORDS).code == 0
    place = (
        "--subscription-id",
        "11111111-1111-4111-8111-111111111111",
        "--resource-group",
        "g",
        "--location",
        "local",
    )
    refused = machine.run("connect", *place, "--access-token", "x")
    assert (refused.code, "unseal --here" in refused.out) == (27, True)
