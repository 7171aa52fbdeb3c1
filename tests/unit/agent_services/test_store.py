# SPDX-License-Identifier: Apache-2.0
"""The files of gcad and extd: floors that never fall, writes that may be repeated after a crash at any of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.service import binding, desired_store
from agent_runtime.service.desired_store import MACHINES_KEPT, Store, raised
from agent_runtime.state import atomic

ids = st.sampled_from([f"{number:08d}-0000-4000-8000-00000000000A" for number in range(12)])
kinds = st.sampled_from(["policy", "extensions"])


@given(st.lists(st.tuples(ids, kinds, st.integers(1, 50)), min_size=1, max_size=60))
def test_floors_never_fall_and_stay_few(steps: list[tuple[str, str, int]]) -> None:
    floors: dict[str, dict[str, int]] = {}
    for vm_id, kind, generation in steps:
        before = floors.get(vm_id.lower(), {}).get(kind, 0)
        floors = raised(floors, vm_id, kind, generation)
        assert floors[vm_id.lower()][kind] == max(before, generation)
        assert len(floors) <= MACHINES_KEPT


class KilledError(Exception):
    """Stands for kill -9."""


@pytest.mark.parametrize("writes", range(4))
def test_a_crash_at_any_write_of_accept_is_repaired_by_doing_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    left = [writes]

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if left[0] == 0:
                raise KilledError
            left[0] -= 1
            return original(*args, **kwargs)

        return call

    store = Store(str(tmp_path), ["policy"])
    store.open()
    store.accept("A", "policy", 3, "three")
    store.enqueue("policy", "four")
    with monkeypatch.context() as patch:
        for name in ("write_bytes", "unlink"):
            patch.setattr(atomic, name, counted(getattr(atomic, name)))
        try:
            store.accept("A", "policy", 4, "four")
            finished = True
        except KilledError:
            finished = False
    assert finished == (writes >= 3)
    again = Store(str(tmp_path), ["policy"])
    assert again.open() is None
    assert again.floor("a", "policy") in (3, 4)
    assert again.kept("policy") in ("three", "four")
    # Whatever was done: either the document waits still, or all of it is done.
    if again.queued("policy") == "four":
        again.accept("A", "policy", 4, "four")
    assert (again.floor("A", "policy"), again.kept("policy"), again.queued("policy")) == (4, "four", None)


def test_a_newer_document_is_not_taken_out_with_the_judged_one(tmp_path: Path) -> None:
    store = Store(str(tmp_path), ["policy"])
    store.open()
    store.enqueue("policy", "one")
    store.enqueue("policy", "two")
    store.accept("A", "policy", 1, "one")
    assert store.queued("policy") == "two"


def test_a_damaged_floor_file_sends_kept_documents_back_to_judgement(tmp_path: Path) -> None:
    store = Store(str(tmp_path), ["policy"])
    store.open()
    store.accept("A", "policy", 9, "nine")
    (tmp_path / "floor.json").write_text('{"v": 1, "floors": {"a": {"policy": "9"}}}')
    again = Store(str(tmp_path), ["policy"])
    assert "damaged" in str(again.open())
    assert again.kept("policy") is None
    assert again.queued("policy") == "nine"
    assert sorted(os.listdir(tmp_path)) == ["desired", "floor.json.damaged", "queue"]


def test_an_overlong_document_is_not_read(tmp_path: Path) -> None:
    store = Store(str(tmp_path), ["policy"])
    store.open()
    (tmp_path / "queue/policy.jws").write_bytes(b"x" * (desired_store.DOCUMENT_LIMIT + 1))
    assert store.queued("policy") is None
    assert not (tmp_path / "queue/policy.jws").exists()


@given(st.text(max_size=200))
def test_no_text_breaks_the_look_at_a_kept_document(text: str) -> None:
    found = binding.machine_of(text)
    assert found is None or isinstance(found, str)
