# SPDX-License-Identifier: Apache-2.0
"""What a request for a ticket may hold."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.api.tickets import read_operations
from control_plane.errors import ApiError

MACHINE = (
    "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/rg"
    "/providers/Microsoft.HybridCompute/machines/web01"
)


def test_operations_are_read() -> None:
    wish = [{"operation": "connect", "resourceId": MACHINE}, {"operation": "delete", "resourceId": MACHINE}]
    assert read_operations({"operations": wish}) == wish


@pytest.mark.parametrize("operation", ["seal", "", None, 1, [], ["connect"], {}, {"connect": 1}, "CONNECT"])
def test_what_is_no_operation(operation: Any) -> None:
    with pytest.raises(ApiError, match="must be one of") as refused:
        read_operations({"operations": [{"operation": operation, "resourceId": MACHINE}]})
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "resource_id", ["", "web01", None, 1, [], [MACHINE], {}, f"{MACHINE}/extensions/x", "/" * 2000]
)
def test_what_is_no_machine(resource_id: Any) -> None:
    with pytest.raises(ApiError, match="resourceId") as refused:
        read_operations({"operations": [{"operation": "connect", "resourceId": resource_id}]})
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"operations": []},
        {"operations": {}},
        {"operations": [None]},
        {"operations": [{"operation": "connect"}]},
        {"operations": [{"operation": "connect", "resourceId": MACHINE, "more": 1}]},
        {"operations": [{"operation": "connect", "resourceId": MACHINE}] * 9},
        {"operations": [{"operation": "connect", "resourceId": MACHINE}], "more": 1},
    ],
)
def test_what_is_no_request(body: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as refused:
        read_operations(body)
    assert refused.value.status == 400
