# SPDX-License-Identifier: Apache-2.0
"""The key `image` of apply and plan: the plan as a pure function, and the whole way on a machine whose services do not
run."""

from __future__ import annotations

import json
from typing import Any

import fastjsonschema
import pytest

from agent_runtime import errors
from agent_runtime.cli import planning
from agent_runtime.cli.planning import Actual, Wish

from .conftest import CHECKOUT, Machine
from .test_seal import TOKEN, identity, inhabited, leftovers

SEALED = {"state": "sealed", "image_id": "web-1", "enroll_on_first_boot": None, "clean": True}
UNSEALED = {"state": "unsealed", "image_id": None, "enroll_on_first_boot": None, "clean": False}
WISH = {"state": "sealed", "image_id": "web-1"}
JOINS = {"joins": True, "is_copied": True}
SPECIALISED = {"state": "specialised"}
CONNECTED = {
    **planning.disconnected_view(),
    "state": "connected",
    "resource_id": "/r/web01",
    "identity_state": "connected",
}


def actual(image: dict[str, Any] | None, connected: bool = False) -> Actual:
    return Actual({}, CONNECTED if connected else planning.disconnected_view(), {}, None, "host7", image)


@pytest.mark.parametrize(
    ("image", "now", "paths", "steps"),
    [
        (WISH, UNSEALED, ["image.state"], ("seal",)),
        (WISH, SEALED, [], ()),
        ({**WISH, "image_id": "web-2"}, SEALED, ["image.image_id"], ("seal",)),
        ({**WISH, "enroll_on_first_boot": "web"}, SEALED, ["image.enroll_on_first_boot"], ("seal",)),
        (WISH, {**SEALED, "clean": False}, ["image.clean"], ("seal",)),
        ({"state": "unsealed"}, SEALED, ["image.state"], ("unseal",)),
        ({"state": "unsealed"}, UNSEALED, [], ()),
        (SPECIALISED, {**SEALED, **JOINS}, ["image.state"], ("unseal", "specialise")),
        (
            {**SPECIALISED, "is_copy": True},
            {**SEALED, **JOINS, "is_copied": False},
            ["image.state"],
            ("unseal", "specialise"),
        ),
        (SPECIALISED, {**UNSEALED, **JOINS}, ["image.state"], ("specialise",)),
    ],
)
def test_the_plan(image: dict[str, Any], now: dict[str, Any], paths: list[str], steps: tuple[str, ...]) -> None:
    wish = Wish(image=image)
    made = planning.plan(wish, actual(now))
    assert ([reason.path for reason in made.reasons], made.steps) == (paths, steps)
    after = planning.project(wish, actual(now), made)
    assert planning.plan(wish, after).steps == ()


@pytest.mark.parametrize(
    ("state", "steps"), [("connected", ()), ("parked", ("specialise",)), ("quarantined", ("specialise",))]
)
def test_a_held_machine_takes_up_another_name_and_a_connected_one_has_its_own(
    state: str, steps: tuple[str, ...]
) -> None:
    now = actual(UNSEALED, connected=True)
    now = now._replace(connection={**now.connection, "identity_state": state})
    assert planning.plan(Wish(image=SPECIALISED), now).steps == steps


@pytest.mark.parametrize(
    ("wish", "now", "code"),
    [
        (Wish(image=SPECIALISED), {**SEALED, "joins": True, "is_copied": False}, "AZCM0027"),
        (Wish(image=SPECIALISED), {**SEALED, "joins": False, "is_copied": True}, "AZCM0016"),
        (Wish(image=SPECIALISED), {**UNSEALED, "joins": False, "is_copied": False}, "AZCM0016"),
        (Wish(image=SPECIALISED, connection={"state": "disconnected"}), {**SEALED, **JOINS}, "AZCM0027"),
    ],
)
def test_what_is_no_copy_or_cannot_join_is_not_specialised(wish: Wish, now: dict[str, Any], code: str) -> None:
    with pytest.raises(errors.AgentError) as refused:
        planning.plan(wish, actual(now))
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("wish", "connected", "code"),
    [
        (Wish(image={"state": "sealed"}), False, "AZCM0016"),
        (Wish(image=WISH), True, "AZCM0027"),
        (Wish(image=WISH, connection={"state": "connected"}), False, "AZCM0027"),
    ],
)
def test_what_cannot_be(wish: Wish, connected: bool, code: str) -> None:
    clouds = {"demo": {"name": "demo", "tenant_id": "t", "locations": ["local"]}}
    place = {"subscription_id": "s", "resource_group": "g", "location": "local"}
    if wish.connection is not None:
        wish = wish._replace(connection={**wish.connection, **place})
    with pytest.raises(errors.AgentError) as refused:
        planning.plan(wish, actual(UNSEALED, connected)._replace(clouds=clouds))
    assert refused.value.code == code


@pytest.mark.parametrize("more", [{"connection": {"state": "disconnected"}}, {"image": {**WISH, "force": True}}])
def test_a_connected_machine_is_let_go_first_or_by_force(more: dict[str, Any]) -> None:
    wish = Wish(**{"image": WISH, **more})
    steps = planning.plan(wish, actual(UNSEALED, connected=True)).steps
    assert steps == (("disconnect", "seal") if "connection" in more else ("seal",))


@pytest.mark.parametrize(("state", "needs"), [("parked", []), ("quarantined", []), ("connected", ["delete"])])
def test_the_machine_that_a_held_identity_names_is_not_deleted_at_the_hub(state: str, needs: list[str]) -> None:
    """It may be the original's."""
    now = actual(None, connected=True)
    now = now._replace(connection={**now.connection, "identity_state": state})
    made = planning.plan(Wish(connection={"state": "disconnected"}), now)
    assert made.steps == ("disconnect",)
    assert [need.operation for need in made.credential_required] == needs


def apply(machine: Machine, verb: str = "apply", **image: Any) -> dict[str, Any]:
    done = machine.run(verb, "-", stdin=json.dumps({"schema": 1, "image": image}))
    answer: dict[str, Any] = done.json
    schema = json.loads((CHECKOUT / "docs/schemas/apply-answer.schema.json").read_text())
    fastjsonschema.compile(schema)(answer)
    assert done.code == (int(answer["error"]["code"][4:]) if answer["error"] else 0)
    return answer


def test_apply_seals_once_and_plan_says_so(machine: Machine) -> None:
    inhabited(machine, "disconnected")
    before = machine.files()
    planned = apply(machine, "plan", **WISH)
    assert machine.files() == before
    done = apply(machine, **WISH)
    assert [reason["path"] for reason in done["reasons"]] == ["image.state"]
    assert (
        planned["after"]
        == done["after"]
        == {"image": {"state": "sealed", "image_id": "web-1", "enroll_on_first_boot": None}}
    )
    assert (identity(machine), leftovers(machine)) == ("sealed", [])
    assert apply(machine, **WISH)["changed"] is False
    assert apply(machine, state="unsealed")["changed"] is True
    assert identity(machine) == "disconnected"


def test_the_enrolment_token_is_in_no_answer(machine: Machine) -> None:
    inhabited(machine, "disconnected")
    done = apply(machine, **WISH, enroll_on_first_boot="web", token=TOKEN)
    assert done["changed"] is True
    assert TOKEN not in json.dumps(done) + machine.log
    assert (machine.state / "image.token").read_text() == TOKEN
    # A controller need not mint a token for a host that is sealed already.
    assert apply(machine, **WISH, enroll_on_first_boot="web")["changed"] is False


@pytest.mark.parametrize(
    ("image", "code"),
    [
        ({"state": "sealed"}, "AZCM0016"),
        ({**WISH, "enroll_on_first_boot": "web"}, "AZCM0016"),
        ({**WISH, "token": TOKEN}, "AZCM0016"),
        ({**WISH, "token": "short"}, "AZCM0023"),
        ({**WISH, "image_id": "a b"}, "AZCM0023"),
        ({**WISH, "command": "x"}, "AZCM0023"),
        ({"state": "parked"}, "AZCM0023"),
        ({**WISH, "enroll_on_first_boot": "web", "token": TOKEN, "cloud": "other"}, "AZCM0023"),
    ],
)
@pytest.mark.parametrize("verb", ["apply", "plan"])
def test_a_wish_that_cannot_be_carried_out_changes_nothing(
    machine: Machine, verb: str, image: dict[str, Any], code: str
) -> None:
    inhabited(machine, "disconnected")
    before = machine.files()
    answer = apply(machine, verb, **image)
    assert answer["error"]["code"] == code, answer
    assert machine.files() == before


def test_a_connected_machine_refuses(machine: Machine) -> None:
    inhabited(machine)
    before = machine.files()
    assert apply(machine, **WISH)["error"]["code"] == "AZCM0027"
    assert machine.files() == before
    assert apply(machine, **WISH, force=True)["changed"] is True
    assert identity(machine) == "sealed"


def test_a_sealed_image_whose_services_stand_still_is_not_connected_and_says_why(machine: Machine) -> None:
    """himds does not answer, and that is not what is wrong."""
    inhabited(machine, "disconnected")
    assert apply(machine, **WISH)["changed"] is True
    before = machine.files()
    place = {"subscription_id": "11111111-1111-4111-8111-111111111111", "resource_group": "web", "location": "local"}
    for verb in ("plan", "apply"):
        wish = {"schema": 1, "connection": {"state": "connected", **place}}
        answer = json.loads(machine.run(verb, "-", stdin=json.dumps(wish)).out)
        assert (answer["error"]["code"], answer["changed"]) == ("AZCM0027", False), answer
        assert "unseal --here" in answer["error"]["remedy"]
        gone = machine.run(verb, "-", stdin=json.dumps({"schema": 1, "connection": {"state": "disconnected"}}))
        assert (gone.code, json.loads(gone.out)["changed"]) == (0, False), gone
    assert machine.files() == before
