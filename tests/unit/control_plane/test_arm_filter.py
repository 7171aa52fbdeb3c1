# SPDX-License-Identifier: Apache-2.0
"""`$filter` of resource lists: what it takes, what it refuses, what it finds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.arm import resource_filter
from control_plane.arm.resource_filter import Facts
from control_plane.errors import ApiError

WEB = Facts("Web01", "Microsoft.HybridCompute/machines", "Fleet", "westeurope", {"env": "prod", "Owner": "it's <b>"})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, True),
        ("  ", True),
        ("name eq 'web01'", True),
        ("name ne 'web01'", False),
        ("resourceType eq 'microsoft.hybridcompute/MACHINES'", True),
        ("RESOURCEGROUP EQ 'fleet'", True),
        ("location eq 'West Europe'", True),
        ("location ne 'north'", True),
        ("substringof('EB0', name)", True),
        ("substringof('x', resourceGroup)", False),
        ("tagName eq 'ENV'", True),
        ("tagname eq 'env' and tagvalue eq 'prod'", True),
        ("tagName eq 'env' and tagValue eq 'Prod'", False),
        ("tagName eq 'env' and tagValue eq 'it''s <b>'", False),
        ("tagValue eq 'it''s <b>'", True),
        ("startswith(tagName, 'own')", True),
        ("startswith(tagname,'x')", False),
        ("name eq 'a' or name eq 'web01' and location eq 'westeurope'", True),
        ("(name eq 'a' or name eq 'web01') and location eq 'north'", False),
        ("resourceType eq 'Microsoft.HybridCompute/machines' and tagName eq 'env' and tagValue eq 'prod'", True),
        ("name eq '''; DROP TABLE machines; --'", False),
    ],
)
def test_what_is_found(text: str | None, found: bool) -> None:
    assert resource_filter.holds(resource_filter.read(text), WEB) == found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name", "ends where"),
        ("name eq", "ends where"),
        ("name eq web01", "stands where a text in single quotes"),
        ("name = 'x'", "cannot be read"),
        ("name gt 'x'", "'gt' is no operator"),
        ("colour eq 'red'", "'colour' is no property"),
        ("tagName ne 'x'", "'eq' only"),
        ("name eq 'x' name eq 'y'", "not expected"),
        ("(name eq 'x'", "ends where"),
        ("name eq 'x')", "not expected"),
        ("name eq 'x' and", "ends where"),
        ("name eq 'unfinished", "cannot be read"),
        ("name eq '\x00'", "NUL"),
        ("substringof('x', location)", "takes name or resourceGroup"),
        ("startswith(name, 'x')", "takes tagName"),
        ("(" * 40 + "name eq 'x'" + ")" * 40, "nested deeper"),
        (" and ".join(["name eq 'x'"] * 65), "more than 64"),
        ("name eq '" + "x" * 5000 + "'", "longer than"),
    ],
)
def test_what_is_refused(text: str, says: str) -> None:
    with pytest.raises(ApiError, match=says) as refused:
        resource_filter.read(text)
    assert (refused.value.status, refused.value.code) == (400, "InvalidFilterInQueryString")


@given(st.text(alphabet="name eqtagNV'(),ors x", max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        node = resource_filter.read(text)
    except ApiError as error:
        assert error.status == 400  # noqa: PT017 - any input: refused so, or taken
    else:
        assert resource_filter.holds(node, WEB) in (True, False)


_TEXTS = st.text(st.characters(exclude_characters="\x00"), min_size=1, max_size=20)


@given(_TEXTS, _TEXTS)
def test_a_quoted_text_is_compared_as_it_is(name: str, value: str) -> None:
    facts = Facts("n", "t", "g", "l", {name: value})
    quoted = [text.replace("'", "''") for text in (name, value)]
    node = resource_filter.read(f"tagName eq '{quoted[0]}' and tagValue eq '{quoted[1]}'")
    assert resource_filter.holds(node, facts)
    assert resource_filter.required_tag(node) == (name, value)
    assert not resource_filter.holds(node, Facts("n", "t", "g", "l", {name: f"{value}x"}))


@pytest.mark.parametrize(
    ("text", "name", "tag"),
    [
        ("name eq 'A'", "a", None),
        ("name eq 'A' or name eq 'B'", None, None),
        ("name ne 'A' and tagName eq 'E'", None, ("E", None)),
        ("(name eq 'A' or name eq 'B') and tagName eq 'E' and tagValue eq 'V'", None, ("E", "V")),
        ("tagValue eq 'V'", None, None),
    ],
)
def test_what_the_database_may_leave_out(text: str, name: str | None, tag: tuple[str, str | None] | None) -> None:
    node = resource_filter.read(text)
    assert resource_filter.required(node, "name") == name
    assert resource_filter.required_tag(node) == tag
