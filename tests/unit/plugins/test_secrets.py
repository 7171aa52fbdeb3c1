# SPDX-License-Identifier: Apache-2.0
"""No secret stays in a result."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.hawser.machine.plugins.plugin_utils._secrets import MASK, without_secrets
from hypothesis import given
from hypothesis import strategies as st

VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.just("a hush-1 b")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.just("hush-1"), inner),
)


@given(VALUES)
def test_no_secret_stays(value: Any) -> None:
    cleaned = json.dumps(without_secrets(value, {"hush-1", "hush-12", ""}))
    assert "hush-1" not in cleaned


def test_the_rest_stays() -> None:
    value = {"a": ["x hush y", 1, None, True], "hush": {"b": ("hush", "long hush-hush")}}
    assert without_secrets(value, {"hush", "hush-hush"}) == {
        "a": [f"x {MASK} y", 1, None, True],
        MASK: {"b": [MASK, f"long {MASK}"]},
    }
    assert without_secrets(value, set()) is value
