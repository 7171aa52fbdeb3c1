# SPDX-License-Identifier: Apache-2.0
"""Plans, pure: the steps of each change, and that every wish is reached from every state."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_runtime.extensions import plan, wishes
from agent_runtime.extensions.wishes import Wish
from tests.unit.agent_extensions.kit import wish as entry

MULTI = {"multi": True, "heartbeat": False, "resources": {}, "withInstall": True, "goOn": False}


def wish(name: str = "one", version: str = "1.0", sequence: int = 0, kind: str = "Fake", **more: Any) -> Wish:
    found = wishes.read({"extensions": [entry(name, version, sequence, kind, **more)]})
    assert not found.faults, found.faults
    return found.wishes[0]


def record(version: str | None = "1.0", state: str = plan.ENABLED, multi: bool = False, **names: int) -> plan.Record:
    """A record with extensions NAME=sequence, enabled while `state` is."""
    made = plan.blank("Test", "Fake")
    known = {
        name: {
            "name": name,
            "sequence": sequence,
            "digest": wish().digest,
            "enabled": state == plan.ENABLED,
            "level": 0,
            "thumbprint": None,
        }
        for name, sequence in names.items()
    }
    folders = [version] if version else []
    return {**made, "version": version, "state": state, "multi": multi, "folders": folders, "extensions": known}


def said(made: plan.Plan) -> list[str]:
    """The steps of a plan as `KIND: step step`, a step with its version and extension."""

    def one(step: plan.Step) -> str:
        return "-".join(str(part) for part in (step["do"], step["version"], step["name"]) if part)

    return [f"{chain['kind']}: " + " ".join(one(step) for step in chain["steps"]) for chain in made.chains]


NEW = "install: download-2.0 unpack-2.0 settings-2.0-one install-2.0 enable-2.0-one tidy-2.0"
UPDATE = (
    "update: download-2.0 unpack-2.0 settings-2.0-one keep-1.0 disable-1.0-one carry-1.0 update-2.0 "
    "uninstall-1.0 delete-1.0 install-2.0 enable-2.0-one tidy-2.0"
)
DOWNGRADE = (
    "update: download-1.9 unpack-1.9 settings-1.9-one keep-1.10 carry-1.10 update-1.10 "
    "uninstall-1.10 delete-1.10 install-1.9 enable-1.9-one tidy-1.9"
)
REMOVAL = "remove: disable-1.0-one uninstall-1.0 delete-1.0 forget-1.0"


@pytest.mark.parametrize(
    ("before", "wished", "steps"),
    [
        (None, [wish(version="2.0")], [NEW]),
        (record(None, plan.NOT_INSTALLED), [wish(version="2.0")], [NEW]),
        (record(one=0), [], [REMOVAL]),
        (record(None, plan.NOT_INSTALLED), [], ["remove: forget"]),
        (record(state=plan.INSTALLED, one=0), [], ["remove: uninstall-1.0 delete-1.0 forget-1.0"]),
        (record(one=0), [wish()], ["enable: settings-1.0-one enable-1.0-one"]),
        (record(one=0), [wish(version="1.0.0")], ["enable: settings-1.0-one enable-1.0-one"]),
        (record(one=0), [wish(sequence=3)], ["enable: settings-1.0-one enable-1.0-one"]),
        # Another extension of the name, or another name: the handler would not run what it thinks it has run.
        (record(one=3), [wish(sequence=0)], [REMOVAL, NEW.replace("2.0", "1.0")]),
        (record(one=0), [wish(publicSettings={"a": 1})], [REMOVAL, NEW.replace("2.0", "1.0")]),
        (record(one=0), [wish("two")], [REMOVAL, NEW.replace("2.0", "1.0").replace("one", "two")]),
        (
            record(one=0),
            [wish(version="2.0")],
            [
                UPDATE,
            ],
        ),
        (
            record("1.10", plan.FAILED_UPGRADE, one=0),
            [wish(version="1.9")],
            [
                DOWNGRADE,
            ],
        ),
        (
            record("1.0", plan.FAILED_UPGRADE, one=0),
            [wish()],
            ["enable: settings-1.0-one enable-1.0-one"],
        ),
        (
            record(multi=True, one=0, two=0),
            [wish("two", sequence=1), wish("three")],
            [
                "drop: disable-1.0-one drop-1.0-one",
                "enable: settings-1.0-two enable-1.0-two settings-1.0-three enable-1.0-three",
            ],
        ),
        (
            record(multi=True, one=4),
            [wish(sequence=1)],
            ["drop: disable-1.0-one drop-1.0-one", "enable: settings-1.0-one enable-1.0-one"],
        ),
        (
            record(multi=True),
            [wish(dependencyLevel=2), wish("two", dependencyLevel=1)],
            [
                "enable: settings-1.0-two enable-1.0-two",
                "enable: settings-1.0-one enable-1.0-one",
            ],
        ),
    ],
)
def test_what_is_done(before: plan.Record | None, wished: list[Wish], steps: list[str]) -> None:
    records = {} if before is None else {"test.fake": before}
    assert said(plan.make(records, wished)) == steps


@pytest.mark.parametrize(
    ("incarnation", "sequence", "is_awake", "steps"),
    [
        # The hub was restored from a backup: what it tells was carried out before.
        ("a", 0, True, []),
        ("a", 0, False, ["enable: settings-1.0-one enable-1.0-one"]),
        ("a", 4, True, ["enable: settings-1.0-one enable-1.0-one"]),
        # Another extension of the name, whatever its number.
        ("b", 0, True, [REMOVAL, NEW.replace("2.0", "1.0")]),
        ("b", 3, True, [REMOVAL, NEW.replace("2.0", "1.0")]),
        ("b", 9, True, [REMOVAL, NEW.replace("2.0", "1.0")]),
    ],
)
def test_a_sequence_is_compared_within_one_incarnation(
    incarnation: str, sequence: int, is_awake: bool, steps: list[str]
) -> None:
    before = record(one=3)
    before["extensions"]["one"].update(incarnation="a", thumbprint="AB")
    wanted = wish(
        sequence=sequence, incarnation=incarnation, publicSettings={"of": "yesterday"} if sequence == 0 else None
    )
    made = plan.make({"test.fake": before}, [wanted], awake=[("test.fake", "one")] if is_awake else [])
    assert said(made) == steps
    told = plan.effective(wanted, before, 0)
    if incarnation == "a" and sequence == 0:
        known = before["extensions"]["one"]
        assert (told.sequence, told.digest) == (3, known["digest"])
        for chain in made.chains:
            after = plan.applied(before, chain, chain["steps"][-1], True, {}, told)
            assert after is not None
            assert after["extensions"]["one"] == known, "what stands is left as it is"
    else:
        assert told == wanted


def test_what_cannot_be_deleted_is_not_forgotten() -> None:
    records = {"test.fake": record(one=0)}
    carried_out(records, plan.make(records, []), [], {}, lambda step: step["do"] == "delete")
    assert said(plan.make(records, [])) == ["remove: delete-1.0 forget"]
    assert list(records["test.fake"]["extensions"]) == ["one"]
    carried_out(records, plan.make(records, []), [], {}, lambda _: False)
    assert records == {}


@pytest.mark.parametrize("before", [{}, {"machine": "another"}])
def test_what_takes_the_place_of_what_cannot_be_deleted_has_nothing_of_it(before: dict[str, str]) -> None:
    """Its folder alone is left, and is tried again when the handler is installed the next time."""
    records = {"test.fake": {**record(one=0), **before}}
    wanted = [wish("two", "2.0")]
    carried_out(records, plan.make(records, wanted), wanted, {}, lambda step: step["do"] == "delete")
    after = records["test.fake"]
    assert (list(after["extensions"]), after["version"], after["machine"]) == (["two"], "2.0", "")
    assert "1.0" in after["folders"]
    awake = [("test.fake", "two")]
    made = said(plan.make(records, wanted, awake=awake))
    assert made == ["drop: delete-1.0 tidy-2.0"], "what was installed stays"


def test_order_among_handlers() -> None:
    records = {
        "test.a": {**record(one=0), "type": "A"},
        "test.b": {**record(two=0), "type": "B"},
    }
    records["test.b"]["extensions"]["two"]["level"] = 3
    made = plan.make(records, [wish("x", kind="X", dependencyLevel=1), wish("y", kind="Y")])
    assert [(chain["kind"], chain["type"]) for chain in made.chains] == [
        ("remove", "B"),
        ("remove", "A"),
        ("install", "Y"),
        ("install", "X"),
    ]


@pytest.mark.parametrize(
    ("more", "steps", "refused"),
    [
        ({"forbidden": {"test.fake": "blocked"}}, ["enable: settings-1.0-one enable-1.0-one"], {}),
        ({"forbidden": {"test.fake": "blocked"}, "awake": [("test.fake", "one")]}, [], {}),
        ({"frozen": True}, ["enable: settings-1.0-one enable-1.0-one"], {}),
        ({"held": ["test.fake"]}, [], {}),
        ({"awake": [("test.fake", "one")]}, [], {}),
    ],
)
def test_what_is_left_alone(more: dict[str, Any], steps: list[str], refused: dict[str, str]) -> None:
    made = plan.make({"test.fake": record(one=0)}, [wish()], **more)
    assert (said(made), made.refused) == (steps, refused)


@pytest.mark.parametrize("wished", [wish(sequence=1), wish(version="2.0"), wish(kind="Other")])
def test_lists_refuse_what_is_new_and_take_nothing_away(wished: Wish) -> None:
    forbidden = {"test.fake": "no", "test.other": "no"}
    held = ["test.fake"] if wished.type == "Other" else []
    made = plan.make({"test.fake": record(one=0)}, [wished], held, forbidden)
    assert made.refused == {"one": "no"}
    assert said(made) == []


def test_a_second_extension_needs_a_handler_that_takes_several() -> None:
    made = plan.make({"test.fake": record(one=0)}, [wish(), wish("two")])
    assert set(made.refused) == {"one", "two"}
    assert made.chains == []


def test_a_faulty_entry_holds_what_is_there() -> None:
    records = {"test.fake": record(one=0)}
    assert plan.make(records, [], held=["one"]).chains == []
    assert plan.make(records, [], held=["test.fake"]).chains == []
    assert plan.make(records, [], frozen=True).chains == []


def test_a_version_that_was_rejected_is_not_tried_again() -> None:
    before = {**record(one=0), "rejected": ["2.0", 7, "why"]}
    wanted = wish(version="2.0", rollbackTo="1.0")
    awake = [("test.fake", "one")]
    assert plan.make({"test.fake": before}, [wanted], awake=awake, generation=7).chains == []
    assert plan.make({"test.fake": before}, [wanted], awake=awake, generation=8).chains != []


FRESH = ["remove: disable-1.0-one uninstall-1.0 delete-1.0 forget-1.0", NEW.replace("2.0", "1.0")]
OLDER = "remove: disable-2.0-one uninstall-2.0 delete-2.0 forget-2.0"


@pytest.mark.parametrize(
    ("sequence", "machine", "wished", "steps"),
    [
        # Nobody's, as the former version wrote it, and one's own.
        (0, "", [], [REMOVAL]),
        (0, "me", [], [REMOVAL]),
        (0, "me", [wish()], ["enable: settings-1.0-one enable-1.0-one"]),
        # Another machine's, which this disk was or was copied from: left alone, and not enabled either.
        (0, "other", [], []),
        (0, "other", [wish(kind="Next")], [NEW.replace("2.0", "1.0")]),
        # Wished for this one too: from the beginning, though it looks the same.
        (0, "other", [wish()], FRESH),
        (5, "other", [wish()], FRESH),
        (0, "other", [wish("two")], [FRESH[0], FRESH[1].replace("one", "two")]),
    ],
)
def test_only_what_this_machine_wished_is_removed(
    sequence: int, machine: str, wished: list[Wish], steps: list[str]
) -> None:
    records = {"test.fake": {**record(one=sequence), "machine": machine}}
    assert said(plan.make(records, wished, machine="me")) == steps


def test_a_handler_of_several_that_another_machine_wished_begins_anew_as_a_whole() -> None:
    records = {"test.fake": {**record("2.0", multi=True, one=0), "machine": "other"}}
    made = plan.make(records, [wish("two", "2.0")], awake=[("test.fake", "two")], machine="me")
    assert said(made) == [OLDER, NEW.replace("one", "two")]


@pytest.mark.parametrize("more", [{"forbidden": {"test.fake": "no"}}, {"frozen": True}])
def test_what_may_not_be_wished_is_not_taken_over(more: dict[str, Any]) -> None:
    made = plan.make({"test.fake": {**record(one=0), "machine": "other"}}, [wish()], machine="me", **more)
    assert (said(made), set(made.refused)) == ([], {"one"})


# -- every wish is reached from every state

names = st.sampled_from(["one", "two", "three"])
versions = st.sampled_from(["1.0", "1.9", "1.10", "2.0"])


@st.composite
def states(draw: st.DrawFn) -> plan.Record:
    multi = draw(st.booleans())
    state = draw(st.sampled_from([plan.NOT_INSTALLED, plan.INSTALLED, plan.ENABLED, plan.FAILED_UPGRADE]))
    version = None if state == plan.NOT_INSTALLED else draw(versions)
    made = record(version, state, multi)
    for name in draw(st.sets(names, max_size=3 if multi else 1)):
        made["extensions"][name] = {
            "name": name,
            "sequence": draw(st.integers(0, 2)),
            "digest": draw(st.sampled_from([wish().digest, "other"])),
            "enabled": state == plan.ENABLED and draw(st.booleans()),
            "level": draw(st.integers(0, 2)),
            "thumbprint": None,
        }
    if state == plan.ENABLED and not any(known["enabled"] for known in made["extensions"].values()):
        made["state"] = plan.INSTALLED
    made["folders"] = sorted({*made["folders"], *draw(st.sets(versions, max_size=2))})
    return made


@st.composite
def wanted(draw: st.DrawFn, multi: bool) -> list[Wish]:
    version = draw(versions)
    found = draw(st.sets(names, max_size=3 if multi else 1))
    return [
        wish(name, version, draw(st.integers(0, 2)), dependencyLevel=draw(st.integers(0, 2))) for name in sorted(found)
    ]


def carried_out(
    records: dict[str, plan.Record], made: plan.Plan, wished: list[Wish], facts: dict[str, Any], fails: Any
) -> list[tuple[str, str]]:
    """Applies a plan as the engine does; (key, ident) of what was enabled. Never two versions are enabled."""
    awake = []
    for chain in made.chains:
        key = f"{chain['publisher']}.{chain['type']}".lower()
        if not plan.is_possible(chain, records.get(key)):
            continue
        for step in chain["steps"]:
            if not plan.is_due(step, facts):
                continue
            is_well = not fails(step)
            before = records.get(key) or plan.blank(chain["publisher"], chain["type"])
            found = next((one.at(step["version"]) for one in wished if one.ident == step["name"]), None)
            told = {**facts, "archive": "zip"}
            after = plan.applied(before, chain, step, is_well, told, found)
            records.pop(key, None)
            if after is not None:
                again = plan.applied(after, chain, step, is_well, told, found)
                assert again == after, "a step's effect may be applied twice"
                records[key] = after
                enabled = [known for known in after["extensions"].values() if known["enabled"]]
                assert not enabled or after["version"] is not None
                assert bool(enabled) == (after["state"] == plan.ENABLED)
            if is_well and step["do"] == "enable":
                assert step["version"] == records[key]["version"], "what is enabled is what is installed"
                awake.append((key, step["name"]))
            if not plan.goes_on(step, is_well, facts):
                break
    return awake


@settings(max_examples=400, deadline=None)
@given(states(), st.data(), st.booleans(), st.booleans())
def test_every_wish_is_reached(before: plan.Record, data: st.DataObject, with_install: bool, goes_on: bool) -> None:
    """Whatever fails on the way, once nothing fails any more one plan leads to what is wished; the next is empty."""
    facts = {**MULTI, "multi": before["multi"], "withInstall": with_install, "goOn": goes_on}
    wished = data.draw(wanted(before["multi"]))
    records = {"test.fake": before}
    for _ in range(data.draw(st.integers(0, 3))):
        broken = data.draw(
            st.sets(st.sampled_from(["download", "install", "enable", "disable", "update", "uninstall", "delete"]))
        )
        made = plan.make(records, wished)
        carried_out(records, made, wished, facts, lambda step, broken=broken: step["do"] in broken)
    made = plan.make(records, wished)
    awake = carried_out(records, made, wished, facts, lambda _: False)
    assert plan.make(records, wished, awake=awake).chains == []
    if not wished:
        assert records == {}
        return
    found = records["test.fake"]
    assert (found["state"], found["version"]) == (plan.ENABLED, wished[0].version)
    assert found["folders"] == [wished[0].version]
    assert {name: known["sequence"] for name, known in found["extensions"].items()} == {
        one.ident: one.sequence for one in wished
    }
