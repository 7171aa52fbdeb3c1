# SPDX-License-Identifier: Apache-2.0
"""`planning.plan`: tables of wishes, and properties that hold for every wish (docs/protocol.md section 11)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime import errors
from agent_runtime.cli import planning
from agent_runtime.cli.planning import Actual, Need, Wish, plan, project, view
from agent_runtime.state import config as properties

TENANT = "0b0c6a52-57f1-4f11-9d6d-0f3f9d1d2c3b"
SUBSCRIPTION = "11111111-1111-4111-8111-111111111111"


def profile(name: str = "demo", **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "arm": "https://hub:8443",
        "tenant_id": TENANT,
        "locations": ["local", "North Site"],
        **changes,
    }


def place(**changes: Any) -> dict[str, Any]:
    made = {
        "state": "connected",
        "cloud": "demo",
        "tenant_id": TENANT,
        "subscription_id": SUBSCRIPTION,
        "resource_group": "rg",
        "location": "local",
        "name": "web01",
    }
    return {**made, **changes}


def machine_id(name: str = "web01", group: str = "rg") -> str:
    return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}/providers/Microsoft.HybridCompute/machines/{name}"


def connected(**changes: Any) -> Actual:
    there = place(resource_id=machine_id(), status="Connected", identity_state="connected", error_code=None)
    there["correlation_id"] = None
    return Actual({"demo": profile()}, {**there, **changes}, {}, {"env": "demo"}, "host7")


def fresh() -> Actual:
    return Actual({"demo": profile()}, planning.disconnected_view(), {}, None, "host7")


CASES = [
    ("converged", Wish(connection=place(), tags={"env": "demo"}), connected(), (), ()),
    ("converged, other case", Wish(connection=place(name="WEB01", location="LOCAL")), connected(), (), ()),
    ("nothing named", Wish(), connected(), (), ()),
    ("stay connected", Wish(connection={"state": "connected"}), connected(), (), ()),
    ("fresh", Wish(connection=place()), fresh(), ("connect",), (Need("connect", machine_id()),)),
    (
        "fresh, name from the host",
        Wish(connection={k: v for k, v in place().items() if k != "name"}),
        fresh(),
        ("connect",),
        (Need("connect", machine_id("host7")),),
    ),
    (
        "other name",
        Wish(connection=place(name="web02")),
        connected(),
        ("disconnect", "connect"),
        (Need("connect", machine_id("web02")), Need("delete", machine_id())),
    ),
    (
        "other group, the rest left alone",
        Wish(connection={"state": "connected", "resource_group": "new"}),
        connected(),
        ("disconnect", "connect"),
        (Need("connect", machine_id(group="new")), Need("delete", machine_id())),
    ),
    (
        "other name, local only",
        Wish(connection=place(name="web02", force_local_only=True)),
        connected(),
        ("disconnect", "connect"),
        (Need("connect", machine_id("web02")),),
    ),
    ("tags", Wish(tags={"env": "prod"}), connected(), ("tags",), (Need("update", machine_id()),)),
    ("tags of a fresh machine", Wish(connection=place(), tags={"a": "b"}), fresh(), ("connect",), None),
    (
        "leave",
        Wish(connection={"state": "disconnected"}),
        connected(),
        ("disconnect",),
        (Need("delete", machine_id()),),
    ),
    (
        "leave, local only",
        Wish(connection={"state": "disconnected", "force_local_only": True}),
        connected(),
        ("disconnect",),
        (),
    ),
    ("left already", Wish(connection={"state": "disconnected"}), fresh(), (), ()),
    ("new cloud", Wish(cloud=profile("two")), connected(), ("cloud",), ()),
    ("same cloud", Wish(cloud=profile()), connected(), (), ()),
    (
        "everything at once",
        Wish(profile("two"), place(cloud="two"), {"proxy.url": "http://p:1"}, {"a": "b"}),
        connected(),
        ("config", "disconnect", "cloud", "connect"),
        None,
    ),
    (
        "expired",
        Wish(connection=place()),
        connected(identity_state="expired", status="Expired"),
        ("disconnect", "connect"),
        (Need("connect", machine_id()), Need("delete", machine_id())),
    ),
    (
        "deleted at the hub",
        Wish(connection=place()),
        connected(error_code="AZCM0042", status="Disconnected"),
        ("disconnect", "connect"),
        (Need("connect", machine_id()),),
    ),
    ("parked heals by itself", Wish(connection=place()), connected(identity_state="parked"), (), ()),
]


@pytest.mark.parametrize(("name", "wish", "actual", "steps", "needs"), CASES, ids=[case[0] for case in CASES])
def test_steps_and_credentials(name: str, wish: Wish, actual: Actual, steps: Any, needs: Any) -> None:
    made = plan(wish, actual)
    assert made.steps == steps
    if needs is not None:
        assert made.credential_required == needs


REFUSED = [
    ("no cloud at all", Wish(connection=place()), fresh()._replace(clouds={}), "AZCM0075"),
    ("unknown cloud", Wish(connection=place(cloud="nimbus")), fresh(), "AZCM0023"),
    (
        "which cloud",
        Wish(connection={k: v for k, v in place().items() if k != "cloud"}),
        fresh()._replace(clouds={"a": profile("a"), "b": profile("b")}),
        "AZCM0023",
    ),
    ("unknown location", Wish(connection=place(location="mars")), fresh(), "AZCM0020"),
    ("wrong tenant", Wish(connection=place(tenant_id=SUBSCRIPTION)), fresh(), "AZCM0041"),
    ("no place", Wish(connection={"state": "connected"}), fresh(), "AZCM0016"),
    ("tags without a machine", Wish(tags={"a": "b"}), fresh(), "AZCM0023"),
    (
        "tags of a machine that leaves",
        Wish(connection={"state": "disconnected"}, tags={"a": "b"}),
        connected(),
        "AZCM0023",
    ),
    (
        "a list that monitor mode locks",
        Wish(config={"extensions.allowlist": ["a/b"]}),
        fresh()._replace(config={"config.mode": "monitor"}),
        "AZCM0027",
    ),
]


@pytest.mark.parametrize(("name", "wish", "actual", "code"), REFUSED, ids=[case[0] for case in REFUSED])
def test_refusals_come_before_any_step(name: str, wish: Wish, actual: Actual, code: str) -> None:
    with pytest.raises(errors.AgentError) as found:
        plan(wish, actual)
    assert found.value.code == code
    assert found.value.remedy
    assert "\n" not in found.value.message


def test_reconnecting_keeps_tags_that_the_wish_does_not_name() -> None:
    made = plan(Wish(connection=place(name="web02")), connected())
    assert made.target is not None
    assert made.target["tags"] == {"env": "demo"}


def test_a_limit_that_equals_the_displayed_one_is_set_once() -> None:
    wish = Wish(config={"extensions.agent.cpulimit": 5})
    made = plan(wish, fresh())
    assert [(reason.expected, reason.actual) for reason in made.reasons] == [(5, None)]
    after = project(wish, fresh(), made)
    assert after.config == {"extensions.agent.cpulimit": 5}
    assert plan(wish, after).steps == ()
    assert plan(Wish(config={"extensions.agent.cpulimit": None}), after).steps == ("config",)


def test_a_password_in_a_proxy_is_in_no_part_of_the_answer() -> None:
    wish = Wish(config={"proxy.url": "http://u:hunter2@proxy:3128"})
    actual = fresh()._replace(config={"proxy.url": "http://u:hunter3@proxy:3128"})
    made = plan(wish, actual)
    assert made.steps == ("config",)
    said = repr((made.reasons, view(wish, actual), view(wish, project(wish, actual, made))))
    assert "hunter" not in said


names = st.sampled_from(["web01", "WEB01", "web02", "db.3"])
values = {
    "extensions.enabled": st.booleans(),
    "proxy.bypass": st.lists(st.sampled_from(["Arc", "ARM", "AAD"]), unique=True),
    "config.mode": st.sampled_from(["full", "monitor"]),
    "extensions.agent.cpulimit": st.integers(1, 100),
}
configs = st.fixed_dictionaries({}, optional={key: st.one_of(st.none(), value) for key, value in values.items()})
owns = st.fixed_dictionaries({}, optional=values).map(lambda found: dict(properties.changed({}, found)))  # type: ignore[arg-type]
tag_sets = st.dictionaries(st.sampled_from(["env", "Env", "owner"]), st.sampled_from(["a", "A", ""]))
wished_places = st.fixed_dictionaries(
    {"state": st.just("connected")},
    optional={
        "cloud": st.sampled_from(["demo", "DEMO"]),
        "name": names,
        "resource_group": st.sampled_from(["rg", "RG", "two"]),
        "location": st.sampled_from(["local", "northsite", "North Site"]),
        "force_local_only": st.booleans(),
    },
)
leaving = st.fixed_dictionaries({"state": st.just("disconnected")}, optional={"force_local_only": st.booleans()})
images = st.one_of(
    st.fixed_dictionaries({"state": st.just("unsealed")}),
    st.fixed_dictionaries(
        {"state": st.just("sealed"), "image_id": st.sampled_from(["web-1", "web-2"])},
        optional={"enroll_on_first_boot": st.sampled_from([None, "web"]), "force": st.booleans()},
    ),
)
unsealed = {"state": "unsealed", "image_id": None, "enroll_on_first_boot": None, "clean": False}
sealed = {"state": "sealed", "image_id": "web-1", "enroll_on_first_boot": None}
wishes = st.builds(
    Wish,
    image=st.one_of(st.none(), images),
    cloud=st.one_of(st.none(), st.sampled_from([profile(), profile("two"), profile(arm="https://new")])),
    connection=st.one_of(st.none(), wished_places, leaving),
    config=st.one_of(st.none(), configs),
    tags=st.one_of(st.none(), tag_sets),
)
states = st.sampled_from(["connected", "expired", "parked"])
actuals = st.one_of(
    st.builds(
        lambda own, image: fresh()._replace(config=own, image=image),
        owns,
        st.one_of(st.just(unsealed), st.builds(lambda clean: {**sealed, "clean": clean}, st.booleans())),
    ),
    st.builds(
        lambda own, name, tags, state, error: connected(
            name=name, resource_id=machine_id(name), identity_state=state, error_code=error
        )._replace(config=own, tags=tags, image=unsealed),
        owns,
        names,
        st.one_of(st.none(), tag_sets),
        states,
        st.sampled_from([None, "AZCM0042"]),
    ),
)


def plan_or_code(wish: Wish, actual: Actual) -> planning.Plan | str:
    """The plan, or the code of its refusal."""
    try:
        return plan(wish, actual)
    except errors.AgentError as refused:
        return refused.code


@given(wishes, actuals)
def test_properties_of_every_plan(wish: Wish, actual: Actual) -> None:
    made = plan_or_code(wish, actual)
    if isinstance(made, str):
        assert made in ("AZCM0016", "AZCM0023", "AZCM0027")
        return
    # A reason for every step and a step for every reason.
    assert bool(made.reasons) == bool(made.steps)
    # Nothing is touched that the wish does not name.
    named = {part for part in ("cloud", "connection", "config", "tags", "image") if getattr(wish, part) is not None}
    assert {reason.path.partition(".")[0] for reason in made.reasons} <= named
    # A credential is asked for exactly when the hub is asked for something.
    at_hub = {"connect", "tags"} | (set() if made.local_only else {"disconnect"})
    assert len(made.credential_required) == len(at_hub & set(made.steps))
    # What has been carried out needs no second time.
    after = project(wish, actual, made)
    assert plan(wish, after).steps == ()
    # The answer is JSON.
    json.dumps([view(wish, actual), view(wish, after), [reason._asdict() for reason in made.reasons]])


@given(wishes, actuals)
def test_planning_changes_neither_side(wish: Wish, actual: Actual) -> None:
    before = json.dumps([wish, actual])
    plan_or_code(wish, actual)
    assert json.dumps([wish, actual]) == before
